"""Waiting in every mode: poke, reschedule and deferred come to the same, whatever the arguments."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseSensorOperator, TaskDeferred

from airflow_provider_quicksync import polling
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor
from airflow_provider_quicksync.triggers import QuickSyncUploadCompletionTrigger

MODES = ["poke", "reschedule", "deferred", "ended by the trigger"]
WAITING = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}}
WAITING["deferred"] = {"deferrable": True}
WAITING["ended by the trigger"] = {"deferrable": True, "end_from_trigger": True}
METADATA = {"file_key", "name", "raw_name", "creator_id", "completed", "total_parts", "size_bytes"}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(polling, "GATHER_SECONDS", 0.01)
    # Files here are completed by looks, which a hub makes rare.
    monkeypatch.setattr(polling, "SAFETY_SECONDS", 0.05)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def wait(mode, run_task):
    """Run one sensor in each of its modes."""

    def run(file_key, **arguments):
        arguments = {"poke_interval": 0.05, "timeout": 60, **WAITING[mode], **arguments}
        return run_task(QuickSyncUploadCompletionSensor, file_key=file_key, **arguments)

    return run


def slow(quicksync, polls=2):
    """Files are complete after so many looks: the first one is never enough."""
    quicksync.configure(complete_after_polls=polls)


# What comes of it


def test_one_file(quicksync, wait):
    slow(quicksync)
    key = quicksync.put("a")
    ran = wait(key)
    assert (ran.state, ran.attempts) == ("success", 1), ran
    assert set(ran.result) == METADATA
    assert (ran.result["file_key"], ran.result["name"], ran.result["completed"]) == (key, "a", True)


def test_a_receipt(quicksync, wait):
    slow(quicksync)
    receipt = {"file_key": quicksync.put("a"), "name": "a", "size_bytes": 1}
    assert wait(receipt).result["file_key"] == receipt["file_key"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_list(quicksync, wait, count):
    slow(quicksync)
    keys = [quicksync.put(name) for name in "abc"[:count]]
    ran = wait([{"file_key": keys[0]}, *keys[1:]])
    assert ran.state == "success", ran
    assert [(file["file_key"], file["name"]) for file in ran.result] == list(zip(keys, "abc", strict=False))


def test_what_is_complete_already_needs_one_look(quicksync, wait):
    key = quicksync.put("a")
    quicksync.reset_log()
    assert wait(key).state == "success"
    assert quicksync.calls == ["get_file"]


def test_no_result_where_none_is_wanted(quicksync, wait):
    slow(quicksync)
    ran = wait(quicksync.put("a"), do_xcom_push=False)
    assert (ran.state, ran.result) == ("success", None)


def test_a_growing_interval(quicksync, wait):
    slow(quicksync)
    ran = wait(quicksync.put("a"), exponential_backoff=True, max_wait=timedelta(seconds=0.05))
    assert ran.state == "success", ran


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429, "retry_after": 0}, {"cut": "reset"}], ids=str
)
def test_a_busy_service_is_waited_out(quicksync, wait, fault):
    slow(quicksync)
    key = quicksync.put("a")
    quicksync.fail("get_file", times=3, **fault)
    ran = wait(key)
    assert (ran.state, ran.attempts) == ("success", 1), ran


def test_busy_after_the_first_look(quicksync, wait):
    slow(quicksync)
    key = quicksync.put("a")
    quicksync.fail("get_file", skip=1, times=4, status=503)
    ran = wait(key)
    assert (ran.state, ran.attempts) == ("success", 1), ran


# What goes wrong, at the first look (0) and later


def gone(quicksync, connect, key, skip):
    if skip:
        quicksync.fail("get_file", skip=skip, status=404, times=None)
    else:
        quicksync.client().delete_file(key)


def refused(quicksync, connect, key, skip):
    quicksync.fail("get_file", skip=skip, status=403, times=None)


def expired(quicksync, connect, key, skip):
    if skip:
        quicksync.fail("get_file", skip=skip, status=401, times=None)
    else:
        quicksync.expire_session()


def damaged(quicksync, connect, key, skip):
    quicksync.fail("get_file", skip=skip, body="not_json", times=None)


BROKEN = {
    "gone": (gone, "the session has no such file"),
    "refused": (refused, "check the session token"),
    "expired": (expired, "session token"),
}


@pytest.fixture(params=[0, 1], ids=["at once", "later"])
def skip(request):
    return request.param


@pytest.mark.parametrize(
    ("broken", "arguments", "state"),
    [
        ("gone", {}, "failed"),
        ("refused", {}, "failed"),
        ("expired", {}, "failed"),
        ("gone", {"soft_fail": True}, "skipped"),
        ("gone", {"never_fail": True}, "skipped"),
        ("gone", {"silent_fail": True}, "failed"),
    ],
    ids=lambda value: next(iter(value), "plain") if isinstance(value, dict) else value,
)
def test_what_waiting_cannot_mend(quicksync, connect, wait, skip, broken, arguments, state):
    slow(quicksync, polls=50)
    key = quicksync.put("a")
    break_it, said = BROKEN[broken]
    break_it(quicksync, connect, key, skip)
    ran = wait(key, retries=2, retry_delay=timedelta(seconds=0), **arguments)
    assert (ran.state, ran.attempts) == (state, 1), ran
    if state == "failed":
        assert ran.kind == "AirflowFailException"
        assert said in ran.said


@pytest.mark.parametrize(
    ("arguments", "state"),
    [({}, "failed"), ({"soft_fail": True}, "failed"), ({"never_fail": True}, "skipped")],
    ids=["plain", "soft_fail", "never_fail"],
)
def test_what_another_attempt_may_mend(quicksync, connect, wait, skip, arguments, state):
    slow(quicksync, polls=50)
    key = quicksync.put("a")
    damaged(quicksync, connect, key, skip)
    ran = wait(key, **arguments)
    assert ran.state == state, ran
    if state == "failed":
        assert ran.kind == "DamagedError"
        assert "not JSON" in ran.said


def test_a_silent_failure_is_looked_past(quicksync, wait, skip):
    slow(quicksync, polls=5)  # a look with a broken answer counts, and the hub may tell sooner
    key = quicksync.put("a")
    quicksync.fail("get_file", skip=skip, body="not_json", times=2)
    ran = wait(key, silent_fail=True)
    assert (ran.state, ran.attempts) == ("success", 1), ran


def test_a_silent_failure_is_not_looked_past_for_ever(quicksync, wait):
    """The timeout counts from the first look, however often the task is resumed."""
    key = quicksync.put("a")
    quicksync.fail("get_file", body="not_json", times=None)
    ran = wait(key, silent_fail=True, timeout=1.0)
    assert (ran.state, ran.kind) == ("failed", "AirflowSensorTimeout"), ran


def test_soft_fail_and_a_silent_failure(quicksync, wait):
    key = quicksync.put("a")
    quicksync.fail("get_file", body="not_json", times=None)
    assert wait(key, silent_fail=True, soft_fail=True, timeout=0.5).state == "skipped"


# What the task hands to the trigger


def deferred(**arguments):
    """The deferral of a sensor whose first look is not enough."""
    with DAG(dag_id="deferred", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        sensor = QuickSyncUploadCompletionSensor(task_id="it", deferrable=True, **arguments)
    with pytest.raises(TaskDeferred) as raised:
        sensor.execute({})
    return raised.value


def test_the_wait_is_the_triggers(quicksync):
    slow(quicksync)
    keys = [quicksync.put("a"), quicksync.put("b")]
    deferral = deferred(file_key=keys, poke_interval=timedelta(seconds=7), timeout=600)
    assert isinstance(deferral.trigger, QuickSyncUploadCompletionTrigger)
    assert deferral.trigger.file_keys == keys
    assert deferral.trigger.poke_interval == 7
    assert deferral.trigger.longest_interval is None
    assert timedelta(seconds=590) < deferral.timeout <= timedelta(seconds=600)
    json.dumps(deferral.trigger.serialize())


@pytest.mark.parametrize(
    ("arguments", "longest"),
    [
        ({"exponential_backoff": True, "timeout": 600}, 600),
        ({"exponential_backoff": True, "max_wait": timedelta(seconds=90)}, 90),
        ({"max_wait": timedelta(seconds=90)}, None),
    ],
)
def test_a_growing_interval_is_the_triggers(quicksync, arguments, longest):
    slow(quicksync)
    assert deferred(file_key=quicksync.put("a"), **arguments).trigger.longest_interval == longest


# Arguments of Airflow's sensors that the above covers, or that Airflow itself sees to before a sensor runs.
COVERED = {"poke_interval", "timeout", "soft_fail", "never_fail", "silent_fail", "exponential_backoff"}
COVERED |= {"max_wait", "mode"}


def test_every_argument_of_airflows_sensors_is_covered():
    parameters = inspect.signature(BaseSensorOperator.__init__).parameters.values()
    theirs = {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
    assert theirs == COVERED


def test_airflows_default_is_to_defer_where_it_says_so():
    """`[operators] default_deferrable` is read when the class is made."""
    program = (
        "from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor as S;"
        "from airflow_provider_quicksync.operators import UploadToQuickSyncOperator as U;"
        "print(S(task_id='s', file_key='k').deferrable, U(task_id='u', data='x', name='n').deferrable)"
    )
    for value in ("True", "False"):
        settings = os.environ | {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": value}
        printed = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env=settings,
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout.split()[-2:] == [value, value]


# The upload task


@pytest.fixture(params=[False, True], ids=["blocking", "deferred"])
def upload(request, run_task):
    """Upload one file and wait for it, in both modes."""

    def run(**arguments):
        arguments = {
            "data": "new",
            "name": "a",
            "poke_interval": 0.05,
            "wait_for_completion": True,
            **arguments,
        }
        return run_task(UploadToQuickSyncOperator, deferrable=request.param, **arguments)

    return run


def test_uploading_and_waiting(quicksync, upload):
    slow(quicksync)
    ran = upload()
    assert (ran.state, ran.attempts) == ("success", 1), ran
    assert ran.result["completed"] is True
    assert quicksync.contents() == {"a": b"new"}


def test_uploading_several_and_waiting(quicksync, upload, tmp_path):
    slow(quicksync)
    for name in "abc":
        (tmp_path / name).write_text(name)
    ran = upload(source=str(tmp_path / "*"), data=None, name=None)
    assert ran.state == "success", ran
    assert [(receipt["name"], receipt["completed"]) for receipt in ran.result] == [(n, True) for n in "abc"]


def test_replaced_files_go_only_when_the_new_one_is_complete(quicksync, upload):
    old = quicksync.put("a", b"old")
    slow(quicksync, polls=4)
    ran = upload(if_exists="replace", wait_for_completion=False)
    assert (ran.state, ran.result["completed"]) == ("success", True), ran
    calls = quicksync.calls
    looks = [number for number, call in enumerate(calls) if call == "get_file"]
    assert calls.count("delete") == 1
    assert calls.index("delete") > looks[3], calls
    assert [file["file_key"] for file in quicksync.files()] == [ran.result["file_key"]]
    assert old != ran.result["file_key"]


def test_nothing_is_replaced_by_what_is_never_complete(quicksync, upload):
    old = quicksync.put("a", b"old")
    slow(quicksync, polls=50)
    quicksync.fail("get_file", skip=2, status=403, times=None)
    ran = upload(if_exists="replace")
    assert (ran.state, ran.kind) == ("failed", "AirflowFailException"), ran
    assert old in [file["file_key"] for file in quicksync.files()]
    assert "delete" not in quicksync.calls


def test_an_uploaded_file_that_is_gone(quicksync, upload):
    slow(quicksync, polls=50)
    quicksync.fail("get_file", skip=1, status=404, times=None)
    ran = upload(retries=2, retry_delay=timedelta(seconds=0))
    assert (ran.state, ran.attempts, ran.kind) == ("failed", 1, "AirflowFailException"), ran
    assert "the session has no such file" in ran.said


@pytest.mark.parametrize("first", [0, 1], ids=["at the first look", "later"])
def test_a_service_that_is_busy_while_an_upload_is_waited_for(quicksync, upload, first):
    slow(quicksync)
    quicksync.fail("get_file", skip=first, times=5, status=503)
    ran = upload()
    assert (ran.state, ran.attempts) == ("success", 1), ran
    assert quicksync.calls.count("complete") == 1


def test_an_answer_that_is_none_while_an_upload_is_waited_for(quicksync, upload):
    slow(quicksync, polls=5)
    quicksync.fail("get_file", skip=1, body="not_json")
    ran = upload()
    assert (ran.state, ran.kind) == ("failed", "DamagedError"), ran

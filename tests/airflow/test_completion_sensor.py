"""The completion sensor: what it waits for, what it doesn't wait for, and what it returns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_quicksync.operators import UploadToQuickSyncOperator
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor

MODES = ["poke", "reschedule"]


def dag(**arguments):
    return DAG(dag_id="waits", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **arguments)


@pytest.fixture(params=MODES)
def wait(request, run_task):
    """Run one sensor, in each of its modes."""

    def run(file_key, **arguments):
        arguments = {"poke_interval": 0.01, "timeout": 60, "mode": request.param, **arguments}
        return run_task(QuickSyncUploadCompletionSensor, file_key=file_key, **arguments)

    return run


def test_one_file_that_takes_a_while(quicksync, wait, log_text):
    quicksync.configure(complete_after_polls=2)
    key = quicksync.put("a.csv", b"abc")
    ran = wait(key)
    assert ran.state == "success", ran
    assert ran.result.pop("raw_name") == quicksync.files()[0]["file_name"]
    assert ran.result == {
        "file_key": key,
        "name": "a.csv",
        "creator_id": quicksync.creator_id,
        "completed": True,
        "total_parts": 1,
        "size_bytes": 3,
    }
    assert quicksync.calls.count("get_file") == 3
    assert "0 of 1 files are complete, waiting" in log_text()


def test_several_files_cost_one_listing_a_look(quicksync, wait):
    quicksync.configure(complete_after_polls=1)
    keys = [quicksync.put(name) for name in "abc"]
    quicksync.reset_log()
    ran = wait(keys)
    assert ran.state == "success", ran
    assert [file["file_key"] for file in ran.result] == keys
    assert [file["name"] for file in ran.result] == ["a", "b", "c"]
    assert quicksync.calls.count("list_files") == 2
    assert "get_file" not in quicksync.calls


@pytest.mark.parametrize("as_list", [False, True])
def test_a_receipt_and_a_list_of_one(quicksync, run_task, as_list):
    receipt = {"file_key": quicksync.put("a"), "name": "a"}
    ran = run_task(QuickSyncUploadCompletionSensor, file_key=[receipt] if as_list else receipt)
    assert isinstance(ran.result, list) == as_list
    assert (ran.result[0] if as_list else ran.result)["file_key"] == receipt["file_key"]


def test_nothing_to_wait_for(quicksync, run_task):
    ran = run_task(QuickSyncUploadCompletionSensor, file_key=[])
    assert (ran.state, ran.result) == ("success", [])


def test_after_mapped_uploads(quicksync, run_dag):
    quicksync.configure(complete_after_seconds=0.2)
    with dag() as chained:
        uploads = UploadToQuickSyncOperator.partial(task_id="up", data="x").expand(name=["x", "y"])
        QuickSyncUploadCompletionSensor(task_id="all", file_key=uploads.output, poke_interval=0.05)
        each = QuickSyncUploadCompletionSensor.partial(task_id="each", poke_interval=0.05)
        each.expand(file_key=uploads.output)
    result = run_dag(chained)
    assert result.state == "success", result.errors
    assert [file["name"] for file in result.xcoms["all"]] == ["x", "y"]
    assert [result.xcoms[f"each[{n}]"]["name"] for n in (0, 1)] == ["x", "y"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda q, connect, key: q.client().delete_file(key), "is pointless: the session has no such file"),
        (lambda q, connect, key: connect(q, password="of-another-session"), "check the session token"),
        (lambda q, connect, key: q.expire_session(), "fresh session token"),
        (lambda q, connect, key: connect(q, password=""), "no session token"),
        (lambda q, connect, key: connect(q, extra={"max_attempts": "many"}), "max_attempts must be"),
    ],
    ids=["gone", "refused", "expired", "no token", "bad connection"],
)
def test_what_waiting_can_not_mend_fails_at_once(quicksync, connect, run_dag, mode, break_it, said):
    quicksync.configure(complete_after_seconds=3600)
    key = quicksync.put("a")
    break_it(quicksync, connect, key)
    quicksync.reset_log()
    with dag() as hopeless:
        QuickSyncUploadCompletionSensor(
            task_id="it", file_key=key, mode=mode, retries=2, retry_delay=timedelta(seconds=0)
        )
    result = run_dag(hopeless)
    (ti,) = result.dag_run.get_task_instances()
    assert (result.states, ti.try_number) == ({"it": "failed"}, 1)
    assert type(result.errors["it"]).__name__ == "AirflowFailException"
    assert said in str(result.errors["it"])
    assert len(quicksync.requests) <= 2


def test_a_file_that_goes_while_it_is_waited_for(quicksync, wait):
    keys = [quicksync.put("a"), quicksync.put("b")]
    quicksync.configure(complete_after_seconds=3600)
    quicksync.put("c")
    ran = wait([*keys, "gone"])
    assert ran.kind == "AirflowFailException"
    assert ran.said.startswith("waiting for gone is pointless")


@pytest.mark.parametrize("key", ["no-such-key", ["no-such-key", "another"]])
def test_soft_fail_makes_a_skip_of_a_failure(quicksync, run_task, key):
    ran = run_task(QuickSyncUploadCompletionSensor, file_key=key, soft_fail=True)
    assert ran.state == "skipped"


def test_soft_fail_makes_a_skip_of_a_timeout(quicksync, wait):
    quicksync.configure(complete_after_seconds=3600)
    assert wait(quicksync.put("a"), soft_fail=True, timeout=0.05).state == "skipped"


def test_the_timeout(quicksync, wait):
    quicksync.configure(complete_after_seconds=3600)
    ran = wait(quicksync.put("a"), timeout=0.05)
    assert (ran.state, ran.kind) == ("failed", "AirflowSensorTimeout")


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "retry_after": 0},
        {"status": 429, "retry_after": 0},
        {"cut": "reset"},
        {"cut": "response"},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_short_fault_is_waited_out(quicksync, wait, log_text, fault, count):
    """Of as many requests as one look makes, and one more."""
    keys = [quicksync.put(name) for name in "ab"[:count]]
    quicksync.fail("get_file" if count == 1 else "list_files", times=3, **fault)
    ran = wait(keys)
    assert (ran.state, ran.attempts) == ("success", 1), ran
    assert "looking again later" in log_text()


def test_an_unreachable_service_is_waited_out(quicksync, run_task, monkeypatch):
    key = quicksync.put("a")
    quicksync.stop()
    monkeypatch.setattr(
        "airflow_provider_quicksync.client.retry.RetryPolicy._wait",
        lambda policy, state: 0 if quicksync._thread else quicksync.start() and 0,
    )
    assert run_task(QuickSyncUploadCompletionSensor, file_key=key, poke_interval=0.01).state == "success"


@pytest.mark.parametrize("given", [None, {"name": "a"}, "{'file_key': 'k'}", "", "a\nb", 7])
def test_what_is_no_key_fails_at_once(quicksync, run_task, given):
    ran = run_task(QuickSyncUploadCompletionSensor, file_key=given)
    assert (ran.state, ran.kind) == ("failed", "AirflowFailException")
    assert ran.said
    assert quicksync.calls == []


# What the scheduler says of a deferral that took too long: 2.11, newer ones.
@pytest.mark.parametrize("said", ["Trigger/execution timeout", "Trigger timeout"])
def test_a_deferral_that_takes_too_long_is_a_timeout_on_every_version(said):
    def resumed(**arguments):
        sensor = QuickSyncUploadCompletionSensor(
            task_id="waits", file_key=["a", "b"], timeout=90, deferrable=True, **arguments
        )
        sensor.resume_execution("__fail__", {"error": said}, {})

    with pytest.raises(AirflowSensorTimeout, match="not complete after 90 s: a, b"):
        resumed()
    for allowance in ("soft_fail", "never_fail"):
        with pytest.raises(AirflowSkipException, match="not complete after 90 s: a, b"):
            resumed(**{allowance: True})

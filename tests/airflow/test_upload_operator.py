"""The upload task: existing files, limits, waiting, failures, its log, and dynamic mapping."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quicksync.client.transfer import progress
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

PART_MIB = 1000 / (1 << 20)


def dag(**arguments):
    return DAG(dag_id="uploads", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **arguments)


@pytest.fixture
def upload(run_task):
    """Run one upload task of a few bytes under the name `a`, unless the arguments say otherwise."""

    def run(**arguments):
        if "source" not in arguments:
            arguments = {"data": "new", "name": "a", **arguments}
        return run_task(UploadToQuickSyncOperator, **arguments)

    return run


def keys(quicksync):
    return [file["file_key"] for file in quicksync.files()]


# What is there already


def test_add_adds_another_of_the_same_name(quicksync, upload):
    old = quicksync.put("a")
    ran = upload()
    assert keys(quicksync) == [old, ran.result["file_key"]]


def test_skip_keeps_what_is_there_and_returns_its_receipt(quicksync, upload, log_text):
    quicksync.put("a", b"older")
    old = quicksync.put("a", b"old!")
    quicksync.put("b")
    quicksync.reset_log()
    ran = upload(if_exists="skip")
    assert ran.state == "success"
    assert ran.result == {
        "file_key": old,
        "name": "a",
        "size_bytes": 4,
        "sha256": None,
        "parts": 1,
        "completed": True,
        "session_id": quicksync.session_id,
    }
    assert "initiate" not in quicksync.calls
    assert f"skipped 'a': it is there as {old}" in log_text()


def test_skip_sends_what_is_not_there(quicksync, upload, tmp_path):
    old = quicksync.put("a.csv")
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_text(name)
    ran = upload(source=str(tmp_path / "*.csv"), if_exists="skip")
    assert [receipt["name"] for receipt in ran.result] == ["a.csv", "b.csv", "c.csv"]
    assert ran.result[0]["file_key"] == old
    assert quicksync.calls.count("initiate") == 1 + 2


def test_skip_does_not_take_an_unfinished_file_for_one(quicksync, upload):
    with quicksync.client() as client:
        unfinished = client.initiate_upload("a", size_bytes=3, total_parts=1)
    ran = upload(if_exists="skip")
    assert ran.result["file_key"] != unfinished.file_key
    assert unfinished.file_key in keys(quicksync)


def test_fail_sends_nothing(quicksync, upload):
    old = quicksync.put("a")
    quicksync.reset_log()
    ran = upload(if_exists="fail")
    assert (ran.state, ran.kind) == ("failed", "AirflowFailException")
    assert f"1 of 1 names are there already: 'a' ({old}); nothing was sent" in ran.said
    assert "initiate" not in quicksync.calls


def test_fail_sends_what_is_not_there(quicksync, upload):
    quicksync.put("b")
    assert upload(if_exists="fail").state == "success"


def test_replace_removes_the_older_files_only_once_the_new_one_is_complete(quicksync, upload):
    older = [quicksync.put("a", b"1"), quicksync.put("a", b"2")]
    other = quicksync.put("b")
    quicksync.configure(complete_after_polls=3)
    quicksync.reset_log()
    ran = upload(if_exists="replace", poke_interval=0.01)
    assert ran.state == "success"
    assert keys(quicksync) == [other, ran.result["file_key"]]
    assert ran.result["completed"] is True
    order = quicksync.calls
    first_delete = order.index("delete")
    assert order.count("delete") == len(older)
    assert "complete" in order[:first_delete]
    # One look at the new file tells its creator, and the fourth that it is complete.
    assert order[order.index("complete") : first_delete].count("get_file") >= 3
    assert {entry.path.rpartition("/")[2] for entry in quicksync.requests if entry.call == "delete"} == set(
        older
    )


def test_replace_keeps_the_older_files_where_the_new_one_is_not_complete_in_time(quicksync, upload):
    old = quicksync.put("a")
    quicksync.configure(complete_after_seconds=3600)
    ran = upload(if_exists="replace", poke_interval=0.01, completion_timeout=0.05)
    assert ran.state == "failed"
    assert "not complete after 0 s" in ran.said
    assert old in keys(quicksync)
    assert "delete" not in quicksync.calls


def test_replace_keeps_the_older_files_where_the_upload_fails(quicksync, upload):
    old = quicksync.put("a")
    quicksync.fail("put_part", status=400, times=None)
    assert upload(if_exists="replace").state == "failed"
    assert keys(quicksync) == [old]


def test_replace_keeps_the_files_of_other_creators(quicksync, upload):
    """Of a listing where only one file is of the creator of the new one."""
    mine, theirs = quicksync.put("a", b"1"), quicksync.put("a", b"2")
    with sqlite3.connect(quicksync.root / "state.sqlite") as database:
        database.execute("UPDATE uploads SET creator_id = 'somebody' WHERE file_key = ?", [theirs])
    database.close()
    quicksync.restart()
    ran = upload(if_exists="replace", poke_interval=0.01)
    assert ran.state == "success"
    assert keys(quicksync) == [theirs, ran.result["file_key"]]
    assert mine not in keys(quicksync)


def test_replace_with_nothing_to_replace_does_not_wait(quicksync, upload):
    quicksync.configure(complete_after_seconds=3600)
    ran = upload(if_exists="replace")
    assert (ran.state, ran.result["completed"]) == ("success", False)


def test_waiting_for_completion(quicksync, upload):
    quicksync.configure(complete_after_polls=2)
    ran = upload(wait_for_completion=True, poke_interval=0.01)
    assert (ran.state, ran.result["completed"]) == ("success", True)
    assert quicksync.calls.count("get_file") == 3


# The session's rules


def test_too_many_files_are_refused_before_the_first_byte(quicksync, upload, tmp_path):
    quicksync.put("old")
    quicksync.configure(max_files=3)
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    ran = upload(source=str(tmp_path / "*"))
    assert ran.kind == "AirflowFailException"
    assert f"3 file(s) don't fit: session {quicksync.session_id} allows 3 and has 1" in ran.said
    assert quicksync.calls.count("initiate") == 1


def test_too_many_megabytes_are_refused_before_the_first_byte(quicksync, upload, tmp_path):
    quicksync.configure(max_total_megabytes=2)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(3 << 20)
    ran = upload(source=tmp_path / "large")
    assert ran.kind == "AirflowFailException"
    assert f"3.0 MiB don't fit: session {quicksync.session_id} allows 2 MB and has 0.0 MiB" in ran.said
    assert "initiate" not in quicksync.calls


def test_what_fits_exactly_goes_up(quicksync, upload, tmp_path):
    quicksync.configure(max_files=1, max_total_megabytes=1)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 20)
    assert upload(source=tmp_path / "large").state == "success"


def test_a_service_without_sessions(quicksync, upload, connect):
    connect(quicksync, extra={"session_id": "", "name_cipher": "none"})
    quicksync.fail("current_session", status=404, times=None)
    ran = upload()
    assert (ran.state, ran.result["session_id"]) == ("success", None)
    assert [file["file_name"] for file in quicksync.files()] == ["a"]


def test_a_service_without_sessions_can_not_encrypt_a_name(quicksync, upload, connect):
    connect(quicksync, extra={"session_id": ""})
    quicksync.fail("current_session", status=404, times=None)
    ran = upload()
    assert "cannot encrypt the name 'a'" in ran.said
    assert "initiate" not in quicksync.calls


# Failures, and what Airflow makes of them


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda q, connect: connect(q, password="of-another-session"), "check the session token"),
        (lambda q, connect: connect(q, password=""), "no session token"),
        (lambda q, connect: q.expire_session(), "fresh session token"),
        (lambda q, connect: q.fail("initiate", status=422, times=None), "422"),
        (lambda q, connect: q.fail("put_part", status=403, times=None), "403"),
        (lambda q, connect: connect(q, host=q.url + "/elsewhere"), "404"),
    ],
    ids=["wrong token", "no token", "expired", "over a limit", "forbidden", "wrong path"],
)
def test_what_no_retry_can_mend_is_not_tried_again(quicksync, run_dag, connect, break_it, said):
    break_it(quicksync, connect)
    with dag() as hopeless:
        UploadToQuickSyncOperator(
            task_id="up", data="x", name="x", retries=3, retry_delay=timedelta(seconds=0)
        )
    result = run_dag(hopeless)
    (ti,) = result.dag_run.get_task_instances()
    assert (result.states, ti.try_number) == ({"up": "failed"}, 1)
    assert type(result.errors["up"]).__name__ == "AirflowFailException"
    assert said in str(result.errors["up"])
    assert quicksync.token not in str(result.errors["up"])
    assert quicksync.files() == []


@pytest.mark.parametrize("call", ["current_session", "initiate", "put_part", "complete"])
def test_a_busy_service_is_tried_again_by_airflow(quicksync, run_dag, call):
    quicksync.fail(call, status=503, times=2, retry_after=0)  # as often as one task tries
    with dag() as busy:
        UploadToQuickSyncOperator(
            task_id="up", data="x", name="x", retries=1, retry_delay=timedelta(seconds=0)
        )
    result = run_dag(busy)
    (ti,) = result.dag_run.get_task_instances()
    assert (result.states, ti.try_number) == ({"up": "success"}, 2)
    assert type(result.errors["up"]).__name__ == "BusyError"
    assert "try again later" in str(result.errors["up"])
    assert quicksync.contents() == {"x": b"x"}
    assert len(quicksync.files()) == 1


def test_a_source_that_is_not_there_yet_is_tried_again(quicksync, run_dag, tmp_path):
    with dag() as early:
        UploadToQuickSyncOperator(
            task_id="up", source=str(tmp_path / "x"), retries=1, retry_delay=timedelta(seconds=0)
        )
    result = run_dag(early)
    (ti,) = result.dag_run.get_task_instances()
    assert (result.states, ti.try_number) == ({"up": "failed"}, 2)


@pytest.mark.parametrize("status", [400, 503])
def test_a_failure_in_the_middle_leaves_nothing(quicksync, upload, tmp_path, status):
    (tmp_path / "large").write_bytes(bytes(10_000))
    quicksync.fail("put_part", status=status, part_number=7, times=None, retry_after=0)
    ran = upload(source=tmp_path / "large", part_size_mib=PART_MIB)
    assert ran.state == "failed"
    assert "upload part 7 of file" in ran.said
    assert quicksync.files() == []


def test_a_short_fault_is_not_even_a_retry_of_the_task(quicksync, upload):
    for call in ("current_session", "initiate", "put_part", "complete"):
        quicksync.fail(call, status=503, retry_after=0)
    ran = upload()
    assert (ran.state, ran.attempts) == ("success", 1)
    assert len(quicksync.files()) == 1


# Receipts, options and the log


def test_a_receipt(quicksync, upload, tmp_path):
    (tmp_path / "large").write_bytes(b"abc" * 1000)
    receipt = upload(source=tmp_path / "large", part_size_mib=PART_MIB).result
    assert receipt == {
        "file_key": quicksync.files()[0]["file_key"],
        "name": "large",
        "size_bytes": 3000,
        "sha256": hashlib.sha256(b"abc" * 1000).hexdigest(),
        "parts": 3,
        "completed": False,
        "session_id": quicksync.session_id,
    }
    assert json.loads(json.dumps(receipt)) == receipt
    assert quicksync.token not in json.dumps(receipt)


def test_no_checksum_where_none_is_wanted(quicksync, upload):
    assert upload(checksum=False).result["sha256"] is None


def test_one_part_at_a_time(quicksync, upload, tmp_path):
    (tmp_path / "large").write_bytes(bytes(20_000))
    quicksync.configure(latency_seconds=0.002)
    upload(source=tmp_path / "large", part_size_mib=PART_MIB, max_concurrency=1)
    assert quicksync.counters()["put_part"]["requests"] == 20
    assert quicksync.counters()["put_part"]["most_in_flight"] == 1
    upload(source=tmp_path / "large", part_size_mib=PART_MIB, max_concurrency=5)
    assert 2 <= quicksync.counters()["put_part"]["most_in_flight"] <= 5


def test_another_connection(quicksync, upload, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_ARCHIVE", quicksync.connection_json())
    monkeypatch.delenv("AIRFLOW_CONN_QUICKSYNC_DEFAULT")
    assert upload(quicksync_conn_id="{{ 'arch' ~ 'ive' }}").state == "success"


def test_if_exists_may_be_templated(quicksync, upload):
    quicksync.put("a")
    assert upload(if_exists="{{ 'skip' }}").result["completed"] is True


def test_the_log_tells_what_happened(quicksync, upload, log_text, tmp_path):
    (tmp_path / "large").write_bytes(bytes(3000))
    receipt = upload(source=tmp_path / "large", part_size_mib=PART_MIB).result
    said = log_text()
    assert f"uploading 'large' (2.9 KiB) to {quicksync.url}" in said
    uploaded = f"{receipt['file_key']}: 3000 bytes in 3 part(s), SHA-256 {receipt['sha256']}"
    assert f"uploaded 'large' as {uploaded}" in said
    assert re.search(r"uploading 'large': 2.9 KiB in [\d.]+ s, [\d.,]+ .?i?B/s", said)
    assert quicksync.token not in said


class Clock:
    """A clock of which each look is a quarter of a second later."""

    now = 1000.0

    def monotonic(self):
        Clock.now += 0.25
        return Clock.now


def test_progress_is_told_every_few_seconds(quicksync, upload, log_text, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "time", Clock())
    monkeypatch.setattr("airflow_provider_quicksync.client.transfer.window.TICK_SECONDS", 0.001)
    (tmp_path / "large").write_bytes(bytes(30_000))
    quicksync.configure(latency_seconds=0.02)
    began = Clock.now
    upload(source=tmp_path / "large", part_size_mib=PART_MIB, max_concurrency=1)
    lines = re.findall(
        r"uploading 'large': (\d+) % of 29.3 KiB, [\d.,]+ [KM]?i?B/s, (?:[\d.,]+ s left|waiting)", log_text()
    )
    percents = list(map(int, dict.fromkeys(lines)))  # some versions write a line to two places
    assert len(percents) >= 3
    assert percents == sorted(percents)
    assert len(percents) <= (Clock.now - began) / 5


# Dynamic mapping


def test_one_task_per_source(quicksync, run_dag, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with dag() as mapped:

        @task
        def sources():
            return [str(tmp_path / "a"), str(tmp_path / "b")]

        UploadToQuickSyncOperator.partial(task_id="up", name="{{ ti.map_index }}.txt").expand(
            source=sources()
        )
        UploadToQuickSyncOperator.partial(task_id="fixed").expand(source=[str(tmp_path / "a")])
    result = run_dag(mapped)
    assert result.state == "success", result
    assert [result.xcoms[f"up[{n}]"]["name"] for n in (0, 1)] == ["0.txt", "1.txt"]
    assert quicksync.contents() == {"0.txt": b"a", "1.txt": b"b", "a": b"a"}


def test_one_task_per_set_of_arguments(quicksync, run_dag, tmp_path):
    (tmp_path / "a").write_text("a")
    with dag() as mapped:
        UploadToQuickSyncOperator.partial(task_id="up", if_exists="skip").expand_kwargs(
            [
                {"source": str(tmp_path / "a"), "name": "x"},
                {"data": "b", "name": "y"},
                {"data": "c", "name": ""},
            ]
        )
    result = run_dag(mapped)
    assert result.states == {"up[0]": "success", "up[1]": "success", "up[2]": "failed"}
    assert quicksync.contents() == {"x": b"a", "y": b"b"}


def test_the_results_of_mapped_tasks_as_one_list(quicksync, run_dag, tmp_path):
    with dag() as reduced:

        @task
        def write(name):
            (tmp_path / name).write_text(name)
            return str(tmp_path / name)

        UploadToQuickSyncOperator(task_id="up", source=write.expand(name=["b", "a"]), name="all/")
    result = run_dag(reduced)
    assert result.state == "success", result.errors
    assert [receipt["name"] for receipt in result.xcoms["up"]] == ["all/b", "all/a"]


def test_data_of_another_task(quicksync, run_dag):
    with dag() as chained:

        @task
        def text():
            return "from a task"

        UploadToQuickSyncOperator(task_id="up", data=text(), name="{{ run_id }}.txt")
    result = run_dag(chained)
    assert result.state == "success", result.errors
    assert list(quicksync.contents().values()) == [b"from a task"]

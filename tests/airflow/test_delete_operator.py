"""The delete task: keys and receipts, missing files, and one failure among several."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_quicksync.operators import DeleteQuickSyncFileOperator, UploadToQuickSyncOperator


def dag():
    return DAG(dag_id="deletes", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def delete(run_task):
    """Run one delete task."""

    def run(file_key, **arguments):
        return run_task(DeleteQuickSyncFileOperator, file_key=file_key, **arguments)

    return run


def keys(quicksync):
    return [file["file_key"] for file in quicksync.files()]


@pytest.fixture
def files(quicksync):
    """Four files; the tests leave the last one alone."""
    return [quicksync.put(name) for name in "abcd"]


def receipt(key):
    return {"file_key": key, "name": "a", "size_bytes": 1, "sha256": None, "parts": 1, "completed": True}


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (lambda keys: keys[0], 1),
        (lambda keys: receipt(keys[0]), 1),
        (lambda keys: keys[:3], 3),
        (lambda keys: [receipt(key) for key in keys[:3]], 3),
        (lambda keys: [[keys[0]], (receipt(keys[1]), keys[0])], 2),
        (lambda keys: "{{ '%s' }}" % keys[0], 1),  # noqa: UP031
        (lambda keys: [], 0),
    ],
    ids=["key", "receipt", "keys", "receipts", "nested", "template", "none"],
)
def test_what_can_be_deleted(quicksync, files, delete, log_text, given, count):
    ran = delete(given(files))
    assert ran.state == "success", ran
    assert ran.result == {"deleted": files[:count], "missing": []}
    assert keys(quicksync) == files[count:]
    assert quicksync.calls.count("delete") == count
    assert f"deleted {count} of {count} files" in log_text()


def test_an_unfinished_upload(quicksync, delete):
    with quicksync.client() as client:
        key = client.initiate_upload("a", size_bytes=1, total_parts=1).file_key
    assert delete(key).result == {"deleted": [key], "missing": []}


def test_a_missing_file_is_fine(quicksync, files, delete):
    ran = delete([files[0], "no-such-key", files[1]])
    assert ran.result == {"deleted": files[:2], "missing": ["no-such-key"]}
    assert keys(quicksync) == files[2:]


def test_a_missing_file_fails_where_that_is_asked_for_and_the_others_are_deleted(quicksync, files, delete):
    ran = delete([files[0], "no-such-key", files[1]], ignore_missing=False)
    assert (ran.state, ran.kind) == ("failed", "AirflowFailException")
    assert "1 of 3 files were not deleted: delete file no-such-key: 404" in ran.said
    assert keys(quicksync) == files[2:]


def test_one_failure_does_not_hide_the_others(quicksync, files, delete, log_text):
    quicksync.fail("delete", status=403, skip=1)
    ran = delete(files[:3])
    assert ran.state == "failed"
    assert f"1 of 3 files were not deleted: delete file {files[1]}: 403" in ran.said
    assert keys(quicksync) == [files[1], files[3]]
    assert "deleted 2 of 3 files" in log_text()


def test_several_failures_are_one_message(quicksync, files, delete):
    quicksync.fail("delete", status=403, times=None)
    ran = delete([f"key-{n}" for n in range(7)])
    assert ran.kind == "AirflowFailException"
    assert ran.said.startswith("7 of 7 files were not deleted: delete file key-0: 403")
    assert ran.said.endswith("; and 2 more")


def test_a_failure_that_may_pass_is_tried_again_and_what_was_deleted_meanwhile_is_missing(
    quicksync, files, run_dag
):
    quicksync.fail("delete", status=503, skip=1, times=2, retry_after=0)
    with dag() as busy:
        DeleteQuickSyncFileOperator(
            task_id="it", file_key=files[:3], retries=1, retry_delay=timedelta(seconds=0)
        )
    result = run_dag(busy)
    assert result.states == {"it": "success"}
    assert type(result.errors["it"]).__name__ == "BusyError"
    assert result.xcoms["it"] == {"deleted": [files[1]], "missing": [files[0], files[2]]}
    assert keys(quicksync) == files[3:]


def test_a_delete_whose_answer_was_lost_has_succeeded(quicksync, files, delete):
    quicksync.fail("delete", cut="answer")
    assert delete(files[0], ignore_missing=False).result == {"deleted": files[:1], "missing": []}


def test_a_key_with_awkward_characters_reaches_no_other_endpoint(quicksync, files, delete):
    awkward = "../session/current?x=1#y z%"
    assert delete(awkward).result == {"deleted": [], "missing": [awkward]}
    (entry,) = [entry for entry in quicksync.requests if entry.method == "DELETE"]
    assert entry.path == "/v1/buckets/..%2Fsession%2Fcurrent%3Fx%3D1%23y%20z%25"
    assert keys(quicksync) == files


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "a file key or receipt was expected, not NoneType"),
        (7, "a file key or receipt was expected, not int"),
        ({"name": "a"}, "no file_key in a receipt with the fields name"),
        ({"file_key": None}, "no file_key in a receipt"),
        ("{'file_key': 'k'}", "a file key was given as the text of a receipt"),
        ("['k']", "a file key was given as the text of a receipt"),
        (["{{ 'k' }}", None], "not NoneType"),
        ("", "'' is not a file key"),
        ("..", "'..' is not a file key"),
        ("a\nb", "has control characters"),
    ],
)
def test_what_is_no_key_deletes_nothing_and_is_not_tried_again(quicksync, files, delete, given, said):
    ran = delete(given)
    assert (ran.state, ran.kind) == ("failed", "AirflowFailException")
    assert said in ran.said
    assert keys(quicksync) == files
    assert "delete" not in quicksync.calls


def test_the_receipts_of_mapped_tasks(quicksync, files, run_dag):
    with dag() as chained:
        uploads = UploadToQuickSyncOperator.partial(task_id="up", data="x").expand(name=["x", "y"])
        DeleteQuickSyncFileOperator(task_id="all", file_key=uploads.output)
    result = run_dag(chained)
    assert result.state == "success", result.errors
    assert result.xcoms["all"]["deleted"] == [result.xcoms[f"up[{n}]"]["file_key"] for n in (0, 1)]
    assert keys(quicksync) == files


def test_one_task_per_receipt(quicksync, files, run_dag):
    with dag() as mapped:

        @task
        def chosen():
            return [receipt(files[0]), files[1]]

        DeleteQuickSyncFileOperator.partial(task_id="each", ignore_missing=False).expand(file_key=chosen())
    result = run_dag(mapped)
    assert result.state == "success", result.errors
    assert [result.xcoms[f"each[{n}]"]["deleted"] for n in (0, 1)] == [[files[0]], [files[1]]]
    assert keys(quicksync) == files[2:]

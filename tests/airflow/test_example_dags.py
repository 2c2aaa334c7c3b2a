"""Every example DAG, run by Airflow: good runs and failing ones, each task's state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_quicksync.local.settings import MIB

UPLOAD, ARCHIVE, HOOK = (
    "quicksync_upload_wait_delete.py",
    "quicksync_archive_folder.py",
    "quicksync_hook_in_task.py",
)

TASKS = ["make_file", "upload", "wait", "check", "delete"]


def states(result):
    return {task: state for task, state in result.states.items() if state != "success"}


@pytest.fixture
def conf(tmp_path):
    return {"path": str(tmp_path / "example.bin"), "size_mib": 12}


def test_upload_wait_delete(quicksync, run_dag, conf):
    quicksync.configure(complete_after_polls=1)
    result = run_dag(UPLOAD, conf=conf)
    assert result.states == dict.fromkeys(["make_file", "upload", "wait", "check", "delete"], "success"), (
        result
    )
    receipt = result.xcoms["upload"]
    assert (receipt["size_bytes"], receipt["parts"]) == (12 * MIB, 2)
    assert re.fullmatch(r"examples/manual__.+\.bin", receipt["name"])
    assert result.xcoms["wait"]["completed"]
    assert result.xcoms["check"]["sha256"] == receipt["sha256"]
    assert result.xcoms["delete"] == {"deleted": [receipt["file_key"]], "missing": []}
    assert quicksync.files() == []


@pytest.mark.parametrize(
    ("fault", "failed"),
    [
        ({"call": "put_part", "status": 422}, "upload"),
        ({"call": "get_file", "status": 403}, "wait"),
        ({"call": "download", "body": "corrupt"}, "check"),
        ({"call": "delete", "status": 401}, "delete"),
    ],
    ids=["upload", "wait", "check", "delete"],
)
def test_upload_wait_delete_fails_where_the_service_does(quicksync, run_dag, conf, fault, failed):
    quicksync.fail(fault.pop("call"), times=None, **fault)
    result = run_dag(UPLOAD, conf={**conf, "size_mib": 1})
    after = TASKS[TASKS.index(failed) + 1 :]
    assert states(result) == {failed: "failed"} | dict.fromkeys(after, "upstream_failed")
    assert len(quicksync.files()) == (0 if failed == "upload" else 1)


def test_archive_folder(quicksync, run_dag):
    first = run_dag(ARCHIVE)
    assert states(first) == {}, first
    names = [f"reports/{region}.csv" for region in ("north", "south", "west")]
    assert [first.xcoms[f"upload[{n}]"]["name"] for n in range(3)] == names
    assert [file["name"] for file in first.xcoms["wait"]] == names
    second = run_dag(ARCHIVE)
    assert states(second) == {}
    assert [second.xcoms[f"upload[{n}]"]["file_key"] for n in range(3)] == [
        first.xcoms[f"upload[{n}]"]["file_key"] for n in range(3)
    ]
    assert len(quicksync.files()) == 3


def test_archive_folder_with_one_report_refused(quicksync, run_dag):
    quicksync.fail("initiate", status=422, skip=1)
    result = run_dag(ARCHIVE)
    refused = next(task for task in result.errors if task.startswith("upload["))
    assert states(result) == {refused: "failed", "wait": "upstream_failed"}
    assert len(quicksync.files()) == 2


def test_hook_in_task(quicksync, run_dag, log_text):
    first = run_dag(HOOK)
    second = run_dag(HOOK)
    assert states(first) == states(second) == {}
    (file,) = quicksync.files()  # the second run replaced the first one's
    assert second.xcoms["find"] == [file["file_key"]]
    assert "sig" not in second.xcoms["store"]
    assert re.search(r"a link of \d+ characters was made", log_text())


def test_hook_in_task_without_a_token(quicksync, run_dag, connect):
    connect(quicksync, password="")
    result = run_dag(HOOK)
    assert states(result) == {"store": "failed", "find": "upstream_failed"}
    assert "no session token" in str(result.errors["store"])


def test_on_new_file_without_a_file_that_started_it(run_dag):
    result = run_dag("quicksync_on_new_file.py")
    assert result.states == {"look": "success"}, result.errors
    assert result.xcoms["look"] == []


def test_every_example_is_run_by_a_test():
    root = Path(__file__).parents[2]
    tests = "".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    examples = {path.name for path in (root / "example_dags").glob("*.py")}
    assert {name for name in examples if f'"{name}"' not in tests} == set()

"""One upload over several mapped tasks."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor
from airflow_provider_quicksync.task_groups import upload_over_workers

SIZE = 10_000
PART_MIB = 1_000 / (1 << 20)


@pytest.fixture
def small_parts(quicksync_local: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    quicksync_local.configure(min_part_bytes=100)
    monkeypatch.setenv("AIRFLOW_CONN_QUICKSYNC_DEFAULT", quicksync_local.connection_json())
    return quicksync_local


def dag_for(source: str, **arguments: Any) -> Any:
    from airflow.providers.common.compat.sdk import DAG

    with DAG("over_workers", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:
        receipt = upload_over_workers("archive", source=source, part_size_mib=PART_MIB, **arguments)
        QuickSyncUploadCompletionSensor(task_id="wait", file_key=receipt, poke_interval=0.1, timeout=20)
    return dag


def write(tmp_path: Path) -> Path:
    path = tmp_path / "huge.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_ranges_of_parts_go_up_in_mapped_tasks(run_dag: Any, small_parts: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    result = run_dag(dag_for(str(path), workers=3, name="huge/{{ ds }}.bin"))
    assert result.state == "success", (result.states, result.errors)
    assert result.states["archive.abort"] == "skipped"
    assert [result.states[f"archive.send[{n}]"] for n in range(3)] == ["success"] * 3
    receipt = result.xcoms["archive.complete"]
    assert receipt["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (receipt["parts"], receipt["size_bytes"]) == (10, SIZE)
    assert receipt["name"].startswith("huge/2")
    assert receipt["session_id"] == small_parts.session_id
    sent = [entry.part_number for entry in small_parts.requests if entry.call == "put_part"]
    assert sorted(sent) == list(range(1, 11))
    assert small_parts.token not in str(result.xcoms)


def test_a_url(run_dag: Any, small_parts: Any, tmp_path: Path) -> None:
    path = write(tmp_path)
    result = run_dag(dag_for(f"file://{path}", workers=2))
    assert result.state == "success", (result.states, result.errors)
    receipt = result.xcoms["archive.complete"]
    assert (receipt["name"], receipt["sha256"]) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_it_is_for_one_file(run_dag: Any, small_parts: Any, tmp_path: Path) -> None:
    for source in (f"{tmp_path}/*", [str(write(tmp_path))]):
        result = run_dag(dag_for(source, workers=2))
        assert "sends one file, not" in str(result.errors["archive.initiate"])
    assert small_parts.files() == []


def test_more_workers_than_parts_and_no_checksum(run_dag: Any, small_parts: Any, tmp_path: Path) -> None:
    result = run_dag(dag_for(str(write(tmp_path)), workers=40, checksum=False))
    assert result.state == "success", (result.states, result.errors)
    assert result.xcoms["archive.complete"]["sha256"] is None
    assert "archive.send[9]" in result.states
    assert "archive.send[10]" not in result.states


def test_a_run_of_nothing_else_fails_with_it(run_dag: Any, small_parts: Any, tmp_path: Path) -> None:
    from airflow.providers.common.compat.sdk import DAG

    for call in ("put_part", "initiate"):
        small_parts.fail(call, status=403, times=None)
        with DAG("alone", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None) as dag:
            upload_over_workers("archive", source=str(write(tmp_path)), part_size_mib=PART_MIB, workers=2)
        assert run_dag(dag).state == "failed"
        assert small_parts.files() == []


def test_a_failure_of_one_range_removes_the_upload(run_dag: Any, small_parts: Any, tmp_path: Path) -> None:
    small_parts.fail("put_part", status=403, part_number=5, times=None)
    result = run_dag(dag_for(str(write(tmp_path)), workers=2))
    assert result.state == "failed"
    assert result.states["archive.abort"] == "failed"
    assert result.states["archive.complete"] == "upstream_failed"
    assert small_parts.files() == []


def test_a_source_that_changes_between_the_tasks_fails_them(
    run_dag: Any, small_parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quicksync import task_groups

    path, initiate = write(tmp_path), task_groups._initiate

    def initiate_then_change(*arguments: Any) -> Any:
        shares = initiate(*arguments)
        path.write_bytes(os.urandom(SIZE))
        return shares

    monkeypatch.setattr(task_groups, "_initiate", initiate_then_change)
    result = run_dag(dag_for(str(path), workers=2))
    assert result.state == "failed"
    assert "is not what the upload was begun with" in str(result.errors["archive.send[0]"])
    assert small_parts.files() == []


def test_it_can_be_copied_and_serialised(tmp_path: Path) -> None:
    import copy

    dag = dag_for("/shared/{{ ds }}.bin", workers=2)
    assert {task.task_id for task in copy.deepcopy(dag).tasks} == {
        *(f"archive.{name}" for name in ("initiate", "send", "checksum", "complete", "abort")),
        "wait",
    }


def test_an_upload_that_can_not_be_begun_leaves_nothing_to_remove(
    run_dag: Any, small_parts: Any, tmp_path: Path
) -> None:
    small_parts.fail("initiate", status=403, times=None)
    result = run_dag(dag_for(str(write(tmp_path)), workers=2))
    assert result.state == "failed"
    assert result.states["archive.abort"] == "failed", result.errors
    assert small_parts.files() == []

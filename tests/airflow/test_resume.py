"""A retry of the upload task goes on where the attempt before it stopped, on Airflow 3.3 and newer."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

PART = 1000
PARTS = 8
ATTEMPTS = 2  # of a call, as the connection of these tests says
STARTS_AGAIN = "this Airflow keeps no task state"


def has_store() -> bool:
    from airflow import __version__

    return tuple(map(int, __version__.split(".")[:2])) >= (3, 3)


needs_store = pytest.mark.skipif(not has_store(), reason="no task state store before Airflow 3.3")


@pytest.fixture(autouse=True)
def _no_other_tests_notes(_airflow_db: None) -> None:
    if has_store():
        from airflow.models.task_state_store import TaskStateStoreModel
        from airflow.utils.session import create_session

        with create_session() as session:
            session.query(TaskStateStoreModel).delete()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(PARTS * PART))
    return path


@pytest.fixture
def upload(run_task: Any, path: Path) -> Any:
    """Upload the file with one retry."""

    def run(**arguments: Any) -> Any:
        arguments = {"source": str(path), "retries": 1, **arguments}
        return run_task(
            UploadToQuickSyncOperator,
            part_size_mib=PART / (1 << 20),
            max_concurrency=1,
            retry_delay=timedelta(0),
            **arguments,
        )

    return run


@pytest.fixture
def crashes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt ends after everything was uploaded, before anybody hears of it."""
    send, crashed = QuickSyncHook._send, False

    def send_and_crash(*arguments: Any) -> Any:
        nonlocal crashed
        receipts = send(*arguments)
        if not crashed:
            crashed = True
            raise MemoryError("the worker is gone")
        return receipts

    monkeypatch.setattr(QuickSyncHook, "_send", send_and_crash)


def kept() -> list[str]:
    """The keys in Airflow's task state store."""
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    with create_session() as session:
        return [row.key for row in session.query(TaskStateStoreModel)]


def parts_taken(quicksync: Any) -> list[int]:
    return [
        entry.part_number for entry in quicksync.requests if entry.call == "put_part" and entry.status == 200
    ]


def check(quicksync: Any, path: Path, ran: Any) -> None:
    """One file, the right one."""
    assert (ran.state, ran.attempts) == ("success", 2), ran.error
    quicksync.clear_faults()
    (file,) = quicksync.files()
    assert file["file_key"] == ran.result["file_key"]
    assert quicksync.contents() == {path.name: path.read_bytes()}
    assert ran.result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_retry_sends_what_is_missing(quicksync: Any, upload: Any, path: Path, log_text: Any) -> None:
    quicksync.fail("put_part", part_number=5, status=503, times=ATTEMPTS)
    ran = upload()
    check(quicksync, path, ran)
    said = log_text()
    if has_store():
        assert parts_taken(quicksync) == list(range(1, PARTS + 1))
        assert "4 of 8 parts are there" in said
        assert STARTS_AGAIN not in said
        assert kept() == []
    else:
        assert parts_taken(quicksync) == [1, 2, 3, 4, *range(1, PARTS + 1)]
        # Once an attempt; log_text may see a line twice, as it is in the log and on the console.
        assert STARTS_AGAIN in said


def test_without_durable_a_retry_starts_again(quicksync: Any, upload: Any, path: Path, log_text: Any) -> None:
    quicksync.fail("put_part", part_number=5, status=503, times=ATTEMPTS)
    ran = upload(durable=False)
    check(quicksync, path, ran)
    assert parts_taken(quicksync) == [1, 2, 3, 4, *range(1, PARTS + 1)]
    assert STARTS_AGAIN not in log_text()
    if has_store():
        assert kept() == []


@needs_store
@pytest.mark.parametrize("if_exists", ["add", "skip", "replace", "fail"])
def test_what_a_crash_completed_is_found(
    quicksync: Any, upload: Any, path: Path, crashes_once: None, if_exists: str
) -> None:
    ran = upload(if_exists=if_exists)
    check(quicksync, path, ran)
    assert parts_taken(quicksync) == list(range(1, PARTS + 1))
    assert kept() == []


@needs_store
def test_what_was_there_before_is_still_replaced_by_the_retry(
    quicksync: Any, upload: Any, path: Path, crashes_once: None
) -> None:
    quicksync.put(path.name, b"older")
    quicksync.reset_log()
    ran = upload(if_exists="replace")
    check(quicksync, path, ran)
    assert parts_taken(quicksync) == list(range(1, PARTS + 1))


@needs_store
@pytest.mark.parametrize("if_exists", ["add", "skip", "replace", "fail"])
def test_what_a_failure_left_unfinished_is_gone_on_with(
    quicksync: Any, upload: Any, path: Path, if_exists: str
) -> None:
    quicksync.fail("put_part", part_number=5, status=503, times=ATTEMPTS)
    ran = upload(if_exists=if_exists)
    check(quicksync, path, ran)
    assert parts_taken(quicksync) == list(range(1, PARTS + 1))


@needs_store
def test_what_is_skipped_by_the_retry_leaves_nothing_unfinished(
    quicksync: Any, upload: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else has uploaded a file of that name between the attempts."""
    quicksync.fail("put_part", part_number=5, status=503, times=ATTEMPTS)
    sources, asked = QuickSyncHook.upload_sources, []

    def upload_sources(*arguments: Any, **options: Any) -> Any:
        if asked:
            asked.append(quicksync.put(path.name, b"of somebody else"))
        asked.append("")
        return sources(*arguments, **options)

    monkeypatch.setattr(QuickSyncHook, "upload_sources", upload_sources)
    ran = upload(if_exists="skip")
    assert (ran.state, ran.result["file_key"]) == ("success", asked[1])
    assert [file["file_key"] for file in quicksync.files()] == [asked[1]]
    assert kept() == []


@needs_store
def test_waiting_in_vain_does_not_upload_again(
    quicksync: Any, upload: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicksync.configure(complete_after_polls=1000)
    wait = QuickSyncHook.wait_for_completion
    waited: list[float] = []

    def wait_longer(*arguments: Any, **options: Any) -> Any:
        waited.append(options["timeout_seconds"])
        if len(waited) == 2:
            quicksync.configure(complete_after_polls=0)
            options["timeout_seconds"] = 60
        return wait(*arguments, **options)

    monkeypatch.setattr(QuickSyncHook, "wait_for_completion", wait_longer)
    ran = upload(wait_for_completion=True, completion_timeout=0.2, poke_interval=0.01, retries=1)
    assert len(waited) == 2, ran
    assert parts_taken(quicksync) == list(range(1, PARTS + 1))
    (file,) = quicksync.files()
    assert file["stored"]


@needs_store
def test_what_an_attempt_left_does_not_count_in_the_preflight(
    quicksync: Any, upload: Any, path: Path
) -> None:
    quicksync.configure(max_files=1)
    quicksync.fail("put_part", part_number=5, status=503, times=ATTEMPTS)
    check(quicksync, path, upload())


@needs_store
def test_many_small_files(quicksync: Any, upload: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02}.csv" for number in range(20)]
    for path in paths:
        path.write_bytes(os.urandom(50))
    quicksync.fail("complete", skip=11, status=503, times=ATTEMPTS)
    ran = upload(source=f"{tmp_path}/*.csv")
    assert (ran.state, ran.attempts) == ("success", 2), ran.error
    assert len(quicksync.files()) == 20
    assert quicksync.contents() == {path.name: path.read_bytes() for path in paths}
    assert [receipt["name"] for receipt in ran.result] == [path.name for path in paths]
    assert quicksync.calls.count("complete") == 20 + ATTEMPTS
    assert kept() == []


def test_the_last_attempt_leaves_nothing(quicksync: Any, upload: Any) -> None:
    quicksync.fail("put_part", part_number=5, status=503, times=None)
    ran = upload()
    assert (ran.state, ran.attempts, ran.kind) == ("failed", 2, "BusyError")
    assert quicksync.files() == []
    if has_store():
        assert kept() == []


def test_a_hopeless_error_leaves_nothing(quicksync: Any, upload: Any) -> None:
    quicksync.fail("put_part", part_number=5, status=403, times=None)
    ran = upload()
    assert (ran.state, ran.attempts, ran.kind) == ("failed", 1, "AirflowFailException")
    assert quicksync.files() == []
    if has_store():
        assert kept() == []


@pytest.mark.parametrize("on_empty", ["fail", "skip"])
def test_a_source_that_is_gone_at_the_last_attempt_leaves_nothing(
    quicksync: Any, upload: Any, path: Path, monkeypatch: pytest.MonkeyPatch, on_empty: str
) -> None:
    quicksync.fail("put_part", part_number=5, status=503, times=ATTEMPTS)
    send = QuickSyncHook._send

    def send_and_lose(*arguments: Any) -> Any:
        try:
            return send(*arguments)
        finally:
            path.unlink()

    monkeypatch.setattr(QuickSyncHook, "_send", send_and_lose)
    ran = upload(source=str(path.parent / "*.bin"), on_empty=on_empty)
    assert (ran.state, ran.attempts) == ("failed" if on_empty == "fail" else "skipped", 2)
    assert quicksync.files() == []
    if has_store():
        assert kept() == []


@needs_store
def test_nothing_in_the_store_is_a_secret(
    quicksync: Any, upload: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint

    put, seen = Checkpoint._put, []

    def noting(checkpoint: Any, page: str, **items: Any) -> None:
        seen.append(repr(items))
        put(checkpoint, page, **items)

    monkeypatch.setattr(Checkpoint, "_put", noting)
    assert upload().state == "success"
    assert len(seen) >= PARTS
    for secret in (quicksync.token, quicksync.session_id, "http://"):
        assert secret not in "".join(seen)

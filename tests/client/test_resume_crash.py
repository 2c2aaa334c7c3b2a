"""Processes that are killed (SIGKILL) at every step of an upload, and the attempt that follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import QuickSyncClient, data_source, download, upload
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import PART, calls
from .stores import FileStore

SCRIPT = Path(__file__).with_name("crashing.py")
PARTS = 40

Attempt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(PARTS * PART))
    return path


@pytest.fixture
def small_files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    paths = [folder / f"{number:02}.csv" for number in range(30)]
    for path in paths:
        path.write_bytes(os.urandom(50))
    return paths


@pytest.fixture
def command(server: LocalQuickSync, store: FileStore, tmp_path: Path) -> Callable[..., list[str]]:
    """The command of an attempt at some files."""

    def made(*paths: Path, **how: Any) -> list[str]:
        how = {"url": server.url, "token": server.token, "session_id": server.session_id, **how}
        how |= {"store": str(tmp_path / "store"), "paths": [str(path) for path in paths]}
        return [sys.executable, str(SCRIPT), json.dumps(how)]

    return made


@pytest.fixture
def attempt(command: Callable[..., list[str]]) -> Attempt:
    """Run an attempt to its end."""

    def run(*paths: Path, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*paths, **how), capture_output=True, text=True, timeout=60, check=False)

    return run


def crash(attempt: Attempt, *paths: Path, **how: Any) -> None:
    ended = attempt(*paths, **how)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def succeed(attempt: Attempt, *paths: Path, **how: Any) -> list[dict[str, Any]]:
    ended = attempt(*paths, **how)
    assert ended.returncode == 0, ended.stderr
    receipts: list[dict[str, Any]] = json.loads(ended.stdout)
    return receipts


def check_files(
    client: QuickSyncClient, server: LocalQuickSync, paths: list[Path], receipts: list[dict[str, Any]]
) -> None:
    """Each file is there once, and right; nothing else is."""
    assert sorted(file["file_key"] for file in server.files()) == sorted(r["file_key"] for r in receipts)
    for path, receipt in zip(paths, receipts, strict=True):
        target = path.with_name("fetched")
        fetched = download(client, client.get_file(receipt["file_key"]), str(target))
        assert target.read_bytes() == path.read_bytes()
        assert receipt["sha256"] == fetched["sha256"]
        assert receipt["name"] == path.name
        target.unlink()


def bytes_sent(server: LocalQuickSync) -> int:
    return sum(entry.received_bytes for entry in server.requests if entry.call == "put_part")


@pytest.mark.parametrize(
    ("at", "after", "parts_again"),
    [
        ("POST /buckets", 1, 0),
        ("started", 1, 0),
        ("tags", 1, 0),
        ("POST /buckets/complete", 1, 0),
        ("done", 1, 0),
    ],
    ids=["before initiate's answer", "after initiate", "after all parts", "after complete", "after its note"],
)
def test_a_large_file(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: FileStore,
    attempt: Attempt,
    path: Path,
    at: str,
    after: int,
    parts_again: int,
) -> None:
    crash(attempt, path, at=at, after=after)
    receipts = succeed(attempt, path)
    check_files(client, server, [path], receipts)
    assert calls(server)["put_part"] == PARTS + parts_again
    assert store.kept() == set()


@pytest.mark.parametrize("part", [1, 20, 39])
def test_a_large_file_whose_last_second_of_notes_is_lost(
    client: QuickSyncClient, server: LocalQuickSync, store: FileStore, attempt: Attempt, path: Path, part: int
) -> None:
    crash(attempt, path, at="part", after=part)
    receipts = succeed(attempt, path)
    check_files(client, server, [path], receipts)
    assert store.kept() == set()


def test_a_kill_at_half_costs_no_more_than_a_twentieth(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: FileStore,
    command: Callable[..., list[str]],
    attempt: Attempt,
    path: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    """The service stalls at half, as a network may; when the notes are there, the kill comes."""
    server.fail("put_part", skip=PARTS // 2, delay_seconds=600, times=None)
    process = subprocess.Popen(command(path))
    deadline = time.monotonic() + 60
    while len(store.get("quicksync.tags.0.0", {})) <= PARTS // 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.clear_faults()
    receipts = succeed(attempt, path)
    check_files(client, server, [path], receipts)
    ratio = bytes_sent(server) / path.stat().st_size
    record_property("bytes_sent_ratio", ratio)
    assert ratio <= 1.05


@pytest.mark.parametrize("complete_after_polls", [0, 10])
def test_a_complete_that_was_not_heard_of_is_not_repeated(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: FileStore,
    attempt: Attempt,
    path: Path,
    complete_after_polls: int,
) -> None:
    """Also where the service takes its time until the file is completed."""
    server.configure(complete_after_polls=complete_after_polls)
    try:
        crash(attempt, path, at="POST /buckets/complete")
        (receipt,) = succeed(attempt, path)
        assert calls(server)["put_part"] == PARTS
        (file,) = server.files()
        assert (file["file_key"], file["stored"]) == (receipt["file_key"], True)
    finally:
        server.configure(complete_after_polls=0)


@pytest.mark.parametrize("at", ["POST /buckets", "POST /buckets/complete", "part", "done"])
@pytest.mark.parametrize("after", [1, 17, 30])
def test_many_small_files(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: FileStore,
    attempt: Attempt,
    small_files: list[Path],
    at: str,
    after: int,
) -> None:
    crash(attempt, *small_files, at=at, after=after, concurrency=4)
    receipts = succeed(attempt, *small_files, concurrency=4)
    check_files(client, server, small_files, receipts)
    assert store.kept() == set()


def test_one_crash_after_the_other(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: FileStore,
    attempt: Attempt,
    path: Path,
    small_files: list[Path],
) -> None:
    upload(client, data_source(b"of somebody else", name=path.name))
    (other,) = [file["file_key"] for file in server.files()]
    paths = [path, *small_files[:5]]
    for at, after in (
        ("POST /buckets", 1),
        ("POST /buckets", 5),
        ("started", 1),
        ("part", 10),
        ("part", 10),
        ("tags", 1),
        ("POST /buckets/complete", 1),
    ):
        crash(attempt, *paths, at=at, after=after)
    receipts = succeed(attempt, *paths)
    client.delete_file(other)
    check_files(client, server, paths, receipts)


def test_names_that_are_not_unique_and_a_large_file(
    client: QuickSyncClient, server: LocalQuickSync, attempt: Attempt, path: Path
) -> None:
    """What is noted is found by its key; what wasn't yet can't be told from other files."""
    for at in ("started", "part", "tags", "POST /buckets/complete", "done"):
        crash(attempt, path, at=at, cipher="none")
        receipts = succeed(attempt, path, cipher="none")
        check_files(client, server, [path], receipts)
        client.delete_file(receipts[0]["file_key"])

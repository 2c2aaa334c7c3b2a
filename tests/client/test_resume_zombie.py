"""
Two attempts of one task at once: a worker that was given up for dead and is not, and the retry.

Whatever the order of what they do, the retry's file is right and stays, and there is no other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    QuickSyncClient,
    QuickSyncError,
    Receipt,
    Stop,
    UploadOptions,
    download,
    open_source,
    upload_many,
)
from airflow_provider_quicksync.client.transfer import checkpoint as checkpoint_module
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
from airflow_provider_quicksync.client.transfer.resume import give_up
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import PART, Connect, calls
from .stores import MemoryStore

PARTS = 8
SECONDS = 30


class Attempt:
    """An attempt in a thread of its own, which waits before or after one of its calls until it is let go."""

    def __init__(self, client: QuickSyncClient, store: MemoryStore, *paths: Path, last: bool = False) -> None:
        self.client, self.paths = client, paths
        self.stop = Stop()
        self.checkpoint = Checkpoint(store, last_attempt=last)
        self.receipts: list[Receipt] = []
        self.error: BaseException | None = None
        self._reached, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        items = [(open_source(path), path.name) for path in self.paths]
        options = UploadOptions(part_size_bytes=PART, concurrency=1)
        try:
            self.receipts = upload_many(
                self.client, items, options=options, checkpoint=self.checkpoint, stop=self.stop
            )
            self.checkpoint.clear()
        except BaseException as error:
            self.error = error
            if self.checkpoint.is_over(error):
                give_up(self.client, self.checkpoint)

    def until(self, call: str, times: int = 1, *, after: bool = False) -> Attempt:
        """Start, and come back when it is about to make a call for the n-th time, or has just made it."""
        made, left = getattr(self.client, call), times

        def waiting(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            result = made(*arguments, **options) if after or left else None
            if left == 0:
                self._reached.set()
                assert self._go.wait(SECONDS)
                if not after:
                    result = made(*arguments, **options)
            return result

        setattr(self.client, call, waiting)
        self._thread.start()
        assert self._reached.wait(SECONDS), self.error
        return self

    def go_on(self) -> Attempt:
        """Let it go on to its end."""
        self._go.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self

    def to_its_end(self) -> Attempt:
        self._thread.start()
        return self.go_on()

    @property
    def succeeded(self) -> bool:
        return self.error is None


Begin = Callable[..., Attempt]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(PARTS * PART))
    return path


@pytest.fixture
def small_files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02}.csv" for number in range(10)]
    for path in paths:
        path.write_bytes(os.urandom(50))
    return paths


@pytest.fixture
def begin(server: LocalQuickSync, connect: Connect, store: MemoryStore, path: Path) -> Begin:
    """Make an attempt, by default at the large file."""

    def made(*paths: Path, last: bool = False, kept_in: Any = store) -> Attempt:
        return Attempt(connect(server), kept_in, *(paths or [path]), last=last)

    return made


@pytest.fixture(autouse=True)
def _write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Notes are there at once, so that the retry goes on with all that the zombie has sent; and the zombie
    doesn't notice by itself that it is one, which would take it a second.
    """
    monkeypatch.setattr(checkpoint_module, "WRITE_SECONDS", 10 * SECONDS)
    sent = Checkpoint.sent

    def sent_and_written(checkpoint: Checkpoint, *arguments: Any) -> None:
        sent(checkpoint, *arguments)
        checkpoint.write()

    monkeypatch.setattr(Checkpoint, "sent", sent_and_written)


def check_files(server: LocalQuickSync, retry: Attempt) -> None:
    """What the retry's receipts tell of is there, right, and nothing else is."""
    server.clear_faults()
    assert retry.succeeded, retry.error
    keys = [receipt["file_key"] for receipt in retry.receipts]
    assert sorted(file["file_key"] for file in server.files()) == sorted(keys)
    for path, receipt in zip(retry.paths, retry.receipts, strict=True):
        target = path.with_name("fetched")
        with QuickSyncClient(server.token, base_url=server.url, session_id=server.session_id) as client:
            fetched = download(client, client.get_file(receipt["file_key"]), str(target))
        assert target.read_bytes() == path.read_bytes()
        assert receipt["sha256"] == fetched["sha256"]


# Where a zombie is when the retry takes over: before or after the n-th of a call.
ZOMBIES = [
    pytest.param(("initiate_upload", 1, False), id="before initiate"),
    pytest.param(("initiate_upload", 1, True), id="before initiate is noted"),
    pytest.param(("put_part", 1, False), id="before the first part"),
    pytest.param(("put_part", 4, False), id="before a part"),
    pytest.param(("put_part", 4, True), id="before a part is noted"),
    pytest.param(("put_part", PARTS, True), id="after the last part"),
    pytest.param(("complete_upload", 1, False), id="before complete"),
    pytest.param(("complete_upload", 1, True), id="before complete is noted"),
]


@pytest.mark.parametrize("where", ZOMBIES)
def test_the_retry_runs_to_its_end_first(
    server: LocalQuickSync, begin: Begin, store: MemoryStore, where: tuple[str, int, bool]
) -> None:
    call, times, after = where
    zombie = begin().until(call, times, after=after)
    retry = begin().to_its_end()
    zombie.go_on()
    if call == "initiate_upload":
        # What it begins now, or was not noted yet, nobody could know of: it is a file of its own.
        assert retry.succeeded
        keys = {file["file_key"] for file in server.files()}
        assert {r["file_key"] for r in retry.receipts} <= keys
        assert all(file["stored"] for file in server.files())
        return
    check_files(server, retry)
    assert store.kept() == set()


@pytest.mark.parametrize("where", ZOMBIES)
@pytest.mark.parametrize("end", ["stopped", "failed"])
def test_a_zombie_that_is_killed_or_fails_while_the_retry_runs_removes_nothing_of_it(
    server: LocalQuickSync, begin: Begin, store: MemoryStore, where: tuple[str, int, bool], end: str
) -> None:
    call, times, after = where
    zombie = begin(last=end == "failed").until(call, times, after=after)
    complete = (call, after) == ("complete_upload", True)
    retry = begin().to_its_end() if complete else begin().until("complete_upload")
    if end == "stopped":
        zombie.stop.request()
    else:
        zombie.client.put_part = zombie.client.complete_upload = _refused  # type: ignore[method-assign]
    zombie.go_on()
    retry.go_on()
    check_files(server, retry)
    assert store.kept() == set()


def _refused(*arguments: Any, **options: Any) -> Any:
    from airflow_provider_quicksync.client import RefusedError

    raise RefusedError("of an expired bearer", status=401)


@pytest.mark.parametrize("where", ZOMBIES)
@pytest.mark.parametrize(
    "retry_at",
    [("list_files", 1, True), ("put_part", 1, False), ("put_part", 1, True), ("complete_upload", 1, False)],
    ids=["has looked", "before a part", "after a part", "before complete"],
)
def test_the_zombie_finishes_first(
    server: LocalQuickSync,
    begin: Begin,
    store: MemoryStore,
    where: tuple[str, int, bool],
    retry_at: tuple[str, int, bool],
) -> None:
    zombie_call, times, after = where
    zombie = begin().until(zombie_call, times, after=after)
    call, retry_times, retry_after = retry_at
    retry = begin()
    if zombie_call == "complete_upload" and after and call != "list_files":
        retry.to_its_end()  # finds the complete file: there is nothing to wait for
        zombie.go_on()
    elif call == "put_part" and (zombie_call, times) in (("put_part", PARTS), ("complete_upload", 1)):
        retry.until("complete_upload")
        zombie.go_on()
        retry.go_on()
    else:
        retry.until(call, retry_times, after=retry_after)
        zombie.go_on()
        retry.go_on()
    check_files(server, retry)
    assert store.kept() == set()


def test_a_zombie_that_went_on_itself_does_not_start_again(
    server: LocalQuickSync, begin: Begin, path: Path
) -> None:
    """The first attempt failed, the second is the zombie, the third has found the source changed."""
    server.fail("put_part", part_number=3, status=503, times=3)
    assert not begin().to_its_end().succeeded
    zombie = begin().until("put_part", 2)
    path.write_bytes(os.urandom(PARTS * PART))
    retry = begin().to_its_end()
    zombie.go_on()
    assert not zombie.succeeded
    check_files(server, retry)


def test_a_zombie_of_an_older_source_does_not_disturb(
    server: LocalQuickSync, begin: Begin, path: Path
) -> None:
    zombie = begin().until("put_part", 4)
    path.write_bytes(os.urandom(PARTS * PART))
    retry = begin().until("put_part", 4)
    zombie.go_on()
    assert not zombie.succeeded
    retry.go_on()
    check_files(server, retry)


def test_a_zombie_forgets_nothing_that_the_retry_keeps(
    server: LocalQuickSync, begin: Begin, store: MemoryStore
) -> None:
    zombie = begin().until("complete_upload", after=True)
    retry = begin()
    assert retry.checkpoint.known
    before = dict(store.values)
    zombie.go_on()
    assert zombie.succeeded
    assert store.values == before


def test_a_zombie_whose_notes_are_another_attempts_business_writes_no_more(
    begin: Begin, store: MemoryStore
) -> None:
    zombie = begin().until("put_part", 4)
    begin().checkpoint.known  # noqa: B018 - taking over is what reading does
    before = dict(store.values)
    zombie.go_on()
    assert store.values == before


class GoneStore(MemoryStore):
    """What a zombie sees of Airflow's store: its task instance isn't there any more."""

    def __init__(self, store: MemoryStore, refuses: bool) -> None:
        super().__init__()
        self._store, self._refuses, self.is_gone = store, refuses, False

    def get(self, key: str, default: Any = None) -> Any:
        if self.is_gone and self._refuses:
            raise RuntimeError("not authenticated")
        return default if self.is_gone else self._store.get(key, default)

    def set(self, key: str, value: Any) -> None:
        if self.is_gone:
            raise RuntimeError("404 task instance not found")
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        if self.is_gone:
            raise RuntimeError("404 task instance not found")
        self._store.delete(key)


@pytest.mark.parametrize("refuses", [False, True], ids=["finds nothing", "is refused"])
@pytest.mark.parametrize("where", ZOMBIES[2:])
def test_a_zombie_that_has_lost_its_store_removes_nothing(
    server: LocalQuickSync, begin: Begin, store: MemoryStore, where: tuple[str, int, bool], refuses: bool
) -> None:
    call, times, after = where
    gone = GoneStore(store, refuses)
    zombie = begin(kept_in=gone).until(call, times, after=after)
    retry = begin().until("complete_upload") if after is False or call == "put_part" else begin().to_its_end()
    gone.is_gone = True
    zombie.stop.request()
    zombie.go_on()
    retry.go_on()
    check_files(server, retry)


@pytest.mark.parametrize("times", [1, 5, 10])
@pytest.mark.parametrize("call", ["initiate_upload", "put_part", "complete_upload"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_many_small_files(
    server: LocalQuickSync, begin: Begin, small_files: list[Path], call: str, times: int, after: bool
) -> None:
    zombie = begin(*small_files).until(call, times, after=after)
    retry = begin(*small_files)
    if (call, times, after) == ("complete_upload", 10, True):
        retry.to_its_end()
    else:
        retry.until("complete_upload", 2 if times < 8 else 1)
    zombie.go_on()
    retry.go_on()
    check_files(server, retry)


def test_what_a_zombie_of_small_files_does_after_the_retry_has_looked_is_removed(
    server: LocalQuickSync, begin: Begin, small_files: list[Path]
) -> None:
    """It goes on until it notices, at its next look at the store."""
    zombie = begin(*small_files).until("initiate_upload", 4)
    retry = begin(*small_files).until("complete_upload", 3)
    zombie.go_on()
    assert calls(server)["complete"] == 3 + 2 + 7
    retry.go_on()
    check_files(server, retry)


def test_a_zombie_of_small_files_notices_and_ends(
    server: LocalQuickSync, begin: Begin, small_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "WRITE_SECONDS", 0)
    zombie = begin(*small_files)
    zombie.until("put_part", 2)
    begin().checkpoint.known  # noqa: B018
    zombie._thread.join(SECONDS)
    assert "another attempt of this task has taken over" in str(zombie.error)
    assert isinstance(zombie.error, QuickSyncError)
    zombie._go.set()

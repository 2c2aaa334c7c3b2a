"""Going on with an upload: what a next attempt sends, whatever became of the one before and of its notes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    BusyError,
    DamagedError,
    QuickSyncClient,
    QuickSyncError,
    Receipt,
    RefusedError,
    ServiceLimits,
    SourceChangedError,
    Stop,
    StoppedError,
    UploadOptions,
    data_source,
    download,
    open_source,
    upload_many,
)
from airflow_provider_quicksync.client.transfer import checkpoint as checkpoint_module
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint, content_mark
from airflow_provider_quicksync.client.transfer.existing import list_others, select
from airflow_provider_quicksync.client.transfer.resume import give_up
from airflow_provider_quicksync.client.transfer.sources import FileSource, Source
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import PART, Connect, calls
from .stores import VALUE_BYTES, MemoryStore

PARTS = 8
ONE_BY_ONE = UploadOptions(part_size_bytes=PART, concurrency=1)
TRIES = 3


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of eight parts."""
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(PARTS * PART - 10))
    return path


@pytest.fixture
def small_files(tmp_path: Path) -> list[Path]:
    """Twenty files of one part."""
    folder = tmp_path / "small"
    folder.mkdir()
    paths = [folder / f"{number:02}.csv" for number in range(20)]
    for path in paths:
        path.write_bytes(os.urandom(50))
    return paths


def attempt(
    client: QuickSyncClient,
    store: MemoryStore,
    *sources: Path | Source,
    options: UploadOptions = ONE_BY_ONE,
    last: bool = False,
    stop: Stop | None = None,
) -> list[Receipt]:
    """One attempt of a task, up to and with what it does about its notes."""
    checkpoint = Checkpoint(store, last_attempt=last)
    opened = [open_source(source) if isinstance(source, Path) else source for source in sources]
    items = [(source, source.name) for source in opened]
    try:
        receipts = upload_many(client, items, options=options, checkpoint=checkpoint, stop=stop)
    except BaseException as error:
        if checkpoint.is_over(error):
            give_up(client, checkpoint)
        raise
    checkpoint.clear()
    return receipts


def fail_at(server: LocalQuickSync, part: int | None = None, call: str = "put_part", **fault: Any) -> None:
    server.fail(call, part_number=part, **{"status": 503, "times": TRIES, **fault})


def parts_sent(server: LocalQuickSync) -> list[int]:
    """The parts that the server took since the last look."""
    taken = [e.part_number for e in server.requests if e.call == "put_part" and e.status == 200]
    server.reset_log()
    return [number for number in taken if number is not None]


def check_one_file(client: QuickSyncClient, server: LocalQuickSync, path: Path, receipt: Receipt) -> None:
    """The receipt's file is the only one there, and right."""
    server.clear_faults()
    assert [file["file_key"] for file in server.files()] == [receipt["file_key"]]
    check_file(client, path, receipt)


def check_file(client: QuickSyncClient, path: Path, receipt: Receipt) -> None:
    target = path.with_name(f"{path.name}.fetched")
    fetched = download(client, client.get_file(receipt["file_key"]), str(target))
    assert target.read_bytes() == path.read_bytes()
    target.unlink()
    assert receipt["sha256"] in (None, fetched["sha256"])
    assert receipt["name"] == path.name
    assert receipt["size_bytes"] == path.stat().st_size


def check_all_files(client: QuickSyncClient, server: LocalQuickSync, *paths: Path) -> None:
    """Each file is there once, right, and nothing else is."""
    server.clear_faults()
    there = {file.name: file for file in client.list_files()}
    assert len(server.files()) == len(paths)
    assert set(there) == {path.name for path in paths}
    for path in paths:
        target = path.with_name("fetched")
        download(client, there[path.name], str(target))
        assert target.read_bytes() == path.read_bytes()
        target.unlink()


# What is sent again


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_a_next_attempt_sends_what_is_missing(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, part: int
) -> None:
    fail_at(server, part)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    assert parts_sent(server) == list(range(1, part))
    (receipt,) = attempt(client, store, path)
    assert parts_sent(server) == list(range(part, PARTS + 1))
    check_one_file(client, server, path, receipt)
    assert receipt["parts"] == PARTS
    assert store.kept() == set()


def test_parts_that_were_on_the_way_are_not_sent_twice(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path, options=replace(ONE_BY_ONE, concurrency=3))
    first = parts_sent(server)
    (receipt,) = attempt(client, store, path, options=replace(ONE_BY_ONE, concurrency=3))
    assert sorted(first + parts_sent(server)) == list(range(1, PARTS + 1))
    check_one_file(client, server, path, receipt)


def test_as_many_attempts_as_it_takes(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    for part in (3, 4, 7):
        fail_at(server, part)
        with pytest.raises(BusyError):
            attempt(client, store, path)
    fail_at(server, call="complete")
    with pytest.raises(BusyError):
        attempt(client, store, path)
    assert parts_sent(server) == list(range(1, PARTS + 1))
    (receipt,) = attempt(client, store, path)
    assert parts_sent(server) == []
    check_one_file(client, server, path, receipt)


def test_a_failed_initiate_is_begun_again(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, call="initiate")
    with pytest.raises(BusyError):
        attempt(client, store, path)
    (receipt,) = attempt(client, store, path)
    check_one_file(client, server, path, receipt)


def test_the_plan_is_that_of_the_first_attempt(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    parts_sent(server)
    other = UploadOptions(part_size_bytes=PART * 3, concurrency=7, checksum=False)
    (receipt,) = attempt(client, store, path, options=other)
    assert sorted(parts_sent(server)) == [5, 6, 7, 8]
    check_one_file(client, server, path, receipt)
    assert (receipt["parts"], receipt["sha256"]) == (PARTS, None)


def test_a_file_of_one_part_starts_again(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    path.write_bytes(b"small")
    fail_at(server, 1)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    assert server.files() == []
    (receipt,) = attempt(client, store, path)
    check_one_file(client, server, path, receipt)


def test_without_a_store_nothing_is_left(client: QuickSyncClient, server: LocalQuickSync, path: Path) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        upload_many(client, [(open_source(str(path)), "data.bin")], options=ONE_BY_ONE)
    assert server.files() == []


# Several files


def test_many_small_files_are_sent_once_each(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, small_files: list[Path]
) -> None:
    server.fail("complete", skip=9, status=503, times=TRIES)
    with pytest.raises(BusyError) as failed:
        attempt(client, store, *small_files)
    assert "9 of 20 files had been uploaded before" in str(failed.value.__notes__)
    receipts = attempt(client, store, *small_files)
    assert calls(server)["complete"] == 20 + TRIES
    check_all_files(client, server, *small_files)
    for receipt, path in zip(receipts, small_files, strict=True):
        check_file(client, path, receipt)
    assert store.kept() == set()


def test_large_and_small_files_together(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    sources = [path, *small_files]
    fail_at(server, 4)
    with pytest.raises(BusyError):
        attempt(client, store, *sources)
    server.reset_log()
    receipts = attempt(client, store, *sources)
    assert parts_sent(server) == [4, 5, 6, 7, 8]
    check_all_files(client, server, *sources)
    assert [receipt["name"] for receipt in receipts] == [source.name for source in sources]


def test_files_that_came_and_went_between_the_attempts(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    fail_at(server, 4)
    with pytest.raises(BusyError):
        attempt(client, store, path, *small_files[:3])
    # Two finished ones and the unfinished one aren't asked for any more, others are, in another order.
    asked = [small_files[9], small_files[2], small_files[8]]
    attempt(client, store, *asked)
    check_all_files(client, server, *small_files[:3], small_files[8], small_files[9])


def test_a_batch_of_thousands_keeps_its_notes_within_the_limits(
    client: QuickSyncClient, store: MemoryStore
) -> None:
    name = "文" * 250
    noting = Checkpoint(store)
    assert noting.known == {}
    for number in range(1000):
        state = checkpoint_module.FileState(number, mark=content_mark(data_source(b"", name="a")))
        noting.intend(f"{name}{number}", state, f"raw{number}" * 300)
        noting.done(state, f"bucket/{number:064}/{number:064}", "0" * 64)
    noting.write()
    assert max(map(len, store.values.values())) < VALUE_BYTES
    store.asked.clear()
    known = Checkpoint(store).known
    assert len(store.asked) < 40  # and not one for each file
    assert len(known) == 1000
    assert sorted(state.number for state in known.values()) == list(range(1000))
    assert all(state.file_key and str(state.number) in state.file_key for state in known.values())


def test_ten_thousand_parts_keep_their_notes_within_the_limits(
    connect: Connect, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an upload that would take a hundred seconds, by a clock that goes on with each part."""
    clock = 1000.0
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: clock)
    plan = checkpoint_module.Plan(10_000 * 100, 100, 10_000)
    noting = Checkpoint(store)
    assert noting.known == {}
    state = checkpoint_module.FileState(0)
    noting.intend("huge", state, "raw")
    noting.started(state, checkpoint_module.Upload("u" * 80, "k" * 80), plan)
    before = len(store.writes())
    for number in range(1, 10_001):
        clock += 0.01
        noting.sent(state, number, f"{number:032x}-{number:08x}")
        noting.tick()
    seconds = 100
    # A page that fills up between two looks is written with the next one.
    assert len(store.writes()) - before <= 1.5 * seconds
    assert max(map(len, store.values.values())) < VALUE_BYTES
    noting.write()
    (found,) = Checkpoint(store).known.values()
    assert found.upload == checkpoint_module.Upload("u" * 80, "k" * 80)
    assert found.plan == plan
    assert found.tags == {number: f"{number:032x}-{number:08x}" for number in range(1, 10_001)}


def test_an_upload_of_a_thousand_parts_goes_on(
    connect: Connect, store: MemoryStore, tmp_path: Path, path: Path
) -> None:
    with LocalQuickSync(min_part_bytes=1, max_parts=1000) as server:
        client = connect(server, limits=ServiceLimits(1, 1000))
        path.write_bytes(os.urandom(1000))
        options = UploadOptions(part_size_bytes=1, concurrency=2)
        fail_at(server, 700)
        with pytest.raises(BusyError):
            attempt(client, store, path, options=options)
        first = parts_sent(server)
        (receipt,) = attempt(client, store, path, options=options)
        assert sorted(first + parts_sent(server)) == list(range(1, 1001))
        check_one_file(client, server, path, receipt)


def test_of_a_file_that_is_done_no_parts_are_remembered(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.bin"
    second.write_bytes(os.urandom(PARTS * PART))
    server.fail("put_part", skip=PARTS + 2, status=503, times=TRIES)
    with pytest.raises(BusyError):
        attempt(client, store, path, second)
    assert store.kept() == {"owner", "intents.0", "uploads.0", "done.0", "tags.1.0"}
    attempt(client, store, path, second)
    check_all_files(client, server, path, second)
    assert store.kept() == set()


# The source is another one


def rewrite(path: Path, **changes: Any) -> None:
    """Change a file's content; its size and its time too, unless told otherwise."""
    before = path.stat()
    content = bytearray(os.urandom(before.st_size + (0 if changes.get("same_size") else 17)))
    path.write_bytes(content)
    if changes.get("same_time"):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "changes",
    [{}, {"same_size": True}, {"same_time": True}, {"same_size": True, "same_time": True}],
    ids=["size and time", "time", "size", "only its ends"],
)
def test_a_changed_source_starts_again(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, changes: dict[str, bool]
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    parts_sent(server)
    rewrite(path, **changes)
    (receipt,) = attempt(client, store, path)
    assert len(parts_sent(server)) == receipt["parts"]
    check_one_file(client, server, path, receipt)


def test_a_source_that_changed_after_it_was_uploaded_replaces_what_was_sent_of_it(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, *small_files, path)
    rewrite(small_files[3])
    attempt(client, store, *small_files, path)
    check_all_files(client, server, *small_files, path)


@pytest.mark.parametrize("crash_at", ["initiate", "put_part", "complete"])
def test_what_was_noted_of_an_older_source_is_never_taken_for_the_new_one(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: MemoryStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crash_at: str,
) -> None:
    """The first attempt completed the file; the second, of a new source, fails; the third must not see it."""
    monkeypatch.setattr(Checkpoint, "clear", lambda self, **_: None)
    attempt(client, store, path)
    rewrite(path, same_size=True)
    fail_at(server, call=crash_at)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    monkeypatch.undo()
    (receipt,) = attempt(client, store, path)
    check_file(client, path, receipt)


def test_a_source_that_changes_during_an_attempt_leaves_nothing(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    source = open_source(str(path))
    path.write_bytes(b"other")
    with pytest.raises(SourceChangedError):
        upload_many(client, [(source, "data.bin")], options=ONE_BY_ONE, checkpoint=Checkpoint(store))
    source = open_source(str(path))
    path.unlink()
    with pytest.raises(SourceChangedError):
        upload_many(client, [(source, "data.bin")], options=ONE_BY_ONE, checkpoint=Checkpoint(store))
    assert server.files() == []


def test_a_source_that_can_not_be_recognised_starts_again(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    class OneWay:
        def __init__(self, path: Path) -> None:
            self._file = path.open("rb")

        def read(self, size: int = -1) -> bytes:
            return self._file.read(size)

    def spooled() -> Source:
        stream = OneWay(path)
        source = open_source(stream, name=path.name)
        stream._file.close()
        return source

    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, spooled())
    parts_sent(server)
    (receipt,) = attempt(client, store, spooled())
    assert len(parts_sent(server)) == PARTS
    check_one_file(client, server, path, receipt)


def test_only_ends_of_local_files_are_read_to_recognise_them() -> None:
    class Remote:
        name, size_bytes, fingerprint, remote = "a", 10, "10-etag", True

    marked = content_mark(Remote())  # type: ignore[arg-type]
    assert marked is not None
    Remote.fingerprint = "10-"
    assert content_mark(Remote()) is None  # type: ignore[arg-type]


# The service is another one


def test_an_upload_that_the_service_has_forgotten_starts_again(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    client.delete_file(server.files()[0]["file_key"])
    parts_sent(server)
    (receipt,) = attempt(client, store, path)
    assert len(parts_sent(server)) == PARTS
    check_one_file(client, server, path, receipt)


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
@pytest.mark.parametrize("call", ["put_part", "complete"])
def test_an_upload_that_the_service_refuses_to_go_on_with_starts_again(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: MemoryStore,
    path: Path,
    call: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    fail_at(server, call=call, status=status, times=1)
    (receipt,) = attempt(client, store, path)
    check_one_file(client, server, path, receipt)
    assert "starting the upload of 'data.bin' again" in caplog.text
    assert store.kept() == set()


def test_tags_that_no_longer_fit_start_again(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    (page,) = (key for key in store.values if key.startswith("quicksync.tags."))
    store.set(page, {**store.get(page), "3": "another-tag"})
    (receipt,) = attempt(client, store, path)
    check_one_file(client, server, path, receipt)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_bearer_ends_the_task_and_removes_the_upload(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, status: int
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    fail_at(server, status=status)
    with pytest.raises(RefusedError):
        attempt(client, store, path)
    assert server.files() == []
    assert store.kept() == set()


def test_another_session_starts_again(connect: Connect, store: MemoryStore, path: Path) -> None:
    with LocalQuickSync(min_part_bytes=100) as first, LocalQuickSync(min_part_bytes=100) as second:
        fail_at(first, 5)
        with pytest.raises(BusyError):
            attempt(connect(first), store, path)
        client = connect(second)
        (receipt,) = attempt(client, store, path)
        check_one_file(client, second, path, receipt)
        assert receipt["session_id"] == second.session_id


def test_a_first_attempt_believes_a_refused_complete(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    for status in (404, 409):
        fail_at(server, call="complete", status=status)
        with pytest.raises(QuickSyncError):
            attempt(client, store, path)
        server.clear_faults()
        assert server.files() == []


# Names that are not unique


def test_names_that_are_not_unique_are_no_proof(
    connect: Connect, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    client = connect(server, cipher="none")
    others = attempt(client, MemoryStore(), path, small_files[0])
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path, *small_files)
    parts_sent(server)
    receipts = attempt(client, store, path, *small_files)
    assert parts_sent(server) == [5, 6, 7, 8]
    keys = {receipt["file_key"] for receipt in [*others, *receipts]}
    assert {file["file_key"] for file in server.files()} == keys
    assert len(keys) == 2 + 21


# How it ends


def test_the_last_attempt_removes_what_it_began(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    fail_at(server, 6)
    with pytest.raises(BusyError):
        attempt(client, store, path, last=True)
    assert server.files() == []
    assert store.kept() == set()


def test_a_last_attempt_that_fails_before_it_sends_removes_what_was_begun(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    assert len(server.files()) == 1
    give_up(client, Checkpoint(store, last_attempt=True))
    assert server.files() == []
    assert store.kept() == set()


def test_a_task_that_is_cleared_after_its_last_attempt_knows_which_files_are_done(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, *small_files, path, last=True)
    check_all_files(client, server, *small_files)
    assert store.kept() == {"owner", "intents.0", "done.0"}
    attempt(client, store, *small_files, path)
    check_all_files(client, server, *small_files, path)
    assert store.kept() == set()


def test_what_is_complete_but_not_completed_yet_is_not_given_up(
    connect: Connect, store: MemoryStore, path: Path
) -> None:
    with LocalQuickSync(min_part_bytes=100, complete_after_polls=99) as server:
        client, checkpoint = connect(server), Checkpoint(store)
        upload_many(client, [(open_source(path), "data.bin")], options=ONE_BY_ONE, checkpoint=checkpoint)
        (receipt,) = attempt(client, store, path, last=True)
        assert parts_sent(server) == list(range(1, PARTS + 1))
        upload_many(client, [(open_source(path), "data.bin")], options=ONE_BY_ONE, checkpoint=checkpoint)
        give_up(client, Checkpoint(store, last_attempt=True))
        assert receipt["file_key"] in [file["file_key"] for file in server.files()]
        assert all(file["stored"] for file in server.files())


def test_a_stop_removes_the_upload_and_its_notes(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    stop = Stop()
    stop.request()
    with pytest.raises(StoppedError):
        attempt(client, store, path, stop=stop)
    assert server.files() == []
    assert store.kept() == set()


def test_a_stop_in_the_middle_removes_the_upload_and_its_notes(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    stop, put_part = Stop(), client.put_part

    def put_then_stop(upload: Any, number: int, *arguments: Any, **options: Any) -> Any:
        part = put_part(upload, number, *arguments, **options)
        if number == 5:
            stop.request()
        return part

    client.put_part = put_then_stop  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        attempt(client, store, path, stop=stop)
    assert parts_sent(server) == [1, 2, 3, 4, 5]
    assert server.files() == []
    assert store.kept() == set()


def test_files_of_an_earlier_attempt_do_not_count_as_others(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    (other,) = attempt(client, MemoryStore(), data_source(b"other", name="00.csv"))
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, *small_files, path)
    checkpoint = Checkpoint(store)
    assert [file.file_key for file in list_others(client, checkpoint)] == [other["file_key"]]
    items = [(open_source(path), path.name) for path in [*small_files, path]]
    assert len(select(client, items, "skip", checkpoint).items) == 20
    assert [file.file_key for file in select(client, items, "replace", checkpoint).older] == [
        other["file_key"]
    ]


# The store


def test_nothing_that_is_kept_is_a_secret(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path, small_files: list[Path]
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path, *small_files)
    kept = json.dumps(store.values)
    assert store.kept() == {"owner", "intents.0", "uploads.0", "tags.0.0", "done.0"}
    for secret in (server.token, server.session_id, path.name, "00.csv", "http://"):
        assert secret not in kept


@pytest.mark.parametrize(
    "fails",
    [
        lambda method, key: True,
        lambda method, key: method == "get",
        lambda method, key: method == "set",
        lambda method, key: method == "delete",
    ],
    ids=["everything", "reads", "writes", "deletions"],
)
def test_a_store_that_refuses_harms_nothing(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: MemoryStore,
    path: Path,
    small_files: list[Path],
    fails: Callable[[str, str], bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sources = [path, *small_files]
    store.fails = fails
    (receipt, *_) = attempt(client, store, *sources)
    check_all_files(client, server, *sources)
    check_file(client, path, receipt)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        "resume state can't be kept or read (RuntimeError): a retry may start again",
    ]
    assert "secret-of-the-backend" not in caplog.text


def test_what_no_attempt_could_find_again_is_removed(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    store.fails = lambda method, key: True
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    assert server.files() == []


def test_a_store_that_fails_in_the_middle_costs_what_it_did_not_take(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    store.fails = lambda method, key: "tags" in key
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    assert len(server.files()) == 1
    store.fails = lambda method, key: False
    (receipt,) = attempt(client, store, path)
    check_one_file(client, server, path, receipt)


def test_a_store_that_has_failed_is_left_alone_for_a_while(
    client: QuickSyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: clock)
    checkpoint = Checkpoint(store)
    assert checkpoint.known == {}
    state = checkpoint_module.FileState(0)
    checkpoint.intend("a", state, "raw")
    store.fails, before = lambda method, key: True, len(store.asked)
    for _ in range(20):
        clock += 1
        checkpoint.tick()
    assert len(store.asked) - before == 1
    store.fails = lambda method, key: False
    clock += checkpoint_module.PAUSE_SECONDS
    checkpoint.tick()
    assert "intents.0" in store.kept()


@pytest.mark.parametrize("seed", range(24))
def test_a_store_that_has_lost_keys_never_makes_a_wrong_file(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: MemoryStore,
    path: Path,
    small_files: list[Path],
    seed: int,
) -> None:
    """Of what two failed attempts kept, some keys are lost; the sources come in another order."""
    small, sizes = small_files[:3], {}
    for part in (3, 5):
        fail_at(server, part)
        with pytest.raises(BusyError):
            attempt(client, store, *small, path)
    keys = sorted(store.values)
    for bit, key in enumerate(keys):
        if seed >> bit & 1 if seed < 16 else (bit + seed) % 2:
            del store.values[key]
    receipts = attempt(client, store, path, *reversed(small))
    for receipt, source in zip(receipts, [path, *reversed(small)], strict=True):
        check_file(client, source, receipt)
        sizes[source.name] = receipt["file_key"]
    assert len(set(sizes.values())) == 4


@pytest.mark.parametrize("garbage", [7, "text", [], {"0": 1}, {"attempt": 3, "files": "x"}, {"upload_id": 1}])
@pytest.mark.parametrize("key", ["owner", "intents.0", "uploads.0", "tags.0.0", "done.0", "session"])
def test_a_store_that_holds_garbage_harms_nothing(
    client: QuickSyncClient,
    server: LocalQuickSync,
    store: MemoryStore,
    path: Path,
    key: str,
    garbage: Any,
) -> None:
    fail_at(server, 5)
    with pytest.raises(BusyError):
        attempt(client, store, path)
    store.set(f"quicksync.{key}", garbage)
    (receipt,) = attempt(client, store, path)
    check_file(client, path, receipt)


def test_a_source_that_could_not_be_read_for_a_moment_costs_one_part(
    client: QuickSyncClient, server: LocalQuickSync, store: MemoryStore, path: Path
) -> None:
    class Shaky(FileSource):
        def read_into(self, offset: int, buffer: memoryview) -> int:
            if offset >= 5 * PART and "put_part" in server.counters():
                raise ConnectionResetError("reset by the store")
            return super().read_into(offset, buffer)

    with pytest.raises(DamagedError, match="reset by the store"):
        attempt(client, store, Shaky(path.name, str(path)))
    first = parts_sent(server)
    assert first
    (receipt,) = attempt(client, store, path)
    assert sorted(first + parts_sent(server)) == list(range(1, PARTS + 1))
    check_one_file(client, server, path, receipt)

"""Uploads: every size, nothing left of those that fail, memory that doesn't grow."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    BusyError,
    DamagedError,
    HttpOptions,
    LimitError,
    QuickSyncClient,
    QuickSyncError,
    Receipt,
    RefusedError,
    RetryPolicy,
    SourceChangedError,
    Stop,
    StoppedError,
    UploadOptions,
    UsageError,
    data_source,
    download,
    open_source,
    upload,
    upload_many,
)
from airflow_provider_quicksync.client.transfer import progress as progress_module
from airflow_provider_quicksync.client.transfer.sources import FileSource
from airflow_provider_quicksync.client.transfer.window import run_window
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import LIMITS, PART, Connect, calls

OPTIONS = UploadOptions(part_size_bytes=PART, concurrency=3)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def made_file(folder: Path, size: int, name: str = "data.bin") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


class Meddled(FileSource):
    """A file to which something happens when a byte of it is first read."""

    def __init__(self, path: Path, meddle: Callable[[], object], at: int = 2 * PART) -> None:
        super().__init__(path.name, str(path))
        self._meddle, self._at, self._lock = meddle, at, threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        with self._lock:
            meddle = self._meddle if offset >= self._at else None
            if meddle:
                self._meddle = lambda: None
                meddle()
        return super().read_into(offset, buffer)


@pytest.fixture
def shared_server() -> Iterator[LocalQuickSync]:
    """A server for each test: what a stopped upload had sent may arrive after its end."""
    with LocalQuickSync(min_part_bytes=LIMITS.min_part_bytes, max_parts=LIMITS.max_parts) as server:
        yield server


# Sizes


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 30 * PART + 7])
def test_a_file_of_any_size_arrives_as_it_is(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path, size: int, checksum: bool
) -> None:
    path = made_file(tmp_path, size)
    options = UploadOptions(part_size_bytes=PART, concurrency=3, checksum=checksum)
    receipt = upload(client, open_source(path), options=options)
    parts = max(1, -(-size // PART))
    assert receipt == Receipt(
        file_key=receipt["file_key"],
        name="data.bin",
        size_bytes=size,
        sha256=sha256(path.read_bytes()) if checksum else None,
        parts=parts,
        completed=False,
        session_id=server.session_id,
    )
    assert calls(server) == {"initiate": 1, "put_part": parts, "complete": 1}
    assert sum(entry.received_bytes for entry in server.requests if entry.call == "put_part") == size
    download(client, client.get_file(receipt["file_key"]), str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_file_of_one_part_over_a_mebibyte_goes_up(
    connect: Connect, server: LocalQuickSync, tmp_path: Path
) -> None:
    path = made_file(tmp_path, (1 << 20) + 1)
    receipt = upload(connect(server), open_source(path))
    assert (receipt["parts"], receipt["sha256"]) == (1, sha256(path.read_bytes()))


def test_a_name_of_ones_own_and_the_same_source_again(client: QuickSyncClient, tmp_path: Path) -> None:
    source = open_source(made_file(tmp_path, 10))
    receipts = [upload(client, source, name=name) for name in ("ä/b.csv", "c")]
    assert [client.get_file(receipt["file_key"]).name for receipt in receipts] == ["ä/b.csv", "c"]


def test_parts_go_up_next_to_each_other_but_no_more_than_the_concurrency(
    connect: Connect, server: LocalQuickSync, tmp_path: Path
) -> None:
    server.fail("put_part", delay_seconds=0.02, times=12)
    upload(connect(server), open_source(made_file(tmp_path, 12 * PART)), options=OPTIONS)
    assert server.counters()["put_part"]["most_in_flight"] == 3


# Faults


def test_parts_that_are_cut_are_sent_again_and_the_file_is_right(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    path = made_file(tmp_path, 3_000_000)
    server.fail("put_part", cut="request", part_number=2)
    server.fail("put_part", cut="answer", part_number=2)
    server.fail("put_part", cut="reset", part_number=3)
    receipt = upload(client, open_source(path), options=UploadOptions(part_size_bytes=1_000_000))
    assert calls(server)["put_part"] == 6
    assert receipt["sha256"] == sha256(path.read_bytes())
    download(client, client.get_file(receipt["file_key"]), str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_single_part_that_is_cut_has_the_right_checksum(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    path = made_file(tmp_path, 900_000)
    server.fail("put_part", cut="request", times=2)
    receipt = upload(client, open_source(path))
    assert receipt["sha256"] == sha256(path.read_bytes())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 401}, RefusedError),
        ({"status": 413}, LimitError),
        ({"status": 400}, UsageError),
        ({"body": "nulls"}, DamagedError),
        ({"body": "not_json"}, DamagedError),
    ],
)
def test_the_first_hopeless_part_stops_the_rest_at_once_and_leaves_nothing(
    client: QuickSyncClient,
    server: LocalQuickSync,
    tmp_path: Path,
    fault: dict[str, Any],
    kind: type[QuickSyncError],
) -> None:
    server.fail("put_part", part_number=4, **fault)
    with pytest.raises(kind, match="upload part 4 of file"):
        upload(client, open_source(made_file(tmp_path, 40 * PART)), options=OPTIONS)
    assert calls(server)["put_part"] <= 12
    assert calls(server)["complete"] == 0
    assert server.files() == []


def test_a_hopeless_part_ends_the_waits_of_the_others(
    connect: Connect, server: LocalQuickSync, tmp_path: Path
) -> None:
    server.fail("put_part", part_number=2, status=503, retry_after=100)
    server.fail("put_part", part_number=3, status=403)
    client = connect(server, retry=RetryPolicy())
    started = time.monotonic()
    with pytest.raises(RefusedError):
        upload(client, open_source(made_file(tmp_path, 40 * PART)), options=OPTIONS)
    assert time.monotonic() - started < 5
    assert server.files() == []


def test_what_keeps_failing_is_given_up_and_leaves_nothing(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    server.fail("put_part", part_number=2, status=503, times=None)
    with pytest.raises(BusyError, match="upload part 2"):
        upload(client, open_source(made_file(tmp_path, 3 * PART)), options=OPTIONS)
    assert server.files() == []


def test_what_cannot_be_removed_is_named_in_the_log_and_the_cause_is_raised(
    client: QuickSyncClient, server: LocalQuickSync, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("complete", status=400)
    server.fail("delete", status=503, times=None)
    with pytest.raises(UsageError, match="complete the upload"):
        upload(client, data_source(b"1", name="a.csv"))
    (left,) = server.files()
    assert (
        f"the unfinished upload of 'a.csv' is still there as {left['file_key']}: delete file" in caplog.text
    )


def test_a_session_that_ends_in_the_middle_is_told(connect: Connect, tmp_path: Path) -> None:
    with LocalQuickSync(min_part_bytes=1) as server:
        source = Meddled(made_file(tmp_path, 30 * PART), server.expire_session)
        with pytest.raises(RefusedError, match="fresh session token"):
            upload(connect(server), source, options=OPTIONS)


# Sources that change


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other bytes")
    os.utime(path, ns=(2, 2))


@pytest.mark.parametrize("parts", [1, 10])
@pytest.mark.parametrize("meddle", [grow, touch, rewrite, lambda path: os.truncate(path, PART // 2)])
def test_a_source_that_changes_is_an_error_and_leaves_nothing(
    client: QuickSyncClient,
    server: LocalQuickSync,
    tmp_path: Path,
    meddle: Callable[[Path], None],
    parts: int,
) -> None:
    path = made_file(tmp_path, parts * PART)
    source = Meddled(path, lambda: meddle(path), at=0 if parts == 1 else 2 * PART)
    with pytest.raises(SourceChangedError, match=r"'data\.bin'"):
        upload(client, source, options=OPTIONS)
    assert calls(server)["initiate"] == 1
    assert calls(server)["complete"] == 0
    assert server.files() == []


def test_a_source_that_shrinks_is_read_no_further_than_its_end(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    path = made_file(tmp_path, 10 * PART)
    source = Meddled(path, lambda: os.truncate(path, PART // 2), at=9 * PART)
    with pytest.raises(
        SourceChangedError, match=r"shrank while it was uploaded: it ends at byte [\d,]+ of 10,000"
    ):
        upload(client, source, options=OPTIONS)
    assert server.files() == []


def test_a_source_that_changed_before_its_turn_is_not_begun(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    path = made_file(tmp_path, 10)
    source = open_source(path)
    grow(path)
    with pytest.raises(SourceChangedError, match="upload it once it is finished"):
        upload(client, source)
    assert not server.requests


def test_a_file_that_is_replaced_goes_up_as_it_was_when_it_was_opened(
    client: QuickSyncClient, tmp_path: Path
) -> None:
    path, other = made_file(tmp_path, 10 * PART), made_file(tmp_path, 10 * PART, "other")
    expected = path.read_bytes()
    receipt = upload(client, Meddled(path, lambda: other.replace(path)), options=OPTIONS)
    assert receipt["sha256"] == sha256(expected)


def test_a_read_error_names_the_source_and_the_byte(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    class Broken(FileSource):
        def read_into(self, offset: int, buffer: memoryview) -> int:
            if offset >= 3 * PART:
                raise OSError(5, "Input/output error")
            return super().read_into(offset, buffer)

    with pytest.raises(
        DamagedError, match=r"reading 'a' at byte \d,000 failed: OSError: .*Input/output"
    ) as raised:
        upload(client, Broken("a", str(made_file(tmp_path, 9 * PART))), options=OPTIONS)
    assert not isinstance(raised.value, SourceChangedError)  # it is as it was: another attempt may go on
    assert server.files() == []


# Stopping


@pytest.mark.parametrize("size", [PART, 60 * PART])
def test_a_stop_in_the_middle_ends_it_and_leaves_nothing(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path, size: int
) -> None:
    stop = Stop()
    source = Meddled(made_file(tmp_path, size), stop.request, at=0 if size == PART else 10 * PART)
    with pytest.raises(StoppedError, match="stopped on request"):
        upload(client, source, options=OPTIONS, stop=stop)
    assert calls(server)["put_part"] <= 20
    assert calls(server)["complete"] == 0
    assert server.files() == []


def test_a_stop_before_the_start_sends_nothing(client: QuickSyncClient, server: LocalQuickSync) -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(StoppedError):
        upload(client, data_source(b"1", name="a"), stop=stop)
    assert not server.requests


def test_a_stop_does_not_wait_for_a_socket_that_hangs(
    connect: Connect, server: LocalQuickSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_quicksync.client.transfer.window.GRACE_SECONDS", 0.05)
    server.fail("put_part", delay_seconds=2, times=3)
    stop = Stop()
    threading.Timer(0.1, stop.request).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        upload(connect(server), open_source(made_file(tmp_path, 5 * PART)), options=OPTIONS, stop=stop)
    assert time.monotonic() - started < 1.5
    assert server.files() == []


def test_an_interrupt_leaves_nothing(client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path) -> None:
    def interrupt(moved: int, total: int) -> None:
        raise KeyboardInterrupt

    server.fail("put_part", delay_seconds=0.5)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_module, "PROGRESS_SECONDS", 0)
        upload(client, open_source(made_file(tmp_path, 20 * PART)), options=OPTIONS, progress=interrupt)
    assert server.files() == []


# The window


def test_the_first_failure_is_raised_not_the_stops_that_follow_from_it() -> None:
    stop = Stop()
    failed = threading.Event()

    def work(item: int) -> None:
        if item == 1:
            failed.set()
            raise BusyError("the cause")
        failed.wait(5)
        while True:
            stop.check()

    with pytest.raises(BusyError, match="the cause"):
        run_window(work, range(10), concurrency=4, stop=stop)
    assert stop.halted.is_set()
    assert not stop.requested.is_set()


def test_a_stop_reaches_every_attempt_and_a_failed_attempt_only_itself() -> None:
    stop, interrupted = Stop(), []
    first = stop.attempt()
    first.halted.set()
    second = stop.attempt()
    inner = second.attempt()
    second.interrupt = lambda: interrupted.append("second")
    stop.check()
    inner.check()
    stop.request()
    assert interrupted == ["second"]
    for one in (stop, first, second, inner, stop.attempt()):
        with pytest.raises(StoppedError, match="on request"):
            one.check()


def test_what_runs_beside_the_items_can_fail_too() -> None:
    def beside() -> None:
        raise DamagedError("the checksum")

    with pytest.raises(DamagedError, match="the checksum"):
        run_window(lambda item: None, range(3), concurrency=2, stop=Stop(), beside=beside)


# Progress


def test_progress_counts_each_byte_once(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PROGRESS_SECONDS", 0)
    server.fail("put_part", cut="answer", times=2)  # which may meet one part
    server.fail("put_part", part_number=8, delay_seconds=0.5)
    seen: list[tuple[int, int]] = []
    upload(
        client,
        open_source(made_file(tmp_path, 8 * PART)),
        options=OPTIONS,
        progress=lambda moved, total: seen.append((moved, total)),
    )
    assert seen
    assert {total for _, total in seen} == {8 * PART}
    assert all(0 <= moved <= 8 * PART for moved, _ in seen)


# Many files


def test_many_files_give_their_receipts_in_order(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    sizes = [0, 5, 3 * PART, 1, PART, PART + 1, *[17] * 30]
    paths = [made_file(tmp_path, size, f"f{number}") for number, size in enumerate(sizes)]
    receipts = upload_many(client, [(open_source(path), f"n-{path.name}") for path in paths], options=OPTIONS)
    assert [receipt["name"] for receipt in receipts] == [f"n-{path.name}" for path in paths]
    assert [receipt["sha256"] for receipt in receipts] == [sha256(path.read_bytes()) for path in paths]
    assert {file.file_key: file.name for file in client.list_files()} == {
        receipt["file_key"]: receipt["name"] for receipt in receipts
    }
    assert server.counters()["initiate"]["most_in_flight"] <= 3


def test_no_files_give_no_receipts(client: QuickSyncClient, server: LocalQuickSync) -> None:
    assert upload_many(client, []) == []
    assert not server.requests


def test_a_failing_file_among_many_names_what_is_there_and_leaves_no_half_one(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    paths = [made_file(tmp_path, 10, f"f{number}") for number in range(40)]
    server.fail("complete", skip=5, status=422)
    with pytest.raises(LimitError) as caught:
        upload_many(client, [(open_source(path), path.name) for path in paths], options=OPTIONS)
    left = server.files()
    assert all(file["stored"] for file in left)
    assert 5 <= len(left) <= 12
    (note,) = caught.value.__notes__
    assert note.startswith(f"{len(left)} of 40 files had been uploaded before: 'f")
    assert all(file["file_key"] in note for file in left)


def test_files_that_wait_for_their_turn_hold_no_handles(client: QuickSyncClient, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sources = [(open_source(made_file(tmp_path, 1, f"f{number}")), "x") for number in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    upload_many(client, sources[:5], options=OPTIONS)


# Memory

MEASURE = """
import resource, sys
from airflow_provider_quicksync.client import *
url, token, path = sys.argv[1:]
with QuickSyncClient(token, base_url=url, session_id="s1") as client:
    upload(client, data_source(b"warm", name="up"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    receipt = upload(client, open_source(path))
    print(receipt["sha256"], receipt["parts"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    client.delete_file(receipt["file_key"])
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    grown_kib = {}
    with LocalQuickSync() as server:
        for mib in (64, 512):
            path = tmp_path / "sparse"
            path.touch()
            os.truncate(path, mib << 20)
            command = [sys.executable, "-c", MEASURE, server.url, server.token, str(path)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
            checksum, parts, kib = ended.stdout.split()
            grown_kib[mib] = int(kib)
            assert int(parts) >= 8
            assert len(checksum) == 64
    assert grown_kib[512] <= 10 << 10
    assert grown_kib[512] - grown_kib[64] <= 3 << 10


def test_a_client_has_a_connection_for_each_part_on_the_way() -> None:
    assert HttpOptions().connections >= UploadOptions().concurrency

"""Downloads: verified, resumed, and nothing half-written under the target's name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    BusyError,
    ConflictError,
    DamagedError,
    DownloadOptions,
    LimitError,
    NotFoundError,
    QuickSyncClient,
    QuickSyncError,
    RefusedError,
    Stop,
    StoppedError,
    UnreachableError,
    UploadOptions,
    UsageError,
    data_source,
    download,
    upload,
)
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import Connect, calls
from .raw import RawServer, http

MIB = 1 << 20
LARGE = os.urandom(20 * MIB + 5)
"""Three ranges."""
SMALL = os.urandom(5000)
OPTIONS = DownloadOptions(concurrency=4)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def large_key(shared_server: LocalQuickSync) -> str:
    with QuickSyncClient(shared_server.token, base_url=shared_server.url, cipher="none") as client:
        return upload(client, data_source(LARGE, name="large"))["file_key"]


@pytest.fixture
def server(shared_server: LocalQuickSync, large_key: str) -> Iterator[LocalQuickSync]:
    """A server that has the large file."""
    shared_server.clear_faults()
    shared_server.reset_log()
    yield shared_server
    shared_server.configure(link_seconds=3600)


@pytest.fixture
def small_key(client: QuickSyncClient, server: LocalQuickSync) -> str:
    key = upload(client, data_source(SMALL, name="small"), options=UploadOptions(part_size_bytes=1000))[
        "file_key"
    ]
    server.reset_log()
    return key


def sent_bytes(server: LocalQuickSync) -> int:
    return sum(entry.sent_bytes for entry in server.requests if entry.call == "download")


def check_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []


# What arrives


@pytest.mark.parametrize("size", [0, 1, 4999, MIB - 1, MIB, MIB + 1])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_of_any_size_arrives_as_it_is(
    client: QuickSyncClient, tmp_path: Path, size: int, checksum: bool
) -> None:
    data = LARGE[:size]
    key = upload(client, data_source(data, name="f.bin"))["file_key"]
    target = tmp_path / "back.bin"
    receipt = download(client, client.get_file(key), str(target), options=DownloadOptions(checksum=checksum))
    assert target.read_bytes() == data
    assert receipt == {
        "file_key": key,
        "name": "f.bin",
        "size_bytes": size,
        "sha256": sha256(data) if checksum else None,
        "path": str(target),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["back.bin"]
    client.delete_file(key)


def test_a_large_file_arrives_in_ranges_and_each_byte_once(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    receipt = download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS)
    assert receipt["sha256"] == sha256(LARGE)
    assert (tmp_path / "f").read_bytes() == LARGE
    ranges = sorted(entry.headers["Range"] for entry in server.requests if entry.call == "download")
    assert len(ranges) == 4  # one byte to see whether there are ranges, then three
    assert sent_bytes(server) == len(LARGE) + 1


@pytest.mark.parametrize("where", ["every answer", "one range"])
def test_a_link_that_ignores_ranges_is_read_all_the_same(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path, where: str
) -> None:
    if where == "one range":
        server.fail("download", ignore_range=True, skip=2)
    else:
        server.fail("download", ignore_range=True, times=None)
    receipt = download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS)
    assert receipt["sha256"] == sha256(LARGE) == sha256((tmp_path / "f").read_bytes())


def test_a_path_object_and_an_upper_case_checksum_are_taken(
    client: QuickSyncClient, small_key: str, tmp_path: Path
) -> None:
    target: Any = tmp_path / "f"
    options = DownloadOptions(sha256=sha256(SMALL).upper(), checksum=False)
    receipt = download(client, client.get_file(small_key), target, options=options)
    assert (receipt["path"], receipt["sha256"]) == (str(target), sha256(SMALL))


def test_the_umask_counts(client: QuickSyncClient, small_key: str, tmp_path: Path) -> None:
    was = os.umask(0o027)
    try:
        download(client, client.get_file(small_key), str(tmp_path / "f"))
    finally:
        os.umask(was)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["é" * 120, "x" * 255, ".hidden", "a b", "-"])
def test_any_file_name_is_a_target(
    client: QuickSyncClient, small_key: str, tmp_path: Path, name: str
) -> None:
    download(client, client.get_file(small_key), str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_target_is_in_the_current_folder(
    client: QuickSyncClient, small_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    download(client, client.get_file(small_key), "f")
    assert (tmp_path / "f").read_bytes() == SMALL


def test_an_existing_target_is_replaced(client: QuickSyncClient, small_key: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"older")
    download(client, client.get_file(small_key), str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == SMALL


# Cuts and links


def test_a_download_that_is_cut_goes_on_where_it_was(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    server.fail("download", cut="response", after_bytes=5 * MIB, skip=1, times=3)
    receipt = download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS)
    assert receipt["sha256"] == sha256(LARGE)
    assert calls(server)["download"] >= 6
    assert sent_bytes(server) <= len(LARGE) * 1.05


def test_as_long_as_bytes_come_cuts_are_not_counted_as_failed_attempts(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    server.fail("download", cut="response", after_bytes=MIB + 100, skip=1, times=15)
    receipt = download(
        client, client.get_file(large_key), str(tmp_path / "f"), options=DownloadOptions(concurrency=1)
    )
    assert receipt["sha256"] == sha256(LARGE)


def test_cuts_that_bring_nothing_end_it(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path
) -> None:
    server.fail("download", cut="response", after_bytes=0, times=None)
    with pytest.raises(UnreachableError, match=f"download file {small_key}"):
        download(client, client.get_file(small_key), str(tmp_path / "f"))
    assert calls(server)["download"] == 3
    check_nothing_is_left(tmp_path)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"cut": "reset"}, {"cut": "answer"}])
def test_a_link_that_fails_for_a_while_is_tried_again(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path, fault: dict[str, Any]
) -> None:
    server.fail("download", times=2, **fault)
    download(client, client.get_file(small_key), str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == SMALL


def test_a_link_that_keeps_failing_is_given_up(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path
) -> None:
    server.fail("download", status=503, times=None)
    with pytest.raises(BusyError, match=r"503 .* from http://127\.0\.0\.1:\d+/…"):
        download(client, client.get_file(small_key), str(tmp_path / "f"))
    check_nothing_is_left(tmp_path)


def test_a_link_that_expires_in_the_middle_is_renewed(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    server.fail("download", cut="response", after_bytes=3 * MIB, skip=1)
    server.fail("download", status=403, skip=3)
    receipt = download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS)
    assert receipt["sha256"] == sha256(LARGE)
    assert calls(server)["get_download_url"] == 2
    assert sent_bytes(server) <= len(LARGE) * 1.05


def test_a_link_that_was_born_expired_is_renewed(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path
) -> None:
    server.fail("get_download_url", link_seconds=0)
    download(client, client.get_file(small_key), str(tmp_path / "f"))
    assert calls(server) == {"get_file": 1, "get_download_url": 2, "download": 2}


def test_a_link_that_was_born_expired_is_renewed_for_ranges_too(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    server.fail("get_download_url", link_seconds=0)
    download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS)
    assert calls(server)["get_download_url"] == 2


def test_links_that_never_work_end_it(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path
) -> None:
    server.configure(link_seconds=0)
    with pytest.raises(RefusedError, match="403 Forbidden from"):
        download(client, client.get_file(small_key), str(tmp_path / "f"))
    assert calls(server)["download"] == 2
    check_nothing_is_left(tmp_path)


def test_a_file_that_is_gone_or_not_completed_is_told(
    client: QuickSyncClient, small_key: str, tmp_path: Path
) -> None:
    file = client.get_file(small_key)
    client.delete_file(small_key)
    with pytest.raises(NotFoundError, match="get the link of file"):
        download(client, file, str(tmp_path / "f"))
    begun = client.initiate_upload("a", size_bytes=1, total_parts=1)
    with pytest.raises(ConflictError, match="not completed yet"):
        download(client, client.get_file(begun.file_key), str(tmp_path / "f"))
    check_nothing_is_left(tmp_path)


# What is not what it must be


def test_a_damaged_byte_is_found_and_the_target_stays(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"older")
    server.fail("download", body="corrupt", skip=2)
    with pytest.raises(
        DamagedError, match=f"SHA-256 is [0-9a-f]{{64}}, not {sha256(LARGE)}; .* was not written"
    ):
        download(
            client,
            client.get_file(large_key),
            str(tmp_path / "f"),
            options=DownloadOptions(sha256=sha256(LARGE)),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"older"


@pytest.mark.parametrize("size", [0, 1, 4999, 5001, 100_000])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_of_another_size_than_the_service_tells_is_damaged(
    client: QuickSyncClient, small_key: str, tmp_path: Path, size: int, checksum: bool
) -> None:
    file = replace(client.get_file(small_key), size_bytes=size)
    with pytest.raises(DamagedError, match=f"download file {small_key}"):
        download(client, file, str(tmp_path / "f"), options=DownloadOptions(checksum=checksum))
    check_nothing_is_left(tmp_path)


def test_an_answer_for_another_range_is_damaged(
    connect: Connect, client: QuickSyncClient, tmp_path: Path
) -> None:
    file = replace(
        client.get_file(upload(client, data_source(b"1", name="a"))["file_key"]), size_bytes=20 * MIB
    )
    other = b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\nContent-Range: bytes 7-11/20971520\r\n\r\n12345"
    refused = pytest.raises(DamagedError, match=r"got 'bytes 7-11/20971520'")
    with RawServer(other) as raw, RawServer(http(200, json.dumps({"url": f"{raw.url}/f"}))) as api, refused:
        download(connect(api.url), file, str(tmp_path / "f"))
    check_nothing_is_left(tmp_path)


def test_an_endless_link_is_cut_off(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path
) -> None:
    server.fail("download", body="endless", times=None)
    with pytest.raises(DamagedError, match="the link gives more than 5,000"):
        download(client, client.get_file(small_key), str(tmp_path / "f"))
    check_nothing_is_left(tmp_path)


# Where it can't be written


def test_a_target_that_is_a_directory_or_in_no_folder_is_refused_before_anything_is_asked(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path
) -> None:
    file = client.get_file(small_key)
    server.reset_log()
    with pytest.raises(UsageError, match="is a directory: name the file in it"):
        download(client, file, str(tmp_path))
    with pytest.raises(UsageError, match="the folder .*/no does not exist"):
        download(client, file, str(tmp_path / "no" / "f"))
    assert not server.requests


def test_a_folder_that_may_not_be_written_is_refused(
    client: QuickSyncClient, small_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(RefusedError, match="may not be written by this worker's user"):
        download(client, client.get_file(small_key), str(tmp_path / "f"))


def test_a_name_that_the_disk_does_not_take_is_refused_and_leaves_nothing(
    client: QuickSyncClient, small_key: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match="File name too long; nothing was left there"):
        download(client, client.get_file(small_key), str(tmp_path / ("x" * 256)))
    check_nothing_is_left(tmp_path)


def test_no_room_is_found_before_the_first_byte(
    client: QuickSyncClient,
    server: LocalQuickSync,
    large_key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = client.get_file(large_key)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(LARGE) - 1))
    server.reset_log()
    with pytest.raises(LimitError, match="20,971,525 bytes needed, 20,971,524 free on its disk"):
        download(client, file, str(tmp_path / "f"))
    assert not server.requests


def test_a_disk_that_fills_up_leaves_nothing(
    client: QuickSyncClient, large_key: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    (small_disk / "f").write_bytes(b"older")
    with pytest.raises(LimitError, match="the disk is full; nothing was left there"):
        download(client, client.get_file(large_key), str(small_disk / "f"), options=OPTIONS)
    assert [path.name for path in small_disk.iterdir()] == ["f"]
    assert (small_disk / "f").read_bytes() == b"older"


# Stopping, progress, errors


def test_a_stop_in_the_middle_leaves_nothing(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    server.fail("download", stall_seconds=1, after_bytes=MIB, skip=1, times=3)
    stop = Stop()
    threading.Timer(0.1, stop.request).start()
    started = time.monotonic()
    with pytest.raises(StoppedError, match="stopped on request"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_quicksync.client.transfer.window.GRACE_SECONDS", 0.05)
        download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS, stop=stop)
    assert time.monotonic() - started < 1
    check_nothing_is_left(tmp_path)


def test_progress_is_reported_in_bytes(
    client: QuickSyncClient,
    server: LocalQuickSync,
    large_key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_provider_quicksync.client.transfer.progress.PROGRESS_SECONDS", 0)
    server.fail("download", stall_seconds=0.4, after_bytes=2 * MIB, skip=1, times=3)
    seen: list[tuple[int, int]] = []
    download(
        client,
        client.get_file(large_key),
        str(tmp_path / "f"),
        options=OPTIONS,
        progress=lambda moved, total: seen.append((moved, total)),
    )
    assert {total for _, total in seen} == {len(LARGE)}
    assert any(0 < moved <= len(LARGE) for moved, _ in seen)


@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 404}, {"cut": "reset"}])
def test_no_error_is_its_own_cause(
    client: QuickSyncClient, server: LocalQuickSync, small_key: str, tmp_path: Path, fault: dict[str, Any]
) -> None:
    """Whoever walks the causes, as log formatters do, comes to an end."""
    server.fail("download", times=None, **fault)
    with pytest.raises(QuickSyncError) as caught:
        download(client, client.get_file(small_key), str(tmp_path / "f"))
    seen: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        assert error not in seen
        seen.append(error)
        error = error.__cause__
    assert traceback.format_exception(caught.value)


def test_the_link_is_never_given_the_bearer(
    client: QuickSyncClient, server: LocalQuickSync, large_key: str, tmp_path: Path
) -> None:
    download(client, client.get_file(large_key), str(tmp_path / "f"), options=OPTIONS)
    entries = [entry for entry in server.requests if entry.call == "download"]
    assert entries
    assert not any("Authorization" in entry.headers or "X-API-KEY" in entry.headers for entry in entries)

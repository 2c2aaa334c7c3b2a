"""What can be uploaded from, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_quicksync.client import (
    LimitError,
    NotFoundError,
    QuickSyncClient,
    RefusedError,
    SourceChangedError,
    UploadOptions,
    UsageError,
    data_source,
    download,
    open_source,
    upload,
    upload_many,
)
from airflow_provider_quicksync.client.transfer import sources
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import PART

DATA = bytes(range(256)) * 20  # five parts and a bit


class StorePath:
    """What an ``ObjectStoragePath`` is to an upload."""

    def __init__(self, fs: Any, path: str, protocol: str) -> None:
        self.fs, self.path, self.protocol = fs, path, protocol
        self.name = path.rpartition("/")[2]


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def by_path(folder: Path) -> Any:
    (folder / "data.bin").write_bytes(DATA)
    return str(folder / "data.bin")


def by_bytes_io(folder: Path) -> Any:
    stream = io.BytesIO(b"before" + DATA)
    stream.seek(6)
    return stream


def by_open_file(folder: Path) -> Any:
    stream = open(by_path(folder), "rb")  # noqa: SIM115
    stream.seek(0)
    return stream


def by_spooled_file(folder: Path) -> Any:
    stream = tempfile.SpooledTemporaryFile(max_size=10)  # noqa: SIM115
    stream.write(DATA)
    stream.seek(0)
    return stream


def by_named_temporary_file(folder: Path) -> Any:
    stream = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115
    stream.write(DATA)
    stream.seek(0)
    return stream


def by_temporary_file(folder: Path) -> Any:
    stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    stream.write(DATA)
    stream.seek(0)
    return stream


def by_pipe(folder: Path) -> Any:
    read, write = os.pipe()
    os.write(write, DATA)
    os.close(write)
    return open(read, "rb")


def by_process(folder: Path) -> Any:
    return subprocess.Popen(["cat", by_path(folder)], stdout=subprocess.PIPE).stdout


def by_fifo(folder: Path) -> Any:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    threading.Thread(target=lambda: fifo.write_bytes(DATA)).start()
    return fifo


def by_store(folder: Path) -> Any:
    fs = fsspec.filesystem("memory")
    fs.pipe("/bucket/data.bin", DATA)
    return StorePath(fs, "/bucket/data.bin", "memory")


def by_local_store(folder: Path) -> Any:
    return StorePath(fsspec.filesystem("file"), by_path(folder), "file")


MAKERS: list[Callable[[Path], Any]] = [
    by_path,
    lambda folder: Path(by_path(folder)),
    by_bytes_io,
    by_open_file,
    by_spooled_file,
    by_temporary_file,
    by_named_temporary_file,
    by_pipe,
    by_process,
    by_fifo,
    by_store,
    by_local_store,
]


@pytest.mark.usefixtures("memory")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_every_kind_of_source_arrives_as_it_is(
    client: QuickSyncClient, tmp_path: Path, maker: Callable[[Path], Any], checksum: bool
) -> None:
    options = UploadOptions(part_size_bytes=PART, concurrency=3, checksum=checksum)
    given = maker(tmp_path)
    receipt = upload(client, open_source(given), options=options)
    assert receipt["parts"] == 6
    assert receipt["size_bytes"] == len(DATA)
    assert receipt["sha256"] == (hashlib.sha256(DATA).hexdigest() if checksum else None)
    target = tmp_path / "back"
    download(client, client.get_file(receipt["file_key"]), str(target))
    assert target.read_bytes() == DATA
    if hasattr(given, "close"):
        assert not given.closed
        given.close()


@pytest.mark.parametrize(
    "data", [b"", b"1", DATA, bytearray(DATA), memoryview(DATA), memoryview(DATA)[::2], "", "Grüße 🚀" * 100]
)
def test_data_arrives_as_it_is_and_text_as_utf_8(client: QuickSyncClient, tmp_path: Path, data: Any) -> None:
    expected = data.encode() if isinstance(data, str) else bytes(data)
    receipt = upload(client, data_source(data, name="d"), options=UploadOptions(part_size_bytes=PART))
    assert receipt["sha256"] == hashlib.sha256(expected).hexdigest()
    download(client, client.get_file(receipt["file_key"]), str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == expected


@pytest.mark.parametrize("data", [None, 1, ["a"], {"a": 1}, io.BytesIO(b"1")])
def test_what_is_no_data_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match="pass bytes or str"):
        data_source(data, name="d")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (by_path, "data.bin"),
        (by_bytes_io, "data"),
        (by_temporary_file, "data"),
        (by_open_file, "data.bin"),
        (by_store, "data.bin"),
    ],
)
@pytest.mark.usefixtures("memory")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_source_has_a_name_of_its_own_unless_it_is_given_one(tmp_path: Path, given: Any, name: str) -> None:
    assert open_source(given(tmp_path)).name == name
    assert open_source(given(tmp_path), name="mine").name == "mine"


@contextmanager
def without_root() -> Iterator[None]:
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_missing_file_is_not_found_on_this_worker(tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path / "no" / "no", "", "relative-and-missing"):
        with pytest.raises(NotFoundError, match="does not exist on this worker") as caught:
            open_source(path)
        assert caught.value.status is None


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"1")
    path.chmod(0)
    with without_root(), pytest.raises(RefusedError, match="may not be read by this worker's user"):
        open_source(path)


def test_a_directory_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a directory: pass its files, or a glob such as .*/\*"):
        open_source(tmp_path)


def test_a_path_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for path in (tmp_path / "file" / "below", tmp_path / ("x" * 300), "nul\x00l"):
        with pytest.raises((UsageError, NotFoundError)):
            open_source(path)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_text_files_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("text")
    with (
        open(tmp_path / "t") as text,
        tempfile.NamedTemporaryFile("w+", dir=tmp_path) as temporary,
        tempfile.SpooledTemporaryFile(mode="w+") as spooled,
    ):
        for stream in (text, io.StringIO("text"), temporary, spooled):
            with pytest.raises(UsageError, match=r"open it in binary mode \('rb'\)"):
                open_source(stream)


def test_a_file_object_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    closed = io.BytesIO(b"1")
    closed.close()
    with open(tmp_path / "w", "wb") as writing:
        for stream in (closed, writing):
            with pytest.raises(UsageError, match="can't be read"):
                open_source(stream)


@pytest.mark.parametrize("given", [None, 7, b"bytes", ["a"], object()])
def test_what_is_no_source_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="pass a path, a binary file object or a URL"):
        open_source(given)


def test_an_fsspec_open_file_is_refused_in_words(memory: MemoryFileSystem) -> None:
    memory.pipe("/b/x", b"1")
    with pytest.raises(UsageError, match="cannot upload from OpenFile"):
        open_source(fsspec.open("memory://b/x", "rb"))


def test_a_remote_file_that_is_missing_or_no_file_is_refused(memory: MemoryFileSystem) -> None:
    memory.pipe("/bucket/folder/x", b"1")
    with pytest.raises(NotFoundError, match="'y' does not exist"):
        open_source(StorePath(memory, "/bucket/y", "memory"))
    with pytest.raises(UsageError, match="is not a file of a known size"):
        open_source(StorePath(memory, "/bucket/folder", "memory"))


def test_a_remote_file_that_may_not_be_read_is_refused() -> None:
    class Locked(MemoryFileSystem):
        def info(self, path: str, **kwargs: Any) -> Any:
            raise PermissionError("AccessDenied")

    with pytest.raises(RefusedError, match="'x' may not be read"):
        open_source(StorePath(Locked(), "/b/x", "s3"))


def test_a_path_of_universal_pathlib_arrives_as_it_is(
    client: QuickSyncClient, memory: MemoryFileSystem
) -> None:
    upath = pytest.importorskip("upath", reason="universal-pathlib is not installed")
    memory.pipe("/bucket/x.bin", DATA)
    receipt = upload(client, open_source(upath.UPath("memory://bucket/x.bin")))
    assert (receipt["name"], receipt["sha256"]) == ("x.bin", hashlib.sha256(DATA).hexdigest())


def test_an_object_storage_path_of_airflow_arrives_as_it_is(client: QuickSyncClient, tmp_path: Path) -> None:
    io_of_airflow = pytest.importorskip(
        "airflow.sdk.io", reason="no Airflow with airflow.sdk.io is installed"
    )
    by_path(tmp_path)
    receipt = upload(client, open_source(io_of_airflow.ObjectStoragePath(f"file://{tmp_path}/data.bin")))
    assert (receipt["name"], receipt["sha256"]) == ("data.bin", hashlib.sha256(DATA).hexdigest())


def test_a_remote_source_is_read_once(client: QuickSyncClient, memory: MemoryFileSystem) -> None:
    memory.pipe("/bucket/x", DATA)
    read = []

    class Counting(sources.RemoteSource):
        def read_into(self, offset: int, buffer: memoryview) -> int:
            count = super().read_into(offset, buffer)
            read.append(count)
            return count

    receipt = upload(
        client, Counting("x", memory, "/bucket/x"), options=UploadOptions(part_size_bytes=PART, concurrency=4)
    )
    assert receipt["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert sum(read) == len(DATA)


def test_a_spooled_stream_that_is_never_uploaded_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        open_source(Unseekable(DATA))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_no_room_to_spool_is_a_limit_with_a_way_out(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(LimitError, match="has no room in .*: set TMPDIR to a larger disk"):
        open_source(Unseekable(bytes(2 << 20)))


def test_a_file_that_goes_away_while_it_waits_for_its_turn(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path
) -> None:
    path = Path(by_path(tmp_path))
    source = open_source(path)
    path.unlink()
    with pytest.raises(SourceChangedError, match=r"'data\.bin' went away before it was uploaded"):
        upload_many(client, [(source, "a")])
    assert not server.requests


def test_what_is_dear_to_read_here_and_there_is_read_once(
    client: QuickSyncClient, server: LocalQuickSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gzip.open(tmp_path / "data.gz", "wb") as packed:
        packed.write(DATA)
    seeks = []
    seek = gzip.GzipFile.seek
    monkeypatch.setattr(gzip.GzipFile, "seek", lambda *given: seeks.append(given) or seek(*given))
    with gzip.open(tmp_path / "data.gz", "rb") as file:
        receipt = upload(client, open_source(file), options=UploadOptions(part_size_bytes=PART))
    assert receipt["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert receipt["parts"] > 4
    assert seeks == []


def test_what_was_spooled_can_be_sent_again(client: QuickSyncClient) -> None:
    source = open_source(Unseekable(DATA), name="piped")
    receipts = [upload(client, source) for _ in range(2)]
    assert {receipt["sha256"] for receipt in receipts} == {hashlib.sha256(DATA).hexdigest()}


class Unseekable(io.RawIOBase):
    """A stream that gives some bytes at a time and can't go back."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._inner.readinto(memoryview(buffer)[:777])

"""
Where an upload's bytes come from. A :class:`Source` is read at any offset by several threads.

Local files are read with ``preadv`` into a buffer of the caller: no copy is made, and memory does not grow
with the file. Whatever changes while it is read raises :class:`SourceChangedError` instead of mixing two
states into one upload.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, BinaryIO, Protocol

from airflow_provider_quicksync.client.errors import (
    DamagedError,
    LimitError,
    NotFoundError,
    QuickSyncError,
    RefusedError,
    SourceChangedError,
    UsageError,
)

from .window import Stop

BLOCK_BYTES = 512 << 10
"""One buffer per connection. Half of it costs a seventh of the throughput at 8 connections, twice as much
gains a twentieth; http.client's own 16 KiB is 3 times slower (docs/performance.md)."""
REMOTE_BLOCK_BYTES = 4 << 20
"""What one range request to another store asks for."""


_CONTENT_MARKS = ("ETag", "etag", "file_key", "mtime", "LastModified", "updated")


class Source(Protocol):
    """
    Bytes of a known size.

    ``name`` is what an error calls it and the default name of the upload; ``fingerprint`` a text that
    changes with the content, taken when the source was made; ``remote`` says that reading twice is expensive.
    """

    name: str
    size_bytes: int
    fingerprint: str
    remote: bool

    def open(self) -> None:
        """Get ready to be read; sources that wait for their turn hold no file handle."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``; the number of bytes read, 0 at the end. Thread-safe."""

    def current_fingerprint(self) -> str:
        """The fingerprint as it is now."""

    def close(self) -> None:
        """Let go of what :meth:`open` opened."""


class FileSource:
    """A regular file."""

    remote = False

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path
        self.open()
        self.size_bytes = os.fstat(self._fd).st_size
        self.fingerprint = self.current_fingerprint()
        self.close()

    def open(self) -> None:
        """Open the file by its path."""
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read by position: threads don't disturb each other."""
        return os.preadv(self._fd, [buffer], offset)

    def current_fingerprint(self) -> str:
        """Size and modification time, in nanoseconds."""
        found = os.fstat(self._fd)
        return f"{found.st_size}-{found.st_mtime_ns}"

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class SpooledSource(FileSource):
    """Bytes that could not be read by position, in a temporary file without a name."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self._closed = weakref.finalize(self, os.close, fd)
        self.size_bytes = os.fstat(fd).st_size
        self.fingerprint = self.current_fingerprint()

    def open(self) -> None:
        """It is open from the start."""

    def close(self) -> None:
        """Nothing: it may be sent again, in another session. The file is gone with this object."""

    def discard(self) -> None:
        """Let the file go now."""
        self._closed()


class DataSource:
    """Bytes in memory."""

    remote = False

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size_bytes = len(data)
        self.fingerprint = f"{len(data)}-{hashlib.sha256(data).hexdigest()}"
        self._view = memoryview(data)

    def open(self) -> None:
        """Nothing to open."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy a block."""
        block = self._view[offset : offset + len(buffer)]
        buffer[: len(block)] = block
        return len(block)

    def current_fingerprint(self) -> str:
        """Bytes don't change."""
        return self.fingerprint

    def close(self) -> None:
        """Nothing was opened."""


class FileObjectSource:
    """A binary file object that can seek, from its current position to its end; it stays open."""

    remote = False

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self._file = file
        self._lock = threading.Lock()
        self._start = file.tell()
        self.size_bytes = self._end() - self._start
        self.fingerprint = self.current_fingerprint()

    def open(self) -> None:
        """It is open."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read under a lock, as the object has one position."""
        with self._lock:
            self._file.seek(self._start + offset)
            if isinstance(self._file, io.RawIOBase | io.BufferedIOBase):
                return self._file.readinto(buffer) or 0
            block = self._file.read(len(buffer))
            buffer[: len(block)] = block
            return len(block)

    def current_fingerprint(self) -> str:
        """Its size: a file object tells no more."""
        with self._lock:
            return str(self._end() - self._start)

    def close(self) -> None:
        """Leave the object to its owner, at the end, as if it had been read."""
        self._file.seek(self._start + self.size_bytes)

    def _end(self) -> int:
        return self._file.seek(0, os.SEEK_END)


class RemoteSource:
    """A file of another store, through its fsspec filesystem, read by range."""

    remote = True

    def __init__(self, name: str, fs: Any, path: str) -> None:
        self.name = name
        self._fs, self._path = fs, path
        self._handles = threading.local()
        self._opened: list[Any] = []
        self.fingerprint = self.current_fingerprint()
        self.size_bytes = int(self.fingerprint.partition("-")[0])

    def open(self) -> None:
        """Each thread opens its own handle when it reads."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read with the calling thread's own handle."""
        handle = getattr(self._handles, "handle", None)
        if handle is None:
            # Not cached: a read-ahead goes beyond the part, and fetches another thread's bytes again.
            handle = self._handles.handle = self._fs.open(self._path, "rb", cache_type="none")
            self._opened.append(handle)
        if handle.tell() != offset:
            handle.seek(offset)
        block = handle.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def current_fingerprint(self) -> str:
        """Size, and the store's own mark of this content (ETag, file key, or time of change)."""
        info = self._info()
        mark = next((info[key] for key in _CONTENT_MARKS if info.get(key)), "")
        return f"{info['size']}-{mark}"

    def close(self) -> None:
        """Close every thread's handle."""
        while self._opened:
            with contextlib.suppress(Exception):
                self._opened.pop().close()
        self._handles = threading.local()

    def _info(self) -> dict[str, Any]:
        self._fs.invalidate_cache(self._fs._parent(self._path))
        try:
            info: dict[str, Any] = self._fs.info(self._path)
        except FileNotFoundError:
            raise NotFoundError(f"upload source {self.name!r} does not exist") from None
        except PermissionError as error:
            raise RefusedError(f"upload source {self.name!r} may not be read ({error})") from error
        if info.get("type") == "directory" or info.get("size") is None:
            raise UsageError(
                f"upload source {self.name!r} is not a file of a known size; pass files or a glob"
            )
        return info


def open_source(file: Any, *, name: str | None = None) -> Source:
    """
    A source for a path, an ``ObjectStoragePath``, or a binary file object.

    What can't be read here and there at no cost (a pipe, a compressed file, an object of another store that
    was opened already) is spooled to disk.

    :raises NotFoundError: there is no such file.
    :raises RefusedError: it may not be read.
    :raises UsageError: a directory, a text file object, or nothing of the above.
    """
    if all(hasattr(file, part) for part in ("fs", "path", "protocol")) and not hasattr(file, "read"):
        if file.protocol not in ("", "file", "local"):
            return RemoteSource(name or file.name, file.fs, file.path)
        file = file.path
    if isinstance(file, str | os.PathLike):
        return _open_path(os.fspath(file), name)
    if hasattr(file, "read"):
        name = name or _name_of(file)
        try:
            if isinstance(file.read(0), str):
                raise UsageError(f"upload source {name!r} gives text: open it in binary mode ('rb')")
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"upload source {name!r} can't be read: {error}") from error
        return FileObjectSource(name, file) if _is_local(file) else _spooled(name, file)
    raise UsageError(f"cannot upload from {type(file).__name__}: pass a path, a binary file object or a URL")


def data_source(data: bytes | bytearray | memoryview | str, *, name: str) -> Source:
    """A source for bytes, or for text in UTF-8."""
    if not isinstance(data, bytes | bytearray | memoryview | str):
        raise UsageError(f"cannot upload {type(data).__name__} as data: pass bytes or str")
    return DataSource(name, data.encode() if isinstance(data, str) else bytes(data))


def read_exactly(source: Source, offset: int, buffer: memoryview) -> None:
    """
    Fill ``buffer``.

    :raises SourceChangedError: the source ended early, or is not what it was.
    :raises DamagedError: it could not be read, but is as it was.
    """
    filled = 0
    while filled < len(buffer):
        try:
            read = source.read_into(offset + filled, buffer[filled:])
        except (OSError, ValueError) as error:
            what = (
                f"reading {source.name!r} at byte {offset + filled:,} failed: {type(error).__name__}: {error}"
            )
            raise (DamagedError if _is_unchanged(source) else SourceChangedError)(what) from error
        if not read:
            raise SourceChangedError(
                f"{source.name!r} shrank while it was uploaded: it ends at byte {offset + filled:,}"
                f" of {source.size_bytes:,}"
            )
        filled += read


def _is_unchanged(source: Source) -> bool:
    """Whether it is there as it was, so that another attempt may go on."""
    try:
        return source.current_fingerprint() == source.fingerprint
    except (OSError, ValueError):
        return False


_buffers = threading.local()


def read_blocks(source: Source, offset: int, size_bytes: int, stop: Stop) -> Iterator[memoryview]:
    """A range of a source, block by block; each block is good until the thread's next one."""
    most = REMOTE_BLOCK_BYTES if source.remote else BLOCK_BYTES
    if len(getattr(_buffers, "buffer", b"")) < most:
        _buffers.buffer = memoryview(bytearray(most))
    end = offset + size_bytes
    while offset < end:
        stop.check()
        block = _buffers.buffer[: min(most, end - offset)]
        read_exactly(source, offset, block)
        yield block
        offset += len(block)


def open_unchanged(source: Source) -> None:
    """Open a source whose turn has come. :raises SourceChangedError: it is not what it was, or gone."""
    try:
        source.open()
    except OSError as error:
        raise SourceChangedError(f"{source.name!r} went away before it was uploaded ({error})") from error
    try:
        check_unchanged(source)
    except BaseException:
        source.close()
        raise


def check_unchanged(source: Source) -> None:
    """:raises SourceChangedError: the source is not what it was when it was chosen."""
    try:
        now = source.current_fingerprint()
    except (OSError, ValueError) as error:
        raise SourceChangedError(f"{source.name!r} went away while it was uploaded ({error})") from error
    if now != source.fingerprint:
        raise SourceChangedError(
            f"{source.name!r} changed while it was uploaded: upload it once it is finished"
        )


def _open_path(path: str, name: str | None) -> Source:
    name = name or os.path.basename(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return FileSource(name, path)
        if stat.S_ISDIR(mode):
            raise UsageError(
                f"upload source {path!r} is a directory: pass its files, or a glob such as {path}/*"
            )
        with open(path, "rb") as stream:
            return _spooled(name, stream)
    except FileNotFoundError:
        raise NotFoundError(f"upload source {path!r} does not exist on this worker") from None
    except PermissionError:
        raise RefusedError(f"upload source {path!r} may not be read by this worker's user") from None
    except QuickSyncError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"upload source {path!r} can't be read: {error}") from error


def _spooled(name: str, stream: BinaryIO) -> Source:
    with room_to_spool(name), tempfile.TemporaryFile(prefix="quicksync-") as spool:
        shutil.copyfileobj(stream, spool, 1 << 20)
        spool.flush()
        return SpooledSource(name, os.dup(spool.fileno()))


@contextlib.contextmanager
def room_to_spool(name: str) -> Iterator[None]:
    """:raises LimitError: the disk of temporary files is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise LimitError(
            f"upload source {name!r} has no room in {tempfile.gettempdir()}: set TMPDIR to a larger disk"
        ) from error


def _name_of(file: Any) -> str:
    name = getattr(file, "name", None)  # of a temporary file, it is a number
    return (PurePath(name).name if isinstance(name, str) else "") or "data"


def _is_local(file: Any) -> bool:
    """Whether it is memory or a file of this disk: several threads read elsewhere in it all the time."""
    found = getattr(file, "file", file)  # of a temporary file
    found = getattr(found, "raw", found)
    return isinstance(found, io.BytesIO | io.FileIO) and found.seekable()

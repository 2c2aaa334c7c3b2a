"""
Open files of the filesystem: read in cached blocks through a link, written to disk and sent when closed.

What fails inside a ``with`` block is not sent.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from typing import IO, TYPE_CHECKING, Any

from fsspec.compression import compr  # type: ignore[import-untyped]
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from airflow_provider_quicksync.client.errors import BusyError, DamagedError, LimitError, QuickSyncError
from airflow_provider_quicksync.client.listing import file_entry
from airflow_provider_quicksync.client.models import Receipt
from airflow_provider_quicksync.client.transfer.link import Link
from airflow_provider_quicksync.client.transfer.sources import SpooledSource, room_to_spool

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.filesystem import QuickSyncFileSystem

CACHED_BLOCKS = 8
"""How many blocks an open file keeps: a Parquet reader goes back and forth."""
_ERROR_NUMBERS: list[tuple[type[QuickSyncError], int]] = [
    (BusyError, errno.EBUSY),
    (LimitError, errno.ENOSPC),
    (DamagedError, errno.EIO),
]


class QuickSyncFile(AbstractBufferedFile):  # type: ignore[misc]
    """
    An open file.

    Read, it stays the file that it was when it was opened. Written, it is spooled to disk, as the service has
    to know a file's size before its first part.
    """

    receipt: Receipt | None = None
    """What came of writing, once the file is closed."""

    def __init__(
        self,
        fs: QuickSyncFileSystem,
        path: str,
        mode: str,
        block_size: int | str | None = None,
        cache_type: str = "none",
        **kwargs: Any,
    ) -> None:
        self._spool: IO[bytes] | None = None
        if mode == "rb":
            self._info = fs.file(path)
            kwargs["size"] = self._info.size_bytes
            self._cached_block = lru_cache(CACHED_BLOCKS)(self._block)
        block_size = fs.blocksize if block_size in (None, "default", -1, 0) else block_size
        super().__init__(fs, path, mode, block_size, cache_type=cache_type, **kwargs)

    @property
    def details(self) -> dict[str, Any]:
        """What the filesystem's ``info`` said when it was opened."""
        return file_entry(self.path, self._info)

    def close(self) -> None:
        """Close it: what was written is uploaded, and complete."""
        try:
            super().close()
        finally:
            if self.mode == "rb":
                self._cached_block.cache_clear()
            if self.mode == "rb" or self.autocommit:
                self.discard()

    def abandon(self) -> None:
        """Close it without sending anything."""
        self.closed = True
        self.discard()

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:
            self.abandon()
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            self.abandon()  # nobody said that it is whole

    # Reading

    @cached_property
    def _link(self) -> Link:
        return self.fs.link(self._info)  # type: ignore[no-any-return]

    def _fetch_range(self, start: int, end: int) -> bytes:
        """A range: in blocks, of which the last few are kept, or in one stream where it is longer."""
        end, size = min(end, self.size), self.blocksize  # some of fsspec's caches ask for more than there is
        if end - start > CACHED_BLOCKS * size:
            return self._read(start, end)
        first = start // size
        data = b"".join(map(self._cached_block, range(first, -(-end // size))))
        return data[start - first * size : end - first * size]

    def _block(self, number: int) -> bytes:
        return self._read(number * self.blocksize, min((number + 1) * self.blocksize, self.size))

    def _read(self, start: int, end: int) -> bytes:
        if not self._link.ignores_ranges:
            return read_range(self._link, start, end)
        spool = self._spool
        if spool is None:  # rather than the whole file for each block
            spool = self._new_spool()
            with file_errors(), room_to_spool(self.path):
                self._link.fetch(0, self.size, spool.write)
        spool.seek(start)
        return spool.read(end - start)

    # Writing

    def _new_spool(self) -> IO[bytes]:
        self._spool = tempfile.TemporaryFile(prefix="quicksync-")  # noqa: SIM115
        return self._spool

    def _upload_chunk(self, final: bool = False) -> bool:
        spool = self._spool or self._new_spool()
        with file_errors(), room_to_spool(self.path):
            spool.write(self.buffer.getbuffer())
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Upload what was written."""
        assert self._spool is not None
        with self._spool as spool, file_errors():
            with room_to_spool(self.path):
                spool.flush()
            if self.mode == "xb":
                self.fs.check_mode("create", self.path)
            source = SpooledSource(self.path, os.dup(spool.fileno()))
            self.receipt = self.fs.upload_source(source, self.path)

    def discard(self) -> None:
        """Forget what was written."""
        if self._spool is not None:
            with suppress(OSError):  # of a full disk, again
                self._spool.close()


class CompressedFile(io.BufferedIOBase):
    """A file that is compressed as it is written; closing it closes both."""

    def __init__(self, file: QuickSyncFile, compression: str) -> None:
        self._file, self._compressor = file, compr[compression](file, mode="w")

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Compress and write."""
        return self._compressor.write(data)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close both; the file is uploaded, and complete."""
        if not self.closed:
            super().close()
            self._compressor.close()
            self._file.close()

    def abandon(self) -> None:
        """Close both without sending anything."""
        with suppress(OSError, ValueError):  # a full disk, again
            self._compressor.close()
        self._file.abandon()
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:
            self.abandon()
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self.abandon()


class TextFile(io.TextIOWrapper):
    """Text over an open file."""

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None and self.writable():
            self._abandon()
        else:
            self.close()

    def __del__(self) -> None:
        if not self.closed and self.writable():
            self._abandon()

    def _abandon(self) -> None:
        file: Any = self.buffer
        file.abandon()
        with suppress(ValueError):  # the text that is left has nowhere to go
            self.detach()


def read_range(link: Link, start: int, end: int) -> bytes:
    """The bytes of a range."""
    buffer = io.BytesIO()
    with file_errors():
        link.fetch(start, end, buffer.write)
    return buffer.getvalue()


@contextmanager
def file_errors() -> Iterator[None]:
    """Errors that are no built-in file errors yet as ``OSError``, as callers of files expect them."""
    try:
        yield
    except QuickSyncError as error:
        if isinstance(error, OSError | ValueError):
            raise
        number = next((number for kind, number in _ERROR_NUMBERS if isinstance(error, kind)), errno.EIO)
        raise OSError(number, str(error)) from error

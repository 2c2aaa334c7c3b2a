"""
Downloading: into a temporary file beside the target, verified, then renamed.

Where the link serves ranges, several are fetched at the same time; where it does not, one stream is. What
was fetched before a cut is kept, and an expired link is renewed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from airflow_provider_quicksync.client.errors import (
    DamagedError,
    LimitError,
    QuickSyncError,
    RefusedError,
    UsageError,
)
from airflow_provider_quicksync.client.models import FileInfo
from airflow_provider_quicksync.client.transfer.link import CHUNK_BYTES, Link
from airflow_provider_quicksync.client.transfer.plan import Part, Plan, plan_parts
from airflow_provider_quicksync.client.transfer.progress import Progress, throttled
from airflow_provider_quicksync.client.transfer.window import Stop, run_window

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

INLINE_BYTES = 1 << 20
"""A file up to this size is fetched in the calling thread."""


class DownloadReceipt(TypedDict):
    """What a download returns; ``sha256`` is of the bytes on disk, None where no checksum was asked for."""

    file_key: str
    name: str | None
    size_bytes: int
    sha256: str | None
    path: str


@dataclass(frozen=True)
class DownloadOptions:
    """
    How to fetch.

    :param concurrency: ranges on the way at the same time.
    :param sha256: what the file's SHA-256 must be.
    :param checksum: compute SHA-256 even where nothing is there to compare it with.
    """

    concurrency: int = 4
    sha256: str | None = None
    checksum: bool = True


def download(
    client: QuickSyncClient,
    file: FileInfo,
    target: str,
    *,
    options: DownloadOptions | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> DownloadReceipt:
    """
    Fetch a completed file to ``target``, a local path, which it replaces.

    :raises UsageError: the target is a directory, or its folder does not exist.
    :raises LimitError: the disk has no room.
    :raises DamagedError: size or SHA-256 are not what they must be.
    """
    options, stop, target = options or DownloadOptions(), stop or Stop(), os.fspath(target)
    stop.interrupt = client.interrupt
    folder = _checked_folder(target, file.size_bytes)
    partial = os.path.join(folder, f".{os.path.basename(target)[:40]}.{secrets.token_hex(6)}.part")
    try:
        # Not from tempfile, whose files only their owner may read.
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _disk_error(error, target) from error
    try:
        fetching = _Fetching(client, file, fd, options, stop)
        sha256 = fetching.run(throttled(progress, lambda: fetching.fetched_bytes, file.size_bytes))
        if options.sha256 and sha256 != options.sha256.lower():
            raise DamagedError(
                f"download of file {file.file_key}: SHA-256 is {sha256}, not {options.sha256}; {target} was"
                " not written"
            )
        os.replace(partial, target)
    except QuickSyncError:
        raise  # some of which are OSErrors too
    except OSError as error:
        raise _disk_error(error, target) from error
    finally:
        os.close(fd)
        if os.path.exists(partial):
            os.unlink(partial)
    return DownloadReceipt(
        file_key=file.file_key, name=file.name, size_bytes=file.size_bytes, sha256=sha256, path=target
    )


class _Fetching:
    """One file on its way to an open file descriptor."""

    def __init__(
        self, client: QuickSyncClient, file: FileInfo, fd: int, options: DownloadOptions, stop: Stop
    ) -> None:
        self._file, self._fd, self._options, self._stop = file, fd, options, stop
        self._link = Link(client, file, stop)
        self._lock = threading.Condition()
        self._done: dict[int, int] = {}
        self._sha256 = hashlib.sha256()

    @property
    def fetched_bytes(self) -> int:
        """Bytes on disk so far."""
        return sum(list(self._done.values()))

    def run(self, tick: Callable[[], None] | None) -> str | None:
        """Fetch everything; its SHA-256 where one is asked for."""
        size = self._file.size_bytes
        plan = plan_parts(size, concurrency=self._options.concurrency)
        if plan.total_parts > 1 and not self._link.serves_ranges():
            plan = Plan(size, size, 1)
        checksum = self._options.checksum or self._options.sha256 is not None
        if size <= INLINE_BYTES:
            self._fetch(plan.part(1))
            if checksum:
                self._hash(plan)
        else:
            run_window(
                self._fetch,
                plan.parts(),
                concurrency=min(self._options.concurrency, plan.total_parts),
                stop=self._stop,
                beside=(lambda: self._hash(plan)) if checksum else None,
                tick=tick,
            )
        return self._sha256.hexdigest() if checksum else None

    def _fetch(self, part: Part) -> None:
        """Fetch one range to its place."""
        self._done[part.number] = 0
        self._link.fetch(part.offset, part.offset + part.size_bytes, lambda block: self._write(part, block))

    def _write(self, part: Part, block: memoryview) -> None:
        while block:
            written = os.pwrite(self._fd, block, part.offset + self._done[part.number])
            block = block[written:]
            with self._lock:
                self._done[part.number] += written
                self._lock.notify_all()

    def _hash(self, plan: Plan) -> None:
        """Hash the file from its start, as far as it is there, until it is there as a whole."""
        buffer = memoryview(bytearray(CHUNK_BYTES))
        for part in plan.parts():
            position = 0
            while position < part.size_bytes:
                with self._lock:
                    while (there := self._done.get(part.number, 0)) == position:
                        self._stop.check()
                        self._lock.wait(0.1)
                read = os.preadv(self._fd, [buffer[: there - position]], part.offset + position)
                self._sha256.update(buffer[:read])
                position += read


def _checked_folder(target: str, size_bytes: int) -> str:
    folder = os.path.dirname(os.path.abspath(target))
    if os.path.isdir(target):
        raise UsageError(f"download target {target} is a directory: name the file in it")
    if not os.path.isdir(folder):
        raise UsageError(f"download target {target}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise RefusedError(f"download target {target}: the folder may not be written by this worker's user")
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        raise LimitError(f"download target {target}: {size_bytes:,} bytes needed, {free:,} free on its disk")
    return folder


def _disk_error(error: OSError, target: str) -> QuickSyncError:
    """An error of the disk in our words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitError(f"download target {target}: the disk is full; nothing was left there")
    return RefusedError(f"download target {target}: {error.strerror}; nothing was left there")

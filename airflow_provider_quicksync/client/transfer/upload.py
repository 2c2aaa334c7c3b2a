"""
Uploading: initiate, send the parts in a bounded window, complete; or remove what was begun.

The body of a part is read block by block into one buffer per thread, so memory is concurrency times 256 KiB
whatever the sizes of parts and files. SHA-256 of the whole file is computed beside the sending.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import QuickSyncError
from airflow_provider_quicksync.client.models import Receipt, Upload

from .checksum import FileDigest
from .plan import Part, plan_parts
from .progress import Progress, throttled
from .sources import Source, check_unchanged, open_unchanged, read_blocks
from .window import Stop, run_window

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

log = logging.getLogger(__name__)

INLINE_BYTES = 1 << 20
"""A file of one part up to this size goes up in the calling thread: starting one costs more than it gains."""


@dataclass(frozen=True)
class UploadOptions:
    """
    How to send.

    :param part_size_bytes: by default from the file's size (see :func:`.plan.plan_parts`).
    :param concurrency: parts, or small files, on the way at the same time.
    :param checksum: compute SHA-256 for the receipt.
    """

    part_size_bytes: int | None = None
    concurrency: int = 8
    checksum: bool = True


def upload(
    client: QuickSyncClient,
    source: Source,
    *,
    name: str | None = None,
    options: UploadOptions | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """
    Upload one source under ``name`` (its own by default).

    :raises SourceChangedError: it changed meanwhile; the upload was removed again.
    :raises StoppedError: a stop was requested; the upload was removed again.
    :raises QuickSyncError: it failed for good; the upload was removed again where the service was in reach.
    """
    options, stop = options or UploadOptions(), stop or Stop()
    sending = _Sending(client, source, name or source.name, options, stop)
    return sending.run(
        threads=sending.plan.total_parts > 1 or source.size_bytes > INLINE_BYTES,
        tick=throttled(progress, lambda: sending.sent_bytes, source.size_bytes),
    )


def upload_many(
    client: QuickSyncClient,
    sources: Sequence[tuple[Source, str]],
    *,
    options: UploadOptions | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> list[Receipt]:
    """
    Upload (source, name) pairs; the receipts are in their order.

    Files of one part go up next to each other, as many at the same time as ``concurrency``; then larger
    ones one after another, with all connections each. The first failure stops the rest; what was complete
    by then stays, and the error's notes name it.

    :raises QuickSyncError: as :func:`upload`.
    """
    options, stop = options or UploadOptions(), stop or Stop()
    jobs = [_Sending(client, source, name, options, stop) for source, name in sources]
    total_bytes = sum(source.size_bytes for source, _ in sources)
    tick = throttled(progress, lambda: sum(job.sent_bytes for job in jobs), total_bytes)
    try:
        small = [job for job in jobs if job.plan.total_parts == 1]
        if small:
            run_window(
                lambda job: job.run(threads=False),
                small,
                concurrency=options.concurrency,
                stop=stop,
                tick=tick,
            )
        for job in jobs:
            if job.plan.total_parts > 1:
                job.run(threads=True, tick=tick)
    except BaseException as error:
        kept = [f"{job.name!r} ({job.receipt['file_key']})" for job in jobs if job.receipt]
        if kept:
            error.add_note(
                f"{len(kept)} of {len(jobs)} files had been uploaded before: {', '.join(kept[:20])}"
            )
        raise
    return [job.receipt for job in jobs if job.receipt]


class _Sending:
    """One file on its way."""

    def __init__(
        self, client: QuickSyncClient, source: Source, name: str, options: UploadOptions, stop: Stop
    ) -> None:
        self.name = name
        self.receipt: Receipt | None = None
        self.plan = plan_parts(
            source.size_bytes,
            part_size_bytes=options.part_size_bytes,
            concurrency=options.concurrency,
            limits=client.limits,
        )
        self._client, self._source, self._options, self._stop = client, source, options, stop
        self._bodies: dict[int, PartBody] = {}
        self._tags: dict[int, str] = {}

    @property
    def sent_bytes(self) -> int:
        """Bytes on the way so far; a part that is sent again counts once."""
        return sum(body.sent_bytes for body in list(self._bodies.values()))

    def run(self, *, threads: bool, tick: Callable[[], None] | None = None) -> Receipt:
        """Initiate, send, complete; or remove what was begun."""
        plan, client = self.plan, self._client
        open_unchanged(self._source)
        try:
            self._stop.check()
            started = client.initiate_upload(
                self.name, size_bytes=plan.size_bytes, total_parts=plan.total_parts, stop=self._stop.halted
            )
            try:
                sha256 = self._send_parts(started, threads, tick)
                check_unchanged(self._source)
                self._stop.check()
                tags = [self._tags[number] for number in range(1, plan.total_parts + 1)]
                client.complete_upload(started, tags, stop=self._stop.halted)
            except BaseException:
                abandon(client, started, self.name)
                raise
        finally:
            self._source.close()
        self.receipt = Receipt(
            file_key=started.file_key,
            name=self.name,
            size_bytes=plan.size_bytes,
            sha256=sha256,
            parts=plan.total_parts,
            completed=False,
            session_id=client.known_session_id or None,
        )
        return self.receipt

    def _send_parts(self, started: Upload, threads: bool, tick: Callable[[], None] | None) -> str | None:
        """Send every part; SHA-256 of the whole where it is asked for."""
        checksum, plan = self._options.checksum, self.plan
        whole = FileDigest(self._source, self._stop) if checksum and plan.total_parts > 1 else None

        def send(part: Part) -> None:
            if whole and self._source.remote:
                with whole.staged(part) as staged:
                    self._send_part(started, part.number, PartBody(staged, 0, part.size_bytes, self._stop))
            else:
                body = PartBody(
                    self._source, part.offset, part.size_bytes, self._stop, checksum and not whole
                )
                self._send_part(started, part.number, body)

        if threads:
            run_window(
                send,
                plan.parts(),
                concurrency=min(self._options.concurrency, plan.total_parts),
                stop=self._stop,
                beside=whole.run if whole and not self._source.remote else None,
                tick=tick,
            )
        else:
            send(plan.part(1))
        return whole.hexdigest() if whole else self._bodies[1].sha256

    def _send_part(self, started: Upload, number: int, body: PartBody) -> None:
        self._bodies[number] = body
        self._tags[number] = self._client.put_part(started, number, body, stop=self._stop.halted).tag


def abandon(client: QuickSyncClient, started: Upload, name: str) -> None:
    """Remove an upload that can't be finished, as far as the service can be reached, and log which."""
    try:
        client.remove_unfinished(started.file_key)
    except QuickSyncError as error:
        log.warning("the unfinished upload of %r is still there as %s: %s", name, started.file_key, error)
    else:
        log.info("removed the unfinished upload of %r (%s)", name, started.file_key)


class PartBody:
    """
    A range of a source as a request body that can be sent again: every iteration starts at its offset.

    It has a length and no ``read``, so that requests sends it with a Content-Length and http.client takes
    whole blocks.
    """

    def __init__(
        self, source: Source, offset: int, size_bytes: int, stop: Stop, checksum: bool = False
    ) -> None:
        self._source, self._offset, self._size_bytes, self._stop = source, offset, size_bytes, stop
        self.sent_bytes = 0
        self.sha256 = hashlib.sha256().hexdigest() if checksum else None

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[memoryview]:
        self.sent_bytes = 0
        digest = hashlib.sha256() if self.sha256 else None
        for block in read_blocks(self._source, self._offset, self._size_bytes, self._stop):
            if digest:
                digest.update(block)
            yield block
            self.sent_bytes += len(block)
        if digest:
            self.sha256 = digest.hexdigest()

"""
Uploading: initiate, send the parts in a bounded window, complete; or remove what was begun.

The body of a part is read block by block into one buffer per thread, so memory is concurrency times 512 KiB
whatever the sizes of parts and files. SHA-256 of the whole file is computed beside the sending.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import QuickSyncError, RefusedError, is_hopeless
from airflow_provider_quicksync.client.models import Receipt, Upload

from .checkpoint import Checkpoint, FileState
from .checksum import FileDigest, Pace
from .plan import Part, Plan, plan_parts
from .progress import Progress, throttled
from .resume import abandon, remove_superseded, resume
from .sources import Source, check_unchanged, open_unchanged, read_blocks
from .window import Stop, run_window

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

log = logging.getLogger(__name__)


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
    checkpoint: Checkpoint | None = None,
) -> Receipt:
    """Upload one source under ``name`` (its own by default); see :func:`upload_many`."""
    items = [(source, name or source.name)]
    return upload_many(client, items, options=options, stop=stop, progress=progress, checkpoint=checkpoint)[0]


def upload_many(
    client: QuickSyncClient,
    items: Sequence[tuple[Source, str]],
    *,
    options: UploadOptions | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Receipt]:
    """
    Upload (source, name) pairs; the receipts are in their order.

    Files of one part go up next to each other, as many at the same time as ``concurrency``; then larger
    ones one after another, with all connections each. The first failure stops the rest; what was complete
    by then stays, and the error's notes name it.

    :param checkpoint: where what a next attempt needs is kept; without one, every attempt starts again.
    :raises SourceChangedError: a source changed meanwhile; its upload was removed again.
    :raises StoppedError: a stop was requested; what was unfinished was removed again.
    :raises QuickSyncError: it failed for good; what was unfinished was removed again where the service was
        in reach, unless the checkpoint keeps it.
    """
    options, stop = options or UploadOptions(), stop or Stop()
    stop.interrupt = client.interrupt
    states: Sequence[FileState | None] = (
        resume(client, checkpoint, items) if checkpoint else [None] * len(items)
    )
    jobs = [
        _Sending(client, source, name, options, stop, checkpoint, state)
        for (source, name), state in zip(items, states, strict=True)
    ]
    report = throttled(
        progress, lambda: sum(job.sent_bytes for job in jobs), sum(source.size_bytes for source, _ in items)
    )

    def tick() -> None:
        if report:
            report()
        if checkpoint:
            checkpoint.tick()

    try:
        small = [job for job in jobs if job.plan.total_parts == 1]
        if small:
            concurrency = min(options.concurrency, len(small))
            run_window(_Sending.run, small, concurrency=concurrency, stop=stop, tick=tick)
        for job in jobs:
            if job.plan.total_parts > 1:
                job.run(tick)
        if checkpoint:
            remove_superseded(client, checkpoint)
    except BaseException as error:
        kept = [f"{job.name!r} ({job.receipt['file_key']})" for job in jobs if job.receipt]
        if kept:
            error.add_note(
                f"{len(kept)} of {len(jobs)} files had been uploaded before: {', '.join(kept[:20])}"
            )
        raise
    finally:
        if checkpoint:
            checkpoint.write()
    return [job.receipt for job in jobs if job.receipt]


class _Sending:
    """One file on its way."""

    def __init__(
        self,
        client: QuickSyncClient,
        source: Source,
        name: str,
        options: UploadOptions,
        stop: Stop,
        checkpoint: Checkpoint | None,
        state: FileState | None,
    ) -> None:
        self.name = name
        self.receipt: Receipt | None = None
        self._client, self._source, self._options, self._stop = client, source, options, stop
        self._checkpoint, self._state = checkpoint, state
        self.plan = (state and state.plan) or self._planned()
        self._resumed = state is not None and state.upload is not None
        self._tags: dict[int, str] = dict(state.tags) if state else {}
        self._bodies: dict[int, PartBody] = {}

    def _planned(self) -> Plan:
        return plan_parts(
            self._source.size_bytes,
            part_size_bytes=self._options.part_size_bytes,
            concurrency=self._options.concurrency,
            limits=self._client.limits,
        )

    @property
    def sent_bytes(self) -> int:
        """Bytes on the way so far; a part that is sent again counts once."""
        return sum(body.sent_bytes for body in list(self._bodies.values()))

    def run(self, tick: Callable[[], None] | None = None) -> None:
        """Upload the file, or go on with it, and write its receipt."""
        open_unchanged(self._source)
        try:
            self._stop.check()
            if self._state and self._state.file_key:
                self._finish_found(self._state.file_key, self._state.sha256)
            elif self._state and self._state.upload:
                self._go_on(self._state.upload, tick)
            else:
                self._send(self._begin(), tick)
        finally:
            self._source.close()

    def _begin(self) -> Upload:
        plan, state = self.plan, self._state
        started = self._client.initiate_upload(
            self.name,
            size_bytes=plan.size_bytes,
            total_parts=plan.total_parts,
            raw_name=state.raw_name if state else None,
            stop=self._stop.halted,
        )
        if self._checkpoint and state and plan.total_parts > 1:
            self._checkpoint.started(state, started, plan)
        return started

    def _go_on(self, started: Upload, tick: Callable[[], None] | None) -> None:
        """Go on with an earlier attempt's upload; start again where the service refuses that."""
        stop = self._stop
        self._stop = stop.attempt()
        try:
            self._send(started, tick)
        except QuickSyncError as error:
            if not _means_start_again(error):
                raise
            assert self._checkpoint is not None
            assert self._state is not None
            if self._checkpoint.taken_over():
                raise
            self._stop = stop
            if self._is_complete(started):
                self._finish_found(started.file_key, None)
                return
            log.warning("%s; starting the upload of %r again", error, self.name)
            abandon(self._client, started, self.name)
            self._checkpoint.intend(self.name, self._state, self._client.write_name(self.name))
            self._resumed, self._tags, self._bodies, self.plan = False, {}, {}, self._planned()
            self._send(self._begin(), tick)

    def _send(self, started: Upload, tick: Callable[[], None] | None) -> None:
        """Send what is missing and complete; or remove what was begun, unless it is kept."""
        maybe_complete, maybe_done = False, self._resumed and len(self._tags) == self.plan.total_parts
        try:
            sha256 = self._send_parts(started, tick)
            check_unchanged(self._source)
            self._stop.check()
            tags = [self._tags[number] for number in range(1, self.plan.total_parts + 1)]
            if self._checkpoint and self.plan.total_parts > 1:
                self._checkpoint.write()  # so that a next attempt sends none of them again
            maybe_complete = True
            self._client.complete_upload(started, tags, maybe_done=maybe_done, stop=self._stop.halted)
        except BaseException as error:
            if self._resumed and _means_start_again(error):
                raise  # see who calls
            if (
                self._checkpoint
                and self._state
                and self._checkpoint.keeps(self._state, error, maybe_complete=maybe_complete)
            ):
                log.info("left the upload of %r (%s) for another attempt", self.name, started.file_key)
            else:
                abandon(self._client, started, self.name)
            raise
        self._finish(started.file_key, sha256)

    def _is_complete(self, started: Upload) -> bool:
        """Whether another attempt has completed the upload."""
        try:
            return self._client.get_file(started.file_key).completed
        except QuickSyncError:
            return False

    def _finish_found(self, file_key: str, sha256: str | None) -> None:
        """Finish a file that another attempt has completed."""
        if sha256 is None and self._options.checksum:
            whole = FileDigest(self._source, self._stop)
            whole.run()
            check_unchanged(self._source)
            sha256 = whole.hexdigest()
        self._finish(file_key, sha256)

    def _finish(self, file_key: str, sha256: str | None) -> None:
        self.receipt = Receipt(
            file_key=file_key,
            name=self.name,
            size_bytes=self.plan.size_bytes,
            sha256=sha256,
            parts=self.plan.total_parts,
            completed=False,
            session_id=self._client.known_session_id or None,
        )
        if self._checkpoint and self._state:
            self._checkpoint.done(self._state, file_key, sha256)

    def _send_parts(self, started: Upload, tick: Callable[[], None] | None) -> str | None:
        """Send every part that is missing; SHA-256 of the whole where it is asked for."""
        checksum, plan = self._options.checksum, self.plan
        if plan.total_parts == 1:
            body = PartBody(self._source, 0, plan.size_bytes, self._stop, checksum)
            self._send_part(started, 1, body)
            return body.sha256
        whole = FileDigest(self._source, self._stop) if checksum else None
        missing = [part for part in plan.parts() if part.number not in self._tags]
        concurrency = min(self._options.concurrency, plan.total_parts)
        pace = Pace(self._stop, [part.number for part in missing])

        def send_staged(part: Part) -> None:
            assert whole is not None
            with whole.staged(part) as staged:
                if part.number not in self._tags:
                    self._send_part(started, part.number, PartBody(staged, 0, part.size_bytes, self._stop))

        def send(part: Part) -> None:
            if whole:
                pace.begin(part)
            body = PartBody(self._source, part.offset, part.size_bytes, self._stop)
            self._send_part(started, part.number, body)

        staging = whole is not None and self._source.remote
        run_window(
            send_staged if staging else send,
            plan.parts() if staging else missing,
            concurrency=concurrency,
            stop=self._stop,
            beside=(lambda: whole.follow(plan, pace)) if whole and not staging else None,
            tick=tick,
        )
        return whole.hexdigest() if whole else None

    def _send_part(self, started: Upload, number: int, body: PartBody) -> None:
        tags = self._tags
        self._bodies[number] = body
        tags[number] = tag = self._client.put_part(started, number, body, stop=self._stop.halted).tag
        # A thread that hangs may come back when the upload was started again.
        if tags is self._tags and self._checkpoint and self._state:
            self._checkpoint.sent(self._state, number, tag)


def _means_start_again(error: BaseException) -> bool:
    """Whether the service refused to go on with an upload, and may take another one."""
    return (
        isinstance(error, QuickSyncError)
        and error.status is not None
        and is_hopeless(error)
        and not isinstance(error, RefusedError)
    )


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

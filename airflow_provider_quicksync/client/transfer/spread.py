"""
One upload in several hands: each sends a range of the parts, maybe on a machine of its own.

What the hands share is a :class:`Share`: plain values, without secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypedDict

from airflow_provider_quicksync.client.errors import SourceChangedError, UsageError
from airflow_provider_quicksync.client.models import Receipt, Upload
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint, content_mark
from airflow_provider_quicksync.client.transfer.plan import Part, Plan, plan_parts
from airflow_provider_quicksync.client.transfer.progress import Progress, throttled
from airflow_provider_quicksync.client.transfer.resume import resume
from airflow_provider_quicksync.client.transfer.sources import Source, check_unchanged, open_unchanged
from airflow_provider_quicksync.client.transfer.upload import PartBody, UploadOptions
from airflow_provider_quicksync.client.transfer.window import Stop, run_window

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient


class Share(TypedDict):
    """A range of parts, the first and the last one included, of one upload; ``mark`` tells its source."""

    upload_id: str
    file_key: str
    session_id: str | None
    name: str
    mark: str
    size_bytes: int
    part_size_bytes: int
    total_parts: int
    first: int
    last: int


class SentShare(Share):
    """A range of parts that the service has."""

    tags: list[str]


def initiate_shares(
    client: QuickSyncClient,
    source: Source,
    name: str,
    count: int,
    *,
    options: UploadOptions,
    checkpoint: Checkpoint | None = None,
) -> list[Share]:
    """
    Begin an upload and cut it into ``count`` shares at most, none of them empty.

    :param checkpoint: with it, what an earlier attempt began is removed first.
    :raises UsageError: a source that another worker could not recognise.
    """
    mark = content_mark(source)
    if mark is None:
        raise UsageError(f"{source.name!r} can't be read by several workers: use UploadToQuickSyncOperator")
    plan = plan_parts(
        source.size_bytes,
        part_size_bytes=options.part_size_bytes,
        concurrency=options.concurrency * count,
        limits=client.limits,
    )
    raw_name = resume(client, checkpoint, [(source, name)])[0].raw_name if checkpoint else ""
    started = client.initiate_upload(
        name, size_bytes=plan.size_bytes, total_parts=plan.total_parts, raw_name=raw_name
    )
    parts, shares = plan.total_parts, min(count, plan.total_parts)
    bounds = [number * parts // shares for number in range(shares + 1)]
    return [
        Share(
            upload_id=started.upload_id,
            file_key=started.file_key,
            session_id=client.known_session_id or None,
            name=name,
            mark=mark,
            size_bytes=plan.size_bytes,
            part_size_bytes=plan.part_size_bytes,
            total_parts=parts,
            first=before + 1,
            last=last,
        )
        for before, last in pairwise(bounds)
    ]


def send_share(
    client: QuickSyncClient,
    source: Source,
    share: Share,
    *,
    concurrency: int,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> SentShare:
    """
    Send a share's parts; doing it again replaces them.

    :raises SourceChangedError: the source isn't the one that the upload was begun for.
    """
    check_mark(source, share)
    stop = stop or Stop()
    stop.interrupt = client.interrupt
    plan = Plan(share["size_bytes"], share["part_size_bytes"], share["total_parts"])
    parts = [plan.part(number) for number in range(share["first"], share["last"] + 1)]
    started, tags = Upload(share["upload_id"], share["file_key"]), dict[int, str]()
    bodies = {part.number: PartBody(source, part.offset, part.size_bytes, stop) for part in parts}

    def send(part: Part) -> None:
        tags[part.number] = client.put_part(started, part.number, bodies[part.number], stop=stop.halted).tag

    open_unchanged(source)
    try:
        sent = throttled(
            progress,
            lambda: sum(body.sent_bytes for body in bodies.values()),
            sum(part.size_bytes for part in parts),
        )
        run_window(send, parts, concurrency=min(concurrency, len(parts)), stop=stop, tick=sent)
        check_unchanged(source)
    finally:
        source.close()
    return SentShare(**share, tags=[tags[part.number] for part in parts])


def complete_shares(client: QuickSyncClient, shares: Sequence[SentShare], *, sha256: str | None) -> Receipt:
    """Finish an upload whose shares were all sent; doing it again is fine."""
    ordered = sorted(shares, key=lambda share: share["first"])
    tags = [tag for share in ordered for tag in share["tags"]]
    one = ordered[0]
    if len(tags) != one["total_parts"]:
        raise UsageError(f"upload of {one['name']!r}: {len(tags)} of {one['total_parts']} parts were sent")
    client.complete_upload(Upload(one["upload_id"], one["file_key"]), tags, maybe_done=True)
    return Receipt(
        file_key=one["file_key"],
        name=one["name"],
        size_bytes=one["size_bytes"],
        sha256=sha256,
        parts=one["total_parts"],
        completed=False,
        session_id=one["session_id"],
    )


def check_mark(source: Source, share: Share) -> None:
    """:raises SourceChangedError: the source isn't the one that the upload was begun for."""
    if content_mark(source) != share["mark"]:
        raise SourceChangedError(
            f"{source.name!r} on this worker is not what the upload was begun with: it changed, or the"
            " workers don't share it"
        )

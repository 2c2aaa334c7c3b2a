"""What an upload does about files of the same name that are there already: add, skip, replace or fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from airflow_provider_quicksync.client.errors import ConflictError, UsageError
from airflow_provider_quicksync.client.models import FileInfo, Receipt
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
from airflow_provider_quicksync.client.transfer.sources import Source

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

IfExists = Literal["add", "skip", "replace", "fail"]


@dataclass
class Selection:
    """
    What is left to do: ``items`` to send, receipts of files to be ``kept`` instead (by the place of their
    item in the order), and the ``older`` files that new ones replace.

    Only completed files count: an unfinished one may be what a failed attempt left.
    """

    items: list[tuple[Source, str]]
    kept: dict[int, Receipt] = field(default_factory=dict)
    older: list[FileInfo] = field(default_factory=list)
    files: list[FileInfo] | None = None

    def merged(self, sent: Sequence[Receipt]) -> list[Receipt]:
        """Receipts of what was sent and what was kept, in the order of the items."""
        waiting = iter(sent)
        return [self.kept.get(place) or next(waiting) for place in range(len(sent) + len(self.kept))]


def select(
    client: QuickSyncClient,
    items: Sequence[tuple[Source, str]],
    if_exists: IfExists,
    checkpoint: Checkpoint | None = None,
) -> Selection:
    """
    Decide about each (source, name). What an earlier attempt of the same upload made does not count.

    :raises ConflictError: ``fail``, and one of the names is there.
    :raises UsageError: an unknown ``if_exists``, or two items of one name.
    """
    if if_exists not in get_args(IfExists):
        raise UsageError(f"if_exists must be one of {', '.join(get_args(IfExists))}, not {if_exists!r}")
    names = [name for _, name in items]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UsageError(f"two sources would be uploaded as {twice[0]!r}: upload them with a name each")
    if if_exists == "add":
        return Selection(list(items))
    selection = Selection([], files=list_others(client, checkpoint))
    there: dict[str | None, list[FileInfo]] = {}
    for file in selection.files or []:
        if file.completed:
            there.setdefault(file.name, []).append(file)
    taken = sorted(name for name in names if name in there)
    if if_exists == "fail" and taken:
        shown = ", ".join(f"{name!r} ({there[name][-1].file_key})" for name in taken[:5])
        raise ConflictError(
            f"{len(taken)} of {len(names)} names are there already: {shown}; nothing was sent"
        )
    for place, (source, name) in enumerate(items):
        if if_exists == "skip" and name in there:
            selection.kept[place] = _receipt(there[name][-1], client.known_session_id)
        else:
            selection.items.append((source, name))
            selection.older += there.get(name, [])
    return selection


def list_others(client: QuickSyncClient, checkpoint: Checkpoint | None) -> list[FileInfo]:
    """The session's files, without those that an earlier attempt of the same upload made."""
    files = client.list_files()
    return checkpoint.others(files, names_are_unique=client.names_are_unique) if checkpoint else files


def superseded(client: QuickSyncClient, selection: Selection, receipts: Sequence[Receipt]) -> list[str]:
    """The keys of the older files that have the name and the creator of a new one."""
    new_keys = {receipt["name"]: receipt["file_key"] for receipt in receipts}
    creators: dict[str, str | None] = {}
    found = []
    for file in selection.older:
        key = new_keys[file.name or ""]
        if key not in creators:
            creators[key] = client.get_file(key).creator_id
        if file.file_key != key and file.creator_id is not None and file.creator_id == creators[key]:
            found.append(file.file_key)
    return found


def _receipt(file: FileInfo, session_id: str | None) -> Receipt:
    return Receipt(
        file_key=file.file_key,
        name=file.name or "",
        size_bytes=file.size_bytes,
        sha256=None,
        parts=file.total_parts,
        completed=file.completed,
        session_id=session_id or None,
    )

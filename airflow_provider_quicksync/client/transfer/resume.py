"""Going on with what an earlier attempt of the same upload left, on the service and in its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import QuickSyncError
from airflow_provider_quicksync.client.models import FileInfo, Upload
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint, FileState, content_mark, digest
from airflow_provider_quicksync.client.transfer.sources import Source

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

log = logging.getLogger(__name__)


def resume(
    client: QuickSyncClient, checkpoint: Checkpoint, items: Sequence[tuple[Source, str]]
) -> list[FileState]:
    """
    The state of each (source, name): finished, to be gone on with, or fresh.

    What was begun for a source that has changed since, is not asked for any more, or can't be gone on with,
    is removed.
    """
    known = checkpoint.known
    there = _There(client, client.list_files() if known or checkpoint.orphans else [])
    there.remove_orphans(checkpoint)
    next_number = checkpoint.next_number
    wanted = {digest(name) for _, name in items}
    for name_digest, state in known.items():
        if name_digest not in wanted:
            there.remove_unfinished(state)
    states = []
    for source, name in items:
        mark, state = content_mark(source), known.get(digest(name)) or FileState(next_number)
        next_number = max(next_number, state.number + 1)
        if not _usable(state, there, mark):
            there.remove_unfinished(state)
            state.mark = mark
            checkpoint.intend(name, state, client.write_name(name))
        _announce(state, name)
        states.append(state)
    checkpoint.write()
    return states


def remove_superseded(client: QuickSyncClient, checkpoint: Checkpoint) -> None:
    """
    Remove what earlier attempts made of files that this one has sent again.

    That is a state of a source that has changed since, or what an attempt has made that was given up for
    dead and was not. Only where raw names prove it.
    """
    if not (checkpoint.superseded and client.names_are_unique):
        return
    try:
        files = client.list_files()
    except QuickSyncError as error:
        log.warning("what an earlier attempt has uploaded may be there twice: %s", error)
        return
    for file in files:
        if digest(file.raw_name or "") in checkpoint.superseded:
            abandon(client, Upload("", file.file_key), file.name or "")


def give_up(client: QuickSyncClient, checkpoint: Checkpoint) -> None:
    """
    Remove what any attempt has left unfinished, as no attempt follows, and forget it.

    What is remembered are files that are done: whoever clears the task gets the others.
    """
    try:
        unfinished = [state for state in checkpoint.known.values() if state.file_key is None]
        if checkpoint.taken_over():
            return
        any_left = unfinished or checkpoint.orphans
        there = _There(client, client.list_files(read_names=False, hurried=True) if any_left else [])
        there.remove_orphans(checkpoint)
        for state in unfinished:
            there.remove_unfinished(state)
    except QuickSyncError as error:
        log.warning("an unfinished upload of an earlier attempt may be there still: %s", error)
    checkpoint.clear(but_done=True)


class _There:
    """The files that are on the service."""

    def __init__(self, client: QuickSyncClient, files: Sequence[FileInfo]) -> None:
        self._client = client
        self._by_key = {file.file_key: file for file in files}
        self._by_raw_name: dict[str, list[FileInfo]] = {}
        if client.names_are_unique:
            for file in files:
                self._by_raw_name.setdefault(digest(file.raw_name or ""), []).append(file)

    def __contains__(self, file_key: str) -> bool:
        return file_key in self._by_key

    def made_by(self, state: FileState) -> list[FileInfo]:
        """What an earlier attempt made of a file, where that is certain."""
        found = {file.file_key: file for file in self._by_raw_name.get(state.raw_digest, [])}
        if state.upload and state.upload.file_key in self:
            found[state.upload.file_key] = self._by_key[state.upload.file_key]
        return list(found.values())

    def remove_orphans(self, checkpoint: Checkpoint) -> None:
        """Remove uploads whose notes are lost in part."""
        for file_key in checkpoint.orphans:
            if file_key in self and not self._by_key[file_key].completed:
                abandon(self._client, Upload("", file_key), self._by_key[file_key].name or "")

    def remove_unfinished(self, state: FileState) -> None:
        """Remove what an earlier attempt left of a file."""
        for file in self.made_by(state):
            if not file.completed:
                abandon(self._client, Upload("", file.file_key), file.name or "")


def _usable(state: FileState, there: _There, mark: str | None) -> bool:
    """Whether the state is true of the source and of the service; completes it by what the service has."""
    if mark is None or mark != state.mark:
        return False
    if state.file_key is not None and state.file_key in there:
        return True
    files = there.made_by(state)
    state.file_key = next((file.file_key for file in files if file.completed), None)
    return state.file_key is not None or (
        state.upload is not None and state.upload.file_key in {file.file_key for file in files}
    )


def _announce(state: FileState, name: str) -> None:
    if state.file_key:
        log.info("%r was uploaded by an earlier attempt as %s", name, state.file_key)
    elif state.upload and state.plan:
        log.info(
            "going on with the upload of %r (%s): %d of %d parts are there",
            name,
            state.upload.file_key,
            len(state.tags),
            state.plan.total_parts,
        )


def abandon(client: QuickSyncClient, started: Upload, name: str) -> None:
    """Remove an upload that is of no use, as far as the service can be reached, and log which."""
    try:
        client.remove_unfinished(started.file_key)
    except QuickSyncError as error:
        log.warning("the unfinished upload of %r is still there as %s: %s", name, started.file_key, error)
    else:
        log.info("removed the unfinished upload of %r (%s)", name, started.file_key)

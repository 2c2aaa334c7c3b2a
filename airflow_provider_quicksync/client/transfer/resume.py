"""Going on with what an earlier attempt of the same upload left, on the service and in its checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import QuickSyncError
from airflow_provider_quicksync.client.models import FileInfo, Upload
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint, FileState, content_mark
from airflow_provider_quicksync.client.transfer.sources import Source

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

log = logging.getLogger(__name__)


def resume(
    client: QuickSyncClient, checkpoint: Checkpoint, items: Sequence[tuple[Source, str]]
) -> list[FileState]:
    """
    The state of each (source, name): finished, to be gone on with, or fresh.

    What was begun for a source that has changed since, or can't be gone on with, is removed.
    """
    known = checkpoint.known
    files = client.list_files() if known else []
    next_number = max((state.number for state in known.values()), default=-1) + 1
    states = []
    for source, name in items:
        mark = content_mark(source)
        state = known.get(name)
        if state is None:
            state, next_number = FileState(next_number, "", mark), next_number + 1
        elif not _usable(client, state, files, mark):
            _remove_remains(client, state, files, name)
            state.forget_upload()
            state.raw_name = ""
        if not state.raw_name:
            state.raw_name, state.mark = client.write_name(name), mark
            checkpoint.intend(name, state)
        _announce(state, name)
        states.append(state)
    checkpoint.write()
    return states


def _usable(client: QuickSyncClient, state: FileState, files: Sequence[FileInfo], mark: str | None) -> bool:
    """Whether the state is true of the source and of the service; completes it by what the service has."""
    if mark is None or mark != state.mark:
        return False
    there = {file.file_key: file for file in files}
    if state.file_key in there:
        return True
    for file in _remains(client, state, files):
        if file.completed:
            state.file_key = file.file_key
            return True
        if state.upload and state.upload.file_key == file.file_key:
            return True
    return False


def _remains(client: QuickSyncClient, state: FileState, files: Sequence[FileInfo]) -> list[FileInfo]:
    """The files on the service that the earlier attempt made, where that is certain."""
    keys = {state.upload.file_key} if state.upload else set()
    unique = client.names_are_unique
    return [file for file in files if file.file_key in keys or (unique and file.raw_name == state.raw_name)]


def _remove_remains(client: QuickSyncClient, state: FileState, files: Sequence[FileInfo], name: str) -> None:
    for file in _remains(client, state, files):
        if not file.completed:
            abandon(client, Upload("", file.file_key), name)


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
    """Remove an upload that can't be finished, as far as the service can be reached, and log which."""
    try:
        client.remove_unfinished(started.file_key)
    except QuickSyncError as error:
        log.warning("the unfinished upload of %r is still there as %s: %s", name, started.file_key, error)
    else:
        log.info("removed the unfinished upload of %r (%s)", name, started.file_key)

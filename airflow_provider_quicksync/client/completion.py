"""Whether files are complete: the one verdict that sensors, operators and triggers share."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import DeadlineError, NotFoundError, QuickSyncError
from airflow_provider_quicksync.client.models import FileInfo
from airflow_provider_quicksync.client.transfer.window import Stop

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """How far some files are: those that are complete, and the keys of those that aren't yet."""

    files: list[FileInfo]
    pending: list[str]

    @property
    def done(self) -> bool:
        """All are complete."""
        return not self.pending


def verdict(file_keys: Sequence[str], found: Mapping[str, FileInfo]) -> Verdict:
    """
    Judge files by what the service knows of them.

    :raises NotFoundError: it doesn't know one, and so will never complete it.
    """
    gone = [key for key in file_keys if key not in found]
    if gone:
        raise NotFoundError(
            f"waiting for {', '.join(gone)} is pointless: the session has no such file; it was deleted, or"
            " belongs to another session",
            status=404,
        )
    files = [found[key] for key in file_keys]
    return Verdict([f for f in files if f.completed], [f.file_key for f in files if not f.completed])


def check_completion(client: QuickSyncClient, file_keys: Sequence[str]) -> Verdict:
    """Ask for the files, one by itself and several with one listing, and judge them."""
    if len(set(file_keys)) == 1:
        try:
            found = [client.get_file(file_keys[0])]
        except NotFoundError:
            found = []
    else:
        found = client.list_files()
    return verdict(file_keys, {file.file_key: file for file in found})


def wait_for_completion(
    client: QuickSyncClient,
    file_keys: Sequence[str],
    *,
    poll_seconds: float = 5.0,
    timeout_seconds: float = 3600.0,
    stop: Stop | None = None,
) -> list[FileInfo]:
    """
    Ask until all are complete. A busy or unreachable service is waited out too.

    :raises DeadlineError: they were not in time.
    :raises NotFoundError: one is gone.
    :raises StoppedError: a stop was requested.
    """
    stop, deadline = stop or Stop(), time.monotonic() + timeout_seconds
    pending, problem = list(file_keys), ""
    while True:
        try:
            now = check_completion(client, file_keys)
        except QuickSyncError as error:
            if not error.retryable:
                raise
            problem = f"; at last, {error}"
            log.warning("%s; looking again in %.0f s", error, poll_seconds)
        else:
            if now.done:
                return now.files
            pending, problem = now.pending, ""
        if time.monotonic() + poll_seconds > deadline:
            raise DeadlineError(f"{', '.join(pending)}: not complete after {timeout_seconds:,.0f} s{problem}")
        stop.halted.wait(poll_seconds)
        stop.check()

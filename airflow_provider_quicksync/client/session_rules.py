"""Whether an upload fits into its session, found out before its first byte is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import LimitError, NotFoundError
from airflow_provider_quicksync.client.models import FileInfo, SessionInfo

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

MEGABYTE = 1 << 20
"""Reading: a megabyte of ``maxTotalMegaBytes``: the larger of the two, which refuses nothing that fits."""
NO_LIMIT = 0
"""Reading: a limit of 0 or less is none."""
_SOME_UNIX_TIME = 1_000_000_000
"""Reading: an ``expiry`` above this is a Unix time, one below it seconds from now."""


@dataclass(frozen=True)
class SessionUse:
    """A session's rules, and how much of them is used."""

    session: SessionInfo
    files: int
    size_bytes: int

    def check(self, count: int, size_bytes: int) -> None:
        """:raises LimitError: so many more files of so many bytes don't fit."""
        session, allowed = self.session, self.session.max_total_megabytes
        if _limited(session.max_files) and self.files + count > (session.max_files or 0):
            raise LimitError(
                f"{count} file(s) don't fit: session {session.session_id} allows {session.max_files} and has"
                f" {self.files}; delete some, or use another session"
            )
        if _limited(allowed) and self.size_bytes + size_bytes > (allowed or 0) * MEGABYTE:
            raise LimitError(
                f"{_mib(size_bytes)} don't fit: session {session.session_id} allows {allowed:,} MB and has"
                f" {_mib(self.size_bytes)}; delete some files, or use another session"
            )

    def describe(self) -> str:
        """The session, its rules and their use in words."""
        session = self.session
        files = f"{self.files} of {session.max_files}" if _limited(session.max_files) else str(self.files)
        allowed = session.max_total_megabytes
        megabytes = f" of {allowed:,} MB" if _limited(allowed) else ""
        until = f", until {_when(session.expiry)}" if session.expiry else ""
        return (
            f"session {session.session_id}: {files} files, {_mib(self.size_bytes)}{megabytes} in use{until}"
        )


def session_use(
    client: QuickSyncClient, list_files: Callable[[], list[FileInfo]] | None = None
) -> SessionUse | None:
    """
    Ask for the session's rules and their use; None where the service tells no session.

    :param list_files: gives the files that count, by default all of the session; called only where a rule
        limits them.
    """
    try:
        session = client.current_session()
    except NotFoundError:
        return None
    limited = _limited(session.max_files) or _limited(session.max_total_megabytes)
    files = (list_files or client.list_files)() if limited else []
    return SessionUse(session, len(files), sum(file.size_bytes for file in files))


def _limited(limit: int | None) -> bool:
    return limit is not None and limit > NO_LIMIT


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:,.1f} MiB"


def _when(expiry: int) -> str:
    if expiry < _SOME_UNIX_TIME:
        return f"{expiry:,} s from now"
    return datetime.fromtimestamp(expiry, UTC).strftime("%Y-%m-%d %H:%M UTC")

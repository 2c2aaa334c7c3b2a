"""Whether an upload fits into its session, found out before its first byte is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_quicksync.client.errors import LimitError, NotFoundError
from airflow_provider_quicksync.client.models import FileInfo, SessionInfo

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

MEGABYTE = 1 << 20
"""Reading: a megabyte of ``maxTotalMegaBytes``: the larger of the two, which refuses nothing that fits."""
NO_LIMIT = 0
"""Reading: a limit of 0 or less is none."""
UPLINK_MIB_PER_SECOND = 125.0
"""What an upload is taken to manage where nobody says: 1 Gbit/s, so that hardly one that fits is refused."""
SKEW_SECONDS = 60.0
"""So far may clocks differ: an upload that takes that much longer than its session lives isn't refused."""
_SOME_UNIX_TIME = 1_000_000_000
"""Reading: an ``expiry`` above this is a Unix time, one below it seconds from now."""


@dataclass(frozen=True)
class SessionUse:
    """
    A session's rules, and how much of them is used.

    :param seconds_left: until the session, or the bearer that can't be renewed, ends; None where that isn't
        told, or can't be by the clock here.
    """

    session: SessionInfo
    files: int
    size_bytes: int
    seconds_left: float | None = None

    def check(self, count: int, size_bytes: int, *, uplink_mib_per_second: float | None = None) -> None:
        """
        See whether more files fit.

        :param uplink_mib_per_second: how fast they go up; 0 leaves the time alone.
        :raises LimitError: so many more files of so many bytes don't fit.
        """
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
        rate = UPLINK_MIB_PER_SECOND if uplink_mib_per_second is None else uplink_mib_per_second
        needed = size_bytes / (rate * MEGABYTE) if rate else 0.0
        if self.seconds_left is not None and needed > self.seconds_left + SKEW_SECONDS:
            raise LimitError(
                f"{_mib(size_bytes)} can't be sent in time: session {session.session_id} ends in"
                f" {_duration(self.seconds_left)}, and {rate:g} MiB/s would take {_duration(needed)}; use a"
                " session with a longer life, or say in uplink_mib_per_second how fast the line is"
            )

    def describe(self) -> str:
        """The session, its rules, their use and what is left in words."""
        session = self.session
        files = f"{self.files} of {session.max_files}" if _limited(session.max_files) else str(self.files)
        allowed = session.max_total_megabytes
        megabytes = f" of {allowed:,} MB" if _limited(allowed) else ""
        until = f", until {_when(session.expiry)}" if session.expiry else ""
        left = self._left()
        return (
            f"session {session.session_id}: {files} files, {_mib(self.size_bytes)}{megabytes} in use{until}"
            + (f"; left: {', '.join(left)}" if left else "")
        )

    def _left(self) -> list[str]:
        session, left = self.session, []
        if _limited(session.max_files):
            left.append(f"{max(0, (session.max_files or 0) - self.files):,} files")
        if _limited(session.max_total_megabytes):
            left.append(_mib(max(0, (session.max_total_megabytes or 0) * MEGABYTE - self.size_bytes)))
        if _limited(session.max_users) and session.users is not None:
            left.append(f"{max(0, (session.max_users or 0) - session.users):,} users")
        if self.seconds_left is not None:
            left.append(_duration(self.seconds_left))
        return left


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
    left = _seconds_left(session.expiry, client.credentials.expires_at)
    return SessionUse(session, len(files), sum(file.size_bytes for file in files), left)


def _seconds_left(expiry: int | None, bearer_expires_at: float | None) -> float | None:
    """The shorter of two; what has ended although the service has just answered is of another clock."""
    now = time.time()
    ends = [] if not expiry else [expiry if expiry >= _SOME_UNIX_TIME else now + expiry]
    if bearer_expires_at is not None:
        ends.append(bearer_expires_at)
    return min((end - now for end in ends if end > now), default=None)


def _limited(limit: int | None) -> bool:
    return limit is not None and limit > NO_LIMIT


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:,.1f} MiB"


def _when(expiry: int) -> str:
    if expiry < _SOME_UNIX_TIME:
        return f"{expiry:,} s from now"
    return datetime.fromtimestamp(expiry, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _duration(seconds: float) -> str:
    """As in "2 days, 3:04:05"."""
    return str(timedelta(seconds=round(seconds)))

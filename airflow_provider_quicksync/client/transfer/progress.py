"""Reporting how far a transfer is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[int, int], None]
"""Called with (bytes moved, bytes in all), in the caller's thread, about once a second."""
PROGRESS_SECONDS = 1.0


def throttled(
    progress: Progress | None, moved_bytes: Callable[[], int], total_bytes: int
) -> Callable[[], None] | None:
    """A function to call often, which reports once a second; None where nobody listens."""
    if progress is None:
        return None
    reported = time.monotonic()

    def tick() -> None:
        nonlocal reported
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            progress(moved_bytes(), total_bytes)

    return tick


class ProgressLog:
    """
    Writes how far a transfer is into a log, one line every few seconds at most.

    :param log: anything with ``info``, as Airflow's loggers are not the standard library's.
    """

    EVERY_SECONDS = 5.0

    def __init__(self, log: Any, what: str) -> None:
        self._log, self._what = log, what
        self._started = self._reported = time.monotonic()

    def __call__(self, moved_bytes: int, total_bytes: int) -> None:
        """Write a line, unless the last one was just now."""
        now = time.monotonic()
        if now - self._reported < self.EVERY_SECONDS:
            return
        self._reported = now
        rate = moved_bytes / (now - self._started)
        left = f"{(total_bytes - moved_bytes) / rate:,.0f} s left" if rate else "waiting"
        percent = 100 * moved_bytes / total_bytes if total_bytes else 100
        self._log.info(
            "%s: %.0f %% of %s, %s/s, %s", self._what, percent, size(total_bytes), size(rate), left
        )

    def summary(self, moved_bytes: int) -> str:
        """What was moved, in which time."""
        seconds = max(time.monotonic() - self._started, 1e-3)
        return f"{size(moved_bytes)} in {seconds:,.1f} s, {size(moved_bytes / seconds)}/s"


def size(size_bytes: float) -> str:
    """A size as people read it: bytes under a KiB, else with one decimal in KiB, MiB or GiB."""
    if size_bytes < 1 << 10:
        return f"{size_bytes:.0f} B"
    for unit, exponent in (("KiB", 10), ("MiB", 20)):
        if size_bytes < 1 << (exponent + 10):
            return f"{size_bytes / (1 << exponent):,.1f} {unit}"
    return f"{size_bytes / (1 << 30):,.1f} GiB"

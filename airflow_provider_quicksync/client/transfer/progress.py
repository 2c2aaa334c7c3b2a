"""Reporting how far a transfer is."""

from __future__ import annotations

import time
from collections.abc import Callable

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

"""
What is transferred, as metrics of Airflow's own interface (StatsD, Datadog, OpenTelemetry, or none).

Counters ``quicksync.upload.bytes``, ``.parts`` and ``.retries``, ``quicksync.download.bytes``; timers
``quicksync.upload.seconds`` and ``quicksync.download.seconds``. What a failed attempt has uploaded counts
too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quicksync.client import QuickSyncClient

log = logging.getLogger(__name__)


@contextmanager
def measured_upload(client: QuickSyncClient) -> Iterator[None]:
    """Emit what a client sends in the block, and how long that takes."""
    counts, started = client.counts, time.monotonic()
    before = counts.bytes, counts.parts, counts.retries
    try:
        yield
    finally:
        after = counts.bytes, counts.parts, counts.retries
        sent, parts, retries = (now - then for now, then in zip(after, before, strict=True))
        emit("upload", started, bytes=sent, parts=parts, retries=retries)


def emit(what: str, started: float, **counters: int) -> None:
    """Emit counters, and the time since ``started`` (by the monotonic clock); never fails."""
    from airflow.providers.common.compat.sdk import Stats

    try:
        for name, value in counters.items():
            Stats.incr(f"quicksync.{what}.{name}", value)
        Stats.timing(f"quicksync.{what}.seconds", timedelta(seconds=time.monotonic() - started))
    except Exception:
        log.debug("metrics can't be emitted", exc_info=True)

"""The request log: what came, what was answered, and the counters; thread-safe, without secrets."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

#: Request headers that a test may want to look at.
KEPT_HEADERS = (
    "Accept",
    "Content-Type",
    "Content-Length",
    "Transfer-Encoding",
    "Expect",
    "Range",
    "User-Agent",
    "partNumber",
    "key",
    "uploadId",
)
#: Headers of which only the presence (and the scheme) is kept.
SECRET_HEADERS = ("Authorization", "X-API-KEY")

_log = logging.getLogger("quicksync.local.requests")


@dataclass(slots=True)
class Entry:
    """One request; ``status`` is ``None`` when no answer was sent, ``seconds`` while it is in flight."""

    call: str
    method: str
    #: Percent-encoded, without the query (a link's query is a secret).
    path: str
    part_number: int | None = None
    status: int | None = None
    #: Bytes of the request's body that were read, and of the answer's body that were sent.
    received_bytes: int = 0
    sent_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    #: Seconds since the epoch, and how long it took.
    time: float = 0.0
    seconds: float | None = None
    #: Whether a fault was met.
    faulty: bool = False

    def __str__(self) -> str:
        part = "" if self.part_number is None else f" part {self.part_number}"
        status = "cut" if self.status is None else self.status
        fault = " (fault)" if self.faulty else ""
        return (
            f"{self.method} {self.path}{part} {status}, {self.received_bytes} B in, {self.sent_bytes} B out, "
            f"{(self.seconds or 0) * 1000:.1f} ms{fault}"
        )


@dataclass(slots=True)
class CallCount:
    """The counters of one call."""

    requests: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    by_status: dict[str, int] = field(default_factory=dict)


class Journal:
    """The last requests and the counters over all."""

    def __init__(self, log_entries: int) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=log_entries)
        self._counts: dict[str, CallCount] = {}

    def begin(self, entry: Entry) -> Entry:
        """Note that a request came."""
        entry.time = time.time()
        with self._lock:
            self._entries.append(entry)
            count = self._counts.setdefault(entry.call, CallCount())
            count.requests += 1
            count.in_flight += 1
            count.most_in_flight = max(count.most_in_flight, count.in_flight)
        return entry

    def end(self, entry: Entry, status: int | None) -> None:
        """Note how it ended; only the first note counts."""
        with self._lock:
            if entry.seconds is not None:
                return
            entry.status = status
            entry.seconds = time.time() - entry.time
            count = self._counts.setdefault(entry.call, CallCount())
            count.in_flight = max(0, count.in_flight - 1)
            count.received_bytes += entry.received_bytes
            count.sent_bytes += entry.sent_bytes
            count.by_status[str(status)] = count.by_status.get(str(status), 0) + 1
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", entry)

    def entries(self) -> list[Entry]:
        """Return copies of the entries, oldest first."""
        with self._lock:
            return [replace(entry) for entry in self._entries]

    def counters(self) -> dict[str, dict[str, Any]]:
        """Return the counters by call."""
        with self._lock:
            return {call: asdict(count) for call, count in self._counts.items()}

    def reset(self) -> None:
        """Forget the entries and the counters."""
        with self._lock:
            self._entries.clear()
            self._counts.clear()


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that matter, secrets replaced by ``***``."""
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    for name in SECRET_HEADERS:
        if name in headers:
            scheme, space, _ = headers[name].partition(" ")
            kept[name] = f"{scheme} ***" if space else "***"
    return kept

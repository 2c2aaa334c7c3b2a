"""What a client has moved so far."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Counts:
    """Parts that the service has taken, their bytes, and calls that were repeated; for several threads."""

    parts: int = 0
    bytes: int = 0
    retries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def sent(self, size_bytes: int) -> None:
        """A part was taken."""
        with self._lock:
            self.parts += 1
            self.bytes += size_bytes

    def retried(self) -> None:
        """A call is made again."""
        with self._lock:
            self.retries += 1

"""
SHA-256 of a whole file beside sending its parts in parallel.

A digest takes bytes in order, while parts are read out of order. A local file is therefore hashed by a
thread of its own, in step with the senders: what one of them read is still in the page cache for the other,
so the disk is read once. A remote source is read once too: each part is staged in a temporary file, hashed
when its turn comes, and sent from there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from .plan import Part, Plan
from .sources import Source, SpooledSource, read_blocks, room_to_spool
from .window import Stop

LEAD_PARTS = 2
"""How many parts may move beyond the last hashed one: a digest at 2 GB/s only holds back faster networks."""


class Pace:
    """
    Keeps a digest and those who move parts in step.

    Parts that moved much faster than the digest would take the processor from it, and leave it alone with
    most of the file in the end. A digest that ran ahead would read what has left the page cache by the time
    it is sent.

    :param missing: the numbers of the parts that are going to be moved; others are there already.
    """

    def __init__(self, stop: Stop, missing: Iterable[int]) -> None:
        self._stop, self._missing = stop, set(missing)
        self._changed = threading.Condition()
        self._hashed = 0

    def begin(self, part: Part) -> None:
        """Say that a part is going to move, and wait until it may."""
        with self._changed:
            self._missing.discard(part.number)
            self._changed.notify_all()
            self._wait(lambda: part.number <= self._hashed + LEAD_PARTS)

    def hash(self, part: Part, update: Callable[[Part], None]) -> None:
        """Call ``update`` for a part once it moves; parts come in order."""
        with self._changed:
            self._wait(lambda: part.number not in self._missing)
        update(part)
        with self._changed:
            self._hashed = part.number
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._stop.check()
            self._changed.wait(0.1)


class FileDigest:
    """The SHA-256 of a source, from :meth:`run`, :meth:`follow` or :meth:`staged` parts."""

    def __init__(self, source: Source, stop: Stop) -> None:
        self._source, self._stop = source, stop
        self._sha256 = hashlib.sha256()
        self._turn = threading.Condition()
        self._next_part = 1

    def run(self) -> None:
        """Read and hash the whole source."""
        self._update(self._source, 0, self._source.size_bytes)

    def follow(self, plan: Plan, pace: Pace) -> None:
        """Read and hash the whole source, in step with those who send its parts."""
        for part in plan.parts():
            pace.hash(part, lambda part: self._update(self._source, part.offset, part.size_bytes))

    @contextmanager
    def staged(self, part: Part) -> Iterator[Source]:
        """
        One part of the source as a source of its own, on disk; hashed in the order of the parts.

        At most as many are on disk as parts are on the way.
        """
        with room_to_spool(self._source.name), tempfile.TemporaryFile(prefix="quicksync-part-") as file:
            for block in read_blocks(self._source, part.offset, part.size_bytes, self._stop):
                file.write(block)
            file.flush()
            staged = SpooledSource(self._source.name, os.dup(file.fileno()))
        try:
            self._hash_in_turn(part, staged)
            yield staged
        finally:
            staged.discard()

    def hexdigest(self) -> str:
        """The digest, once everything was hashed."""
        return self._sha256.hexdigest()

    def _hash_in_turn(self, part: Part, staged: Source) -> None:
        with self._turn:
            while self._next_part != part.number:
                self._stop.check()
                self._turn.wait(0.1)
            self._update(staged, 0, part.size_bytes)
            self._next_part += 1
            self._turn.notify_all()

    def _update(self, source: Source, offset: int, size_bytes: int) -> None:
        for block in read_blocks(source, offset, size_bytes, self._stop):
            self._sha256.update(block)

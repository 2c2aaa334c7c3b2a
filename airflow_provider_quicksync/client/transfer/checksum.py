"""
SHA-256 of a whole file beside sending its parts in parallel.

A digest takes bytes in order, while parts are read out of order. A local file is therefore hashed by a
thread of its own, which shares the page cache with the senders: the disk is read once. A remote source is
read once too: each part is staged in a temporary file, hashed when its turn comes, and sent from there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .plan import Part
from .sources import Source, SpooledSource, read_blocks, room_to_spool
from .window import Stop


class FileDigest:
    """The SHA-256 of a source, from :meth:`run` or from :meth:`staged` parts."""

    def __init__(self, source: Source, stop: Stop) -> None:
        self._source, self._stop = source, stop
        self._sha256 = hashlib.sha256()
        self._turn = threading.Condition()
        self._next_part = 1

    def run(self) -> None:
        """Read and hash the whole source."""
        self._update(self._source, self._source.size_bytes)

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
            staged.close()

    def hexdigest(self) -> str:
        """The digest, once everything was hashed."""
        return self._sha256.hexdigest()

    def _hash_in_turn(self, part: Part, staged: Source) -> None:
        with self._turn:
            while self._next_part != part.number:
                self._stop.check()
                self._turn.wait(0.1)
            self._update(staged, part.size_bytes)
            self._next_part += 1
            self._turn.notify_all()

    def _update(self, source: Source, size_bytes: int) -> None:
        for block in read_blocks(source, 0, size_bytes, self._stop):
            self._sha256.update(block)

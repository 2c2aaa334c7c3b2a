"""
Which files a watcher has seen, kept in the asset's state store (Airflow 3.3 and newer) or in memory.

A file is remembered by 8 bytes of its key's hash, 4,000 to a value, as Airflow takes 65,535 bytes a value.
That two of a million files have the same 8 bytes has a chance of 1 in 37 million.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Collection
from typing import Any

log = logging.getLogger(__name__)

MARK_BYTES = 8
MARKS_A_PAGE = 4_000
PAUSES_SECONDS = (1.0, 5.0)
"""Between the attempts to read what was kept."""


class SeenFiles:
    """
    A set of file keys that survives restarts where there is a store.

    :param store: has ``aget``, ``aset`` and ``adelete``; None keeps the set in memory.
    :param scope: tells the sets of several watchers of one asset apart.
    """

    def __init__(self, store: Any, scope: str) -> None:
        self._store = store
        self._prefix = f"quicksync.seen.{hashlib.sha256(scope.encode()).hexdigest()[:12]}."
        self._marks: dict[bytes, None] = {}
        self._keys: set[str] = set()
        self._written: list[str] = []
        self._has_warned = False
        self.is_saved = False
        """Whether the store has all of it."""

    async def load(self) -> bool:
        """Read what was kept, all or nothing; whether there was anything."""
        for pause in (*PAUSES_SECONDS, None):
            try:
                await self._load()
            except Exception as error:  # whatever a state backend raises
                self._marks, self._written = {}, []
                if pause is None:
                    self._warn(error)
                else:
                    await asyncio.sleep(pause)
            else:
                break
        return bool(self._written)

    async def _load(self) -> None:
        while self._store is not None and (page := await self._store.aget(self._key(len(self._written)))):
            self._written.append(page)
            data = base64.b64decode(page)
            marks = (data[i : i + MARK_BYTES] for i in range(0, len(data), MARK_BYTES))
            self._marks |= dict.fromkeys(marks)

    def __contains__(self, file_key: str) -> bool:
        if file_key not in self._keys and _mark(file_key) in self._marks:
            self._keys.add(file_key)
        return file_key in self._keys

    def add(self, file_key: str) -> None:
        """Remember a file; kept by the next :meth:`save`."""
        self._keys.add(file_key)
        self._marks[_mark(file_key)] = None
        self.is_saved = False

    def retain(self, file_keys: Collection[str]) -> None:
        """Forget every other file, once they are the larger part."""
        if len(self._marks) > 2 * len(file_keys) + MARKS_A_PAGE:
            there = {_mark(key) for key in file_keys}
            self._marks = {mark: None for mark in self._marks if mark in there}
            self._keys &= set(file_keys)
            self.is_saved = False

    async def save(self) -> None:
        """Keep what is new: the pages that changed, and one at least, which says that a watcher was here."""
        marks = list(self._marks)
        pages = [
            base64.b64encode(b"".join(marks[i : i + MARKS_A_PAGE])).decode()
            for i in range(0, len(marks), MARKS_A_PAGE)
        ] or [base64.b64encode(bytes(MARK_BYTES)).decode()]
        try:
            for number, page in enumerate(pages):
                if self._store is not None and self._written[number : number + 1] != [page]:
                    await self._store.aset(self._key(number), page)
            for number in range(len(pages), len(self._written)):
                if self._store is not None:
                    await self._store.adelete(self._key(number))
        except Exception as error:  # whatever a state backend raises
            self._warn(error)
            self._written = []
        else:
            self._written, self.is_saved = pages, True

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "files seen can't be kept or read: if that doesn't change, after a restart of the triggerer"
                " files may be missed, or fire again: %s",
                error,
            )


def _mark(file_key: str) -> bytes:
    return hashlib.blake2b(file_key.encode(), digest_size=MARK_BYTES).digest()

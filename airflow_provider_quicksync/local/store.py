"""Bytes and state on disk: SQLite for what is known, one plain file for each part's bytes.

A part's row names its file, so that the part last finished wins in one statement and a kill at any
moment leaves at worst a file without a row, which the next start removes. Durable against a killed
process, not against a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    file_key TEXT NOT NULL UNIQUE,
    upload_id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL,
    creator_id TEXT NOT NULL,
    file_name TEXT,
    total_parts INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL DEFAULT 0,
    announced INTEGER NOT NULL DEFAULT 0,
    ready_at REAL NOT NULL DEFAULT 0,
    polls_left INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS uploads_of_session ON uploads (session_id, number);
CREATE INDEX IF NOT EXISTS uploads_coming ON uploads (ready_at) WHERE stored AND NOT announced;
CREATE TABLE IF NOT EXISTS parts (
    file_key TEXT NOT NULL,
    part_number INTEGER NOT NULL,
    tag TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    blob TEXT NOT NULL,
    PRIMARY KEY (file_key, part_number)
) WITHOUT ROWID;
"""
_UPLOAD = (
    "file_key, upload_id, session_id, creator_id, file_name, total_parts, size_bytes"
    ", stored, ready_at, polls_left"
)


class StoreError(Exception):
    """The root cannot be used."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file, from ``initiate`` on."""

    file_key: str
    upload_id: str
    session_id: str
    creator_id: str
    file_name: str | None
    total_parts: int
    size_bytes: int
    #: Whether ``complete`` was answered; the file is ``completed`` after that, see :attr:`is_completed`.
    stored: bool = False
    ready_at: float = 0
    polls_left: int = 0

    @property
    def is_completed(self) -> bool:
        """Whether the file reached the archive."""
        return bool(self.stored) and self.polls_left == 0 and time.time() >= self.ready_at

    def as_json(self) -> dict[str, Any]:
        """Return the file as the API's UploadInfoDto."""
        return {
            "creatorId": self.creator_id,
            "completed": self.is_completed,
            "fileKey": self.file_key,
            "fileName": self.file_name,
            "totalParts": self.total_parts,
            "originalSizeInBytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One part that was received."""

    part_number: int
    tag: str
    size_bytes: int
    blob: str


class Store:
    """The root directory of one server; used by one thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "parts"
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._lock = open(root / "lock", "w")  # noqa: SIM115 (held as long as the store is open)
        except OSError as error:
            raise StoreError(f"cannot write to {root}: {error.strerror}") from error
        self._open()

    def _open(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise StoreError(f"another server uses {self.root}") from error
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._lock.close)
            try:
                self._db = sqlite3.connect(self.root / "state.sqlite", isolation_level=None)
                on_failure.callback(self._db.close)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = OFF")
                self._db.executescript(_SCHEMA)
            except sqlite3.Error as error:
                raise StoreError(f"cannot use the state in {self.root}: {error}") from error
            on_failure.pop_all()
        self._remove_strays()

    @property
    def database(self) -> sqlite3.Connection:
        """The state, for the tables that are not of files."""
        return self._db

    def close(self) -> None:
        """Release the root."""
        self._db.close()
        self._lock.close()

    # -- facts ---------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        """Return what was noted under *name*."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        """Keep *value* under *name*."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def forget(self, name: str) -> None:
        """Remove the fact *name*."""
        self._db.execute("DELETE FROM facts WHERE name = ?", (name,))

    # -- uploads -------------------------------------------------------------------------------

    def add(self, upload: Upload) -> None:
        """Keep a new upload."""
        values = (
            upload.file_key,
            upload.upload_id,
            upload.session_id,
            upload.creator_id,
            upload.file_name,
            upload.total_parts,
            upload.size_bytes,
        )
        columns = _UPLOAD.split(", stored")[0]
        self._db.execute(f"INSERT INTO uploads ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def find(self, file_key: str) -> Upload | None:
        """Return the upload of *file_key*."""
        row = self._db.execute(f"SELECT {_UPLOAD} FROM uploads WHERE file_key = ?", (file_key,)).fetchone()
        return None if row is None else Upload(*row)

    def of_session(self, session_id: str) -> Iterator[Upload]:
        """Yield a session's uploads, oldest first."""
        rows = self._db.execute(
            f"SELECT {_UPLOAD} FROM uploads WHERE session_id = ? ORDER BY number", (session_id,)
        )
        return (Upload(*row) for row in rows)

    def usage(self, session_id: str) -> tuple[int, int]:
        """Return how many files a session has, and their bytes."""
        count, size = self._db.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM uploads WHERE session_id = ?", (session_id,)
        ).fetchone()
        return int(count), int(size)

    def set_stored(self, file_key: str, ready_at: float, polls_left: int) -> None:
        """Note that ``complete`` took effect."""
        self._db.execute(
            "UPDATE uploads SET stored = 1, ready_at = ?, polls_left = ? WHERE file_key = ?",
            (ready_at, polls_left, file_key),
        )

    def count_poll(self, session_id: str, file_key: str | None = None) -> None:
        """Count a poll that told a client of these files."""
        self._db.execute(
            "UPDATE uploads SET polls_left = polls_left - 1"
            " WHERE session_id = ? AND polls_left > 0 AND stored AND (? IS NULL OR file_key = ?)",
            (session_id, file_key, file_key),
        )

    def take_completed(self, now: float) -> list[Upload]:
        """Return the files that turned completed since the last time."""
        coming = "stored AND NOT announced AND ready_at <= ? AND polls_left = 0"
        rows = self._db.execute(f"SELECT {_UPLOAD} FROM uploads WHERE {coming}", (now,)).fetchall()
        if rows:
            self._db.execute(f"UPDATE uploads SET announced = 1 WHERE {coming}", (now,))
        return [Upload(*row) for row in rows]

    def coming_completions(self) -> list[float]:
        """Return when files will be ready."""
        rows = self._db.execute("SELECT DISTINCT ready_at FROM uploads WHERE stored AND NOT announced")
        return [row[0] for row in rows]

    def remove(self, file_key: str) -> None:
        """Remove an upload, finished or not, and its bytes."""
        blobs = [part.blob for part in self.parts(file_key)]
        with self._transaction():
            self._db.execute("DELETE FROM uploads WHERE file_key = ?", (file_key,))
            self._db.execute("DELETE FROM parts WHERE file_key = ?", (file_key,))
        for blob in blobs:
            self.discard(blob)

    # -- parts ---------------------------------------------------------------------------------

    def new_blob(self) -> str:
        """Return the name of a file for the bytes of a part."""
        return secrets.token_hex(16)

    def blob_path(self, blob: str) -> Path:
        """Return where *blob* is."""
        return self._blobs / blob

    def discard(self, blob: str) -> None:
        """Remove the bytes of a part."""
        self.blob_path(blob).unlink(missing_ok=True)

    def put_part(self, file_key: str, part: Part) -> None:
        """Make *part* the one that counts under its number."""
        number = (file_key, part.part_number)
        older = self._db.execute(
            "SELECT blob FROM parts WHERE file_key = ? AND part_number = ?", number
        ).fetchone()
        values = (*number, part.tag, part.size_bytes, part.blob)
        self._db.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)", values)
        if older is not None:
            self.discard(older[0])

    def parts(self, file_key: str) -> list[Part]:
        """Return the parts that were received, in order."""
        rows = self._db.execute(
            "SELECT part_number, tag, size_bytes, blob FROM parts WHERE file_key = ? ORDER BY part_number",
            (file_key,),
        )
        return [Part(*row) for row in rows]

    # -- upkeep --------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _remove_strays(self) -> None:
        known = {row[0] for row in self._db.execute("SELECT blob FROM parts")}
        with os.scandir(self._blobs) as entries:
            strays = [entry.name for entry in entries if entry.name not in known]
        for blob in strays:
            self.discard(blob)

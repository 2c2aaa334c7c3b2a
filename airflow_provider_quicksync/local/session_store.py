"""Sessions and their users on disk, beside the files they own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    creator_id TEXT NOT NULL,
    creator_address TEXT,
    expires_at REAL NOT NULL,
    max_files INTEGER,
    max_users INTEGER,
    max_total_megabytes INTEGER,
    password_digest TEXT,
    only_whitelisted INTEGER NOT NULL,
    whitelist TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT,
    address TEXT
);
CREATE INDEX IF NOT EXISTS users_of_session ON users (session_id);
"""
_SESSION = (
    "id, creator_id, creator_address, expires_at, max_files, max_users, max_total_megabytes"
    ", password_digest, only_whitelisted, whitelist"
)
_USER = "id, session_id, role, name, address"
HOST, MEMBER = "host", "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The context of files: its rules, and until when it lives. A rule of ``None`` is no limit."""

    id: str
    creator_id: str
    creator_address: str | None
    expires_at: float
    max_files: int | None
    max_users: int | None
    max_total_megabytes: int | None
    password_digest: str | None = None
    only_whitelisted: bool = False
    whitelist: tuple[str, ...] = ()

    def welcomes(self, address: str) -> bool:
        """Whether the whitelist lets *address* in; who made the session always may."""
        allowed = {name.lower() for name in (*self.whitelist, self.creator_address or "")}
        return not self.only_whitelisted or address.lower() in allowed


@dataclass(frozen=True, slots=True)
class User:
    """One who is in a session; the address is that of the wallet."""

    id: str
    session_id: str
    role: str
    name: str | None
    address: str | None
    #: Counts each time someone comes in; a bearer is good for one of them.
    seat: int = 0

    def as_json(self) -> dict[str, str | None]:
        """Return the user as the API tells it."""
        return {"id": self.id, "role": self.role, "name": self.name, "address": self.address}


class SessionStore:
    """The sessions of one root; used by one thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.executescript(_SCHEMA)

    def save(self, session: Session) -> None:
        """Keep *session*, in place of an older one with its id."""
        values = (
            session.id,
            session.creator_id,
            session.creator_address,
            session.expires_at,
            session.max_files,
            session.max_users,
            session.max_total_megabytes,
            session.password_digest,
            session.only_whitelisted,
            json.dumps(session.whitelist),
        )
        marks = ", ".join("?" * len(values))
        self._db.execute(f"INSERT OR REPLACE INTO sessions ({_SESSION}) VALUES ({marks})", values)

    def find(self, session_id: str) -> Session | None:
        """Return the session with this id."""
        row = self._db.execute(f"SELECT {_SESSION} FROM sessions WHERE id = ?", (session_id,)).fetchone()
        return None if row is None else _session(row)

    def all(self) -> Iterator[Session]:
        """Yield every session."""
        return map(_session, self._db.execute(f"SELECT {_SESSION} FROM sessions").fetchall())

    def remove(self, session_id: str) -> None:
        """Remove a session and its users."""
        self._db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
        self._db.execute("DELETE FROM users WHERE session_id = ?", (session_id,))

    def add_user(self, user: User) -> User:
        """Let *user* into the session; return the user with a seat."""
        cursor = self._db.execute(
            f"INSERT INTO users ({_USER}) VALUES (?, ?, ?, ?, ?)",
            (user.id, user.session_id, user.role, user.name, user.address),
        )
        return replace(user, seat=cursor.lastrowid or 0)

    def remove_user(self, user: User) -> None:
        """Let *user* out."""
        self._db.execute("DELETE FROM users WHERE id = ?", (user.id,))

    def users(self, session_id: str) -> list[User]:
        """Return who is in a session, in the order they came."""
        rows = self._db.execute(
            f"SELECT {_USER}, number FROM users WHERE session_id = ? ORDER BY number", (session_id,)
        )
        return [User(*row) for row in rows]


def _session(row: tuple[object, ...]) -> Session:
    names = _SESSION.split(", ")
    values = dict(zip(names, row, strict=True))
    values["only_whitelisted"] = bool(values["only_whitelisted"])
    values["whitelist"] = tuple(json.loads(str(values["whitelist"])))
    return Session(**values)  # type: ignore[arg-type]

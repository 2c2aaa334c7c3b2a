"""What happens in sessions, as it happens: told to the hub, with timers for what happens by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from airflow_provider_quicksync.local.session_store import Session, SessionStore, User
from airflow_provider_quicksync.local.store import Store, Upload

#: Listens to everything: session id, event, data.
Listener = Callable[[str, str, dict[str, Any]], None]


class Events:
    """Tells the listener; used on the server's event loop."""

    def __init__(self, store: Store, sessions: SessionStore) -> None:
        self._store = store
        self._sessions = sessions
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self.listener: Listener = lambda session_id, event, data: None

    def start(self) -> None:
        """Set the timers of what was under way when the server stopped."""
        self._loop = asyncio.get_running_loop()
        for session in self._sessions.all():
            self.watch(session)
        for ready_at in self._store.coming_completions():
            self._at(ready_at, "files", self.announce_completed)

    def stop(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._loop = None

    def file(self, event: str, upload: Upload) -> None:
        """Tell of a file."""
        self.listener(upload.session_id, event, upload.as_json())

    def user(self, event: str, user: User) -> None:
        """Tell of a user."""
        self.listener(user.session_id, event, dict(user.as_json()))

    def stored(self, ready_at: float) -> None:
        """Tell of the files that are completed, now and at *ready_at*."""
        if ready_at > time.time():
            self._at(ready_at, "files", self.announce_completed)
        self.announce_completed()

    def announce_completed(self) -> None:
        """Tell of each file that turned ``completed``, once."""
        for upload in self._store.take_completed(time.time()):
            self.file("FileComplete", upload)

    def watch(self, session: Session) -> None:
        """Tell when *session* expires."""
        if session.expires_at > time.time():
            self._at(session.expires_at, session.id, lambda: self.session_expired(session.id))

    def session_expired(self, session_id: str) -> None:
        """Tell that a session expired."""
        self._forget_timer(session_id)
        self.listener(session_id, "SessionExpired", {})

    def session_destroyed(self, session_id: str) -> None:
        """Tell that a session was deleted."""
        self._forget_timer(session_id)
        self.listener(session_id, "SessionDestroyed", {})

    def _forget_timer(self, session_id: str) -> None:
        timer = self._timers.pop(("at", session_id), None)
        if timer is not None:
            timer.cancel()

    def _at(self, moment: float, subject: str, act: Callable[[], None]) -> None:
        if self._loop is None:
            return
        name = (moment, subject) if subject == "files" else ("at", subject)

        def fire() -> None:
            self._timers.pop(name, None)
            act()

        older = self._timers.pop(name, None)
        if older is not None:
            older.cancel()
        self._timers[name] = self._loop.call_later(max(0.0, moment - time.time()), fire)

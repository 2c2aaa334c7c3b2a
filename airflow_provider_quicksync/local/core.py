"""What the doors of one server share: settings, stores, faults, log, events, and who may come in."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_quicksync.local.events import Events
from airflow_provider_quicksync.local.faults import FaultBook
from airflow_provider_quicksync.local.journal import Journal
from airflow_provider_quicksync.local.problems import Problem, unauthorized
from airflow_provider_quicksync.local.session_store import HOST, Session, SessionStore, User
from airflow_provider_quicksync.local.settings import Settings
from airflow_provider_quicksync.local.store import Store
from airflow_provider_quicksync.local.tokens import SESSION_TOKEN, Refused, Signer
from airflow_provider_quicksync.local.wallets import WalletProofs


@dataclass(frozen=True)
class Visitor:
    """Who a session's bearer is, and the session it opens."""

    session: Session
    user: User


class Core:
    """The state of one running server."""

    def __init__(self, settings: Settings, store: Store, faults: FaultBook, journal: Journal) -> None:
        self.settings = settings
        self.store = store
        self.faults = faults
        self.journal = journal
        self.sessions = SessionStore(store.database)
        self.events = Events(store, self.sessions)
        self.wallets = WalletProofs()
        self.signer = Signer(self._kept("secret", secrets.token_hex(32)))
        self._remove_ended_sessions()
        self.session_id = settings.session_id or self._kept("session_id", secrets.token_hex(12))
        self.creator_id = settings.creator_id or self._kept("creator_id", secrets.token_hex(8))
        self._open_own_session()
        self.token = self._own_token()

    # -- the server's own session --------------------------------------------------------------

    def _kept(self, name: str, value: str) -> str:
        """Return the fact *name*, which is *value* if there was none."""
        known = self.store.fact(name)
        if known is None:
            self.store.note(name, value)
        return value if known is None else known

    def _open_own_session(self) -> None:
        """Go on with the root's session; one that ended gets a new life, and a new token, under its id."""
        known = self.sessions.find(self.session_id)
        is_same = self.store.fact("session_id") == self.session_id
        if known is None or known.creator_id != self.creator_id or known.expires_at <= time.time():
            self.sessions.remove(self.session_id)
            self.sessions.save(
                Session(
                    id=self.session_id,
                    creator_id=self.creator_id,
                    creator_address=None,
                    expires_at=time.time() + self.settings.session_seconds,
                    max_files=None,
                    max_users=None,
                    max_total_megabytes=None,
                )
            )
            self.sessions.add_user(User(self.creator_id, self.session_id, HOST, "local", None))
            is_same = False
        if not is_same:
            self.store.forget("session_token")
        self.store.note("session_id", self.session_id)
        self.store.note("creator_id", self.creator_id)

    def _own_token(self) -> str:
        """Return the token that was named, now or in an earlier run, else the session's own."""
        if self.settings.token is not None:
            self.store.note("named_token", self.settings.token)
        visitor = self._visitor(self.session_id, self.creator_id)
        made = self.session_token(visitor.session, visitor.user)
        return self.store.fact("named_token") or self._kept("session_token", made)

    def _remove_ended_sessions(self) -> None:
        """Remove what sessions of earlier runs left, except the server's own."""
        own = self.settings.session_id or self.store.fact("session_id")
        for session in self.sessions.all():
            if session.expires_at <= time.time() and session.id != own:
                self.remove_session(session)

    # -- sessions ------------------------------------------------------------------------------

    def find_session(self, session_id: str) -> Session | None:
        """Return a session; the rules of the server's own are those of its settings now."""
        session = self.sessions.find(session_id)
        if session is None or session_id != self.session_id:
            return session
        return replace(
            session,
            max_files=self.settings.max_files,
            max_users=self.settings.max_users,
            max_total_megabytes=self.settings.max_total_megabytes,
        )

    def session_token(self, session: Session, user: User) -> str:
        """Return a bearer for a user of *session*, which expires with it or earlier."""
        expires_at = session.expires_at
        if self.settings.token_seconds is not None:
            expires_at = min(expires_at, time.time() + self.settings.token_seconds)
        claims: dict[str, str | int] = {"sid": session.id, "role": user.role, "seat": user.seat}
        return self.signer.token(SESSION_TOKEN, user.id, expires_at, claims)

    def expire_session(self, session_id: str | None = None) -> None:
        """Let a session end now, the server's own if none is named."""
        session = self.sessions.find(session_id or self.session_id)
        if session is None:
            raise Problem(404, "There is no such session.")
        self.sessions.save(replace(session, expires_at=time.time()))
        self.events.session_expired(session.id)

    def remove_session(self, session: Session) -> None:
        """Remove a session with its users and files."""
        for upload in list(self.store.of_session(session.id)):
            self.store.remove(upload.file_key)
        self.sessions.remove(session.id)

    # -- who may come in -----------------------------------------------------------------------

    def is_own_token(self, token: str) -> bool:
        """Whether *token* is the server's own bearer, expired or not."""
        return hmac.compare_digest(token.encode(errors="surrogateescape"), self.token.encode())

    def admit(self, token: str, *, gone_status: int = 401) -> Visitor:
        """Return whom *token* lets into which session; raise a 401 else, *gone_status* if it was deleted."""
        if self.is_own_token(token):
            return self._visitor(self.session_id, self.creator_id, gone_status)
        try:
            claims = self.signer.claims(SESSION_TOKEN, token)
        except Refused as error:
            raise unauthorized(str(error)) from error
        visitor = self._visitor(claims["sid"], claims["sub"], gone_status)
        if visitor.user.seat != claims["seat"]:
            raise unauthorized("The token is of an earlier stay")
        return visitor

    def _visitor(self, session_id: str, user_id: str, gone_status: int = 401) -> Visitor:
        session = self.find_session(session_id)
        if session is None:
            raise unauthorized("The session ended") if gone_status == 401 else Problem(404, "No session.")
        if session.expires_at <= time.time():
            raise unauthorized("The token expired")
        user = next((user for user in self.sessions.users(session_id) if user.id == user_id), None)
        if user is None:
            raise unauthorized("The user left the session")
        return Visitor(session, user)

    def overview(self) -> list[dict[str, Any]]:
        """Return the sessions and who is in them."""
        return [
            {
                "id": session.id,
                "expires_at": session.expires_at,
                "users": [user.as_json() for user in self.sessions.users(session.id)],
            }
            for session in self.sessions.all()
        ]

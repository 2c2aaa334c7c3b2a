"""What the doors of one server share: settings, store, faults, log, and who may come in."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any

from airflow_provider_quicksync.local.faults import FaultBook
from airflow_provider_quicksync.local.journal import Journal
from airflow_provider_quicksync.local.problems import unauthorized
from airflow_provider_quicksync.local.settings import Settings
from airflow_provider_quicksync.local.store import Store, Upload
from airflow_provider_quicksync.local.tokens import Signer


@dataclass(frozen=True)
class Session:
    """The context of files: who made it, and until when it lives."""

    id: str
    creator_id: str
    expires_at: float


class Core:
    """The state of one running server."""

    def __init__(self, settings: Settings, store: Store, faults: FaultBook, journal: Journal) -> None:
        self.settings = settings
        self.store = store
        self.faults = faults
        self.journal = journal
        self.signer = Signer(self._kept("secret", secrets.token_hex(32)))
        self.session = self._opened_session()
        self.token = self._opened_token()

    # -- the server's own session --------------------------------------------------------------

    def _kept(self, name: str, value: str) -> str:
        """Return the fact *name*, which is *value* if there was none."""
        known = self.store.fact(name)
        if known is None:
            self.store.note(name, value)
        return value if known is None else known

    def _opened_session(self) -> Session:
        """Return the root's session; one that expired gets a new life under its old id."""
        named = {"session_id": self.settings.session_id, "creator_id": self.settings.creator_id}
        is_other = any(value not in (None, self.store.fact(name)) for name, value in named.items())
        for name, value in named.items():
            if value is not None:
                self.store.note(name, value)
        expires_at = float(self.store.fact("expires_at") or 0)
        if is_other or expires_at <= time.time():
            expires_at = time.time() + self.settings.session_seconds
            self.store.note("expires_at", repr(expires_at))
            self.store.forget("session_token")
        session_id = self._kept("session_id", secrets.token_hex(12))
        return Session(session_id, self._kept("creator_id", secrets.token_hex(8)), expires_at)

    def _opened_token(self) -> str:
        """Return the token that was named, now or in an earlier run, else the session's own."""
        if self.settings.token is not None:
            self.store.note("named_token", self.settings.token)
        named, session = self.store.fact("named_token"), self.session
        made = self.signer.session_token(session.id, session.creator_id, session.expires_at)
        return named or self._kept("session_token", made)

    def expire_session(self) -> None:
        """Let the session end now."""
        self.session = Session(self.session.id, self.session.creator_id, time.time())
        self.store.note("expires_at", repr(self.session.expires_at))

    # -- who may come in -----------------------------------------------------------------------

    def is_own_token(self, token: str) -> bool:
        """Whether *token* is the server's own bearer, expired or not."""
        sent = token.encode(errors="surrogateescape")
        return hmac.compare_digest(sent, self.token.encode())

    def session_of(self, token: str) -> Session:
        """Return the session that *token* opens; raise a 401 else."""
        if not self.is_own_token(token):
            raise unauthorized("The signature key was not found")
        if self.session.expires_at <= time.time():
            raise unauthorized("The token expired")
        return self.session

    # -- what is told about files --------------------------------------------------------------

    def describe(self, upload: Upload) -> dict[str, Any]:
        """Return *upload* as the API's UploadInfoDto."""
        return {
            "creatorId": upload.creator_id,
            "completed": upload.is_completed(time.time()),
            "fileKey": upload.file_key,
            "fileName": upload.file_name,
            "totalParts": upload.total_parts,
            "originalSizeInBytes": upload.size_bytes,
        }

"""
Where a bearer comes from: a session token that was handed over, a session that a wallet joins, or one that
it creates.

What a wallet gets is renewed before it expires, and once when the service refuses it: by one thread, while
the others wait. How long a bearer lives is counted from when it was asked for, so that a wrong clock here
does no harm; where that can't be told, the service's refusal tells.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .errors import NotFoundError, QuickSyncError, SessionExpiredError, UsageError, is_hopeless

if TYPE_CHECKING:
    from .models import Admission
    from .session_api import SessionApi, SessionRules

log = logging.getLogger(__name__)

MARGIN_SECONDS = 60.0
"""A bearer is renewed this long before it expires, but not before three quarters of its life."""
PAUSE_SECONDS = 5.0
"""How long a renewal that was too early to be needed is left alone after it has failed."""


class Credentials(ABC):
    """What a client asks for its bearer before each request."""

    session_id: str | None = None
    """The session it is for, where that is known."""
    expires_at: float | None = None
    """When it ends for good (Unix seconds), where that is known."""
    next_step: str | None = None
    """What to do about a refused bearer, where the usual advice is wrong."""

    @abstractmethod
    def bearer(self) -> str:
        """The bearer to send."""

    def renew(self, refused: str) -> str | None:
        """Another bearer in place of one that was refused; None where there can be no other."""
        return None

    def interrupt(self) -> None:  # noqa: B027 - most send nothing
        """Let what it is sending fail at once."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close what it opened."""


class SessionToken(Credentials):
    """A session token that was handed over, as it is."""

    def __init__(self, token: str) -> None:
        if not token or not token.strip():
            raise UsageError("no session token: put it into the password of the QuickSync connection")
        token = token.strip()
        if set(token) == {"*"}:
            raise UsageError(
                "the session token is a mask (***), not a token: enter it again in the connection"
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise UsageError("the session token has characters that no token has: copy it again")
        self._token = token
        self.expires_at = expires_at(token)

    def bearer(self) -> str:
        """The token."""
        return self._token

    def __repr__(self) -> str:
        return "SessionToken(***)"


class Grant(NamedTuple):
    """A bearer, and for how many seconds it was given."""

    token: str
    life_seconds: float | None


class RenewedBearer(Credentials):
    """
    A bearer that is got when it is first needed, and again when it is due. Safe in several threads.

    :param obtain: gets one.
    """

    def __init__(self, obtain: Callable[[], Grant]) -> None:
        self._obtain = obtain
        self._lock = threading.Lock()
        self._token: str | None = None
        self._due_at = math.inf
        self._ended: QuickSyncError | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(session_id={self.session_id!r})"

    def bearer(self) -> str:
        """The bearer there is; where it is due, one thread gets another, and the others go on with it."""
        token = self._token
        if token is not None and time.monotonic() < self._due_at:
            return token
        if not self._lock.acquire(blocking=token is None):
            return str(token)
        try:
            if self._token is None:
                return self._new_token()
            if time.monotonic() < self._due_at:
                return self._token
            try:
                return self._new_token()
            except QuickSyncError as error:
                log.warning("%s; going on with the bearer there is", error)
                self._due_at = time.monotonic() + PAUSE_SECONDS
                return self._token
        finally:
            self._lock.release()

    def renew(self, refused: str) -> str:
        """Another bearer, unless a thread was faster."""
        with self._lock:
            return self._new_token() if self._token in (refused, None) else str(self._token)

    def _new_token(self) -> str:
        if self._ended:
            raise self._ended
        asked_at = time.monotonic()
        try:
            token, life = self._obtain()
        except QuickSyncError as error:
            error.maybe_done = False  # the call that needed the bearer was not made
            self._ended = error if is_hopeless(error) else None
            raise
        self._token = token
        self._due_at = asked_at + life - min(MARGIN_SECONDS, life / 4) if life else math.inf
        return token


class JoinedSession(RenewedBearer):
    """
    A session that a wallet joins, and joins again for another bearer.

    :param api: what the wallet asks.
    :param session_id: the session.
    :param password: the session's, where it has one.
    :param on_token: told every bearer, so that logs can mask it.
    """

    def __init__(
        self,
        api: SessionApi,
        session_id: str | None,
        password: str | None = None,
        *,
        on_token: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(self._enter)
        self.session_id = session_id
        self._api, self._password, self._on_token = api, password, on_token
        self.admission: Admission | None = None
        self.next_step = (
            "check that the session lives long enough, the API key, and what wallet"
            f" {api.address} may do in the session"
        )

    @property
    def address(self) -> str:
        """The wallet's address."""
        return self._api.address

    def enter(self) -> Admission:
        """Get in, if that wasn't done yet."""
        self.bearer()
        assert self.admission is not None
        return self.admission

    def interrupt(self) -> None:
        """Let what the wallet asks fail at once."""
        self._api.interrupt()

    def close(self) -> None:
        """Close the connections of what the wallet asks."""
        self._api.close()

    def _enter(self) -> Grant:
        self.admission = admission = self._admitted()
        self.session_id = admission.session_id
        if self._on_token:
            self._on_token(admission.token)
        return Grant(admission.token, life_seconds(admission.token, admission.expires_in))

    def _admitted(self) -> Admission:
        try:
            return self._api.join_session(self.session_id or "", self._password)
        except NotFoundError as error:
            if self.admission is None:
                raise
            raise SessionExpiredError(
                f"session {self.session_id} has ended while it was in use, and its files with it; use a"
                " session with a longer life",
                status=error.status,
                trace_id=error.trace_id,
            ) from error


class SessionMemory(Protocol):
    """Where the id of a created session is kept for a next attempt."""

    @property
    def session_id(self) -> str | None:
        """The session that an earlier attempt was in."""

    def entered(self, session_id: str | None) -> None:
        """A session was created, or found again; None: it is of no use any more."""


class CreatedSession(JoinedSession):
    """
    A session that a wallet creates when it is first needed; from then on as :class:`JoinedSession`.

    It ends when its life does: what is in it is wanted longer than the client that made it lives.

    :param api: what the wallet asks.
    :param rules: of the session; its password too.
    :param name: what the session's host is called.
    :param memory: a session kept there is joined instead, where it hasn't ended.
    """

    def __init__(
        self,
        api: SessionApi,
        rules: SessionRules,
        name: str | None = None,
        *,
        memory: SessionMemory | None = None,
        on_token: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(api, None, rules.password, on_token=on_token)
        self._rules, self._name, self.memory = rules, name, memory

    def _admitted(self) -> Admission:
        if self.admission is not None:
            return super()._admitted()
        admission = self._found_again() or self._api.create_session(self._rules, self._name)
        if self.memory:
            self.memory.entered(admission.session_id)
        return admission

    def _found_again(self) -> Admission | None:
        """The session of an earlier attempt, joined; None where there is none, or it has ended."""
        session_id = self.memory.session_id if self.memory else None
        if not session_id:
            return None
        try:
            admission = self._api.join_session(session_id, self._password)
        except NotFoundError:
            return None
        log.info("found session %s of an earlier attempt again", session_id)
        return admission


def expires_at(token: str) -> float | None:
    """When a JWT expires (its ``exp``, Unix seconds), read without verifying it; None if it doesn't say."""
    return _number(_claims(token).get("exp"))


def life_seconds(token: str, expires_in: float | None = None) -> float | None:
    """
    How long a bearer that was just given lives: the shorter of what the service and the JWT say.

    The JWT's own times are compared with each other, where it has both. What isn't above zero isn't
    believed: clocks differ, and a bearer that was given must be good for something.
    """
    claims = _claims(token)
    expiry, issued_at = _number(claims.get("exp")), _number(claims.get("iat"))
    said = [] if expires_in is None else [expires_in]
    if expiry is not None:
        said.append(expiry - (time.time() if issued_at is None else issued_at))
    return min((life for life in said if life > 0), default=None)


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _number(value: Any) -> float | None:
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None

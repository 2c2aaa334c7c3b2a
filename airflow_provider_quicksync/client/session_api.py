"""
The Wallet and Session APIs: what a wallet asks to get into a session, and what who is in one can ask.

A wallet proves itself by signing a nonce, and gets a short-lived bearer with which it creates and joins
sessions. There is no call that lists sessions or extends one, and none to remove a user.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from .checks import check_secret, check_text
from .credentials import Grant, RenewedBearer, life_seconds
from .errors import DamagedError, NotFoundError, QuickSyncError, RefusedError, UsageError
from .http import HttpOptions, Transport
from .models import Admission, SessionInfo
from .retry import RetryPolicy
from .wallet import Wallet, check_address

log = logging.getLogger(__name__)

CHAIN = "Ethereum"
DEFAULT_EXPIRY_SECONDS = 24 * 60 * 60
"""A created session always has an end, so that one which nobody knows of doesn't stay."""


@dataclass(frozen=True)
class SessionRules:
    """
    The rules of a session that is to be created.

    :param expiry_seconds: how long it lives.
    :param capacity: how many users it takes; None leaves it to the service.
    :param password: what others need to join it.
    :param whitelist: the addresses of the wallets that may join; none means that all may.
    :raises UsageError: one of them can't be.
    """

    expiry_seconds: int = DEFAULT_EXPIRY_SECONDS
    capacity: int | None = None
    password: str | None = field(default=None, repr=False)
    whitelist: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("expiry_seconds", "capacity"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not is_count and not (name == "capacity" and value is None):
                raise UsageError(f"the session's {name} must be a whole number above 0, not {value!r}")
        for address in self.whitelist:
            check_address("the session's whitelist", address)

    def as_json(self) -> dict[str, Any]:
        """The rules as ``POST /session`` takes them."""
        return {
            "userCapacity": self.capacity,
            "expiryDurationInSeconds": self.expiry_seconds,
            "password": self.password,
            "allowOnlyWhitelistedAddresses": bool(self.whitelist),
            "whiteListAddresses": list(self.whitelist),
        }


class SessionApi:
    """
    What a wallet may ask. Safe in several threads; close it, or use it as a context manager.

    :param private_key: the wallet's.
    :param retry: when a call is tried again.
    :raises UsageError: the private key is none, or the extra ``[wallet]`` is missing.
    """

    def __init__(
        self,
        private_key: str,
        *,
        base_url: str,
        api_key: str | None = None,
        http: HttpOptions | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._wallet = Wallet(private_key)
        self._retry = retry or RetryPolicy()
        self._anyone = Transport(base_url, None, api_key, http)
        self._as_wallet = Transport(base_url, RenewedBearer(self._prove), api_key, http)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._as_wallet.base_url!r}, {self._wallet!r})"

    def __enter__(self) -> SessionApi:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """Let every request on the way fail at once; safe in a signal handler."""
        self._anyone.interrupt()
        self._as_wallet.interrupt()

    def close(self) -> None:
        """Close the connections."""
        self._anyone.close()
        self._as_wallet.close()

    @property
    def address(self) -> str:
        """The wallet's address."""
        return self._wallet.address

    def prove_wallet(self) -> None:
        """Prove the wallet, without going into a session. :raises QuickSyncError: it isn't accepted."""
        self._retry.run(self._as_wallet.bearer)

    def create_session(self, rules: SessionRules, name: str | None = None) -> Admission:
        """
        Create a session (``POST /session``), with the wallet as its host.

        A session whose creation wasn't answered can't be found again, since only the answer tells its id: it
        stays, empty, until its life is over, and the log says so. One whose id came without a token is
        joined.

        :param name: what the host is called.
        """
        what = f"create a session as wallet {self.address}"
        identity = {"name": name, "chainAddress": self.address}
        body = {"identity": identity, "rules": rules.as_json()}
        next_steps: dict[int, str] = {
            HTTPStatus.UNAUTHORIZED: "check the API key, and that the account may create sessions",
            HTTPStatus.UNPROCESSABLE_ENTITY: "check the rules that the session was to have",
        }

        def attempt() -> Admission:
            try:
                answer = self._call("POST", "/session", what, body, rules.password, next_steps)
                return self._admitted(answer, what, rules.password)
            except QuickSyncError as error:
                if error.maybe_done or isinstance(error, DamagedError):
                    log.warning(
                        "the answer to the creation of a session was lost: one that nobody can find may stay,"
                        " empty, until it expires after %d s",
                        rules.expiry_seconds,
                    )
                raise

        return self._retry.run(attempt)

    def join_session(self, session_id: str, password: str | None = None) -> Admission:
        """
        Join a session (``POST /session/join``); a wallet that is in it gets another token.

        :raises NotFoundError: it is unknown, or has ended.
        :raises RefusedError: the password is wrong, or the whitelist doesn't have the wallet.
        :raises LimitError: it is full.
        """
        check_text("session id", session_id)
        what = f"join session {session_id} as wallet {self.address}"
        body = {"sessionId": session_id, "password": password}
        next_steps: dict[int, str] = {
            HTTPStatus.UNAUTHORIZED: "check the session's password, and that its whitelist has the wallet",
            HTTPStatus.FORBIDDEN: "check that the session's whitelist has the wallet",
            HTTPStatus.NOT_FOUND: "check the session id, and that the session lives",
            HTTPStatus.UNPROCESSABLE_ENTITY: "check that the session has room for another user",
        }

        def attempt() -> Admission:
            answer = self._call("POST", "/session/join", what, body, password, next_steps)
            return Admission.from_json(answer, where=what)

        return self._retry.run(attempt)

    def _admitted(self, answer: Any, what: str, password: str | None) -> Admission:
        """The admission to a session that was created; joined, where the answer tells no more than its id."""
        try:
            return Admission.from_json(answer, where=what)
        except DamagedError:
            session_id = answer.get("sessionId") if isinstance(answer, dict) else None
            if not session_id or not isinstance(session_id, str):
                raise
        return self.join_session(session_id, password)

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        body: Mapping[str, Any],
        password: str | None,
        next_steps: Mapping[int, str],
    ) -> Any:
        secrets = [password] if password else []
        return self._as_wallet.call(
            method, path, what=what, json_body=body, secrets=secrets, next_steps=next_steps
        )

    def _prove(self) -> Grant:
        """A wallet bearer, for the signature of a fresh nonce."""
        what = f"prove wallet {self.address}"
        answer = self._anyone.call("GET", "/wallet-proof/nonce", what=what)
        message = _text(answer, "message", what)
        signature = self._wallet.sign(message)
        answer = self._anyone.call(
            "POST",
            f"/wallet-proof/verify?chain={CHAIN}",
            what=what,
            json_body={"walletAddress": self.address, "message": message, "signature": signature},
            secrets=[signature],
            next_steps=dict.fromkeys(
                (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED), "check wallet_private_key"
            ),
        )
        token = _text(answer, "token", what)
        check_secret("the wallet's bearer", token)
        return Grant(token, life_seconds(token))


class SessionCalls:
    """What who is in a session can ask: the part of :class:`.api.QuickSyncClient` that is about sessions."""

    _transport: Transport
    retry: RetryPolicy
    known_session_id: str | None

    def current_session(self) -> SessionInfo:
        """
        The bearer's session and its rules (``GET /session/current``).

        :raises NotFoundError: the service tells none.
        :raises UsageError: it is another than the one that is asked for.
        """
        what = "look up the session"
        answer = self.retry.run(lambda: self._transport.call("GET", "/session/current", what=what))
        session = SessionInfo.from_json(answer, where=what)
        known = self.known_session_id
        if known and session.session_id and known != session.session_id:
            raise UsageError(
                f"the token is of session {session.session_id}, not of session {known}: use a token of that"
                " one, name no session, or give the connection a wallet to join it with"
            )
        self.known_session_id = known or session.session_id
        return session

    def disconnect_session(self) -> None:
        """
        Leave the session (``POST /session/disconnect``).

        On a QuickSync that takes a wallet for one user, every bearer of that wallet is out.
        """
        what = "leave the session"
        self._end(lambda: self._transport.call("POST", "/session/disconnect", what=what))

    def delete_session(self) -> None:
        """
        End the session for all, with its files (``DELETE /session/current``); for its host only.

        :raises NotFoundError: it has ended already.
        """
        what = f"delete session {self.known_session_id or '(of the token)'}"
        next_steps: dict[int, str] = {
            HTTPStatus.FORBIDDEN: "only its host can delete it: the wallet that created it"
        }
        self._end(
            lambda: self._transport.call("DELETE", "/session/current", what=what, next_steps=next_steps)
        )

    def _end(self, call: Callable[[], Any]) -> None:
        """Make a call after which the bearer is good for nothing, so that a repetition may be refused."""
        lost = False

        def attempt() -> None:
            try:
                call()
            except (NotFoundError, RefusedError) as error:
                if not lost or error.status == HTTPStatus.FORBIDDEN:
                    raise

        def before_retry(error: QuickSyncError) -> None:
            nonlocal lost
            lost = lost or error.maybe_done

        self.retry.run(attempt, before_retry=before_retry)


def _text(answer: Any, name: str, what: str) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str) or not value:
        raise DamagedError(f"{what}: the service answered without {name}, which the next step needs")
    return value

"""What the server signs: bearers (JWT, HS256) and temporary download links (HMAC-SHA-256)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

import jwt

#: The kinds of bearers; one is never taken for the other.
SESSION_TOKEN = "session"
WALLET_TOKEN = "wallet"

_ALGORITHM = "HS256"


class Refused(Exception):
    """A token, a link or a proof that does not open anything; the message says why."""


class Signer:
    """Signs and checks with one secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def token(
        self, kind: str, subject: str, expires_at: float, claims: Mapping[str, str | int] | None = None
    ) -> str:
        """Return a bearer of *kind* for *subject*."""
        now = int(time.time())
        common = {"kind": kind, "sub": subject, "iat": now, "exp": int(expires_at)}
        return jwt.encode(
            {**(claims or {}), **common, "jti": secrets.token_hex(8)}, self._secret, algorithm=_ALGORITHM
        )

    def claims(self, kind: str, token: str) -> dict[str, Any]:
        """Return the claims of a bearer of *kind*; :raises Refused: with the reason."""
        try:
            options: Any = {"require": ["kind", "sub", "exp"]}
            claims: dict[str, Any] = jwt.decode(token, self._secret, algorithms=[_ALGORITHM], options=options)
        except jwt.ExpiredSignatureError as error:
            raise Refused("The token expired") from error
        except (jwt.InvalidTokenError, UnicodeEncodeError) as error:
            raise Refused("The token is not valid") from error
        if claims["kind"] != kind:
            raise Refused(f"A {kind} token is needed here")
        return claims

    def digest(self, text: str) -> str:
        """Return what is kept of a password."""
        return hmac.new(self._secret, f"password\n{text}".encode(), hashlib.sha256).hexdigest()

    def link_query(self, file_key: str, expires: int) -> dict[str, str]:
        """Return the query of a link to *file_key*."""
        return {"expires": str(expires), "signature": self._link_signature(file_key, str(expires))}

    def check_link(self, file_key: str, expires: str, signature: str) -> None:
        """Accept a link, or :raises Refused: with the reason."""
        expected = self._link_signature(file_key, expires)
        if not expires.isdecimal() or not hmac.compare_digest(signature.encode(), expected.encode()):
            raise Refused("The request signature does not match")
        if int(expires) <= time.time():
            raise Refused("Request has expired")

    def _link_signature(self, file_key: str, expires: str) -> str:
        message = f"link\n{expires}\n{file_key}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

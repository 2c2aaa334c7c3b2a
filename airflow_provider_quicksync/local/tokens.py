"""What the server signs: session tokens (JWT, HS256) and temporary download links (HMAC-SHA-256)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Any

import jwt

_ALGORITHM = "HS256"


class Refused(Exception):
    """A token or a link that does not open anything; the message says why."""


class Signer:
    """Signs and checks with one secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def session_token(self, session_id: str, user_id: str, expires_at: float, role: str = "host") -> str:
        """Return a bearer for *user_id* in a session."""
        claims = {
            "sid": session_id,
            "sub": user_id,
            "role": role,
            "jti": secrets.token_hex(8),
            "iat": int(time.time()),
            "exp": int(expires_at),
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def session_claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a session token; :raises Refused: with the reason."""
        try:
            options: Any = {"require": ["sid", "sub", "role", "exp"]}
            return jwt.decode(token, self._secret, algorithms=[_ALGORITHM], options=options)
        except jwt.ExpiredSignatureError as error:
            raise Refused("The token expired") from error
        except jwt.InvalidTokenError as error:
            raise Refused("The token is not valid") from error

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

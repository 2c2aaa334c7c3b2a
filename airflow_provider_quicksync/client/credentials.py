"""Where a bearer comes from."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Protocol

from .errors import UsageError


class Credentials(Protocol):
    """What a client asks for its bearer before each request."""

    def bearer(self) -> str:
        """The session token to send."""


class SessionToken:
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

    def bearer(self) -> str:
        """The token."""
        return self._token

    def __repr__(self) -> str:
        return "SessionToken(***)"


def expires_at(token: str) -> float | None:
    """When a JWT expires (its ``exp``, Unix seconds), read without verifying it; None if it doesn't say."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None

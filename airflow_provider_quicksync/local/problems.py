"""Errors as ASP.NET answers them: ProblemDetails (RFC 9457) with a trace id."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

PROBLEM_TYPE = "application/problem+json"

_RFC_9110 = "https://tools.ietf.org/html/rfc9110#section-"
_TYPES = {
    400: _RFC_9110 + "15.5.1",
    401: _RFC_9110 + "15.5.2",
    403: _RFC_9110 + "15.5.4",
    404: _RFC_9110 + "15.5.5",
    405: _RFC_9110 + "15.5.6",
    409: _RFC_9110 + "15.5.10",
    413: _RFC_9110 + "15.5.14",
    415: _RFC_9110 + "15.5.16",
    422: "https://tools.ietf.org/html/rfc4918#section-11.2",
    429: "https://tools.ietf.org/html/rfc6585#section-4",
    500: _RFC_9110 + "15.6.1",
    502: _RFC_9110 + "15.6.3",
    503: _RFC_9110 + "15.6.4",
    504: _RFC_9110 + "15.6.5",
}


class Problem(Exception):
    """Raised by a handler to be answered as ProblemDetails."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Mapping[str, list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the document, with a fresh trace id."""
        document: dict[str, Any] = {
            "type": _TYPES.get(self.status, "about:blank"),
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
            "traceId": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00",
        }
        if self.errors:
            document["errors"] = dict(self.errors)
        return document


def invalid(field: str, message: str, status: int = 400) -> Problem:
    """Return the problem of one field that cannot be used."""
    return Problem(status, message, errors={field: [message]})


def unauthorized(reason: str | None = None) -> Problem:
    """Return a 401 with the challenge that JWT bearer authentication sends."""
    challenge = "Bearer"
    if reason:
        challenge += f' error="invalid_token", error_description="{reason}"'
    detail = reason or "A bearer token is required."
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"

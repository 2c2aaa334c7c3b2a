"""
What went wrong on the wire, as an error of ours: answers that are not 200, and no answers at all.

Messages are made here from the service's words (ASP.NET's ProblemDetails), on one line, without secrets.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import requests
from requests import exceptions
from urllib3.exceptions import NewConnectionError

from .credentials import expires_at
from .errors import (
    NEXT_STEP,
    DeadlineError,
    QuickSyncError,
    SessionExpiredError,
    UnreachableError,
    UntrustedError,
    UsageError,
    error_class_for,
)

_TEXT_CHARS = 400
_NOT_DONE = {408, 425, 429}
"""Statuses that say the request was not acted on; other retryable ones leave it open."""


def refusal(
    response: requests.Response,
    answer: bytes,
    what: str,
    secrets: list[str],
    *,
    link: bool = False,
    next_steps: Mapping[int, str] | None = None,
) -> QuickSyncError:
    """
    The error for an answer that isn't 200.

    :param what: the request in words, the start of the message.
    :param secrets: what must not be shown should the service repeat it; the first one is the bearer, unless
        a link was opened.
    :param next_steps: by status, what to do where the usual advice is wrong.
    """
    status = response.status_code
    kind = error_class_for(status)
    if not link and status == HTTPStatus.UNAUTHORIZED and _has_expired(secrets[0], response):
        kind = SessionExpiredError
    title, detail, trace_id = _problem(answer, response)
    said = redact(": ".join(text for text in (title, detail) if text), secrets)
    trace_id = trace_id and redact(trace_id, secrets)
    message = f"{what}: {status} {said or _phrase(status)} from {response.url}"
    if trace_id:
        message += f" (trace {trace_id})"
    next_step = (next_steps or {}).get(status) or NEXT_STEP.get(kind)
    if not link and next_step:
        message += f"; {next_step}"
    return kind(
        message,
        status=status,
        trace_id=trace_id,
        retry_after=retry_after_seconds(response.headers.get("Retry-After")),
        maybe_done=kind.retryable and status not in _NOT_DONE,
    )


def no_answer(error: BaseException, what: str) -> QuickSyncError:
    """The error for a failed transport. The original's text may hold a link's query and isn't used."""
    causes = list(_chain(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return UntrustedError(f"{what}: the TLS certificate is not trusted; {NEXT_STEP[UntrustedError]}")
    if isinstance(error, ValueError):
        return UsageError(f"{what}: not a URL that can be opened")
    if isinstance(error, exceptions.ConnectTimeout):
        return DeadlineError(f"{what}: no connection in time; {NEXT_STEP[DeadlineError]}")
    if any(isinstance(cause, TimeoutError | exceptions.Timeout) for cause in causes):
        return DeadlineError(f"{what}: no answer in time; {NEXT_STEP[DeadlineError]}", maybe_done=True)
    connected = not any(isinstance(cause, NewConnectionError | exceptions.ProxyError) for cause in causes)
    reason = next((c.strerror for c in reversed(causes) if isinstance(c, OSError) and c.strerror), None)
    said = reason or ("the connection ended early" if connected else "no connection")
    return UnreachableError(f"{what}: {said}; {NEXT_STEP[UnreachableError]}", maybe_done=connected)


def redact(text: str, secrets: list[str]) -> str:
    """``text`` on one line, bounded, without tokens, keys and the queries of links."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    text = re.sub(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*", "***", text)
    text = re.sub(r"(https?://[^\s?\"'<>]*)\?[^\s\"'<>]*", r"\1?***", text)
    text = re.sub(r"\?[^\s?\"'<>]*=[^\s\"'<>]*", "?***", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + "…"


def _problem(answer: bytes, response: requests.Response) -> tuple[str, str, str | None]:
    """Title, detail and trace id of a ProblemDetails answer; its text where it is something short."""
    trace_id = response.headers.get("x-request-id") or response.headers.get("request-id")
    try:
        problem = json.loads(answer)
    except (ValueError, RecursionError):
        text = answer[: 4 * _TEXT_CHARS].decode(errors="replace")
        return ("", "" if "<" in text else text, trace_id)
    if not isinstance(problem, dict):
        return ("" if problem is None else str(problem), "", trace_id)
    details = [problem.get("detail") or ""]
    errors = problem.get("errors")
    if isinstance(errors, dict):
        details += [
            f"{field}: {'; '.join(map(str, v)) if isinstance(v, list) else v}" for field, v in errors.items()
        ]
    trace_id = problem.get("traceId") or trace_id
    return (
        str(problem.get("title") or ""),
        ", ".join(str(d) for d in details if d),
        trace_id and str(trace_id),
    )


def retry_after_seconds(value: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header: a number or an HTTP date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _has_expired(bearer: str, response: requests.Response) -> bool:
    expiry = expires_at(bearer)
    return "expired" in response.headers.get("WWW-Authenticate", "").lower() or (
        expiry is not None and expiry <= time.time()
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it wraps and what it was raised from, outermost first, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]
        waiting += [e for e in inner if isinstance(e, BaseException)]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"

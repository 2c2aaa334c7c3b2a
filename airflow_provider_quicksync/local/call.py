"""One call on its way through the server, and what lets it in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from airflow_provider_quicksync.local.core import Core, Visitor
from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.journal import Entry
from airflow_provider_quicksync.local.problems import Problem, invalid, unauthorized
from airflow_provider_quicksync.local.replies import json_reply
from airflow_provider_quicksync.local.session_store import Session, User
from airflow_provider_quicksync.local.tokens import WALLET_TOKEN, Refused

CORE: web.AppKey[Core] = web.AppKey("core", Core)


@dataclass
class Call:
    """A request, its line in the log, the fault it met, and whose bearer it carries."""

    request: web.Request
    core: Core
    entry: Entry
    fault: Fault | None = None
    visitor: Visitor | None = None
    #: The address of a wallet bearer.
    wallet: str = ""

    @property
    def session(self) -> Session:
        """The session of the bearer."""
        return self._admitted().session

    @property
    def user(self) -> User:
        """Whose bearer it is."""
        return self._admitted().user

    def _admitted(self) -> Visitor:
        if self.visitor is None:
            raise unauthorized()
        return self.visitor

    def finish(self, status: int | None, sent_bytes: int) -> None:
        """Close the line in the log."""
        self.entry.sent_bytes = sent_bytes
        self.core.journal.end(self.entry, status)

    def reply(self, value: Any) -> web.Response:
        """Answer *value* as JSON."""
        return json_reply(self.request, value, self.core.settings.content_type)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]
#: Lets a call in, or raises a 401.
Door = Callable[[Call], None]


def openly(call: Call) -> None:
    """Let every call in."""


def by_session(call: Call) -> None:
    """Let a session's bearer in."""
    call.visitor = call.core.admit(bearer(call.request))


def by_session_if_any(call: Call) -> None:
    """Let a session's bearer in; 404 where its session was deleted, as documented."""
    call.visitor = call.core.admit(bearer(call.request), gone_status=404)


def by_session_or_query(call: Call) -> None:
    """Let a session's bearer in, also from the query, where hubs have it."""
    token = call.request.query.get("access_token") or bearer(call.request)
    call.visitor = call.core.admit(token)


def by_wallet(call: Call) -> None:
    """Let a wallet's bearer in."""
    try:
        call.wallet = str(call.core.signer.claims(WALLET_TOKEN, bearer(call.request))["sub"])
    except Refused as error:
        raise unauthorized(str(error)) from error


def bearer(request: web.Request) -> str:
    """Return the bearer that *request* carries; raise a 401 without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthorized()
    return token.strip()


def require_api_key(call: Call) -> None:
    """Raise a 401 unless the request carries the API key the server wants."""
    wanted = call.core.settings.api_key
    sent = call.request.headers.get("X-API-KEY", "").encode(errors="surrogateescape")
    if wanted is not None and not secrets.compare_digest(sent, wanted.encode()):
        raise unauthorized("The X-API-KEY header is missing or wrong")


async def json_body(call: Call) -> dict[str, Any]:
    """Return the JSON object that was sent."""
    kind = call.request.content_type
    if kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        raise Problem(415, "The body must be sent as application/json.")
    raw = await call.request.read()
    call.entry.received_bytes = len(raw)
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise invalid("$", "The body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise invalid("$", "The JSON value must be an object.")
    return body

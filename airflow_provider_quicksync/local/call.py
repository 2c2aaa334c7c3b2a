"""One call on its way through the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from airflow_provider_quicksync.local.core import Core, Session
from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.journal import Entry
from airflow_provider_quicksync.local.problems import unauthorized
from airflow_provider_quicksync.local.replies import json_reply

CORE: web.AppKey[Core] = web.AppKey("core", Core)


@dataclass
class Call:
    """A request, its line in the log, the fault it met, and the session its bearer opened."""

    request: web.Request
    core: Core
    entry: Entry
    fault: Fault | None = None
    opened: Session | None = None

    @property
    def session(self) -> Session:
        """The session of the bearer."""
        if self.opened is None:
            raise unauthorized()
        return self.opened

    def finish(self, status: int | None, sent_bytes: int) -> None:
        """Close the line in the log."""
        self.entry.sent_bytes = sent_bytes
        self.core.journal.end(self.entry, status)

    def reply(self, value: Any) -> web.Response:
        """Answer *value* as JSON."""
        return json_reply(self.request, value, self.core.settings.content_type)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


def bearer(request: web.Request) -> str:
    """Return the bearer that *request* carries; raise a 401 without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthorized()
    return token.strip()

"""One server on one event loop: the routes, and its start and stop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from airflow_provider_quicksync.local import buckets, control, downloads, sessions
from airflow_provider_quicksync.local.call import CORE, Handler
from airflow_provider_quicksync.local.connection import BASE_PATH
from airflow_provider_quicksync.local.core import Core
from airflow_provider_quicksync.local.faults import FaultBook
from airflow_provider_quicksync.local.gate import gated
from airflow_provider_quicksync.local.journal import Journal
from airflow_provider_quicksync.local.problems import Problem
from airflow_provider_quicksync.local.replies import problem_reply
from airflow_provider_quicksync.local.settings import MIB, Settings
from airflow_provider_quicksync.local.store import Store

#: Bytes of a body that may wait between the socket and the disk, for each connection.
_READ_BUFFER_BYTES = MIB
#: The largest JSON body: 10,000 tags fit many times.
_MAX_JSON_BYTES = 16 * MIB
#: How long a stop waits for calls in flight.
_STOP_SECONDS = 0.2

_CALLS: list[tuple[str, str, str, Handler]] = [
    ("GET", "/buckets", "list_files", buckets.list_files),
    ("POST", "/buckets", "initiate", buckets.initiate),
    ("PUT", "/buckets", "put_part", buckets.put_part),
    ("POST", "/buckets/complete", "complete", buckets.complete),
    ("DELETE", "/buckets/{file_key}", "delete", buckets.delete),
    ("GET", "/buckets/file/{file_key}", "get_file", buckets.get_file),
    ("GET", "/buckets/download/{file_key}", "get_download_url", buckets.get_download_url),
    ("GET", "/session/current", "current_session", sessions.current_session),
]


class Server:
    """A running QuickSync; :raises StoreError: or :raises OSError: when it cannot start."""

    def __init__(
        self, root: Path, settings: Settings, faults: FaultBook | None = None, journal: Journal | None = None
    ) -> None:
        self._settings = settings
        self._store = Store(root)
        self.core = Core(
            settings, self._store, faults or FaultBook(), journal or Journal(settings.log_entries)
        )
        self._runner = web.AppRunner(
            _application(self.core),
            access_log=None,
            read_bufsize=_READ_BUFFER_BYTES,
            shutdown_timeout=_STOP_SECONDS,
            logger=logging.getLogger("quicksync.local"),
        )

    async def start(self) -> int:
        """Listen, and return the port."""
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        except BaseException:
            await self.stop()
            raise
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the socket and the store."""
        await self._runner.cleanup()
        self._store.close()


def _application(core: Core) -> web.Application:
    app = web.Application(client_max_size=_MAX_JSON_BYTES, middlewares=[_http_errors])
    app[CORE] = core
    for method, path, call, handler in _CALLS:
        app.router.add_route(method, BASE_PATH + path, gated(call, handler))
    app.router.add_get(buckets.LINK_PATH + "{file_key}", gated("download", downloads.download))
    app.add_routes(control.routes())
    return app


@web.middleware
async def _http_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what matches no route as ASP.NET would."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return problem_reply(Problem(error.status, error.reason, headers=headers))

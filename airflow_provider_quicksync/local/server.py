"""One server on one event loop: the routes, and its start and stop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from airflow_provider_quicksync.local import buckets, control, downloads, session_api, wallet_api
from airflow_provider_quicksync.local.call import (
    CORE,
    Door,
    Handler,
    by_session,
    by_session_if_any,
    by_session_or_query,
    by_wallet,
    openly,
)
from airflow_provider_quicksync.local.connection import BASE_PATH
from airflow_provider_quicksync.local.core import Core
from airflow_provider_quicksync.local.faults import FaultBook
from airflow_provider_quicksync.local.gate import gated
from airflow_provider_quicksync.local.hub import HUB_PATH, Hub
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

_CALLS: list[tuple[str, str, str, Door, Handler]] = [
    ("GET", "/buckets", "list_files", by_session, buckets.list_files),
    ("POST", "/buckets", "initiate", by_session, buckets.initiate),
    ("PUT", "/buckets", "put_part", by_session, buckets.put_part),
    ("POST", "/buckets/complete", "complete", by_session, buckets.complete),
    ("DELETE", "/buckets/{file_key}", "delete", by_session, buckets.delete),
    ("GET", "/buckets/file/{file_key}", "get_file", by_session, buckets.get_file),
    ("GET", "/buckets/download/{file_key}", "get_download_url", by_session, buckets.get_download_url),
    ("GET", "/session/current", "current_session", by_session_if_any, session_api.current_session),
    ("DELETE", "/session/current", "delete_session", by_session, session_api.delete_session),
    ("POST", "/session", "create_session", by_wallet, session_api.create_session),
    ("POST", "/session/join", "join_session", by_wallet, session_api.join_session),
    ("POST", "/session/disconnect", "disconnect_session", by_session, session_api.disconnect_session),
    ("GET", "/wallet-proof/nonce", "wallet_nonce", openly, wallet_api.wallet_nonce),
    ("POST", "/wallet-proof/verify", "wallet_verify", openly, wallet_api.wallet_verify),
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
        self.hub = Hub()
        self.core.events.listener = self.hub.publish
        self._runner = web.AppRunner(
            _application(self.core, self.hub),
            access_log=None,
            read_bufsize=_READ_BUFFER_BYTES,
            shutdown_timeout=_STOP_SECONDS,
            logger=logging.getLogger("quicksync.local"),
        )

    async def start(self) -> int:
        """Listen, and return the port."""
        try:
            await self._runner.setup()
            self.core.events.start()
            await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()
        except BaseException:
            await self.stop()
            raise
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the socket and the store."""
        await self._runner.cleanup()
        self.core.events.stop()
        self._store.close()


def _application(core: Core, hub: Hub) -> web.Application:
    app = web.Application(client_max_size=_MAX_JSON_BYTES, middlewares=[_http_errors])
    app[CORE] = core
    hub_calls: list[tuple[str, str, str, Door, Handler]] = [
        ("POST", f"{HUB_PATH}/negotiate", "negotiate", by_session_or_query, hub.negotiate),
        ("GET", HUB_PATH, "hub", by_session_or_query, hub.connect),
    ]
    for method, path, call, door, handler in _CALLS + hub_calls:
        app.router.add_route(method, BASE_PATH + path, gated(call, door, handler))
    app.router.add_get(buckets.LINK_PATH + "{file_key}", gated("download", openly, downloads.download))
    app.add_routes(control.routes(hub))
    app.on_shutdown.append(hub.stop)
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

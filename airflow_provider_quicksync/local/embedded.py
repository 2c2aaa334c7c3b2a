"""A local QuickSync inside a Python process: its own thread and event loop, a free loopback port."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quicksync.local.connection import (
    BASE_PATH,
    CONTROL_PATH,
    airflow_connection,
    base_url,
)
from airflow_provider_quicksync.local.faults import Fault, FaultBook
from airflow_provider_quicksync.local.journal import Entry, Journal
from airflow_provider_quicksync.local.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_quicksync.local.server import Server

T = TypeVar("T")
_THREAD_SECONDS = 30
_FILES = """
SELECT file_key, upload_id, session_id, creator_id, file_name, total_parts, size_bytes, stored,
    (SELECT count(*) FROM parts WHERE parts.file_key = uploads.file_key) AS received_parts
FROM uploads ORDER BY number
"""


class LocalQuickSync:
    """A QuickSync on this machine; a context manager, to be used from any thread.

    :param root: where bytes and state are kept; a temporary directory, removed at the end, without one.
    :param settings: the fields of :class:`Settings`.
    """

    def __init__(self, root: str | Path | None = None, **settings: Any) -> None:
        self._settings = Settings(**settings)
        self.faults = FaultBook()
        self.journal = Journal(self._settings.log_entries)
        self._temporary: weakref.finalize[..., Any] | None = None
        if root is None:
            root = tempfile.mkdtemp(prefix="quicksync-local-")
            self._temporary = weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        self.root = Path(root)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: Server | None = None
        self._port = self._settings.port
        self.token = self._settings.token or ""
        self.session_id = self._settings.session_id or ""
        self.creator_id = self._settings.creator_id or ""

    # -- life ----------------------------------------------------------------------------------

    def __enter__(self) -> LocalQuickSync:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary()

    def start(self) -> LocalQuickSync:
        """Start serving, on the port of the last time if there was one."""
        if self._thread is not None:
            raise RuntimeError("the local QuickSync is running already")
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="quicksync-local", daemon=True
        )
        self._thread.start()
        try:
            self._port = started.result(_THREAD_SECONDS)
        except BaseException:
            self._thread.join(_THREAD_SECONDS)
            self._thread = None
            raise
        return self

    def stop(self) -> None:
        """Stop serving; bytes and state stay in the root. Connections in use are cut."""
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_THREAD_SECONDS)
        self._thread = None

    def restart(self) -> LocalQuickSync:
        """Stop and start again: same port, same root, same faults and log."""
        self.stop()
        return self.start()

    def _run(self, started: Future[int]) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            self._server = self._open_server()
            port = loop.run_until_complete(self._server.start())
        except BaseException as error:
            started.set_exception(error)
            loop.close()
            return
        started.set_result(port)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(self._server.stop())
            loop.close()

    def _open_server(self) -> Server:
        from airflow_provider_quicksync.local.server import Server

        settings = replace(self.settings, port=self._port)
        server = Server(self.root, settings, self.faults, self.journal)
        self.token = server.core.token
        self.session_id = server.core.session_id
        self.creator_id = server.core.creator_id
        return server

    def _on_loop(self, function: Callable[[Server], T]) -> T:
        """Run *function* on the server's thread."""
        if self._thread is None or self._loop is None or self._server is None:
            raise RuntimeError("the local QuickSync is not running")

        async def run(server: Server) -> T:
            return function(server)

        return asyncio.run_coroutine_threadsafe(run(self._server), self._loop).result(_THREAD_SECONDS)

    # -- what it is told ------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force, also those changed by the control route."""
        return self._settings if self._server is None else self._server.core.settings

    def configure(self, **changes: Any) -> None:
        """Change settings, now and for the next start."""
        changed = self.settings.changed(**changes)
        if self._server is None:
            self._settings = changed
        else:
            self._server.core.settings = changed

    # -- where it is ---------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return base_url(self.settings.host, self._port)

    @property
    def control_url(self) -> str:
        """The URL of the control route."""
        return self.url.removesuffix(BASE_PATH) + CONTROL_PATH

    @property
    def port(self) -> int:
        """The port, 0 before the first start if it is a free one."""
        return self._port

    @property
    def api_key(self) -> str | None:
        """The API key the server wants, if it wants one."""
        return self.settings.api_key

    def airflow_connection(self) -> dict[str, Any]:
        """Return the connection to this server, as Airflow's JSON form has it."""
        return airflow_connection(self.url, self.token, self.session_id, self.settings)

    def connection_json(self) -> str:
        """Return the value of ``AIRFLOW_CONN_QUICKSYNC_DEFAULT``."""
        return json.dumps(self.airflow_connection())

    # -- what goes wrong -----------------------------------------------------------------------

    def fail(self, call: str, **fault: Any) -> Fault:
        """Let the next request of *call* go wrong; the keywords are the fields of :class:`Fault`."""
        made = Fault(call=call, **fault)
        self.faults.add(made)
        return made

    def clear_faults(self) -> None:
        """Switch all faults off."""
        self.faults.clear()

    def expire_session(self, session_id: str | None = None) -> None:
        """Let a session end now, the server's own if none is named; a restart opens that again."""
        self._on_loop(lambda server: server.core.expire_session(session_id))

    def drop_hub_connections(self, *, allow_reconnect: bool | None = None) -> None:
        """Cut what listens to the hub; with *allow_reconnect*, say goodbye in a close message first."""
        self._on_loop(lambda server: server.hub.drop(allow_reconnect=allow_reconnect))

    def silence_hub(self, is_silent: bool = True) -> None:
        """Let the hub send nothing, neither events nor pings; what happens meanwhile is lost."""
        self._on_loop(lambda server: setattr(server.hub, "is_silent", is_silent))

    def publish(self, event: str, data: dict[str, Any] | None = None, session_id: str | None = None) -> None:
        """Send an event to who listens to a session, the server's own if none is named."""
        self._on_loop(lambda server: server.hub.publish(session_id or self.session_id, event, data or {}))

    # -- what happened -------------------------------------------------------------------------

    @property
    def hub_connections(self) -> int:
        """How many listen to the hub now."""
        return self._on_loop(lambda server: server.hub.connections)

    def sessions(self) -> list[dict[str, Any]]:
        """Return the sessions and who is in them."""
        return self._on_loop(lambda server: server.core.overview())

    @property
    def requests(self) -> list[Entry]:
        """The request log, oldest first."""
        return self.journal.entries()

    def counters(self) -> dict[str, dict[str, Any]]:
        """Return requests, bytes, most requests in flight and statuses, by call."""
        return self.journal.counters()

    def reset_log(self) -> None:
        """Forget the log and the counters."""
        self.journal.reset()

    def files(self) -> list[dict[str, Any]]:
        """Return the uploads on disk, finished or not, with how many parts they have; also when stopped."""
        database = sqlite3.connect(f"file:{self.root / 'state.sqlite'}?mode=ro", uri=True)
        database.row_factory = sqlite3.Row
        try:
            rows = database.execute(_FILES).fetchall()
        finally:
            database.close()
        return [{**dict(row), "stored": bool(row["stored"])} for row in rows]

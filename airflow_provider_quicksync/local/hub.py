"""The session hub: ASP.NET SignalR (JSON protocol, WebSocket) with the documented events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import Any

from aiohttp import WSMsgType, web

from airflow_provider_quicksync.local.call import Call
from airflow_provider_quicksync.local.problems import Problem

HUB_PATH = "/hubs/session"
#: Ends each message of the JSON protocol.
RECORD_END = "\x1e"
_ENDING = frozenset({"SessionExpired", "SessionDestroyed"})
_PING = json.dumps({"type": 6}) + RECORD_END
_HANDSHAKE_SECONDS = 15
_CLOSE_SECONDS = 0.2
_MOST_WAITING = 10_000
_MOST_MESSAGE_BYTES = 65_536


class Hub:
    """The connections of all sessions; used on the server's event loop."""

    def __init__(self) -> None:
        self._connections: set[_Connection] = set()
        #: Connection tokens that were negotiated and not used yet, and their session.
        self._tickets: dict[str, str] = {}
        #: While true nothing is sent: no events and no pings; what happens meanwhile is lost.
        self.is_silent = False

    @property
    def connections(self) -> int:
        """How many listen now."""
        return len(self._connections)

    # -- the two requests of a SignalR client ----------------------------------------------------

    async def negotiate(self, call: Call) -> web.Response:
        """``POST /hubs/session/negotiate``: version 1 has a token that is not the connection's id."""
        version = 1 if call.request.query.get("negotiateVersion", "0") != "0" else 0
        connection_id, ticket = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        if version == 0:
            ticket = connection_id
        while len(self._tickets) >= _MOST_WAITING:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[ticket] = call.session.id
        answer: dict[str, Any] = {"negotiateVersion": version, "connectionId": connection_id}
        if version:
            answer["connectionToken"] = ticket
        answer["availableTransports"] = [{"transport": "WebSockets", "transferFormats": ["Text", "Binary"]}]
        return call.reply(answer)

    async def connect(self, call: Call) -> web.StreamResponse:
        """``GET /hubs/session``: the WebSocket, with the ticket as ``id`` or without negotiation."""
        ticket, session_id = call.request.query.get("id"), call.session.id
        if ticket is not None and self._tickets.pop(ticket, None) != session_id:
            raise Problem(404, "No Connection with that ID")
        socket = web.WebSocketResponse(timeout=_CLOSE_SECONDS, max_msg_size=_MOST_MESSAGE_BYTES)
        if not socket.can_prepare(call.request).ok:
            raise Problem(400, "A WebSocket upgrade is expected.")
        await socket.prepare(call.request)
        call.finish(101, 0)
        connection = _Connection(self, call, socket)
        if await connection.shakes_hands():
            self._connections.add(connection)
            try:
                await connection.run()
            finally:
                self._connections.discard(connection)
        return socket

    # -- events ----------------------------------------------------------------------------------

    def publish(self, session_id: str, event: str, data: dict[str, Any]) -> None:
        """Send an event to who listens to the session; who is no longer in it is told so and let go."""
        listening = [one for one in self._connections if one.session_id == session_id]
        if not listening or self.is_silent:
            return
        payload = {"sessionId": session_id, "eventType": event, "data": data}
        message = {"type": 1, "target": event, "arguments": [payload]}
        record = json.dumps(message, separators=(",", ":")) + RECORD_END
        for connection in listening:
            connection.send(record)
            if event in _ENDING or (event == "UserRemoved" and data.get("id") == connection.user_id):
                connection.send_close(error="You are no longer in the session.", allow_reconnect=False)

    def drop(self, *, allow_reconnect: bool | None = None) -> None:
        """Cut every connection; with *allow_reconnect*, say goodbye in a close message first."""
        for connection in list(self._connections):
            if allow_reconnect is None:
                connection.cut()
            else:
                connection.send_close(error="Dropped.", allow_reconnect=allow_reconnect)

    async def stop(self, _app: web.Application) -> None:
        """Say goodbye when the server stops."""
        for connection in list(self._connections):
            connection.send_close(error=None, allow_reconnect=True)
        runs = [connection.ended.wait() for connection in self._connections]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*runs), _CLOSE_SECONDS)
        self.drop()


class _Connection:
    def __init__(self, hub: Hub, call: Call, socket: web.WebSocketResponse) -> None:
        self._hub = hub
        self._call = call
        self._socket = socket
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue(_MOST_WAITING)
        self.session_id, self.user_id = call.session.id, call.user.id
        self.ended = asyncio.Event()

    async def shakes_hands(self) -> bool:
        """Whether the client speaks the JSON protocol."""
        try:
            record = await self._socket.receive_str(timeout=_HANDSHAKE_SECONDS)
            asked = json.loads(record.partition(RECORD_END)[0])
            protocol, version = asked.get("protocol"), asked.get("version")
        except (TimeoutError, TypeError, ValueError, AttributeError):
            await self._socket.close()
            return False
        is_known: bool = protocol == "json" and version == 1
        answer = {} if is_known else {"error": f"The protocol {protocol!r} is not supported."}
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(json.dumps(answer) + RECORD_END)
        if not is_known:
            await self._socket.close()
        return is_known

    async def run(self) -> None:
        """Send and receive until one side ends."""
        sending = asyncio.create_task(self._send_all())
        try:
            await self._receive_all()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
            self.ended.set()

    def send(self, record: str) -> None:
        """Send *record* when its turn comes; cut the connection of a client that does not read."""
        try:
            self._waiting.put_nowait(record)
        except asyncio.QueueFull:
            self.cut()

    def send_close(self, *, error: str | None, allow_reconnect: bool) -> None:
        """End the connection with a close message."""
        message: dict[str, Any] = {"type": 7}
        if error is not None:
            message["error"] = error
        if allow_reconnect:
            message["allowReconnect"] = True
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(json.dumps(message) + RECORD_END)
            self._waiting.put_nowait(None)

    def cut(self) -> None:
        """End the connection without a word."""
        if self._call.request.transport is not None:
            self._call.request.transport.abort()

    async def _send_all(self) -> None:
        while True:
            try:
                ping_seconds = self._call.core.settings.hub_ping_seconds
                async with asyncio.timeout(ping_seconds):
                    record = await self._waiting.get()
            except TimeoutError:
                record = _PING
            if record is None:
                await self._socket.close()
                return
            if not self._hub.is_silent:
                await self._socket.send_str(record)

    async def _receive_all(self) -> None:
        while not self._socket.closed:
            try:
                message = await self._socket.receive(self._call.core.settings.hub_timeout_seconds)
            except TimeoutError:
                self.send_close(error="The client was silent for too long.", allow_reconnect=True)
                await self._socket.receive()
                return
            if message.type != WSMsgType.TEXT or not self._take(message.data):
                return

    def _take(self, text: str) -> bool:
        """Whether to go on after the records of *text*."""
        for record in filter(None, text.split(RECORD_END)):
            try:
                message = json.loads(record)
                kind = message["type"]
            except (ValueError, TypeError, KeyError):
                return False
            if kind == 7:
                return False
            if kind == 1 and message.get("invocationId") is not None:
                error = "The hub has no methods."
                answer = {"type": 3, "invocationId": message["invocationId"], "error": error}
                self.send(json.dumps(answer) + RECORD_END)
        return True

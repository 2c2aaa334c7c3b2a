"""
Listening to a session's events: SignalR's JSON protocol over a WebSocket (the `[realtime]` extra).

The hub is a hint, never the only source: whoever listens also looks, at leisure. So every problem here ends
in a log line and another try with growing pauses, or, where trying is pointless, in silence.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_quicksync.client.errors import DamagedError, QuickSyncError, is_hopeless
from airflow_provider_quicksync.client.models import FileInfo

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

log = logging.getLogger(__name__)
T = TypeVar("T")

PING_SECONDS = 15.0
SILENCE_SECONDS = 30.0
"""A server that sends nothing, not even a ping, for so long is gone. Both are SignalR's own defaults."""
GOODBYE_SECONDS = 1.0
"""How long the end of a connection is waited for: who waits for files waits for it too."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
_MOST_MESSAGE_BYTES = 1 << 20
_REFUSED = (401, 403)
_END = "\x1e"
_INVOCATION, _PING, _CLOSE = 1, 6, 7


@dataclass(frozen=True)
class HubEvents:
    """
    What to call, in the event loop.

    :param connected: events come from now on.
    :param lost: they don't come any more.
    :param changed: a file was added or completed.
    :param removed: the file with this key is gone.
    :param ended: the session is over, and how.
    """

    connected: Callable[[], None]
    lost: Callable[[], None]
    changed: Callable[[FileInfo], None]
    removed: Callable[[str], None]
    ended: Callable[[str], None]


async def listen(
    client: QuickSyncClient, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]], events: HubEvents
) -> None:
    """
    Listen until cancelled; returns where listening is pointless.

    :param in_thread: runs a blocking call beside the event loop.
    """
    try:
        refusal = await in_thread(_import_websockets)
    except ImportError:
        log.info("polling alone: real-time events need airflow-provider-quicksync[realtime]")
        return
    pause = FIRST_PAUSE_SECONDS
    while True:
        connected_at = None
        try:
            url = await in_thread(client.negotiate_hub)
            tls = await in_thread(lambda: _tls(client.verify)) if url.startswith("wss:") else None
            async with aclosing(_messages(url, tls)) as messages:
                async for message in messages:
                    if message is None:
                        connected_at = time.monotonic()
                        events.connected()
                    elif not _handle(message, events):
                        log.info("the session hub has ended the connection for good: polling alone")
                        return
        except Exception as error:  # also a message that breaks what reads it
            if is_hopeless(error) or (isinstance(error, refusal) and error.response.status_code in _REFUSED):
                # Of a WebSocket's error no more than this: it may show the URL, and with it the token.
                said = (
                    str(error) if isinstance(error, QuickSyncError) else "the session hub refuses the token"
                )
                log.info("polling alone: %s", said)
                return
            if pause == FIRST_PAUSE_SECONDS:
                log.info(
                    "the session hub is out of reach (%s): polling, and trying it again", type(error).__name__
                )
        finally:
            if connected_at is not None:
                events.lost()
        if connected_at is not None and time.monotonic() - connected_at > LONGEST_PAUSE_SECONDS:
            pause = FIRST_PAUSE_SECONDS
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _import_websockets() -> Any:
    """In a thread, as it takes long; returns the error for a connection that is refused."""
    from websockets.asyncio import client  # noqa: F401
    from websockets.exceptions import InvalidStatus

    return InvalidStatus


async def _messages(url: str, tls: ssl.SSLContext | None) -> AsyncGenerator[dict[str, Any] | None]:
    """The hub's messages; first None, once it has accepted the connection."""
    from websockets.asyncio.client import connect

    # A logger of its own, without a parent: websockets logs the URL, and with it the token.
    silent = logging.Logger("quicksync-hub", logging.CRITICAL + 1)  # noqa: LOG001
    async with connect(
        url,
        ssl=tls,
        ping_interval=None,
        close_timeout=GOODBYE_SECONDS,
        max_size=_MOST_MESSAGE_BYTES,
        logger=silent,
        user_agent_header=None,
    ) as socket:
        pings = asyncio.create_task(_ping(socket))
        try:
            await socket.send(_record({"protocol": "json", "version": 1}))
            accepted = False
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    received = await socket.recv()
                for record in str(received).split(_END)[:-1]:
                    message = _parsed(record)
                    if not accepted and message.get("error"):
                        raise DamagedError("the session hub speaks another protocol")
                    yield message if accepted else None
                    accepted = True
        finally:
            pings.cancel()
            socket.transport.abort()  # a cancel while waiting for a goodbye would leave the socket open


async def _ping(socket: Any) -> None:
    with suppress(Exception):  # a closed socket shows where it is read
        while True:
            await asyncio.sleep(PING_SECONDS)
            await socket.send(_record({"type": _PING}))


def _handle(message: dict[str, Any], events: HubEvents) -> bool:
    """Act on a message; whether to go on listening."""
    if message.get("type") == _CLOSE:
        return bool(message.get("allowReconnect"))
    if message.get("type") != _INVOCATION:
        return True
    arguments = message.get("arguments")
    first = arguments[0] if isinstance(arguments, list) and arguments else None
    payload = first if isinstance(first, dict) else {}
    name, data = message.get("target"), payload.get("data")
    if name in ("SessionExpired", "SessionDestroyed"):
        events.ended(name)
    elif name in ("FileAdded", "FileComplete", "FileRemoved"):
        try:
            file = FileInfo.from_json(data, where=f"session event {name}")
        except DamagedError as error:
            log.warning("%s", error)
            return True
        if name == "FileRemoved":
            events.removed(file.file_key)
        else:
            events.changed(replace(file, completed=file.completed or name == "FileComplete"))
    return True


def _record(message: dict[str, Any]) -> str:
    return json.dumps(message) + _END


def _parsed(record: str) -> dict[str, Any]:
    try:
        message = json.loads(record)
    except (ValueError, RecursionError):
        raise DamagedError("the session hub sent what is not JSON") from None
    return message if isinstance(message, dict) else {}


def _tls(verify: bool | str) -> ssl.SSLContext:
    place = verify if isinstance(verify, str) else None
    is_folder = place is not None and os.path.isdir(place)
    context = ssl.create_default_context(
        cafile=None if is_folder else place, capath=place if is_folder else None
    )
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

"""
One poll for all: whoever waits in one triggerer process for files of one session shares a poller.

It looks once per interval for any number of waiters, in a thread, so that the event loop never blocks. With
the `[realtime]` extra it listens to the session's hub as well: a completion then wakes its waiters at once,
and looking becomes a slow safety net.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from airflow.providers.common.compat.connection import get_async_connection

from airflow_provider_quicksync.client import (
    FileInfo,
    NotFoundError,
    QuickSyncClient,
    QuickSyncError,
    RetryPolicy,
    SessionExpiredError,
)
from airflow_provider_quicksync.client.completion import verdict
from airflow_provider_quicksync.client.realtime import HubEvents, listen
from airflow_provider_quicksync.connection import Settings
from airflow_provider_quicksync.hooks import configure

log = logging.getLogger(__name__)
T = TypeVar("T")
W = TypeVar("W")

GATHER_SECONDS = 0.5
"""A look that a new waiter asks for waits so long for others that start with it."""
SAFETY_SECONDS = 60.0
"""The interval while the hub is listened to."""
BUSY_SECONDS = 300.0
"""The longest pause while the service is busy or out of reach."""
ONE_ATTEMPT = RetryPolicy(max_attempts=1)
"""The poller looks again anyway, with growing pauses."""

_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], Poller]]
_pollers = weakref.WeakKeyDictionary()


def poller_for(conn_id: str, session_id: str | None = None) -> Poller:
    """The poller of a connection and session in this event loop, shared by all who ask for it."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    key = (conn_id, session_id)
    if key not in pollers:
        pollers[key] = Poller(conn_id, session_id, on_end=lambda: pollers.pop(key, None))
    return pollers[key]


class Listing(NamedTuple):
    """Files by key: the ``whole`` session's, or those that have just changed."""

    files: Mapping[str, FileInfo]
    whole: bool


@dataclass(eq=False)
class _Waiter:
    """Somebody who waits for files to be complete."""

    interval: float
    keys: tuple[str, ...]
    answer: asyncio.Future[list[FileInfo]]
    longest_interval: float

    def judge(self, files: Mapping[str, FileInfo], *, may_be_gone: bool = False) -> None:
        """Answer, if there is an answer; that a file is gone only by a look that is younger than the wait."""
        if self.answer.done():
            return
        try:
            now = verdict(self.keys, files)
        except NotFoundError as error:
            if may_be_gone:
                self.answer.set_exception(error)
        else:
            if now.done:
                self.answer.set_result(now.files)
            elif may_be_gone:
                self.interval = min(2 * self.interval, self.longest_interval)

    def fail(self, error: Exception) -> None:
        """Looking has ended."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False)
class _Subscriber:
    """Somebody who wants every file as it is found."""

    interval: float
    found: asyncio.Queue[Listing | Exception]

    def fail(self, error: Exception) -> None:
        """Looking has ended."""
        self.found.put_nowait(error)


class Poller:
    """Looks after the files of one session for as long as somebody waits."""

    def __init__(self, conn_id: str, session_id: str | None, on_end: Callable[[], object]) -> None:
        self._conn_id, self._session_id, self._on_end = conn_id, session_id, on_end
        self._waiters: set[_Waiter] = set()
        self._subscribers: set[_Subscriber] = set()
        self._files: dict[str, FileInfo] = {}
        self._client: QuickSyncClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quicksync-poll")
        self._due_changed = asyncio.Event()
        self._due = self._looked_at = float("inf")
        self._failures = 0
        self._live = False

    async def wait_for(
        self, file_keys: Sequence[str], interval: float, longest_interval: float | None = None
    ) -> list[FileInfo]:
        """
        Wait until all are complete.

        :param interval: seconds between two looks; where there is a ``longest_interval``, it doubles with
            each look up to that.
        :raises NotFoundError: one is gone.
        :raises QuickSyncError: looking is hopeless: the session has ended, the credentials are refused.
        """
        answer = asyncio.get_running_loop().create_future()
        waiter = _Waiter(interval, tuple(file_keys), answer, longest_interval or interval)
        async with self._joined(waiter, self._waiters):
            if all(key in self._files for key in waiter.keys):
                waiter.judge(self._files)
            else:
                self._look_soon(interval)
            return await self.named(await waiter.answer)

    async def named(self, files: Sequence[FileInfo]) -> list[FileInfo]:
        """The files with their readable names; while somebody waits."""
        client = self._client
        return await self._in_thread(lambda: [client.read_name(f) for f in files] if client else [*files])

    async def listings(self, interval: float) -> AsyncGenerator[Listing]:
        """The session's files after every look, and between looks those that the hub tells of."""
        subscriber = _Subscriber(interval, asyncio.Queue())
        async with self._joined(subscriber, self._subscribers):
            self._look_soon(interval)
            while True:
                found = await subscriber.found.get()
                if isinstance(found, Exception):
                    raise found
                yield found

    @contextlib.asynccontextmanager
    async def _joined(self, who: W, others: set[W]) -> AsyncIterator[None]:
        others.add(who)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"quicksync-poll-{self._conn_id}")
        self._set_due(min(self._due, self._looked_at + self._interval()))
        try:
            yield
        finally:
            others.discard(who)
            if not self._everybody:
                await self._end()

    @property
    def _everybody(self) -> list[_Waiter | _Subscriber]:
        return [*self._waiters, *self._subscribers]

    async def _end(self) -> None:
        """Stop looking; nothing of this poller is left in the loop."""
        self._on_end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        hub = None
        try:
            connection = await get_async_connection(self._conn_id)
            settings = Settings(session_id=self._session_id) if self._session_id else Settings()
            client = self._client = await self._in_thread(lambda: _client(connection, settings))
            hub = asyncio.create_task(listen(client, self._in_thread, self._hub_events()))
            while True:
                await self._until_due()
                await self._look(client)
        except Exception as error:
            self._fail(error)
        finally:
            if hub is not None:
                hub.cancel()
                await asyncio.wait([hub])
            if self._client is not None:
                self._client.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # When to look

    def _interval(self) -> float:
        """The shortest that anybody wishes; longer while the hub tells what happens."""
        wished = min((who.interval for who in self._everybody), default=SAFETY_SECONDS)
        return max(wished, SAFETY_SECONDS) if self._live else wished

    def _look_soon(self, interval: float) -> None:
        """Look before the interval is over, but not once for each of many that start together."""
        soon = time.monotonic() + GATHER_SECONDS
        if self._looked_at < soon:
            soon = max(soon, self._looked_at + interval / 4)
        self._set_due(min(self._due, soon))

    def _set_due(self, due: float) -> None:
        self._due = due
        self._due_changed.set()

    async def _until_due(self) -> None:
        while (pause := self._due - time.monotonic()) > 0:
            self._due_changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due_changed.wait(), pause)

    # Looking

    async def _look(self, client: QuickSyncClient) -> None:
        """Look once, and tell everybody who was waiting before."""
        waiters, self._looked_at = list(self._waiters), time.monotonic()
        keys = {key for waiter in waiters for key in waiter.keys}
        alone = next(iter(keys)) if len(keys) == 1 and not self._subscribers else None
        try:
            self._files = await self._in_thread(lambda: _find(client, alone))
        except QuickSyncError as error:
            if not error.retryable:
                raise
            self._failures += 1
            pause = max(error.retry_after or 0.0, min(self._interval() * 2.0**self._failures, BUSY_SECONDS))
            log.warning("%s; looking again in %.0f s", error, pause)
            self._set_due(time.monotonic() + pause)
            return
        self._failures = 0
        for waiter in waiters:
            waiter.judge(self._files, may_be_gone=True)
        self._set_due(self._looked_at + self._interval() * random.uniform(1.0, 1.1))
        for subscriber in self._subscribers:
            subscriber.found.put_nowait(Listing(self._files, whole=True))

    def _fail(self, error: Exception) -> None:
        """Tell everybody, each with an error of its own, that looking has ended."""
        self._on_end()
        for who in self._everybody:
            who.fail(copy.copy(error))

    # What the hub tells

    def _hub_events(self) -> HubEvents:
        return HubEvents(
            connected=lambda: self._hub(live=True),
            lost=lambda: self._hub(live=False),
            changed=self._changed,
            removed=self._removed,
            ended=self._ended,
        )

    def _hub(self, *, live: bool) -> None:
        """Events come from now on, or don't any more; what was missed is looked at."""
        self._live = live
        self._set_due(min(self._due, time.monotonic() + GATHER_SECONDS))

    def _changed(self, file: FileInfo) -> None:
        """A file was added or completed."""
        self._files[file.file_key] = file
        for waiter in list(self._waiters):
            if file.file_key in waiter.keys:
                waiter.judge(self._files)
        for subscriber in self._subscribers:
            subscriber.found.put_nowait(Listing({file.file_key: file}, whole=False))

    def _removed(self, file_key: str) -> None:
        """A file is gone."""
        self._files.pop(file_key, None)
        for waiter in list(self._waiters):
            if file_key in waiter.keys:
                waiter.judge(self._files, may_be_gone=True)

    def _ended(self, how: str) -> None:
        """The session is over, and what it held is gone."""
        self._fail(SessionExpiredError(f"the session has ended ({how}): upload again in another session"))
        if self._task is not None:
            self._task.cancel()


def _client(connection: Any, settings: Settings) -> QuickSyncClient:
    client = configure(connection, settings).client()
    client.retry = ONE_ATTEMPT
    return client


def _find(client: QuickSyncClient, file_key: str | None) -> dict[str, FileInfo]:
    """One file by itself, or all of them, by key; with their raw names."""
    if file_key is None:
        return {file.file_key: file for file in client.list_files(read_names=False)}
    try:
        return {file_key: client.get_file(file_key)}
    except NotFoundError:
        return {}

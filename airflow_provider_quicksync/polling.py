"""
One poll for all: whoever waits in one triggerer process for files of one session shares a poller.

It looks once per interval for any number of waiters, in a thread, so that the event loop never blocks. With
the `[realtime]` extra it listens to the session's hub as well: a completion then wakes its waiters at once,
and looking becomes a slow safety net.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import logging
import random
import time
import weakref
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from airflow.providers.common.compat.connection import get_async_connection
from asgiref.sync import sync_to_async

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
from airflow_provider_quicksync.compat import mask_secret
from airflow_provider_quicksync.connection import Configuration, Settings
from airflow_provider_quicksync.hooks import configure

log = logging.getLogger(__name__)
T = TypeVar("T")
W = TypeVar("W", "_Waiter", "_Subscriber")

GATHER_SECONDS = 0.5
"""A look that a new waiter asks for waits so long for others that start with it."""
SHORTEST_SECONDS = 0.1
"""The shortest interval, whatever is wished."""
SAFETY_SECONDS = 60.0
"""The interval while the hub is listened to."""
BUSY_SECONDS = 300.0
"""The longest pause while the service is busy or out of reach, also where it asks for a longer one."""
THREADS = 3
"""Looking, connecting to the hub and reading names: one that stalls doesn't hold up the others."""
JUDGED_AT_ONCE = 500
"""Of so many waiters, the event loop takes a breath."""
ONE_ATTEMPT = RetryPolicy(max_attempts=1)
"""The poller looks again anyway, with growing pauses."""

_pollers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], Poller]]
_pollers = weakref.WeakKeyDictionary()


def poller_for(conn_id: str, session_id: str | None = None) -> Poller:
    """The poller of a connection and session in this event loop, shared by all who ask for it."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    key = (conn_id, session_id)
    if key in pollers:
        return pollers[key]

    def forget() -> None:
        if pollers.get(key) is poller:  # after a failure there may be another one already
            del pollers[key]

    poller = pollers[key] = Poller(conn_id, session_id, on_end=forget)
    return poller


class Listing(NamedTuple):
    """Files by key: the ``whole`` session's, or those that have just been completed."""

    files: Mapping[str, FileInfo]
    whole: bool


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for files to be complete."""

    interval: float
    keys: tuple[str, ...]
    answer: asyncio.Future[list[FileInfo]]
    longest_interval: float
    pending: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.pending = set(self.keys)

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
            self.pending = set(now.pending)
            if now.done:
                self.answer.set_result(now.files)
            elif may_be_gone:
                self.interval = min(2 * self.interval, self.longest_interval)

    def completed(self, file_key: str, files: Mapping[str, FileInfo]) -> None:
        """Answer, if this was the last one."""
        self.pending.discard(file_key)
        if not self.pending:
            self.judge(files)

    def gone(self, file_key: str) -> None:
        """One is gone."""
        try:
            verdict([file_key], {})
        except NotFoundError as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False, slots=True)
class _Subscriber:
    """Somebody who wants every file as it is found."""

    interval: float
    found: asyncio.Queue[Listing | Exception]
    gathering: dict[str, FileInfo] | None = None

    def tell(self, file: FileInfo) -> None:
        """A file is complete: with others, in one listing, until that is taken."""
        if self.gathering is None:
            self.gathering = {}
            self.found.put_nowait(Listing(self.gathering, whole=False))
        self.gathering[file.file_key] = file

    def show(self, files: Mapping[str, FileInfo]) -> None:
        """What a look has found. What completes from now on comes after it."""
        self.gathering = None
        self.found.put_nowait(Listing(files, whole=True))

    def fail(self, error: Exception) -> None:
        """Looking has ended."""
        self.found.put_nowait(error)


class Poller:
    """Looks after the files of one session for as long as somebody waits."""

    def __init__(self, conn_id: str, session_id: str | None, on_end: Callable[[], object]) -> None:
        self._conn_id, self._session_id, self._on_end = conn_id, session_id, on_end
        self._waiters: set[_Waiter] = set()
        self._by_key: defaultdict[str, set[_Waiter]] = defaultdict(set)
        self._subscribers: set[_Subscriber] = set()
        self._files: dict[str, FileInfo] = {}
        self._news: dict[str, FileInfo | None] = {}
        self._client: QuickSyncClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="quicksync-poll")
        self._due_changed = asyncio.Event()
        self._due = self._looked_at = float("inf")
        self._not_before = 0.0
        self._failures = 0
        self._live = self._cancelled = self._is_checked = False

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
        for key in waiter.keys:
            self._by_key[key].add(waiter)
        try:
            self._join(waiter, self._waiters)
            if all(key in self._files for key in waiter.keys):
                waiter.judge(self._files)
            else:
                self._look_soon(interval)
            return await self.named(await answer)
        finally:
            for key in waiter.keys:
                self._by_key[key].discard(waiter)
                if not self._by_key[key]:
                    del self._by_key[key]
            await self._leave(waiter, self._waiters)

    async def named(self, files: Sequence[FileInfo]) -> list[FileInfo]:
        """The files with their readable names; while somebody waits."""
        client = self._client
        if client is None:
            return list(files)
        return await self._in_thread(lambda: [client.read_name(file) for file in files])

    async def listings(self, interval: float) -> AsyncGenerator[Listing]:
        """The session's files after every look, and between looks those that the hub tells are complete."""
        subscriber = _Subscriber(interval, asyncio.Queue())
        try:
            self._join(subscriber, self._subscribers)
            self._look_soon(interval)
            while True:
                found = await subscriber.found.get()
                if isinstance(found, Exception):
                    raise found
                if found.files is subscriber.gathering:
                    subscriber.gathering = None
                yield found
                await asyncio.sleep(GATHER_SECONDS)  # of a burst of events, each listing takes many
        finally:
            await self._leave(subscriber, self._subscribers)

    def _join(self, who: W, others: set[W]) -> None:
        others.add(who)
        if self._task is None:
            # In a context of its own: what it logs is nothing for the log of the task that came first.
            name, context = f"quicksync-poll-{self._conn_id}", contextvars.Context()
            self._task = asyncio.create_task(self._run(), name=name, context=context)
        self._bring_forward(self._looked_at + self._interval(who.interval))

    async def _leave(self, who: W, others: set[W]) -> None:
        others.discard(who)
        if not self._waiters and not self._subscribers:
            await self._end()

    @property
    def _everybody(self) -> list[_Waiter | _Subscriber]:
        return [*self._waiters, *self._subscribers]

    async def _end(self) -> None:
        """Stop looking; nothing of this poller is left in the loop."""
        self._on_end()
        try:
            if self._task is not None:
                self._cancel()
                await asyncio.wait([self._task])
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _cancel(self) -> None:
        # Once: a second time would cut its cleaning up short. `Task.cancelling` doesn't tell: it counts the
        # end of a pause too.
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def _run(self) -> None:
        try:
            configuration = await self._configuration()
            while True:
                async with self._connected(configuration) as client:
                    changed = None
                    while changed is None:
                        await self._until_due()
                        changed = await self._look(client, configuration)
                configuration, self._due = changed, 0.0
        except Exception as error:
            self._fail(error)

    async def _configuration(self) -> Configuration:
        """What the connection says now."""
        connection = await get_async_connection(self._conn_id)
        settings = Settings(session_id=self._session_id) if self._session_id else Settings()
        configuration = await self._in_thread(lambda: configure(connection, settings))
        configuration.check_may_hold_files()
        return configuration

    async def _changed_since(self, configuration: Configuration) -> Configuration | None:
        """Before bad news are told: what the connection says now, if somebody has changed it."""
        with contextlib.suppress(Exception):
            now = await self._configuration()
            return now if now != configuration else None
        return None

    @contextlib.asynccontextmanager
    async def _connected(self, configuration: Configuration) -> AsyncIterator[QuickSyncClient]:
        """A client, and while it is used somebody who listens to the hub."""
        client = self._client = await self._in_thread(lambda: configuration.client(on_token=mask_secret))
        client.retry, self._is_checked = ONE_ATTEMPT, False
        with contextlib.closing(client):
            hub = asyncio.create_task(listen(client, self._in_thread, self._hub_events()))
            try:
                yield client
            finally:
                hub.cancel()
                await asyncio.wait([hub])

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # Not the loop's run_in_executor: masking a secret in a thread that doesn't know the triggerer's loop
        # breaks the triggerer of Airflow 3.0 and 3.1.
        return await sync_to_async(call, thread_sensitive=False, executor=self._threads)()

    # When to look

    def _wished(self) -> float:
        """The shortest interval that anybody wishes."""
        return max(SHORTEST_SECONDS, min((who.interval for who in self._everybody), default=SAFETY_SECONDS))

    def _interval(self, wished: float) -> float:
        """The interval now: longer while the hub tells what happens."""
        return max(wished, SAFETY_SECONDS if self._live else SHORTEST_SECONDS)

    def _look_soon(self, interval: float) -> None:
        """Look before the interval is over, but not once for each of many that start together."""
        soon = time.monotonic() + GATHER_SECONDS
        if self._looked_at < soon:
            soon = max(soon, self._looked_at + interval / 4)
        self._bring_forward(soon)

    def _bring_forward(self, due: float) -> None:
        """Look earlier, unless the last look failed: then the pause counts."""
        if not self._failures:
            self._set_due(min(self._due, due))

    def _set_due(self, due: float) -> None:
        self._due = max(due, self._not_before)
        self._due_changed.set()

    async def _until_due(self) -> None:
        while (pause := self._due - time.monotonic()) > 0:
            self._due_changed.clear()
            # Not wait_for: Python 3.11's forgets a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due_changed.wait()

    # Looking

    async def _look(self, client: QuickSyncClient, configuration: Configuration) -> Configuration | None:
        """
        Look once, and tell everybody who was waiting before.

        :return: what the connection says now, where that is why somebody can't be told anything good.
        """
        waiters, alone = list(self._waiters), None
        if len(self._by_key) == 1 and not self._subscribers:
            alone = next(iter(self._by_key))
        # What comes up during the look, from the hub or from who joins, is kept.
        self._looked_at, self._due, self._news = time.monotonic(), float("inf"), {}
        try:
            if not self._is_checked:
                await self._in_thread(lambda: configuration.check_session(client))
                self._is_checked = True
            files = await self._in_thread(lambda: _find(client, alone))
        except QuickSyncError as error:
            if error.retryable:
                self._pause(error)
                return None
            changed = await self._changed_since(configuration)
            if changed is None:
                raise
            return changed
        self._failures = 0
        self._add_news(files)
        if any(key not in files for waiter in waiters for key in waiter.keys):
            changed = await self._changed_since(configuration)
            if changed is not None:
                return changed
        self._files = files
        for number, waiter in enumerate(waiters, 1):
            waiter.judge(files, may_be_gone=True)
            if number % JUDGED_AT_ONCE == 0:
                await asyncio.sleep(0)
        for subscriber in self._subscribers:
            subscriber.show(files)
        # From now, and not from when it began: a slow service isn't asked without a pause.
        self._set_due(
            min(self._due, time.monotonic() + self._interval(self._wished()) * random.uniform(1.0, 1.1))
        )
        return None

    def _pause(self, error: QuickSyncError) -> None:
        """Look again with growing pauses, and no sooner than the service asks."""
        self._failures += 1
        asked = min(error.retry_after or 0.0, BUSY_SECONDS)
        pause = max(asked, min(self._wished() * 2.0 ** min(self._failures, 20), BUSY_SECONDS))
        log.warning("%s; looking again in %.0f s", error, pause)
        self._not_before = time.monotonic() + asked
        self._set_due(time.monotonic() + pause)

    def _add_news(self, files: dict[str, FileInfo]) -> None:
        """What the hub told during the look may be newer than what the look found."""
        for key, file in self._news.items():
            if file is None:
                files.pop(key, None)
            elif file.completed or key not in files:
                files[key] = file

    def _fail(self, error: Exception) -> None:
        """Tell everybody, each with an error of its own, that looking has ended."""
        self._on_end()
        for who in self._everybody:
            try:
                who.fail(copy.copy(error))
            except Exception:  # it can't be copied, as some of Airflow's can't
                who.fail(error)

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
        """Events come from now on, or don't any more; what was missed is looked at, when polling would."""
        self._live = live
        if live:
            self._failures = 0
        self._bring_forward(max(time.monotonic() + GATHER_SECONDS, self._looked_at + self._wished()))

    def _changed(self, file: FileInfo) -> None:
        """A file was added or completed."""
        self._files[file.file_key] = self._news[file.file_key] = file
        if file.completed:
            for waiter in self._by_key.get(file.file_key, ()):
                waiter.completed(file.file_key, self._files)
            for subscriber in self._subscribers:
                subscriber.tell(file)

    def _removed(self, file_key: str) -> None:
        """A file is gone."""
        self._files.pop(file_key, None)
        self._news[file_key] = None
        for waiter in self._by_key.get(file_key, ()):
            waiter.gone(file_key)

    def _ended(self, how: str) -> None:
        """The session is over, and what it held is gone."""
        self._fail(SessionExpiredError(f"the session has ended ({how}): upload again in another session"))
        self._cancel()


def _find(client: QuickSyncClient, file_key: str | None) -> dict[str, FileInfo]:
    """One file by itself, or all of them, by key; with their raw names."""
    found = {}
    if file_key is None:
        found = {file.file_key: file for file in client.list_files(read_names=False)}
    else:
        with contextlib.suppress(NotFoundError):
            found = {file_key: client.get_file(file_key)}
    # What reading names needs is asked for now, as a failure to look is waited out.
    for file in found.values():
        client.read_name(file)
        break
    return found

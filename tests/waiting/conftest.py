"""A bucket whose files are completed when a test says so, and an event loop as the triggerer has one."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_quicksync import cursor, polling
from airflow_provider_quicksync.client import realtime
from airflow_provider_quicksync.local import LocalQuickSync
from airflow_provider_quicksync.local.connection import CONNECTION_VARIABLE
from airflow_provider_quicksync.local.store import Upload

DEADLINE_SECONDS = 20
FAR_AWAY = time.time() + 1e6


class Bucket(LocalQuickSync):
    """A local QuickSync with files that were uploaded, and are completed by hand."""

    looking = 0
    """How many pollers look at this moment, from before the request until its answer has been judged."""

    def pending(self, count: int = 1, *, name: str = "file") -> list[str]:
        """Put files there that aren't completed; return their keys."""
        keys = [secrets.token_hex(8) for _ in range(count)]

        def put(server: Any) -> None:
            for number, key in enumerate(keys):
                upload = Upload(key, key, self.session_id, self.creator_id, f"{name}-{number}", 1, 1)
                server.core.store.add(upload)
                server.core.events.file("FileAdded", upload)
                server.core.store.set_stored(key, FAR_AWAY, 0)

        self._on_loop(put)
        return keys

    def complete(self, *keys: str) -> None:
        """Complete files, and tell the hub."""

        def completed(server: Any) -> None:
            for key in keys:
                server.core.store.set_stored(key, time.time() - 1, 0)
            server.core.events.announce_completed()

        self._on_loop(completed)

    def remove(self, key: str) -> None:
        """Delete a file, and tell the hub."""

        def removed(server: Any) -> None:
            upload = server.core.store.find(key)
            server.core.store.remove(key)
            server.core.events.file("FileRemoved", upload)

        self._on_loop(removed)

    def count(self, *calls: str) -> int:
        """How often these were called, every look if none is named."""
        counters = self.counters()
        return sum(
            counters[call]["requests"] for call in calls or ("list_files", "get_file") if call in counters
        )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket that `quicksync_default` points to."""
    look = polling.Poller._look

    async def counted(poller: polling.Poller, *arguments: Any) -> Any:
        started.looking += 1
        try:
            return await look(poller, *arguments)
        finally:
            started.looking -= 1

    with Bucket(hub_ping_seconds=0.05) as started:
        monkeypatch.setattr(polling.Poller, "_look", counted)
        monkeypatch.setenv(CONNECTION_VARIABLE, started.connection_json())
        yield started


@pytest.fixture
def no_hub(bucket: Bucket) -> Bucket:
    """The same, of a service that has no hub: polling alone."""
    bucket.fail("negotiate", status=404, times=None)
    return bucket


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds in a test."""
    monkeypatch.setattr(polling, "GATHER_SECONDS", 0.02)
    monkeypatch.setattr(polling, "SHORTEST_SECONDS", 0.01)
    monkeypatch.setattr(realtime, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(realtime, "LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(cursor, "PAUSES_SECONDS", (0.0,))


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test, no poller has left a thread or a socket."""
    yield
    until_now(lambda: not poll_threads(), "threads are left")
    gc.collect()  # sockets that were not closed warn now, and a warning is an error


def poll_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("quicksync-poll")]


def until_now(condition: Callable[[], Any], what: str = "it did not come") -> Any:
    """Return what the condition gives once it is something."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError(what)


async def until(condition: Callable[[], Any], what: str = "it did not come") -> Any:
    """The same, in the event loop; the condition may ask the server."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        if result := await asyncio.to_thread(condition):
            return result
        await asyncio.sleep(0.005)
    raise AssertionError(what)


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test in an event loop of its own: nothing may be left in it, or go unnoticed."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        unnoticed: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: unnoticed.append(context))
            await asyncio.wait_for(test(**arguments), 3 * DEADLINE_SECONDS)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, others
            assert not polling._pollers.get(asyncio.get_running_loop()), "a poller is left"
            gc.collect()

        asyncio.run(main())
        assert not unnoticed, unnoticed

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


def looked(bucket: Bucket) -> list[float]:
    """When somebody looked."""
    return [entry.time for entry in bucket.requests if entry.call in ("list_files", "get_file")]


def waiting(
    *keys: str, interval: float = 0.05, conn_id: str = "quicksync_default", **options: Any
) -> asyncio.Task[Any]:
    """Somebody who waits for files."""

    async def wait() -> Any:
        return await polling.poller_for(conn_id).wait_for(keys, interval, **options)

    return asyncio.create_task(wait())


async def outcomes(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    """What became of them: results and errors, in order."""
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), DEADLINE_SECONDS)

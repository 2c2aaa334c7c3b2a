"""Watching a session for completed files."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from airflow_provider_quicksync import polling
from airflow_provider_quicksync.client import FileInfo, QuickSyncClient, data_source, upload
from airflow_provider_quicksync.cursor import MARKS_A_PAGE, SeenFiles
from airflow_provider_quicksync.polling import _pollers
from airflow_provider_quicksync.triggers import QuickSyncFileEventTrigger

DEADLINE_SECONDS = 20


class AssetState:
    """An asset's state store, as Airflow's accessor, with the limit of a value."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)
        assert len(self.values[key]) <= 65_535

    async def adelete(self, key: str) -> None:
        self.values.pop(key, None)


@contextmanager
def client_of(server: Any) -> Any:
    with QuickSyncClient(server.token, base_url=server.url) as client:
        yield client


def put(server: Any, name: str) -> str:
    with client_of(server) as client:
        return upload(client, data_source(name, name=name))["file_key"]


@asynccontextmanager
async def watching(
    server: Any, state: AssetState | None = None, **arguments: Any
) -> AsyncIterator[asyncio.Queue[dict[str, Any]]]:
    """A triggerer that runs one watcher: what fires is in the queue. It has looked once when this begins."""
    trigger = QuickSyncFileEventTrigger(poke_interval=0.2, **arguments)
    trigger.asset_state_store = state  # type: ignore[assignment]
    fired: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run() -> None:
        async for event in trigger.run():
            fired.put_nowait(event.payload["file"])

    looks = server.counters().get("list_files", {}).get("requests", 0)
    task = asyncio.create_task(run())
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while server.counters().get("list_files", {}).get("requests", 0) < looks + 2:
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        yield fired
    finally:
        task.cancel()
        await asyncio.wait([task])


async def names(fired: asyncio.Queue[dict[str, Any]], count: int) -> list[str]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return sorted([(await fired.get())["name"] for _ in range(count)])


async def looked_again(server: Any, times: int = 3) -> None:
    before = server.counters()["list_files"]["requests"]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while server.counters()["list_files"]["requests"] < before + times:
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def polling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing_to_hear(*_: Any) -> None: ...

    monkeypatch.setattr("airflow_provider_quicksync.polling.listen", nothing_to_hear)


def test_a_completed_file_fires_once_and_what_was_there_does_not(quicksync_local: Any) -> None:
    put(quicksync_local, "old.csv")

    async def scenario() -> None:
        async with watching(quicksync_local) as fired:
            key = await asyncio.to_thread(put, quicksync_local, "new.csv")
            async with asyncio.timeout(DEADLINE_SECONDS):
                file = await fired.get()
            assert (file["file_key"], file["name"], file["completed"]) == (key, "new.csv", True)
            await looked_again(quicksync_local)
            assert fired.empty()

    asyncio.run(scenario())


def test_only_names_that_match_fire(quicksync_local: Any) -> None:
    async def scenario() -> None:
        async with watching(quicksync_local, name_pattern="reports/*.csv") as fired:
            for name in ("reports/a.csv", "reports/a.txt", "other.csv", "reports/b.csv"):
                await asyncio.to_thread(put, quicksync_local, name)
            assert await names(fired, 2) == ["reports/a.csv", "reports/b.csv"]
            await looked_again(quicksync_local)
            assert fired.empty()

    asyncio.run(scenario())


def test_a_file_fires_when_it_is_completed_not_when_it_is_there(quicksync_local: Any) -> None:
    quicksync_local.configure(complete_after_seconds=3600)
    put(quicksync_local, "slow.csv")

    async def scenario() -> None:
        async with watching(quicksync_local) as fired:
            await looked_again(quicksync_local)
            assert fired.empty()
            quicksync_local.configure(complete_after_seconds=0)
            put(quicksync_local, "fast.csv")
            assert "fast.csv" in await names(fired, 1)

    asyncio.run(scenario())


def test_over_two_restarts_each_file_fires_exactly_once_also_those_of_the_time_between(
    quicksync_local: Any,
) -> None:
    state = AssetState()

    async def one_life(name: str, expected: list[str]) -> None:
        async with watching(quicksync_local, state) as fired:
            await asyncio.to_thread(put, quicksync_local, name)
            assert await names(fired, len(expected)) == expected
            await looked_again(quicksync_local)
            assert fired.empty()

    asyncio.run(one_life("a", ["a"]))
    put(quicksync_local, "b-while-down")
    asyncio.run(one_life("c", ["b-while-down", "c"]))
    asyncio.run(one_life("d", ["d"]))


def test_without_a_state_store_a_restart_fires_nothing_again(quicksync_local: Any) -> None:
    async def one_life(name: str) -> None:
        async with watching(quicksync_local) as fired:
            await asyncio.to_thread(put, quicksync_local, name)
            assert await names(fired, 1) == [name]

    asyncio.run(one_life("a"))
    put(quicksync_local, "missed-while-down")
    asyncio.run(one_life("b"))


def test_watchers_of_one_connection_share_one_poll(quicksync_local: Any) -> None:
    async def scenario() -> None:
        async with watching(quicksync_local) as one, watching(quicksync_local, name_pattern="x*") as two:
            await asyncio.to_thread(put, quicksync_local, "x1")
            assert await names(one, 1) == await names(two, 1) == ["x1"]
            assert len(_pollers[asyncio.get_running_loop()]) == 1

    asyncio.run(scenario())


def test_a_store_that_fails_for_a_while_has_everything_in_the_end() -> None:
    class Shaky(AssetState):
        broken = False

        async def aget(self, key: str, default: Any = None) -> Any:
            if self.broken:
                raise RuntimeError("no")
            return await super().aget(key, default)

        async def aset(self, key: str, value: Any) -> None:
            if self.broken:
                raise RuntimeError("no")
            await super().aset(key, value)

    async def scenario() -> None:
        store = Shaky()
        seen = SeenFiles(store, "scope")
        assert not await seen.load()
        seen.add("a")
        await seen.save()
        store.broken = True
        seen.add("b")
        await seen.save()
        assert not seen.is_saved
        store.broken = False
        await seen.save()
        assert seen.is_saved
        again = SeenFiles(store, "scope")
        assert await again.load()
        assert "a" in again
        assert "b" in again
        store.broken = True
        blind = SeenFiles(store, "scope")
        assert not await blind.load()
        assert "a" not in blind

    asyncio.run(scenario())


def test_a_store_that_fails_is_not_in_the_way_of_the_watching(
    quicksync_local: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(AssetState):
        async def aset(self, key: str, value: Any) -> None:
            raise RuntimeError("no")

    async def scenario() -> None:
        async with watching(quicksync_local, Broken()) as fired:
            await asyncio.to_thread(put, quicksync_local, "a")
            assert await names(fired, 1) == ["a"]

    asyncio.run(scenario())
    assert "files seen can't be kept" in caplog.text


def test_a_watch_that_is_refused_says_so_and_goes_on(
    quicksync_local: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(polling, "BUSY_SECONDS", 0.1)

    async def scenario() -> None:
        quicksync_local.fail("list_files", status=401, times=2)
        async with watching(quicksync_local) as fired:
            await looked_again(quicksync_local)
            await asyncio.to_thread(put, quicksync_local, "after")
            assert await names(fired, 1) == ["after"]

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    said = [line for line in caplog.messages if "watching for files of connection" in line]
    assert len(said) == 2
    assert "'quicksync_default'" in said[0]
    assert "looking again in" in said[0]


def test_a_burst_of_events_is_a_few_listings(quicksync_local: Any) -> None:
    async def scenario() -> None:
        poller = polling.poller_for("quicksync_default")
        listings = poller.listings(1000.0)
        assert (await anext(listings)).whole
        files = [FileInfo(f"k{n}", f"n{n}", f"n{n}", None, n != 7, 1, 1) for n in range(1000)]
        for few in (files[:1], files[1:]):
            for file in few:
                poller._changed(file)
            told = await anext(listings)
            assert not told.whole
            assert told.files == {file.file_key: file for file in few if file.completed}
        await listings.aclose()

    asyncio.run(scenario())


def test_many_seen_files_fit_into_the_store_and_old_ones_are_forgotten() -> None:
    async def scenario() -> None:
        state = AssetState()
        seen = SeenFiles(state, "scope")
        assert not await seen.load()
        keys = [f"key-{n}" for n in range(2 * MARKS_A_PAGE + 10)]
        for key in keys:
            seen.add(key)
        await seen.save()
        assert len(state.values) == 3
        again = SeenFiles(state, "scope")
        assert await again.load()
        assert all(key in again for key in keys)
        assert "another" not in again
        again.retain(keys[:5])
        await again.save()
        assert len(state.values) == 1
        assert keys[4] in again
        assert keys[-1] not in again

    asyncio.run(scenario())


def test_it_is_rebuilt_from_what_it_serialises() -> None:
    trigger = QuickSyncFileEventTrigger(
        name_pattern="a*", quicksync_conn_id="other", poke_interval=3, session_id="s"
    )
    path, arguments = trigger.serialize()
    assert path == "airflow_provider_quicksync.triggers.QuickSyncFileEventTrigger"
    again = QuickSyncFileEventTrigger(**arguments)
    assert again.serialize() == trigger.serialize()
    assert again.shared_stream_key() == trigger.shared_stream_key()

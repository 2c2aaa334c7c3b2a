"""Waiting without a worker: triggers hold plain values, share one poll, and yield one small event."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_quicksync.compat import BaseEventTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Hashable
    from types import ModuleType

    from airflow_provider_quicksync.polling import Listing

log = logging.getLogger(__name__)


class QuickSyncUploadCompletionTrigger(BaseTrigger):
    """
    Fire once when files are complete, or will never be.

    The event is ``{"status": "complete", "files": [metadata]}``, or ``{"status": "failed", "error": class,
    "hopeless": bool, "message": one line}``, with ``payload`` beside it.

    :param file_keys: the files.
    :param quicksync_conn_id: the connection; all triggers of one connection and session share one poll.
    :param poke_interval: seconds between two looks; the shortest of all who wait counts.
    :param longest_interval: with it, the interval doubles with each look up to this.
    :param session_id: the session, where it isn't the connection's.
    :param payload: handed through to the event.
    :param end_task: end the task from the trigger when the files are complete, without a worker. Its XCom
        is the metadata of the file (``"one"``), the list of them (``"many"``), or nothing (``"silently"``).
    """

    def __init__(
        self,
        *,
        file_keys: list[str],
        quicksync_conn_id: str = "quicksync_default",
        poke_interval: float = 60.0,
        longest_interval: float | None = None,
        session_id: str | None = None,
        payload: Any = None,
        end_task: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.file_keys = file_keys
        self.quicksync_conn_id = quicksync_conn_id
        self.poke_interval = poke_interval
        self.longest_interval = longest_interval
        self.session_id = session_id
        self.payload = payload
        self.end_task = end_task

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {
            "file_keys": self.file_keys,
            "quicksync_conn_id": self.quicksync_conn_id,
            "poke_interval": self.poke_interval,
            "longest_interval": self.longest_interval,
            "session_id": self.session_id,
            "payload": self.payload,
            "end_task": self.end_task,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait with all others who wait."""
        await _import_polling()
        from airflow_provider_quicksync.client import QuickSyncError
        from airflow_provider_quicksync.client.errors import is_hopeless
        from airflow_provider_quicksync.polling import poller_for

        event: dict[str, Any]
        try:
            poller = poller_for(self.quicksync_conn_id, self.session_id)
            found = await poller.wait_for(self.file_keys, self.poke_interval, self.longest_interval)
        except QuickSyncError as error:
            event = {
                "status": "failed",
                "error": type(error).__name__,
                "hopeless": is_hopeless(error),
                "message": str(error),
            }
        else:
            files = [file.as_dict() for file in found]
            if self.end_task:
                xcoms: dict[str, Any] | None = None
                if self.end_task != "silently":
                    xcoms = {"return_value": files if self.end_task == "many" else files[0]}
                yield TaskSuccessEvent(xcoms=xcoms)
                return
            event = {"status": "complete", "files": files}
        yield TriggerEvent({**event, "payload": self.payload})  # type: ignore[no-untyped-call]


class QuickSyncFileEventTrigger(BaseEventTrigger):
    """
    Fire for every file that is completed in a session: for ``AssetWatcher`` (Airflow 3).

    Each file fires once. What is complete when the watching begins doesn't fire. On Airflow 3.3 and newer
    what has fired is kept in the asset's state store: a restarted triggerer goes on where it stopped. Before,
    or where one trigger watches for several assets, files completed while no triggerer runs are missed. A
    triggerer that is killed between an event and its note may fire that file again.

    The event is ``{"file": metadata}``.

    :param name_pattern: which files, by their names, as a shell would match them: ``reports/*.csv``.
    :param quicksync_conn_id: the connection; all triggers of one connection and session share one poll.
    :param poke_interval: seconds between two looks; the shortest of all who wait counts.
    :param session_id: the session, where it isn't the connection's.
    """

    def __init__(
        self,
        *,
        name_pattern: str = "*",
        quicksync_conn_id: str = "quicksync_default",
        poke_interval: float = 60.0,
        session_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name_pattern = name_pattern
        self.quicksync_conn_id = quicksync_conn_id
        self.poke_interval = poke_interval
        self.session_id = session_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {
            "name_pattern": self.name_pattern,
            "quicksync_conn_id": self.quicksync_conn_id,
            "poke_interval": self.poke_interval,
            "session_id": self.session_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch by itself, as Airflow before 3.3 wants it; the poll is shared all the same."""
        await _import_polling()
        async with aclosing(
            _listings(self.quicksync_conn_id, self.session_id, self.poke_interval)
        ) as listings:
            async for event in self.filter_shared_stream(listings):
                yield event

    def shared_stream_key(self) -> Hashable:
        """Watchers of one connection and session share one stream."""
        return ("quicksync", self.quicksync_conn_id, self.session_id, self.poke_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Listing]:
        """Every listing of the session."""
        await _import_polling()
        arguments = (kwargs["quicksync_conn_id"], kwargs["session_id"], kwargs["poke_interval"])
        async with aclosing(_listings(*arguments)) as listings:
            async for listing in listings:
                yield listing

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Listing]
    ) -> AsyncIterator[TriggerEvent]:
        """An event for each new completed file that matches."""
        from airflow_provider_quicksync.cursor import SeenFiles
        from airflow_provider_quicksync.polling import poller_for

        scope = json.dumps([self.quicksync_conn_id, self.session_id, self.name_pattern])
        seen = SeenFiles(getattr(self, "asset_state_store", None), scope)
        watching = await seen.load()
        async for listing in shared_stream:
            if not watching and not listing.whole:
                continue
            new = [file for key, file in listing.files.items() if file.completed and key not in seen]
            if watching and new:
                for file in await poller_for(self.quicksync_conn_id, self.session_id).named(new):
                    if fnmatchcase(file.name or "", self.name_pattern):
                        yield TriggerEvent({"file": file.as_dict()})  # type: ignore[no-untyped-call]
            for file in new:
                seen.add(file.file_key)
            if listing.whole:
                seen.retain(listing.files.keys())
            if not seen.is_saved:
                await seen.save()
            watching = True


async def _import_polling() -> None:
    """In a thread, as it takes long, and the event loop is everybody's; once for all who start together."""
    await asyncio.shield(_polling(asyncio.get_running_loop()))


@lru_cache(maxsize=1)
def _polling(loop: asyncio.AbstractEventLoop) -> asyncio.Future[ModuleType]:
    return loop.run_in_executor(None, import_module, "airflow_provider_quicksync.polling")


async def _listings(conn_id: str, session_id: str | None, interval: float) -> AsyncGenerator[Listing]:
    """
    Every listing of the session, as the connection names it.

    A watch has no task to fail, and Airflow starts one that ends again at once: where looking is hopeless it
    says so, and looks again after a pause, at what the connection says then.
    """
    from airflow_provider_quicksync.client import QuickSyncError
    from airflow_provider_quicksync.polling import BUSY_SECONDS, poller_for

    while True:
        try:
            async with aclosing(poller_for(conn_id, session_id).listings(interval)) as listings:
                async for listing in listings:
                    yield listing
        except QuickSyncError as error:
            pause = max(interval, BUSY_SECONDS)
            log.error(
                "watching for files of connection %r: %s; looking again in %.0f s", conn_id, error, pause
            )
            await asyncio.sleep(pause)

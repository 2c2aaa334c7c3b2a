"""Waiting without a worker: triggers hold plain values, share one poll, and yield one small event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent


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
        is the one file's metadata, or the list of them where ``end_task`` is ``"many"``.
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
                xcom: Any = files if self.end_task == "many" else files[0]
                yield TaskSuccessEvent(xcoms={"return_value": xcom})
                return
            event = {"status": "complete", "files": files}
        yield TriggerEvent({**event, "payload": self.payload})  # type: ignore[no-untyped-call]

"""A trigger that does nothing: what is measured with it is what Airflow itself takes for a deferred task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class SleepingTrigger(BaseTrigger):
    """Sleep until it is cancelled."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path; there are no arguments."""
        return "sleeping.SleepingTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep."""
        await asyncio.get_running_loop().create_future()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]

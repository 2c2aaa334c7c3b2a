"""
One DAG uploads a report, another starts when it is there, and knows from the asset's event what to fetch.

The event carries the upload's receipt: the file's key, its size and its SHA-256.
"""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_quicksync.assets import create_asset
from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

REPORT = create_asset(name="examples/report.csv")


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), tags=["example", "quicksync"])
def quicksync_assets_produce():
    """Upload the report; the event comes once QuickSync has completed it."""
    UploadToQuickSyncOperator(
        task_id="upload",
        data="region,amount\nnorth,1\n",
        name="examples/report.csv",
        if_exists="replace",
        wait_for_completion=True,
        poke_interval=2,
        outlets=[REPORT],
    )


@dag(schedule=[REPORT], start_date=datetime(2026, 1, 1, tzinfo=UTC), tags=["example", "quicksync"])
def quicksync_assets_consume():
    """Fetch exactly the file of the event."""

    @task(inlets=[REPORT])
    def read(inlet_events=None) -> str:
        """Take the newest event's receipt; fetching checks its SHA-256."""
        receipt = inlet_events[REPORT][-1].extra
        with tempfile.TemporaryDirectory() as folder, QuickSyncHook() as hook:
            path = os.path.join(folder, "report.csv")
            hook.download_file(dict(receipt), path)
            with open(path) as file:
                return file.read()

    read()


quicksync_assets_produce()
quicksync_assets_consume()

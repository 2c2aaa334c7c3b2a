"""
Start a DAG when reports are completed in QuickSync (Airflow 3).

The triggerer watches the session; each file makes one event, also over restarts of the triggerer (3.3).
Airflow may put several events into one run.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import Asset, dag, task

from airflow_provider_quicksync.triggers import QuickSyncFileEventTrigger

try:
    from airflow.sdk import AssetWatcher
except ImportError:  # Airflow 2.11 has no event-driven scheduling
    reports = Asset("quicksync-reports")
else:
    trigger = QuickSyncFileEventTrigger(name_pattern="reports/*", poke_interval=30)
    reports = Asset("quicksync-reports", watchers=[AssetWatcher(name="quicksync", trigger=trigger)])


@dag(
    schedule=[reports],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "quicksync"],
)
def quicksync_on_new_file():
    """A run for new reports."""

    @task
    def look(triggering_asset_events: dict | None = None) -> list[str]:
        """The names of the files that started this run."""
        events = [event for group in (triggering_asset_events or {}).values() for event in group]
        return [event.extra["payload"]["file"]["name"] for event in events if "payload" in event.extra]

    look()


quicksync_on_new_file()

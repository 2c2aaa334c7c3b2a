"""
Read and write QuickSync as if it were a file system, with Airflow's `ObjectStoragePath`.

`quicksync://quicksync_default@/…`: the connection before the `@`, then the file's name in QuickSync.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import ObjectStoragePath, dag, task

BASE = ObjectStoragePath("quicksync://quicksync_default@/examples/sales")


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), tags=["example", "quicksync"])
def quicksync_object_storage():
    """Paths in plain tasks."""

    @task
    def write(region: str) -> ObjectStoragePath:
        """Write a table of one region; it is complete when the file is closed."""
        path = BASE / f"{region}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["region", "amount"], [region, len(region)]])
        return path

    @task
    def total(paths: list[ObjectStoragePath]) -> int:
        """Read every table through its path."""
        amount = 0
        for path in paths:
            rows = csv.DictReader(path.read_text().splitlines())
            amount += sum(int(row["amount"]) for row in rows)
        return amount

    @task
    def clean_up() -> list[str]:
        """Remove what is in the folder, all versions of it."""
        names = sorted(path.name for path in BASE.iterdir())
        for name in names:
            (BASE / name).unlink()
        return names

    total(write.expand(region=["north", "south"])) >> clean_up()


quicksync_object_storage()

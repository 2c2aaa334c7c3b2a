"""
Archive what a pipeline wrote: one mapped upload per report, then one sensor for all of them.

Running it again sends only what is not there yet.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_quicksync.operators import UploadToQuickSyncOperator
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), tags=["example", "quicksync"])
def quicksync_archive_folder():
    """One upload per report, one sensor for all."""

    @task
    def make_reports() -> list[dict]:
        """Write three reports; what to upload, and under which name."""
        folder = Path(tempfile.mkdtemp(prefix="reports-"))
        arguments = []
        for region in ("north", "south", "west"):
            path = folder / f"{region}.csv"
            path.write_text("region,amount\n" + f"{region},1\n" * 1000)
            arguments.append({"source": str(path), "name": f"reports/{region}.csv"})
        return arguments

    uploads = UploadToQuickSyncOperator.partial(task_id="upload", if_exists="skip").expand_kwargs(
        make_reports()
    )
    QuickSyncUploadCompletionSensor(
        task_id="wait", file_key=uploads.output, mode="reschedule", poke_interval=5, timeout=600
    )


quicksync_archive_folder()

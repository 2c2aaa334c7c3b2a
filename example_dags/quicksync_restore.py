"""
Archive a day's files with a manifest, and restore the day from it: every file checked by its SHA-256.

The manifest is the list of receipts, kept beside the files.
"""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_quicksync.operators import DownloadFromQuickSyncOperator, UploadToQuickSyncOperator

ARCHIVE = ObjectStoragePath("quicksync://quicksync_default@/archive")
PARAMS = {"day": Param("2026-11-22", type="string")}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    tags=["example", "quicksync"],
    params=PARAMS,
)
def quicksync_archive_day():
    """Upload what a day has made, then its manifest."""

    @task
    def make_files() -> str:
        """Write a few files; a glob of them."""
        folder = Path(tempfile.mkdtemp(prefix="day-"))
        for hour in range(3):
            (folder / f"{hour:02}.log").write_text(f"hour {hour}\n" * 1000)
        return f"{folder}/*.log"

    upload = UploadToQuickSyncOperator(
        task_id="upload", source=make_files(), name="archive/{{ params.day }}/", wait_for_completion=True
    )

    @task
    def write_manifest(receipts: list[dict], params: dict) -> str:
        """Keep the receipts where the files are."""
        manifest = ARCHIVE / params["day"] / "manifest.json"
        manifest.write_text(json.dumps(receipts))
        return str(manifest)

    write_manifest(upload.output)


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    tags=["example", "quicksync"],
    params={**PARAMS, "to": Param("/tmp/quicksync-restored", type="string")},
)
def quicksync_restore_day():
    """Fetch what the manifest names; a file that isn't what was archived fails the task."""

    @task
    def read_manifest(params: dict) -> list[dict]:
        """Read the receipts."""
        return json.loads((ARCHIVE / params["day"] / "manifest.json").read_text())

    restore = DownloadFromQuickSyncOperator(
        task_id="restore", file_key=read_manifest(), path="{{ params.to }}", if_exists="replace"
    )

    @task(multiple_outputs=False)  # names with slashes are no keys for XComs of their own
    def verify(restored: list[dict]) -> dict[str, int]:
        """Look at what is on disk now."""
        return {file["name"]: Path(file["path"]).stat().st_size for file in restored}

    verify(restore.output)


quicksync_archive_day()
quicksync_restore_day()

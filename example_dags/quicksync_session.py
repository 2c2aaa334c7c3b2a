"""
A session for one run: opened before its tasks, closed after them, whatever became of them.

The connection `quicksync_default` holds a wallet's private key instead of a session token, so nobody has to
renew anything. Files and links end with the session: hand out what you need before it is closed.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.operators import (
    CreateQuickSyncSessionOperator,
    DeleteQuickSyncSessionOperator,
    UploadToQuickSyncOperator,
)
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), tags=["example", "quicksync"])
def quicksync_session():
    """Open a session, upload a folder, wait, hand out links, close the session."""
    session = CreateQuickSyncSessionOperator(task_id="open_session", expiry_seconds=3600).as_setup()

    @task
    def make_reports() -> str:
        """Write three reports; what to upload."""
        folder = Path(tempfile.mkdtemp(prefix="reports-"))
        for region in ("north", "south", "west"):
            (folder / f"{region}.csv").write_text("region,amount\n" + f"{region},1\n" * 1000)
        return str(folder / "*.csv")

    upload = UploadToQuickSyncOperator(
        task_id="upload", source=make_reports(), name="reports/", session_id=session.output
    )
    wait = QuickSyncUploadCompletionSensor(
        task_id="wait", file_key=upload.output, session_id=session.output, poke_interval=2, timeout=600
    )

    @task
    def hand_out(receipts: list[dict], session: dict) -> list[str]:
        """Make a link to each file. Links are secrets: they are used here, and not returned."""
        with QuickSyncHook(session_id=session) as hook:
            links = {receipt["name"]: hook.get_download_url(receipt) for receipt in receipts}
            print(f"{len(links)} links were made, to be sent to who may read the reports")
            return sorted(links)

    close = DeleteQuickSyncSessionOperator(task_id="close_session", session_id=session.output).as_teardown(
        setups=session
    )
    session >> upload
    wait >> hand_out(upload.output, session.output) >> close


quicksync_session()

"""
Upload a file to QuickSync, wait until the service has completed it, check it, and delete it.

The connection `quicksync_default` holds the session token. Trigger it with a `path` of your own, or let
the first task make a file of `size_mib` MiB.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.operators import DeleteQuickSyncFileOperator, UploadToQuickSyncOperator
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    tags=["example", "quicksync"],
    params={
        "path": Param("/tmp/quicksync-example.bin", type="string"),
        "size_mib": Param(16, type="integer"),
    },
)
def quicksync_upload_wait_delete():
    """Upload, wait, check, delete."""

    @task
    def make_file(params: dict) -> str:
        """Write a file, unless there is one."""
        path = params["path"]
        if not os.path.exists(path):
            with open(path, "wb") as file:
                for _ in range(params["size_mib"]):
                    file.write(os.urandom(1 << 20))
        return path

    upload = UploadToQuickSyncOperator(task_id="upload", source=make_file(), name="examples/{{ run_id }}.bin")
    wait = QuickSyncUploadCompletionSensor(
        task_id="wait", file_key=upload.output, poke_interval=2, timeout=600
    )

    @task
    def check(receipt: dict) -> dict:
        """Fetch the file through its link, and compare size and SHA-256 with the receipt."""
        target = f"/tmp/{receipt['file_key']}.bin"
        try:
            with QuickSyncHook() as hook:
                return hook.download_file(receipt, target)
        finally:
            if os.path.exists(target):
                os.remove(target)

    delete = DeleteQuickSyncFileOperator(task_id="delete", file_key=upload.output)
    wait >> check(upload.output) >> delete


quicksync_upload_wait_delete()

"""Use the hook in plain `@task` functions: store a result, look it up by name, hand out a link."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_quicksync.hooks import QuickSyncHook


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), tags=["example", "quicksync"])
def quicksync_hook_in_task():
    """The hook in plain tasks."""

    @task
    def store() -> dict:
        """Upload a small document without writing it to disk, replacing the one of the last run."""
        with QuickSyncHook() as hook:
            return hook.upload_data(json.dumps({"rows": 42}), "examples/result.json", if_exists="replace")

    @task
    def find(receipt: dict) -> list[str]:
        """Find it again by its name; the link itself is a secret and stays in the task."""
        with QuickSyncHook() as hook:
            hook.wait_for_completion(receipt, poll_seconds=1)
            link = hook.get_download_url(receipt)
            print(f"a link of {len(link)} characters was made")
            return [file.file_key for file in hook.find_files(receipt["name"])]

    find(store())


quicksync_hook_in_task()

"""
Archive what is in an S3 bucket, without a file of its own on the worker's disk.

Objects are read by range, several parts at a time, and each byte once. Needs the Amazon provider with its
extra `s3fs`, and the connection `aws_default`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import Param, dag

from airflow_provider_quicksync.operators import UploadToQuickSyncOperator
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    tags=["example", "quicksync"],
    params={"source": Param("s3://aws_default@my-bucket/reports/**/*.csv", type="string")},
)
def quicksync_from_s3():
    """S3 to QuickSync."""
    upload = UploadToQuickSyncOperator(
        task_id="upload",
        source="{{ params.source }}",
        name="from-s3/",
        if_exists="skip",
        on_empty="skip",
    )
    QuickSyncUploadCompletionSensor(
        task_id="wait", file_key=upload.output, mode="reschedule", poke_interval=5, timeout=600
    )


quicksync_from_s3()

"""QuickSync's tasks. Importing them imports nothing heavy: the work is imported where it is done."""

from airflow_provider_quicksync.operators.delete import DeleteQuickSyncFileOperator
from airflow_provider_quicksync.operators.files import (
    DownloadFromQuickSyncOperator,
    ListQuickSyncFilesOperator,
)
from airflow_provider_quicksync.operators.session import (
    CreateQuickSyncSessionOperator,
    DeleteQuickSyncSessionOperator,
)
from airflow_provider_quicksync.operators.upload import UploadToQuickSyncOperator

__all__ = [
    "CreateQuickSyncSessionOperator",
    "DeleteQuickSyncFileOperator",
    "DeleteQuickSyncSessionOperator",
    "DownloadFromQuickSyncOperator",
    "ListQuickSyncFilesOperator",
    "UploadToQuickSyncOperator",
]

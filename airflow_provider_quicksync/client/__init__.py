"""QuickSync in plain Python: the API, the names and the transfers, usable without Airflow."""

from airflow_provider_quicksync.client.api import DEFAULT_BASE_URL, QuickSyncClient
from airflow_provider_quicksync.client.credentials import (
    CreatedSession,
    Credentials,
    JoinedSession,
    SessionToken,
)
from airflow_provider_quicksync.client.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    DeadlineError,
    LimitError,
    NotFoundError,
    QuickSyncError,
    RefusedError,
    SessionExpiredError,
    SourceChangedError,
    StoppedError,
    UnreachableError,
    UntrustedError,
    UsageError,
)
from airflow_provider_quicksync.client.http import HttpOptions
from airflow_provider_quicksync.client.models import (
    Admission,
    FileInfo,
    Receipt,
    SessionInfo,
    Upload,
    UploadedPart,
)
from airflow_provider_quicksync.client.names import NameCipher
from airflow_provider_quicksync.client.retry import RetryPolicy
from airflow_provider_quicksync.client.session_api import SessionApi, SessionRules
from airflow_provider_quicksync.client.transfer.download import DownloadOptions, DownloadReceipt, download
from airflow_provider_quicksync.client.transfer.plan import Plan, ServiceLimits, plan_parts
from airflow_provider_quicksync.client.transfer.sources import data_source, open_source
from airflow_provider_quicksync.client.transfer.upload import UploadOptions, upload, upload_many
from airflow_provider_quicksync.client.transfer.window import Stop

__all__ = [
    "DEFAULT_BASE_URL",
    "Admission",
    "BusyError",
    "ConflictError",
    "CreatedSession",
    "Credentials",
    "DamagedError",
    "DeadlineError",
    "DownloadOptions",
    "DownloadReceipt",
    "FileInfo",
    "HttpOptions",
    "JoinedSession",
    "LimitError",
    "NameCipher",
    "NotFoundError",
    "Plan",
    "QuickSyncClient",
    "QuickSyncError",
    "Receipt",
    "RefusedError",
    "RetryPolicy",
    "ServiceLimits",
    "SessionApi",
    "SessionExpiredError",
    "SessionInfo",
    "SessionRules",
    "SessionToken",
    "SourceChangedError",
    "Stop",
    "StoppedError",
    "UnreachableError",
    "UntrustedError",
    "Upload",
    "UploadOptions",
    "UploadedPart",
    "UsageError",
    "data_source",
    "download",
    "open_source",
    "plan_parts",
    "upload",
    "upload_many",
]

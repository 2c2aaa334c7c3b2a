"""
What Airflow asks of a provider for ``ObjectStoragePath``: its schemes, and a filesystem for a connection.

Airflow imports this as soon as any object storage is used, so it imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_quicksync.filesystem import QuickSyncFileSystem

schemes = ["quicksync"]


def get_fs(conn_id: str | None, storage_options: dict[str, Any] | None = None) -> QuickSyncFileSystem:
    """The filesystem of a connection, which is looked up when it is first used."""
    from airflow_provider_quicksync.filesystem import QuickSyncFileSystem

    return QuickSyncFileSystem(conn_id, **(storage_options or {}))

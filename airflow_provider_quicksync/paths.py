"""
``UPath("quicksync://conn_id@/name")``, which Airflow 3.2 and newer make of an ``ObjectStoragePath``.

universal-pathlib finds it by entry point. Importing it loads the filesystem, whose class tells paths apart
from connections.
"""

from __future__ import annotations

from fsspec import register_implementation  # type: ignore[import-untyped]
from upath import UPath

from airflow_provider_quicksync.filesystem import QuickSyncFileSystem

register_implementation("quicksync", QuickSyncFileSystem, clobber=True)


class QuickSyncPath(UPath):
    """A path of QuickSync."""

    __slots__ = ()

"""A QuickSync to run on this machine: HTTP on a socket, files and state on disk, faults to switch on.

Nothing here is imported by the client, and aiohttp is imported only when a server starts.
"""

from airflow_provider_quicksync.local.embedded import LocalQuickSync
from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.journal import Entry
from airflow_provider_quicksync.local.settings import Settings

__all__ = ["Entry", "Fault", "LocalQuickSync", "Settings"]

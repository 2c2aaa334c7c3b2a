"""The tasks that list QuickSync's files and fetch them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_quicksync.compat import renderable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quicksync.client import DownloadReceipt, Stop
    from airflow_provider_quicksync.targets import IfTargetExists


class ListQuickSyncFilesOperator(BaseOperator):
    """
    List the session's files.

    Returns a list of metadata, in the service's order, oldest first: ``file_key``, ``name``, ``raw_name``,
    ``creator_id``, ``completed``, ``total_parts``, ``size_bytes``.

    :param name_pattern: which files, by their whole names, as a shell would match them, but that ``*`` also
        matches ``/``. (templated)
    :param completed_only: leave out what the service hasn't completed yet.
    :param session_id: the session, where it isn't the connection's: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("name_pattern", "session_id", "quicksync_conn_id")
    ui_color = "#d8ecf3"

    def __init__(
        self,
        *,
        name_pattern: str = "*",
        completed_only: bool = True,
        session_id: Any = None,
        quicksync_conn_id: str = "quicksync_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name_pattern = name_pattern
        self.completed_only = completed_only
        self.session_id = session_id
        self._names_session = session_id is not None
        self.quicksync_conn_id = quicksync_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask once."""
        from fnmatch import fnmatchcase

        from airflow_provider_quicksync.hooks import no_retry_where_hopeless, task_hook

        with no_retry_where_hopeless(), task_hook(self) as hook:
            files = [
                file.as_dict()
                for file in hook.list_files()
                if fnmatchcase(file.name or "", self.name_pattern)
                and (file.completed or not self.completed_only)
            ]
        self.log.info("%d files match %r", len(files), self.name_pattern)
        return files


class DownloadFromQuickSyncOperator(BaseOperator):
    """
    Fetch completed files to this worker or to any other store.

    Returns a dict for one file, a list for several: ``file_key``, ``name``, ``size_bytes``, ``path``, and the
    ``sha256`` of what was fetched. A file gets its name only once it was checked: its size, and its SHA-256
    where a receipt tells it. Ranges are fetched in parallel, and a cut is gone on with.

    :param file_key: a file key, a receipt, other metadata, or a list of any. (templated)
    :param path: a local path, a URL that Airflow's object storage writes, or an ``ObjectStoragePath``. For
        several files, or where it ends in ``/``, the folder that each is put in by its name. Folders are made
        as needed. (templated)
    :param if_exists: ``replace`` what is there; ``skip`` what is there with the file's size; or ``fail``
        before anything is fetched. (templated)
    :param checksum: compute SHA-256 also where nothing is there to compare it with.
    :param max_concurrency: ranges on the way at the same time; by default 4.
    :param session_id: the session, where it isn't the connection's: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("file_key", "path", "if_exists", "session_id", "quicksync_conn_id")
    ui_color = "#d8ecf3"

    def __init__(
        self,
        *,
        file_key: Any,
        path: Any,
        if_exists: IfTargetExists = "replace",
        checksum: bool = True,
        max_concurrency: int | None = None,
        session_id: Any = None,
        quicksync_conn_id: str = "quicksync_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file_key = file_key
        self.path = renderable(path)
        self.if_exists = if_exists
        self.checksum = checksum
        self.max_concurrency = max_concurrency
        self.session_id = session_id
        self._names_session = session_id is not None
        self.quicksync_conn_id = quicksync_conn_id
        self._stop: Stop | None = None
        self._lineage: tuple[str, list[Any]] | None = None

    def execute(self, context: Context) -> DownloadReceipt | list[DownloadReceipt]:
        """Look at every target, then fetch one file after the other."""
        from airflow_provider_quicksync.assets import asset_host
        from airflow_provider_quicksync.client import Stop
        from airflow_provider_quicksync.hooks import no_retry_where_hopeless, task_hook
        from airflow_provider_quicksync.receipts import is_single
        from airflow_provider_quicksync.targets import fetch_all

        self._stop = Stop()
        with no_retry_where_hopeless(), task_hook(self, max_concurrency=self.max_concurrency) as hook:
            receipts = fetch_all(
                hook, self.file_key, self.path, self.if_exists, checksum=self.checksum, stop=self._stop
            )
            self._lineage = asset_host(hook.get_conn().base_url), list(receipts)
        return receipts[0] if is_single(self.file_key) else receipts

    def on_kill(self) -> None:
        """Stop; what was half fetched is removed."""
        if self._stop is not None:
            self._stop.request()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What was read and written."""
        from airflow_provider_quicksync.lineage import of_download

        return of_download(*self._lineage) if self._lineage else None

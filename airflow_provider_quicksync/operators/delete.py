"""The task that deletes from QuickSync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class DeleteQuickSyncFileOperator(BaseOperator):
    """
    Delete files from QuickSync.

    Every file is tried, whatever happens to the others. Returns ``{"deleted": [keys], "missing": [keys]}``.

    :param file_key: a file key, a receipt, or a list of either. (templated)
    :param ignore_missing: whether a file that isn't there is fine.
    :param session_id: the session, where it isn't the connection's: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("file_key", "session_id", "quicksync_conn_id")
    ui_color = "#f3ded8"

    def __init__(
        self,
        *,
        file_key: Any,
        ignore_missing: bool = True,
        session_id: Any = None,
        quicksync_conn_id: str = "quicksync_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file_key = file_key
        self.ignore_missing = ignore_missing
        self.session_id = session_id
        self._names_session = session_id is not None
        self.quicksync_conn_id = quicksync_conn_id
        self._lineage: tuple[str, list[Any]] | None = None

    def execute(self, context: Context) -> dict[str, list[str]]:
        """Delete each, then report what failed."""
        from airflow_provider_quicksync.assets import asset_host
        from airflow_provider_quicksync.client import QuickSyncError
        from airflow_provider_quicksync.client.errors import summed_up
        from airflow_provider_quicksync.hooks import no_retry_where_hopeless, task_hook
        from airflow_provider_quicksync.receipts import as_file_keys, as_receipts

        result: dict[str, list[str]] = {"deleted": [], "missing": []}
        failures: list[QuickSyncError] = []
        with no_retry_where_hopeless(), task_hook(self) as hook:
            keys, host = as_file_keys(self.file_key), asset_host(hook.get_conn().base_url)
            for key in keys:
                try:
                    there = hook.delete_file(key, ignore_missing=self.ignore_missing)
                    result["deleted" if there else "missing"].append(key)
                except QuickSyncError as error:
                    self.log.error("%s", error)
                    failures.append(error)
            deleted = [file for file in as_receipts(self.file_key) if file["file_key"] in result["deleted"]]
            self._lineage = host, deleted
            self.log.info("deleted %d of %d files", len(result["deleted"]), len(keys))
            if failures:
                raise summed_up(failures, f"{len(failures)} of {len(keys)} files were not deleted")
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What is gone."""
        from airflow_provider_quicksync.lineage import of_delete

        return of_delete(*self._lineage) if self._lineage else None

"""Waiting until QuickSync has completed files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class QuickSyncUploadCompletionSensor(BaseSensorOperator):
    """
    Wait until files are complete: until the service has finished with what was uploaded.

    Returns a file's metadata, or a list where a list was given. A file that isn't there (any more), refused
    credentials and an expired session fail at once; a busy or unreachable service is waited out until the
    timeout.

    :param file_key: a file key, a receipt, or a list of either. (templated)
    :param quicksync_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("file_key", "quicksync_conn_id")
    ui_color = "#e3f3d8"

    def __init__(self, *, file_key: Any, quicksync_conn_id: str = "quicksync_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file_key = file_key
        self.quicksync_conn_id = quicksync_conn_id

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        from airflow_provider_quicksync.client import QuickSyncError
        from airflow_provider_quicksync.hooks import QuickSyncHook, no_retry_where_hopeless
        from airflow_provider_quicksync.receipts import as_file_keys, is_single

        with no_retry_where_hopeless(), QuickSyncHook(self.quicksync_conn_id) as hook:
            keys = as_file_keys(self.file_key)
            try:
                verdict = hook.check_completion(keys)
            except QuickSyncError as error:
                if not error.retryable:
                    raise
                self.log.warning("%s; looking again later", error)
                return PokeReturnValue(is_done=False)
        if not verdict.done:
            self.log.info("%d of %d files are complete, waiting", len(verdict.files), len(keys))
            return PokeReturnValue(is_done=False)
        files = [file.as_dict() for file in verdict.files]
        return PokeReturnValue(is_done=True, xcom_value=files[0] if is_single(self.file_key) else files)

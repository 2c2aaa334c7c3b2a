"""Waiting until QuickSync has completed files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_quicksync.links import QuickSyncFileLink, leave_link
from airflow_provider_quicksync.triggers import QuickSyncUploadCompletionTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quicksync.hooks import QuickSyncHook


class QuickSyncUploadCompletionSensor(BaseSensorOperator):
    """
    Wait until files are complete: until the service has finished with what was uploaded.

    Returns a file's metadata, or a list where a list was given. A file that isn't there (any more), refused
    credentials and an expired session fail at once; a busy or unreachable service is waited out until the
    timeout. All of Airflow's sensor arguments work in every mode.

    :param file_key: a file key, a receipt, or a list of either. (templated)
    :param session_id: the session, where it isn't the connection's: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection. (templated)
    :param deferrable: wait in the triggerer, where all who wait share one poll, and not on a worker.
    :param end_from_trigger: with ``deferrable``, end the task from the triggerer when the files are
        complete, without a worker; callbacks and outlets of the task don't run then, and no task may be
        mapped over its result.
    """

    template_fields: Sequence[str] = ("file_key", "session_id", "quicksync_conn_id")
    ui_color = "#e3f3d8"
    operator_extra_links = (QuickSyncFileLink(),)

    def __init__(
        self,
        *,
        file_key: Any,
        session_id: Any = None,
        quicksync_conn_id: str = "quicksync_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file_key = file_key
        self.session_id = session_id
        self._names_session = session_id is not None
        self.quicksync_conn_id = quicksync_conn_id
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger

    def execute(self, context: Context) -> Any:
        """Look once, and defer if that isn't enough; or poke as Airflow's sensors do."""
        if not self.deferrable:
            return super().execute(context)
        try:
            now = self.poke(context)
        except Exception as error:
            self._fail(error)
        else:
            if now.is_done:
                return now.xcom_value
        return self._wait(until=time.time() + self.timeout)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Take what the trigger found."""
        if not isinstance(event, dict):  # dag.test() resumes a task that its trigger has ended
            return self.poke(context).xcom_value
        if event["status"] == "complete":
            return self._result(context, self._hook(), event["files"])
        from airflow_provider_quicksync.hooks import error_of_event

        self._fail(error_of_event(event))
        return self._wait(until=event["payload"]["until"])

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow does it; a time-out is one on every version, and says what was waited for."""
        # 2.11 says "Trigger/execution timeout", newer ones "Trigger timeout".
        if next_method != "__fail__" or "timeout" not in str((next_kwargs or {}).get("error")):
            return super().resume_execution(next_method, next_kwargs, context)
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(f"skipped, as the sensor may not fail: {self._timed_out()}")
        raise AirflowSensorTimeout(self._timed_out())

    def _timed_out(self) -> str:
        from airflow_provider_quicksync.receipts import as_file_keys

        keys = as_file_keys(self.file_key)
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return f"not complete after {self.timeout:,.0f} s: {', '.join(keys[:3])}{more}"

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        from airflow_provider_quicksync.client import QuickSyncError
        from airflow_provider_quicksync.hooks import no_retry_where_hopeless
        from airflow_provider_quicksync.receipts import as_file_keys

        with no_retry_where_hopeless(), self._hook() as hook:
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
        return PokeReturnValue(is_done=True, xcom_value=self._result(context, hook, files))

    def _hook(self) -> QuickSyncHook:
        from airflow_provider_quicksync.hooks import task_hook

        return task_hook(self)

    def _session(self) -> str | None:
        from airflow_provider_quicksync.receipts import named_session

        return named_session(self.session_id, was_given=self._names_session)

    def _result(self, context: Context, hook: QuickSyncHook, files: list[dict[str, Any]]) -> Any:
        from airflow_provider_quicksync.receipts import is_single

        if files:
            leave_link(context, hook.configuration.settings, files[-1])
        return files[0] if is_single(self.file_key) else files

    def _wait(self, *, until: float) -> None:
        from airflow_provider_quicksync.receipts import as_file_keys, is_single

        left, longest, end_task = until - time.time(), None, None
        if left <= 0 < self.timeout:
            raise AirflowSensorTimeout(self._timed_out())
        if self.end_from_trigger:
            end_task = ("one" if is_single(self.file_key) else "many") if self.do_xcom_push else "silently"
        if self.exponential_backoff:
            longest = self.max_wait.total_seconds() if self.max_wait else self.timeout
        trigger = QuickSyncUploadCompletionTrigger(
            file_keys=as_file_keys(self.file_key),
            quicksync_conn_id=self.quicksync_conn_id,
            session_id=self._session(),
            poke_interval=self.poke_interval,
            longest_interval=longest,
            payload={"until": until},
            end_task=end_task,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=left))

    def _fail(self, error: Exception) -> None:
        """Fail, skip, or (``silent_fail``) look again, as Airflow does where a poke fails."""
        final = isinstance(error, AirflowFailException)
        if isinstance(error, AirflowSkipException):
            raise error
        if self.silent_fail and not final:
            self.log.error("%s; looking again later", error)
            return
        if self.never_fail or (final and self.soft_fail):
            raise AirflowSkipException(f"skipped, as the sensor may not fail: {error}") from error
        raise error

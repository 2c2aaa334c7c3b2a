"""The task that uploads to QuickSync."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator, conf

from airflow_provider_quicksync.compat import renderable
from airflow_provider_quicksync.links import QuickSyncFileLink, leave_link
from airflow_provider_quicksync.triggers import QuickSyncUploadCompletionTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_quicksync.client import Receipt, Stop
    from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
    from airflow_provider_quicksync.client.transfer.existing import IfExists
    from airflow_provider_quicksync.hooks import QuickSyncHook


class UploadToQuickSyncOperator(BaseOperator):
    """
    Upload files, or data, to QuickSync.

    Returns a receipt for one source, a list of receipts for a list or a glob. A failed or killed task
    leaves no unfinished upload behind where the service can be reached.

    :param source: a path, a URL that Airflow's object storage reads, a glob of either, an
        ``ObjectStoragePath``, or a list of these. (templated)
    :param data: bytes, or text to be sent as UTF-8, instead of ``source``; needs a ``name``. (templated)
    :param name: the file's name in QuickSync; for several files, what goes before the name of each, ending
        in ``/``. (templated)
    :param if_exists: ``add`` another file of that name; ``skip`` what is there and complete; ``replace`` the
        older files of the same creator, once the new one is complete (waits for it); or ``fail``. (templated)
    :param on_empty: whether the task is to ``fail`` or ``skip`` where a list or a glob names no file.
    :param wait_for_completion: end only when the service has completed every file.
    :param deferrable: wait in the triggerer, where all who wait share one poll, and not on a worker.
    :param poke_interval: seconds between two looks while waiting.
    :param completion_timeout: seconds to wait at most.
    :param checksum: put the SHA-256 of the file into the receipt.
    :param durable: whether a retry goes on where a failed or killed attempt stopped, also on another worker
        (Airflow 3.3 and newer; before, a retry starts again).
    :param part_size_mib: size of the parts in MiB; by default from the file's size.
    :param max_concurrency: parts, or small files, on the way at the same time; by default 8.
    :param session_id: the session, where it isn't the connection's: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = (
        "source",
        "data",
        "name",
        "if_exists",
        "session_id",
        "quicksync_conn_id",
    )
    ui_color = "#d8ecf3"
    operator_extra_links = (QuickSyncFileLink(),)

    def __init__(
        self,
        *,
        source: Any = None,
        data: bytes | str | None = None,
        name: str | None = None,
        if_exists: IfExists = "add",
        on_empty: str = "fail",
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float = 5.0,
        completion_timeout: float = 3600.0,
        checksum: bool = True,
        durable: bool = True,
        part_size_mib: float | None = None,
        max_concurrency: int | None = None,
        session_id: Any = None,
        quicksync_conn_id: str = "quicksync_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = renderable(source)
        self.data = data
        self.name = name
        self.if_exists = if_exists
        self.on_empty = on_empty
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = poke_interval
        self.completion_timeout = completion_timeout
        self.checksum = checksum
        self.durable = durable
        self.part_size_mib = part_size_mib
        self.max_concurrency = max_concurrency
        self.session_id = session_id
        self._names_session = session_id is not None
        self.quicksync_conn_id = quicksync_conn_id
        self._stop: Stop | None = None
        self._resume: Checkpoint | None = None
        self._lineage: tuple[str, list[Receipt]] | None = None

    def execute(self, context: Context) -> Receipt | list[Receipt]:
        """Upload; wait and replace where that is asked for."""
        from airflow_provider_quicksync.client import Stop
        from airflow_provider_quicksync.hooks import no_retry_where_hopeless

        self._stop, self._resume = Stop(), self._checkpoint(context)
        with no_retry_where_hopeless(), self._hook() as hook, hook.cleaning_up(self._resume):
            items = self._items()
            receipts, older = hook.upload_sources(
                items,
                if_exists=self.if_exists,
                checksum=self.checksum,
                stop=self._stop,
                checkpoint=self._resume,
            )
            if (self.wait_for_completion or older) and not self._complete(hook, receipts, older):
                self._wait(hook, receipts)
            return self._finish(context, hook, receipts, older)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Receipt | list[Receipt]:
        """Go on after the trigger has waited."""
        from airflow_provider_quicksync.hooks import error_of_event, no_retry_where_hopeless

        if event["status"] != "complete":
            raise error_of_event(event)
        self._resume = self._checkpoint(context)
        session_id = event["payload"].get("session_id")
        with no_retry_where_hopeless(), self._hook(session_id) as hook:
            return self._finish(context, hook, event["payload"]["receipts"], event["payload"]["older"])

    def on_kill(self) -> None:
        """Stop the transfer; what was begun is removed by the thread that began it."""
        if self._stop is not None:
            self._stop.request()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What was read and written."""
        from airflow_provider_quicksync.lineage import of_upload

        return of_upload(self.source, *self._lineage) if self._lineage else None

    def _complete(self, hook: QuickSyncHook, receipts: list[Receipt], older: list[str]) -> bool:
        """Look once; defer where that isn't enough and the task is to wait without a worker."""
        keys = [receipt["file_key"] for receipt in receipts]
        from airflow_provider_quicksync.client import QuickSyncError

        try:
            if hook.check_completion(keys).done:
                return True
        except QuickSyncError as error:
            if not error.retryable:
                raise
            self.log.warning("%s; looking again later", error)
        if self.deferrable:
            session_id = hook.session_to_name
            trigger = QuickSyncUploadCompletionTrigger(
                file_keys=keys,
                quicksync_conn_id=self.quicksync_conn_id,
                session_id=session_id,
                poke_interval=self.poke_interval,
                payload={"receipts": receipts, "older": older, "session_id": session_id},
            )
            timeout = timedelta(seconds=self.completion_timeout)
            self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)
        return False

    def _wait(self, hook: QuickSyncHook, receipts: list[Receipt]) -> None:
        hook.wait_for_completion(
            receipts,
            poll_seconds=self.poke_interval,
            timeout_seconds=self.completion_timeout,
            stop=self._stop,
        )

    def _hook(self, session_id: str | None = None) -> QuickSyncHook:
        from airflow_provider_quicksync.hooks import QuickSyncHook
        from airflow_provider_quicksync.receipts import named_session

        named = session_id or named_session(self.session_id, was_given=self._names_session)
        return QuickSyncHook(
            self.quicksync_conn_id,
            part_size_mib=self.part_size_mib,
            max_concurrency=self.max_concurrency,
            session_id=named,
        )

    def _checkpoint(self, context: Context) -> Checkpoint | None:
        from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
        from airflow_provider_quicksync.compat import task_state_store

        if not self.durable:
            return None
        store = task_state_store(context)
        if store is None:
            self.log.info("this Airflow keeps no task state (3.3 and newer do): a retry starts again")
            return None
        ti = context["ti"]
        return Checkpoint(store, last_attempt=ti.try_number > ti.max_tries)

    def _items(self) -> list[tuple[Any, str]]:
        """The sources with their names, after checking what was asked for."""
        from airflow_provider_quicksync.client import NotFoundError, UsageError, data_source
        from airflow_provider_quicksync.sources import find_sources

        if self.on_empty not in ("fail", "skip"):
            raise UsageError(f"on_empty must be fail or skip, not {self.on_empty!r}")
        if self.name is not None and not isinstance(self.name, str):
            raise UsageError(f"name must be text, not {type(self.name).__name__} {self.name!r}")
        if (self.source is None) == (self.data is None):
            raise UsageError("an upload needs either source or data")
        if self.data is not None:
            if not self.name:
                raise UsageError("an upload of data needs a name")
            return [(data_source(self.data, name=self.name), self.name)]
        items = find_sources(self.source, self.name)
        if not items and self.on_empty == "skip":
            raise AirflowSkipException(f"no file matches {self.source!r}: nothing to upload")
        if not items:
            raise NotFoundError(
                f"no file matches {self.source!r} on this worker; on_empty='skip' would skip the task"
            )
        return items

    def _finish(
        self, context: Context, hook: QuickSyncHook, receipts: list[Receipt], older: list[str]
    ) -> Receipt | list[Receipt]:
        """Remove what was replaced, forget the resume state, and return the receipts as asked for."""
        from airflow_provider_quicksync.assets import asset_host, report
        from airflow_provider_quicksync.sources import several

        for key in older:
            hook.delete_file(key)
        for receipt in receipts:
            receipt["completed"] = receipt["completed"] or self.wait_for_completion or bool(older)
        host = asset_host(hook.get_conn().base_url)
        self._lineage = host, receipts
        is_list = self.data is None and several(self.source)
        report(context, self.outlets, host, receipts, several=is_list)
        if receipts:
            leave_link(context, hook.configuration.settings, receipts[-1])
        if self._resume:  # last: an attempt that fails before goes on from here
            self._resume.clear()
        return receipts if is_list else receipts[0]

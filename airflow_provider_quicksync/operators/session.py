"""The tasks that open and end a session: made for Airflow's setup and teardown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CreateQuickSyncSessionOperator(BaseOperator):
    """
    Create a session with the connection's wallet.

    Returns the session's id and rules, never its token; the other tasks take that as ``session_id``, and
    join it. Where the connection has a ``session_password``, the session gets it. A retry finds the session
    of an earlier attempt again (Airflow 3.3 and newer); what can't be found again ends by itself.

    :param expiry_seconds: how long the session lives; by default a day. What isn't uploaded by then never is.
    :param capacity: how many users it takes; by default the service's own.
    :param whitelist: the addresses of the wallets that may join, besides its own; by default all may.
    :param name: what its host is called; by default after the task. (templated)
    :param quicksync_conn_id: the connection, which has a ``wallet_private_key``. (templated)
    """

    template_fields: Sequence[str] = ("name", "quicksync_conn_id")
    ui_color = "#e8e0f3"

    def __init__(
        self,
        *,
        expiry_seconds: int | None = None,
        capacity: int | None = None,
        whitelist: Sequence[str] | str | None = None,
        name: str = "{{ dag.dag_id }}.{{ task.task_id }}",
        quicksync_conn_id: str = "quicksync_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.expiry_seconds = expiry_seconds
        self.capacity = capacity
        self.whitelist = whitelist
        self.name = name
        self.quicksync_conn_id = quicksync_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Create it, or find it again."""
        from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
        from airflow_provider_quicksync.compat import task_state_store
        from airflow_provider_quicksync.hooks import QuickSyncHook, no_retry_where_hopeless

        whitelist = self.whitelist
        if whitelist is not None and not isinstance(whitelist, str):
            whitelist = ",".join(whitelist)
        store = task_state_store(context)
        memory = None if store is None else Checkpoint(store)
        hook = QuickSyncHook(
            self.quicksync_conn_id,
            session_expiry_seconds=self.expiry_seconds,
            session_capacity=self.capacity,
            session_whitelist=whitelist,
        )
        with no_retry_where_hopeless(), hook:
            created = hook.create_session(self.name, memory=memory)
        if memory:
            memory.clear()
        return created


class DeleteQuickSyncSessionOperator(BaseOperator):
    """
    End a session for all who are in it, and with it its files; as its host, whose wallet created it.

    A session that has ended already is fine. Returns ``{"session_id": id, "deleted": whether it was there}``.

    :param session_id: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("session_id", "quicksync_conn_id")
    ui_color = "#f3ded8"

    def __init__(
        self, *, session_id: Any, quicksync_conn_id: str = "quicksync_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.session_id = session_id
        self.quicksync_conn_id = quicksync_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Join it and end it."""
        from airflow_provider_quicksync.hooks import QuickSyncHook, no_retry_where_hopeless
        from airflow_provider_quicksync.receipts import as_session_id

        with no_retry_where_hopeless():
            session_id = as_session_id(self.session_id)
            with QuickSyncHook(self.quicksync_conn_id, session_id=session_id) as hook:
                deleted = hook.delete_session()
        return {"session_id": session_id, "deleted": deleted}

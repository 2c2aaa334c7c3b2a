"""One huge upload over many workers: Airflow's executors are the distributed engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TriggerRule, task, task_group

from airflow_provider_quicksync.compat import renderable

if TYPE_CHECKING:
    from airflow_provider_quicksync.client import Receipt
    from airflow_provider_quicksync.client.transfer.sources import Source
    from airflow_provider_quicksync.client.transfer.spread import SentShare, Share


def upload_over_workers(
    group_id: str,
    *,
    source: Any,
    name: str | None = None,
    workers: int = 4,
    checksum: bool = True,
    part_size_mib: float | None = None,
    max_concurrency: int | None = None,
    session_id: Any = None,
    quicksync_conn_id: str = "quicksync_default",
) -> Any:
    """
    A task group that uploads one file with several mapped tasks, on as many workers as there are.

    Use it like a task: what it returns is the receipt. It initiates the upload, sends ranges of parts in
    mapped tasks, reads the checksum in a task of its own, and completes; if one of them fails for good, the
    unfinished upload is removed. Every worker must see the same file, by its size, time and both ends.

    :param group_id: the id of the task group.
    :param source: a path or URL that every worker can read. (templated)
    :param name: the file's name in QuickSync, by default the source's. (templated)
    :param workers: mapped tasks to send with.
    :param checksum: put the SHA-256 of the file into the receipt.
    :param part_size_mib: size of the parts in MiB; by default from the file's size.
    :param max_concurrency: parts on the way at the same time, for each worker.
    :param session_id: the session, where it isn't the connection's: its id, or what created it. (templated)
    :param quicksync_conn_id: the connection.
    """
    settings = {"part_size_mib": part_size_mib, "max_concurrency": max_concurrency}
    names_session = session_id is not None

    # Typed Any, as what tasks hand to each other while a DAG is built are references, not values. Without
    # `multiple_outputs`, 2.11 would want to see the types that are returned when the DAG is parsed.

    @task(task_id="initiate", multiple_outputs=False)
    def initiate(source: Any, name: Any, session_id: Any, **context: Any) -> list[Share]:
        from airflow_provider_quicksync.hooks import no_retry_where_hopeless
        from airflow_provider_quicksync.receipts import named_session

        with no_retry_where_hopeless():
            named = named_session(session_id, was_given=names_session)
        return _initiate(quicksync_conn_id, {**settings, "session_id": named}, source, name, workers, context)

    @task(task_id="send", multiple_outputs=False)
    def send(source: Any, share: Any) -> SentShare:
        return _send(quicksync_conn_id, settings, source, share)

    @task(task_id="checksum", multiple_outputs=False)
    def digest(source: Any, shares: Any) -> str:
        return _digest(source, shares[0])

    @task(task_id="complete", multiple_outputs=False)
    def complete(shares: Any, sha256: Any) -> Receipt:
        return _complete(quicksync_conn_id, settings, shares, sha256)

    @task(task_id="abort", multiple_outputs=False, trigger_rule=TriggerRule.ONE_FAILED)
    def abort(shares: Any) -> None:
        _abort(quicksync_conn_id, settings, shares[0] if shares else None)

    @task_group(group_id=group_id)
    def upload(source: Any, name: Any, session_id: Any) -> Any:
        shares = initiate(source, name, session_id)
        sent = send.partial(source=source).expand(share=shares)
        whole = digest(source, shares) if checksum else None
        receipt = complete(sent, whole)
        [task for task in (sent, whole, receipt) if task is not None] >> abort(shares)
        return receipt

    receipt: Any = upload(renderable(source), name, session_id)
    return receipt


def _open(source: Any) -> Source:
    """:raises UsageError: it isn't one file."""
    from airflow_provider_quicksync.client import UsageError
    from airflow_provider_quicksync.sources import find_sources, several

    if several(source):
        raise UsageError(
            f"upload_over_workers sends one file, not {source!r}: UploadToQuickSyncOperator sends several"
        )
    ((opened, _),) = find_sources(source, None)
    return opened


def _initiate(
    conn_id: str, settings: dict[str, Any], source: str, name: str | None, workers: int, context: Any
) -> list[Share]:
    from airflow_provider_quicksync.client import UploadOptions
    from airflow_provider_quicksync.client.session_rules import session_use
    from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
    from airflow_provider_quicksync.client.transfer.spread import initiate_shares
    from airflow_provider_quicksync.compat import task_state_store
    from airflow_provider_quicksync.hooks import QuickSyncHook, no_retry_where_hopeless

    with no_retry_where_hopeless(), QuickSyncHook(conn_id, **settings) as hook:
        client, opened = hook.get_conn(), _open(source)
        if use := session_use(client):
            rate = hook.configuration.settings.get("uplink_mib_per_second")
            use.check(1, opened.size_bytes, uplink_mib_per_second=rate and rate * workers)
        configuration, store = hook.configuration, task_state_store(context)
        options = UploadOptions(configuration.part_size_bytes, configuration.concurrency)
        checkpoint = Checkpoint(store) if store is not None else None
        shares = initiate_shares(
            client, opened, name or opened.name, workers, options=options, checkpoint=checkpoint
        )
        if checkpoint:
            checkpoint.clear()
        return shares


def _send(conn_id: str, settings: dict[str, Any], source: str, share: Share) -> SentShare:
    from airflow_provider_quicksync.client.transfer.progress import ProgressLog
    from airflow_provider_quicksync.client.transfer.spread import send_share
    from airflow_provider_quicksync.hooks import QuickSyncHook, no_retry_where_hopeless
    from airflow_provider_quicksync.metrics import measured_upload

    settings = {**settings, "session_id": share["session_id"]}
    with (
        no_retry_where_hopeless(),
        QuickSyncHook(conn_id, **settings) as hook,
        measured_upload(hook.get_conn()),
    ):
        what = f"uploading parts {share['first']} to {share['last']} of {share['name']!r}"
        return send_share(
            hook.get_conn(),
            _open(source),
            share,
            concurrency=hook.configuration.concurrency,
            progress=ProgressLog(hook.log, what),
        )


def _digest(source: str, share: Share) -> str:
    from airflow_provider_quicksync.client import Stop
    from airflow_provider_quicksync.client.transfer.checksum import FileDigest
    from airflow_provider_quicksync.client.transfer.sources import check_unchanged, open_unchanged
    from airflow_provider_quicksync.client.transfer.spread import check_mark

    opened = _open(source)
    check_mark(opened, share)
    whole = FileDigest(opened, Stop())
    open_unchanged(opened)
    try:
        whole.run()
        check_unchanged(opened)
    finally:
        opened.close()
    return whole.hexdigest()


def _complete(conn_id: str, settings: dict[str, Any], shares: list[SentShare], sha256: str | None) -> Receipt:
    from airflow_provider_quicksync.client.transfer.spread import complete_shares
    from airflow_provider_quicksync.hooks import QuickSyncHook, no_retry_where_hopeless

    settings = {**settings, "session_id": shares[0]["session_id"]}
    with no_retry_where_hopeless(), QuickSyncHook(conn_id, **settings) as hook:
        return complete_shares(hook.get_conn(), list(shares), sha256=sha256)


def _abort(conn_id: str, settings: dict[str, Any], share: Share | None) -> None:
    """Remove what was begun, and fail: a DAG run is judged by its last tasks, which may be this one alone."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    from airflow_provider_quicksync.hooks import QuickSyncHook

    if share:
        with QuickSyncHook(conn_id, **{**settings, "session_id": share["session_id"]}) as hook:
            hook.delete_file(share["file_key"])
    raise AirflowFailException("the upload was given up, as a task of it failed; nothing of it is left")

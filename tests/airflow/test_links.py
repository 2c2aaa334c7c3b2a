"""The link on a task: to a page, without a secret, and only of what the task has done."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quicksync.client import UsageError
from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.links import XCOM_KEY, QuickSyncFileLink
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor


@pytest.fixture
def links(run_dag):
    """Upload and wait; the receipt, and the links that both tasks left, as the UI asks for them."""

    def run(name="reports/ä b.csv"):
        from datetime import UTC, datetime

        with DAG(dag_id="linked", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            upload = UploadToQuickSyncOperator(task_id="upload", data="x", name=name)
            QuickSyncUploadCompletionSensor(task_id="wait", file_key=upload.output, poke_interval=0.01)
        result = run_dag(dag)
        assert result.state == "success", result.errors
        found = []
        for task_id in ("upload", "wait"):
            (ti,) = [ti for ti in result.dag_run.get_task_instances() if ti.task_id == task_id]
            task = dag.get_task(task_id)
            assert [link.name for link in task.operator_extra_links] == ["QuickSync file"]
            found.append(result.xcom(task_id, XCOM_KEY))
            assert _asked_by_the_ui(task, ti, result) == found[-1]
        return result.xcoms["upload"], found

    return run


def _asked_by_the_ui(task, ti, result):
    try:
        from airflow.sdk.bases.operatorlink import BaseOperatorLink  # noqa: F401
    except ImportError:  # 2.11 asks the link itself
        return QuickSyncFileLink().get_link(task, ti_key=ti.key)
    return result.xcom(ti.task_id, QuickSyncFileLink().xcom_key)  # where the worker has left it


def test_it_leads_to_quicksync(links, quicksync):
    _, found = links()
    assert found == ["https://quicksync.me"] * 2


def test_it_leads_to_the_page_of_the_connection(links, quicksync, connect):
    connect(quicksync, extra={"web_url": "https://share.example/s/{session_id}/{file_key}?name={name}"})
    receipt, found = links()
    url = (
        f"https://share.example/s/{quicksync.session_id}/{receipt['file_key']}?name=reports%2F%C3%A4%20b.csv"
    )
    assert found == [url] * 2
    assert quicksync.token not in url


@pytest.mark.parametrize(
    "url",
    ["share.example", "ftp://x", "https://user:pw@x/", "https://x/{token}", "https://x/{", "https://x/{0}"],
)
def test_a_page_that_can_not_be(quicksync, connect, url):
    connect(quicksync, extra={"web_url": url})
    with pytest.raises(UsageError, match=r"connection 'quicksync_default': web_url "):
        QuickSyncHook().get_conn()


def test_a_task_that_failed_leaves_none(run_task, quicksync):
    ran = run_task(UploadToQuickSyncOperator, source="/no/such/file")
    assert ran.state == "failed"

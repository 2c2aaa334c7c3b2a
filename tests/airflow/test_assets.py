"""Assets: their URIs, and the receipts on their events."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, AssetAlias, task

from airflow_provider_quicksync.assets import (
    asset_host,
    asset_name,
    convert_asset_to_openlineage,
    create_asset,
    sanitize_uri,
)
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("quicksync://API.QuickSync.me/reports/a.csv", "quicksync://api.quicksync.me/reports/a.csv"),
        ("quicksync://api.quicksync.me:443//reports/a.csv/", "quicksync://api.quicksync.me/reports/a.csv"),
        ("quicksync://127.0.0.1:8484/a b%20c.csv", "quicksync://127.0.0.1:8484/a%20b%20c.csv"),
        ("quicksync://h/%c3%a4", "quicksync://h/%C3%A4"),
        ("quicksync://Conn_ID@/a.csv", "quicksync://Conn_ID@/a.csv"),
    ],
)
def test_one_form_of_every_uri(given, meant):
    assert sanitize_uri(urlsplit(given)).geturl() == meant
    assert sanitize_uri(urlsplit(meant)).geturl() == meant


def test_a_uri_of_nothing():
    with pytest.raises(ValueError, match="quicksync://<host>/<name>"):
        sanitize_uri(urlsplit("quicksync:///"))


def test_airflow_uses_it():
    asset = Asset(uri="quicksync://API.quicksync.me:443/reports/a.csv/")
    assert asset.uri == "quicksync://api.quicksync.me/reports/a.csv"


@pytest.mark.parametrize("name", ["reports/2026.csv", "a b?c#d%e.csv", "Übersicht №1.csv"])
def test_a_name_survives_its_asset(name):
    asset = create_asset(name=name, extra={"team": "data"})
    assert asset.uri.startswith("quicksync://api.quicksync.me/")
    assert (asset_name(asset.uri), asset.extra) == (name, {"team": "data"})


def test_the_host_of_an_api():
    assert asset_host("https://API.quicksync.me:443/v1") == "api.quicksync.me"
    assert asset_host("http://127.0.0.1:8484/v1") == "127.0.0.1:8484"


def test_the_dataset_of_an_asset(quicksync):
    dataset = convert_asset_to_openlineage(create_asset(name="a/b c.csv"), None)
    assert (dataset.namespace, dataset.name) == ("quicksync://api.quicksync.me", "a/b c.csv")


@pytest.mark.filterwarnings("ignore:.* URI should not contain auth info:UserWarning")  # 2.11 and 3.0 drop it
def test_the_dataset_of_a_path(quicksync):
    asset = Asset(uri="quicksync://quicksync_default@reports/a.csv")
    if "@" in asset.uri:
        dataset = convert_asset_to_openlineage(asset, None)
        assert (dataset.namespace, dataset.name) == (
            f"quicksync://{asset_host(quicksync.url)}",
            "reports/a.csv",
        )


@pytest.fixture
def events(run_dag):
    """Run an upload with outlets, then a task that is told of their events; what it was told."""

    def run(outlets, **arguments):
        with DAG(dag_id="producing", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            UploadToQuickSyncOperator(task_id="upload", outlets=outlets, **arguments)
        result = run_dag(dag)
        assert result.state == "success", result.errors
        return result.xcoms["upload"], _events(result)

    return run


def _events(result):
    """The asset events of a run: (URI, extra), sorted."""
    from airflow.utils.session import create_session

    try:
        from airflow.models.asset import AssetEvent, AssetModel
    except ImportError:  # 2.11
        from airflow.models.dataset import DatasetEvent, DatasetModel

        rows = (DatasetEvent, DatasetModel, DatasetEvent.dataset_id == DatasetModel.id, DatasetEvent)
    else:
        rows = (AssetEvent, AssetModel, AssetEvent.asset_id == AssetModel.id, AssetEvent)
    event, model, joined, _ = rows
    with create_session() as session:
        found = session.query(model.uri, event.extra).filter(
            joined, event.source_run_id == result.dag_run.run_id, event.source_dag_id == "producing"
        )
        return sorted((uri, extra) for uri, extra in found)


def test_the_receipt_is_on_the_event(events, quicksync):
    asset = create_asset(name="reports/a.csv", host=f"127.0.0.1:{quicksync.port}")
    receipt, found = events([asset], data="a,b", name="reports/a.csv")
    assert receipt["sha256"]
    assert found == [(asset.uri, receipt)]


def test_each_asset_has_its_own_receipt(events, quicksync, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    one = create_asset(name="day/b", host="h")
    folder = create_asset(name="day/", host="h")
    other = create_asset(name="elsewhere", host="h")
    foreign = Asset(uri="s3://bucket/key")
    receipts, found = events([one, folder, other, foreign], source=str(tmp_path / "*"), name="day/")
    assert found == [
        ("quicksync://h/day", {"receipts": receipts}),
        ("quicksync://h/day/b", receipts[1]),
        ("quicksync://h/elsewhere", {"receipts": receipts}),
        ("s3://bucket/key", {}),
    ]


def test_an_alias_gets_an_asset_for_each_file(events, quicksync, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    receipts, found = events([AssetAlias("archive")], source=str(tmp_path / "*"), name="day/")
    host = asset_host(quicksync.url)
    assert found == [
        (f"quicksync://{host}/day/{name}", receipt) for name, receipt in zip("ab", receipts, strict=True)
    ]


def test_a_deferred_upload_reports_too(events, quicksync):
    quicksync.configure(complete_after_polls=2)
    asset = create_asset(name="a", host="h")
    receipt, found = events(
        [asset], data="x", name="a", wait_for_completion=True, deferrable=True, poke_interval=0.05
    )
    assert receipt["completed"]
    assert found == [(asset.uri, receipt)]


def test_a_dag_that_waits_for_an_asset_parses():
    with DAG(
        dag_id="consuming", schedule=[create_asset(name="a")], start_date=datetime(2026, 1, 1, tzinfo=UTC)
    ) as dag:

        @task
        def told():
            """Do nothing."""

        told()
    assert "told" in dag.task_dict


def test_the_example(run_dag, quicksync):
    for _ in range(2):
        produced = run_dag("quicksync_assets.py", dag_id="quicksync_assets_produce")
        assert produced.states == {"upload": "success"}, produced.errors
    consumed = run_dag("quicksync_assets.py", dag_id="quicksync_assets_consume")
    assert consumed.states == {"read": "success"}, consumed.errors
    assert consumed.xcoms["read"] == "region,amount\nnorth,1"


def test_the_example_with_another_file_than_the_event_says(run_dag, quicksync):
    run_dag("quicksync_assets.py", dag_id="quicksync_assets_produce")
    quicksync.fail("download", body="corrupt", times=None)
    consumed = run_dag("quicksync_assets.py", dag_id="quicksync_assets_consume")
    assert consumed.states == {"read": "failed"}
    assert "SHA-256 is" in str(consumed.errors["read"])

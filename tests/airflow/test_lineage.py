"""OpenLineage: what the tasks say they read and wrote."""

from __future__ import annotations

import pytest
from openlineage.client.serde import Serde

from airflow_provider_quicksync.assets import asset_host, convert_asset_to_openlineage, create_asset
from airflow_provider_quicksync.operators import (
    DeleteQuickSyncFileOperator,
    DownloadFromQuickSyncOperator,
    UploadToQuickSyncOperator,
)


@pytest.fixture
def told(run_task, monkeypatch):
    """Run a task; what its operator tells of it, as OpenLineage sends it."""

    def run(operator, **arguments):
        found = []
        execute = operator.execute

        def remembering(self, context):
            try:
                return execute(self, context)
            finally:
                found.append(self.get_openlineage_facets_on_complete(context["ti"]))

        monkeypatch.setattr(operator, "execute", remembering)
        ran = run_task(operator, **arguments)
        monkeypatch.setattr(operator, "execute", execute)
        (lineage,) = found
        return ran, lineage and _as_json(lineage)

    return run


def _as_json(lineage):
    return {side: [Serde.to_dict(one) for one in getattr(lineage, side)] for side in ("inputs", "outputs")}


def _file(facets):
    found = facets["quicksyncFile"]
    return found["fileKey"], found.get("sizeBytes"), found.get("sha256")


def test_an_upload(told, quicksync, tmp_path):
    (tmp_path / "a.csv").write_text("a,b")
    ran, lineage = told(UploadToQuickSyncOperator, source=str(tmp_path / "a.csv"), name="reports/a b.csv")
    receipt = ran.result
    (source,), (made,) = lineage["inputs"], lineage["outputs"]
    assert (source["namespace"], source["name"]) == ("file", str(tmp_path / "a.csv"))
    assert (made["namespace"], made["name"]) == (
        f"quicksync://{asset_host(quicksync.url)}",
        "reports/a b.csv",
    )
    assert _file(made["facets"]) == (receipt["file_key"], 3, receipt["sha256"])
    assert made["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "CREATE"
    assert made["outputFacets"]["outputStatistics"]["size"] == 3


def test_sources_in_other_stores(told, quicksync):
    with_conn = "quicksync://quicksync_default@/a.csv"
    quicksync.put("a.csv", b"x")
    _, lineage = told(UploadToQuickSyncOperator, source=[with_conn], name="copies/")
    assert len(lineage["inputs"]) == 1
    _, lineage = told(UploadToQuickSyncOperator, data="x", name="x")
    assert (lineage["inputs"], len(lineage["outputs"])) == ([], 1)


def test_a_download(told, run_task, quicksync, tmp_path):
    receipt = run_task(UploadToQuickSyncOperator, data="a,b", name="reports/a.csv").result
    _, lineage = told(DownloadFromQuickSyncOperator, file_key=receipt, path=str(tmp_path / "a.csv"))
    (read,), (written,) = lineage["inputs"], lineage["outputs"]
    assert read["name"] == "reports/a.csv"
    assert _file(read["facets"]) == (receipt["file_key"], 3, receipt["sha256"])
    assert (written["namespace"], written["name"]) == ("file", str(tmp_path / "a.csv"))
    assert written["outputFacets"]["outputStatistics"]["size"] == 3


def test_a_deletion(told, run_task, quicksync):
    receipt = run_task(UploadToQuickSyncOperator, data="a,b", name="reports/a.csv").result
    other = quicksync.put("other")
    _, lineage = told(DeleteQuickSyncFileOperator, file_key=[receipt, other, "missing"])
    assert [gone["name"] for gone in lineage["inputs"]] == ["reports/a.csv", f".by-key/{other}"]
    for gone in lineage["inputs"]:
        assert gone["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "DROP"


def test_a_task_that_failed_tells_nothing(told, quicksync):
    ran, lineage = told(UploadToQuickSyncOperator, source="/no/such/file")
    assert (ran.state, lineage) == ("failed", None)


def test_an_asset_is_the_same_dataset(told, quicksync):
    _, lineage = told(UploadToQuickSyncOperator, data="x", name="a b/c.csv")
    asset = create_asset(name="a b/c.csv", host=asset_host(quicksync.url))
    dataset = convert_asset_to_openlineage(asset, None)
    (made,) = lineage["outputs"]
    assert (made["namespace"], made["name"]) == (dataset.namespace, dataset.name)

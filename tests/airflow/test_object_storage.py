"""ObjectStoragePath and plain fsspec URLs, in tasks and as what operators read and write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pandas
import polars
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowNotFoundException, ObjectStoragePath, task
from airflow.providers.common.io.operators.file_transfer import FileTransferOperator

from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

TABLE = {"region": ["north", "south"], "amount": [1.5, 2.5]}
STORE = "quicksync://quicksync_default@"


@pytest.fixture
def run(run_dag, quicksync):
    """Run a function as a task; what it returned, or raised."""

    def in_task(function):
        with DAG(dag_id="paths", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
            task(function, task_id="it")()
        result = run_dag(dag)
        if "it" in result.errors:
            raise result.errors["it"]
        return result.xcoms["it"]

    return in_task


def test_a_path_in_a_task(run, quicksync):
    def work():
        path = ObjectStoragePath(f"{STORE}/reports/2026.csv")
        assert not path.exists()
        path.write_text("a,b\n")
        assert path.read_bytes() == b"a,b\n"
        assert (path.stat().st_size, path.is_file(), path.parent.is_dir()) == (4, True, True)
        (path.parent / "deep" / "x.csv").write_bytes(b"x")
        found = sorted(child.name for child in path.parent.iterdir())
        matched = sorted(child.name for child in path.parent.glob("**/*.csv"))
        path.copy(ObjectStoragePath(f"{STORE}/copies/2026.csv"))
        path.unlink()
        return [found, matched, path.exists()]

    assert run(work) == [["2026.csv", "deep"], ["2026.csv", "x.csv"], False]
    assert quicksync.contents() == {"reports/deep/x.csv": b"x", "copies/2026.csv": b"a,b\n"}


@pytest.mark.parametrize(
    "url",
    [f"{STORE}/top.csv", f"{STORE}top.csv", "quicksync:///top.csv", "quicksync://top.csv"],
)
def test_every_form_of_a_url(quicksync, url):
    quicksync.put("top.csv", b"x")
    assert ObjectStoragePath(url).read_bytes() == b"x"
    with fsspec.open(url) as file:
        assert file.read() == b"x"


def test_the_root(quicksync):
    quicksync.put("a/b", b"x")
    root = ObjectStoragePath(f"{STORE}/")
    assert [path.name for path in root.iterdir()] == ["a"]
    assert (root / "a" / "b").read_bytes() == b"x"


def test_one_version_by_its_key(quicksync):
    key = quicksync.put("a.csv", b"older")
    quicksync.put("a.csv", b"newer")
    assert ObjectStoragePath(f"{STORE}/a.csv").read_bytes() == b"newer"
    assert ObjectStoragePath(f"{STORE}/.by-key/{key}").read_bytes() == b"older"


def test_a_path_goes_from_task_to_task(run_dag, quicksync):
    with DAG(dag_id="paths", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

        @task
        def write():
            path = ObjectStoragePath(f"{STORE}/reports/a.csv")
            path.write_text("a")
            return path

        @task
        def read(path):
            return path.read_text()

        read(write())
    assert run_dag(dag).xcoms["read"] == "a"


def test_pandas(quicksync):
    frame, path = pandas.DataFrame(TABLE), ObjectStoragePath(f"{STORE}/tables/pandas.parquet")
    with path.open("wb") as file:
        frame.to_parquet(file)
    with path.open("rb") as file:
        assert pandas.read_parquet(file).equals(frame)
    assert pandas.read_parquet(path.path, filesystem=path.fs).equals(frame)
    for url in (f"{STORE}/tables/url.parquet", "quicksync://tables/default.parquet"):
        frame.to_parquet(url)
        assert pandas.read_parquet(url, columns=["amount"]).equals(frame[["amount"]])
    frame.to_csv(f"{STORE}/tables/a.csv.gz", index=False)
    assert pandas.read_csv(f"{STORE}/tables/a.csv.gz").equals(frame)


def test_polars(quicksync):
    frame, path = polars.DataFrame(TABLE), ObjectStoragePath(f"{STORE}/tables/polars.parquet")
    with path.open("wb") as file:
        frame.write_parquet(file)
    with path.fs.open(path.path) as file:
        assert polars.read_parquet(file).equals(frame)
    assert polars.read_parquet(f"{STORE}/tables/polars.parquet", use_pyarrow=True).equals(frame)


def test_as_the_source_of_an_upload(run_task, quicksync):
    quicksync.put("day/a.csv", b"a" * 5000)
    quicksync.put("day/b.csv", b"b")
    ran = run_task(UploadToQuickSyncOperator, source=f"{STORE}/day/*.csv", name="copies/")
    assert [receipt["name"] for receipt in ran.result] == ["copies/a.csv", "copies/b.csv"]
    assert quicksync.contents()["copies/a.csv"] == b"a" * 5000


def test_file_transfer(run_task, quicksync, tmp_path):
    (tmp_path / "a.csv").write_text("a")
    there, back = f"{STORE}/in/a.csv", tmp_path / "back.csv"
    assert run_task(FileTransferOperator, src=f"file://{tmp_path}/a.csv", dst=there).state == "success"
    assert quicksync.contents() == {"in/a.csv": b"a"}
    again = run_task(FileTransferOperator, src=f"file://{tmp_path}/a.csv", dst=there)
    assert "already exists" in again.said
    arguments = {"src": there, "dst": f"file://{back}", "overwrite": True}
    assert run_task(FileTransferOperator, **arguments).state == "success"
    assert back.read_text() == "a"


def test_a_connection_that_is_not_there():
    path = ObjectStoragePath("quicksync://nowhere@/a.csv")
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        path.read_bytes()


def test_refused_credentials_are_no_missing_file(quicksync, connect):
    connect(quicksync, password="wrong")
    path = ObjectStoragePath(f"{STORE}/a.csv")
    for look in (path.exists, path.read_bytes, lambda: list(path.parent.iterdir())):
        with pytest.raises(PermissionError):
            look()


def test_a_parsed_path_asks_nothing(quicksync, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_QUICKSYNC_DEFAULT")
    path = ObjectStoragePath(f"{STORE}/reports") / "a.csv"
    assert path.name == "a.csv"
    assert quicksync.requests == []


XCOM_DAG = """
import json, os, shutil, sys
sys.path.insert(0, {tests!r})
import conftest

os.environ |= json.loads(sys.argv[1])
shutil.copy({database!r}, conftest.AIRFLOW_HOME / "airflow.db")

from datetime import UTC, datetime
from airflow.providers.common.compat.sdk import DAG, task

with DAG(dag_id="large_xcom", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:

    @task
    def make():
        return {{"rows": ["x" * 100] * 100}}

    @task
    def count(made):
        print("COUNTED", sum(map(len, made["rows"])))

    count(make())

conftest._serialise(dag)
state = dag.test().state
shutil.rmtree(conftest.AIRFLOW_HOME)
print("STATE", state)
"""


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_the_xcom_backend(quicksync, airflow_db, tmp_path, compression):
    backend = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
    settings = {
        "AIRFLOW_CONN_QUICKSYNC_DEFAULT": os.environ["AIRFLOW_CONN_QUICKSYNC_DEFAULT"],
        "AIRFLOW__CORE__XCOM_BACKEND": backend,
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"{STORE}/xcom",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "1000",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION": compression,
    }
    database = tmp_path / "airflow.db"
    shutil.copy(airflow_db, database)
    script = tmp_path / "large_xcom.py"
    script.write_text(XCOM_DAG.format(tests=str(Path(__file__).parents[1]), database=str(database)))
    ended = subprocess.run(
        [sys.executable, str(script), json.dumps(settings)], capture_output=True, text=True, check=False
    )
    assert "STATE success" in ended.stdout, ended.stdout + ended.stderr
    assert "COUNTED 10000" in ended.stdout + ended.stderr
    ((name, content),) = quicksync.contents().items()
    assert name.startswith("xcom/large_xcom/")
    assert len(content) < 1000 if compression else len(content) > 10_000


def test_the_example(run_dag, quicksync):
    result = run_dag("quicksync_object_storage.py")
    assert set(result.states.values()) == {"success"}, result.errors
    assert result.xcoms["total"] == 10
    assert result.xcoms["clean_up"] == ["north.csv", "south.csv"]
    assert quicksync.files() == []


def test_the_example_without_a_session(run_dag, quicksync, connect):
    connect(quicksync, password="wrong")
    result = run_dag("quicksync_object_storage.py")
    assert result.states["write[0]"] == "failed"
    assert isinstance(result.errors["write[0]"], PermissionError)

"""Uploading from, and downloading to, an S3 on this machine: read by range, each byte once."""

from __future__ import annotations

import json
import os
import re
import threading

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_quicksync.operators import DownloadFromQuickSyncOperator, UploadToQuickSyncOperator

BIG = os.urandom(20 << 20)


class S3:
    """A moto server that notes which ranges were read."""

    def __init__(self):
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *args):
                """Say nothing."""

        self._app = DomainDispatcherApplication(create_backend_app)
        self.reads: list[tuple[str, str | None]] = []
        self._server = make_server("127.0.0.1", 0, self._note, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _note(self, environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            self.reads.append((environ["PATH_INFO"], environ.get("HTTP_RANGE")))
        return self._app(environ, start_response)

    def ranges(self, key):
        """The ranges read of an object, as (first, last), sorted."""
        found = [
            re.fullmatch(r"bytes=(\d+)-(\d+)", read or "") for path, read in self.reads if path.endswith(key)
        ]
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def server():
    s3 = S3()
    yield s3
    s3.close()


@pytest.fixture
def s3(server, monkeypatch):
    """An empty bucket `bucket`, which the connection `aws` opens."""
    connection = {
        "conn_type": "aws",
        "login": "an-access-key",
        "password": "a-secret-key",
        "extra": {"endpoint_url": server.url, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(connection))
    fs = ObjectStoragePath("s3://aws@bucket/x").fs
    fs.mkdir("bucket")
    server.reads.clear()
    yield fs
    fs.rm("bucket", recursive=True)


@pytest.fixture
def upload(run_task):
    def run(**arguments):
        ran = run_task(UploadToQuickSyncOperator, **arguments)
        assert ran.state == "success", ran
        return ran.result

    return run


def test_a_file(upload, s3, quicksync):
    s3.pipe("bucket/reports/a.csv", b"a,b")
    assert upload(source="s3://aws@bucket/reports/a.csv")["name"] == "a.csv"
    path = ObjectStoragePath("s3://bucket/reports/a.csv", conn_id="aws")
    assert upload(source=path, name="by/path.csv")["name"] == "by/path.csv"
    assert quicksync.contents() == {"a.csv": b"a,b", "by/path.csv": b"a,b"}


def test_a_glob(upload, s3, quicksync):
    s3.pipe({f"bucket/day/{name}": name.encode() for name in ("a.csv", "deep/b.csv", "c.txt")})
    receipts = upload(source="s3://aws@bucket/day/**/*.csv", name="archive/")
    assert [receipt["name"] for receipt in receipts] == ["archive/a.csv", "archive/deep/b.csv"]
    assert quicksync.contents() == {"archive/a.csv": b"a.csv", "archive/deep/b.csv": b"deep/b.csv"}


@pytest.mark.parametrize("checksum", [True, False])
def test_a_large_file_is_read_once(upload, s3, server, quicksync, checksum):
    import hashlib

    s3.pipe("bucket/big.bin", BIG)
    server.reads.clear()
    receipt = upload(source="s3://aws@bucket/big.bin", part_size_mib=5, max_concurrency=3, checksum=checksum)
    assert quicksync.contents() == {"big.bin": BIG}
    assert receipt["parts"] == 4
    assert receipt["sha256"] == (hashlib.sha256(BIG).hexdigest() if checksum else None)
    ranges = server.ranges("/bucket/big.bin")
    assert sum(last - first + 1 for first, last in ranges) == len(BIG)
    assert max(last - first + 1 for first, last in ranges) <= 5 << 20


def test_an_object_that_changes_while_it_is_read(run_task, s3, quicksync, monkeypatch):
    from airflow_provider_quicksync.client.transfer.sources import RemoteSource

    s3.pipe("bucket/a", b"x" * 3000)
    read = RemoteSource.read_into

    def replace_then_read(source, offset, buffer):
        if offset >= 1000:
            s3.pipe("bucket/a", b"y" * 3000)
        return read(source, offset, buffer)

    monkeypatch.setattr(RemoteSource, "read_into", replace_then_read)
    ran = run_task(
        UploadToQuickSyncOperator,
        source="s3://aws@bucket/a",
        part_size_mib=0.001,
        max_concurrency=1,
        checksum=False,
    )
    assert ran.state == "failed"
    assert "'a'" in ran.said
    assert quicksync.files() == []


def test_an_object_that_is_not_there(run_task, s3, quicksync):
    ran = run_task(UploadToQuickSyncOperator, source="s3://aws@bucket/nothing")
    assert "'nothing' does not exist" in ran.said
    ran = run_task(UploadToQuickSyncOperator, source="s3://aws@bucket/*.csv")
    assert "no file matches" in ran.said


def test_download_to_s3(run_task, s3, quicksync):
    receipt = run_task(UploadToQuickSyncOperator, data=b"restored", name="a").result
    ran = run_task(DownloadFromQuickSyncOperator, file_key=[receipt], path="s3://aws@bucket/restored")
    assert ran.state == "success", ran
    assert s3.cat("bucket/restored/a") == b"restored"
    assert ran.result[0]["sha256"] == receipt["sha256"]


def test_the_example(run_dag, s3, quicksync):
    s3.pipe({f"bucket/reports/{name}": name.encode() for name in ("a.csv", "deep/b.csv", "c.txt")})
    conf = {"source": "s3://aws@bucket/reports/**/*.csv"}
    for _ in range(2):  # the second run finds everything there
        result = run_dag("quicksync_from_s3.py", conf=conf)
        assert set(result.states.values()) == {"success"}, result
    names = [receipt["name"] for receipt in result.xcoms["upload"]]
    assert names == ["from-s3/a.csv", "from-s3/deep/b.csv"]
    assert len(quicksync.files()) == 2


def test_the_example_with_an_empty_bucket(run_dag, s3, quicksync):
    result = run_dag("quicksync_from_s3.py", conf={"source": "s3://aws@bucket/reports/**/*.csv"})
    assert result.states == {"upload": "skipped", "wait": "skipped"}

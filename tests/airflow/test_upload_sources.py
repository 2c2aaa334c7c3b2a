"""What `source`, `data` and `name` may be, and what becomes of each."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

try:
    from airflow.sdk.io import attach
except ImportError:  # 2.11
    from airflow.io.store import attach

from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

LONG = 5_000


@pytest.fixture
def upload(run_task):
    """Run one upload task, and check that it succeeded."""

    def run(**arguments):
        ran = run_task(UploadToQuickSyncOperator, **arguments)
        assert ran.state == "success", ran
        return ran.result

    return run


@pytest.fixture
def refused(run_task, quicksync):
    """Run an upload task that can't work, check that nothing was begun, and return what it said."""

    def run(**arguments):
        ran = run_task(UploadToQuickSyncOperator, **arguments)
        assert ran.state == "failed"
        assert "initiate" not in quicksync.calls
        return ran

    return run


@pytest.fixture
def folder(tmp_path):
    """Files on several levels, and one that no pattern for CSV files finds."""
    for name in ("a.csv", "b.csv", "notes.txt", "2026/11/c.csv", "2026/12/d.csv", ".hidden.csv"):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "out" / "folder.csv").mkdir()
    return tmp_path / "out"


@pytest.fixture
def memory():
    """A folder of its own in fsspec's memory filesystem, a remote store as far as Airflow knows."""
    root, fs = f"/{uuid.uuid4().hex}", fsspec.filesystem("memory")
    attach(protocol="memory", fs=fs)
    for name in ("a.csv", "deep/b.csv", "c.txt"):
        fs.pipe(f"{root}/{name}", name.encode() * 1000)
    yield root
    fs.rm(root, recursive=True)


@pytest.mark.parametrize("kind", [str, Path, "file://{}".format], ids=["str", "Path", "file URL"])
def test_one_file(upload, quicksync, folder, kind):
    receipt = upload(source=kind(folder / "a.csv"))
    assert receipt["name"] == "a.csv"
    assert quicksync.contents() == {"a.csv": b"a.csv"}


def test_paths_of_python(upload, quicksync, folder):
    upload(source=[folder / "a.csv"])
    upload(source=folder / "*.csv", name="all/")
    assert {"a.csv", "all/a.csv"} <= set(quicksync.contents())


def test_an_object_storage_path(upload, quicksync, folder, memory):
    upload(source=ObjectStoragePath(f"file://{folder}/a.csv"))
    upload(source=ObjectStoragePath(f"memory://{memory}/c.txt"))
    assert quicksync.contents() == {"a.csv": b"a.csv", "c.txt": b"c.txt" * 1000}


def test_a_url(upload, quicksync, memory):
    receipt = upload(source=f"memory://{memory}/deep/b.csv", part_size_mib=2000 / (1 << 20))
    assert receipt["parts"] == 5
    assert quicksync.contents() == {"b.csv": b"deep/b.csv" * 1000}


def test_a_list_gives_a_list_in_its_order(upload, quicksync, folder, memory):
    sources = [str(folder / "b.csv"), folder / "a.csv", f"memory://{memory}/c.txt"]
    receipts = upload(source=sources)
    assert [receipt["name"] for receipt in receipts] == ["b.csv", "a.csv", "c.txt"]
    assert {receipt["file_key"] for receipt in receipts} == {file["file_key"] for file in quicksync.files()}


def test_a_list_of_one_gives_a_list(upload, quicksync, folder):
    assert len(upload(source=[str(folder / "a.csv")])) == 1


def test_a_list_with_a_glob_in_it(upload, quicksync, folder):
    receipts = upload(source=[str(folder / "2026/*/*.csv"), str(folder / "notes.txt")])
    assert [receipt["name"] for receipt in receipts] == ["11/c.csv", "12/d.csv", "notes.txt"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("*", ["a.csv", "b.csv", "notes.txt"]),
        ("**/*.csv", ["2026/11/c.csv", "2026/12/d.csv", "a.csv", "b.csv"]),
        ("2026/**", ["11/c.csv", "12/d.csv"]),
        ("2026/1[12]/?.csv", ["11/c.csv", "12/d.csv"]),
        ("2026/11/*.csv", ["c.csv"]),
        (".*.csv", [".hidden.csv"]),
    ],
)
def test_a_glob_names_files_by_their_path_below_its_fixed_part(upload, quicksync, folder, pattern, names):
    receipts = upload(source=str(folder / pattern))
    assert [receipt["name"] for receipt in receipts] == names
    assert set(quicksync.contents()) == set(names)


def test_a_relative_glob(upload, quicksync, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [receipt["name"] for receipt in upload(source="2026/*/*.csv")] == ["11/c.csv", "12/d.csv"]
    assert [receipt["name"] for receipt in upload(source="*.csv")] == ["a.csv", "b.csv"]


def test_a_glob_in_a_url(upload, quicksync, memory):
    receipts = upload(source=f"memory://{memory}/**/*.csv", name="from-memory/")
    assert [receipt["name"] for receipt in receipts] == ["from-memory/a.csv", "from-memory/deep/b.csv"]
    assert quicksync.contents()["from-memory/deep/b.csv"] == b"deep/b.csv" * 1000


def test_a_glob_in_a_file_url(upload, quicksync, folder):
    receipts = upload(source=f"file://{folder}/2026/**/*.csv")
    assert [receipt["name"] for receipt in receipts] == ["11/c.csv", "12/d.csv"]


def test_a_file_whose_name_looks_like_a_pattern(upload, quicksync, tmp_path):
    (tmp_path / "a[1].csv").write_text("one")
    assert upload(source=str(tmp_path / "a[1].csv"))["name"] == "a[1].csv"


@pytest.mark.parametrize(
    ("data", "content"),
    [(b"\x00\xff", b"\x00\xff"), ("Grüße", "Grüße".encode()), ("", b""), (b"", b"")],
    ids=["bytes", "str", "no text", "no bytes"],
)
def test_data(upload, quicksync, data, content):
    receipt = upload(data=data, name="data")
    assert (receipt["size_bytes"], receipt["parts"]) == (len(content), 1)
    assert quicksync.contents() == {"data": content}


def test_an_empty_file(upload, quicksync, tmp_path):
    (tmp_path / "empty").touch()
    receipt = upload(source=str(tmp_path / "empty"))
    assert (receipt["size_bytes"], receipt["parts"]) == (0, 1)
    assert quicksync.contents() == {"empty": b""}


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("renamed.csv", "renamed.csv"),
        ("reports/{{ dag.dag_id }}/a.csv", "reports/only/a.csv"),
        ("archive/", "archive/a.csv"),
        ("Übersicht №1 日本.csv", "Übersicht №1 日本.csv"),
        ("n" * LONG, "n" * LONG),
        ("", "a.csv"),
    ],
    ids=["plain", "templated", "prefix", "not ASCII", "long", "empty"],
)
def test_the_name_of_one_file(upload, quicksync, folder, name, stored):
    assert upload(source=str(folder / "a.csv"), name=name)["name"] == stored
    assert list(quicksync.contents()) == [stored]


def test_a_prefix_for_several(upload, quicksync, folder):
    receipts = upload(source=[str(folder / "a.csv"), str(folder / "b.csv")], name="{{ dag.dag_id }}/")
    assert [receipt["name"] for receipt in receipts] == ["only/a.csv", "only/b.csv"]


def test_no_file_where_that_is_to_skip(run_task, quicksync, tmp_path):
    for source in (str(tmp_path / "*.csv"), []):
        ran = run_task(UploadToQuickSyncOperator, source=source, on_empty="skip")
        assert (ran.state, quicksync.calls) == ("skipped", [])


@pytest.mark.parametrize("source", ["/no/such/folder/*.csv", [], "memory://no-such-folder/*.csv"])
@pytest.mark.usefixtures("memory")
def test_no_file(refused, source):
    assert f"no file matches {source!r} on this worker" in refused(source=source).said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "an upload needs either source or data"),
        ({"source": "/etc/hostname", "data": "x"}, "an upload needs either source or data"),
        ({"data": "x"}, "an upload of data needs a name"),
        ({"data": "x", "name": ""}, "an upload of data needs a name"),
        ({"data": {"a": 1}, "name": "x"}, "cannot upload dict as data"),
        ({"data": "x", "name": 20261122}, "name must be text, not int 20261122"),
        ({"source": "/etc/hostname", "name": ["x"]}, "name must be text, not list ['x']"),
        ({"source": "/etc/hostname", "if_exists": "overwrite"}, "if_exists must be one of add, skip"),
        ({"source": "/etc/hostname", "on_empty": "ignore"}, "on_empty must be fail or skip, not 'ignore'"),
        ({"source": 7}, "cannot upload from int"),
        ({"source": {"file_key": "k"}}, "cannot upload from dict"),
        ({"source": b"/etc/hostname"}, "cannot upload from bytes"),
        ({"source": [None]}, "cannot upload from NoneType"),
        ({"source": "/etc"}, "'/etc' is a directory: pass its files, or a glob such as /etc/*"),
        ({"source": "/no/such/file"}, "'/no/such/file' does not exist on this worker"),
        ({"source": ["/etc/hostname", "/no/such/file"]}, "'/no/such/file' does not exist on this worker"),
        ({"source": "nosuchscheme://bucket/key"}, "nosuchscheme"),
        ({"source": "nosuchscheme://bucket/*"}, "nosuchscheme"),
        ({"source": "/etc/host*", "name": "one.txt"}, "name 'one.txt' is for one file"),
        ({"source": ["/etc/hostname", "/etc/hosts"], "name": "one"}, "let it end in '/'"),
        ({"source": ["/etc/hostname", "/etc/hostname"]}, "two sources would be uploaded as 'hostname'"),
        ({"data": "x", "name": "a\nb"}, "has control characters"),
        ({"data": "x", "name": "a\x00b"}, "has control characters"),
        ({"data": "x", "name": "a\u2028b"}, "has control characters"),
        ({"data": "x", "name": "x", "part_size_mib": 0}, "part_size_mib must be a number above 0"),
        ({"data": "x", "name": "x", "max_concurrency": 0}, "max_concurrency must be a number above 0"),
        ({"data": "x" * 5000, "name": "x", "part_size_mib": 0.0001}, "is under the service's minimum"),
    ],
)
def test_what_can_not_work_says_so_before_anything_is_sent(refused, arguments, said):
    ran = refused(**arguments)
    assert said in ran.said
    if "not exist" not in said:  # a file may come yet, nothing else will
        assert ran.kind == "AirflowFailException"


def test_every_name_is_checked_before_the_first_file_is_sent(refused, tmp_path):
    for name in ("a.csv", "b\n.csv", "c.csv"):
        (tmp_path / name).touch()
    assert r"'b\n.csv'" in refused(source=str(tmp_path / "*.csv")).said


def test_a_path_that_is_too_long(refused):
    said = refused(source="/tmp/" + "n" * LONG).said
    assert said.startswith("upload source '/tmp/nnn")
    assert "too long" in said


def test_a_path_with_a_null(refused):
    assert "upload source '/tmp/a\\x00b'" in refused(source="/tmp/a\x00b").said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(refused, tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0)
    ran = refused(source=str(tmp_path / "secret"))
    assert "may not be read by this worker's user" in ran.said


def test_a_url_of_nothing(refused, memory):
    assert "'no-such-file' does not exist" in refused(source=f"memory://{memory}/no-such-file").said
    assert "'deep' is not a file" in refused(source=f"memory://{memory}/deep").said

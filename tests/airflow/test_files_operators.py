"""Listing and downloading: what comes back, what is checked, and what is left where something goes wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.dirfs import DirFileSystem

from airflow_provider_quicksync.operators import (
    DownloadFromQuickSyncOperator,
    ListQuickSyncFilesOperator,
    UploadToQuickSyncOperator,
)

DATA = os.urandom(5_000)


@pytest.fixture
def fetch(run_task):
    """Run one download task, and check that it succeeded."""

    def run(**arguments):
        ran = run_task(DownloadFromQuickSyncOperator, **arguments)
        assert ran.state == "success", ran
        return ran.result

    return run


@pytest.fixture
def refused(run_task, tmp_path):
    """Run a download task that can't work; nothing is left by it."""

    def run(**arguments):
        before = sorted(tmp_path.rglob("*"))
        ran = run_task(DownloadFromQuickSyncOperator, **arguments)
        assert ran.state == "failed"
        assert sorted(tmp_path.rglob("*")) == before
        return ran

    return run


@pytest.fixture
def receipt(run_task, quicksync):
    return run_task(UploadToQuickSyncOperator, data=DATA, name="reports/a.bin").result


def attach(protocol, fs):
    try:
        from airflow.sdk.io import attach
    except ImportError:  # 2.11
        from airflow.io.store import attach
    return attach(protocol=protocol, fs=fs)


@pytest.fixture
def memory():
    """A folder in fsspec's memory filesystem, another store as far as Airflow knows."""
    fs = fsspec.filesystem("memory")
    attach("memory", fs)
    yield "memory://restored"
    fs.store.clear()


@pytest.fixture
def renaming(tmp_path, memory, monkeypatch):
    """The folder of a store that renames, as SFTP does, in the place of fsspec's memory; a file is there."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"older")
    store = DirFileSystem(path=str(folder), fs=fsspec.filesystem("file"))
    monkeypatch.setattr(attach("memory", None), "fs", store)
    return folder


# Listing


def test_a_list_of_metadata(run_task, quicksync):
    keys = {name: quicksync.put(name, name.encode()) for name in ("reports/a.csv", "reports/b.txt", "c.csv")}
    quicksync.configure(complete_after_polls=100)
    keys["unfinished.csv"] = quicksync.put("unfinished.csv")
    listed = run_task(ListQuickSyncFilesOperator, name_pattern="*.csv").result
    assert [(file["name"], file["file_key"], file["size_bytes"]) for file in listed] == [
        ("reports/a.csv", keys["reports/a.csv"], 13),
        ("c.csv", keys["c.csv"], 5),
    ]
    everything = run_task(ListQuickSyncFilesOperator, completed_only=False).result
    assert [file["file_key"] for file in everything] == list(keys.values())
    assert [file["completed"] for file in everything] == [True, True, True, False]
    assert run_task(ListQuickSyncFilesOperator, name_pattern="{{ dag.dag_id }}*").result == []


def test_a_listing_that_is_refused_is_not_tried_again(run_task, quicksync, connect):
    connect(quicksync, password="wrong")
    ran = run_task(ListQuickSyncFilesOperator, retries=3)
    assert (ran.state, ran.attempts) == ("failed", 1)


# Downloading


def test_a_receipt_is_fetched_and_checked(fetch, receipt, tmp_path):
    target = tmp_path / "new" / "deep" / "a.bin"
    done = fetch(file_key=receipt, path=str(target))
    assert target.read_bytes() == DATA
    assert done == {
        "file_key": receipt["file_key"],
        "name": "reports/a.bin",
        "size_bytes": len(DATA),
        "sha256": receipt["sha256"],
        "path": str(target),
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_gets_files_by_their_names(fetch, receipt, tmp_path, quicksync):
    other = quicksync.put("other.bin", b"x")
    done = fetch(file_key=[receipt, other], path=str(tmp_path / "restored"))
    assert (tmp_path / "restored/reports/a.bin").read_bytes() == DATA
    assert (tmp_path / "restored/other.bin").read_bytes() == b"x"
    assert [one["path"] for one in done] == [
        str(tmp_path / "restored/reports/a.bin"),
        str(tmp_path / "restored/other.bin"),
    ]
    assert fetch(file_key=other, path=f"{tmp_path}/one/")["path"] == f"{tmp_path}/one/other.bin"
    assert fetch(file_key=[], path=str(tmp_path)) == []


def test_what_was_listed_is_fetched(fetch, run_task, receipt, tmp_path):
    listed = run_task(ListQuickSyncFilesOperator).result
    fetch(file_key=listed, path=tmp_path / "restored", checksum=False)
    assert (tmp_path / "restored/reports/a.bin").read_bytes() == DATA


@pytest.mark.parametrize("form", [str, ObjectStoragePath])
def test_another_store(fetch, receipt, tmp_path, quicksync, memory, form):
    fetch(file_key=receipt, path=form(f"file://{tmp_path}/local/a.bin"))
    assert (tmp_path / "local/a.bin").read_bytes() == DATA
    done = fetch(file_key=receipt, path=form(f"{memory}/day/a.bin"))
    assert done["sha256"] == receipt["sha256"]
    assert ObjectStoragePath(f"{memory}/day/a.bin").read_bytes() == DATA
    done = fetch(file_key=[receipt], path=form("quicksync://quicksync_default@/copies"))
    assert quicksync.contents()["copies/reports/a.bin"] == DATA


@pytest.mark.parametrize("overwrites", [True, False])
def test_a_store_that_renames(fetch, receipt, renaming, monkeypatch, overwrites):
    rename = DirFileSystem.mv

    def refusing(fs, old, new, **options):
        if fs.exists(new):
            raise FileExistsError(new)
        rename(fs, old, new, **options)

    if not overwrites:
        monkeypatch.setattr(DirFileSystem, "mv", refusing)
    for name in ("a.bin", "b.bin"):
        fetch(file_key=receipt, path=f"memory://{name}")
        assert (renaming / name).read_bytes() == DATA
    assert sorted(path.name for path in renaming.rglob("*")) == ["a.bin", "b.bin"]


@pytest.mark.parametrize("noticed", [True, False])
def test_a_store_that_renames_never_shows_half_a_file(refused, receipt, renaming, monkeypatch, noticed):
    def half(fs, source, target, **options):
        Path(fs._join(target)).write_bytes(Path(source).read_bytes()[:3])
        if noticed:
            raise ConnectionResetError("cut")

    monkeypatch.setattr(DirFileSystem, "put_file", half)
    ran = refused(file_key=receipt, path="memory://a.bin")
    assert ("cut" if noticed else f"3 of {len(DATA):,} bytes arrived") in ran.said
    assert (renaming / "a.bin").read_bytes() == b"older"


def test_a_large_file_in_ranges(fetch, quicksync, tmp_path):
    data = os.urandom(20 << 20)
    key = quicksync.put("big", data)
    quicksync.reset_log()
    fetch(file_key=key, path=str(tmp_path / "big"), max_concurrency=2)
    assert (tmp_path / "big").read_bytes() == data
    assert quicksync.counters()["download"]["requests"] > 2


@pytest.mark.parametrize(
    "fault", [{"cut": "response"}, {"status": 503}, {"ignore_range": True, "times": None}], ids=str
)
def test_trouble_on_the_way(fetch, quicksync, tmp_path, fault):
    data = os.urandom(10 << 20)
    key = quicksync.put("big", data)
    quicksync.fail("download", skip=1, **fault)
    fetch(file_key=key, path=str(tmp_path / "big"))
    assert (tmp_path / "big").read_bytes() == data


def test_a_link_that_expires_in_the_middle(fetch, quicksync, tmp_path):
    data = os.urandom(20 << 20)
    key = quicksync.put("big", data)
    quicksync.fail("download", status=403, skip=2)  # as an expired link answers
    fetch(file_key=key, path=str(tmp_path / "big"))
    assert (tmp_path / "big").read_bytes() == data


def test_if_exists(fetch, refused, receipt, tmp_path, quicksync):
    target = tmp_path / "a.bin"
    target.write_bytes(b"older")
    ran = refused(file_key=receipt, path=str(target), if_exists="fail", retries=2)
    assert "1 of 1 targets are there already" in ran.said
    assert ran.attempts == 1
    fetch(file_key=receipt, path=str(target), if_exists="skip")
    assert target.read_bytes() == DATA  # another size was there
    quicksync.reset_log()
    assert fetch(file_key=receipt, path=str(target), if_exists="skip")["sha256"] is None
    assert "download" not in quicksync.calls
    target.write_bytes(b"older")
    fetch(file_key=receipt, path=str(target))
    assert target.read_bytes() == DATA
    assert "if_exists must be one of" in refused(file_key=receipt, path=str(target), if_exists="maybe").said


def test_fail_leaves_room_for_another_attempt(refused, fetch, receipt, tmp_path, quicksync):
    other = quicksync.put("other.bin", b"x")
    wrong = {"file_key": other, "sha256": "0" * 64}
    (tmp_path / "restored/reports").mkdir(parents=True)
    ran = refused(file_key=[receipt, wrong], path=str(tmp_path / "restored"), if_exists="fail")
    assert "SHA-256 is" in ran.said
    fetch(file_key=[receipt, other], path=str(tmp_path / "restored"), if_exists="fail")


# What can't work


def test_a_wrong_checksum(refused, receipt, tmp_path):
    (tmp_path / "a").write_text("before")
    ran = refused(file_key={**receipt, "sha256": "0" * 64}, path=str(tmp_path / "a"))
    assert "SHA-256 is" in ran.said
    assert (tmp_path / "a").read_text() == "before"


def test_a_wrong_checksum_for_another_store(refused, receipt, memory):
    ran = refused(file_key={**receipt, "sha256": "0" * 64}, path=f"{memory}/a")
    assert "SHA-256 is" in ran.said
    assert not ObjectStoragePath(f"{memory}/a").exists()


def test_a_target_that_is_a_directory(refused, receipt, tmp_path):
    assert f"{tmp_path} is a directory" in refused(file_key=receipt, path=str(tmp_path)).said


def test_a_target_below_a_file(refused, receipt, tmp_path):
    (tmp_path / "file").write_text("x")
    ran = refused(file_key=receipt, path=str(tmp_path / "file" / "a.bin"))
    assert "the folder can't be made" in ran.said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(refused, receipt, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    for path in ("closed/a", "closed/new/a"):
        assert "may not be" in refused(file_key=receipt, path=str(tmp_path / path)).said


def test_a_target_on_a_read_only_file_system(refused, receipt):
    ran = refused(file_key=receipt, path="/proc/quicksync/a")
    assert "download target /proc/quicksync/a" in ran.said


def test_a_name_of_5000_characters(refused, quicksync, tmp_path):
    key = quicksync.put("n" * 5000)
    assert "too long" in refused(file_key=key, path=f"{tmp_path}/").said


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a//b"])
def test_a_name_that_leads_out_of_the_folder(refused, quicksync, tmp_path, name):
    key = quicksync.put(name)
    assert "no place in a folder" in refused(file_key=[key], path=str(tmp_path)).said


def test_two_files_for_one_place(refused, quicksync, tmp_path):
    keys = [quicksync.put("a"), quicksync.put("a")]
    assert "two files would be put at" in refused(file_key=keys, path=str(tmp_path)).said


def test_files_that_are_gone_or_not_complete(refused, quicksync, receipt, tmp_path):
    assert "no file nothing" in refused(file_key=[receipt, "nothing"], path=str(tmp_path), retries=1).said
    assert "404" in refused(file_key="nothing", path=str(tmp_path / "a")).said
    quicksync.configure(complete_after_polls=100)
    pending = quicksync.put("pending")
    for keys in (pending, [receipt, pending]):
        assert "not complete yet" in refused(file_key=keys, path=f"{tmp_path}/x/").said


@pytest.mark.parametrize("path", ["", 3, None])
def test_a_path_that_is_none(refused, receipt, path):
    assert "cannot download to" in refused(file_key=receipt, path=path).said


def test_a_connection_that_is_not_there(refused, tmp_path):
    ran = refused(file_key="k", path=str(tmp_path / "a"), quicksync_conn_id="nowhere")
    assert "nowhere" in ran.said


def test_a_scheme_that_no_provider_has(refused, receipt):
    assert "nosuch" in refused(file_key=receipt, path="nosuch://bucket/a").said


# The example

RESTORE = "quicksync_restore.py"


def test_a_day_is_archived_and_restored(run_dag, quicksync, tmp_path):
    archived = run_dag(RESTORE, dag_id="quicksync_archive_day", conf={"day": "2026-11-22"})
    assert set(archived.states.values()) == {"success"}, archived.errors
    conf = {"day": "2026-11-22", "to": str(tmp_path / "restored")}
    restored = run_dag(RESTORE, dag_id="quicksync_restore_day", conf=conf)
    assert set(restored.states.values()) == {"success"}, restored.errors
    assert restored.xcoms["verify"] == {f"archive/2026-11-22/0{hour}.log": 7000 for hour in range(3)}
    assert (tmp_path / "restored/archive/2026-11-22/01.log").read_text() == "hour 1\n" * 1000


def test_a_day_that_is_damaged_or_was_never_archived(run_dag, quicksync, tmp_path):
    run_dag(RESTORE, dag_id="quicksync_archive_day", conf={"day": "2026-11-22"})
    quicksync.fail("download", body="corrupt", skip=1, times=None)
    conf = {"day": "2026-11-22", "to": str(tmp_path / "restored")}
    damaged = run_dag(RESTORE, dag_id="quicksync_restore_day", conf=conf)
    assert (damaged.states["restore"], damaged.states["verify"]) == ("failed", "upstream_failed")
    assert [path for path in (tmp_path / "restored").rglob("*") if path.is_file()] == []
    quicksync.clear_faults()
    never = run_dag(RESTORE, dag_id="quicksync_restore_day", conf={**conf, "day": "2026-01-01"})
    assert isinstance(never.errors["read_manifest"], FileNotFoundError)

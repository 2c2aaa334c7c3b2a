"""The filesystem: paths, versions, reading by range, writing as a whole, and what goes wrong."""

from __future__ import annotations

import errno
import gc
import gzip
import io
import os
import pickle

import fsspec
import pytest

from airflow_provider_quicksync.client import UploadOptions, data_source, upload
from airflow_provider_quicksync.client.filesystem import QuickSyncFileSystem
from airflow_provider_quicksync.client.listing import Listing, path_of_key
from airflow_provider_quicksync.client.models import FileInfo

from .conftest import calls

DATA = bytes(range(256)) * 40  # 10,240 bytes


@pytest.fixture
def fs(client):
    return QuickSyncFileSystem(client)


@pytest.fixture
def put(client):
    """Upload past the filesystem; returns the key."""

    def store(name, data=b"x"):
        return upload(client, data_source(data, name=name))["file_key"]

    return store


# Paths


@pytest.mark.parametrize(
    "url",
    [
        "quicksync://reports/2026.csv",
        "quicksync:///reports/2026.csv",
        "quicksync://conn_id@reports/2026.csv",
        "quicksync://conn_id@/reports/2026.csv",
        "/reports/2026.csv/",
        "reports/2026.csv",
    ],
)
def test_every_form_of_a_path(url):
    assert QuickSyncFileSystem._strip_protocol(url) == "reports/2026.csv"
    assert QuickSyncFileSystem._strip_protocol([url]) == ["reports/2026.csv"]


def test_an_at_sign_in_a_name_is_kept(fs, put):
    put("me@home/a@b.csv")
    assert fs.info("quicksync://c@/me@home/a@b.csv")["name"] == "me@home/a@b.csv"


def test_a_path_outside_the_scheme(fs, server):
    with pytest.raises(ValueError, match="'s3://bucket/key' is not a path of QuickSync"):
        fs.open("s3://bucket/key")
    assert server.requests == []


def test_names_with_slashes_are_folders(fs, put):
    put("top.txt", b"123")
    put("a/b/deep.txt")
    put("a/other.txt")
    assert fs.ls("") == [
        {"name": "a", "type": "directory", "size": 0},
        {**fs.info("top.txt"), "name": "top.txt", "type": "file", "size": 3},
    ]
    assert fs.ls("a", detail=False) == ["a/b", "a/other.txt"]
    assert fs.find("") == ["a/b/deep.txt", "a/other.txt", "top.txt"]
    assert fs.glob("a/**/*.txt") == ["a/b/deep.txt", "a/other.txt"]
    assert (fs.isdir("a/b"), fs.isfile("a/b"), fs.exists("a/b"), fs.isdir("top.txt")) == (
        True,
        False,
        True,
        False,
    )
    with pytest.raises(IsADirectoryError, match="'a/b'"):
        fs.open("a/b")


def test_a_file_and_a_folder_of_one_name(fs, put):
    put("a", b"file")
    put("a/b", b"in folder")
    put("a", b"newer file")
    assert fs.cat_file("a") == b"newer file"
    assert fs.cat_file("a/b") == b"in folder"
    assert fs.ls("a", detail=False) == ["a/b"]
    assert [(entry["name"], entry["type"]) for entry in fs.ls("")] == [("a", "file")]


def test_the_newest_completed_file_is_the_path(fs, put, server):
    keys = [put("a.csv", text) for text in (b"one", b"second")]
    server.configure(complete_after_polls=10)
    put("a.csv", b"unfinished")
    server.configure(complete_after_polls=0)
    assert fs.cat_file("a.csv") == b"second"
    assert [entry["file_key"] for entry in fs.versions("a.csv")] == keys
    assert [fs.cat_file(path_of_key(key)) for key in keys] == [b"one", b"second"]
    assert sorted(fs.ls(".by-key", detail=False)) == sorted(path_of_key(key) for key in keys)
    assert fs.versions("nothing") == []


@pytest.mark.parametrize("name", ["/leading", "trailing/", "a//b", "../up", "a/./b", ".by-key/x"])
def test_a_name_that_is_no_path_is_reachable_by_its_key(fs, put, name):
    key = put(name, b"odd")
    assert fs.find("") == []
    assert fs.cat_file(path_of_key(key)) == b"odd"


def test_keys_with_awkward_characters():
    file = FileInfo("a/b?c%d", None, None, None, True, 1, 3)
    listing = Listing([file])
    assert listing.file(".by-key/a%2Fb%3Fc%25d") is file
    assert listing.entries("") == []


def test_a_file_that_is_not_complete_is_said_to_be_so(fs, put, server):
    server.configure(complete_after_polls=100)
    key = put("a.csv")
    for path in ("a.csv", path_of_key(key)):
        assert not fs.exists(path)
        with pytest.raises(FileNotFoundError, match="not complete yet"):
            fs.open(path)
    server.configure(complete_after_polls=0)


def test_looking_around_costs_one_listing(fs, put, server):
    for number in range(20):
        put(f"folder-{number % 4}/{number}")
    server.reset_log()
    assert len(fs.glob("**/1*")) == 11
    assert len(list(fs.walk(""))) == 5
    assert calls(server) == {"list_files": 1}


def test_what_another_client_has_written_is_found_at_once(fs, put):
    assert not fs.exists("a")
    put("a")
    assert fs.exists("a")


def test_a_service_that_refuses_is_not_an_empty_one(server, connect):
    fs = QuickSyncFileSystem(connect(server, credentials="wrong"))
    for look in (fs.exists, fs.isdir, fs.isfile, fs.find, fs.glob, fs.ls, lambda path: list(fs.walk(path))):
        with pytest.raises(PermissionError):
            look("a/*")


# Reading


@pytest.fixture
def stored_path(fs, put):
    put("data.bin", DATA)
    return "data.bin"


def test_reading_by_range_fetches_blocks_once(fs, stored_path, server):
    server.reset_log()
    with fs.open(stored_path, "rb", block_size=1000) as file:
        file.seek(2500)
        assert file.read(10) == DATA[2500:2510]
        file.seek(-5, io.SEEK_END)
        assert file.read() == DATA[-5:]
        file.seek(2990)
        assert file.read(20) == DATA[2990:3010]
        assert file.read(5) == DATA[3010:3015]
    assert calls(server) == {"list_files": 1, "get_download_url": 1, "download": 3}


def test_the_whole_file_in_pieces(fs, stored_path):
    with fs.open(stored_path, "rb", block_size=700) as file:
        pieces = iter(lambda: file.read(999), b"")
        assert b"".join(pieces) == DATA
    with fs.open(stored_path, "rb", cache_type="readahead") as file:
        assert file.read() == DATA


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (5, 10), (-10, None), (0, -10), (10, 5), (20_000, None)]
)
def test_a_range_of_a_file(fs, stored_path, start, end):
    assert fs.cat_file(stored_path, start, end) == DATA[start:end]


def test_an_empty_file(fs):
    fs.touch("empty")
    assert fs.cat_file("empty") == b""
    assert fs.open("empty").read() == b""
    assert fs.info("empty")["size"] == 0


def test_an_open_file_stays_what_it_was(fs, stored_path, put):
    with fs.open(stored_path, "rb", block_size=1000) as file:
        assert file.read(10) == DATA[:10]
        put(stored_path, b"newer")
        fs.invalidate_cache()
        file.seek(5000)
        assert file.read(10) == DATA[5000:5010]
        assert file.info()["size"] == len(DATA)


def test_a_link_that_expires_in_the_middle_is_renewed(fs, stored_path, server):
    server.reset_log()
    with fs.open(stored_path, "rb", block_size=1000) as file:
        assert file.read(10) == DATA[:10]
        file._link._url = file._link._url.replace("signature=", "signature=0")
        file.seek(5000)
        assert file.read() == DATA[5000:]
    assert calls(server)["get_download_url"] == 2


def test_a_cut_in_the_middle_is_gone_on_with(fs, stored_path, server):
    server.fail("download", cut="response")
    assert fs.cat_file(stored_path) == DATA
    assert calls(server)["download"] == 2


def test_a_server_that_ignores_ranges_is_read_once(fs, stored_path, server):
    server.fail("download", ignore_range=True, times=None)
    server.reset_log()
    with fs.open(stored_path, "rb", block_size=1000) as file:
        file.seek(9000)
        assert file.read(10) == DATA[9000:9010]
        file.seek(0)
        assert file.read() == DATA
    assert calls(server)["download"] == 2
    assert fs.cat_file(stored_path, 100, 200) == DATA[100:200]


def test_a_file_that_is_deleted_while_it_is_open(fs, stored_path, client):
    with fs.open(stored_path, "rb", block_size=1000) as file:
        file.read(1)
        client.delete_file(file.info()["file_key"])
        file.seek(5000)
        with pytest.raises(FileNotFoundError):
            file.read(1)


@pytest.mark.parametrize(
    ("fault", "number"),
    [({"status": 503}, errno.EBUSY), ({"status": 422}, errno.ENOSPC), ({"body": "not_json"}, errno.EIO)],
)
def test_other_failures_are_os_errors(fs, server, fault, number):
    server.fail("list_files", times=None, **fault)
    with pytest.raises(OSError, match="list the files") as raised:
        fs.ls("")
    assert raised.value.errno == number
    assert raised.value.__cause__ is not None


# Writing


def test_what_is_written_is_complete_when_it_is_closed(fs, server, monkeypatch):
    monkeypatch.setattr("airflow_provider_quicksync.client.filesystem.COMPLETION_POLL_SECONDS", 0.01)
    server.configure(complete_after_polls=2)
    with fs.open("a/b.bin", "wb", block_size=500) as file:
        for start in range(0, len(DATA), 128):
            assert file.write(DATA[start : start + 128]) == 128
        assert calls(server)["initiate"] == 0
    server.configure(complete_after_polls=0)
    assert fs.cat_file("a/b.bin") == DATA
    assert file.receipt["completed"]
    assert file.receipt["size_bytes"] == len(DATA)


def test_an_upload_goes_up_in_parts(client, server):
    fs = QuickSyncFileSystem(client, options=UploadOptions(part_size_bytes=1000))
    fs.pipe_file("a", DATA)
    assert calls(server)["put_part"] == 11
    assert fs.cat_file("a") == DATA


def test_writing_a_path_again_adds_a_file(fs):
    fs.pipe({"a": b"one", "b": b"other"})
    fs.pipe("a", b"second")
    assert fs.cat("a") == b"second"
    assert [fs.cat_file(entry["name"]) for entry in fs.versions("a")] == [b"one", b"second"]


def test_a_completion_that_does_not_come(client, server, monkeypatch):
    monkeypatch.setattr("airflow_provider_quicksync.client.filesystem.COMPLETION_POLL_SECONDS", 0.01)
    server.configure(complete_after_polls=1000)
    fs = QuickSyncFileSystem(client, completion_seconds=0.05)
    with pytest.raises(TimeoutError, match="not complete after"):
        fs.pipe_file("a", b"x")
    server.configure(complete_after_polls=0)


def test_an_error_in_the_with_block_sends_nothing(fs, server):
    def fail(**how):
        with fs.open("a.gz", **how) as file:
            file.write(b"half" if "b" in how["mode"] else "half")
            raise RuntimeError

    for how in (
        {"mode": "wb"},
        {"mode": "w"},
        {"mode": "wb", "compression": "gzip"},
        {"mode": "wt", "compression": "infer"},
    ):
        with pytest.raises(RuntimeError):
            fail(**how)
    assert "initiate" not in calls(server)


def test_text_and_compression(fs):
    with fs.open("a.txt", "w", encoding="latin-1", newline="\r\n") as file:
        file.write("é\n")
    assert fs.cat_file("a.txt") == b"\xe9\r\n"
    with fs.open("a.gz", "wb", compression="infer") as file:
        file.write(b"packed")
    assert gzip.decompress(fs.cat_file("a.gz")) == b"packed"
    with fs.open("b.gz", "wt", compression="gzip") as file:
        file.write("packed")
    with fs.open("b.gz", "rt", compression="infer") as file:
        assert file.read() == "packed"


def test_an_exclusive_file_that_appears_meanwhile(fs, put, server):
    file = fs.open("a", "xb")
    file.write(b"mine")
    put("a", b"theirs")
    with pytest.raises(FileExistsError):
        file.close()
    assert fs.cat_file("a") == b"theirs"
    with pytest.raises(FileExistsError):
        fs.pipe_file("a", b"x", mode="create")


def test_a_transaction_sends_all_or_nothing(fs, server):
    with fs.transaction:
        with fs.open("a", "wb") as file:
            file.write(b"one")
        with fs.open("b", "wb") as file:
            file.write(b"two")
        assert "initiate" not in calls(server)
    assert fs.cat(["a", "b"]) == {"a": b"one", "b": b"two"}

    server.reset_log()

    def fail():
        with fs.transaction:
            with fs.open("c", "wb") as file:
                file.write(b"three")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "initiate" not in calls(server)


@pytest.mark.parametrize("path", ["", "a//b", "a/../b", ".by-key/x"])
def test_a_path_that_can_not_be_written(fs, path, server):
    with pytest.raises(ValueError, match="can't be written|is empty"):
        fs.pipe_file(path, b"x")
    assert "initiate" not in calls(server)


def test_a_name_with_control_characters(fs, server):
    with pytest.raises(ValueError, match="control characters"), fs.open("a\nb", "wb") as file:
        file.write(b"x")
    assert "initiate" not in calls(server)


def test_a_name_of_5000_characters(fs, tmp_path):
    name = "n" * 5000
    fs.pipe_file(name, b"long")
    assert fs.cat_file(name) == b"long"
    with pytest.raises(OSError, match=r"too long"):
        fs.get_file(name, str(tmp_path / name))


def test_more_than_the_session_has_room_for(fs, server):
    server.configure(max_total_megabytes=1)
    with pytest.raises(OSError, match="don't fit") as raised:
        fs.pipe_file("a", bytes(2 << 20))
    assert raised.value.errno == errno.ENOSPC
    assert "initiate" not in calls(server)
    server.configure(max_total_megabytes=1_048_576)


def test_spooling_to_a_full_disk(fs, small_disk, monkeypatch, server):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with (
        pytest.raises(OSError, match="has no room in") as raised,
        fs.open("a", "wb", block_size=1000) as file,
    ):
        for _ in range(3000):
            file.write(bytes(1000))
    assert raised.value.errno == errno.ENOSPC
    assert "initiate" not in calls(server)
    assert list(small_disk.iterdir()) == []


def test_what_the_service_can_not_do(fs, put):
    put("a")
    with pytest.raises(NotImplementedError, match="can't change a file"):
        fs.open("a", "ab")
    for move in (fs.mv, fs.move, fs.rename):
        with pytest.raises(NotImplementedError, match="can't rename"):
            move("a", "b")
    with pytest.raises(NotImplementedError):
        fs.touch("a", truncate=False)
    for time in (fs.created, fs.modified):
        with pytest.raises(NotImplementedError):
            time("a")


# Removing, copying, fetching


def test_removing_a_path_removes_every_completed_file_of_it(fs, put, server):
    for text in (b"one", b"two"):
        put("a", text)
    kept = put("b")
    server.configure(complete_after_polls=100)
    unfinished = put("a")
    fs.rm("a")
    assert not fs.exists("a")
    assert [file["file_key"] for file in server.files()] == [kept, unfinished]
    server.configure(complete_after_polls=0)


def test_removing_one_version(fs, put):
    first, _ = put("a", b"one"), put("a", b"two")
    fs.rm(path_of_key(first))
    assert [fs.cat_file(entry["name"]) for entry in fs.versions("a")] == [b"two"]


def test_removing_a_folder_has_to_be_asked_for(fs, put, server):
    put("a/b"), put("a/c/d"), put("x")
    with pytest.raises(IsADirectoryError, match="recursive=True"):
        fs.rm(["x", "a"])
    assert len(server.files()) == 3
    fs.rm("a", recursive=True)
    assert fs.find("") == ["x"]
    with pytest.raises(FileNotFoundError):
        fs.rm("a")


def test_copying_goes_through_this_machine(fs, put):
    put("a", DATA)
    fs.cp("a", "b/c")
    assert fs.cat_file("b/c") == DATA


def test_fetching_in_parallel_ranges(fs, put, tmp_path, server, monkeypatch):
    data = os.urandom(20 << 20)
    put("big", data)
    server.reset_log()
    seen = []
    callback = fsspec.Callback()
    callback.hooks["seen"] = lambda size, value, **_: seen.append((size, value))
    fs.get_file("big", str(tmp_path / "new" / "big"), callback=callback)
    assert (tmp_path / "new" / "big").read_bytes() == data
    assert calls(server)["download"] > 2
    assert seen[-1] == (len(data), len(data))
    target = io.BytesIO()
    fs.get_file("big", target)
    assert target.getvalue() == data


def test_a_fetch_that_fails_leaves_the_target(fs, put, tmp_path, server):
    put("a", DATA)
    target = tmp_path / "a"
    target.write_text("before")
    server.fail("download", status=403, times=None)
    with pytest.raises(PermissionError):
        fs.get_file("a", str(target))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(ValueError, match="is a directory"):
        fs.get_file("a", str(tmp_path))


def test_a_link_to_a_file(fs, stored_path, client):
    assert fs.sign(stored_path).startswith("http")
    with pytest.raises(FileNotFoundError):
        fs.sign("nothing")


def test_a_filesystem_of_a_token(server, stored_path):
    fs = QuickSyncFileSystem(token=server.token, base_url=server.url, session_id=server.session_id)
    assert fs.find("") == [stored_path]
    twin = pickle.loads(pickle.dumps(fs))
    assert twin.client.base_url == server.url
    fs.client.close()
    twin.client.close()


# Names that look like patterns


def test_removing_a_name_like_a_pattern_removes_nothing_else(fs, put):
    for name in ("a1.csv", "a?.csv", "a[1].csv"):
        put(name)
    fs.rm("a?.csv")
    assert fs.ls("", detail=False) == ["a1.csv", "a[1].csv"]
    fs.rm_file("a[1].csv")
    assert fs.ls("", detail=False) == ["a1.csv"]
    with pytest.raises(FileNotFoundError):
        fs.rm_file("a*.csv")
    fs.rm("a*.csv")
    assert fs.ls("", detail=False) == []


# What is written, and never closed


@pytest.mark.parametrize(
    ("name", "mode", "data"), [("a", "wb", b"half"), ("a", "w", "half"), ("a.gz", "wb", b"half")]
)
def test_what_was_never_closed_is_not_sent(fs, name, mode, data):
    file = fs.open(name, mode, compression="infer")
    file.write(data)
    del file
    gc.collect()
    assert fs.ls("", detail=False) == []


def test_ranges_of_nothing(fs, put):
    put("a", b"abc")
    put("empty", b"")
    assert [fs.cat_file("a", *ends) for ends in ((0, 0), (5, 0), (0, -10))] == [b""] * 3
    assert fs.cat_file("empty") == b""
    with fs.open("a", "rb", block_size=0) as file:
        assert file.read() == b"abc"

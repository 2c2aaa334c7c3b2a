"""The eight calls, and what the service may answer to them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    DamagedError,
    NotFoundError,
    QuickSyncClient,
    Receipt,
    SessionInfo,
    Upload,
    UsageError,
    data_source,
    upload,
)
from airflow_provider_quicksync.client.names import QsShareCipher
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import LIMITS, Connect, calls
from .raw import RawServer, http

Stored = Callable[..., Receipt]
UPLOAD = Upload("u1", "k1")

# Each call, in the words of a caller.
CALLS: dict[str, Callable[[QuickSyncClient], Any]] = {
    "list_files": lambda client: client.list_files(),
    "get_file": lambda client: client.get_file("k1"),
    "get_download_url": lambda client: client.get_download_url("k1"),
    "delete_file": lambda client: client.delete_file("k1"),
    "initiate_upload": lambda client: client.initiate_upload("a.csv", size_bytes=1, total_parts=1),
    "put_part": lambda client: client.put_part(UPLOAD, 1, b"1"),
    "complete_upload": lambda client: client.complete_upload(UPLOAD, ["t1"]),
    "current_session": lambda client: client.current_session(),
}
GOOD: dict[str, Any] = {
    "list_files": [{"fileKey": "k1", "extra": [1]}],
    "get_file": {"fileKey": "k1", "extra": {"a": 1}},
    "get_download_url": {"url": "https://h/f?s=1", "extra": 1},
    "delete_file": {},
    "initiate_upload": {"uploadId": "u1", "fileKey": "k1", "extra": None},
    "put_part": {"tag": "t1", "partNumber": 1, "extra": ""},
    "complete_upload": {"uploadId": "u1", "fileKey": "k1", "extra": 0},
    "current_session": {"id": "s1", "extra": True},
}


@pytest.fixture(params=["application/json; charset=utf-8", "text/plain; charset=utf-8", "text/json", "x/y"])
def any_content_type(server: LocalQuickSync, request: pytest.FixtureRequest) -> Any:
    server.configure(content_type=request.param)
    yield
    server.configure(content_type=None)


@pytest.mark.usefixtures("any_content_type")
def test_the_eight_calls_under_any_content_type(client: QuickSyncClient, server: LocalQuickSync) -> None:
    begun = client.initiate_upload("ä b.csv", size_bytes=150, total_parts=2)
    tags = [client.put_part(begun, number, b"x" * size).tag for number, size in ((1, 100), (2, 50))]
    (unfinished,) = client.list_files()
    assert (unfinished.name, unfinished.completed, unfinished.total_parts) == ("ä b.csv", False, 2)
    client.complete_upload(begun, tags)
    file = client.get_file(begun.file_key)
    assert (file.name, file.completed, file.size_bytes) == ("ä b.csv", True, 150)
    assert file.creator_id == server.creator_id
    assert json.dumps(file.as_dict())
    assert client.get_download_url(begun.file_key).startswith("http://127.0.0.1:")
    assert client.current_session().session_id == server.session_id
    client.delete_file(begun.file_key)
    with pytest.raises(NotFoundError, match=f"look up file {begun.file_key}: 404 .*; check the file key"):
        client.get_file(begun.file_key)
    assert all(entry.headers["Accept"] == "application/json" for entry in server.requests)
    assert not any("Transfer-Encoding" in entry.headers for entry in server.requests)


def test_the_session_and_its_rules(client: QuickSyncClient, server: LocalQuickSync) -> None:
    session = client.current_session()
    assert isinstance(session, SessionInfo)
    assert (session.session_id, session.creator_id) == (server.session_id, server.creator_id)
    settings = server.settings
    assert (session.max_files, session.max_users) == (settings.max_files, settings.max_users)
    assert session.max_total_megabytes == settings.max_total_megabytes
    assert session.password_protected is False
    assert session.expiry is not None
    assert session.expiry > time.time()


@pytest.mark.parametrize("call", CALLS)
def test_unknown_fields_are_ignored_and_any_2xx_is_good(connect: Connect, call: str) -> None:
    for status in (200, 201, 202):
        with RawServer(http(status, json.dumps(GOOD[call]))) as raw:
            CALLS[call](connect(raw.url))


@pytest.mark.parametrize("call", ["delete_file", "complete_upload"])
def test_where_nothing_is_needed_from_the_answer_it_may_be_empty(connect: Connect, call: str) -> None:
    for reply in (http(204), http(200), http(200, " \n"), http(200, "null")):
        with RawServer(reply) as raw:
            CALLS[call](connect(raw.url))


def test_nulls_in_the_answer_to_a_complete_are_not_needed(connect: Connect) -> None:
    with RawServer(http(200, '{"uploadId": null, "fileKey": null}')) as raw:
        CALLS["complete_upload"](connect(raw.url))


@pytest.mark.parametrize(
    ("call", "answer", "said"),
    [
        ("list_files", {}, "dict, a list was expected"),
        ("list_files", None, "NoneType, a list was expected"),
        ("list_files", [None], "NoneType, an object was expected"),
        ("list_files", [{"fileKey": None}], "without fileKey"),
        ("get_file", [], "list, an object was expected"),
        ("get_file", {"fileKey": ""}, "without fileKey"),
        ("get_file", {"fileKey": 7}, "field fileKey is int, not str"),
        ("get_file", {"fileKey": "k1", "fileName": ["a"]}, "field fileName is list, not str"),
        ("get_file", {"fileKey": "k1", "completed": "true"}, "field completed is str, not bool"),
        ("get_file", {"fileKey": "k1", "totalParts": "1"}, "field totalParts is str, not int"),
        ("get_file", {"fileKey": "k1", "originalSizeInBytes": 1.5}, "field originalSizeInBytes is float"),
        ("get_file", {"fileKey": "k1", "originalSizeInBytes": True}, "field originalSizeInBytes is bool"),
        ("get_download_url", {"url": None}, "without a link that can be opened"),
        ("get_download_url", {"url": 1}, "without a link that can be opened"),
        ("get_download_url", {"url": "file:///etc/passwd"}, "without a link that can be opened"),
        ("get_download_url", "https://h/f", "without a link that can be opened"),
        (
            "initiate_upload",
            {"uploadId": None, "fileKey": "k1"},
            "without uploadId, which the next step needs",
        ),
        ("initiate_upload", {"uploadId": "u1"}, "without fileKey, which the next step needs"),
        ("put_part", {"tag": None, "partNumber": 1}, "without tag, which the next step needs"),
        ("put_part", {"tag": "t", "partNumber": 2}, "answered for part 2, not 1"),
        ("put_part", {"tag": "t", "partNumber": "1"}, "field partNumber is str, not int"),
        ("complete_upload", {"uploadId": "u1", "fileKey": "another"}, "about something else"),
        ("complete_upload", [1], "about something else"),
        ("current_session", {"id": 1}, "field id is int, not str"),
        ("current_session", {"maxFiles": "many"}, "field maxFiles is str, not int"),
        ("current_session", [], "list, an object was expected"),
    ],
)
def test_an_answer_that_cannot_be_used_is_a_clear_error(
    connect: Connect, call: str, answer: Any, said: str
) -> None:
    reply = http(200, json.dumps(answer))
    with RawServer(reply, http(404)) as raw, pytest.raises(DamagedError) as caught:
        CALLS[call](connect(raw.url, cipher="none"))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_deletion_needs_no_words_from_the_service(connect: Connect) -> None:
    with RawServer(http(200, "Deleted"), http(404)) as raw:
        connect(raw.url).delete_file("k1")
    still_there = http(200, '{"fileKey": "k1"}')
    refused = pytest.raises(DamagedError, match="delete file k1")
    with RawServer(http(200, "Deleted"), still_there) as raw, refused:
        connect(raw.url).delete_file("k1")


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"delete_file"}))
@pytest.mark.parametrize(
    "body",
    [b"<html>Sign in</html>", b'{"fileKey": "k', b"\xff\xfe\x00", b"[" * 50_000, b"9" * 5000],
    ids=["a page", "half of it", "not text", "too deep", "too long a number"],
)
def test_an_answer_that_is_not_json_is_a_clear_error(connect: Connect, call: str, body: bytes) -> None:
    refused = pytest.raises(DamagedError, match=r"the answer is not JSON: is the connection's host")
    with RawServer(http(200, body), http(404)) as raw, refused:
        CALLS[call](connect(raw.url, cipher="none"))


def test_an_answer_without_end_is_cut_off(
    connect: Connect, server: LocalQuickSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_quicksync.client.api.LISTING_BYTES", 3 << 20)
    server.fail("*", body="endless", times=None)
    for call in CALLS:
        with pytest.raises(DamagedError, match=r"is larger than [\d,]+ bytes: cut off"):
            CALLS[call](connect(server, cipher="none"))


def test_a_listing_of_100_000_files_works(connect: Connect, record_property: Callable[..., None]) -> None:
    cipher = QsShareCipher()
    names = [cipher.encrypt(f"output-{number}.parquet", "s1") for number in range(100)]
    files = [
        {
            "creatorId": "65f0c0ffee00000000000002",
            "completed": True,
            "fileKey": f"{number:032x}",
            "fileName": names[number % 100],
            "totalParts": 1,
            "originalSizeInBytes": number,
        }
        for number in range(100_000)
    ]
    with RawServer(http(200, json.dumps(files))) as raw:
        started = time.monotonic()
        found = connect(raw.url).list_files()
        record_property("seconds", time.monotonic() - started)
    assert len(found) == 100_000
    assert (found[-1].name, found[-1].size_bytes) == ("output-99.parquet", 99_999)


# File keys

AWKWARD_KEYS = [
    "../session/current",
    "..%2Fsession%2Fcurrent",
    "a/b",
    "/",
    "//h/f",
    "a?b=c",
    "a#b",
    "%2e",
    "%2e%2e",
    "...",
    "a b",
    "ключ-鍵-🔑",
    ";a=b",
    "a\\..\\b",
    "http://h/",
    "complete",
    "file",
    " ",
]


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_a_key_reaches_its_own_endpoint_and_no_other(
    client: QuickSyncClient, server: LocalQuickSync, key: str
) -> None:
    for call in (client.get_file, client.get_download_url, client.delete_file):
        with pytest.raises(NotFoundError):
            call(key)
    assert [entry.call for entry in server.requests] == ["get_file", "get_download_url", "delete"]
    for entry, path in zip(
        server.requests, ("/buckets/file/", "/buckets/download/", "/buckets/"), strict=True
    ):
        encoded = entry.path.removeprefix("/v1" + path)
        assert encoded != entry.path
        assert "/" not in encoded


@pytest.mark.parametrize("prefix", ["../session/", "a/b?c#d%2e ", "ключ"])
def test_files_of_awkward_keys_go_all_the_way(connect: Connect, tmp_path: Any, prefix: str) -> None:
    from airflow_provider_quicksync.client import UploadOptions, download

    with LocalQuickSync(min_part_bytes=LIMITS.min_part_bytes, key_prefix=prefix) as server:
        client = connect(server)
        receipt = upload(
            client, data_source(b"12" * 100, name="a"), options=UploadOptions(part_size_bytes=100)
        )
        assert receipt["file_key"].startswith(prefix)
        download(client, client.get_file(receipt["file_key"]), str(tmp_path / "f"))
        assert (tmp_path / "f").read_bytes() == b"12" * 100
        client.delete_file(receipt["file_key"])
        assert not server.files()


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a\nb", "a\r\nb", "a\x00", "\x7f", "a\x85b", "\ud800", None, 7]
)
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(
    client: QuickSyncClient, server: LocalQuickSync, key: Any
) -> None:
    for call in (client.get_file, client.get_download_url, client.delete_file, client.remove_unfinished):
        with pytest.raises(UsageError):
            call(key)
    assert not server.requests


@pytest.mark.parametrize("value", ["", "a\r\nX-Evil: 1", "a\nb", "a\x00b", "\udc80"])
def test_a_header_that_would_split_is_refused_before_anything_is_sent(
    client: QuickSyncClient, server: LocalQuickSync, value: str
) -> None:
    for begun in (Upload(value, "k1"), Upload("u1", value)):
        with pytest.raises(UsageError, match="refused before sending"):
            client.put_part(begun, 1, b"1")
    assert not server.requests


def test_a_part_is_sent_with_its_headers_and_length(client: QuickSyncClient, server: LocalQuickSync) -> None:
    begun = client.initiate_upload("a", size_bytes=0, total_parts=1)
    client.put_part(begun, 1, b"")
    (entry,) = [entry for entry in server.requests if entry.call == "put_part"]
    assert entry.headers["Content-Length"] == "0"
    assert entry.headers["Content-Type"] == "application/octet-stream"
    assert (entry.headers["key"], entry.headers["uploadId"]) == (begun.file_key, begun.upload_id)
    assert entry.part_number == 1


def test_the_api_key_goes_with_every_call(connect: Connect) -> None:
    with LocalQuickSync(api_key="k-1") as server:
        upload(connect(server, api_key=" k-1 "), data_source(b"1", name="a"))
        assert {entry.headers.get("X-API-KEY") for entry in server.requests} == {"***"}


def test_removing_what_is_gone_is_fine_and_deleting_it_is_not(
    client: QuickSyncClient, stored: Stored, server: LocalQuickSync
) -> None:
    key = stored()["file_key"]
    client.remove_unfinished(key)
    client.remove_unfinished(key)
    with pytest.raises(NotFoundError, match=f"delete file {key}"):
        client.delete_file(key)
    assert calls(server) == {"delete": 3}

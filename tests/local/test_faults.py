"""Every fault switch does what it says, on a socket."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime

import pytest
import requests
import urllib3

from airflow_provider_quicksync.local import Fault

CUT = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


def test_a_status_for_the_next_n_calls_of_a_kind(api, quicksync):
    quicksync.fail("list_files", status=503, times=2)
    assert [api.list_files().status_code for _ in range(3)] == [503, 503, 200]
    assert [entry.faulty for entry in quicksync.requests] == [True, True, False]
    assert api.list_files().headers.get("Retry-After") is None


def test_a_status_is_answered_as_problem_details(api, quicksync):
    quicksync.fail("list_files", status=503)
    assert api.list_files().json()["title"] == "Service Unavailable"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (7, "7"),
        (datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC), "Sat, 02 Jan 2027 03:04:05 GMT"),
        ("soon", "soon"),
    ],
)
def test_retry_after_in_seconds_as_a_date_or_as_it_is(api, quicksync, given, sent):
    quicksync.fail("initiate", status=429, retry_after=given)
    response = api.initiate(1, 1)
    assert (response.status_code, response.headers["Retry-After"]) == (429, sent)


def test_a_fault_may_wait_for_a_few_requests_or_for_one_part(api, quicksync):
    quicksync.fail("get_file", status=500, skip=1)
    quicksync.fail("put_part", status=500, part_number=2)
    assert [api.get_file("x").status_code for _ in range(3)] == [404, 500, 404]
    upload = api.started(b"a" * 100, b"b")
    assert [api.put_part(upload, number, b"x").status_code for number in (1, 2, 2)] == [200, 500, 200]


def test_any_call_until_the_faults_are_cleared(api, quicksync):
    quicksync.fail("*", status=502, times=None)
    assert {api.list_files().status_code, api.current_session().status_code, api.delete("x").status_code} == {
        502
    }
    quicksync.clear_faults()
    assert api.list_files().status_code == 200


def test_added_latency(api, quicksync):
    quicksync.fail("list_files", delay_seconds=30)
    with pytest.raises(requests.ReadTimeout):
        api.list_files(timeout=0.1)
    quicksync.configure(latency_seconds=30)
    with pytest.raises(requests.ReadTimeout):
        api.current_session(timeout=0.1)


def test_a_reset_at_once(api, quicksync):
    quicksync.fail("list_files", cut="reset")
    with pytest.raises(requests.ConnectionError, match="reset"):
        api.list_files()
    assert quicksync.requests[-1].status is None
    assert api.list_files().status_code == 200


def test_a_cut_in_the_middle_of_the_request(api, quicksync):
    upload = api.started(b"x" * 1000)
    quicksync.fail("put_part", cut="request", after_bytes=300)
    with pytest.raises(requests.ConnectionError):
        api.put_part(upload, 1, b"x" * 1000)
    assert (quicksync.requests[-1].received_bytes, quicksync.requests[-1].status) == (300, None)
    assert quicksync.files()[0]["received_parts"] == 0
    assert api.put_part(upload, 1, b"x" * 1000).status_code == 200


def test_a_cut_in_the_middle_of_the_answer(api, quicksync):
    quicksync.fail("initiate", cut="response")
    with pytest.raises(CUT):
        api.initiate(1, 1)
    assert len(quicksync.files()) == 1


def test_a_cut_in_the_middle_of_a_download(api, quicksync):
    url = api.get_download_url(api.uploaded(b"a" * 100, b"b" * 100)).json()["url"]
    quicksync.fail("download", cut="response", after_bytes=150)
    with api.download(url, stream=True) as response:
        assert response.raw.read(150) == b"a" * 100 + b"b" * 50
        with pytest.raises(urllib3.exceptions.ProtocolError):
            response.raw.read(1)
    assert (quicksync.requests[-1].sent_bytes, quicksync.requests[-1].status) == (150, None)
    assert len(api.download(url).content) == 200


@pytest.mark.parametrize("call", ["initiate", "put_part", "complete", "delete"])
def test_an_answer_is_lost_after_the_call_took_effect(api, quicksync, call):
    quicksync.fail(call, cut="answer")
    with pytest.raises(requests.ConnectionError):
        api.delete(api.uploaded(b"x"))
    left = {(file["received_parts"], file["stored"]) for file in quicksync.files()}
    expected = {"initiate": {(0, False)}, "put_part": {(1, False)}, "complete": {(1, True)}, "delete": set()}
    assert left == expected[call]
    assert quicksync.requests[-1].status is None


def test_an_answer_that_stalls_half_way(api, quicksync):
    quicksync.fail("get_file", stall_seconds=30)
    key = api.uploaded(b"x")
    with api.get_file(key, stream=True, timeout=0.2) as response:
        assert response.status_code == 200
        with pytest.raises(requests.ConnectionError, match="Read timed out"):
            _ = response.content


def test_an_answer_that_stalls_shortly_is_whole(api, quicksync):
    quicksync.fail("list_files", stall_seconds=0.01)
    quicksync.fail("download", stall_seconds=0.01)
    assert api.content(api.uploaded(b"x" * 100, b"y")) == b"x" * 100 + b"y"
    assert len(api.list_files().json()) == 1


def test_null_fields(api, quicksync):
    quicksync.fail("initiate", body="nulls")
    quicksync.fail("list_files", body="nulls", null_fields=("fileName",))
    assert api.initiate(1, 1).json() == {"uploadId": None, "fileKey": None}
    (file,) = api.list_files().json()
    assert file["fileName"] is None
    assert file["fileKey"]


def test_answers_that_are_not_json(api, quicksync):
    quicksync.fail("current_session", body="not_json")
    quicksync.fail("list_files", body="empty")
    assert api.current_session().text.startswith("<html>")
    assert api.list_files().content == b""


@pytest.mark.parametrize("call", ["list_files", "download"])
def test_an_endless_body_ends_when_the_client_leaves(api, quicksync, call):
    quicksync.fail(call, body="endless")
    url = api.get_download_url(api.uploaded(b"x")).json()["url"]
    opened = api.list_files(stream=True) if call == "list_files" else api.download(url, stream=True)
    with opened as response:
        assert len(response.raw.read(10_000_000)) == 10_000_000
    assert api.current_session().status_code == 200


def test_a_redirect_to_another_origin(api, quicksync):
    quicksync.fail("list_files", redirect_to="http://elsewhere.invalid/v1/buckets")
    quicksync.fail("put_part", redirect_to="http://elsewhere.invalid/", status=301)
    response = api.list_files()
    assert (response.status_code, response.headers["Location"]) == (
        307,
        "http://elsewhere.invalid/v1/buckets",
    )
    assert api.put_part({"fileKey": "k", "uploadId": "u"}, 1, b"x").status_code == 301


def test_a_link_that_expires_soon(api, quicksync):
    quicksync.fail("get_download_url", link_seconds=0)
    key = api.uploaded(b"x")
    assert api.download(api.get_download_url(key).json()["url"]).status_code == 403
    assert api.content(key) == b"x"


def test_a_download_that_ignores_range(api, quicksync):
    quicksync.fail("download", ignore_range=True)
    url = api.get_download_url(api.uploaded(b"hello")).json()["url"]
    ranges = {"Range": "bytes=1-2"}
    assert (api.download(url, headers=ranges).status_code, api.download(url, headers=ranges).content) == (
        200,
        b"el",
    )


def test_a_download_with_one_byte_changed(api, quicksync):
    quicksync.fail("download", body="corrupt")
    url = api.get_download_url(api.uploaded(b"hello" * 20, b"x")).json()["url"]
    damaged, right = api.download(url).content, api.download(url).content
    assert right == b"hello" * 20 + b"x"
    assert (len(damaged), damaged[:-1]) == (len(right), right[:-1])
    assert damaged != right


def test_faults_come_before_the_bearer_is_checked(api, quicksync):
    quicksync.fail("list_files", status=503)
    api.bearer = "wrong"
    assert [api.list_files().status_code for _ in range(2)] == [503, 401]


@pytest.mark.parametrize(
    "wrong",
    [
        {"call": "fetch"},
        {"call": "*", "cut": "half"},
        {"call": "*", "body": "odd"},
        {"call": "*", "times": 0},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"call|cut|body|times"):
        Fault(**wrong)


def test_a_client_that_leaves_in_the_middle_of_a_part_leaves_nothing(api, quicksync, wait_for):
    upload = api.started(b"x" * 1000)
    headers = (
        f"PUT /v1/buckets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {quicksync.token}\r\npartNumber: 1\r\n"
        f"key: {upload['fileKey']}\r\nuploadId: {upload['uploadId']}\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", quicksync.port)) as raw:
        raw.sendall(headers.encode() + b"x" * 500)
        wait_for(lambda: quicksync.requests[-1].received_bytes == 500)
    wait_for(lambda: quicksync.requests[-1].seconds is not None)
    assert list((quicksync.root / "parts").iterdir()) == []
    assert quicksync.files()[0]["received_parts"] == 0


def test_a_stop_does_not_wait_for_a_stalled_call(api, quicksync, wait_for):
    quicksync.fail("list_files", delay_seconds=600)
    caught: list[Exception] = []

    def wait():
        try:
            api.list_files(timeout=30)
        except requests.ConnectionError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_for(lambda: quicksync.requests)
    quicksync.stop()
    waiting.join(20)
    assert caught

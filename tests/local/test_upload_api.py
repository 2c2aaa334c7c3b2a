"""The Upload API's calls and what they refuse."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_quicksync.local import LocalQuickSync

PARTS = (b"a" * 150, b"b" * 100, b"c" * 7)


def test_a_file_in_parts_comes_back_as_it_was(api):
    key = api.uploaded(*PARTS)
    assert api.content(key) == b"".join(PARTS)
    assert api.get_file(key).json() == {
        "creatorId": api.quicksync.creator_id,
        "completed": True,
        "fileKey": key,
        "fileName": "report.csv",
        "totalParts": 3,
        "originalSizeInBytes": 257,
    }
    assert [file["fileKey"] for file in api.list_files().json()] == [key]


def test_an_empty_file_is_one_empty_part(api):
    key = api.uploaded(b"")
    assert api.content(key) == b""


def test_a_part_sent_in_chunks_is_taken(api):
    upload = api.started(b"ab")
    tag = api.put_part(upload, 1, iter([b"a", b"b"])).json()["tag"]
    assert api.complete(upload, [tag]).status_code == 200
    assert api.content(upload["fileKey"]) == b"ab"


def test_a_part_sent_again_replaces_the_first(api):
    upload = api.started(b"new")
    first = api.put_part(upload, 1, b"old").json()["tag"]
    second = api.put_part(upload, 1, b"new").json()["tag"]
    assert api.complete(upload, [first]).status_code == 400
    assert api.complete(upload, [second]).status_code == 200
    assert api.content(upload["fileKey"]) == b"new"
    assert len(list((api.quicksync.root / "parts").iterdir())) == 1


def test_of_two_puts_of_one_part_the_last_finished_wins(api, quicksync):
    upload = api.started(b"x" * 500)
    arrived, finish = threading.Event(), threading.Event()

    def slow_body():
        yield b"s" * 250
        arrived.set()
        finish.wait(20)
        yield b"s" * 250

    slow = threading.Thread(target=lambda: api.put_part(upload, 1, slow_body()))
    slow.start()
    arrived.wait(20)
    api_tag = api.put_part(upload, 1, b"f" * 500).json()["tag"]
    finish.set()
    slow.join(20)
    assert api.complete(upload, [api_tag]).status_code == 400
    assert len(list((quicksync.root / "parts").iterdir())) == 1


def test_equal_content_has_equal_tags_and_other_content_another(api):
    upload = api.started(b"x", b"x", b"x")
    tags = [
        api.put_part(upload, number, body).json()["tag"]
        for number, body in enumerate((b"aa", b"aa", b"ab"), 1)
    ]
    assert tags[0] == tags[1] != tags[2]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"partNumber": "0"}, 400),
        ({"partNumber": "4"}, 400),
        ({"partNumber": "-1"}, 400),
        ({"partNumber": "one"}, 400),
        ({"partNumber": None}, 400),
        ({"key": None}, 400),
        ({"uploadId": None}, 400),
        ({"key": "unknown"}, 404),
        ({"uploadId": "unknown"}, 404),
    ],
)
def test_a_part_with_wrong_headers_is_refused(api, changed, status):
    upload = api.started(*PARTS)
    response = api.put_part(upload, 1, PARTS[0], headers=changed)
    assert response.status_code == status
    assert response.json()["status"] == status
    assert list((api.quicksync.root / "parts").iterdir()) == []


def test_the_upload_id_must_be_that_of_the_key(api):
    one, other = api.started(b"a"), api.started(b"b")
    mixed = {"fileKey": one["fileKey"], "uploadId": other["uploadId"]}
    assert api.put_part(mixed, 1, b"a").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"totalParts": 0, "originalSizeInBytes": 1},
        {"totalParts": 6, "originalSizeInBytes": 1},
        {"totalParts": 1, "originalSizeInBytes": -1},
        {"totalParts": "1", "originalSizeInBytes": 1},
        {"totalParts": True, "originalSizeInBytes": 1},
        {"totalParts": 1, "originalSizeInBytes": 1, "encryptedName": 7},
        [],
        "text",
    ],
)
def test_an_upload_that_cannot_be_is_not_initiated(api, body):
    response = api.send("POST", "/buckets", json=body)
    assert response.status_code == 400
    assert response.json()["errors"]
    assert api.quicksync.files() == []


def test_a_body_that_is_not_json_is_refused(api):
    headers = {"Content-Type": "application/json"}
    assert api.send("POST", "/buckets", data=b"{", headers=headers).status_code == 400
    assert api.send("POST", "/buckets", data=b"{}", headers={"Content-Type": "text/html"}).status_code == 415


class TestComplete:
    @pytest.fixture
    def upload(self, api):
        upload = api.started(*PARTS)
        upload["tags"] = [api.put_part(upload, n, part).json()["tag"] for n, part in enumerate(PARTS, 1)]
        return upload

    def test_too_few_tags(self, api, upload):
        assert api.complete(upload, upload["tags"][:2]).status_code == 422

    def test_tags_in_another_order(self, api, upload):
        response = api.complete(upload, upload["tags"][::-1])
        assert response.status_code == 400
        assert "part 1" in response.json()["detail"]

    def test_tags_that_are_no_list_of_strings(self, api, upload):
        for tags in (None, "x", [1, 2, 3]):
            assert api.complete(upload, tags).status_code == 400

    def test_a_key_that_is_unknown_or_missing(self, api, upload):
        assert api.complete({"fileKey": "unknown"}, upload["tags"]).status_code == 404
        assert api.send("POST", "/buckets/complete", json={"tags": []}).status_code == 400

    def test_twice_is_a_conflict(self, api, upload):
        first = api.complete(upload, upload["tags"])
        assert first.json() == {"uploadId": upload["uploadId"], "fileKey": upload["fileKey"]}
        assert api.complete(upload, upload["tags"]).status_code == 409
        assert api.put_part(upload, 1, PARTS[0]).status_code == 409

    def test_a_missing_part(self, api):
        upload = api.started(*PARTS)
        tags = [api.put_part(upload, n, PARTS[n - 1]).json()["tag"] for n in (1, 3)]
        response = api.complete(upload, [tags[0], "none", tags[1]])
        assert response.status_code == 400
        assert "part 2" in response.json()["detail"]

    def test_a_part_that_is_too_small(self, api):
        parts = (b"a" * 99, b"b")
        upload = api.started(*parts)
        tags = [api.put_part(upload, n, part).json()["tag"] for n, part in enumerate(parts, 1)]
        response = api.complete(upload, tags)
        assert response.status_code == 400
        assert "EntityTooSmall" in response.json()["detail"]

    def test_parts_that_are_not_the_announced_size(self, api):
        upload = api.initiate(1, 10).json()
        tag = api.put_part(upload, 1, b"123456789").json()["tag"]
        response = api.complete(upload, [tag])
        assert response.status_code == 400
        assert "originalSizeInBytes" in response.json()["detail"]


def test_delete_removes_a_file_and_its_bytes_once(api):
    key = api.uploaded(*PARTS)
    response = api.delete(key)
    assert (response.status_code, response.content) == (200, b"")
    assert api.delete(key).status_code == 404
    assert api.get_file(key).status_code == 404
    assert list((api.quicksync.root / "parts").iterdir()) == []


def test_delete_removes_the_parts_of_an_unfinished_upload(api):
    upload = api.started(*PARTS)
    api.put_part(upload, 1, PARTS[0])
    assert api.delete(upload["fileKey"]).status_code == 200
    assert api.put_part(upload, 2, PARTS[1]).status_code == 404
    assert list((api.quicksync.root / "parts").iterdir()) == []


def test_an_upload_deleted_while_a_part_comes_keeps_no_bytes(api):
    upload = api.started(b"x" * 500)

    def body():
        yield b"x" * 250
        assert api.delete(upload["fileKey"]).status_code == 200
        yield b"x" * 250

    assert api.put_part(upload, 1, body()).status_code == 404
    assert list((api.quicksync.root / "parts").iterdir()) == []


def test_keys_with_awkward_characters_work_when_they_are_percent_encoded(api_of):
    with LocalQuickSync(key_prefix="a/../b c%2F+?#") as quicksync:
        api = api_of(quicksync)
        key = api.uploaded(b"x")
        quoted = "a%2F..%2Fb%20c%252F%2B%3F%23" + key.rpartition("#")[2]
        assert api.get_file(quoted).json()["fileKey"] == key
        assert api.content(quoted) == b"x"
        assert api.delete(quoted).status_code == 200


def test_completed_turns_true_after_some_polls(api, quicksync):
    quicksync.configure(complete_after_polls=2)
    key = api.uploaded(b"x")
    seen = [api.get_file(key).json()["completed"], api.list_files().json()[0]["completed"]]
    assert seen == [False, False]
    assert api.get_download_url(key).status_code == 200
    assert api.get_file(key).json()["completed"] is True


def test_completed_turns_true_after_some_seconds(api, quicksync):
    quicksync.configure(complete_after_seconds=1000)
    later = api.uploaded(b"x")
    quicksync.configure(complete_after_seconds=0)
    now = api.uploaded(b"x")
    assert api.get_file(later).json()["completed"] is False
    assert api.get_download_url(later).status_code == 409
    assert api.get_file(now).json()["completed"] is True


def test_json_comes_as_text_unless_json_is_asked_for(api, quicksync):
    def content_type(accept):
        return api.list_files(headers={"Accept": accept}).headers["Content-Type"]

    assert content_type("*/*") == content_type(None) == "text/plain; charset=utf-8"
    assert content_type("application/json") == "application/json; charset=utf-8"
    assert content_type("text/json, */*;q=0.1") == "text/json; charset=utf-8"
    quicksync.configure(content_type="application/octet-stream")
    assert content_type("application/json") == "application/octet-stream"


def test_errors_are_problem_details(api):
    response = api.get_file("nothing")
    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json; charset=utf-8"
    assert set(problem) == {"type", "title", "status", "detail", "traceId"}
    assert (problem["title"], problem["status"]) == ("Not Found", 404)
    assert api.send("GET", "/nowhere").json()["status"] == 404
    assert api.send("PATCH", "/buckets").json()["status"] == 405

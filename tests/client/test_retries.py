"""When a call is tried again, how long is waited, and what is done about answers that were lost."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    BusyError,
    ConflictError,
    DamagedError,
    DeadlineError,
    NotFoundError,
    QuickSyncClient,
    QuickSyncError,
    Receipt,
    RefusedError,
    RetryPolicy,
    StoppedError,
    UnreachableError,
    Upload,
    UsageError,
    data_source,
    upload,
)
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import Connect, calls
from .raw import RawServer, http
from .test_api import CALLS, GOOD

Stored = Callable[..., Receipt]
RETRIED = [408, 425, 429, 500, 502, 503, 504]
REPEATED_AT_ONCE = [
    "list_files",
    "get_file",
    "get_download_url",
    "put_part",
    "current_session",
    "delete_file",
]


class Watch(threading.Event):
    """A stop event that notes how long it is waited for, and lets no time pass."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._stop_after = stop_after

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) == self._stop_after:
            self.set()
        return self.is_set()


class Failing:
    """An attempt that fails a number of times."""

    def __init__(self, error: QuickSyncError, times: int = 1000) -> None:
        self.error, self.times, self.attempts = error, times, 0

    def __call__(self) -> str:
        self.attempts += 1
        if self.attempts <= self.times:
            raise self.error
        return "done"


# The policy


def test_waits_grow_and_are_spread_and_bounded() -> None:
    policy = RetryPolicy(max_attempts=40, total_seconds=1e9, base_seconds=1, cap_seconds=8)
    watch = Watch()
    with pytest.raises(BusyError):
        policy.run(Failing(BusyError("busy")), stop=watch)
    assert len(watch.waits) == 39
    for wait, most in zip(watch.waits, [1, 2, 4] + [8] * 36, strict=True):
        assert 0 <= wait <= most
    assert len({round(wait, 3) for wait in watch.waits}) > 20
    assert max(watch.waits) > 4


@pytest.mark.parametrize(("asked", "least", "most"), [(0, 0, 0), (5, 5, 6), (1000, 120, 121)])
def test_a_retry_after_is_obeyed_up_to_its_cap(asked: float, least: float, most: float) -> None:
    watch = Watch()
    policy = RetryPolicy(base_seconds=0 if asked == 0 else 0.5)
    assert policy.run(Failing(BusyError("busy", retry_after=asked), 1), stop=watch) == "done"
    assert least <= watch.waits[0] <= most


@pytest.mark.parametrize("attempts", [1, 2, 7])
def test_attempts_are_bounded(attempts: int) -> None:
    failing = Failing(BusyError("busy"))
    with pytest.raises(BusyError):
        RetryPolicy(max_attempts=attempts, base_seconds=0).run(failing)
    assert failing.attempts == attempts


def test_no_attempt_starts_after_the_total_time() -> None:
    failing, watch = Failing(BusyError("busy", retry_after=61)), Watch()
    with pytest.raises(BusyError):
        RetryPolicy(total_seconds=60).run(failing, stop=watch)
    assert (failing.attempts, watch.waits) == (1, [])


@pytest.mark.parametrize(
    "error", [UsageError("no"), NotFoundError("no"), RefusedError("no"), DamagedError("no")]
)
def test_what_cannot_help_is_not_tried_again(error: QuickSyncError) -> None:
    failing = Failing(error)
    with pytest.raises(type(error)):
        RetryPolicy(base_seconds=0).run(failing)
    assert failing.attempts == 1


def test_a_stop_ends_the_wait_at_once() -> None:
    failing, watch = Failing(BusyError("busy")), Watch(stop_after=2)
    with pytest.raises(StoppedError, match="stopped on request"):
        RetryPolicy(max_attempts=9).run(failing, stop=watch)
    assert (failing.attempts, len(watch.waits)) == (2, 2)


def test_a_real_wait_is_ended_by_a_stop_from_another_thread(connect: Connect, server: LocalQuickSync) -> None:
    server.fail("put_part", status=503, retry_after=60, times=None)
    stop = threading.Event()
    client = connect(server, retry=RetryPolicy())
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        client.put_part(Upload("u", "k"), 1, b"1", stop=stop)
    assert calls(server) == {"put_part": 1}


def test_each_wait_is_announced_in_one_line_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    RetryPolicy(max_attempts=3, base_seconds=0).run(Failing(BusyError("it is busy"), 1))
    assert caplog.messages == ["it is busy (attempt 1 of 3, next in 0.0 s)"]


def test_what_was_found_before_a_retry_is_the_result() -> None:
    failing = Failing(BusyError("busy"))
    policy = RetryPolicy(base_seconds=0)
    assert policy.run(failing, before_retry=lambda error: f"settled after {error}") == "settled after busy"
    assert failing.attempts == 1


# Every call


@pytest.mark.parametrize("status", RETRIED)
@pytest.mark.parametrize("call", REPEATED_AT_ONCE)
def test_a_status_that_may_pass_is_tried_again(connect: Connect, call: str, status: int) -> None:
    with RawServer(http(status), http(status), http(200, json.dumps(GOOD[call]))) as raw:
        CALLS[call](connect(raw.url, cipher="none"))
        assert len(raw.heads) == 3
        assert len(set(raw.heads)) == 1
        assert len(set(raw.bodies)) == 1


@pytest.mark.parametrize("status", RETRIED)
def test_an_initiate_is_tried_again_without_leaving_an_orphan(
    client: QuickSyncClient, server: LocalQuickSync, status: int
) -> None:
    server.fail("initiate", status=status, times=2)
    begun = client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert [file["file_key"] for file in server.files()] == [begun.file_key]
    assert calls(server)["initiate"] == 3
    # Statuses that say that nothing was done need no look for what may have been.
    assert calls(server)["list_files"] == (0 if status in (408, 425, 429) else 2)


@pytest.mark.parametrize("status", RETRIED)
def test_a_complete_is_tried_again(client: QuickSyncClient, server: LocalQuickSync, status: int) -> None:
    server.fail("complete", status=status, times=2)
    receipt = upload(client, data_source(b"1", name="a"))
    assert client.get_file(receipt["file_key"]).completed
    assert calls(server)["complete"] == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422])
@pytest.mark.parametrize("call", CALLS)
def test_a_status_that_stays_is_not_tried_again(connect: Connect, call: str, status: int) -> None:
    with RawServer(http(status)) as raw:
        with pytest.raises(QuickSyncError):
            CALLS[call](connect(raw.url, cipher="none"))
        assert len(raw.heads) == 1


@pytest.mark.parametrize("cut", ["reset", "request", "answer", "response"])
@pytest.mark.parametrize(
    "call", ["list_files", "get_file", "get_download_url", "put_part", "current_session"]
)
def test_a_cut_connection_is_tried_again(
    client: QuickSyncClient, server: LocalQuickSync, stored: Stored, call: str, cut: Any
) -> None:
    key = stored()["file_key"]
    begun = client.initiate_upload("b", size_bytes=300_000, total_parts=1)
    server.reset_log()
    server.fail(call, cut=cut)
    body = b"x" * 300_000
    {
        "list_files": client.list_files,
        "get_file": lambda: client.get_file(key),
        "get_download_url": lambda: client.get_download_url(key),
        "put_part": lambda: client.put_part(begun, 1, body),
        "current_session": client.current_session,
    }[call]()
    assert calls(server) == {call: 2}


@pytest.mark.parametrize("moment", ["seconds", "date"])
def test_a_retry_after_is_read_from_the_answer(
    client: QuickSyncClient, server: LocalQuickSync, moment: str
) -> None:
    asked: Any = 7 if moment == "seconds" else datetime.now(UTC) + timedelta(seconds=8)
    server.fail("list_files", status=429, retry_after=asked, times=None)
    with pytest.raises(BusyError) as caught:
        client.list_files()
    assert caught.value.retry_after is not None
    assert 5 <= caught.value.retry_after <= 8


# An initiate that may have taken effect


LOST: dict[str, dict[str, Any]] = {
    "no answer": {"cut": "answer"},
    "half an answer": {"cut": "response"},
}
UNREADABLE: dict[str, dict[str, Any]] = {
    "nulls": {"body": "nulls"},
    "no file key": {"body": "nulls", "null_fields": ("fileKey",)},
    "not JSON": {"body": "not_json"},
    "empty": {"body": "empty"},
    "endless": {"body": "endless"},
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_an_initiate_whose_answer_was_lost_leaves_one_upload(
    client: QuickSyncClient, server: LocalQuickSync, fault: dict[str, Any]
) -> None:
    server.fail("initiate", **fault)
    begun = client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert [file["file_key"] for file in server.files()] == [begun.file_key]
    assert calls(server) == {"initiate": 2, "list_files": 2, "delete": 1}


def test_an_initiate_that_is_carried_out_late_leaves_one_upload(
    client: QuickSyncClient, server: LocalQuickSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, posts = client._transport.call, []

    def late(method: str, path: str, **arguments: Any) -> Any:
        if (method, path) == ("POST", "/buckets"):
            posts.append(path)
            if len(posts) == 1:
                raise DeadlineError("no answer in time", maybe_done=True)
            call(method, path, **arguments)  # the first one, now
        return call(method, path, **arguments)

    monkeypatch.setattr(client._transport, "call", late)
    begun = client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert [file["file_key"] for file in server.files()] == [begun.file_key]


@pytest.mark.parametrize("fault", [*LOST.values(), *UNREADABLE.values()], ids=[*LOST, *UNREADABLE])
def test_an_initiate_that_never_gets_a_good_answer_leaves_nothing(
    client: QuickSyncClient, server: LocalQuickSync, fault: dict[str, Any]
) -> None:
    server.fail("initiate", times=None, **fault)
    with pytest.raises((UnreachableError, DamagedError), match=r"initiate the upload of 'a\.csv'"):
        client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert server.files() == []


def test_a_lost_initiate_is_cleaned_up_later_where_it_could_not_be_looked_for_at_once(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    server.fail("initiate", cut="answer")
    server.fail("list_files", status=503, times=2)
    begun = client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert [file["file_key"] for file in server.files()] == [begun.file_key]


def test_a_stop_while_waiting_after_a_lost_initiate_leaves_nothing(
    connect: Connect, server: LocalQuickSync
) -> None:
    server.fail("initiate", cut="answer")
    with pytest.raises(StoppedError):
        connect(server).initiate_upload("a.csv", size_bytes=1, total_parts=1, stop=Watch(stop_after=1))
    assert server.files() == []


def test_an_interrupt_during_an_initiate_leaves_nothing(
    client: QuickSyncClient, server: LocalQuickSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_call = client._transport.call

    def interrupted(method: str, *args: Any, **options: Any) -> Any:
        answer = really_call(method, *args, **options)
        if method == "POST":
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(client._transport, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert server.files() == []


def test_files_of_others_with_the_same_name_are_left_alone(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    theirs = client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    server.fail("initiate", cut="answer")
    mine = client.initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert {file["file_key"] for file in server.files()} == {theirs.file_key, mine.file_key}


def test_without_unique_names_a_lost_initiate_is_reported_and_nothing_is_deleted(
    connect: Connect, server: LocalQuickSync, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("initiate", cut="answer")
    connect(server, cipher="none").initiate_upload("a.csv", size_bytes=1, total_parts=1)
    assert len(server.files()) == 2
    assert "may have left an unfinished upload of that name behind" in caplog.text


# A complete that may have taken effect


@pytest.mark.parametrize("seconds", [0, 3600], ids=["completed at once", "completed later"])
@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_complete_whose_answer_was_lost_has_succeeded(
    connect: Connect, fault: dict[str, Any], seconds: float
) -> None:
    with LocalQuickSync(min_part_bytes=1, complete_after_seconds=seconds) as server:
        server.fail("complete", **fault)
        receipt = upload(connect(server), data_source(b"1", name="a"))
        assert [file["file_key"] for file in server.files()] == [receipt["file_key"]]
        assert server.files()[0]["stored"]
        assert calls(server)["initiate"] == calls(server)["put_part"] == 1
        assert calls(server)["complete"] == (2 if seconds else 1)
        assert calls(server)["delete"] == 0


@pytest.mark.parametrize("fault", UNREADABLE.values(), ids=UNREADABLE)
def test_a_complete_whose_answer_cannot_be_read_has_succeeded_where_the_file_says_so(
    client: QuickSyncClient, server: LocalQuickSync, fault: dict[str, Any]
) -> None:
    server.fail("complete", **fault)
    receipt = upload(client, data_source(b"1", name="a"))
    assert client.get_file(receipt["file_key"]).completed


@pytest.mark.parametrize("status", [404, 409, 410, 412])
def test_a_repeated_complete_that_finds_no_upload_has_succeeded_where_the_file_is_there(
    connect: Connect, status: int
) -> None:
    with LocalQuickSync(min_part_bytes=1, complete_after_seconds=3600) as server:
        server.fail("complete", cut="answer")
        server.fail("complete", status=status)
        upload(connect(server), data_source(b"1", name="a"))
        assert calls(server)["complete"] == 2
        assert len(server.files()) == 1


def test_a_complete_that_did_not_take_effect_is_repeated(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    server.fail("complete", cut="reset", times=2)
    receipt = upload(client, data_source(b"1", name="a"))
    assert client.get_file(receipt["file_key"]).completed
    assert calls(server)["complete"] == 3


@pytest.mark.parametrize("status", [404, 409])
def test_a_complete_refused_the_first_time_has_failed(
    client: QuickSyncClient, server: LocalQuickSync, status: int
) -> None:
    server.fail("complete", status=status)
    with pytest.raises((NotFoundError, ConflictError), match="complete the upload of file"):
        upload(client, data_source(b"1", name="a"))
    assert server.files() == []


def test_looking_up_a_lost_complete_shares_the_bound_of_attempts(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    server.fail("complete", cut="answer")
    server.fail("get_file", status=503, times=None)
    with pytest.raises(BusyError):
        upload(client, data_source(b"1", name="a"))
    assert calls(server)["complete"] == 1
    assert calls(server)["get_file"] <= 3


def test_a_service_that_does_not_tell_of_unfinished_uploads_gets_the_complete_again(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    server.fail("complete", cut="reset")
    server.fail("get_file", status=404)
    receipt = upload(client, data_source(b"1", name="a"))
    assert client.get_file(receipt["file_key"]).completed


def test_the_error_of_the_complete_is_raised_not_that_of_asking_about_it(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    server.fail("complete", cut="reset", times=None)
    server.fail("get_file", status=404, times=None)
    with pytest.raises(UnreachableError, match="complete the upload"):
        upload(client, data_source(b"1", name="a"))


# A delete that may have taken effect


@pytest.mark.parametrize("fault", [{"cut": "answer"}], ids=["no answer"])
def test_a_delete_whose_answer_was_lost_has_succeeded(
    client: QuickSyncClient, server: LocalQuickSync, stored: Stored, fault: dict[str, Any]
) -> None:
    key = stored()["file_key"]
    server.fail("delete", **fault)
    client.delete_file(key)
    assert server.files() == []
    assert [entry.status for entry in server.requests] == [None, 404]


def test_a_delete_that_finds_nothing_the_first_time_says_so(client: QuickSyncClient) -> None:
    with pytest.raises(NotFoundError, match="delete file nothing: 404"):
        client.delete_file("nothing")


def test_a_delete_that_was_refused_before_it_began_and_then_finds_nothing_says_so(
    client: QuickSyncClient, server: LocalQuickSync
) -> None:
    server.fail("delete", status=429)
    with pytest.raises(NotFoundError):
        client.delete_file("nothing")
    assert calls(server) == {"delete": 2}

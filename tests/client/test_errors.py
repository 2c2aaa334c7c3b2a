"""The error tree: which status becomes what, what messages say, and that every error survives pickling."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quicksync import client as public
from airflow_provider_quicksync.client import (
    BusyError,
    ConflictError,
    LimitError,
    NotFoundError,
    QuickSyncError,
    RefusedError,
    SessionExpiredError,
    UsageError,
)
from airflow_provider_quicksync.client.errors import STATUS_ERRORS, error_class_for
from airflow_provider_quicksync.client.failures import redact, retry_after_seconds
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import Connect
from .raw import RawServer, http

ERRORS = [
    kind for kind in vars(public).values() if isinstance(kind, type) and issubclass(kind, QuickSyncError)
]
BUILT_IN = {
    RefusedError: PermissionError,
    NotFoundError: FileNotFoundError,
    ConflictError: FileExistsError,
    UsageError: ValueError,
    public.UnreachableError: ConnectionError,
    public.DeadlineError: TimeoutError,
}


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_pickles_with_all_it_knows(kind: type[QuickSyncError]) -> None:
    error = kind("what failed", status=503, trace_id="00-1", retry_after=2.5, maybe_done=True)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "what failed"
    assert vars(again) == vars(error)
    assert vars(again)["__notes__"] == ["a note"]


def test_errors_are_what_callers_expect() -> None:
    assert len(ERRORS) == 14
    for kind, base in BUILT_IN.items():
        assert issubclass(kind, base)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UsageError),
        (401, RefusedError),
        (403, RefusedError),
        (404, NotFoundError),
        (405, UsageError),
        (408, BusyError),
        (409, ConflictError),
        (410, NotFoundError),
        (412, ConflictError),
        (413, LimitError),
        (415, UsageError),
        (422, LimitError),
        (425, BusyError),
        (429, BusyError),
        (500, BusyError),
        (501, BusyError),
        (502, BusyError),
        (503, BusyError),
        (504, BusyError),
        (507, LimitError),
        (599, BusyError),
        (304, UsageError),
    ],
)
def test_a_status_has_one_class(
    server: LocalQuickSync, connect: Connect, status: int, kind: type[QuickSyncError]
) -> None:
    assert error_class_for(status) is kind
    server.fail("list_files", status=status, times=None)
    with pytest.raises(kind) as caught:
        connect(server).list_files()
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert f"list the files: {status} " in str(caught.value)
    assert f"from {server.url}/buckets" in str(caught.value)


def test_only_statuses_that_may_pass_are_retryable() -> None:
    retryable = {status for status, kind in STATUS_ERRORS.items() if kind.retryable}
    assert retryable == {408, 425, 429, 500, 502, 503, 504}


def test_an_expired_session_is_told_from_a_refused_token(connect: Connect) -> None:
    with LocalQuickSync() as server:
        with pytest.raises(RefusedError) as caught:
            connect(server, credentials="wrong.bearer.token").list_files()
        assert not isinstance(caught.value, SessionExpiredError)
        assert "check the session token" in str(caught.value)
        client = connect(server)
        server.expire_session()
        with pytest.raises(SessionExpiredError, match="put a fresh session token into the connection"):
            client.list_files()


def test_problem_details_are_read_into_one_line(connect: Connect) -> None:
    problem = (
        '{"title": "One or more validation errors.", "status": 400, "detail": "Look\\nbelow",'
        ' "errors": {"totalParts": ["must be 1", "or more"], "name": "odd"}, "traceId": "00-abc-01"}'
    )
    reply = http(400, problem, Content_Type="application/problem+json")
    with RawServer(reply) as raw, pytest.raises(UsageError) as caught:
        connect(raw.url).list_files()
    said = str(caught.value)
    assert "400 One or more validation errors.: Look below, totalParts: must be 1; or more, name: odd" in said
    assert "(trace 00-abc-01)" in said
    assert caught.value.trace_id == "00-abc-01"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "400 Bad Request from"),
        ("<html>proxy page</html>", "400 Bad Request from"),
        ("Plain words.\r\nSecond line", "400 Plain words. Second line from"),
        ('"words"', "400 words from"),
        ("[1]", "400 [1] from"),
        ("null", "400 Bad Request from"),
        ('{"title": null, "detail": null, "errors": []}', "400 Bad Request from"),
        ('{"title": {"odd": 1}, "errors": {"a": null}}', "400 {'odd': 1}: a: None from"),
        ("[" * 100_000, "400 [[["),
        ("\x1b[31mred\x1b[0m\u2028line", "400 [31mred [0m line from"),
        ("w" * 5000, "w" * 400 + "…"),
    ],
)
def test_any_body_of_an_error_makes_one_line(connect: Connect, body: str, said: str) -> None:
    with RawServer(http(400, body)) as raw, pytest.raises(UsageError) as caught:
        connect(raw.url).list_files()
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("header", ["x-request-id", "request-id"])
def test_the_request_id_of_a_header_is_the_trace(connect: Connect, header: str) -> None:
    with RawServer(http(400, "", **{header: "r-1\x1b[0m"})) as raw, pytest.raises(UsageError) as caught:
        connect(raw.url).list_files()
    assert caught.value.trace_id == "r-1 [0m"


@given(st.text(), st.lists(st.text(min_size=4)))
def test_redaction_leaves_one_bounded_line(text: str, secrets: list[str]) -> None:
    line = redact(text, secrets)
    assert len(line) <= 401
    assert line.isprintable()


def test_redaction_takes_out_tokens_and_queries() -> None:
    said = redact(
        "sent eyJhbGciOiJIUzI1NiJ9.eyJzaWQiOiIxIn0.c2ln, key k-123, see 'https://h/p?X-Sig=abc&b=c' (http://h/?q)",
        ["k-123"],
    )
    assert said == "sent ***, key ***, see 'https://h/p?***' (http://h/?***"


@given(st.one_of(st.text(), st.floats().map(str), st.datetimes().map(str), st.integers().map(str)))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after_seconds(value)
    assert seconds is None or seconds >= 0


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after_seconds("7") == 7
    assert retry_after_seconds("-7") == 0
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 <= (retry_after_seconds(soon) or 0) <= 60
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_seconds(None) is None
    assert retry_after_seconds("soon") is None

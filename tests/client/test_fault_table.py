"""
Every fault of the local server, met by every call: what becomes of it.

``TABLE`` says it, each cell is a test, and ``python -m tests.client.test_fault_table`` prints it for people:

- unharmed: the call succeeded at once, whatever the fault did;
- retried: it succeeded after it was sent again (a link: after it was opened again, or got anew);
- cleaned up: an upload that the lost answer had begun was removed, and the repetition is the only one;
- resolved: it succeeded after the service was asked whether the lost one had taken effect;
- an error's name: it failed with that, and of an upload or a download nothing was left behind.

``RESUME`` says what a next attempt of an upload does after a first one has failed at its third of four parts:

- goes on: it sends the two parts that are missing;
- finds it: it sends nothing, as the file is there;
- starts again: it sends all of them, and what the first one began is removed;
- an error's name: it failed with that, and nothing was left behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    DownloadOptions,
    HttpOptions,
    QuickSyncClient,
    QuickSyncError,
    Receipt,
    UploadOptions,
    data_source,
    download,
    upload,
)
from airflow_provider_quicksync.client.transfer.checkpoint import Checkpoint
from airflow_provider_quicksync.client.transfer.resume import give_up
from airflow_provider_quicksync.local import LocalQuickSync

from .conftest import LIMITS, Connect, calls
from .stores import MemoryStore

UPLOADING = ("initiate", "put_part", "complete")
READING = ("list_files", "get_file", "get_download_url")
CALLS = (*UPLOADING, *READING, "download", "delete")
DATA = bytes(range(250))
SHA256 = hashlib.sha256(DATA).hexdigest()
READ_TIMEOUT = 0.15
LONGER = 3 * READ_TIMEOUT

Cells = dict[str, str]


def row(everywhere: str | None = None, **cells: str) -> Cells:
    """The outcome everywhere, but for the calls that are named; other calls don't know the fault."""
    return {call: said for call in CALLS if (said := cells.get(call, everywhere))}


RETRIED = row("retried")
LOST_ANSWER = row("retried", initiate="cleaned up", complete="resolved")
NEW_LINK = {"download": "retried"}
LASTING: dict[str, Any] = {"times": None}

TABLE: dict[str, tuple[dict[str, Any], Cells]] = {
    "408, once": ({"status": 408}, RETRIED),
    "425, once": ({"status": 425}, RETRIED),
    "429, twice, Retry-After": ({"status": 429, "retry_after": 1, "times": 2}, RETRIED),
    "500, once": ({"status": 500}, RETRIED),
    "502, once": ({"status": 502}, RETRIED),
    "503, twice, Retry-After": ({"status": 503, "retry_after": 1, "times": 2}, RETRIED),
    "504, once": ({"status": 504}, RETRIED),
    "503, for good": ({"status": 503, **LASTING}, row("BusyError")),
    "400": ({"status": 400}, row("UsageError", **NEW_LINK)),
    "401": ({"status": 401}, row("RefusedError", **NEW_LINK)),
    "403": ({"status": 403}, row("RefusedError", **NEW_LINK)),
    "404": ({"status": 404}, row("NotFoundError", **NEW_LINK)),
    "409": ({"status": 409}, row("ConflictError")),
    "413": ({"status": 413}, row("LimitError")),
    "422": ({"status": 422}, row("LimitError")),
    "redirect to another origin": (
        {"redirect_to": "http://127.0.0.1:1/"},
        row("UsageError", download="retried"),
    ),
    "reset before anything is read": ({"cut": "reset"}, RETRIED),
    "cut in the middle of the request": ({"cut": "request"}, RETRIED),
    "took effect, no answer": ({"cut": "answer"}, LOST_ANSWER),
    "took effect, half an answer": ({"cut": "response"}, {**LOST_ANSWER, "delete": "unharmed"}),
    "reset, for good": ({"cut": "reset", **LASTING}, row("UnreachableError")),
    "no answer, for good": (
        {"cut": "answer", **LASTING},
        row("UnreachableError", complete="resolved", delete="UnreachableError"),
    ),
    "late beyond the read timeout": ({"delay_seconds": LONGER}, RETRIED),
    "stalls in the middle of the answer": (
        {"stall_seconds": LONGER},
        {**LOST_ANSWER, "delete": "unharmed"},
    ),
    "late, for good": ({"delay_seconds": LONGER, **LASTING}, row("DeadlineError")),
    "every field null": ({"body": "nulls"}, row("DamagedError", complete="unharmed", delete="unharmed")),
    "a page instead of JSON": (
        {"body": "not_json"},
        row("DamagedError", complete="resolved", delete="resolved"),
    ),
    "an empty answer": (
        {"body": "empty"},
        row("DamagedError", complete="unharmed", delete="unharmed", download="retried"),
    ),
    "an answer without end": (
        {"body": "endless"},
        row("DamagedError", complete="resolved", delete="resolved"),
    ),
    "a damaged byte": ({"body": "corrupt"}, {"download": "DamagedError"}),
    "ranges are ignored": ({"ignore_range": True, **LASTING}, {"download": "unharmed"}),
}
# Of a download, only what can befall bytes counts.
for _fault in ("every field null", "a page instead of JSON"):
    del TABLE[_fault][1]["download"]

SWITCHES: dict[str, tuple[Callable[[LocalQuickSync], object], Cells]] = {
    "the link has expired": (
        lambda server: server.fail("get_download_url", link_seconds=0),
        {"download": "retried"},
    ),
    "links expire at once": (lambda server: server.configure(link_seconds=0), {"download": "RefusedError"}),
    "the session has expired": (
        lambda server: server.expire_session(),
        row("SessionExpiredError", put_part="", complete=""),
    ),
    "the session allows no more files": (
        lambda server: server.configure(max_files=1),
        {"initiate": "LimitError"},
    ),
    "the session allows no more megabytes": (
        lambda server: server.configure(max_total_megabytes=0),
        {"initiate": "LimitError"},
    ),
}


class Resumed:
    """An upload of four parts whose first attempt has failed at the third, and what happens then."""

    def __init__(self, server: LocalQuickSync, client: QuickSyncClient) -> None:
        self.server, self.client, self.store = server, client, MemoryStore()
        self._data, self._part_size_bytes, self._last = bytes(range(200)) * 2, 100, False
        self.fails("put_part", status=503, part_number=3)
        server.reset_log()

    def fails(self, call: str, **fault: Any) -> None:
        """One more attempt that fails."""
        self.server.fail(call, times=3, **fault)
        with pytest.raises(QuickSyncError):
            self._attempt()
        self.server.clear_faults()

    def meets(self, call: str, **fault: Any) -> None:
        self.server.fail(call, **fault)

    def completes(self) -> None:
        """All that a killed process would not have done any more is left out."""
        checkpoint = Checkpoint(self.store)
        upload(
            self.client,
            data_source(self._data, name="new"),
            options=UploadOptions(part_size_bytes=100, concurrency=1),
            checkpoint=checkpoint,
        )
        del self.store.values["quicksync.done.0"]
        self.server.reset_log()

    def has(self, *, part_size_bytes: int) -> None:
        self._part_size_bytes = part_size_bytes

    def loses(self, key: str) -> None:
        del self.store.values[f"quicksync.{key}"]

    def changes(self) -> None:
        self._data = bytes(reversed(self._data))

    def forgets(self) -> None:
        (file,) = self.server.files()
        self.client.delete_file(file["file_key"])

    def is_last(self) -> None:
        self._last = True
        self.server.fail("put_part", status=503, times=None)

    def outcome(self) -> str:
        try:
            receipt = self._attempt()
        except QuickSyncError as error:
            assert self.server.files() == []
            assert self.store.kept() == set()
            return type(error).__name__
        assert receipt["sha256"] == hashlib.sha256(self._data).hexdigest()
        (file,) = self.server.files()
        assert (file["file_key"], file["stored"]) == (receipt["file_key"], True)
        sent = {entry.part_number for entry in self.server.requests if entry.status == 200} - {None}
        return {0: "finds it", 2: "goes on", 4: "starts again"}[len(sent)]

    def _attempt(self) -> Receipt:
        checkpoint = Checkpoint(self.store, last_attempt=self._last)
        try:
            receipt = upload(
                self.client,
                data_source(self._data, name="new"),
                options=UploadOptions(part_size_bytes=self._part_size_bytes, concurrency=1),
                checkpoint=checkpoint,
            )
        except QuickSyncError as error:
            if checkpoint.is_over(error):
                give_up(self.client, checkpoint)
            raise
        checkpoint.clear()
        return receipt


RESUME: dict[str, tuple[Callable[[Resumed], object], str]] = {
    "nothing else": (lambda it: None, "goes on"),
    "fails twice more": (
        lambda it: [it.fails("put_part", status=503), it.fails("complete", status=503)],
        "goes on",
    ),
    "completed it, and was killed before its answer": (lambda it: it.completes(), "finds it"),
    "had other settings": (lambda it: it.has(part_size_bytes=250), "goes on"),
    "has lost its notes of parts": (lambda it: it.loses("tags.0.0"), "starts again"),
    "has lost its notes of the upload": (lambda it: it.loses("uploads.0"), "starts again"),
    "has lost its list of files": (lambda it: it.loses("intents.0"), "starts again"),
    "the source has changed": (lambda it: it.changes(), "starts again"),
    "the service has forgotten the upload": (lambda it: it.forgets(), "starts again"),
    "400 to a part": (lambda it: it.meets("put_part", status=400), "starts again"),
    "404 to a part": (lambda it: it.meets("put_part", status=404), "starts again"),
    "409 to a part": (lambda it: it.meets("put_part", status=409), "starts again"),
    "422 to a part": (lambda it: it.meets("put_part", status=422), "starts again"),
    "400 to complete, as the tags don't fit": (lambda it: it.meets("complete", status=400), "starts again"),
    "422 to complete": (lambda it: it.meets("complete", status=422), "starts again"),
    "401": (lambda it: it.meets("put_part", status=401), "RefusedError"),
    "403": (lambda it: it.meets("put_part", status=403), "RefusedError"),
    "503 for good, and it is the last attempt": (lambda it: it.is_last(), "BusyError"),
}

CASES = [(fault, call, said) for fault, (_, cells) in TABLE.items() for call, said in cells.items()]
SWITCHED = [
    (fault, call, said) for fault, (_, cells) in SWITCHES.items() for call, said in cells.items() if said
]


@pytest.fixture(autouse=True)
def _short_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_quicksync.client.api.LISTING_BYTES", 1 << 20)


@pytest.fixture
def hasty(server: LocalQuickSync, connect: Connect) -> QuickSyncClient:
    return connect(server, http=HttpOptions(connect_timeout=5, read_timeout=READ_TIMEOUT))


@pytest.fixture
def own_server() -> Iterator[LocalQuickSync]:
    with LocalQuickSync(min_part_bytes=LIMITS.min_part_bytes) as server:
        yield server


class Case:
    """One call that meets a fault, and what is there afterwards."""

    def __init__(self, server: LocalQuickSync, client: QuickSyncClient, call: str, folder: Path) -> None:
        self.server, self.client, self.call, self.folder = server, client, call, folder
        self.key = upload(client, data_source(DATA, name="there"))["file_key"]
        self.file = client.get_file(self.key)
        server.reset_log()

    def outcome(self) -> str:
        try:
            self._run()
        except QuickSyncError as error:
            self._check_failed(error)
            return type(error).__name__
        self._check_succeeded()
        made = calls(self.server)
        if self.call == "initiate" and made["delete"]:
            return "cleaned up"
        if made[self.call] > 1:
            return "retried"
        return "resolved" if self.call in ("complete", "delete") and made["get_file"] else "unharmed"

    def _run(self) -> None:
        client, key = self.client, self.key
        if self.call in UPLOADING:
            upload(
                client,
                data_source(DATA, name="new"),
                options=UploadOptions(part_size_bytes=130, concurrency=1),
            )
        elif self.call == "download":
            download(client, self.file, str(self.folder / "f"), options=DownloadOptions(sha256=SHA256))
        elif self.call == "list_files":
            assert key in [file.file_key for file in client.list_files()]
        else:
            name = "delete_file" if self.call == "delete" else self.call
            getattr(client, name)(key)

    def _check_failed(self, error: QuickSyncError) -> None:
        assert len(str(error).splitlines()) == 1
        assert list(self.folder.iterdir()) == []
        assert self._new_files() == []

    def _check_succeeded(self) -> None:
        if self.call == "download":
            assert (self.folder / "f").read_bytes() == DATA
        if self.call == "delete":
            assert self.key not in [file["file_key"] for file in self.server.files()]
        if self.call in UPLOADING:
            (new,) = self._new_files()
            assert new["stored"]
            assert new["received_parts"] == new["total_parts"] == 2

    def _new_files(self) -> list[dict[str, Any]]:
        """The files of this upload: one that a late request began for an earlier test isn't."""
        self.server.clear_faults()
        return [
            file for file in self.server.files() if file["file_key"] != self.key and file["total_parts"] == 2
        ]


def test_every_call_is_in_the_table() -> None:
    assert {call for _, call, _ in CASES} == set(CALLS)


@pytest.mark.parametrize(("fault", "call", "said"), CASES)
def test_a_fault_has_its_outcome(
    server: LocalQuickSync, hasty: QuickSyncClient, tmp_path: Path, fault: str, call: str, said: str
) -> None:
    case = Case(server, hasty, call, tmp_path)
    server.fail(call, **TABLE[fault][0])
    assert case.outcome() == said


@pytest.mark.parametrize(("fault", "call", "said"), SWITCHED)
def test_a_switch_has_its_outcome(
    own_server: LocalQuickSync, connect: Connect, tmp_path: Path, fault: str, call: str, said: str
) -> None:
    case = Case(own_server, connect(own_server), call, tmp_path)
    SWITCHES[fault][0](own_server)
    assert case.outcome() == said


@pytest.mark.parametrize("event", RESUME)
def test_a_next_attempt_has_its_outcome(server: LocalQuickSync, client: QuickSyncClient, event: str) -> None:
    happens, said = RESUME[event]
    case = Resumed(server, client)
    happens(case)
    assert case.outcome() == said


def markdown() -> str:
    """The tables for people."""
    lines = ["| fault | " + " | ".join(CALLS) + " |", "| --- " * (len(CALLS) + 1) + "|"]
    for fault, (_, cells) in (TABLE | SWITCHES).items():
        lines.append(f"| {fault} | " + " | ".join(cells.get(call) or "-" for call in CALLS) + " |")
    lines += ["", "| after a failed attempt | the next one |", "| --- | --- |"]
    lines += [f"| {event} | {said} |" for event, (_, said) in RESUME.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())

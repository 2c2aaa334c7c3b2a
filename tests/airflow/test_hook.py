"""The hook: the calls that people make in their tasks, the connection test, secrets and sockets."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import os
from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, task

from airflow_provider_quicksync.client import (
    ConflictError,
    DamagedError,
    DeadlineError,
    LimitError,
    NotFoundError,
    QuickSyncClient,
    RefusedError,
    SessionExpiredError,
    UsageError,
)
from airflow_provider_quicksync.hooks import QuickSyncHook
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

for place in ("sdk._shared.secrets_masker", "sdk.execution_time.secrets_masker", "utils.log.secrets_masker"):
    with contextlib.suppress(ImportError):
        redact = importlib.import_module(f"airflow.{place}").redact
        break

VERSION = ".".join(importlib.metadata.version("apache-airflow").split(".")[:2])
READS = {"current_session", "list_files", "get_file"}


@pytest.fixture
def hook(quicksync):
    with QuickSyncHook() as made:
        yield made


# Uploads


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: ObjectStoragePath(f"file://{path}")])
def test_uploading_a_file(hook, quicksync, tmp_path, kind):
    path = tmp_path / "a.csv"
    path.write_text("abc")
    receipt = hook.upload_file(kind(path))
    assert receipt == {
        "file_key": quicksync.files()[0]["file_key"],
        "name": "a.csv",
        "size_bytes": 3,
        "sha256": hashlib.sha256(b"abc").hexdigest(),
        "parts": 1,
        "completed": False,
        "session_id": quicksync.session_id,
    }
    assert quicksync.contents() == {"a.csv": b"abc"}


def test_uploading_a_file_object(hook, quicksync, tmp_path):
    file = io.BytesIO(b"head and body")
    file.seek(9)
    assert hook.upload_file(file, name="body")["size_bytes"] == 4
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        hook.upload_file(pipe, name="pipe")
    assert quicksync.contents() == {"body": b"body", "pipe": b"from a pipe"}


def test_uploading_data(hook, quicksync):
    hook.upload_data(b"\x00", "bytes")
    hook.upload_data("Ü", "text", checksum=False)
    assert quicksync.contents() == {"bytes": b"\x00", "text": "Ü".encode()}


def test_the_connections_part_size_and_concurrency(quicksync, connect):
    connect(quicksync, extra={"part_size_mib": 1000 / (1 << 20), "max_concurrency": 1})
    quicksync.configure(latency_seconds=0.002)
    with QuickSyncHook() as hook:
        assert hook.upload_data(bytes(5000), "a")["parts"] == 5
    assert quicksync.counters()["put_part"]["most_in_flight"] == 1
    with QuickSyncHook(part_size_mib=2000 / (1 << 20)) as hook:
        assert hook.upload_data(bytes(5000), "a")["parts"] == 3


def test_the_api_key_is_sent(quicksync, connect):
    quicksync.configure(api_key="a-key-of-an-account")
    connect(quicksync, extra={"api_key": "a-key-of-an-account"})
    with QuickSyncHook() as hook:
        hook.upload_data("x", "x")
    connect(quicksync, extra={"api_key": ""})
    with QuickSyncHook() as hook, pytest.raises(RefusedError):
        hook.upload_data("x", "y")


def test_if_exists(hook, quicksync):
    old = hook.upload_data("1", "a")["file_key"]
    assert hook.upload_data("2", "a", if_exists="skip")["file_key"] == old
    with pytest.raises(ConflictError, match="'a' .* nothing was sent"):
        hook.upload_data("2", "a", if_exists="fail")
    replaced = hook.upload_data("2", "a", if_exists="replace")
    assert replaced["completed"] is True
    assert [file.file_key for file in hook.find_files("a")] == [replaced["file_key"]]


def test_waiting_for_completion_while_uploading(hook, quicksync, monkeypatch):
    waits = []
    monkeypatch.setattr("threading.Event.wait", lambda event, seconds=None: waits.append(seconds))
    quicksync.configure(complete_after_polls=0)
    assert hook.upload_data("1", "a", wait_for_completion=True)["completed"] is True


def test_preflight(hook, quicksync):
    quicksync.configure(max_files=1)
    hook.upload_data("1", "a")
    with pytest.raises(LimitError, match=r"1 file\(s\) don't fit: session .* allows 1 and has 1"):
        hook.upload_data("1", "b")


# Files


def test_looking_at_files(hook, quicksync):
    keys = [quicksync.put("a"), quicksync.put("b"), quicksync.put("a")]
    assert [file.file_key for file in hook.list_files()] == keys
    assert [file.file_key for file in hook.find_files("a")] == [keys[0], keys[2]]
    assert hook.find_files("c") == []
    assert hook.get_file(keys[1]).name == "b"
    assert hook.get_file({"file_key": keys[1]}).completed
    assert hook.is_complete([keys[1]])
    with pytest.raises(NotFoundError):
        hook.is_complete("no-such-key")


def test_a_call_for_one_file_takes_one(hook):
    for call in (hook.get_file, hook.is_complete, hook.get_download_url, hook.delete_file):
        with pytest.raises(UsageError, match="one file key or receipt is needed, not 2"):
            call(["a", "b"])


def test_files_of_another_session_or_cipher_keep_their_raw_names(hook, quicksync, connect):
    quicksync.put("a")
    connect(quicksync, extra={"session_id": "another"})
    with QuickSyncHook(name_cipher="none") as other:
        (file,) = other.list_files()
    assert file.name == file.raw_name != "a"


def test_waiting(hook, quicksync):
    quicksync.configure(complete_after_polls=2)
    keys = [quicksync.put("a"), quicksync.put("b")]
    assert not hook.check_completion(keys).done
    files = hook.wait_for_completion([{"file_key": key} for key in keys], poll_seconds=0.01)
    assert [file.file_key for file in files] == keys
    assert hook.check_completion(keys).done
    with pytest.raises(NotFoundError, match="pointless"):
        hook.wait_for_completion("no-such-key", poll_seconds=0.01)
    quicksync.configure(complete_after_seconds=3600)
    with pytest.raises(DeadlineError, match="not complete after"):
        hook.wait_for_completion(quicksync.put("c"), poll_seconds=0.01, timeout_seconds=0.05)


def test_downloading(hook, quicksync, tmp_path):
    receipt = hook.upload_data(b"abc" * 1000, "a")
    target = tmp_path / "fetched"
    assert hook.download_file(receipt, str(target)) == {
        "file_key": receipt["file_key"],
        "name": "a",
        "size_bytes": 3000,
        "sha256": receipt["sha256"],
        "path": str(target),
    }
    assert target.read_bytes() == b"abc" * 1000
    assert hook.download_file(receipt["file_key"], str(target), checksum=False)["sha256"] is None


@pytest.mark.parametrize("checked", [{}, {"sha256": "0" * 64}], ids=["by the receipt", "by the argument"])
def test_a_download_that_is_damaged_leaves_nothing(hook, quicksync, tmp_path, checked):
    receipt = hook.upload_data(b"abc" * 1000, "a")
    if not checked:
        quicksync.fail("download", body="corrupt", times=None)
    (tmp_path / "fetched").write_text("before")
    with pytest.raises(DamagedError, match="SHA-256"):
        hook.download_file(receipt, str(tmp_path / "fetched"), **checked)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("fetched", "before")]


def test_a_file_that_is_not_complete_is_not_fetched(hook, quicksync, tmp_path):
    quicksync.configure(complete_after_seconds=3600)
    with pytest.raises(UsageError, match="not complete yet"):
        hook.download_file(quicksync.put("a"), str(tmp_path / "fetched"))
    assert list(tmp_path.iterdir()) == []


def test_deleting(hook, quicksync):
    keys = [quicksync.put("a"), quicksync.put("b")]
    assert hook.delete_file({"file_key": keys[0]}) is True
    assert hook.delete_file(keys[0]) is False
    with pytest.raises(NotFoundError):
        hook.delete_file(keys[0], ignore_missing=False)
    assert [file["file_key"] for file in quicksync.files()] == keys[1:]


# The connection test


def test_the_connection_test_names_the_session_and_its_rules(hook, quicksync):
    quicksync.put("a", b"x" * 1_000_000)
    quicksync.configure(max_files=10, max_total_megabytes=500)
    quicksync.reset_log()
    good, said = hook.test_connection()
    assert good
    assert said.startswith(f"{quicksync.url}: ")
    assert f"session {quicksync.session_id}: 1 of 10 files, 1.0 MiB of 500 MB" in said
    assert "until 20" in said
    assert {entry.method for entry in quicksync.requests} == {"GET"}
    assert set(quicksync.calls) <= READS


def test_the_connection_test_where_there_are_no_sessions(hook, quicksync):
    quicksync.put("a")
    quicksync.fail("current_session", status=404, times=None)
    quicksync.reset_log()
    good, said = hook.test_connection()
    assert (good, "1 files" in said) == (True, True)
    assert {entry.method for entry in quicksync.requests} == {"GET"}


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda q, connect: connect(q, password="of-another-session"), "check the session token"),
        (lambda q, connect: connect(q, password=""), "connection 'quicksync_default': no session token"),
        (
            lambda q, connect: connect(q, password="***"),
            "connection 'quicksync_default': the session token is a",
        ),
        (lambda q, connect: q.expire_session(), "put a fresh session token"),
        (lambda q, connect: q.stop(), "check the connection's host and the network"),
        (lambda q, connect: connect(q, host=q.url + "/x"), "404"),
        (lambda q, connect: connect(q, host="https://no-such-host.invalid"), "no-such-host.invalid"),
        (lambda q, connect: q.fail("current_session", body="not_json", times=None), "is not JSON"),
        (lambda q, connect: q.fail("current_session", status=503, times=None), "503"),
        (lambda q, connect: connect(q, extra={"verify": 5}), "'quicksync_default': verify must be text"),
    ],
    ids=[
        "bad token",
        "no token",
        "masked token",
        "expired",
        "stopped",
        "path",
        "no host",
        "not JSON",
        "busy",
        "field",
    ],
)
def test_the_connection_test_says_what_is_wrong(quicksync, connect, break_it, said):
    break_it(quicksync, connect)
    good, message = QuickSyncHook().test_connection()
    assert not good
    assert said in message
    assert len(message.splitlines()) == 1
    assert quicksync.token not in message
    assert "of-another-session" not in message


# Secrets and sockets


def test_secrets_are_masked_in_a_tasks_log(quicksync, connect, run_dag, log_text, monkeypatch):
    if VERSION == "2.11":  # which masks only where a worker runs a task
        monkeypatch.setattr("airflow.settings.MASK_SECRETS_IN_LOGS", True)
    secrets = [quicksync.token, "a-key-of-an-account"]
    connect(quicksync, password=f" {quicksync.token} ", extra={"api_key": secrets[1]})
    key = quicksync.put("a")
    with DAG("leaky", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as leaky:

        @task
        def leak():
            with QuickSyncHook() as hook:
                secrets.append(hook.get_download_url(key))
                hook.log.warning("leaking %s, %s and %s", *secrets)
                return [redact(f"leaking {secret}") for secret in secrets]

        leak()
    result = run_dag(leaky)
    assert result.state == "success", result.errors
    assert secrets[2].startswith("http")
    assert all("***" in text for text in result.xcoms["leak"])
    if VERSION == "2.11":  # later ones mask in the supervisor, which `dag.test()` is without
        said = [line for line in log_text().splitlines() if "leaking" in line]
        assert said
        assert not [secret for secret in secrets for line in said if secret in line]


def established_to(port: int) -> int:
    """How many of this machine's connections go to a port, by the kernel's own table."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_closing_leaves_no_connection(quicksync, tmp_path):
    with QuickSyncHook(max_concurrency=4) as hook:
        receipt = hook.upload_data(bytes(5000), "a")
        hook.download_file(receipt, str(tmp_path / "a"))
        hook.list_files()
        assert established_to(quicksync.port) >= 1
    assert established_to(quicksync.port) == 0
    hook.close()


def test_a_task_that_fails_leaves_no_connection(quicksync, run_task):
    quicksync.fail("put_part", status=422, times=None)
    assert run_task(UploadToQuickSyncOperator, data=bytes(5000), name="a").state == "failed"
    assert established_to(quicksync.port) == 0


def test_a_closed_hook_opens_again(quicksync):
    hook = QuickSyncHook()
    assert hook.get_conn() is hook.get_conn()
    assert isinstance(hook.get_conn(), QuickSyncClient)
    hook.close()
    assert hook.list_files() == []
    hook.close()


def test_an_expired_session_is_told_apart_from_a_wrong_token(quicksync, hook):
    quicksync.expire_session()
    with pytest.raises(SessionExpiredError):
        hook.list_files()

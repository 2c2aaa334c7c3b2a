"""A QuickSync with small limits, and single tasks run by Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_quicksync.client import QuickSyncClient, RetryPolicy
from airflow_provider_quicksync.local import LocalQuickSync
from airflow_provider_quicksync.local.connection import CONNECTION_VARIABLE

SMALLEST_PART = 1000


@pytest.fixture(autouse=True)
def _airflow_db(airflow_db):
    """Give each test the migrated database, since looking up a connection may read it."""


@pytest.fixture(autouse=True)
def _no_kept_stores(monkeypatch):
    """Let each test's paths read its own connection: Airflow keeps a store for as long as a process lives."""
    try:
        from airflow.sdk.io import store
    except ImportError:  # 2.11
        from airflow.io import store
    monkeypatch.setattr(store, "_STORE_CACHE", {})


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    """Let the client try again at once; how long it waits is not this side's matter."""
    monkeypatch.setattr(RetryPolicy, "_wait", lambda policy, state: 0)


class Server(LocalQuickSync):
    """A local QuickSync, with what tests ask of it most."""

    @property
    def calls(self) -> list[str]:
        """The names of the requests that came, in order."""
        return [entry.call for entry in self.requests]

    def client(self) -> QuickSyncClient:
        return QuickSyncClient(self.token, base_url=self.url, session_id=self.session_id)

    def contents(self) -> dict[str, bytes]:
        """The bytes of the finished files by their readable names; of equal ones, of the last."""
        found = {}
        target = self.root / "fetched"
        from airflow_provider_quicksync.client import download

        with self.client() as client:
            for file in client.list_files():
                if file.completed:
                    download(client, file, str(target))
                    found[file.name] = target.read_bytes()
        return found

    def put(self, name: str, content: bytes = b"x") -> str:
        """Upload a file past Airflow; return its key."""
        from airflow_provider_quicksync.client import data_source, upload

        with self.client() as client:
            return upload(client, data_source(content, name=name))["file_key"]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Point `quicksync_default` to a server, with some fields changed; `extra` ones are added."""

    def to(server: Server, *, extra: dict[str, Any] | None = None, **fields: Any) -> None:
        connection = server.airflow_connection()
        # Two attempts a call, so that failing is quick.
        extra = {**connection["extra"], "max_attempts": 2, **(extra or {})}
        monkeypatch.setenv(CONNECTION_VARIABLE, json.dumps({**connection, **fields, "extra": extra}))

    return to


@pytest.fixture
def quicksync(connect: Callable[..., None]) -> Iterator[Server]:
    """A server that `quicksync_default` points to, for which 1,000 bytes make a part."""
    with Server(min_part_bytes=SMALLEST_PART) as server:
        connect(server)
        yield server


@dataclass(frozen=True)
class Ran:
    """What became of one task."""

    state: str | None
    result: Any
    error: BaseException | None
    attempts: int

    @property
    def said(self) -> str:
        """The error's message, which is one line."""
        assert self.error is not None, self
        message = str(self.error)
        assert len(message.splitlines()) == 1, message
        return message

    @property
    def kind(self) -> str:
        return type(self.error).__name__


@pytest.fixture
def run_task(run_dag) -> Callable[..., Ran]:
    """Run one operator as the only task of a DAG: `run_task(Operator, argument=…)`."""

    def run(operator: type, **arguments: Any) -> Ran:
        with DAG(dag_id="only", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as only:
            operator(task_id="it", **arguments)
        result = run_dag(only)
        (ti,) = result.dag_run.get_task_instances()
        return Ran(result.states["it"], result.xcoms["it"], result.errors.get("it"), ti.try_number)

    return run


@pytest.fixture
def log_text(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Everything logged since the last call, wherever this Airflow writes a task's log to."""
    caplog.set_level("INFO")

    def read() -> str:
        captured = capsys.readouterr()
        text = "\n".join([record.getMessage() for record in caplog.records]) + captured.out + captured.err
        caplog.clear()
        # 3.0 writes what a task registers with the masker, at DEBUG, where only `dag.test()` shows it.
        return "\n".join(line for line in text.splitlines() if "[debug" not in line)

    return read

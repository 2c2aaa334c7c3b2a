"""
A real scheduler, and a real worker process that is killed (SIGKILL) in the middle of an upload.

Airflow's heartbeat time-out finds out, its scheduler starts the task again on another worker process, and
the server's log shows what the two of them have sent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from airflow_provider_quicksync.client import QuickSyncClient, download
from airflow_provider_quicksync.local import LocalQuickSync

ROOT = Path(__file__).resolve().parents[2]
PART_BYTES = 64 << 10
PARTS = 400
CONNECTIONS = 4
DELAY_SECONDS = 0.4  # so that half of it takes some twenty seconds
START_SECONDS = 240
DAG = f"""
from datetime import datetime, timedelta, timezone
from airflow.sdk import DAG
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

with DAG("killed", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)):
    UploadToQuickSyncOperator(
        task_id="up",
        source={{source!r}},
        part_size_mib={PART_BYTES / (1 << 20)},
        max_concurrency={CONNECTIONS},
        retries=1,
        retry_delay=timedelta(0),
    )
"""


def _airflow_version() -> tuple[int, ...]:
    from airflow import __version__

    return tuple(map(int, __version__.split(".")[:2]))


pytestmark = [
    pytest.mark.skipif(_airflow_version() < (3, 3), reason="no task state store before Airflow 3.3"),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="a minute, and one Python is enough"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def scripts() -> Any:
    """What `make airflow` is made of."""
    spec = importlib.util.spec_from_file_location("standalone", ROOT / "scripts" / "standalone.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def quicksync() -> Iterator[LocalQuickSync]:
    with LocalQuickSync(min_part_bytes=PART_BYTES) as server:
        yield server


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "large.bin"
    path.write_bytes(os.urandom(PARTS * PART_BYTES))
    return path


class Airflow:
    """`airflow standalone`, and its API."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._home, self._url = home, f"http://127.0.0.1:{port}"
        self._api = requests.Session()

    def log_in(self) -> bool:
        with suppress(requests.RequestException, ValueError, OSError):
            parts = requests.get(f"{self._url}/api/v2/monitor/health", timeout=5).json()
            if any(parts[part]["status"] != "healthy" for part in ("scheduler", "dag_processor")):
                return False
            passwords = (self._home / "simple_auth_manager_passwords.json.generated").read_text()
            ((name, password),) = json.loads(passwords).items()
            login = {"username": name, "password": password}
            token = self._api.post(f"{self._url}/auth/token", json=login, timeout=30).json()["access_token"]
            self._api.headers["Authorization"] = f"Bearer {token}"
            return True
        return False

    def trigger(self) -> str | None:
        """Begin a run; its id, or None while the DAG isn't there yet."""
        answer = self._api.post(
            f"{self._url}/api/v2/dags/killed/dagRuns",
            json={"logical_date": datetime.now(UTC).isoformat()},
            timeout=30,
        )
        return str(answer.json()["dag_run_id"]) if answer.ok else None

    def get(self, path: str) -> Any:
        return self._api.get(f"{self._url}/api/v2/dags/killed/{path}", timeout=30).json()

    def mark_failed(self, run: str) -> None:
        path = f"{self._url}/api/v2/dags/killed/dagRuns/{run}/taskInstances/up"
        self._api.patch(path, json={"new_state": "failed"}, timeout=30).raise_for_status()

    def tail(self) -> str:
        return (self._home / "out.log").read_text()[-5000:]


@pytest.fixture(scope="module")
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        yield listening


@pytest.fixture(scope="module")
def airflow(
    scripts: Any,
    quicksync: LocalQuickSync,
    statsd: socket.socket,
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Airflow]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    port = scripts.free_port(0)
    (folder / "killed.py").write_text(DAG.format(source=str(source)))
    settings = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    settings |= scripts.airflow_settings(port, quicksync.connection_json())
    settings |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(scripts.free_port(0)),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(scripts.free_port(0)),
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "quicksync",
        # A worker that says nothing for so long is dead; by default that takes five minutes.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    }
    with (home / "out.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "airflow", "standalone"],
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        airflow = Airflow(home, port, process)
        wait_for(airflow, airflow.log_in)
        yield airflow
    finally:
        scripts.stop(process)


def wait_for(airflow: Airflow, what: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert airflow.process.poll() is None, airflow.tail()
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain\n{airflow.tail()}")


def uploading(scripts: Any, airflow: Airflow, quicksync: LocalQuickSync) -> psutil.Process | None:
    """The process of the task: the one of Airflow's that is connected with the server."""
    for process in scripts.members(airflow.process.pid):
        with suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.raddr and connection.raddr.port == quicksync.port:
                    return process
    return None


def parts_taken(quicksync: LocalQuickSync) -> list[int]:
    return [
        entry.part_number
        for entry in quicksync.requests
        if entry.call == "put_part" and entry.status == 200 and entry.part_number
    ]


def test_a_killed_worker_costs_seconds(
    scripts: Any,
    quicksync: LocalQuickSync,
    airflow: Airflow,
    statsd: socket.socket,
    source: Path,
    tmp_path: Path,
    record_property: Callable[[str, Any], None],
) -> None:
    quicksync.fail("put_part", delay_seconds=DELAY_SECONDS, times=None)
    run = wait_for(airflow, airflow.trigger)
    wait_for(airflow, lambda: len(parts_taken(quicksync)) >= PARTS // 2)

    task = uploading(scripts, airflow, quicksync)
    assert task is not None
    worker = task.parent()
    assert worker is not None
    for process in (worker, task):
        process.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    wait_for(airflow, lambda: not quicksync.counters()["put_part"]["in_flight"])
    before = parts_taken(quicksync)
    quicksync.clear_faults()

    state = wait_for(airflow, lambda: _final(airflow.get(f"dagRuns/{run}")["state"]))
    seconds = time.monotonic() - killed_at
    instance = airflow.get(f"dagRuns/{run}/taskInstances/up")
    assert (state, instance["try_number"]) == ("success", 2), airflow.tail()

    (file,) = quicksync.files()
    assert file["stored"]
    receipt = airflow.get(f"dagRuns/{run}/taskInstances/up/xcomEntries/return_value?deserialize=true")[
        "value"
    ]
    with QuickSyncClient(quicksync.token, base_url=quicksync.url, session_id=quicksync.session_id) as client:
        fetched = download(client, client.get_file(file["file_key"]), str(tmp_path / "fetched"))
    assert (tmp_path / "fetched").read_bytes() == source.read_bytes()
    assert receipt["sha256"] == fetched["sha256"]
    assert receipt["file_key"] == file["file_key"]

    sent = sum(entry.received_bytes for entry in quicksync.requests if entry.call == "put_part")
    after = parts_taken(quicksync)[len(before) :]
    figures = {
        "parts": PARTS,
        "parts_before_the_kill": len(before),
        "parts_after_it": len(after),
        "bytes_sent_ratio": round(sent / source.stat().st_size, 4),
        "seconds_from_kill_to_success": round(seconds, 1),
    }
    print(figures)
    for name, value in figures.items():
        record_property(name, value)
    assert PARTS // 2 <= len(before) < PARTS * 3 // 4
    assert sorted({*before, *after}) == list(range(1, PARTS + 1))
    assert f"airflow.quicksync.upload.parts:{len(after)}|c" in received(statsd)
    assert sent <= 1.05 * source.stat().st_size, figures


def test_a_task_that_a_user_fails_removes_what_it_began(quicksync: LocalQuickSync, airflow: Airflow) -> None:
    there = [file["file_key"] for file in quicksync.files()]
    quicksync.reset_log()
    quicksync.fail("put_part", delay_seconds=DELAY_SECONDS, times=None)
    run = wait_for(airflow, airflow.trigger)
    wait_for(airflow, lambda: len(parts_taken(quicksync)) >= 3 * CONNECTIONS)
    assert len(quicksync.files()) == len(there) + 1
    airflow.mark_failed(run)
    wait_for(airflow, lambda: [file["file_key"] for file in quicksync.files()] == there, 60)
    quicksync.clear_faults()
    assert airflow.get(f"dagRuns/{run}/taskInstances/up")["state"] == "failed"
    assert "complete" not in {entry.call for entry in quicksync.requests}


def received(statsd: socket.socket) -> list[str]:
    """The metrics that Airflow's workers have sent."""
    found: list[str] = []
    with suppress(BlockingIOError):
        while True:
            found += statsd.recv(65_536).decode().splitlines()
    return found


def _final(state: str) -> str | None:
    return state if state in ("success", "failed") else None

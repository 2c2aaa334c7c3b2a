"""
A DAG started by completed files, in a real Airflow, over two restarts of its triggerer.

    python benchmarks/asset_watcher_run.py      # with the Python of the Airflow to be tried (3.0 or newer)

Starts the parts of an Airflow one by one with a QuickSync on this machine, uploads files before, between and
after two kill -9 of the triggerer, and prints how often each file started the example DAG.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from airflow_provider_quicksync.client import QuickSyncClient, data_source, upload
from airflow_provider_quicksync.local import LocalQuickSync

ROOT = Path(__file__).resolve().parents[1]
DAG_ID = "quicksync_on_new_file"
INTERVAL_SECONDS = 2
START_SECONDS = 120


def main() -> int:
    """0 when every file started the DAG exactly once."""
    with (
        tempfile.TemporaryDirectory(prefix="watcher-") as folder,
        LocalQuickSync() as server,
        ExitStack() as stack,
    ):
        airflow = Airflow(Path(folder), server, stack)
        airflow.start()
        expected = []

        def put(*names: str, counts: bool = True) -> None:
            with QuickSyncClient(server.token, base_url=server.url) as client:
                for name in names:
                    upload(client, data_source(name, name=f"reports/{name}"))
            expected.extend(names if counts else ())

        put("there-before", counts=False)
        airflow.triggerer()
        wait(lambda: looks(server) >= 2, "the first look")
        put("first", "second")
        airflow.wait_for(expected)
        for life in (1, 2):
            airflow.kill_triggerer()
            keeps = airflow.version >= (3, 3)
            put(f"while-down-{life}", counts=keeps)
            before = looks(server)
            airflow.triggerer()
            wait(lambda before=before: looks(server) >= before + 2, "a look after the restart")
            put(f"after-restart-{life}")
            airflow.wait_for(expected)
        time.sleep(5 * INTERVAL_SECONDS)
        started = airflow.started()
        print(f"Airflow {'.'.join(map(str, airflow.version))}: {json.dumps(started)}")
        print("expected once each:", ", ".join(expected))
        return 0 if started == dict.fromkeys(expected, 1) else 1


def looks(server: LocalQuickSync) -> int:
    return server.counters().get("list_files", {}).get("requests", 0)


def wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {START_SECONDS} s for {what}")
        time.sleep(0.5)


class Airflow:
    """The parts of an Airflow, each a group of processes."""

    def __init__(self, home: Path, server: LocalQuickSync, stack: ExitStack) -> None:
        import airflow

        self.version = tuple(int(part) for part in airflow.__version__.split(".")[:2])
        self.home, self.stack = home, stack
        self.port, self._token = free_port(), ""
        dags = home / "dags"
        dags.mkdir()
        text = (ROOT / "example_dags" / f"{DAG_ID}.py").read_text()
        (dags / f"{DAG_ID}.py").write_text(
            text.replace("poke_interval=30", f"poke_interval={INTERVAL_SECONDS}")
        )
        url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_QUICKSYNC_DEFAULT": server.connection_json(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-this-run-on-loopback-0123456789",
            "AIRFLOW__API__SECRET_KEY": "only-for-this-run-on-loopback",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "3",
            "AIRFLOW__CORE__TRIGGERER_HEALTH_CHECK_THRESHOLD": "3",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def start(self) -> None:
        """All parts but the triggerer, healthy."""
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        self.part("api-server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        self.part("scheduler")
        self.part("dag-processor")
        wait(self._healthy, "Airflow to be healthy")

    def part(self, *command: str) -> subprocess.Popen[bytes]:
        """One part, in a group of its own, stopped at the end."""
        log = (self.home / f"{command[0]}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", *command],
            env=self.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.stack.callback(stop, process)
        return process

    def triggerer(self) -> None:
        self._triggerer = self.part("triggerer")

    def kill_triggerer(self) -> None:
        os.killpg(self._triggerer.pid, signal.SIGKILL)
        self._triggerer.wait()

    def started(self) -> dict[str, int]:
        """How many runs of the DAG each file has started."""
        counts: collections.Counter[str] = collections.Counter()
        for event in self._events():
            name = ((event.get("extra") or {}).get("payload") or {}).get("file", {}).get("name", "?")
            counts[name.removeprefix("reports/")] += len(event["created_dagruns"])
        return dict(counts)

    def wait_for(self, names: list[str]) -> None:
        wait(lambda: set(names) <= set(self.started()), f"runs for {names}, got {self.started()}")

    def _events(self) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}"
        passwords = json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text())
        name, password = next(iter(passwords.items()))
        if not self._token:
            answer = requests.post(
                f"{url}/auth/token", json={"username": name, "password": password}, timeout=60
            )
            self._token = answer.json()["access_token"]
        headers = {"Authorization": f"Bearer {self._token}"}
        while True:  # a busy machine's database is locked now and then
            answer = requests.get(f"{url}/api/v2/assets/events", headers=headers, timeout=60)
            if answer.ok:
                return answer.json()["asset_events"]
            time.sleep(1)

    def _healthy(self) -> bool:
        try:
            parts = requests.get(f"http://127.0.0.1:{self.port}/api/v2/monitor/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            return False
        return all(parts[part]["status"] == "healthy" for part in ("scheduler", "dag_processor"))


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a group of processes: ask, wait, insist."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())

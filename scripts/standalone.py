"""An Airflow to click in: `airflow standalone`, a QuickSync on this machine, the connection, the examples.

`make airflow` runs it until Ctrl-C; `--check` triggers an example as a click would, and stops.
State is kept in `.airflow/` between runs. Both programs are groups of processes, and are stopped as such.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import requests

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".airflow"
BIN = Path(sys.executable).parent
START_SECONDS = 180
STOP_SECONDS = 20
POLL_SECONDS = 0.5
CHECKED = "quicksync_upload_wait_delete"


def main(arguments: list[str]) -> int:
    """Start both, say where they are, and wait; 0 when they ran until they were told to stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told_to_stop)
    HOME.mkdir(exist_ok=True)
    try:
        with ExitStack() as running:
            quicksync = running.enter_context(group("quicksync", quicksync_command()))
            connection = wait_for(quicksync, "QuickSync", printed_connection)
            port = free_port(8080)
            settings = airflow_settings(port, connection)
            airflow = running.enter_context(group("airflow", [BIN / "airflow", "standalone"], settings))
            print("Starting Airflow: half a minute the first time", flush=True)
            wait_for(airflow, "Airflow", lambda: healthy(port))
            print(welcome(port, connection), flush=True)
            if "--check" in arguments:
                run = triggered(port)
                state = wait_for(airflow, "Airflow", run)
                print(f"{CHECKED} under the scheduler: {state}", flush=True)
                return 0 if state == "success" else 1
            wait_until_one_ends(quicksync, airflow)
            return 1
    except KeyboardInterrupt:
        print()
    print("Stopped; nothing is left running")
    return 0


def told_to_stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def quicksync_command() -> list[str | Path]:
    port = free_port(8484)
    return [BIN / "quicksync-local", "--port", str(port), "--root", HOME / "quicksync"]


def airflow_settings(port: int, connection: str) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # standalone starts its parts by name
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW_CONN_QUICKSYNC_DEFAULT": connection,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port(8793)),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port(8794)),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def login() -> tuple[str, str]:
    """The user and the password that Airflow made up at its first start."""
    passwords = json.loads((HOME / "simple_auth_manager_passwords.json.generated").read_text())
    return next(iter(passwords.items()))


def welcome(port: int, connection: str) -> str:
    name, password = login()
    return "\n".join(
        [
            "",
            f"  Airflow    http://127.0.0.1:{port}   user {name}, password {password}",
            f"  QuickSync  {json.loads(connection)['host']}   the connection quicksync_default points to it",
            f"  DAGs       {ROOT / 'example_dags'}",
            f"  Logs       {HOME}/airflow.log, {HOME}/quicksync.log",
            "",
            "Ctrl-C stops both.",
        ]
    )


def printed_connection() -> str | None:
    """The connection that quicksync-local printed for an Airflow, once it has."""
    for line in (HOME / "quicksync.log").read_text().splitlines():
        if line.startswith("export AIRFLOW_CONN_QUICKSYNC_DEFAULT="):
            return shlex.split(line)[1].partition("=")[2]
    return None


def healthy(port: int) -> bool:
    """Whether each part of Airflow says that it is well."""
    with suppress(requests.RequestException, ValueError):
        parts = requests.get(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5).json()
        return all(
            parts[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor")
        )
    return False


def triggered(port: int) -> Callable[[], str | None]:
    """Trigger the example as the UI does, once its file is parsed; return what tells its final state."""
    url, (name, password) = f"http://127.0.0.1:{port}", login()
    api = requests.Session()
    token = api.post(f"{url}/auth/token", json={"username": name, "password": password}, timeout=30).json()
    api.headers["Authorization"] = f"Bearer {token['access_token']}"
    runs = f"{url}/api/v2/dags/{CHECKED}/dagRuns"
    run_id = None

    def final_state() -> str | None:
        nonlocal run_id
        if run_id is None:
            answer = api.post(runs, json={"logical_date": datetime.now(UTC).isoformat()}, timeout=30)
            run_id = answer.json()["dag_run_id"] if answer.ok else None
            return None
        state = api.get(f"{runs}/{run_id}", timeout=30).json()["state"]
        return state if state in ("success", "failed") else None

    return final_state


def free_port(preferred: int) -> int:
    """The preferred port, or any other where something else has it."""
    for port in (preferred, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as taken:
            return taken.getsockname()[1]
    raise OSError("no port is free")


@contextmanager
def group(name: str, command: list, settings: dict[str, str] | None = None) -> Iterator:
    """Run a command as a session of its own, its output in a log; at the end nothing of it is left."""
    with (HOME / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | (settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # A second Ctrl-C must not cut this short.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """TERM to all that the process started, time to obey, KILL to the rest."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        for member in members(process.pid):
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            process.poll()
            if not members(process.pid):
                return
            time.sleep(POLL_SECONDS / 5)


def members(session: int) -> list[psutil.Process]:
    """All of a session: Airflow's tasks are in process groups of their own, but not in another session."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for(process: subprocess.Popen, name: str, ready: Callable) -> Any:
    """Return what `ready` returns once it is something, unless the process ends or time does."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if result := ready():
            return result
        time.sleep(POLL_SECONDS)
    raise SystemExit(f"{name} did not start; its last lines:\n{last_lines(name)}")


def last_lines(name: str) -> str:
    return "\n".join((HOME / f"{name.lower()}.log").read_text().splitlines()[-30:])


def wait_until_one_ends(quicksync: subprocess.Popen, airflow: subprocess.Popen) -> None:
    while quicksync.poll() is None and airflow.poll() is None:
        time.sleep(POLL_SECONDS)
    name = "Airflow" if quicksync.poll() is None else "QuickSync"
    print(f"{name} ended by itself; its last lines:\n{last_lines(name)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

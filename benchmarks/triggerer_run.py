"""
Deferred sensors in a real Airflow, counted by the server they wait for.

    python benchmarks/triggerer_run.py                # with the Python of the Airflow to be tried
    python benchmarks/triggerer_run.py --tasks 50 --realtime

Starts `airflow standalone` and a QuickSync on this machine, lets one DAG wait for files with deferrable
sensors (some end from the trigger, some time out, one waits for a file that is then deleted), restarts the
server in the middle, completes the files, and prints what the server was asked and what became of the tasks.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_provider_quicksync.local import LocalQuickSync
from airflow_provider_quicksync.local.store import Upload

DAG_ID = "waiting"
INTERVAL_SECONDS = 5
STEADY_SECONDS = 60
START_SECONDS = 300
FAR_AWAY = 1e10
DAG = """
from datetime import datetime, timezone
import json, pathlib
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_quicksync.sensors import QuickSyncUploadCompletionSensor as Sensor

keys = json.loads(pathlib.Path(__file__).with_name("keys.json").read_text())
common = {{"deferrable": True, "poke_interval": {interval}, "timeout": 7200}}
with DAG(dag_id="waiting", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
         max_active_tasks=1000, is_paused_upon_creation=False):
    Sensor.partial(task_id="waits", **common).expand(file_key=keys["waits"])
    Sensor.partial(task_id="ends", end_from_trigger=True, **common).expand(file_key=keys["ends"])
    Sensor(task_id="late", file_key=keys["late"], **{{**common, "timeout": 20}})
    Sensor(task_id="late_but_soft", file_key=keys["late"], soft_fail=True, **{{**common, "timeout": 20}})
    Sensor(task_id="deleted", file_key=keys["deleted"], **common)
"""


def main() -> int:
    """0 when every task came to what it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--realtime", action="store_true", help="let the server have its session hub")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triggerer-") as folder, Server() as server:
        if not options.realtime:
            server.fail("negotiate", status=404, times=None)
        ending = max(1, options.tasks // 10)
        keys = {"waits": server.put(options.tasks - ending), "ends": server.put(ending)}
        (late,), (deleted,) = server.put(1), server.put(1)
        with Airflow(Path(folder), server, {**keys, "late": late, "deleted": deleted}) as airflow:
            return watch(airflow, server, keys, deleted, options.tasks)


def watch(airflow: Airflow, server: Server, keys: dict[str, list[str]], deleted: str, tasks: int) -> int:
    """Follow the run, and tell what there is to tell."""
    began = time.monotonic()
    airflow.trigger()
    airflow.wait(lambda states: states["deferred"] > tasks, "all tasks to be deferred")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    print(f"Airflow {airflow.version}: all deferred after {time.monotonic() - began:.0f} s")
    print(f"  meanwhile, {server.said()}")
    steady(server, "waiting")
    server.stop()
    print("  the server is away for 20 s")
    time.sleep(20)
    server.start()
    steady(server, "after the server's restart")
    server.remove(deleted)
    server.complete(*keys["waits"], *keys["ends"])
    server.reset_log()
    began = time.monotonic()
    airflow.wait(lambda states: states["deferred"] == 0, "the trigger to fire for all")
    print(f"  all fired {time.monotonic() - began:.0f} s after completion, {server.said()}")
    airflow.wait(lambda states: not set(states) - {"success", "failed", "skipped"}, "all tasks to end")
    print(f"  all ended after {time.monotonic() - began:.0f} s")
    found = airflow.by_task()
    print(f"  {json.dumps(found)}")
    print(f"  started again on a worker: {airflow.resumed()}; {airflow.trouble()}")
    expected = {
        "waits": {"success": len(keys["waits"])},
        "ends": {"success": len(keys["ends"])},
        "late": {"failed": 1},
        "late_but_soft": {"skipped": 1},
        "deleted": {"failed": 1},
    }
    return 0 if found == expected else 1


def steady(server: Server, what: str) -> None:
    server.reset_log()
    time.sleep(STEADY_SECONDS)
    looks = server.looks()
    intervals = STEADY_SECONDS / INTERVAL_SECONDS
    print(
        f"  {what}, {STEADY_SECONDS} s: {looks} looks, {looks / intervals:.2f} an interval; {server.said()}"
    )


class Server(LocalQuickSync):
    """A QuickSync with files that are completed when this says so."""

    def __enter__(self) -> Server:
        self.start()
        return self

    def put(self, count: int) -> list[str]:
        keys = [secrets.token_hex(8) for _ in range(count)]

        def put(running: Any) -> None:
            for key in keys:
                running.core.store.add(Upload(key, key, self.session_id, self.creator_id, key, 1, 1))
                running.core.store.set_stored(key, FAR_AWAY, 0)

        self._on_loop(put)
        return keys

    def complete(self, *keys: str) -> None:
        def completed(running: Any) -> None:
            for key in keys:
                running.core.store.set_stored(key, time.time() - 1, 0)
            running.core.events.announce_completed()

        self._on_loop(completed)

    def remove(self, key: str) -> None:
        def removed(running: Any) -> None:
            upload = running.core.store.find(key)
            running.core.store.remove(key)
            running.core.events.file("FileRemoved", upload)

        self._on_loop(removed)

    def looks(self) -> int:
        return self.counters().get("list_files", {}).get("requests", 0)

    def said(self) -> str:
        counts = {call: count["requests"] for call, count in sorted(self.counters().items())}
        return "requests: " + (", ".join(f"{call} {count}" for call, count in counts.items()) or "none")


class Airflow:
    """`airflow standalone`, told what to do by its command line, asked through its database."""

    def __init__(self, home: Path, server: Server, keys: dict[str, Any]) -> None:
        self.version, self.home, dags = metadata.version("apache-airflow"), home, home / "dags"
        dags.mkdir()
        (dags / "keys.json").write_text(json.dumps(keys))
        (dags / "waiting.py").write_text(DAG.format(interval=INTERVAL_SECONDS))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW_CONN_QUICKSYNC_DEFAULT": server.connection_json(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(port),
            "AIRFLOW__WEBSERVER__WORKERS": "1",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def __enter__(self) -> Airflow:
        with (self.home / "airflow.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._until(lambda: self._rows("SELECT 1 FROM serialized_dag"), "the DAG to be known")
            self._until(
                lambda: self._rows("SELECT 1 FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"),
                "the triggerer",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in self._groups():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)

    def _groups(self) -> set[int]:
        """All process groups of the session: Airflow's tasks have their own."""
        import psutil

        groups = set()
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == self.process.pid:
                    groups.add(os.getpgid(process.pid))
        return groups

    def trigger(self) -> None:
        command = [sys.executable, "-m", "airflow", "dags", "trigger", DAG_ID]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def states(self) -> collections.Counter[str]:
        rows = self._rows("SELECT coalesce(state, 'none'), count(*) FROM task_instance GROUP BY 1")
        return collections.Counter(dict(rows))

    def by_task(self) -> dict[str, dict[str, int]]:
        rows = self._rows("SELECT task_id, state, count(*) FROM task_instance GROUP BY 1, 2 ORDER BY 1")
        found: dict[str, dict[str, int]] = {}
        for task, state, count in rows:
            found.setdefault(task, {})[state] = count
        return found

    def resumed(self) -> str:
        """How often tasks were started on a worker after their trigger fired (Airflow 3 logs each start)."""
        log = (self.home / "airflow.log").read_text(errors="replace")
        counts = collections.Counter[str]()
        for task, text in self._rows("SELECT task_id, id FROM task_instance"):
            counts[task] += max(0, log.count(f"/task-instances/{uuid.UUID(text)}/run") - 1)
        return ", ".join(f"{task} {counts[task]}" for task in ("waits", "ends"))

    def trouble(self) -> str:
        """What the triggerer complained of."""
        log = (self.home / "airflow.log").read_text(errors="replace")
        signs = ("Trigger runner failed", "out of order", "different loop", "never retrieved", "Traceback")
        found = {sign: count for sign in signs if (count := log.count(sign))}
        blocked = [float(seconds) for seconds in re.findall(r"was blocked for ([\d.]+) seconds", log)]
        return f"complaints: {found or 'none'}; blocked: {sorted(blocked)[-9:]}"

    def wait(self, ready: Callable[[collections.Counter[str]], bool], what: str) -> None:
        self._until(lambda: ready(self.states()), what, seconds=3600)

    def _until(self, ready: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end or self.process.poll() is not None:
                log = (self.home / "airflow.log").read_text(errors="replace").splitlines()[-40:]
                raise SystemExit("\n".join([*log, f"waited in vain for {what}: {dict(self.states())}"]))
            time.sleep(1)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, timeout=30)
            ) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError:  # not there yet, or locked for long
            return []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())

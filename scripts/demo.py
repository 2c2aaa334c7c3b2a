"""
The main job, for real, on this machine: `make demo`.

A QuickSync server of its own, an Airflow of its own, and the example DAG: a file goes up in parts, is waited
for, fetched through its link, checked and deleted. Nothing is left behind, and nothing needs an account.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SIZE_MIB = int(os.environ.get("DEMO_MIB", "512"))
EXAMPLE = "quicksync_upload_wait_delete"
CONSOLE = Console(width=110)


def main() -> int:
    """Run the job; 0 when every task succeeded and the bytes are the same on both ends."""
    with tempfile.TemporaryDirectory(prefix="quicksync-demo-") as folder:
        path = make_file(Path(folder) / "report.bin")
        with local_quicksync(Path(folder) / "quicksync") as connection:
            prepare_airflow(Path(folder) / "airflow", connection)
            return run(path, connection)


def make_file(path: Path) -> Path:
    """A file of random bytes."""
    CONSOLE.print(f"Writing {SIZE_MIB} MiB of random bytes")
    with path.open("wb") as file:
        for _ in range(SIZE_MIB):
            file.write(os.urandom(1 << 20))
    return path


@contextmanager
def local_quicksync(root: Path) -> Iterator[dict]:
    """A server in a process of its own, as `quicksync-local` starts it; yields the connection it prints."""
    command = [sys.executable, "-m", "airflow_provider_quicksync.local", "--port", "0", "--root", str(root)]
    command += ["--quiet", "--complete-after-seconds", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout:
                if line.startswith("export "):
                    connection = json.loads(line.partition("=")[2].strip().strip("'"))
                    CONSOLE.print(f"QuickSync on this machine: {connection['host']}")
                    break
            else:
                raise SystemExit("the local QuickSync did not start")
            yield connection
        finally:
            server.terminate()


def prepare_airflow(home: Path, connection: dict) -> None:
    """An empty Airflow whose DAGs folder is the examples and whose one connection is the server's."""
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_QUICKSYNC_DEFAULT": json.dumps(connection),
    }
    CONSOLE.print("Setting up an Airflow to run it in")
    for command in (["db", "migrate"], ["dags", "reserialize"]):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"airflow {' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def run(path: Path, connection: dict) -> int:
    """Run the example DAG on the file and show what came of it."""
    import airflow

    CONSOLE.print(f"Running {EXAMPLE} on Airflow {airflow.__version__}")
    sys.path.insert(0, str(ROOT / "example_dags"))
    dag = getattr(__import__(EXAMPLE), EXAMPLE)()
    with open(path, "rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    started = time.monotonic()
    with progress_bar(connection, path.stat().st_size):
        dag_run = dag.test(run_conf={"path": str(path)})
    tasks = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    for task_id in ("make_file", "upload", "wait", "check", "delete"):
        CONSOLE.print(f"  {task_id:<10} {tasks[task_id].state}")
    if str(dag_run.state) != "success":
        return 1
    receipt, checked = (
        tasks["upload"].xcom_pull(task_ids="upload"),
        tasks["check"].xcom_pull(task_ids="check"),
    )
    seconds = (tasks["upload"].end_date - tasks["upload"].start_date).total_seconds()
    equal = receipt["sha256"] == checked["sha256"] == expected
    table = Table("File", "Size", "Parts", "Seconds", "MiB/s", "SHA-256", "Equal on both ends")
    mib = receipt["size_bytes"] / (1 << 20)
    table.add_row(
        receipt["name"],
        f"{mib:,.0f} MiB",
        str(receipt["parts"]),
        f"{seconds:.1f}",
        f"{mib / seconds:,.0f}",
        f"{receipt['sha256'][:16]}…",
        "yes" if equal else "NO",
    )
    CONSOLE.print(table)
    CONSOLE.print(
        f"All in {time.monotonic() - started:.0f} s. `make airflow` shows the same in Airflow's UI."
    )
    return 0 if equal and receipt["parts"] > 1 else 1


@contextmanager
def progress_bar(connection: dict, size_bytes: int) -> Iterator[None]:
    """Show how many bytes the server has got, as it counts them."""
    counters = connection["host"].removesuffix("/v1") + "/_local/counters"
    headers = {"Authorization": f"Bearer {connection['password']}"}
    finished = threading.Event()
    columns = (TextColumn("  upload"), BarColumn(40), DownloadColumn(True), TransferSpeedColumn())

    def watch(progress: Progress) -> None:
        task = progress.add_task("upload", total=size_bytes)
        while not finished.wait(0.1):
            answer = requests.get(counters, headers=headers, timeout=5).json()
            progress.update(task, completed=answer.get("put_part", {}).get("received_bytes", 0))

    with Progress(*columns, console=CONSOLE) as progress:
        watcher = threading.Thread(target=watch, args=(progress,))
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()


if __name__ == "__main__":
    sys.exit(main())

"""A task that is killed in the middle of an upload ends within seconds and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DAG = """
import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_quicksync.operators import UploadToQuickSyncOperator

with DAG("killed", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    UploadToQuickSyncOperator(
        task_id="up", source={source!r}, part_size_mib=1, max_concurrency=2, wait_for_completion=True
    )
"""
# Airflow's supervisor sends SIGKILL 5 seconds after SIGTERM.
GRACE_SECONDS = 5.0


@pytest.fixture
def start(tmp_path, airflow_db):
    """Start a process that runs the DAG with `airflow dags test`, which installs a task's signal handler."""
    started = []

    def run(source):
        folder = tmp_path / "dags"
        folder.mkdir()
        (folder / "killed.py").write_text(DAG.format(source=str(source)))
        home = tmp_path / "home"
        home.mkdir()
        (home / "airflow.db").write_bytes(Path(airflow_db).read_bytes())
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        }
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "airflow", "dags", "test", "killed"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sparse(path, mib):
    with path.open("wb") as file:
        file.truncate(mib << 20)
    return path


@pytest.mark.parametrize(
    ("mib", "fault"),
    [(16, {"skip": 2, "delay_seconds": 600}), (1, {"delay_seconds": 600})],
    ids=["large", "small"],
)
def test_a_killed_upload_that_hangs(quicksync, start, tmp_path, mib, fault):
    quicksync.fail("put_part", times=None, **fault)
    process = start(sparse(tmp_path / "large", mib))
    wait_for(lambda: any(entry.faulty for entry in quicksync.requests), process)
    process.send_signal(signal.SIGTERM)
    killed = time.time()
    # Less than the read timeout: no thread is left that the process waits for.
    output, _ = process.communicate(timeout=50)
    assert quicksync.files() == [], output
    assert "complete" not in quicksync.calls
    (removal,) = [entry for entry in quicksync.requests if entry.call == "delete"]
    assert removal.time - killed < GRACE_SECONDS, output

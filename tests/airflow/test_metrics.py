"""Airflow's own metrics tell what was transferred: seen by a StatsD that listens on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client.counts import Counts
from airflow_provider_quicksync.local.connection import CONNECTION_VARIABLE

PART = 1000
PARTS = 5
WORKER = """
import sys
from pathlib import Path
from airflow.providers.common.compat.sdk import Stats

# As a worker does when it starts a task; before 3.2 the first metric does.
try:
    from airflow.sdk.observability.metrics import stats_utils
    from airflow.sdk.configuration import conf
except ImportError:
    pass
else:
    try:
        Stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    except TypeError:
        Stats.initialize(factory=stats_utils.get_stats_factory(Stats))

from airflow_provider_quicksync.hooks import QuickSyncHook
path = sys.argv[1]
with QuickSyncHook(part_size_mib=1000 / (1 << 20), max_concurrency=1, max_attempts=2) as hook:
    receipt = hook.upload_file(path)
    hook.download_file(receipt, path + ".fetched")
    try:
        hook.upload_file(path, name="fails")
    except Exception as error:
        print(type(error).__name__)
"""


@pytest.fixture
def statsd() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening


def received(statsd: socket.socket) -> dict[str, list[str]]:
    """What has come, by the metric's name; of this provider's only."""
    found: dict[str, list[str]] = {}
    statsd.setblocking(False)
    while True:
        try:
            lines = statsd.recv(65_536).decode().splitlines()
        except BlockingIOError:
            return found
        for line in lines:
            name, _, value = line.partition(":")
            if name.startswith("airflow.quicksync."):
                found.setdefault(name.removeprefix("airflow.quicksync."), []).append(value)


def test_statsd_receives_what_was_transferred(quicksync: Any, statsd: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(PARTS * PART))
    quicksync.fail("put_part", part_number=3, status=503)
    quicksync.fail("put_part", part_number=4, status=503, skip=1, times=None)
    environment = {
        **os.environ,
        CONNECTION_VARIABLE: os.environ[CONNECTION_VARIABLE],
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
    }
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "BusyError" in ran.stdout
    metrics = received(statsd)
    seconds = {name: metrics.pop(name) for name in ("upload.seconds", "download.seconds")}
    assert metrics == {
        # The second upload fails at its fourth part, and what it has moved counts.
        "upload.bytes": [f"{PARTS * PART}|c", f"{3 * PART}|c"],
        "upload.parts": [f"{PARTS}|c", "3|c"],
        "upload.retries": ["1|c", "1|c"],
        "download.bytes": [f"{PARTS * PART}|c"],
    }
    assert [len(times) for times in seconds.values()] == [2, 1]
    for time in (*seconds["upload.seconds"], *seconds["download.seconds"]):
        assert time.endswith("|ms")
        assert 0 < float(time.removesuffix("|ms")) < 100_000


def test_metrics_that_can_not_be_emitted_harm_nothing(
    quicksync: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.sdk import Stats

    from airflow_provider_quicksync.hooks import QuickSyncHook

    class Broken:
        @staticmethod
        def incr(*arguments: Any) -> None:
            raise OSError("no route to the host")

    assert Stats is not Broken
    monkeypatch.setattr("airflow.providers.common.compat.sdk.Stats", Broken)
    path = tmp_path / "data.bin"
    path.write_bytes(b"some bytes")
    with QuickSyncHook() as hook:
        assert hook.upload_file(path)["size_bytes"] == 10


def test_counts_are_what_a_client_has_sent() -> None:
    counts = Counts()
    counts.sent(10)
    counts.sent(5)
    counts.retried()
    assert (counts.parts, counts.bytes, counts.retries) == (2, 15, 1)
    assert counts == Counts(2, 15, 1)

"""That the benchmark runs and its bytes arrive; what it measures isn't looked at."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ["quicksync", "quicksync, SHA-256", "sockets by hand"]
CASES = ["upload", "upload over TLS", "small files", "WAN", "memory, small", "memory, large", "download"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads /proc")
@pytest.mark.timeout(180)
def test_every_case_runs_and_its_bytes_are_right() -> None:
    clients = [*CLIENTS, *(["curl"] if shutil.which("curl") else [])]
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    for client in clients:
        command += ["--client", client]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    measured = {tuple(line.split(" | ")[:2]) for line in done.stdout.splitlines() if line.startswith("| ")}
    for case in CASES:
        assert (f"| {case}", "quicksync") in measured
        assert (f"| {case}", "quicksync, SHA-256") in measured
    for case in ("upload", "upload over TLS"):
        assert {(f"| {case}", client) for client in clients} <= measured


def test_bytes_that_went_wrong_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.rig import Sink, Wrong

    file, log = tmp_path / "file", tmp_path / "log"
    file.write_bytes(b"abcdef")
    sink = Sink("http://localhost", None, log)
    log.write_text("key 1 6 1267612143\n")
    sink.check([file], crc=True)
    for arrived in ("", "key 1 5 0\n", "key 1 6 1267612144\n", "key 1 6 0\nkey 1 6 0\n"):
        log.write_text(arrived)
        with pytest.raises(Wrong):
            sink.check([file], crc=True)

"""`quicksync-local`, as a process and as a function."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from airflow_provider_quicksync.local.__main__ import main


def test_it_prints_where_it_is_and_the_connection_to_paste(command, api_of, tmp_path):
    server = command(
        "--root", str(tmp_path), "--token", "t" * 16, "--api-key", "k" * 8, "--min-part-bytes", "512"
    )
    assert server.printed[0].startswith(
        f"QuickSync on this machine: {server.url}  (root {tmp_path}, session "
    )
    assert server.printed[1].startswith("export AIRFLOW_CONN_QUICKSYNC_DEFAULT='{")
    session = api_of(server).current_session().json()
    assert server.connection == {
        "conn_type": "quicksync",
        "host": server.url,
        "password": "t" * 16,
        "extra": {"session_id": session["id"], "api_key": "k" * 8, "min_part_size_mib": 512 / 2**20},
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_logs_a_line_for_each_request(command, api_of, tmp_path, number):
    server = command("--root", str(tmp_path))
    api = api_of(server)
    upload = api.started(b"abc")
    api.put_part(upload, 1, b"abc")
    status, logged = server.end(number)
    assert status == 0
    assert "PUT /v1/buckets part 1 200, 3 B in" in logged
    assert server.token not in logged
    assert "Traceback" not in logged


def test_quiet_logs_nothing(command, api_of, tmp_path):
    server = command("--root", str(tmp_path), "--quiet")
    api_of(server).list_files()
    assert server.end() == (0, "")


def test_every_option_reaches_the_server(command, api_of, tmp_path):
    options = {
        "session-id": "s-1",
        "creator-id": "c-1",
        "key-prefix": "p-",
        "link-host": "localhost",
        "content-type": "text/x",
        "max-parts": 3,
        "complete-after-polls": 4,
        "max-files": 5,
        "max-total-megabytes": 6,
        "max-users": 7,
        "complete-after-seconds": 8.5,
        "session-seconds": 900.5,
        "link-seconds": 10.5,
        "latency-seconds": 0.01,
    }
    pairs = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    server = command("--root", str(tmp_path), *pairs)
    settings = api_of(server).control("GET", "/settings").json()
    assert {name.replace("-", "_"): value for name, value in options.items()}.items() <= settings.items()


def test_a_taken_port_is_refused_in_one_line(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1]), "--root", str(tmp_path), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("quicksync-local: cannot listen on 127.0.0.1:")
    assert error.count("\n") == 1


def test_a_root_that_cannot_be_written_is_refused_in_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["--root", str(tmp_path / "file" / "root"), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert error == f"quicksync-local: cannot write to {tmp_path}/file/root: Not a directory\n"


def test_a_broken_state_is_refused_in_one_line(capsys, tmp_path):
    (tmp_path / "state.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert main(["--root", str(tmp_path), "--quiet"]) == 1
    assert capsys.readouterr().err.startswith("quicksync-local: cannot use the state in")


def test_a_wrong_number_is_refused_in_one_line(capsys, tmp_path):
    assert main(["--root", str(tmp_path), "--max-parts", "0"]) == 1
    assert capsys.readouterr().err == "quicksync-local: max_parts must be more than 0\n"


def test_importing_the_package_does_not_import_aiohttp():
    code = "import sys, airflow_provider_quicksync.local; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_aiohttp_is_told_in_one_line(tmp_path):
    code = (
        "import sys; sys.modules['aiohttp'] = None;"
        "from airflow_provider_quicksync.local.__main__ import main;"
        f"sys.exit(main(['--root', {str(tmp_path)!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    wanted = "pip install 'airflow-provider-quicksync[local]'"
    assert ended.stderr == f"quicksync-local: aiohttp is missing: {wanted}\n"

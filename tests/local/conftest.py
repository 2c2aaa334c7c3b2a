"""A server with small limits, and a bare HTTP client for it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_quicksync.local import LocalQuickSync

SMALLEST_PART = 100


class Api:
    """The calls by name, over `requests`, without any help."""

    def __init__(self, quicksync: LocalQuickSync) -> None:
        self.quicksync = quicksync
        self.http = requests.Session()
        self.http.trust_env = False
        self.bearer = quicksync.token

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.bearer}", "Accept": "application/json"}
        headers.update(options.pop("headers", {}))
        options.setdefault("timeout", 20)
        options.setdefault("allow_redirects", False)
        url = path if path.startswith("http") else self.quicksync.url + path
        return self.http.request(method, url, headers=headers, **options)

    def control(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.send(method, self.quicksync.control_url + path, **options)

    def list_files(self, **options: Any) -> requests.Response:
        return self.send("GET", "/buckets", **options)

    def initiate(
        self, parts: int, size: int, name: str | None = "report.csv", **options: Any
    ) -> requests.Response:
        body = {"totalParts": parts, "encryptedName": name, "originalSizeInBytes": size}
        return self.send("POST", "/buckets", json=body, **options)

    def put_part(
        self, upload: dict[str, str], number: int, content: Any, **options: Any
    ) -> requests.Response:
        headers = {"partNumber": str(number), "key": upload["fileKey"], "uploadId": upload["uploadId"]}
        return self.send(
            "PUT", "/buckets", data=content, headers={**headers, **options.pop("headers", {})}, **options
        )

    def complete(self, upload: dict[str, str], tags: list[str], **options: Any) -> requests.Response:
        body = {"tags": tags, "key": upload["fileKey"]}
        return self.send("POST", "/buckets/complete", json=body, **options)

    def delete(self, key: str, **options: Any) -> requests.Response:
        return self.send("DELETE", f"/buckets/{key}", **options)

    def get_file(self, key: str, **options: Any) -> requests.Response:
        return self.send("GET", f"/buckets/file/{key}", **options)

    def get_download_url(self, key: str, **options: Any) -> requests.Response:
        return self.send("GET", f"/buckets/download/{key}", **options)

    def current_session(self, **options: Any) -> requests.Response:
        return self.send("GET", "/session/current", **options)

    def download(self, url: str, method: str = "GET", **options: Any) -> requests.Response:
        options.setdefault("timeout", 20)
        return self.http.request(method, url, **options)

    def started(self, *parts: bytes) -> dict[str, str]:
        """Initiate an upload of these parts."""
        response = self.initiate(len(parts), sum(map(len, parts)))
        assert response.status_code == 200, response.text
        return dict(response.json())

    def uploaded(self, *parts: bytes) -> str:
        """Upload a file of these parts; return its key."""
        upload = self.started(*parts)
        tags = [self.put_part(upload, number, part).json()["tag"] for number, part in enumerate(parts, 1)]
        response = self.complete(upload, tags)
        assert response.status_code == 200, response.text
        return upload["fileKey"]

    def content(self, key: str) -> bytes:
        """Fetch a file by its link."""
        return self.download(self.get_download_url(key).json()["url"]).content


@pytest.fixture
def quicksync() -> Iterator[LocalQuickSync]:
    with LocalQuickSync(min_part_bytes=SMALLEST_PART, max_parts=5) as server:
        yield server


@pytest.fixture
def api(quicksync: LocalQuickSync) -> Iterator[Api]:
    client = Api(quicksync)
    with client.http:
        yield client


@pytest.fixture
def api_of() -> Iterator[type[Api]]:
    """The client's class, for servers that a test starts itself; its connections are closed at the end."""
    made: list[Api] = []

    class Closed(Api):
        def __init__(self, quicksync: LocalQuickSync) -> None:
            super().__init__(quicksync)
            made.append(self)

    yield Closed
    for client in made:
        client.http.close()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], None]:
    """Poll until something is true; fail after a while."""

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline

    return wait


@pytest.fixture
def command() -> Iterator[type[Command]]:
    """`quicksync-local` as a process of its own, killed at the end."""
    made: list[Command] = []

    class Killed(Command):
        def __init__(self, *options: str) -> None:
            made.append(self)
            super().__init__(*options)

    yield Killed
    for process in made:
        process.end(signal.SIGKILL)


class Command:
    """A running `quicksync-local`, with what Api wants to know of a server."""

    def __init__(self, *options: str) -> None:
        arguments = [sys.executable, "-m", "airflow_provider_quicksync.local", "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.printed = [self._line(), self._line()]
        exported = shlex.split(self.printed[1])[1].partition("=")[2]
        self.connection = json.loads(exported)
        self.url, self.token = self.connection["host"], self.connection["password"]
        self.control_url = self.url.removesuffix("/v1") + "/_local"

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line

    def resident_kib(self) -> int:
        """Memory of the process now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit status and what was logged."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        logged = self.process.communicate(timeout=30)[1] if not self.process.stderr.closed else ""
        return self.process.returncode, logged

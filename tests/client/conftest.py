"""A server with small limits, and clients that don't wait between attempts."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quicksync.client import (
    HttpOptions,
    QuickSyncClient,
    Receipt,
    RetryPolicy,
    ServiceLimits,
    UploadOptions,
    data_source,
    upload,
)
from airflow_provider_quicksync.client.api import CLEAN_UP
from airflow_provider_quicksync.local import LocalQuickSync

PART = 1000
LIMITS = ServiceLimits(min_part_bytes=100, max_parts=50)
AT_ONCE = RetryPolicy(max_attempts=3, base_seconds=0, retry_after_cap_seconds=0)
HTTP = HttpOptions(connect_timeout=5, read_timeout=10)

Connect = Callable[..., QuickSyncClient]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, CA bundle or .netrc of the developer's, and no waiting in a clean-up."""
    monkeypatch.setattr("airflow_provider_quicksync.client.api.CLEAN_UP", replace(CLEAN_UP, base_seconds=0))
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "requests_ca_bundle",
        "curl_ca_bundle",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("NETRC", raising=False)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LocalQuickSync]:
    with LocalQuickSync(min_part_bytes=LIMITS.min_part_bytes, max_parts=LIMITS.max_parts) as server:
        yield server


@pytest.fixture
def server(shared_server: LocalQuickSync) -> LocalQuickSync:
    """A server of the test's module, as if it were new."""
    shared_server.clear_faults()
    with QuickSyncClient(shared_server.token, base_url=shared_server.url, cipher="none") as client:
        for file in shared_server.files():
            client.delete_file(file["file_key"])
    shared_server.reset_log()
    return shared_server


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients of a server, or of a URL; they are closed at the end."""
    clients: list[QuickSyncClient] = []

    def made(to: LocalQuickSync | str, **options: Any) -> QuickSyncClient:
        if isinstance(to, LocalQuickSync):
            options = {"credentials": to.token, "session_id": to.session_id, **options}
            to = to.url
        settings = {"credentials": "a.bearer.of-tests", "session_id": "s1", "retry": AT_ONCE, "http": HTTP}
        client = QuickSyncClient(base_url=to, **{**settings, "limits": LIMITS, **options})
        clients.append(client)
        return client

    yield made
    for client in clients:
        client.close()


@pytest.fixture
def client(server: LocalQuickSync, connect: Connect) -> QuickSyncClient:
    return connect(server)


@pytest.fixture
def stored(client: QuickSyncClient, server: LocalQuickSync) -> Callable[..., Receipt]:
    """Upload bytes, and forget the requests that did it."""

    def store(data: bytes = b"0123456789", name: str = "a.csv", **options: Any) -> Receipt:
        receipt = upload(client, data_source(data, name=name), options=UploadOptions(**options))
        server.reset_log()
        return receipt

    return store


def calls(server: LocalQuickSync) -> Counter[str]:
    """How often each call was made."""
    return Counter(entry.call for entry in server.requests)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 1 MiB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)

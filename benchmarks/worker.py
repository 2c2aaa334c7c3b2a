"""
One client being measured, in a process of its own: reads jobs from standard input, answers with figures.

Each answer has the seconds of the transfer itself, the CPU seconds this process spent on it, and how far its
memory peaked over where it was when everything was imported and the client made.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import urlsplit

MIB = 1 << 20
BUCKET = "bucket"
JOB_SECONDS = 120
"""No job takes longer: what hangs ends by this."""


class Contender(Protocol):
    """What is compared. ``concurrency`` None means: the contender's own default."""

    def upload(self, path: str, concurrency: int | None) -> None: ...
    def upload_many(self, paths: Sequence[str], concurrency: int | None) -> None: ...
    def download(self, name: str, target: str, concurrency: int | None) -> None: ...


class QuickSync:
    """This project's client with its defaults."""

    checksum = False

    def __init__(self, url: str, ca: str | None) -> None:
        from airflow_provider_quicksync import client

        self._module = client
        self._client = client.QuickSyncClient(
            "token", base_url=f"{url}/v1", http=client.HttpOptions(verify=ca or True)
        )

    def upload(self, path: str, concurrency: int | None) -> None:
        source = self._module.open_source(path)
        self._module.upload(self._client, source, options=self._options(concurrency))

    def upload_many(self, paths: Sequence[str], concurrency: int | None) -> None:
        sources = [(self._module.open_source(path), os.path.basename(path)) for path in paths]
        self._module.upload_many(self._client, sources, options=self._options(concurrency))

    def download(self, name: str, target: str, concurrency: int | None) -> None:
        chosen = {"concurrency": concurrency} if concurrency else {}
        options = self._module.DownloadOptions(checksum=self.checksum, **chosen)
        self._module.download(self._client, self._client.get_file(name), target, options=options)

    def _options(self, concurrency: int | None) -> Any:
        chosen = {"concurrency": concurrency} if concurrency else {}
        return self._module.UploadOptions(checksum=self.checksum, **chosen)


class QuickSyncSha256(QuickSync):
    """The same with SHA-256 in the receipt, or verified."""

    checksum = True


class Boto3:
    """boto3 as it comes."""

    config: dict[str, Any] = {}

    def __init__(self, url: str, ca: str | None) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self._client = boto3.client("s3", config=Config(**self.config))
        self._transfer = TransferConfig

    def upload(self, path: str, concurrency: int | None) -> None:
        self._client.upload_file(path, BUCKET, os.path.basename(path), Config=self._settings(concurrency))

    def upload_many(self, paths: Sequence[str], concurrency: int | None) -> None:
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(lambda path: self.upload(path, None), paths))

    def download(self, name: str, target: str, concurrency: int | None) -> None:
        self._client.download_file(BUCKET, name, target, Config=self._settings(concurrency))

    def _settings(self, concurrency: int | None) -> Any:
        return self._transfer(max_concurrency=concurrency or 10)


class Boto3Tuned(Boto3):
    """boto3 by someone who knows it: 64 MiB parts, 10 threads, checksums off."""

    config = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "s3": {"payload_signing_enabled": False},
    }

    def _settings(self, concurrency: int | None) -> Any:
        return self._transfer(
            multipart_threshold=64 * MIB,
            multipart_chunksize=64 * MIB,
            max_concurrency=concurrency or 10,
            io_chunksize=MIB,
        )


class S3HookLoadFile:
    """Airflow's S3Hook.load_file as a task would call it."""

    def __init__(self, url: str, ca: str | None) -> None:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        self._hook = S3Hook(aws_conn_id=None)
        self._hook.get_conn()

    def upload(self, path: str, concurrency: int | None) -> None:
        self._hook.load_file(path, os.path.basename(path), BUCKET, replace=True)

    def upload_many(self, paths: Sequence[str], concurrency: int | None) -> None:
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(lambda path: self.upload(path, None), paths))

    def download(self, name: str, target: str, concurrency: int | None) -> None:
        raise NotImplementedError("S3Hook.download_file is boto3's download_fileobj")


class Curl:
    """curl, one process per job."""

    def __init__(self, url: str, ca: str | None) -> None:
        self._url = f"{url}/{BUCKET}/"
        self._command = ["curl", "--no-progress-meter", "--fail", *(["--cacert", ca] if ca else [])]

    def upload(self, path: str, concurrency: int | None) -> None:
        self._run("--output", os.devnull, "--upload-file", path, self._url)

    def upload_many(self, paths: Sequence[str], concurrency: int | None) -> None:
        names = ",".join(paths)
        self._run(
            "--parallel", "--parallel-max", str(concurrency), "--upload-file", f"{{{names}}}", self._url
        )

    def download(self, name: str, target: str, concurrency: int | None) -> None:
        self._run("--output", target, self._url + name)

    def _run(self, *arguments: str) -> None:
        subprocess.run([*self._command, *arguments], check=True, stdout=subprocess.DEVNULL)


class Sockets:
    """Sockets by hand, four threads, nothing checked: what client and sink could do at most."""

    def __init__(self, url: str, ca: str | None) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)
        self._tls = ssl.create_default_context(cafile=ca) if ca else None

    def upload(self, path: str, concurrency: int | None) -> None:
        count = concurrency or 4
        share = -(-os.path.getsize(path) // count)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda part: self._put(path, part, share), range(count)))

    def _put(self, path: str, part: int, share: int) -> None:
        buffer = memoryview(bytearray(256 << 10))
        with open(path, "rb", buffering=0) as file, socket.create_connection(self._address) as plain:
            offset = part * share
            end = min(offset + share, os.path.getsize(path))
            sock = self._tls.wrap_socket(plain, server_hostname="localhost") if self._tls else plain
            head = f"PUT /b/sockets?partNumber={part + 1} HTTP/1.1\r\nContent-Length: {end - offset}\r\n\r\n"
            sock.sendall(head.encode())
            while offset < end:
                got = os.preadv(file.fileno(), [buffer[: min(len(buffer), end - offset)]], offset)
                sock.sendall(buffer[:got])
                offset += got
            sock.recv(1 << 16)

    def upload_many(self, paths: Sequence[str], concurrency: int | None) -> None:
        raise NotImplementedError

    def download(self, name: str, target: str, concurrency: int | None) -> None:
        raise NotImplementedError


CONTENDERS: dict[str, Callable[[str, str | None], Contender]] = {
    "quicksync": QuickSync,
    "quicksync, SHA-256": QuickSyncSha256,
    "boto3": Boto3,
    "boto3 tuned": Boto3Tuned,
    "S3Hook.load_file": S3HookLoadFile,
    "curl": Curl,
    "sockets by hand": Sockets,
}


def main() -> None:
    """Make the contender, then do jobs until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("url")
    parser.add_argument("--ca")
    options = parser.parse_args()
    contender = CONTENDERS[options.contender](options.url, options.ca)
    _forget_peak()
    base = _memory("VmRSS")
    print("ready", flush=True)
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        signal.alarm(JOB_SECONDS)
        cpu, started = _cpu_seconds(), time.perf_counter()
        getattr(contender, job)(*arguments)
        seconds = time.perf_counter() - started
        figures = {
            "seconds": seconds,
            "cpu_seconds": _cpu_seconds() - cpu,
            "peak_bytes": _memory("VmHWM") - base,
            "threads": threading.active_count(),
        }
        print(json.dumps(figures), flush=True)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _memory(field: str) -> int:
    """A field of this process's status, in bytes. Not ru_maxrss, which begins with the parent's peak."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(f"{field}:"))


def _forget_peak() -> None:
    """Let VmHWM start again from what is resident now."""
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


if __name__ == "__main__":
    main()

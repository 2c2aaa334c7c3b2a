"""
The bytes of a completed file, through its pre-signed link: whole or by range, renewed when it expires.

Downloads and open files both read through it. What a cut left out is asked for again, from where it stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import requests

from airflow_provider_quicksync.client.errors import (
    DamagedError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from airflow_provider_quicksync.client.http import chunks
from airflow_provider_quicksync.client.models import FileInfo
from airflow_provider_quicksync.client.transfer.window import Stop

if TYPE_CHECKING:
    from airflow_provider_quicksync.client.api import QuickSyncClient

T = TypeVar("T")

CHUNK_BYTES = 1 << 20


class Link:
    """A file's link. Safe to use from several threads."""

    def __init__(self, client: QuickSyncClient, file: FileInfo, stop: Stop | None = None) -> None:
        self._client, self._file, self._stop = client, file, stop or Stop()
        self._what = f"download file {file.file_key}"
        self._url = client.get_download_url(file.file_key)
        self._lock = threading.Lock()
        self.ignores_ranges = False
        """Whether it was seen to send the whole file where a range was asked for."""

    def serves_ranges(self) -> bool:
        """Ask for one byte: whether that is what comes."""

        def probe(url: str) -> bool:
            with self._client.open_link(url, what=self._what, start=0, end=1) as response:
                return response.status_code == HTTPStatus.PARTIAL_CONTENT

        return self._client.retry.run(lambda: self._renewing(probe), stop=self._stop.halted)

    def fetch(self, start: int, end: int, write: Callable[[memoryview], object]) -> None:
        """
        Give the bytes from ``start`` to ``end`` to ``write``, in order and each once.

        As long as an attempt brings bytes, the next one doesn't count as a retry.

        :raises DamagedError: the file is not as long as it must be.
        """
        position = start

        def take(chunk: memoryview) -> None:
            nonlocal position
            write(chunk)
            position += len(chunk)

        while True:
            before = position
            try:
                self._client.retry.run(
                    lambda: self._renewing(lambda url: self._read(url, position, end, take)),
                    stop=self._stop.halted,
                )
                return
            except UnreachableError:
                if position - before < CHUNK_BYTES:
                    raise

    def _renewing(self, read: Callable[[str], T]) -> T:
        """Read through the link, or through a new one where it has expired."""
        url = self._url
        try:
            return read(url)
        except (RefusedError, NotFoundError, UsageError) as error:
            if error.status is None:
                raise
            if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise DamagedError(
                    f"{self._what}: the link has fewer bytes than the {self._file.size_bytes:,} of the file"
                ) from None
            with self._lock:
                if url == self._url:
                    self._url = self._client.get_download_url(self._file.file_key)
            return read(self._url)

    def _read(self, url: str, start: int, end: int, write: Callable[[memoryview], None]) -> None:
        size = self._file.size_bytes
        bounds = {} if (start, end) == (0, size) else {"start": start, "end": end}
        with self._client.open_link(url, what=self._what, **bounds) as response:
            position = self._first_byte(response, start)
            # A link that ignores the range gives everything: what is behind the range is another's.
            everything = response.status_code == HTTPStatus.OK
            self.ignores_ranges = self.ignores_ranges or (everything and bool(bounds))
            for chunk in chunks(response, CHUNK_BYTES, what=self._what):
                self._stop.check()
                if position + len(chunk) > (size if everything else end):
                    raise DamagedError(f"{self._what}: the link gives more than {size:,} B")
                wanted = memoryview(chunk)[max(0, start - position) : max(0, end - position)]
                position += len(chunk)
                if wanted:
                    write(wanted)
                if position >= end and everything and end < size:
                    break
        if position < end:
            raise UnreachableError(f"{self._what}: the link gave {position:,} bytes of {end:,}")

    def _first_byte(self, response: requests.Response, start: int) -> int:
        """Where an answer begins: the service may ignore a range and send everything."""
        if response.status_code == HTTPStatus.OK:
            return 0
        size = self._file.size_bytes
        said = response.headers.get("Content-Range", "")
        if not said.startswith(f"bytes {start}-") or not said.endswith((f"/{size}", "/*")):
            raise DamagedError(f"{self._what}: asked for {start:,} on of {size:,} bytes, got {said[:80]!r}")
        return start

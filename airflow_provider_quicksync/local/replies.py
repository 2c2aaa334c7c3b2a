"""Answers: JSON under the content type that ASP.NET would choose, and bodies sent whole or in pieces."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.problems import PROBLEM_TYPE, Problem

_JSON_TYPES = ("application/json", "text/json", "text/plain")
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


def json_reply(request: web.Request, value: Any, forced_type: str | None = None) -> web.Response:
    """Answer *value* as JSON, as ``text/plain`` unless the request asks for JSON, as ASP.NET does."""
    content_type = forced_type or f"{_accepted_type(request)}; charset=utf-8"
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return web.Response(body=body, headers={"Content-Type": content_type})


def problem_reply(problem: Problem) -> web.Response:
    """Answer an error."""
    headers = {**problem.headers, "Content-Type": f"{PROBLEM_TYPE}; charset=utf-8"}
    return web.Response(status=problem.status, body=json.dumps(problem.body()).encode(), headers=headers)


def _accepted_type(request: web.Request) -> str:
    accepted = request.headers.get("Accept", "*/*").lower()
    named = [part.split(";")[0].strip() for part in accepted.split(",")]
    return next((name for name in named if name in _JSON_TYPES), "text/plain")


class Source(Protocol):
    """The bytes of an answer."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    async def send(self, request: web.Request, stream: web.StreamResponse, start: int, stop: int) -> None:
        """Send the bytes from *start* up to *stop*."""


@dataclass(frozen=True)
class BytesSource:
    """Bytes in memory."""

    content: bytes

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.content)

    async def send(self, request: web.Request, stream: web.StreamResponse, start: int, stop: int) -> None:
        """Send the bytes from *start* up to *stop*."""
        await stream.write(self.content[start:stop])


@dataclass(frozen=True)
class FilesSource:
    """A range of several files, one after the other; the kernel copies them into the socket."""

    files: Sequence[tuple[Path, int]]
    first: int
    size: int

    async def send(self, request: web.Request, stream: web.StreamResponse, start: int, stop: int) -> None:
        """Send the bytes from *start* up to *stop*."""
        begin, end = self.first + start, self.first + stop
        at = 0
        for path, size in self.files:
            offset, until = max(begin - at, 0), min(end - at, size)
            at += size
            if offset < until:
                await self._send_file(request, path, offset, until - offset)

    async def _send_file(self, request: web.Request, path: Path, offset: int, count: int) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client left")
        with open(path, "rb") as file:
            await asyncio.get_running_loop().sendfile(request.transport, file, offset, count)

    def byte_at(self, position: int) -> bytes:
        """Return one byte of the range."""
        at = self.first + position
        for path, size in self.files:
            if at < size:
                with open(path, "rb") as file:
                    return os.pread(file.fileno(), 1, at)
            at -= size
        raise IndexError(position)


async def deliver(
    request: web.Request,
    source: Source,
    *,
    status: int,
    headers: dict[str, str],
    fault: Fault | None = None,
) -> tuple[web.StreamResponse, int]:
    """Send *source* as *fault* has it; return the answer and how many bytes were sent."""
    if fault is not None and fault.cut == "answer":
        return hang_up(request), 0
    stream = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(source.size)})
    await stream.prepare(request)
    if request.method == "HEAD":
        return stream, 0
    middle = min(_middle(fault, source.size), source.size)
    if middle:
        await _send_start(request, stream, source, middle, fault)
    if fault is not None and fault.cut == "response":
        hang_up(request)
        return stream, middle
    if fault is not None and fault.stall_seconds:
        await asyncio.sleep(fault.stall_seconds)
    if middle < source.size:
        await source.send(request, stream, middle, source.size)
    await stream.write_eof()
    return stream, source.size


async def deliver_endless(request: web.Request, content_type: str) -> web.StreamResponse:
    """Send white space until the client leaves."""
    stream = web.StreamResponse(headers={"Content-Type": content_type})
    await stream.prepare(request)
    blank = b" " * 65_536
    while True:
        await stream.write(blank)


def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection after what was sent so far; nothing more is sent."""
    if request.transport is not None:
        request.transport.close()
    return web.StreamResponse()


def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection (TCP RST)."""
    if request.transport is not None:
        raw = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        request.transport.abort()
    return web.StreamResponse()


def _middle(fault: Fault | None, size: int) -> int:
    if fault is None or not (fault.cut == "response" or fault.stall_seconds or fault.body == "corrupt"):
        return size
    return size // 2 if fault.after_bytes is None else fault.after_bytes


async def _send_start(
    request: web.Request, stream: web.StreamResponse, source: Source, middle: int, fault: Fault | None
) -> None:
    start = 0
    if fault is not None and fault.body == "corrupt" and isinstance(source, FilesSource):
        start = 1
        await stream.write(bytes([source.byte_at(0)[0] ^ 0xFF]))
    if start < middle:
        await source.send(request, stream, start, middle)

"""Answers whose bytes are sent here rather than by aiohttp: large ones, and those that a fault breaks."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from aiohttp import web

from airflow_provider_quicksync.local.call import Call
from airflow_provider_quicksync.local.faults import Fault

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_BLANK = b" " * 65_536


class Source(Protocol):
    """The bytes of an answer."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def byte_at(self, position: int) -> int:
        """Return one byte."""

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

    def byte_at(self, position: int) -> int:
        """Return one byte."""
        return self.content[position]

    async def send(self, request: web.Request, stream: web.StreamResponse, start: int, stop: int) -> None:
        """Send the bytes from *start* up to *stop*."""
        if start < stop:
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
        with _opened(path) as file:
            await asyncio.get_running_loop().sendfile(request.transport, file, offset, count)

    def byte_at(self, position: int) -> int:
        """Return one byte of the range."""
        at = self.first + position
        for path, size in self.files:
            if at < size:
                with _opened(path) as file:
                    return os.pread(file.fileno(), 1, at)[0]
            at -= size
        raise IndexError(position)


async def deliver(call: Call, source: Source, *, status: int, headers: dict[str, str]) -> web.StreamResponse:
    """Send *source* as the call's fault has it.

    The log is closed before the last byte leaves, so that who has the whole answer finds it there.
    """
    request, fault = call.request, call.fault
    if fault is not None and fault.cut == "answer":
        return hang_up(request)
    stream = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(source.size)})
    stop = _stop(request, fault, source.size)
    is_whole = stop == source.size or request.method == "HEAD"
    await stream.prepare(request)
    if stop > 0:
        await _send_pieces(call, stream, source, stop - 1)
    call.finish(status if is_whole else None, stop)
    if stop > 0:
        last = source.byte_at(stop - 1)
        await stream.write(bytes([last ^ 0xFF if fault is not None and fault.body == "corrupt" else last]))
    if not is_whole:
        hang_up(request)
    return stream


def _stop(request: web.Request, fault: Fault | None, size: int) -> int:
    """Return how many bytes are sent."""
    if request.method == "HEAD":
        return 0
    return _middle(fault, size) if fault is not None and fault.cut == "response" else size


def _middle(fault: Fault, size: int) -> int:
    return min(size // 2 if fault.after_bytes is None else fault.after_bytes, size)


async def _send_pieces(call: Call, stream: web.StreamResponse, source: Source, stop: int) -> None:
    """Send the bytes up to *stop*, with a pause where the fault has one."""
    start, fault = 0, call.fault
    if fault is not None and fault.stall_seconds:
        start = min(_middle(fault, source.size), stop)
        await source.send(call.request, stream, 0, start)
        await asyncio.sleep(fault.stall_seconds)
    await source.send(call.request, stream, start, stop)


async def deliver_endless(request: web.Request, content_type: str) -> web.StreamResponse:
    """Send white space until the client leaves."""
    stream = web.StreamResponse(headers={"Content-Type": content_type})
    await stream.prepare(request)
    while True:
        await stream.write(_BLANK)


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


def _opened(path: Path) -> BinaryIO:
    return open(path, "rb")

"""What every call passes: the log, the faults in force, the bearer, and errors as ProblemDetails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from airflow_provider_quicksync.local.call import CORE, Call, Door, Handler
from airflow_provider_quicksync.local.delivery import BytesSource, deliver, deliver_endless, hang_up, reset
from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.journal import Entry, kept_headers
from airflow_provider_quicksync.local.problems import Problem
from airflow_provider_quicksync.local.replies import (
    problem_reply,
)

_HTML = b"<html><head><title>502 Bad Gateway</title></head><body>upstream is away</body></html>"


def gated(name: str, door: Door, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return *handler* behind the gate and its *door*, called *name* in the log and for the faults."""

    async def gate(request: web.Request) -> web.StreamResponse:
        core = request.app[CORE]
        call = Call(request, core, core.journal.begin(_entry(name, request)))
        status: int | None = None
        try:
            response = await _pass(call, door, handler)
            status = None if _is_cut(request) else response.status
            if isinstance(response, web.Response) and isinstance(response.body, bytes):
                call.entry.sent_bytes = len(response.body)
            return response
        finally:
            call.finish(status, call.entry.sent_bytes)

    return gate


def _entry(name: str, request: web.Request) -> Entry:
    number = request.headers.get("partNumber", "")
    return Entry(
        call=name,
        method=request.method,
        path=request.rel_url.raw_path,
        part_number=int(number) if number.isascii() and number.isdecimal() else None,
        headers=kept_headers(request.headers),
    )


def _is_cut(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _pass(call: Call, door: Door, handler: Handler) -> web.StreamResponse:
    if call.core.settings.latency_seconds:
        await asyncio.sleep(call.core.settings.latency_seconds)
    fault = call.fault = call.core.faults.take(call.entry.call, call.entry.part_number)
    if fault is None:
        return await _answer(call, door, handler)
    call.entry.faulty = True
    early = await _before(call, fault)
    if early is not None:
        return early
    if call.entry.call == "download" and fault.body not in (None, "corrupt"):
        return await _after(call, fault, web.Response(content_type="application/octet-stream"))
    return await _after(call, fault, await _answer(call, door, handler))


async def _answer(call: Call, door: Door, handler: Handler) -> web.StreamResponse:
    """Let the bearer in and the handler answer."""
    try:
        door(call)
        return await handler(call)
    except Problem as problem:
        return problem_reply(problem)


async def _before(call: Call, fault: Fault) -> web.StreamResponse | None:
    """What *fault* does in place of the call."""
    if fault.delay_seconds:
        await asyncio.sleep(fault.delay_seconds)
    if fault.cut == "reset":
        return reset(call.request)
    if fault.cut == "request":
        await _read_until_cut(call, fault)
        return reset(call.request)
    if fault.status is None and fault.redirect_to is None:
        return None
    return _status_reply(fault)


async def _read_until_cut(call: Call, fault: Fault) -> None:
    content, entry = call.request.content, call.entry
    limit = fault.after_bytes if fault.after_bytes is not None else (call.request.content_length or 0) // 2
    while entry.received_bytes < limit and not content.at_eof():
        entry.received_bytes += len(await content.read(min(65_536, limit - entry.received_bytes)))


def _status_reply(fault: Fault) -> web.Response:
    headers = {}
    if fault.retry_after_header is not None:
        headers["Retry-After"] = fault.retry_after_header
    if fault.redirect_to is not None:
        return web.Response(status=fault.status or 307, headers={**headers, "Location": fault.redirect_to})
    if fault.status is not None and fault.status < 400:
        return web.Response(status=fault.status, headers=headers)
    return problem_reply(Problem(fault.status or 500, "A fault that was switched on.", headers=headers))


async def _after(call: Call, fault: Fault, response: web.StreamResponse) -> web.StreamResponse:
    """What *fault* does to the answer of a call that took effect."""
    if not isinstance(response, web.Response):
        return response
    if fault.cut == "answer":
        return hang_up(call.request)
    if fault.body == "endless":
        return await deliver_endless(call.request, response.content_type)
    response = _altered(call, fault, response)
    if fault.cut is None and not fault.stall_seconds:
        return response
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {name: value for name, value in response.headers.items() if name != "Content-Length"}
    return await deliver(call, BytesSource(body), status=response.status, headers=headers)


def _altered(call: Call, fault: Fault, response: web.Response) -> web.Response:
    if fault.body == "empty":
        return web.Response(status=response.status, content_type=response.content_type)
    if fault.body == "not_json":
        return web.Response(status=response.status, body=_HTML, content_type="text/html")
    if fault.body == "nulls" and isinstance(response.body, bytes) and response.body:
        return call.reply(_with_nulls(json.loads(response.body), fault.null_fields))
    return response


def _with_nulls(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_with_nulls(item, names) for item in value]
    return {name: None if not names or name in names else item for name, item in value.items()}

"""Download links: signed, expiring, with ``Range`` and ``HEAD``; errors as S3 answers them."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from aiohttp import web

from airflow_provider_quicksync.local.call import Call
from airflow_provider_quicksync.local.delivery import FilesSource, deliver
from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.store import Part
from airflow_provider_quicksync.local.tokens import Refused

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def download(call: Call) -> web.StreamResponse:
    """``GET`` or ``HEAD`` of a signed link."""
    core, request = call.core, call.request
    file_key = request.match_info["file_key"]
    if "Authorization" in request.headers:
        return _refusal(400, "InvalidArgument", "Only one auth mechanism allowed: the link is signed.")
    try:
        core.signer.check_link(file_key, request.query.get("expires", ""), request.query.get("signature", ""))
    except Refused as error:
        return _refusal(403, "AccessDenied", str(error))
    upload = core.store.find(file_key)
    if upload is None or not upload.is_completed:
        return _refusal(404, "NoSuchKey", "The specified key does not exist.")
    return await _send(call, core.store.parts(file_key), upload.size_bytes)


async def _send(call: Call, parts: list[Part], size: int) -> web.StreamResponse:
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": _etag(parts)}
    wanted = _wanted_range(call.request, size, call.fault)
    if wanted == (0, 0) and size:
        headers["Content-Range"] = f"bytes */{size}"
        return _refusal(416, "InvalidRange", "The requested range is not satisfiable.", headers)
    first, stop = wanted or (0, size)
    if wanted is not None and size:
        headers["Content-Range"] = f"bytes {first}-{stop - 1}/{size}"
    path = call.core.store.blob_path
    source = FilesSource([(path(part.blob), part.size_bytes) for part in parts], first, stop - first)
    status = 206 if "Content-Range" in headers else 200
    return await deliver(call, source, status=status, headers=headers)


def _wanted_range(request: web.Request, size: int, fault: Fault | None) -> tuple[int, int] | None:
    """Return the range asked for as (first, stop); (0, 0) where it cannot be; ``None`` for the whole."""
    match = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if match is None or (fault is not None and fault.ignore_range) or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) else (0, 0)
    stop = min(int(last) + 1, size) if last else size
    return (int(first), stop) if int(first) < stop else (0, 0)


def _etag(parts: list[Part]) -> str:
    return '"' + "-".join([parts[0].tag, str(len(parts))]) + '"'


def _refusal(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    )
    kept = {**(headers or {}), "Content-Type": "application/xml"}
    return web.Response(status=status, body=document.encode(), headers=kept)

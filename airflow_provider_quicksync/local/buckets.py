"""The Upload API: initiate, parts, complete, what is there, links, delete."""

from __future__ import annotations

import os
import secrets
import time
import zlib
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from airflow_provider_quicksync.local.call import Call, json_body, require_api_key
from airflow_provider_quicksync.local.core import Core
from airflow_provider_quicksync.local.problems import Problem, invalid
from airflow_provider_quicksync.local.settings import MIB
from airflow_provider_quicksync.local.store import Part, Upload

LINK_PATH = "/_files/"
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1


async def list_files(call: Call) -> web.Response:
    """``GET /buckets``: every upload of the session, finished or not, oldest first."""
    core, session = call.core, call.session
    answer = [upload.as_json() for upload in core.store.of_session(session.id)]
    core.store.count_poll(session.id)
    core.events.announce_completed()
    return call.reply(answer)


async def get_file(call: Call) -> web.Response:
    """``GET /buckets/file/{fileId}``."""
    core, session = call.core, call.session
    upload = _named_upload(call)
    answer = upload.as_json()
    core.store.count_poll(session.id, upload.file_key)
    core.events.announce_completed()
    return call.reply(answer)


async def initiate(call: Call) -> web.Response:
    """``POST /buckets``."""
    core, session = call.core, call.session
    body = await json_body(call)
    total_parts = _integer(body, "totalParts", 1, min(core.settings.max_parts, _INT32_MAX))
    size_bytes = _integer(body, "originalSizeInBytes", 0, _INT64_MAX)
    name = body.get("encryptedName")
    if name is not None and not isinstance(name, str):
        raise invalid("encryptedName", "The JSON value could not be converted to System.String.")
    _check_rules(call, size_bytes)
    upload = Upload(
        file_key=core.settings.key_prefix + secrets.token_hex(16),
        upload_id=secrets.token_urlsafe(24),
        session_id=session.id,
        creator_id=call.user.id,
        file_name=name,
        total_parts=total_parts,
        size_bytes=size_bytes,
    )
    core.store.add(upload)
    core.events.file("FileAdded", upload)
    return call.reply({"uploadId": upload.upload_id, "fileKey": upload.file_key})


def _check_rules(call: Call, size_bytes: int) -> None:
    session = call.session
    files, total_bytes = call.core.store.usage(session.id)
    if session.max_files is not None and files >= session.max_files:
        raise Problem(422, f"The session allows {session.max_files} files and has {files}.")
    if (
        session.max_total_megabytes is not None
        and total_bytes + size_bytes > session.max_total_megabytes * MIB
    ):
        raise Problem(
            422,
            f"The session allows {session.max_total_megabytes} MB in all; it has {total_bytes} bytes "
            f"and this file has {size_bytes}.",
        )


async def put_part(call: Call) -> web.Response:
    """``PUT /buckets``: stream the body to disk; the part that finishes last wins."""
    core = call.core
    require_api_key(call)
    upload = _open_upload(call)
    number = _part_number(call, upload)
    blob = core.store.new_blob()
    try:
        size_bytes, tag = await _receive(call, core.store.blob_path(blob))
        _open_upload(call)
        core.store.put_part(upload.file_key, Part(number, tag, size_bytes, blob))
        core.events.file("FileProgress", upload)
    except BaseException:
        core.store.discard(blob)
        raise
    return call.reply({"tag": tag, "partNumber": number})


async def _receive(call: Call, path: Path) -> tuple[int, str]:
    """Write the body to *path*; return its size and its tag (CRC-32 and size: cheap, and of the content)."""
    entry = call.entry
    content, checksum = call.request.content, 0
    with _created(path) as file:
        while not content.at_eof():
            chunk, _ = await content.readchunk()
            checksum = zlib.crc32(chunk, checksum)
            entry.received_bytes += len(chunk)
            _write_all(file.fileno(), chunk)
    return entry.received_bytes, f"{checksum:08x}-{entry.received_bytes:x}"


def _created(path: Path) -> FileIO:
    return open(path, "xb", buffering=0)


def _write_all(descriptor: int, chunk: bytes) -> None:
    written = os.write(descriptor, chunk)
    while written < len(chunk):
        written += os.write(descriptor, memoryview(chunk)[written:])


def _open_upload(call: Call) -> Upload:
    """Return the unfinished upload that the headers ``key`` and ``uploadId`` name."""
    key, upload_id = call.request.headers.get("key", ""), call.request.headers.get("uploadId", "")
    for name, value in (("key", key), ("uploadId", upload_id)):
        if not value:
            raise invalid(name, f"The {name} field is required.")
    upload = _own_upload(call, key)
    if upload is None or upload.upload_id != upload_id:
        raise Problem(404, "There is no upload with this uploadId and key.")
    if upload.stored:
        raise Problem(409, "The upload is already complete.")
    return upload


def _part_number(call: Call, upload: Upload) -> int:
    text = call.request.headers.get("partNumber", "")
    if not (text.isascii() and text.isdecimal()):
        raise invalid("partNumber", f"The value {text[:40]!r} is not valid.")
    last = min(upload.total_parts, call.core.settings.max_parts)
    if not 1 <= int(text) <= last:
        raise invalid("partNumber", f"The part number must be between 1 and {last}.")
    return int(text)


async def complete(call: Call) -> web.Response:
    """``POST /buckets/complete``: check the parts; the file is ``completed`` as the settings say."""
    core = call.core
    body = await json_body(call)
    key, tags = body.get("key"), body.get("tags")
    if not isinstance(key, str) or not key:
        raise invalid("key", "The key field is required.")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise invalid("tags", "The tags field must be an array of strings.")
    upload = _own_upload(call, key)
    if upload is None:
        raise Problem(404, "There is no upload with this key.")
    if upload.stored:
        raise Problem(409, "The upload is already complete.")
    _check_parts(core, upload, tags)
    ready_at = time.time() + core.settings.complete_after_seconds
    core.store.set_stored(upload.file_key, ready_at, core.settings.complete_after_polls)
    core.events.stored(ready_at)
    return call.reply({"uploadId": upload.upload_id, "fileKey": upload.file_key})


def _check_parts(core: Core, upload: Upload, tags: list[str]) -> None:
    parts = core.store.parts(upload.file_key)
    if len(tags) != upload.total_parts:
        raise invalid("tags", f"{upload.total_parts} tags are expected, {len(tags)} were sent.", 422)
    missing = sorted(set(range(1, upload.total_parts + 1)) - {part.part_number for part in parts})
    if missing:
        raise Problem(400, f"{len(missing)} parts were not uploaded, part {missing[0]} among them.")
    for part, tag in zip(parts, tags, strict=True):
        if part.tag != tag:
            raise invalid("tags", f"The tag of part {part.part_number} does not match what was uploaded.")
    for part in parts[:-1]:
        if part.size_bytes < core.settings.min_part_bytes:
            raise Problem(
                400,
                f"EntityTooSmall: part {part.part_number} has {part.size_bytes} bytes; every part but the "
                f"last must have {core.settings.min_part_bytes}.",
            )
    total = sum(part.size_bytes for part in parts)
    if total != upload.size_bytes:
        raise Problem(400, f"The parts have {total} bytes, originalSizeInBytes is {upload.size_bytes}.")


async def delete(call: Call) -> web.Response:
    """``DELETE /buckets/{fileId}``: also an unfinished upload, with its parts."""
    core = call.core
    upload = _named_upload(call)
    core.store.remove(upload.file_key)
    core.events.file("FileRemoved", upload)
    return web.Response()


async def get_download_url(call: Call) -> web.Response:
    """``GET /buckets/download/{fileId}``: a signed link that expires."""
    core = call.core
    upload = _named_upload(call)
    if not upload.is_completed:
        raise Problem(409, "The file is not completed yet.")
    fault = call.fault
    life = core.settings.link_seconds
    if fault is not None and fault.link_seconds is not None:
        life = fault.link_seconds
    query = core.signer.link_query(upload.file_key, int(time.time() + life))
    origin = call.request.url.origin()
    if core.settings.link_host:
        origin = origin.with_host(core.settings.link_host)
    path = LINK_PATH + quote(upload.file_key, safe="")
    return call.reply({"url": f"{str(origin).rstrip('/')}{path}?{urlencode(query)}"})


# -- shared -------------------------------------------------------------------------------------


def _own_upload(call: Call, file_key: str) -> Upload | None:
    """Return the upload of *file_key* if it is of the caller's session."""
    upload = call.core.store.find(file_key)
    return upload if upload is not None and upload.session_id == call.session.id else None


def _named_upload(call: Call) -> Upload:
    upload = _own_upload(call, call.request.match_info["file_key"])
    if upload is None:
        raise Problem(404, "There is no file with this key.")
    return upload


def _integer(body: dict[str, Any], name: str, least: int, most: int) -> int:
    value = body.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(name, "The JSON value could not be converted to a number.")
    if not least <= value <= most:
        raise invalid(name, f"The field {name} must be between {least} and {most}.")
    return value

"""The control route ``/_local/``: faults, log, settings, sessions, hub; open to the server's own bearer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from airflow_provider_quicksync.local.call import CORE, bearer
from airflow_provider_quicksync.local.connection import CONTROL_PATH
from airflow_provider_quicksync.local.faults import Fault
from airflow_provider_quicksync.local.hub import Hub
from airflow_provider_quicksync.local.problems import Problem, invalid, unauthorized
from airflow_provider_quicksync.local.replies import problem_reply

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(hub: Hub) -> list[web.RouteDef]:
    """Return the routes of the control door."""

    async def drop(request: web.Request) -> web.Response:
        hub.drop(allow_reconnect=(await _document(request)).get("allow_reconnect"))
        return web.Response()

    async def silence(request: web.Request) -> web.Response:
        hub.is_silent = bool((await _document(request)).get("is_silent", True))
        return web.Response()

    async def publish(request: web.Request) -> web.Response:
        document = await _document(request)
        session_id = document.get("session_id") or request.app[CORE].session_id
        hub.publish(session_id, str(document.get("event")), document.get("data") or {})
        return web.Response()

    doors: list[tuple[str, str, _Handler]] = [
        ("GET", "/faults", _list_faults),
        ("POST", "/faults", _add_fault),
        ("DELETE", "/faults", _clear_faults),
        ("GET", "/requests", _requests),
        ("DELETE", "/requests", _reset_log),
        ("GET", "/counters", _counters),
        ("GET", "/files", _files),
        ("GET", "/settings", _settings),
        ("PATCH", "/settings", _change_settings),
        ("GET", "/sessions", _sessions),
        ("POST", "/session/expire", _expire_session),
        ("POST", "/hub/drop", drop),
        ("POST", "/hub/silence", silence),
        ("POST", "/hub/publish", publish),
    ]
    return [web.route(method, CONTROL_PATH + path, _guarded(handler)) for method, path, handler in doors]


def _guarded(handler: _Handler) -> _Handler:
    async def guard(request: web.Request) -> web.StreamResponse:
        try:
            if not request.app[CORE].is_own_token(bearer(request)):
                raise unauthorized("This is not the bearer of this server")
            return await handler(request)
        except Problem as problem:
            return problem_reply(problem)

    return guard


async def _list_faults(request: web.Request) -> web.Response:
    return web.json_response([fault.as_json() for fault in request.app[CORE].faults.current()])


async def _add_fault(request: web.Request) -> web.Response:
    document = await _document(request)
    try:
        fault = Fault.from_json(document)
    except (TypeError, ValueError) as error:
        raise invalid("$", str(error)) from error
    request.app[CORE].faults.add(fault)
    return web.json_response(fault.as_json())


async def _clear_faults(request: web.Request) -> web.Response:
    request.app[CORE].faults.clear()
    return web.Response()


async def _requests(request: web.Request) -> web.Response:
    return web.json_response([asdict(entry) for entry in request.app[CORE].journal.entries()])


async def _reset_log(request: web.Request) -> web.Response:
    request.app[CORE].journal.reset()
    return web.Response()


async def _counters(request: web.Request) -> web.Response:
    return web.json_response(request.app[CORE].journal.counters())


async def _files(request: web.Request) -> web.Response:
    core = request.app[CORE]
    return web.json_response([upload.as_json() for upload in core.store.of_session(core.session_id)])


async def _sessions(request: web.Request) -> web.Response:
    return web.json_response(request.app[CORE].overview())


async def _settings(request: web.Request) -> web.Response:
    return web.json_response(request.app[CORE].settings.public())


async def _change_settings(request: web.Request) -> web.Response:
    core, changes = request.app[CORE], await _document(request)
    try:
        core.settings = core.settings.changed(**changes)
    except (TypeError, ValueError) as error:
        raise invalid("$", str(error)) from error
    return web.json_response(core.settings.public())


async def _expire_session(request: web.Request) -> web.Response:
    request.app[CORE].expire_session((await _document(request)).get("session_id"))
    return web.Response()


async def _document(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise invalid("$", "The body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise invalid("$", "The JSON value must be an object.")
    return document

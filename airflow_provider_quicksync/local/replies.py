"""Answers in JSON, under the content type that ASP.NET would choose."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from airflow_provider_quicksync.local.problems import PROBLEM_TYPE, Problem

_JSON_TYPES = ("application/json", "text/json", "text/plain")


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

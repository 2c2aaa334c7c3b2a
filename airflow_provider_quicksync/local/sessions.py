"""The Session API: what the bearer's session is and allows."""

from __future__ import annotations

from aiohttp import web

from airflow_provider_quicksync.local.call import Call


async def current_session(call: Call) -> web.Response:
    """``GET /session/current``."""
    core, session = call.core, call.session
    answer = {
        "id": session.id,
        "creatorId": session.creator_id,
        "expiry": int(session.expires_at),
        "maxFiles": core.settings.max_files,
        "maxUsers": core.settings.max_users,
        "users": [{"id": session.creator_id, "role": "host", "name": "local", "address": None}],
        "maxTotalMegaBytes": core.settings.max_total_megabytes,
        "passwordProtected": False,
        "whiteListAddresses": [],
    }
    return call.reply(answer)

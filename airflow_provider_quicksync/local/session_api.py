"""The Session API: create, join, what the bearer's session is, leave, end."""

from __future__ import annotations

import secrets
import time
from typing import Any

from aiohttp import web

from airflow_provider_quicksync.local.call import Call, json_body, require_api_key
from airflow_provider_quicksync.local.core import Core
from airflow_provider_quicksync.local.problems import Problem, invalid, unauthorized
from airflow_provider_quicksync.local.session_store import HOST, MEMBER, Session, User
from airflow_provider_quicksync.local.settings import Settings
from airflow_provider_quicksync.local.wallets import is_address


async def create_session(call: Call) -> web.Response:
    """``POST /session``: the wallet becomes the host of a new session."""
    require_api_key(call)
    body = await json_body(call)
    identity, rules = _object(body, "identity"), _object(body, "rules")
    address = _text(identity, "chainAddress")
    if address is not None and address.lower() != call.wallet.lower():
        raise invalid("identity.chainAddress", "The address is not that of the wallet.", 422)
    session_id = secrets.token_hex(12)
    host = User(secrets.token_hex(8), session_id, HOST, _text(identity, "name"), call.wallet)
    session = _new_session(call.core, host, rules)
    call.core.sessions.save(session)
    host = call.core.sessions.add_user(host)
    call.core.events.watch(session)
    return call.reply(_admission(call.core, session, host))


def _new_session(core: Core, host: User, rules: dict[str, Any]) -> Session:
    settings, password = core.settings, _text(rules, "password")
    only = rules.get("allowOnlyWhitelistedAddresses") or False
    if not isinstance(only, bool):
        raise invalid("rules.allowOnlyWhitelistedAddresses", "The value must be true or false.", 422)
    return Session(
        id=host.session_id,
        creator_id=host.id,
        creator_address=host.address,
        expires_at=time.time() + _life_seconds(rules, settings),
        max_files=settings.max_files,
        max_users=_count(rules, "userCapacity", settings.max_users),
        max_total_megabytes=settings.max_total_megabytes,
        password_digest=core.signer.digest(password) if password else None,
        only_whitelisted=only,
        whitelist=_whitelist(rules),
    )


async def join_session(call: Call) -> web.Response:
    """``POST /session/join``: a wallet that is in the session already is the same user again."""
    core, body = call.core, await json_body(call)
    session_id = _text(body, "sessionId")
    if not session_id:
        raise invalid("sessionId", "The sessionId field is required.", 422)
    session = core.find_session(session_id)
    if session is None:
        raise Problem(404, "There is no such session.")
    if session.expires_at <= time.time():
        raise Problem(404, "The session has ended.")
    _check_door(call, session, _text(body, "password"))
    user = _known_user(call, session) or _newcomer(call, session)
    users = [user.as_json() for user in core.sessions.users(session.id)]
    return call.reply({**_admission(core, session, user), "users": users})


def _check_door(call: Call, session: Session, password: str | None) -> None:
    if not session.welcomes(call.wallet):
        raise unauthorized("The wallet is not on the whitelist of the session")
    if session.password_digest is None:
        return
    digest = call.core.signer.digest(password or "")
    if not secrets.compare_digest(digest, session.password_digest):
        raise unauthorized("The password of the session is wrong")


def _known_user(call: Call, session: Session) -> User | None:
    users = call.core.sessions.users(session.id)
    return next((user for user in users if (user.address or "").lower() == call.wallet.lower()), None)


def _newcomer(call: Call, session: Session) -> User:
    """Let the wallet in as a new user; who made the session comes back as its host."""
    count = len(call.core.sessions.users(session.id))
    if session.max_users is not None and count >= session.max_users:
        raise Problem(422, f"The session is full: it allows {session.max_users} users.")
    user = User(secrets.token_hex(8), session.id, MEMBER, None, call.wallet)
    if (session.creator_address or "").lower() == call.wallet.lower():
        user = User(session.creator_id, session.id, HOST, None, call.wallet)
    user = call.core.sessions.add_user(user)
    call.core.events.user("UserAdded", user)
    return user


async def current_session(call: Call) -> web.Response:
    """``GET /session/current``."""
    session = call.session
    answer = {"id": session.id, "creatorId": session.creator_id, **_told_rules(session)}
    answer["users"] = [user.as_json() for user in call.core.sessions.users(session.id)]
    return call.reply(answer)


async def disconnect_session(call: Call) -> web.Response:
    """``POST /session/disconnect``: the user leaves, and the bearer opens nothing any more."""
    call.core.sessions.remove_user(call.user)
    call.core.events.user("UserRemoved", call.user)
    return web.Response()


async def delete_session(call: Call) -> web.Response:
    """``DELETE /session/current``: by the host only; the files go with it."""
    if call.user.role != HOST:
        raise Problem(403, "Only the host deletes a session.")
    call.core.remove_session(call.session)
    call.core.events.session_destroyed(call.session.id)
    return web.Response()


# -- what is told and asked ---------------------------------------------------------------------


def _admission(core: Core, session: Session, user: User) -> dict[str, Any]:
    return {
        "sessionId": session.id,
        "expiresIn": max(0, int(session.expires_at - time.time())),
        "credentials": {
            "token": core.session_token(session, user),
            "id": user.id,
            "pseudonym": user.name or f"user-{user.id[:6]}",
            "role": user.role,
        },
        "rules": _told_rules(session),
    }


def _told_rules(session: Session) -> dict[str, Any]:
    """Return the rules as the API tells them; ``expiry`` as Unix time is a Reading."""
    return {
        "expiry": int(session.expires_at),
        "maxFiles": session.max_files,
        "maxUsers": session.max_users,
        "maxTotalMegaBytes": session.max_total_megabytes,
        "passwordProtected": session.password_digest is not None,
        "whiteListAddresses": list(session.whitelist),
    }


def _life_seconds(rules: dict[str, Any], settings: Settings) -> float:
    if rules.get("expiryDurationInSeconds") is None:
        return settings.session_seconds
    return _count(rules, "expiryDurationInSeconds", int(settings.session_seconds)) or 0


def _whitelist(rules: dict[str, Any]) -> tuple[str, ...]:
    addresses = rules.get("whiteListAddresses") or []
    if not isinstance(addresses, list) or not all(map(is_address, addresses)):
        raise invalid("rules.whiteListAddresses", "The addresses must be Ethereum addresses.", 422)
    return tuple(addresses)


def _count(rules: dict[str, Any], name: str, most: int | None) -> int | None:
    """Return a number between 1 and *most*, or *most* where none was asked for."""
    value = rules.get(name)
    if value is None:
        return most
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or value < 1 or (most is not None and value > most):
        limit = "" if most is None else f" to {most}"
        raise invalid(f"rules.{name}", f"The field {name} must be a number from 1{limit}.", 422)
    return int(value)


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise invalid(name, f"The field {name} must be an object.", 422)
    return value or {}


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(name, f"The field {name} must be a string.", 422)
    return value

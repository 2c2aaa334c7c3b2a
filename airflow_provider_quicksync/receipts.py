"""Receipts and file keys as tasks hand them to each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_quicksync.client import UsageError

FileKeys = Any
"""A file key, a receipt (or other metadata with a ``file_key``), or any iterable of these."""


def as_file_keys(value: FileKeys) -> list[str]:
    """
    The file keys in ``value``, in order, each once.

    :raises UsageError: there is something else in it.
    """
    return list(dict.fromkeys(_keys(value)))


def as_file_key(value: FileKeys) -> str:
    """The one file key in ``value``. :raises UsageError: there is none, or more than one."""
    keys = as_file_keys(value)
    if len(keys) != 1:
        raise UsageError(f"one file key or receipt is needed, not {len(keys)}")
    return keys[0]


def as_session_id(value: Any) -> str:
    """
    The session's id in what created it, in a receipt or several of one session, or as it is.

    :raises UsageError: there is none, or more than one.
    """
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        first, *others = {as_session_id(item) for item in value}
        if others:
            raise UsageError(
                f"session_id names {len(others) + 1} sessions: upload into one, made by"
                " CreateQuickSyncSessionOperator, or use each with its own files"
            )
        value = first
    found = value.get("session_id") if isinstance(value, Mapping) else value
    if not isinstance(found, str) or found.strip() in ("", "None") or found.strip()[:1] in "{[":
        kind = f"the text {found[:20]!r}" if isinstance(found, str) else type(found).__name__
        raise UsageError(f"session_id is {kind}, not a session's id: did the task that creates it run?")
    return found.strip()


def named_session(session_id: Any, *, was_given: bool) -> str | None:
    """
    The session that a task names; None where it was given none.

    :raises UsageError: it was given one, but what that comes to is none: not the connection's, then.
    """
    return as_session_id(session_id) if was_given else None


def as_receipts(value: FileKeys) -> list[Mapping[str, Any]]:
    """Receipts, or other metadata, as they are, and file keys as ``{"file_key": key}``; each key once."""
    found: dict[str, Mapping[str, Any]] = {}
    for item in [value] if is_single(value) else value if isinstance(value, Iterable) else [value]:
        if isinstance(item, Mapping):
            found.setdefault(as_file_key(item), item)
        else:
            found |= {key: {"file_key": key} for key in _keys(item) if key not in found}
    return list(found.values())


def is_single(value: FileKeys) -> bool:
    """Whether one key or receipt was given, and not a collection: a single result is wanted then."""
    return isinstance(value, str | Mapping)


def _keys(value: FileKeys) -> Iterable[str]:
    if isinstance(value, str):
        if value[:1] in ("{", "["):
            raise UsageError(
                "a file key was given as the text of a receipt: use the task's .output, or"
                " xcom_pull(...)['file_key'] in the template"
            )
        yield value
    elif isinstance(value, Mapping):
        key = value.get("file_key")
        if not isinstance(key, str):
            raise UsageError(f"no file_key in a receipt with the fields {', '.join(map(str, value))[:200]}")
        yield key
    elif isinstance(value, Iterable):
        for item in value:
            yield from _keys(item)
    else:
        raise UsageError(f"a file key or receipt was expected, not {type(value).__name__}")

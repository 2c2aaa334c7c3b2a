"""How Airflow is told about a local server."""

from __future__ import annotations

import json
import shlex
from typing import Any

from airflow_provider_quicksync.local.settings import DEFAULT_MIN_PART_BYTES, MIB, Settings

CONNECTION_VARIABLE = "AIRFLOW_CONN_QUICKSYNC_DEFAULT"
BASE_PATH = "/v1"
CONTROL_PATH = "/_local"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def base_url(host: str, port: int) -> str:
    """Return the base URL under which a client on this machine finds the server."""
    name = _ANY_ADDRESS.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}{BASE_PATH}"


def airflow_connection(url: str, token: str, session_id: str, settings: Settings) -> dict[str, Any]:
    """Return the connection in Airflow's JSON form."""
    extra: dict[str, Any] = {"session_id": session_id}
    if settings.api_key is not None:
        extra["api_key"] = settings.api_key
    if settings.min_part_bytes < DEFAULT_MIN_PART_BYTES:
        extra["min_part_size_mib"] = settings.min_part_bytes / MIB
    return {"conn_type": "quicksync", "host": url, "password": token, "extra": extra}


def export_line(connection: dict[str, Any]) -> str:
    """Return the shell line that gives the connection to Airflow."""
    return f"export {CONNECTION_VARIABLE}={shlex.quote(json.dumps(connection))}"

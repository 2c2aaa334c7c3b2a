"""
What Airflow discovers of this provider; imported at every Airflow start, so it imports nothing.

The connection form is defined here once: Airflow 3.2 and newer read it from here, older ones through the
hook's methods, which are made from it.
"""

from __future__ import annotations

from typing import Any

PACKAGE = "airflow_provider_quicksync"

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "api_key": {
        "label": "API key",
        "description": "Sent as X-API-KEY with every request, where your account has one.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "session_id": {
        "label": "Session id",
        "description": "The key of encrypted file names. Asked from the service when empty.",
        "schema": {"type": ["string", "null"]},
    },
    "name_cipher": {
        "label": "Name cipher",
        "description": "How names are written: qs-share (QS Share shows them), none, or your.module:Class.",
        "schema": {"type": ["string", "null"], "default": "qs-share"},
    },
    "part_size_mib": {
        "label": "Part size (MiB)",
        "description": "Chosen from the file's size when empty.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "max_concurrency": {
        "label": "Parallel parts",
        "description": "Parts, or small files, on the way at the same time (8 when empty).",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 64},
    },
    "connect_timeout": {
        "label": "Connect timeout (s)",
        "description": "Seconds to open a connection (10 when empty).",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "read_timeout": {
        "label": "Read timeout (s)",
        "description": "Seconds without a byte moving (60 when empty).",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "max_attempts": {
        "label": "Attempts",
        "description": "How often a call is tried when the network or the service falters (5 when empty).",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false, or the path of a CA file on the workers.",
        "schema": {"type": ["string", "null"], "default": "true"},
    },
    "min_part_size_mib": {
        "label": "Smallest part (MiB)",
        "description": "What the service takes as a part that isn't the last (5 when empty).",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
}

FORM_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "extra"],
    "relabeling": {"host": "API URL", "password": "Session token", "schema": "Scheme"},
    "placeholders": {
        "host": "https://api.quicksync.me/v1",
        "schema": "only with a bare host name: https",
        "port": "only with a bare host name: 443",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Describe this provider as Airflow's `provider_info` entry point asks."""
    return {
        "package-name": "airflow-provider-quicksync",
        "name": "QuickSync",
        "description": "Upload, wait for, fetch and delete files on IPFS storage through QuickSync.",
        "integrations": [
            {"integration-name": "QuickSync", "external-doc-url": "https://quicksync.me", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": "QuickSync", "python-modules": [f"{PACKAGE}.hooks"]}],
        "operators": [{"integration-name": "QuickSync", "python-modules": [f"{PACKAGE}.operators"]}],
        "sensors": [{"integration-name": "QuickSync", "python-modules": [f"{PACKAGE}.sensors"]}],
        "triggers": [{"integration-name": "QuickSync", "python-modules": [f"{PACKAGE}.triggers"]}],
        "connection-types": [
            {
                "connection-type": "quicksync",
                "hook-class-name": f"{PACKAGE}.hooks.QuickSyncHook",
                "hook-name": "QuickSync",
                "ui-field-behaviour": FORM_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
    }

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
        "description": "The session to join, with a wallet. With a token: its session, asked when empty.",
        "schema": {"type": ["string", "null"]},
    },
    "session_mode": {
        "label": "Session mode",
        "description": "token, join (with a wallet) or create (with a wallet). By what is given when empty.",
        "schema": {"type": ["string", "null"]},
    },
    "wallet_private_key": {
        "label": "Wallet's private key",
        "description": "Of an Ethereum wallet, 64 hexadecimal digits: joins and creates sessions.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "session_password": {
        "label": "Session password",
        "description": "Of the session to join, or of those that are created.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "session_expiry_seconds": {
        "label": "Session life (s)",
        "description": "How long a session that is created lives (86400, a day, when empty).",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "session_capacity": {
        "label": "Session capacity",
        "description": "How many users a session that is created takes (the service's own when empty).",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "session_whitelist": {
        "label": "Session whitelist",
        "description": "Wallets that may join a session that is created, with commas (all when empty).",
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
    "uplink_mib_per_second": {
        "label": "Uplink (MiB/s)",
        "description": "An upload that can't end before its session does is refused (125 when empty).",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false, or the path of a CA file on the workers.",
        "schema": {"type": ["string", "null"], "default": "true"},
    },
    "web_url": {
        "label": "Web page",
        "description": "Where the link on a task leads; may hold {file_key}, {name} and {session_id}.",
        "schema": {"type": ["string", "null"]},
    },
    "min_part_size_mib": {
        "label": "Smallest part (MiB)",
        "description": "What the service takes as a part that isn't the last (5 when empty).",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
}

ASSET_URIS = [
    {
        "schemes": ["quicksync"],
        "handler": f"{PACKAGE}.assets.sanitize_uri",
        "factory": f"{PACKAGE}.assets.create_asset",
        "to_openlineage_converter": f"{PACKAGE}.assets.convert_asset_to_openlineage",
    }
]

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
        "filesystems": [f"{PACKAGE}.fs"],
        "extra-links": [f"{PACKAGE}.links.QuickSyncFileLink"],
        "asset-uris": ASSET_URIS,
        "dataset-uris": ASSET_URIS,  # as Airflow 2 calls them
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

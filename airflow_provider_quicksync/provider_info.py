"""What Airflow discovers of this provider; imported at every Airflow start, so it imports nothing."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Describe this provider as Airflow's `provider_info` entry point asks."""
    return {
        "package-name": "airflow-provider-quicksync",
        "name": "QuickSync",
        "description": "Upload, wait for, fetch and delete files on IPFS storage through QuickSync.",
    }

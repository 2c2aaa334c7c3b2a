"""A pytest fixture for your own DAG tests.

In a ``conftest.py``: ``pytest_plugins = ["airflow_provider_quicksync.local.testing"]``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_quicksync.local.connection import CONNECTION_VARIABLE
from airflow_provider_quicksync.local.embedded import LocalQuickSync


@pytest.fixture
def quicksync_local(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalQuickSync]:
    """Give a fresh server that ``quicksync_default`` points to, for one test."""
    with LocalQuickSync() as quicksync:
        monkeypatch.setenv(CONNECTION_VARIABLE, quicksync.connection_json())
        yield quicksync

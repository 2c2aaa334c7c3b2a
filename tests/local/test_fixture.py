"""The fixture for users' own DAG tests."""

from __future__ import annotations

import json
import os

import requests

from airflow_provider_quicksync.local.testing import quicksync_local  # noqa: F401 (a fixture)


def test_the_connection_points_to_the_server(quicksync_local):  # noqa: F811
    connection = json.loads(os.environ["AIRFLOW_CONN_QUICKSYNC_DEFAULT"])
    assert connection == quicksync_local.airflow_connection()
    headers = {"Authorization": f"Bearer {connection['password']}"}
    answer = requests.get(f"{connection['host']}/buckets", headers=headers, timeout=20)
    assert answer.json() == []


def test_the_variable_is_gone_afterwards():
    assert "AIRFLOW_CONN_QUICKSYNC_DEFAULT" not in os.environ

"""Every test here may reach Airflow's database."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _airflow_db(airflow_db):
    """Give each test the migrated database, since looking up a connection may read it."""

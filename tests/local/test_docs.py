"""The page docs/local-server.md names every switch; that its snippets run is tested with all pages."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from airflow_provider_quicksync.local import Fault, LocalQuickSync, Settings
from airflow_provider_quicksync.local.faults import CALLS

PAGE = Path(__file__).parents[2] / "docs" / "local-server.md"
STARTED_WITH = {"host", "port", "token", "session_id", "creator_id", "log_entries"}


def test_every_call_switch_setting_and_method_is_named():
    text = PAGE.read_text()
    names = {*CALLS, *(field.name for field in fields(Fault))} - {"call"}
    names |= {field.name for field in fields(Settings)} - STARTED_WITH
    names |= {name for name in vars(LocalQuickSync) if not name.startswith("_")}
    assert {name for name in names if not re.search(rf"`[^`]*\b{name}\b", text)} == set()

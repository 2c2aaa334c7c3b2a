"""The page docs/local-server.md runs, and names every switch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from airflow_provider_quicksync.local import Fault, LocalQuickSync, Settings
from airflow_provider_quicksync.local.faults import CALLS

PAGE = Path(__file__).parents[2] / "docs" / "local-server.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
STARTED_WITH = {"host", "port", "token", "session_id", "creator_id", "log_entries"}


def test_the_page_has_snippets():
    assert len(SNIPPETS) == 3


@pytest.mark.parametrize("snippet", [snippet for snippet in SNIPPETS if "def test_" not in snippet])
def test_a_snippet_runs(snippet):
    exec(compile(snippet, str(PAGE), "exec"), {})


def test_the_fixtures_snippet_passes(tmp_path):
    plugin, *tests = [
        snippet for snippet in SNIPPETS if "pytest_plugins" in snippet or "def test_" in snippet
    ]
    (tmp_path / "conftest.py").write_text(plugin)
    (tmp_path / "test_page.py").write_text("".join(tests))
    environment = {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_every_call_switch_setting_and_method_is_named():
    text = PAGE.read_text()
    names = {*CALLS, *(field.name for field in fields(Fault))} - {"call"}
    names |= {field.name for field in fields(Settings)} - STARTED_WITH
    names |= {name for name in vars(LocalQuickSync) if not name.startswith("_")}
    assert {name for name in names if not re.search(rf"`[^`]*\b{name}\b", text)} == set()

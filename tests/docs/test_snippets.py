"""Every Python snippet of the README and the pages runs, in the way that its reader would use it.

A DAG file is loaded by Airflow; tests and what belongs into their `conftest.py` run in pytest; anything else
runs as it is, inside a DAG, with a local QuickSync behind `quicksync_default`. A snippet that can't run has
`<!-- skip: the reason -->` in the line before it, and is only compiled.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(
    r"(?:<!-- skip: (?P<skip>[^\n]+?) -->\n+)?^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
IN_PYTEST = re.compile(r"^pytest_plugins|^def test_", re.MULTILINE)
DAG_FILE = re.compile(r"^with DAG\(|^@dag\b", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """Some code, and where it is."""

    page: Path
    line: int
    code: str
    skip: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def compiled(self):
        # Empty lines before it, so that an error names the page's own line.
        return compile("\n" * self.line + self.code, str(self.page), "exec")


def snippets_of(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(page, text.count("\n", 0, found.start("code")), found["code"], found["skip"])
        for found in FENCE.finditer(text)
    ]


SNIPPETS = [snippet for page in PAGES for snippet in snippets_of(page)]
PAGE_NAME = "{0.name}".format
RUN = [snippet for snippet in SNIPPETS if not snippet.skip]


def kind(snippet: Snippet) -> str:
    if IN_PYTEST.search(snippet.code):
        return "pytest"
    return "DAG file" if DAG_FILE.search(snippet.code) else "plain"


def of_kind(wanted: str):
    return pytest.mark.parametrize("snippet", [s for s in RUN if kind(s) == wanted], ids=str)


def test_every_fence_is_found():
    """A fence that is indented or marked otherwise would go unnoticed."""
    for page in PAGES:
        marked = len(re.findall(r"^\s*(?:```|~~~)\s*(?:python|py)\b", page.read_text(), re.MULTILINE))
        assert len(snippets_of(page)) == marked, page


def test_the_readme_has_a_dag():
    assert [s for s in RUN if s.page.name == "README.md" and kind(s) == "DAG file"]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str)
def test_a_snippet_is_python(snippet):
    snippet.compiled()


@of_kind("DAG file")
def test_a_dag_file_is_loaded_by_airflow(snippet, load_dags, tmp_path):
    file = tmp_path / "snippet.py"
    file.write_text(snippet.code)
    dags = load_dags(file)
    assert dags
    assert all(dag.tasks for dag in dags.values())


@of_kind("plain")
def test_plain_code_runs(snippet, airflow_db, quicksync_local):
    from airflow.providers.common.compat.sdk import DAG

    with DAG("page", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        exec(snippet.compiled(), {"__name__": "snippet"})


@pytest.mark.parametrize("page", sorted({s.page for s in RUN if kind(s) == "pytest"}), ids=PAGE_NAME)
def test_the_tests_of_a_page_pass(page, tmp_path):
    code = [s.code for s in snippets_of(page) if kind(s) == "pytest" and not s.skip]
    (tmp_path / "conftest.py").write_text("".join(c for c in code if "pytest_plugins" in c))
    tests = "".join(c for c in code if "pytest_plugins" not in c)
    (tmp_path / "test_page.py").write_text(tests)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(rf"^{tests.count('def test_')} passed", ended.stdout, re.MULTILINE), (
        ended.stdout + ended.stderr
    )

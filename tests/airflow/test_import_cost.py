"""Parsing a DAG imports nothing heavy of ours, and discovering the provider nothing at all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = [
    "requests",
    "cryptography",
    "fsspec",
    "airflow_provider_quicksync.client",
    "airflow_provider_quicksync.hooks",
    "airflow_provider_quicksync.sources",
]
# What Airflow itself imports of these differs by version: only what the module adds counts.
PROGRAM = """
import json, sys
{before}
already = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - already)))
"""
AIRFLOW = "from airflow.providers.common.compat.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue"


def added(module, before=""):
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(module=module, before=before)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["operators", "sensors"])
def test_what_a_dag_imports(name):
    modules = added(f"airflow_provider_quicksync.{name}", AIRFLOW)
    assert f"airflow_provider_quicksync.{name}" in modules
    assert [module for module in modules if module in HEAVY or module.split(".")[0] in HEAVY] == []
    assert len(modules) < 40, modules


def test_what_discovering_the_provider_imports():
    modules = added("airflow_provider_quicksync.provider_info", "import __future__, typing")
    assert modules == ["airflow_provider_quicksync", "airflow_provider_quicksync.provider_info"]

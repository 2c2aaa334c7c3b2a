"""
What importing this package costs a DAG file, against the S3 provider: `python benchmarks/imports.py`.

Each import is done in a new process, in turns, on top of what any DAG file imports; the best of 7 rounds
counts (or of as many as are asked for). Needs the Amazon provider, which `make venv` has.
"""

from __future__ import annotations

import subprocess
import sys

BASE = "from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseSensorOperator, task"
CASES = {
    "QuickSync: operators, sensors, triggers": """
import airflow_provider_quicksync.operators
import airflow_provider_quicksync.sensors
import airflow_provider_quicksync.triggers
""",
    "QuickSync: and assets, links, paths": """
import airflow_provider_quicksync.operators
import airflow_provider_quicksync.sensors
import airflow_provider_quicksync.triggers
import airflow_provider_quicksync.assets
import airflow_provider_quicksync.links
import airflow_provider_quicksync.fs
""",
    "QuickSync: and the hook": """
import airflow_provider_quicksync.operators
import airflow_provider_quicksync.sensors
import airflow_provider_quicksync.hooks
""",
    "S3: operators, sensors": """
import airflow.providers.amazon.aws.operators.s3
import airflow.providers.amazon.aws.sensors.s3
""",
    "S3: and the hook": """
import airflow.providers.amazon.aws.operators.s3
import airflow.providers.amazon.aws.sensors.s3
import airflow.providers.amazon.aws.hooks.s3
""",
}
PROGRAM = """
{base}
import sys, time
modules, start = len(sys.modules), time.process_time()
{imports}
print(time.process_time() - start, len(sys.modules) - modules)
"""


def measure(imports: str) -> tuple[float, int]:
    """CPU seconds and modules that the imports add, in a new process."""
    program = PROGRAM.format(base=BASE, imports=imports)
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, modules = printed.stdout.split()[-2:]
    return float(seconds), int(modules)


def main(rounds: int) -> None:
    """Take turns, and print a table."""
    found = [{name: measure(imports) for name, imports in CASES.items()} for _ in range(rounds)]
    print(f"{'added to a DAG file, best of ' + str(rounds):<42} {'CPU ms':>7} {'modules':>8}")
    for name in CASES:
        seconds, modules = min(round_[name] for round_ in found)
        print(f"{name:<42} {seconds * 1000:>7.0f} {modules:>8}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)

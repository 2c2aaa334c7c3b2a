"""The tests on every supported Airflow, and between them on every supported Python.

`python scripts/matrix.py [ROW ...]`, a row being an Airflow version, as in `3.0`, or one on another Python,
as in `3.3-py3.13`. Each row has its own environment under `.venvs/`, made from its constraints file.

What knows no Airflow is tested twice here, with the oldest libraries and on the newest Python; `make test`
has the newest libraries on the oldest Python. The other rows run what Airflow has a part in. That the
benchmarks run is for `make test` alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".venv" / "bin" / "uv"
LOGS = ROOT / "build" / "matrix"
ROWS = ["3.3", "3.2", "3.1", "3.0", "2.11"]
WHOLE = {"3.0", "3.3"}
WITHOUT_AIRFLOW = ["tests/client", "tests/local"]
ONCE = ["tests/benchmarks"]
# The Pythons that this package and each Airflow support: the first that this machine has is taken.
PYTHONS = {
    "3.3": ["3.13", "3.12", "3.11"],
    "3.2": ["3.12", "3.13", "3.11"],
    "3.1": ["3.11", "3.12", "3.13"],
    "3.0": ["3.11", "3.12"],
    "2.11": ["3.11", "3.12"],
}
COLUMNS = "{:<10} {:<8} {:>7} {:>7} {:>8} {:>8}  {}"


@dataclass
class Row:
    """One environment and what its tests came to."""

    name: str
    python: str | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("passed", "failed", "skipped"), 0))
    seconds: float = 0
    note: str = ""

    @property
    def airflow(self) -> str:
        return self.name.partition("-py")[0]

    @property
    def broken(self) -> bool:
        return bool(self.counts["failed"]) or self.note.startswith("failed")

    def __str__(self) -> str:
        counts = self.counts.values() if not self.note else ["-"] * 3
        return COLUMNS.format(self.airflow, self.python or "-", *counts, f"{self.seconds:.0f}", self.note)


def main(names: list[str]) -> int:
    """Run the rows, print a table, and return the exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    rows = [Row(name) for name in names or ROWS]
    for row in rows:
        run(row)
        print(f"{row.name}: {row.note or 'done'} ({row.seconds:.0f} s)", flush=True)
        if row.broken:
            print(*(LOGS / f"{row.name}.log").read_text().splitlines()[-200:], sep="\n", flush=True)
    print()
    print(COLUMNS.format("Airflow", "Python", "passed", "failed", "skipped", "seconds", ""))
    print(*rows, sep="\n")
    print()
    print(
        "matrix: " + ", ".join(f"{sum(row.counts[kind] for row in rows)} {kind}" for kind in rows[0].counts)
    )
    return 1 if any(row.broken for row in rows) else 0


def run(row: Row) -> None:
    """Make the row's environment and run the tests in it."""
    start = time.monotonic()
    wanted = row.name.partition("-py")[2]
    choices = [wanted] if wanted else PYTHONS[row.airflow]
    found = next(filter(None, map(interpreter, choices)), None)
    if found is None:
        row.note = f"skipped: no python{' or python'.join(choices)} on this machine"
        return
    log, report = LOGS / f"{row.name}.log", LOGS / f"{row.name}.xml"
    report.unlink(missing_ok=True)
    with log.open("w") as output:
        try:
            python = environment(row, found, output)
            row.python = printed(python, "import platform; print(platform.python_version())")
            options = ["-q", "-n", "4", "--dist", "loadfile"]
            options += ["-o", f"cache_dir={python.parents[1]}/pytest-cache"]
            # The newer junit family refuses the properties that a test records.
            options += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
            left_out = ONCE if row.name in WHOLE else ONCE + WITHOUT_AIRFLOW
            options += [f"--ignore={folder}" for folder in left_out]
            call([python, "-m", "pytest", *options], output)
        except subprocess.CalledProcessError as error:
            # 1 is "some tests failed", which the report counts; anything else ended before that.
            if error.returncode != 1 or not report.exists():
                row.note = f"failed: {Path(error.cmd[0]).name} ended with {error.returncode}"
    if not row.note:
        suite = ElementTree.parse(report).getroot().find("testsuite")
        total, *others = (int(suite.get(kind)) for kind in ("tests", "failures", "errors", "skipped"))
        row.counts = {"passed": total - sum(others), "failed": sum(others[:2]), "skipped": others[2]}
    row.seconds = time.monotonic() - start


def environment(row: Row, interpreter: str, output) -> Path:
    """Return the Python of the row's environment, made anew where what defines it has changed."""
    folder = ROOT / ".venvs" / row.name
    constraints = ROOT / "constraints" / f"airflow-{row.airflow}.txt"
    recipe = hashlib.sha256(
        b"".join(map(Path.read_bytes, [constraints, ROOT / "pyproject.toml"]))
    ).hexdigest()
    made, python = folder / "recipe", folder / "bin" / "python"
    if not made.exists() or made.read_text() != recipe:
        call([UV, "venv", "--quiet", "--clear", "--python", interpreter, folder], output)
        what = ["-r", "pyproject.toml", "--all-extras", "--group", "test", "--editable", "."]
        call(
            [UV, "pip", "install", "--quiet", "--python", python, "--constraints", constraints, *what], output
        )
        made.write_text(recipe)
    return python


def call(command: list, output) -> None:
    subprocess.run(
        command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )


def interpreter(version: str) -> str | None:
    """Find this version: this very Python, one on the PATH, or a sibling of this one, as pyenv keeps them."""
    siblings = Path(sys.base_prefix).parent.glob(f"{version}*/bin/python{version}")
    for candidate in (sys._base_executable, shutil.which(f"python{version}"), *siblings):
        if candidate and printed(candidate, "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return str(candidate)
    return None


def printed(python: str | Path, program: str) -> str:
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

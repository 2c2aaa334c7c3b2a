"""What was measured as tables, and the goals beside it."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

from benchmarks.rig import MIB, Figures

if TYPE_CHECKING:
    from benchmarks.cases import Scale

GIB = 1 << 30
CONNECTIONS = {"S3Hook.load_file": 10, "boto3": 10}
"""How many connections each opens by default; this client 8."""
OURS, SHA256, HOOK, BOTO3, CURL = "quicksync", "quicksync, SHA-256", "S3Hook.load_file", "boto3", "curl"
MEMORY = ("memory, small", "memory, large")


class Results:
    """Figures by case and contender."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))

    def median(self, case: str, contender: str, field: str = "seconds") -> float:
        """The median of one figure."""
        return statistics.median(getattr(figures, field) for figures in self.found[case][contender])

    def ratio(self, case: str, contender: str, other: str, field: str = "seconds") -> float:
        """How many times the figure of ``contender`` that of ``other`` is."""
        return self.median(case, other, field) / self.median(case, contender, field)


def machine() -> str:
    """What this was measured on and with."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("apache-airflow", "apache-airflow-providers-amazon", "boto3", "requests", "urllib3"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    versions.append(" ".join(curl.split()[:2]))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({_processor()}), Linux {platform.release()}; {', '.join(versions)}; "
        f"load average {load}"
    )


HEAD = """\
| case | client | MB/s or files/s | vs S3Hook.load_file | vs curl | CPU s/GiB | peak MiB | runs |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def rows(results: Results, scale: Scale, case: str) -> str:
    """What every contender reached in a case, medians."""
    contenders, size = results.found[case], _size(case, scale)
    lines = []
    for name, figures in contenders.items():
        seconds, cpu = results.median(case, name), results.median(case, name, "cpu_seconds")
        speed = (
            f"{scale.small_count / seconds:,.0f}/s"
            if case == "small files"
            else f"{size / seconds / 1e6:,.0f}"
        )
        if case == "WAN":
            speed += f" ({_wan_share(results, scale, name):.0%})"
        ratios = [
            f"{results.ratio(case, name, other):.2f}" if other in contenders else "-"
            for other in (HOOK, CURL)
        ]
        peak = "-" if name == CURL else f"{max(f.peak_bytes for f in figures) / MIB:.1f}"
        cells = [case, name, speed, *ratios, f"{cpu / size * GIB:.2f}", peak, str(len(figures))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def goals(results: Results, scale: Scale) -> str:
    """What this client is to reach, and what it reached; goals of cases that did not run are left out."""
    rows = ["| goal | measured | met |", "| --- | ---: | --- |"]
    for what, at_least, at_most, measured in _goals(results, scale):
        try:
            value = measured()
        except statistics.StatisticsError:
            continue
        met = value >= at_least if at_least else value <= at_most
        bound = f"≥ {at_least:g}" if at_least else f"≤ {at_most:g}"
        rows.append(f"| {what} {bound} | {value:.2f} | {'yes' if met else '**no**'} |")
    return "\n".join(rows)


def _goals(results: Results, scale: Scale) -> list[tuple[str, float, float, Callable[[], float]]]:
    """Goal, least, most, and how it is measured."""
    ratio = results.ratio

    def cpu(contender: str) -> float:
        return 1 / ratio("upload", contender, HOOK, "cpu_seconds")

    def peak(contender: str) -> float:
        return max(results.median(case, contender, "peak_bytes") for case in MEMORY) / MIB

    return [
        ("upload: vs S3Hook.load_file", 4.5, 0, lambda: ratio("upload", OURS, HOOK)),
        ("upload, CPU in S3Hook.load_file's", 0, 0.18, lambda: cpu(OURS)),
        ("upload: vs curl", 1.2, 0, lambda: ratio("upload", OURS, CURL)),
        ("upload with SHA-256: vs S3Hook.load_file", 2.2, 0, lambda: ratio("upload", SHA256, HOOK)),
        ("upload with SHA-256, CPU in S3Hook.load_file's", 0, 0.45, lambda: cpu(SHA256)),
        ("upload over TLS: vs S3Hook.load_file", 2.7, 0, lambda: ratio("upload over TLS", OURS, HOOK)),
        ("upload over TLS: vs curl", 1.1, 0, lambda: ratio("upload over TLS", OURS, CURL)),
        (
            "upload over TLS with SHA-256: vs S3Hook.load_file",
            1.9,
            0,
            lambda: ratio("upload over TLS", SHA256, HOOK),
        ),
        ("peak memory, MiB", 0, 8, lambda: peak(OURS)),
        ("peak memory with SHA-256, MiB", 0, 8, lambda: peak(SHA256)),
        ("small files: vs S3Hook.load_file", 1, 0, lambda: ratio("small files", OURS, HOOK)),
        ("small files with SHA-256: vs S3Hook.load_file", 1, 0, lambda: ratio("small files", SHA256, HOOK)),
        ("WAN, share of the connections' capacity", 0.9, 0, lambda: _wan_share(results, scale, OURS)),
        (
            "WAN with SHA-256, share of connections' capacity",
            0.9,
            0,
            lambda: _wan_share(results, scale, SHA256),
        ),
        ("download verified: vs curl", 1.2, 0, lambda: ratio("download", SHA256, CURL)),
        ("download verified: vs boto3", 2, 0, lambda: ratio("download", SHA256, BOTO3)),
    ]


def _wan_share(results: Results, scale: Scale, contender: str) -> float:
    """What share of its connections' capacity a contender used."""
    return scale.wan / results.median("WAN", contender) / (scale.rate * CONNECTIONS.get(contender, 8))


def _size(case: str, scale: Scale) -> int:
    sizes = dict(zip(MEMORY, scale.memory, strict=True))
    sizes |= {"WAN": scale.wan, "small files": scale.small * scale.small_count}
    return sizes.get(case, scale.large)


def _processor() -> str:
    with open("/proc/cpuinfo") as info:
        found = re.search(r"model name\s*: (.*)", info.read())
    return found[1] if found else platform.machine()

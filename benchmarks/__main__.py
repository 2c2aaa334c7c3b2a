"""
Measures this client against boto3, Airflow's S3Hook and curl, on this machine, in turns.

``make bench`` runs it. It prints a table of medians, and one of the goals. ``--quick`` runs every case once
with small files: that the bytes are right, in a few seconds, and no timing worth reading.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import replace

from benchmarks.cases import QUICK, Bench, Scale
from benchmarks.report import HEAD, Results, goals, machine, rows
from benchmarks.rig import Rig
from benchmarks.worker import CONTENDERS

CASES = ("upload", "tls", "small", "wan", "memory", "download")


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small files, each case once, no goals")
    parser.add_argument("--only", action="append", choices=CASES, help="only these cases")
    parser.add_argument("--client", action="append", choices=CONTENDERS, help="only these clients")
    parser.add_argument("--rounds", type=int, help="how often each case is measured")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    scale = QUICK if options.quick else Scale()
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, few_rounds=min(options.rounds, scale.few_rounds))
    results, started = Results(), time.monotonic()
    with Rig() as rig:
        bench = Bench(rig, scale, results, options.client or list(CONTENDERS))
        print(f"{machine()}\n\n{HEAD}")
        for case in options.only or CASES:
            shown = set(results.found)
            getattr(bench, case)()
            for name in results.found:
                if name not in shown:
                    print(rows(results, scale, name), flush=True)
    if not options.quick:
        print(f"\n{goals(results, scale)}")
    print(f"\nMeasured in {(time.monotonic() - started) / 60:.1f} minutes; every byte count was right.")


if __name__ == "__main__":
    main()

"""
What memory a file takes that goes through the filesystem: `python benchmarks/filesystem.py`.

Files of two sizes, each in a new process, against a QuickSync on this machine that keeps its bytes in
`/dev/shm` (about 3 GiB of it). Peak memory is over what the process had after a file of one byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
SIZES_MIB = (64, 1024)


def main() -> None:
    """Print a table."""
    from airflow_provider_quicksync.local import LocalQuickSync

    print("| file | written | peak, MiB | and read back | peak, MiB |\n| ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, LocalQuickSync(folder) as server:
        for mib in SIZES_MIB:
            options = {"base_url": server.url, "token": server.token, "session_id": server.session_id}
            command = [sys.executable, __file__, json.dumps(options), str(mib)]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def measure(options: dict[str, str], mib: int) -> None:
    """Write a file, read it back, and print a row."""
    from airflow_provider_quicksync.client.filesystem import QuickSyncFileSystem

    fs = QuickSyncFileSystem(**options)
    with fs.open("warm", "wb") as file:
        file.write(b"x")
    fs.cat("warm")
    before, start, block = peak(), time.monotonic(), os.urandom(MIB)
    written, read = hashlib.sha256(), hashlib.sha256()
    with fs.open("large", "wb") as file:
        for _ in range(mib):
            file.write(block)
            written.update(block)
    cells = [f"{mib} MiB", f"{time.monotonic() - start:.1f} s", f"{(peak() - before) / MIB:.1f}"]
    start = time.monotonic()
    with fs.open("large", "rb") as file:
        while block := file.read(MIB):
            read.update(block)
    assert read.digest() == written.digest()
    cells += [f"{time.monotonic() - start:.1f} s", f"{(peak() - before) / MIB:.1f}"]
    print(f"| {' | '.join(cells)} |")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        measure(json.loads(sys.argv[1]), int(sys.argv[2]))

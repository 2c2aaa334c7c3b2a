"""The cases: what is sent, by whom, how often."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Results
from benchmarks.rig import Rig, check_same

MIB = 1 << 20
MB = 1_000_000
RATE = 20 * MB
"""What a connection of the imitated WAN carries a second."""
RTT_SECONDS = 0.05
PLAIN = [
    "quicksync",
    "quicksync, SHA-256",
    "S3Hook.load_file",
    "boto3",
    "boto3 tuned",
    "curl",
    "sockets by hand",
]


@dataclass(frozen=True)
class Scale:
    """How much is sent, and how often."""

    large: int = 1024 * MIB
    small: int = 64 << 10
    small_count: int = 1000
    wan: int = 1024 * MIB
    memory: tuple[int, int] = (256 * MIB, 4096 * MIB)
    rate: float = RATE
    rtt: float = RTT_SECONDS
    rounds: int = 9
    few_rounds: int = 3


QUICK = Scale(
    large=20 * MIB + 12345,
    small_count=20,
    wan=20 * MIB,
    memory=(20 * MIB, 40 * MIB),
    rate=400 * MB,
    rtt=0.001,
    rounds=1,
    few_rounds=1,
)


class Bench:
    """The cases."""

    def __init__(self, rig: Rig, scale: Scale, results: Results, clients: Sequence[str]) -> None:
        self._rig, self._scale, self._results, self._clients = rig, scale, results, clients

    def upload(self) -> None:
        """One large file."""
        self._large("upload", PLAIN, tls=False)

    def tls(self) -> None:
        """One large file over TLS."""
        self._large("upload over TLS", PLAIN, tls=True)

    def small(self) -> None:
        """Many small files, eight at a time."""
        paths = [
            self._rig.file(f"small-{number}", self._scale.small) for number in range(self._scale.small_count)
        ]
        names = ["quicksync", "quicksync, SHA-256", "S3Hook.load_file", "boto3", "curl"]
        self._turns("small files", names, "upload_many", paths, 8, self._scale.rounds, tls=False)

    def wan(self) -> None:
        """One large file over an imitated WAN, everybody's defaults."""
        path = self._rig.file("wan", self._scale.wan)
        options = ["--rate", str(self._scale.rate), "--rtt", str(self._scale.rtt)]
        names = ["quicksync", "quicksync, SHA-256", "S3Hook.load_file", "boto3"]
        self._turns("WAN", names, "upload", [path], None, self._scale.few_rounds, sink_options=options)

    def memory(self) -> None:
        """Peak memory by size, each in a process of its own."""
        for label, size in zip(("memory, small", "memory, large"), self._scale.memory, strict=True):
            path = self._rig.file(label.replace(", ", "-"), size, sparse=True)
            for name in self._chosen(["quicksync", "quicksync, SHA-256", "S3Hook.load_file", "boto3 tuned"]):
                for _ in range(self._scale.few_rounds):
                    self._turns(label, [name], "upload", [path], 8, 1, fresh=True)

    def download(self) -> None:
        """One large file to a file in memory."""
        source = self._rig.file("large", self._scale.large)
        target = self._rig.folder / "downloaded"
        names = self._chosen(["quicksync, SHA-256", "quicksync", "boto3", "curl"])
        sink = self._rig.sink()
        with ExitStack() as stack:
            running = {name: stack.enter_context(self._rig.contender(name, sink)) for name in names}
            for turn in range(self._scale.rounds + 1):
                for name in names:
                    figures = running[name].run("download", source.name, str(target), None)
                    if turn:
                        self._results.found["download"][name].append(figures)
                    else:
                        check_same(source, target)
                    target.unlink()

    def _large(self, case: str, names: Sequence[str], *, tls: bool) -> None:
        path = self._rig.file("large", self._scale.large)
        self._turns(case, names, "upload", [path], None, self._scale.rounds, tls=tls)

    def _turns(
        self,
        case: str,
        names: Sequence[str],
        job: str,
        paths: Sequence[Path],
        concurrency: int | None,
        rounds: int,
        *,
        tls: bool = False,
        sink_options: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        """
        Check every contender's bytes once, then measure them in turns.

        :param fresh: neither check nor warm up first, so that memory is seen from the start.
        """
        names = self._chosen(names)
        if not fresh:
            self._check(names, job, paths, concurrency, tls)
        sink = self._rig.sink(*sink_options, tls=tls)
        with ExitStack() as stack:
            running = {name: stack.enter_context(self._rig.contender(name, sink)) for name in names}
            for contender in [] if fresh else running.values():
                contender.run("upload", str(self._rig.file("warm-up", self._scale.small)), None)
            for turn in range(rounds):
                # Everybody goes first sometimes.
                for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
                    sink.forget()
                    figures = running[name].run(job, _argument(job, paths), concurrency)
                    sink.check(paths, crc=False)
                    self._results.found[case][name].append(figures)

    def _check(
        self, names: Sequence[str], job: str, paths: Sequence[Path], concurrency: int | None, tls: bool
    ) -> None:
        sink = self._rig.sink("--crc", tls=tls)
        for name in names:
            with self._rig.contender(name, sink) as running:
                sink.forget()
                running.run(job, _argument(job, paths), concurrency)
                sink.check(paths, crc=True)

    def _chosen(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self._clients]


def _argument(job: str, paths: Sequence[Path]) -> object:
    return [str(path) for path in paths] if job == "upload_many" else str(paths[0])

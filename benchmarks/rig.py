"""What the cases stand on: files to send, a certificate, the sinks, the contenders' processes, and the check
that what arrived is what was sent."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What one run of one contender cost."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    threads: int


class Wrong(Exception):
    """What arrived is not what was sent."""


class Sink:
    """A running sink and its log."""

    def __init__(self, url: str, ca: str | None, log: Path) -> None:
        self.url, self.ca = url, ca
        self._log = log

    def forget(self) -> None:
        """Begin a new run."""
        os.truncate(self._log, 0)

    def check(self, paths: Sequence[Path], crc: bool) -> None:
        """:raises Wrong: other bytes arrived than those of the files, counted, or summed up too."""
        bodies: dict[str, dict[int, tuple[int, str]]] = defaultdict(dict)
        for line in self._log.read_text().splitlines():
            key, part, size, summed = line.rsplit(" ", 3)
            if int(part) in bodies[key]:
                raise Wrong(f"part {part} of {key} arrived twice")
            bodies[key][int(part)] = int(size), summed
        arrived = [tuple(parts[number] for number in sorted(parts)) for parts in bodies.values()]
        cuts = {sum(size for size, _ in parts): [size for size, _ in parts] for parts in arrived}
        sent = []
        for path in paths:
            cut = cuts.get(path.stat().st_size)
            if cut is None:
                raise Wrong(f"{path.name}: {path.stat().st_size:,} bytes sent, arrived: {sorted(cuts)[:5]}")
            sent.append(tuple(_summed(path, cut) if crc else ((size, "0") for size in cut)))
        if Counter(sent) != Counter(arrived):
            raise Wrong(f"{len(paths)} files sent, {len(arrived)} arrived, not all of them right")


class Rig:
    """A folder in memory, and everything that has to be stopped again."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        base = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=base)))
        self._certificate = _certificate(self.folder)
        self._sinks: dict[tuple[bool, tuple[str, ...]], Sink] = {}

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def file(self, name: str, size: int, *, sparse: bool = False) -> Path:
        """A file of random bytes, or of a hole."""
        path = self.folder / name
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(0 if sparse else size // MIB):
                    file.write(os.urandom(MIB))
                file.write(b"" if sparse else os.urandom(size % MIB))
                file.truncate(size)
        return path

    def sink(self, *options: str, tls: bool = False) -> Sink:
        """A sink with these options; it stays for the whole run."""
        if (tls, options) not in self._sinks:
            self._sinks[tls, options] = self._start_sink(tls, options)
        return self._sinks[tls, options]

    def _start_sink(self, tls: bool, options: tuple[str, ...]) -> Sink:
        log = self.folder / f"sink-{len(self._sinks)}.log"
        if tls:
            options += ("--certificate", str(self._certificate))
        command = [sys.executable, "-m", "benchmarks.sink", "--files", str(self.folder), "--log", str(log)]
        process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        # Its processes end when its standard input does, however this one ends.
        self._stack.callback(_end, process)
        assert process.stdout
        port = int(process.stdout.readline())
        ca = str(self._certificate.with_name("ca.pem")) if tls else None
        return Sink(f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}", ca, log)

    @contextmanager
    def contender(self, name: str, sink: Sink) -> Iterator[Running]:
        """A contender's process, ready to work."""
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        environment |= {
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": sink.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, "-m", "benchmarks.worker", name, sink.url]
        if sink.ca:
            command += ["--ca", sink.ca]
            environment["AWS_CA_BUNDLE"] = sink.ca
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield Running(name, process)
        finally:
            _end(process)


class Running:
    """A contender's process."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name, self._process = name, process
        self._line()

    def run(self, job: str, *arguments: Any) -> Figures:
        """Do one job and say what it cost."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([job, *arguments]) + "\n")
        self._process.stdin.flush()
        return Figures(**json.loads(self._line()))

    def _line(self) -> str:
        """The next line meant for us; libraries print some of their own."""
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(("ready", "{")):
                return line
        raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}: its errors are above")


def check_same(one: Path, other: Path) -> None:
    """:raises Wrong: two files differ."""
    if _summed(one, [one.stat().st_size]) != _summed(other, [other.stat().st_size]):
        raise Wrong(f"{other.name} is not what {one.name} is")


def _summed(path: Path, cut: Sequence[int]) -> list[tuple[int, str]]:
    """Size and CRC-32 of each piece of a file."""
    found = []
    with path.open("rb") as file:
        for size in cut:
            crc, left = 0, size
            while left and (block := file.read(min(left, MIB))):
                crc, left = zlib.crc32(block, crc), left - len(block)
            found.append((size - left, str(crc)))
    return found


def _end(process: subprocess.Popen[str]) -> None:
    """Close a process's standard input, which ends it; kill it if that doesn't help."""
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _certificate(folder: Path) -> Path:
    """A certificate for localhost, good for a day, with its key; and ``ca.pem`` without it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both = folder / "server.pem"
    both.write_bytes(pem + secret)
    return both

"""
Measures what deferred waiting costs, beside the S3 provider's key trigger, on this machine.

``make bench-waiting`` runs it: thousands of triggers in Airflow's own ``TriggerRunner`` (without a supervisor
and a database), each contender in a process of its own, the services in others. ``--quick`` runs every case
once, small and short: that it works, and no figure worth reading.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INTERVAL_SECONDS = 5.0
LAG_SECONDS = 0.005
"""How often the event loop is asked how late it is."""
FAR_AWAY = 1e10
OURS, REALTIME, S3 = "quicksync, polling", "quicksync, real time", "S3KeyTrigger"
NOTHING = "a trigger that does nothing"
MIB = 1 << 20


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    cases: tuple[tuple[str, int], ...]
    files: tuple[int, ...]
    idle_seconds: float = 4.0
    start_seconds: float = 10.0
    steady_seconds: float = 30.0
    looks: int = 5


FULL = Scale(
    ((NOTHING, 1000), (OURS, 1000), (NOTHING, 5000), (OURS, 5000), (REALTIME, 1000), (S3, 1000)),
    (1000, 10_000, 100_000),
)
QUICK = Scale(((NOTHING, 20), (OURS, 20), (REALTIME, 20), (S3, 20)), (100,), 0.5, 1.5, INTERVAL_SECONDS, 1)


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small and short, no goals")
    parser.add_argument("--only", action="append", choices=(NOTHING, OURS, REALTIME, S3, "files"))
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        role, argument = options.role
        ROLES[role](json.loads(argument))
        return
    scale = QUICK if options.quick else FULL
    waiting, cost = [], []
    for name, count in scale.cases:
        if not options.only or name in options.only:
            print(f"{name}, {count:,} …", file=sys.stderr, flush=True)
            waiting.append(measure(name, count, scale))
    for files in scale.files:
        if not options.only or "files" in options.only:
            print(f"{files:,} files …", file=sys.stderr, flush=True)
            cost.append(measure_look(files, scale))
    print(machine(), "", waiting_table(waiting), sep="\n")
    if cost:
        print("", cost_table(cost), sep="\n")
    if not options.quick:
        print("", goals(waiting), sep="\n")


# The cases


def measure(name: str, count: int, scale: Scale) -> dict[str, Any]:
    """So many triggers of one contender: idle, starting, waiting, and for real time all of them completed."""
    service = {"kind": "s3"} if name == S3 else {"kind": "quicksync", "files": count, "hub": name == REALTIME}
    with child("serve", service) as server:
        place = server.say()
        with child("trigger", {"name": name}, place["environment"]) as runner:
            figures = {"name": name, "count": count, "idle": idle(runner, scale)}
            idle_rss = figures["idle"]["rss"]
            server.ask("reset")
            runner.ask("start", place.get("keys") or [secrets.token_hex(8) for _ in range(count)])
            figures["start"] = runner.ask("window", scale.start_seconds)
            if name == S3:  # it starts for longer than that
                while runner.ask("started") < count:
                    merge(figures["start"], runner.ask("window", 2.0))
            figures["start_requests"] = server.ask("requests")
            server.ask("reset")
            figures["steady"] = runner.ask("window", scale.steady_seconds)
            figures["requests"] = server.ask("requests")
            figures["rss"] = max(figures[phase]["rss"] for phase in ("start", "steady")) - idle_rss
            if name == REALTIME:
                figures["apart"], figures["burst"] = latencies(server, runner, place["keys"])
            return figures


def idle(runner: Child, scale: Scale) -> dict[str, Any]:
    runner.ask("window", scale.idle_seconds)  # until it has settled
    return runner.ask("window", scale.idle_seconds)


def latencies(server: Child, runner: Child, keys: list[str]) -> tuple[list[float], list[float]]:
    """From the event on the server to the TriggerEvent: the first half one by one, the rest at once."""
    half = len(keys) // 2
    apart, burst = (
        {**server.ask("complete", part)}
        for part in ({"keys": keys[:half], "apart": 0.01}, {"keys": keys[half:], "apart": 0})
    )
    fired = runner.ask("fired", len(keys))
    return tuple([fired[key] - at for key, at in sent.items()] for sent in (apart, burst))


def measure_look(files: int, scale: Scale) -> dict[str, Any]:
    """Two who wait in a bucket of so many files."""
    with child("serve", {"kind": "quicksync", "files": files, "hub": False}) as server:
        place = server.say()
        with child("trigger", {"name": OURS}, place["environment"]) as runner:
            before = idle(runner, scale)
            runner.ask("start", place["keys"][:2])
            runner.ask("window", scale.start_seconds)
            server.ask("reset")
            window = runner.ask("window", scale.looks * INTERVAL_SECONDS)
            looks = server.ask("requests") or 1
            return {
                "files": files,
                "cpu": window["cpu"] / looks,
                "max": window["max"],
                "p99": window["p99"],
                "rss": window["rss"] - before["rss"],
            }


# Processes that are told what to do, one line of JSON each way


class Child:
    """A process of this file in another role."""

    def __init__(self, role: str, argument: dict[str, Any], environment: dict[str, str]) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--role", role, json.dumps(argument)]
        self._process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def say(self) -> Any:
        """What it says by itself."""
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit("a process of the benchmark has failed: see above")
        return json.loads(line)

    def ask(self, what: str, argument: Any = None) -> Any:
        """Its answer."""
        self._process.stdin.write(json.dumps([what, argument]) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self.say()

    def end(self) -> None:
        """Closing its input ends it."""
        self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def child(role: str, argument: dict[str, Any], environment: dict[str, str] | None = None) -> Iterator[Child]:
    process = Child(role, argument, environment or {})
    try:
        yield process
    finally:
        process.end()


def asked() -> Iterator[tuple[str, Any]]:
    for line in sys.stdin:
        yield tuple(json.loads(line))


def answer(value: Any) -> None:
    ANSWERS.write(json.dumps(value) + "\n")
    ANSWERS.flush()


ANSWERS = os.fdopen(os.dup(1), "w")


# The services


def serve(argument: dict[str, Any]) -> None:
    (serve_quicksync if argument["kind"] == "quicksync" else serve_s3)(argument)


def serve_quicksync(argument: dict[str, Any]) -> None:
    from airflow_provider_quicksync.local import LocalQuickSync
    from airflow_provider_quicksync.local.store import Upload

    with LocalQuickSync(log_entries=10) as server:
        keys = [secrets.token_hex(16) for _ in range(argument["files"])]

        def fill(running: Any) -> None:
            store = running.core.store
            with store._transaction():
                for number, key in enumerate(keys):
                    store.add(Upload(key, key, server.session_id, server.creator_id, f"f-{number}.bin", 1, 1))
                    store.set_stored(key, FAR_AWAY, 0)

        server._on_loop(fill)
        if not argument["hub"]:
            server.fail("negotiate", status=404, times=None)
        environment = {"AIRFLOW_CONN_QUICKSYNC_DEFAULT": server.connection_json()}
        answer({"keys": keys, "environment": environment})
        for what, given in asked():
            if what == "reset":
                server.reset_log()
                answer(None)
            elif what == "requests":
                counters = server.counters()
                looks = ("list_files", "get_file", "current_session")
                answer(sum(counters.get(call, {}).get("requests", 0) for call in looks))
            elif what == "complete":
                answer(completed(server, **given))


def completed(server: Any, keys: list[str], apart: float) -> dict[str, float]:
    """When each was told to the hub."""
    told = {}

    def complete(running: Any, key: str) -> None:
        running.core.store.set_stored(key, time.time() - 1, 0)
        told[key] = time.monotonic()
        running.core.events.announce_completed()

    def complete_all(running: Any) -> None:
        for key in keys:
            complete(running, key)

    if not apart:
        server._on_loop(complete_all)
        return told
    for key in keys:
        server._on_loop(lambda running, key=key: complete(running, key))
        time.sleep(apart)
    return told


def serve_s3(argument: dict[str, Any]) -> None:
    """What the key trigger sees of a bucket without the key: 404, as fast as Python can say it."""
    from aiohttp import web

    counted = 0

    async def missing(request: web.Request) -> web.Response:
        nonlocal counted
        counted += 1
        return web.Response(status=404)

    async def run() -> None:
        nonlocal counted
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", missing)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
        connection = {
            "conn_type": "aws",
            "login": "access",
            "password": "secret",
            "extra": {
                "endpoint_url": f"http://127.0.0.1:{runner.addresses[0][1]}",
                "region_name": "eu-west-1",
            },
        }
        answer({"environment": {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection)}})
        questions = asked()
        while question := await asyncio.to_thread(next, questions, None):
            answer(counted if question[0] == "requests" else None)
            counted = 0 if question[0] == "reset" else counted

    asyncio.run(run())


# The triggerer


def trigger(argument: dict[str, Any]) -> None:
    """Airflow's runner of triggers, its supervisor replaced by the lines of this benchmark."""
    home = tempfile.mkdtemp(prefix="bench-waiting-")
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    import structlog
    from airflow.executors import workloads
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    sys.stdout = sys.stderr

    class Runner(TriggerRunner):
        async def init_comms(self) -> None:
            reader = asyncio.get_running_loop().create_future()
            self.comms_decoder = type("NoComms", (), {"_reader_task": Reader(reader)})()
            self.talk = asyncio.create_task(talk(self))

        async def sync_state_to_supervisor(self, finished_ids: list[int]) -> None:
            self.failed_triggers.clear()

    class Reader:
        def __init__(self, future: Any) -> None:
            self.done, self.cancel, self.__await__ = future.done, future.cancel, future.__await__

        def __await__(self) -> Any:
            return iter(())

    class Fired(deque):
        def append(self, entry: Any) -> None:
            at = time.monotonic()
            payload = getattr(entry, "event", entry).payload
            for file in payload.get("files", ()):
                fired[file["file_key"]] = at

    fired: dict[str, float] = {}

    async def talk(runner: Any) -> None:
        runner.events, questions = Fired(), asked()
        try:
            while question := await asyncio.to_thread(next, questions, None):
                what, given = question
                if what == "window":
                    answer(await window(given))
                elif what == "start":
                    for number, key in enumerate(given, 1):
                        path, kwargs = kept(argument["name"], key)
                        encrypted = Trigger.encrypt_kwargs(kwargs)
                        runner.to_create.append(
                            workloads.RunTrigger(id=number, classpath=path, encrypted_kwargs=encrypted)
                        )
                    answer(None)
                elif what == "started":
                    answer(len(runner.triggers) if not runner.to_create else 0)
                elif what == "fired":
                    while len(fired) < given:
                        await asyncio.sleep(0.05)
                    answer(fired)
        finally:
            runner.stop = True
            for details in runner.triggers.values():
                details["task"].cancel()

    asyncio.run(Runner().arun())


def kept(name: str, key: str) -> tuple[str, dict[str, Any]]:
    """A trigger as the database keeps it."""
    if name == NOTHING:
        return "sleeping.SleepingTrigger", {}
    if name == S3:
        path = "airflow.providers.amazon.aws.triggers.s3.S3KeyTrigger"
        kwargs = {"bucket_name": "bucket", "bucket_key": key, "aws_conn_id": "aws_default", "hook_params": {}}
        return path, {**kwargs, "wildcard_match": False, "poke_interval": INTERVAL_SECONDS}
    path = "airflow_provider_quicksync.triggers.QuickSyncUploadCompletionTrigger"
    return path, {"file_keys": [key], "poke_interval": INTERVAL_SECONDS}


async def window(seconds: float) -> dict[str, float]:
    """How late the loop was, and what the process used, for so long."""
    late, end = [], time.monotonic() + seconds
    before = used()
    began = time.monotonic()
    while (now := time.monotonic()) < end:
        await asyncio.sleep(LAG_SECONDS)
        late.append(max(0.0, time.monotonic() - now - LAG_SECONDS))
    return {
        "seconds": time.monotonic() - began,
        "cpu": used() - before,
        "late": late,
        **summary(late),
        "rss": rss(),
    }


def summary(late: list[float]) -> dict[str, float]:
    """A loop that is blocked is late for all who would have asked meanwhile: weighed by how long it was."""
    weighed: list[float] = []
    for one in late:
        weighed += [one - LAG_SECONDS * step for step in range(int(one / LAG_SECONDS) + 1)]
    weighed.sort()
    return {
        "p50": weighed[len(weighed) // 2],
        "p99": weighed[int(len(weighed) * 0.99)],
        "max": weighed[-1],
    }


def merge(window: dict[str, Any], more: dict[str, Any]) -> None:
    late = window["late"] + more["late"]
    window |= {
        "seconds": window["seconds"] + more["seconds"],
        "cpu": window["cpu"] + more["cpu"],
        "late": late,
    }
    window |= {**summary(late), "rss": max(window["rss"], more["rss"])}


def used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


ROLES = {"serve": serve, "trigger": trigger}


# What is printed


def per_interval(figures: dict[str, Any]) -> float:
    return figures["requests"] * INTERVAL_SECONDS / figures["steady"]["seconds"]


def core(figures: dict[str, Any]) -> float:
    """CPU as a share of one core, less what the idle process takes."""
    steady, idle = figures["steady"], figures["idle"]
    return steady["cpu"] / steady["seconds"] - idle["cpu"] / idle["seconds"]


def ms(window: dict[str, float]) -> str:
    return " / ".join(f"{window[name] * 1000:.1f}" for name in ("p50", "p99", "max"))


def waiting_table(found: list[dict[str, Any]]) -> str:
    rows = [
        "| | waiting | requests per interval | % of a core | CPU s to start | MiB over idle "
        "| loop late, idle, ms (p50 / p99 / max) | … starting | … waiting "
        "| event → TriggerEvent, ms (median / p99), one by one | … all at once |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for figures in found:
        cells = [
            figures["name"],
            f"{figures['count']:,}",
            f"{per_interval(figures):.2f}",
            f"{core(figures):.2%}",
            f"{figures['start']['cpu']:.2f}",
            f"{figures['rss'] / MIB:.1f}",
            *(ms(figures[phase]) for phase in ("idle", "start", "steady")),
            *(latency(figures.get(how)) for how in ("apart", "burst")),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def latency(seconds: list[float] | None) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.1f} / {ordered[int(len(ordered) * 0.99)] * 1000:.1f}"


def cost_table(found: list[dict[str, Any]]) -> str:
    rows = ["| files in the bucket | CPU ms a look | loop late, ms (p99 / max) | MiB over idle |"]
    rows.append("| ---: | ---: | ---: | ---: |")
    for figures in found:
        late = f"{figures['p99'] * 1000:.1f} / {figures['max'] * 1000:.1f}"
        cells = [f"{figures['files']:,}", f"{figures['cpu'] * 1000:.0f}", late, f"{figures['rss'] / MIB:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def goals(found: list[dict[str, Any]]) -> str:
    """What was to be reached, beside what as many triggers that do nothing take of it in the same run."""
    rows = ["| goal | measured | of it Airflow's own | met |", "| --- | ---: | ---: | --- |"]
    alone = {figures["count"]: costs(figures) for figures in found if figures["name"] == NOTHING}
    for figures in found:
        if figures["name"] in (S3, NOTHING):
            continue
        own = alone.get(figures["count"], {})
        for what, (value, most) in costs(figures).items():
            airflows = f"{own[what][0]:.2f}" if what in own else "-"
            met = "yes" if value <= most else "**no**"
            rows.append(
                f"| {figures['name']}, {figures['count']:,}: {what} | {value:.2f} | {airflows} | {met} |"
            )
    return "\n".join(rows)


def costs(figures: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What is limited: what it is, and what it may be."""
    found = {
        "requests per interval ≤ 1.1": (per_interval(figures), 1.1),
        "% of a core ≤ 2": (core(figures) * 100, 2.0),
        "MiB over idle ≤ 16": (figures["rss"] / MIB, 16.0),
        "loop late, p99, while they start, ms < 10": (figures["start"]["p99"] * 1000, 10.0),
        "loop late, p99, while they wait, ms < 10": (figures["steady"]["p99"] * 1000, 10.0),
    }
    if figures.get("apart"):
        both = figures["apart"] + figures["burst"]
        found["event → TriggerEvent, median, ms < 50"] = (statistics.median(both) * 1000, 50.0)
    return found


def machine() -> str:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = [f"Python {platform.python_version()}"]
    for package in ("apache-airflow", "apache-airflow-providers-amazon", "aiobotocore", "websockets"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, Linux {platform.release()}; {', '.join(versions)}; load average {load}"


if __name__ == "__main__":
    main()

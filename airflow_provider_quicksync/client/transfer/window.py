"""
A bounded window of parallel work: N threads take items in order, the first error stops the rest at once.

Uploads and downloads both run on it. The calling thread only watches, so that it can report progress and
act on a stop at any moment, however long a socket hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from airflow_provider_quicksync.client.errors import StoppedError

T = TypeVar("T")

TICK_SECONDS = 0.25
NOTICE_SECONDS = 0.5
"""How long threads get to notice a stop, before those that hang in a socket are interrupted."""
GRACE_SECONDS = 2.0
"""How long threads then get to clean up."""


class Stop:
    """Says that work has to end: on request from outside (:meth:`request`), or as something failed."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.halted = threading.Event()
        self.interrupt: Callable[[], None] = lambda: None
        """Ends what hangs in a socket; set by who opens them."""
        self._attempts: list[Stop] = []

    def attempt(self) -> Stop:
        """A stop for work that may be done anew: it ends with this one, but this one doesn't end with it."""
        one = Stop()
        one.requested, one.interrupt = self.requested, self.interrupt
        self._attempts.append(one)
        if self.halted.is_set():
            one.halted.set()
        return one

    def request(self) -> None:
        """End the work; safe in a signal handler."""
        self.requested.set()
        self.halted.set()
        self.interrupt()
        for one in self._attempts:
            one.request()

    def check(self) -> None:
        """:raises StoppedError: the work has to end."""
        if self.halted.is_set():
            raise StoppedError(
                "stopped on request" if self.requested.is_set() else "stopped by another failure"
            )


def run_window(
    work: Callable[[T], object],
    items: Iterable[T],
    *,
    concurrency: int,
    stop: Stop,
    beside: Callable[[], None] | None = None,
    tick: Callable[[], None] | None = None,
) -> None:
    """
    Call ``work`` for each item, ``concurrency`` at the same time, in the order of the items.

    :param beside: one more job, run next to the items (a checksum).
    :param tick: called in this thread every quarter of a second.
    :raises StoppedError: a stop was requested.
    :raises Exception: the first failure of ``work`` or ``beside``.
    """
    waiting = iter(items)
    lock = threading.Lock()

    def worker() -> None:
        while True:
            stop.check()
            with lock:
                item = next(waiting, waiting)
            if item is waiting:
                return
            work(item)  # type: ignore[arg-type]

    pool = ThreadPoolExecutor(concurrency + 1, thread_name_prefix="quicksync")
    futures: list[Future[None]] = []
    try:
        for _ in range(concurrency):  # one by one: where there are no more threads, the first are waited for
            futures.append(pool.submit(worker))
        if beside:
            futures.append(pool.submit(beside))
        _watch(futures, stop, tick)
    except BaseException:
        stop.halted.set()
        if wait(futures, NOTICE_SECONDS).not_done:
            stop.interrupt()
            wait(futures, GRACE_SECONDS)
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _watch(futures: list[Future[None]], stop: Stop, tick: Callable[[], None] | None) -> None:
    """Wait for all, or for the first failure."""
    running = set(futures)
    while running:
        finished, running = wait(running, TICK_SECONDS, FIRST_EXCEPTION)
        if stop.requested.is_set():
            stop.check()
        failures = [error for future in finished if (error := future.exception())]
        if failures:
            raise next((e for e in failures if not isinstance(e, StoppedError)), failures[0])
        if tick:
            tick()

"""
One retry policy for every call: exponential backoff with full jitter, bounded twice.

What may be retried is the caller's to say (:mod:`.api`); how long to wait and when to give up is said here.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from .errors import QuickSyncError, StoppedError

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """
    When to try a call again.

    :param max_attempts: attempts in all; 1 turns retries off.
    :param total_seconds: no attempt starts later than this after the first one.
    :param base_seconds: the first wait is at most this; each further one at most twice the one before.
    :param cap_seconds: no wait is longer, but for a ``Retry-After``.
    :param retry_after_cap_seconds: a ``Retry-After`` is obeyed up to this.
    :param on_retry: called before each further attempt.
    """

    max_attempts: int = 5
    total_seconds: float = 1800.0
    base_seconds: float = 0.5
    cap_seconds: float = 30.0
    retry_after_cap_seconds: float = 120.0
    on_retry: Callable[[], None] | None = field(default=None, repr=False, compare=False)

    def run(
        self,
        attempt: Callable[[], T],
        *,
        stop: threading.Event | None = None,
        before_retry: Callable[[QuickSyncError], T | None] | None = None,
    ) -> T:
        """
        Call ``attempt`` until it returns, fails for good, or the bounds are met.

        :param stop: ends waiting between attempts at once with :class:`StoppedError`.
        :param before_retry: called with the error before each further attempt; a value it returns is
            the result (the service was asked, and the failed attempt had taken effect).
        :raises QuickSyncError: the last attempt's error.
        """
        stop = stop or threading.Event()
        failed: list[QuickSyncError] = []

        def once() -> T:
            if stop.is_set():
                raise StoppedError("stopped on request")
            if failed and before_retry:
                settled = before_retry(failed[-1])
                if settled is not None:
                    return settled
            try:
                return attempt()
            except QuickSyncError as error:
                failed.append(error)
                raise

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.max_attempts)
            | tenacity.stop_before_delay(self.total_seconds),
            wait=self._wait,
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, QuickSyncError) and e.retryable),
            sleep=tenacity.sleep_using_event(stop),
            before_sleep=self._announce,
            reraise=True,
        )
        return retrying(once)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        jittered = random.uniform(
            0, min(self.cap_seconds, self.base_seconds * 2 ** (state.attempt_number - 1))
        )
        asked = error.retry_after if isinstance(error, QuickSyncError) else None
        if asked is None:
            return jittered
        return min(asked, self.retry_after_cap_seconds) + min(jittered, 1.0)

    def _announce(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        if self.on_retry:
            self.on_retry()
        log.warning(
            "%s (attempt %d of %d, next in %.1f s)", error, state.attempt_number, self.max_attempts, wait
        )

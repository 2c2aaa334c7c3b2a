"""
How a file is cut into parts: pure arithmetic.

Sizes are this project's reading of the service ("as in S3-compatible IPFS stores"): every part but the
last at least 5 MiB, at most 10,000 parts, an empty file one empty part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_quicksync.client.errors import UsageError

MIB = 1 << 20
PREFERRED_PART_BYTES = 32 * MIB
"""Larger parts gain nothing on a fast network, and lose more when one has to be sent again."""
SMALLEST_DEFAULT_PART_BYTES = 8 * MIB
"""Smaller parts spend a share of their time on the request itself."""
_GRAIN_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What the service takes. Settable, as it is a reading and not documented."""

    min_part_bytes: int = 5 * MIB
    max_parts: int = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its number (from 1), where it starts and how long it is."""

    number: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A file of ``size_bytes`` in ``total_parts`` parts of ``part_size_bytes``, the last one shorter."""

    size_bytes: int
    part_size_bytes: int
    total_parts: int

    def part(self, number: int) -> Part:
        """The part with this number."""
        offset = (number - 1) * self.part_size_bytes
        return Part(number, offset, min(self.part_size_bytes, self.size_bytes - offset))

    def parts(self) -> Iterator[Part]:
        """Every part in order."""
        return map(self.part, range(1, self.total_parts + 1))


def plan_parts(
    size_bytes: int,
    *,
    part_size_bytes: int | None = None,
    concurrency: int = 8,
    limits: ServiceLimits | None = None,
) -> Plan:
    """
    Plan an upload.

    By default parts are balanced to whole rounds of ``concurrency`` parts of at most 32 MiB, so that no
    connection idles in the last round, and are at least 8 MiB. A ``part_size_bytes`` is taken as it is, but
    grows where the file would have too many parts.

    :raises UsageError: a part size under the service's minimum for a file of several parts.
    """
    limits = limits or ServiceLimits()
    if size_bytes < 0 or concurrency < 1 or (part_size_bytes is not None and part_size_bytes < 1):
        raise UsageError("size, part size and concurrency of an upload must be positive")
    wanted = part_size_bytes or max(limits.min_part_bytes, _balanced(size_bytes, concurrency))
    part_size = max(wanted, _ceil_div(size_bytes, limits.max_parts))
    if part_size < min(size_bytes, limits.min_part_bytes):
        raise UsageError(
            f"part size {part_size:,} is under the service's minimum of {limits.min_part_bytes:,}: raise it"
        )
    return Plan(size_bytes, part_size, max(1, _ceil_div(size_bytes, part_size)))


def _balanced(size_bytes: int, concurrency: int) -> int:
    rounds = max(1, _ceil_div(size_bytes, concurrency * PREFERRED_PART_BYTES))
    grains = _ceil_div(size_bytes, concurrency * rounds * _GRAIN_BYTES)
    return max(SMALLEST_DEFAULT_PART_BYTES, grains * _GRAIN_BYTES)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)

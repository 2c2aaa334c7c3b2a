"""How a file is cut into parts."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quicksync.client import Plan, ServiceLimits, UsageError, plan_parts
from airflow_provider_quicksync.client.transfer.plan import (
    MIB,
    PREFERRED_PART_BYTES,
    SMALLEST_DEFAULT_PART_BYTES,
)

TIB = 1 << 40
sizes = st.one_of(st.integers(0, 200 * MIB), st.integers(0, 50 * TIB))
concurrencies = st.integers(1, 64)


def check_covers_exactly(plan: Plan) -> None:
    parts = list(plan.parts())
    assert [part.number for part in parts] == list(range(1, plan.total_parts + 1))
    assert parts[0].offset == 0
    for part, following in itertools.pairwise(parts):
        assert part.size_bytes == plan.part_size_bytes
        assert following.offset == part.offset + part.size_bytes
    assert parts[-1].offset + parts[-1].size_bytes == plan.size_bytes
    assert all(part.size_bytes for part in parts) or plan.size_bytes == 0


@given(sizes, concurrencies)
def test_parts_cover_the_file_exactly_and_keep_the_limits(size: int, concurrency: int) -> None:
    plan = plan_parts(size, concurrency=concurrency)
    check_covers_exactly(plan)
    assert plan.total_parts <= 10_000
    assert plan.part_size_bytes >= 5 * MIB


@given(sizes, concurrencies, st.integers(1, 1000), st.integers(1, 64 * MIB))
def test_other_limits_are_kept_without_a_part_size(
    size: int, concurrency: int, max_parts: int, min_part_bytes: int
) -> None:
    limits = ServiceLimits(min_part_bytes, max_parts)
    plan = plan_parts(size, concurrency=concurrency, limits=limits)
    check_covers_exactly(plan)
    assert plan.total_parts <= max_parts
    assert plan.part_size_bytes >= min_part_bytes


@given(st.integers(0, 100_000), st.integers(1, 100_000), st.integers(1, 50))
def test_a_given_part_size_is_taken_unless_there_would_be_too_many_parts(
    size: int, part_size: int, max_parts: int
) -> None:
    plan = plan_parts(size, part_size_bytes=part_size, limits=ServiceLimits(1, max_parts))
    check_covers_exactly(plan)
    assert plan.part_size_bytes == max(part_size, math.ceil(size / max_parts))


@given(st.integers(1, 200_000 * MIB), concurrencies)
def test_the_last_round_of_a_large_file_is_as_full_as_the_others(size: int, concurrency: int) -> None:
    plan = plan_parts(size, concurrency=concurrency)
    if plan.part_size_bytes > SMALLEST_DEFAULT_PART_BYTES and plan.total_parts < 9_000:
        rounds = math.ceil(size / (concurrency * PREFERRED_PART_BYTES))
        assert plan.part_size_bytes <= PREFERRED_PART_BYTES
        assert rounds * concurrency * 0.99 - 1 <= plan.total_parts <= rounds * concurrency


def test_an_empty_file_is_one_empty_part() -> None:
    (part,) = plan_parts(0).parts()
    assert (part.number, part.offset, part.size_bytes) == (1, 0, 0)


def test_a_file_under_the_minimum_is_one_part_of_any_size() -> None:
    assert plan_parts(10, part_size_bytes=10).total_parts == 1


@pytest.mark.parametrize(
    ("size", "part_size", "concurrency"), [(-1, None, 1), (1, 0, 1), (1, -5, 1), (1, None, 0)]
)
def test_what_cannot_be_planned_is_wrong_use(size: int, part_size: int | None, concurrency: int) -> None:
    with pytest.raises(UsageError):
        plan_parts(size, part_size_bytes=part_size, concurrency=concurrency)


def test_a_part_size_under_the_minimum_is_refused_and_the_message_names_it() -> None:
    with pytest.raises(UsageError, match="5,242,880"):
        plan_parts(100 * MIB, part_size_bytes=MIB)

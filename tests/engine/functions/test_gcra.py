"""The generic cell rate algorithm: how many pass, and when."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp.engine.rules.functions.gcra import Rate, bounded, moved_ns, opens_ms

_NS = 1_000_000
rates = st.builds(Rate, st.integers(1, 50), st.integers(1, 10_000), st.integers(0, 5))
pauses = st.lists(st.integers(0, 3_000), max_size=60)


def passed(rate: Rate, free_ns: int, now_ms: int) -> int | None:
    """Let one pass, if the limit allows that, and return the new time from which on it is free."""
    if opens_ms(rate, free_ns) > now_ms:
        return None
    return moved_ns(rate, free_ns, now_ms)


def times_passed(rate: Rate, times: list[int]) -> list[int]:
    free_ns, found = 0, []
    for now_ms in times:
        moved = passed(rate, free_ns, now_ms)
        if moved is not None:
            free_ns = moved
            found.append(now_ms)
    return found


@pytest.mark.parametrize(
    ("rate", "times", "expected"),
    [
        (Rate(1, 1000), [0, 0, 999, 1000, 1001], [0, 1000]),
        # Ten in a second are one each tenth of it, and one more after a pause.
        (Rate(10, 1000, 1), [0, 0, 0, 99, 100, 100, 900, 900, 900], [0, 0, 100, 900, 900]),
        # No time is left over if the period cannot be divided.
        (Rate(3, 1000), [0, 333, 334, 667, 668, 999, 1001, 1002], [0, 334, 668, 1002]),
        (Rate(1_000_000, 1, 3), [5, 5, 5, 5, 5], [5, 5, 5, 5]),
    ],
)
def test_what_passes(rate: Rate, times: list[int], expected: list[int]) -> None:
    assert times_passed(rate, times) == expected


@given(rates, pauses)
def test_no_more_pass_in_any_span_than_the_rate_allows(rate: Rate, gaps: list[int]) -> None:
    found = times_passed(rate, list(accumulate(gaps)))
    for first, begin_ms in enumerate(found):
        for last in range(first, len(found)):
            span_ns = (found[last] - begin_ms) * _NS
            assert last - first <= span_ns // rate.interval_ns + rate.burst


@given(rates, pauses)
def test_who_keeps_to_the_interval_always_passes(rate: Rate, gaps: list[int]) -> None:
    pause_ms = -(-rate.interval_ns // _NS)
    times = list(accumulate(pause_ms + gap for gap in gaps))
    assert times_passed(rate, times) == times


@given(rates, pauses, st.integers(0, 10_000))
def test_what_a_row_says_is_over_when_its_time_has_come(
    rate: Rate, gaps: list[int], later_ms: int
) -> None:
    """So rows whose time has come can be deleted."""
    free_ns = 0
    for now_ms in accumulate(gaps):
        free_ns = passed(rate, free_ns, now_ms) or free_ns
    now_ms = -(-free_ns // _NS) + later_ms
    assert passed(rate, free_ns, now_ms) == passed(rate, 0, now_ms)


@given(rates, st.integers(0, 10**18), st.integers(0, 10**9))
def test_a_clock_that_was_set_back_shuts_a_limit_for_no_longer_than_the_limit_does(
    rate: Rate, free_ns: int, now_ms: int
) -> None:
    """`free_ns` may be any time: of a clock that was far ahead."""
    moved = passed(rate, free_ns, now_ms)
    kept_ns = bounded(rate, free_ns, now_ms)
    wait_ns = (rate.burst + 1) * rate.interval_ns
    if moved is None:
        assert passed(rate, kept_ns, now_ms) is None
        assert passed(rate, kept_ns, now_ms + -(-wait_ns // _NS)) is not None
    else:
        assert kept_ns == free_ns
        assert bounded(rate, moved, now_ms) == moved

"""When a first call may pass its gates: the seconds that its caller is asked to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stephttp.engine.model.gate import START, Gate
from stephttp.engine.rules.full_gates import seconds_until_room
from stephttp.engine.rules.functions import throttling

NOW = 1_000_000
NS = 1_000_000
CALLS = Gate("~calls", 0, 2, 2)
THROTTLE = Gate("~start", START, 0, 6, 60_000)


@pytest.mark.parametrize(
    ("at_work", "seconds"), [({}, 0), ({"~calls": 1}, 0), ({"~calls": 2}, 1), ({"~calls": 9}, 1)]
)
def test_a_limit_of_calls_is_full_with_as_many_as_it_says(
    at_work: dict[str, int], seconds: int
) -> None:
    assert seconds_until_room([CALLS], at_work, NOW) == seconds
    assert seconds_until_room([CALLS], {"~other": 9}, NOW) == 0


@pytest.mark.parametrize(
    ("opens_in_ms", "seconds"),
    [(-5000, 0), (0, 0), (1, 1), (1000, 1), (1001, 2), (9999, 10), (10_000, 10)],
)
def test_the_time_until_a_throttle_opens_is_rounded_up(opens_in_ms: int, seconds: int) -> None:
    # Of six at once five are in advance, ten seconds each.
    gate = replace(THROTTLE, free_ns=(NOW + opens_in_ms + 50_000) * NS)
    assert throttling.opens_ms(gate) == NOW + opens_in_ms
    assert seconds_until_room([gate], {}, NOW) == seconds


def test_the_longest_time_counts_and_no_gate_has_room() -> None:
    shut = replace(THROTTLE, free_ns=(NOW + 57_000) * NS)
    for gates in ([CALLS, shut], [shut, CALLS]):
        assert seconds_until_room(gates, {"~calls": 2}, NOW) == 7
    assert seconds_until_room([CALLS, THROTTLE], {"~calls": 2}, NOW) == 1
    assert seconds_until_room([], {}, NOW) == 0


@given(
    most=st.integers(1, 1000),
    period_ms=st.integers(1, 604_800_000),
    burst=st.integers(0, 1000),
    starts=st.integers(0, 50),
)
def test_after_that_time_the_throttle_is_open(
    most: int, period_ms: int, burst: int, starts: int
) -> None:
    gate = Gate("~start", START, 0, most, period_ms, burst)
    for _ in range(starts):
        gate = replace(gate, free_ns=throttling.free_after_start_ns(gate, NOW))
    seconds = seconds_until_room([gate], {}, NOW)
    assert seconds_until_room([gate], {}, NOW + seconds * 1000) == 0
    assert seconds == 0 or seconds_until_room([gate], {}, NOW + (seconds - 1) * 1000) > 0
    assert (seconds > 0) == (throttling.opens_ms(gate) > NOW)

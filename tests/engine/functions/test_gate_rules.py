"""The parts of gates that need no engine: throttles, the order of lanes, ids that ascend."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stephttp.engine.live.slots import FIRST, Gates, LaneQueue
from stephttp.engine.model.gate import Gate
from stephttp.engine.model.tokens import ascending_ulids, new_ulid
from stephttp.engine.rules.functions import throttling
from stephttp.engine.rules.functions.configuration import read_options

NOW = 1_700_000_000_000


def starts(most: int, period_ms: int, burst: int, asked: list[int]) -> list[int]:
    """When runs start through a throttle that ask for it at these times."""
    gate, started = Gate("~throttle", -1, 0, most, period_ms, burst), []
    for at_ms in sorted(asked):
        start_ms = max(at_ms, throttling.opens_ms(gate))
        free_ns = throttling.free_after_start_ns(gate, start_ms)
        gate = replace(gate, free_ns=free_ns)
        started.append(start_ms)
    return started


@pytest.mark.parametrize(
    ("most", "period_ms", "burst", "asked", "started"),
    [
        (1, 1000, 0, [0, 0, 0], [0, 1000, 2000]),
        (2, 1000, 0, [0, 0, 0, 0], [0, 0, 500, 1000]),
        (2, 6000, 1, [0, 500, 1000, 1500, 2000], [0, 500, 1000, 3000, 6000]),
        (1, 1000, 2, [0] * 5, [0, 0, 0, 1000, 2000]),
        (3, 1000, 0, [0] * 6, [0, 0, 0, 334, 667, 1000]),
        # A place that nobody takes is not kept for longer than there are places.
        (2, 1000, 0, [0, 60_000, 60_000, 60_000], [0, 60_000, 60_000, 60_500]),
    ],
)
def test_when_runs_start(
    most: int, period_ms: int, burst: int, asked: list[int], started: list[int]
) -> None:
    found = starts(most, period_ms, burst, [NOW + one for one in asked])
    assert [one - NOW for one in found] == started


@given(
    st.integers(1, 7),
    st.integers(1000, 10_000),
    st.integers(0, 5),
    st.lists(st.integers(0, 30_000), min_size=1, max_size=60),
)
def test_never_more_runs_than_places_and_none_waits_longer_than_it_must(
    most: int, period_ms: int, burst: int, asked: list[int]
) -> None:
    found = starts(most, period_ms, burst, [NOW + one for one in asked])
    for first in range(len(found)):
        for last in range(first, len(found)):
            span_ms = found[last] - found[first]
            assert last - first + 1 <= most + burst + 1 + span_ms * most / period_ms
    assert found == sorted(found)
    # Places that are free are given away at once.
    assert found[: most + burst] == sorted(NOW + one for one in asked)[: most + burst]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9))))
def test_lanes_come_in_the_order_of_their_first_turns(added: list[tuple[str, int]]) -> None:
    queue, first = LaneQueue(), dict[str, tuple[int, str]]()
    for lane, time in added:
        queue.add(lane, (time, lane))
        first[lane] = min(first.get(lane, (time, lane)), (time, lane))
    assert len(queue) == len(first)
    popped = []
    while (turn := queue.first) is not None:
        assert first[queue.pop() or ""] == turn
        popped.append(turn)
    assert popped == sorted(first.values())
    assert queue.pop() is None


def test_gates_open_when_a_call_ends_and_when_it_is_time() -> None:
    gates = Gates()
    assert gates.look(NOW).every  # An engine that starts knows no lane.
    gates.begin(["~a", "~b"])
    gates.begin(["~a"])
    room = gates.look(NOW)
    assert (room.used("~a"), room.used("~b"), room.used("~c"), room.open) == (2, 1, 0, {})
    assert not room.changed
    room.take(["~a"])
    assert (room.used("~a"), gates.used["~a"]) == (3, 2)
    room.later = {"~t": NOW + 500}
    gates.looked(room)
    gates.looked(room)
    assert gates.opening_ms == NOW + 500
    gates.end(["~a", "~b"])
    assert list(gates.look(NOW).open) == ["~a", "~b"]
    assert list(gates.look(NOW + 500).open) == ["~t"]
    gates.end(["~a"])
    gates.look(NOW)
    assert gates.used == {}
    gates.reopen()
    assert gates.look(NOW).every


def test_calls_of_an_earlier_life_count_until_they_are_over() -> None:
    gates = Gates()
    gates.look(NOW)
    gates.begin(["~a"])
    gates.rest({"~a": 2})
    room = gates.look(NOW)
    assert (room.used("~a"), list(room.open)) == (3, [])
    gates.rest({})
    room = gates.look(NOW)
    assert (room.used("~a"), list(room.open)) == (1, ["~a"])


def test_what_is_left_over_for_lack_of_slots_goes_first_every_second_time() -> None:
    gates = Gates()
    found = []
    for _ in range(4):
        room = gates.look(NOW)
        found.append(room.gates_first)
        room.wait("~a", "http://app.test", FIRST)
        gates.looked(room)
    assert found == [False, True, False, True]
    room = gates.look(NOW)
    assert room.origins == ["http://app.test"]
    room.waiting["http://app.test"].pop()
    assert room.first_turn("http://app.test") is None
    gates.looked(room)
    assert not gates.look(NOW).gates_first


@given(st.integers(0, 50), st.integers(0, 2**32))
def test_ids_of_one_millisecond_ascend(count: int, seed: int) -> None:
    rng = Random(seed)
    first = ascending_ulids(count, NOW, rng, None)
    then = ascending_ulids(count, NOW, rng, first[-1] if first else None)
    assert len({*first, *then}) == 2 * count
    assert first + then == sorted(first + then)
    assert {one[:10] for one in first + then} <= {new_ulid(NOW, rng)[:10]}


def test_ids_are_made_where_there_is_no_room_above() -> None:
    last = new_ulid(NOW, Random(1))[:10] + "Z" * 16
    made = ascending_ulids(3, NOW, Random(1), last)
    assert len(set(made)) == 3
    assert {one[:10] for one in made} == {last[:10]}


@given(st.integers(1, 7), st.integers(1000, 10_000), st.integers(0, 5), st.integers(0, 10**10))
def test_no_throttle_is_shut_for_longer_than_all_its_places_take(
    most: int, period_ms: int, burst: int, ahead_ms: int
) -> None:
    gate = Gate("~throttle", -1, 0, most, period_ms, burst, (NOW + ahead_ms) * 1_000_000)
    free_ns = throttling.bounded_ns(gate, NOW)
    assert free_ns <= gate.free_ns
    shut = replace(gate, free_ns=free_ns)
    assert throttling.opens_ms(shut) <= NOW + period_ms // most + 1
    # Its own starts never bring it so far.
    assert throttling.bounded_ns(shut, NOW) == free_ns
    opened = replace(gate, free_ns=0)
    for _ in range(most + burst):
        opened = replace(gate, free_ns=throttling.free_after_start_ns(opened, NOW))
        assert throttling.bounded_ns(opened, NOW) == opened.free_ns


@pytest.mark.parametrize(
    ("limit", "period", "burst"),
    [(1, "365d", 100), (1_000_000, "366d", 1_000_000), (1, "3150s", 1_000_000)],
)
def test_what_is_kept_of_a_throttle_fits_into_the_database(
    limit: int, period: str, burst: int
) -> None:
    options = read_options({"throttle": {"limit": limit, "period": period, "burst": burst}}, "f")
    assert options.throttle is not None
    gate = Gate("~throttle", -1, 0, limit, options.throttle.period_ms, burst, free_ns=2**80)
    now_ms = 4_102_444_800_000  # the year 2100
    full = replace(gate, free_ns=throttling.bounded_ns(gate, now_ms))
    assert throttling.free_after_start_ns(full, now_ms) < 2**63

"""Which gates the limits of an endpoint are: which runs share one, and in which order."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._wire.limits_of_run import CallLimit, RunLimits, ThrottleLimit
from stephttp.engine.model.gate import MARK, START, Gate
from stephttp.engine.rules.endpoint_gates import gates_of

APP, OTHER = "app-1", "app-2"


def one(limit: CallLimit, app: str = APP, fn: str = "fn-1") -> Gate:
    """The gate of one limit of calls."""
    (gate,) = gates_of(RunLimits([limit]), app, fn)
    return gate


def test_limits_become_gates_of_the_same_numbers() -> None:
    calls, start = CallLimit("u1", limit=3), ThrottleLimit(limit=5, period=60_000, burst=2)
    by_user, throttle = gates_of(RunLimits([calls], start, 7), APP, "fn-1")
    assert (by_user.place, by_user.most, by_user.period_ms, by_user.shown) == (0, 3, None, '"u1"')
    assert (throttle.place, throttle.most, throttle.period_ms) == (START, 5, 60_000)
    assert (throttle.burst, throttle.shown) == (2, "")
    assert gates_of(RunLimits(priority=7), APP, "fn-1") == ()


def test_the_narrowest_comes_first() -> None:
    limits = RunLimits(
        [CallLimit("all", shared=True, limit=9), CallLimit("u1", limit=1)],
        ThrottleLimit(limit=1, period=1),
    )
    shared, by_user, throttle = gates_of(limits, APP, "fn-1")
    whole = one(CallLimit(limit=1))
    for before, after in pairwise([throttle, by_user, whole, shared]):
        assert before.order < after.order


@pytest.mark.parametrize(
    ("limit", "fn", "app"),
    [
        (CallLimit("u", shared=True, limit=1), True, False),
        (CallLimit("u", limit=1), False, False),
        (CallLimit(limit=1), False, False),
    ],
)
def test_who_shares_a_limit(limit: CallLimit, fn: bool, app: bool) -> None:
    name = one(limit).name
    assert one(limit).name == name
    assert (one(limit, fn="fn-2").name == name) is fn
    assert (one(limit, APP if app else OTHER).name == name) is (app or not limit.shared)
    start = ThrottleLimit(limit.key, limit.shared, limit=1, period=1)
    (throttle,) = gates_of(RunLimits(throttle=start), APP, "fn-1")
    (other,) = gates_of(RunLimits(throttle=start), APP, "fn-2")
    assert (throttle.name == other.name) is fn


KEYS = st.none() | st.text(max_size=300)


@given(st.tuples(KEYS, st.booleans()), st.tuples(KEYS, st.booleans()))
def test_different_keys_are_different_gates(
    first: tuple[str | None, bool], second: tuple[str | None, bool]
) -> None:
    names = {one(CallLimit(key, shared, limit=1)).name for key, shared in (first, second)}
    assert len(names) == len({first, second})
    assert all(name.startswith(MARK + "concurrency ") for name in names)
    assert len(one(CallLimit(first[0], limit=1)).shown) <= 200


def test_what_an_sdk_sends_is_what_the_engine_reads() -> None:
    limits = RunLimits([CallLimit("u", limit=2)], ThrottleLimit(limit=1, period=9, burst=1), -5)
    sent = msgspec.json.encode(limits)
    assert sent == (
        b'{"concurrency":[{"key":"u","limit":2}],'
        b'"throttle":{"limit":1,"period":9,"burst":1},"priority":-5}'
    )
    assert msgspec.json.decode(sent, type=RunLimits) == limits

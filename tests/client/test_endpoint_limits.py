"""The values that the limits of an endpoint may have: refused where the decorator is given them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import stephttp
from stephttp import Concurrency, ConfigurationError, Throttle
from stephttp._core.endpoint_limits import checked_limits
from stephttp._wire.limits_of_run import CallLimit, RunLimits, ThrottleLimit
from stephttp.provider import limits_of

MINUTE = timedelta(minutes=1)
WRONG: Any = b"x"
SIXTY: Any = 60


async def _later(*args: Any) -> str:
    return ""


later: Any = _later


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Concurrency(0), "Concurrency.limit: 0 is not possible; give a whole number, 1 to"),
        (lambda: Concurrency(1_000_001), "Concurrency.limit: 1000001 is not possible"),
        (lambda: Concurrency(True), "Concurrency.limit: True"),
        (lambda: Concurrency(WRONG), "Concurrency.limit: b'x'"),
        (
            lambda: Concurrency(1, SIXTY),
            "Concurrency.key: 60 is neither a text nor a plain function",
        ),
        (lambda: Concurrency(1, later), "Concurrency.key: .* nor a plain function"),
        (lambda: Concurrency(1, ""), "Concurrency.key: a text of 0 characters .*; give 1 to 1024"),
        (lambda: Concurrency(1, "x" * 1025), "Concurrency.key: a text of 1025 characters"),
        (lambda: Throttle(0, MINUTE), "Throttle.limit: 0"),
        (lambda: Throttle(1, MINUTE, -1), "Throttle.burst: -1 is not possible; .* 0 to 1000000"),
        (lambda: Throttle(1, MINUTE, key=WRONG), "Throttle.key: b'x' is neither"),
        (
            lambda: Throttle(1, SIXTY),
            "Throttle.period: 60 is not from a millisecond to 7 days; give",
        ),
        (lambda: Throttle(1, timedelta(0)), "Throttle.period: datetime.timedelta"),
        (lambda: Throttle(1, timedelta(microseconds=999)), "Throttle.period"),
        (lambda: Throttle(1, timedelta(days=7, microseconds=1)), "Throttle.period"),
        (lambda: Throttle(1, timedelta(days=7), 6000), "Throttle.burst: .* than 100 years .* 6000"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(make: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{why}"):
        make()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"concurrency": 5}, "concurrency: 5 is not a limit; give stephttp.Concurrency"),
        ({"concurrency": Concurrency}, "concurrency: <class .* is not a limit"),
        ({"concurrency": []}, "concurrency: 0 limits were given; give one or two, or leave it out"),
        ({"concurrency": [Concurrency(1)] * 3}, "concurrency: 3 limits were given"),
        ({"concurrency": [1]}, "concurrency: 1 is not a limit"),
        ({"throttle": 5}, "throttle: 5 is not one; give stephttp.Throttle"),
        ({"throttle": Concurrency(1)}, "throttle: .* is not one"),
        ({"priority": "high"}, "priority: 'high' is neither a whole number of seconds nor a plain"),
        ({"priority": 1.0}, "priority: 1.0 is neither"),
        ({"priority": True}, "priority: True is neither"),
        ({"priority": later}, "priority: .* is neither"),
        ({"priority": 601}, "priority: 601 is out of range; give -600 to 600 seconds"),
        ({"priority": -601}, "priority: -601 is out of range"),
        (
            {"refuse_over_limit": 1, "throttle": Throttle(1, MINUTE)},
            "refuse_over_limit: 1 is not possible; give True or False",
        ),
        ({"refuse_over_limit": True}, "refuse_over_limit: there is no limit; give concurrency or"),
        ({"refuse_over_limit": True, "priority": 5}, "refuse_over_limit: there is no limit"),
        (
            {"refuse_over_limit": True, "concurrency": Concurrency(1), "idempotency": str},
            "refuse_over_limit: an endpoint whose requests may have idempotency keys cannot",
        ),
    ],
)
def test_the_decorator_refuses_an_option_that_makes_no_sense(
    options: dict[str, Any], why: str
) -> None:
    provider = stephttp.setup("https://api.example.com")
    with pytest.raises(ConfigurationError, match=f"^{why}"):
        provider.endpoint(**options)


@pytest.mark.parametrize(
    "keys", [{"idempotency_header": "Idempotency-Key"}, {"idempotency": lambda request: "k"}]
)
def test_keys_of_all_requests_and_refused_ones_exclude_each_other(keys: dict[str, Any]) -> None:
    provider = stephttp.setup("https://api.example.com", **keys)
    provider.endpoint(concurrency=Concurrency(1))
    with pytest.raises(ConfigurationError, match="leave out one of them, also in setup"):
        provider.endpoint(concurrency=Concurrency(1), refuse_over_limit=True)


def test_what_they_are_for_one_request() -> None:
    limits = checked_limits(
        [Concurrency(3, key="payments"), Concurrency(1, key=lambda user, **_: user or None)],
        Throttle(5, MINUTE, burst=2, key=lambda user, region: f"{region}/{user}"),
        lambda user, region: -7 if user else 1000,
    )
    assert limits.names == "concurrency, throttle, priority"
    shared = CallLimit("payments", shared=True, limit=3)
    assert limits.of(("u1",), {"region": "eu"}) == RunLimits(
        [shared, CallLimit("u1", limit=1)],
        ThrottleLimit("eu/u1", limit=5, period=60_000, burst=2),
        -7,
    )
    assert limits.of(("",), {"region": "eu"}) == RunLimits(
        [shared, CallLimit(limit=1)],
        ThrottleLimit("eu/", limit=5, period=60_000, burst=2),
        600,
    )


@pytest.mark.parametrize("priority", [-600, 0, 600])
def test_the_limits_of_priorities(priority: int) -> None:
    limits = checked_limits(None, None, priority)
    assert limits.of((), {}) == RunLimits(priority=priority)


def test_an_endpoint_without_limits_has_none() -> None:
    assert limits_of(None, None, None) is None

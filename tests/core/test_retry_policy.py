"""When a failed step is tried again: fields, precedence, exceptions, pauses."""

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._core.endpoint_options import FnOpts
from stephttp._core.failures import failed_attempt, next_attempt
from stephttp._core.retry_policy import (
    LONGEST_DELAY,
    RetryPolicy,
    checked,
    gives_up,
    merged,
    pause,
    wishes,
)
from stephttp._core.step_options import policy_of_request, step_options
from stephttp._wire.durations import parse_duration
from stephttp.errors import (
    APIStatusError,
    NonRetriableError,
    RetryAfterError,
    StepResultError,
    StepTimeoutError,
)

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01


class CardDeclined(Exception):
    pass


class Later(RetryAfterError):
    pass


@pytest.mark.parametrize(
    ("given_", "error", "match"),
    [
        ({"retries": -1}, ValueError, "retries must be a whole number from 0 to 20, not -1"),
        ({"retries": 21}, ValueError, "from 0 to 20, not 21"),
        ({"retries": 2.5}, ValueError, "whole number"),
        ({"retries": True}, ValueError, "whole number"),
        ({"retries": "3"}, ValueError, "whole number"),
        ({"delay": 5}, TypeError, r"delay must be a timedelta, not 5; .*timedelta\(seconds=30\)"),
        ({"max_delay": "1m"}, TypeError, "max_delay must be a timedelta, not '1m'"),
        ({"delay": -SECOND}, ValueError, "delay must not be negative, and is -1 seconds; leave it"),
        ({"max_delay": -SECOND}, ValueError, "max_delay must not be negative"),
        ({"delay": 25 * HOUR}, ValueError, "delay may be 24 hours at most, .* make it shorter"),
        ({"max_delay": timedelta.max}, ValueError, "max_delay may be 24 hours at most"),
        (
            {"delay": HOUR, "max_delay": SECOND},
            ValueError,
            "max_delay must not be shorter than delay, but 0:00:01 is shorter than 1:00:00; make",
        ),
        ({"retry_on": ()}, ValueError, r"retry_on must not be empty.*use retries=0"),
        ({"retry_on": 5}, TypeError, "retry_on must be types of Exception, and 5 is not one"),
        ({"retry_on": "OSError"}, TypeError, "retry_on .*'OSError' is not one; name one"),
        ({"give_up_on": ["OSError"]}, TypeError, "give_up_on .*'OSError' is not one"),
        ({"retry_on": (OSError, int)}, TypeError, "retry_on .*<class 'int'> is not one"),
        ({"retry_on": OSError("x")}, TypeError, "give the class itself, OSError"),
        ({"give_up_on": (KeyError(),)}, TypeError, "give the class itself, KeyError"),
        ({"retry_on": asyncio.CancelledError}, TypeError, "leave it out: a step that it ends"),
        ({"give_up_on": (KeyboardInterrupt,)}, TypeError, "leave it out"),
        ({"retry_on": (list[int],)}, TypeError, "is not one"),
        ({"retry_on": NonRetriableError}, ValueError, "NonRetriableError is never retried; take"),
        ({"retry_on": (StepResultError,)}, ValueError, "StepResultError is never retried"),
        (
            {"retry_on": ConnectionError, "give_up_on": OSError},
            ValueError,
            "ConnectionError would never be retried, because of give_up_on; take it out of one",
        ),
        ({"give_up_on": (Later,)}, ValueError, "Later asks for another attempt.*take it out, or"),
    ],
)
def test_what_makes_no_sense_is_refused(
    given_: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        checked(**given_)
    with pytest.raises(error, match=match):
        step_options(given_)


@pytest.mark.parametrize(
    ("given_", "error", "match"),
    [
        ({"timeout": 30}, TypeError, "timeout must be a timedelta, not 30"),
        ({"timeout": timedelta(0)}, ValueError, "timeout must be positive, not 0 seconds; leave"),
        ({"timeout": -SECOND}, ValueError, "timeout must be positive"),
        ({"thread": 1}, TypeError, "thread must be True or False, not 1"),
        ({"retry": 1}, TypeError, "unexpected keyword argument 'retry'"),
    ],
)
def test_options_of_a_step_that_make_no_sense(
    given_: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        step_options(given_)


def test_the_blocking_tools_are_in_a_thread_already() -> None:
    with pytest.raises(TypeError, match="in a thread already"):
        step_options({"thread": True}, blocking=True)


@pytest.mark.parametrize(
    "given_",
    [
        {"timeout": SECOND},
        {"thread": True},
        {"retry_on": OSError},
        {"give_up_on": (OSError,)},
    ],
)
def test_options_that_are_for_functions_only(given_: dict[str, Any]) -> None:
    options = step_options(given_)
    with pytest.raises(ValueError, match=f"step 'rates': {next(iter(given_))} is for functions"):
        policy_of_request(options, "rates", "fetch")


def test_types_may_be_given_in_several_ways() -> None:
    for one in (OSError, (OSError,), [OSError], {OSError}, iter([OSError])):
        assert checked(retry_on=one) == {"retry_on": (OSError,)}
    assert checked(give_up_on=()) == {"give_up_on": ()}
    assert checked() == {}


def test_each_field_is_the_steps_own_or_else_the_endpoints() -> None:
    endpoint = FnOpts(retries=3, delay=HOUR, retry_on=(OSError,), give_up_on=(KeyError,))
    own = step_options({"retries": 0, "max_delay": 2 * HOUR, "give_up_on": ()})
    assert merged(own, endpoint) == RetryPolicy(
        retries=0, delay=HOUR, max_delay=2 * HOUR, retry_on=(OSError,), give_up_on=()
    )


GROUP = ExceptionGroup


@pytest.mark.parametrize(
    ("retry_on", "give_up_on", "error", "final"),
    [
        (None, None, ValueError(), False),
        (None, None, NonRetriableError(), True),
        (None, None, APIStatusError("x", 400), True),
        ((OSError,), None, ConnectionError(), False),
        ((OSError,), None, ValueError(), True),
        ((TimeoutError,), None, StepTimeoutError("x"), False),
        (None, (TimeoutError,), StepTimeoutError("x"), True),
        (None, (CardDeclined,), CardDeclined(), True),
        (None, (CardDeclined,), ValueError(), False),
        ((OSError,), (FileNotFoundError,), FileNotFoundError(), True),
        ((OSError,), (FileNotFoundError,), ConnectionError(), False),
        ((Exception,), None, NonRetriableError(), True),
        ((OSError,), None, Later("x", 1), False),
        (None, (Exception,), Later("x", 1), False),
        (None, None, GROUP("g", [ValueError(), NonRetriableError()]), True),
        ((OSError,), None, GROUP("g", [OSError(), GROUP("h", [TimeoutError()])]), False),
        ((OSError,), None, GROUP("g", [OSError(), ValueError()]), True),
        ((OSError,), None, GROUP("g", [OSError(), Later("x", 1)]), False),
        ((GROUP,), None, GROUP("g", [ValueError()]), False),
        ((Exception,), (CardDeclined,), GROUP("g", [OSError(), CardDeclined()]), True),
        (None, (GROUP,), GROUP("g", [ValueError()]), True),
        (None, (Exception,), GROUP("g", [Later("x", 1)]), False),
    ],
)
def test_which_exceptions_are_worth_another_attempt(
    retry_on: Any, give_up_on: Any, error: Exception, final: bool
) -> None:
    policy = RetryPolicy(retry_on=retry_on, give_up_on=give_up_on, delay=HOUR)
    info, when = failed_attempt(error, policy, 0, NOW_NS, lambda: 0.0)
    assert (info.no_retry is True) is final
    assert (when is None) is final


@pytest.mark.parametrize(
    ("delay", "max_delay", "pauses"),
    [
        (None, None, [None, None]),
        (10, None, [10, 20, 40, 80]),
        (10, 30, [10, 20, 30, 30]),
        (10, 10, [10, 10, 10]),
        (None, 3, [1, 2, 3, 3]),
        (None, 0.5, [0.5, 0.5]),
        (0, None, [0, 0, 0]),
        (86_400, None, [86_400, 86_400]),
    ],
)
def test_pauses_double_up_to_the_longest(
    delay: float | None, max_delay: float | None, pauses: list[float | None]
) -> None:
    policy = RetryPolicy(
        delay=None if delay is None else delay * SECOND,
        max_delay=None if max_delay is None else max_delay * SECOND,
    )
    found = [pause(policy, failures, lambda: 0.0) for failures in range(len(pauses))]
    assert found == [None if one is None else one * SECOND for one in pauses]


def test_a_delay_of_the_step_may_be_longer_than_the_endpoints_longest() -> None:
    policy = merged(step_options({"delay": HOUR}), FnOpts(delay=SECOND, max_delay=SECOND))
    assert [pause(policy, n, lambda: 0.0) for n in range(3)] == [HOUR] * 3


def test_an_exceptions_own_time_takes_precedence_and_of_several_the_latest() -> None:
    policy = RetryPolicy(delay=HOUR)
    ask = RetryAfterError("busy", 90)
    later = RetryAfterError("busy", timedelta(minutes=5))
    for error, when in (
        (ask, "2026-01-01T00:01:30.000Z"),
        (GROUP("g", [ask, later, ValueError()]), "2026-01-01T00:05:00.000Z"),
        (ValueError(), "2026-01-01T01:00:00.000Z"),
        (None, "2026-01-01T01:00:00.000Z"),
    ):
        assert next_attempt(error, policy, 0, NOW_NS, lambda: 0.0) == when
    assert next_attempt(ValueError(), RetryPolicy(), 0, NOW_NS, lambda: 0.0) is None


DELAYS = st.timedeltas(timedelta(0), LONGEST_DELAY)


@given(DELAYS, DELAYS, st.integers(0, 10**9), st.integers(0))
def test_a_pause_lies_within_its_limits(
    one: timedelta, other: timedelta, failures: int, seed: int
) -> None:
    delay, longest = sorted((one, other))
    policy = RetryPolicy(**checked(delay=delay, max_delay=longest))
    found = pause(policy, failures, Random(seed).random)
    following = pause(policy, failures + 1, lambda: 0.0)
    assert found is not None
    assert following is not None
    assert delay <= found <= longest * 1.1 + timedelta(microseconds=1)
    assert following >= pause(policy, failures, lambda: 0.0)  # type: ignore[operator]
    asked = wishes(policy)
    assert parse_duration(asked["delay"]) == delay
    assert parse_duration(asked["max_delay"]) == longest


KINDS = (OSError, ConnectionError, ConnectionResetError, ValueError, UnicodeError, KeyError)
ERRORS = st.recursive(
    st.sampled_from(KINDS).map(lambda kind: kind("x") if kind is not UnicodeError else kind()),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda all_: GROUP("g", all_)),
    max_leaves=5,
)


@given(st.lists(st.sampled_from(KINDS), min_size=1), st.lists(st.sampled_from(KINDS)), ERRORS)
def test_what_is_given_up_on_is_never_retried_and_the_rest_only_if_it_is_listed(
    only: list[Any], never: list[Any], error: Exception
) -> None:
    policy = RetryPolicy(retry_on=tuple(only), give_up_on=tuple(never))
    parts: list[Exception] = []
    groups = [error]
    while groups:
        one = groups.pop()
        (groups if isinstance(one, ExceptionGroup) else parts).extend(
            one.exceptions if isinstance(one, ExceptionGroup) else [one]
        )
    worth = all(
        any(issubclass(type(part), kind) for kind in only)
        and not any(issubclass(type(part), kind) for kind in never)
        for part in parts
    )
    assert gives_up(policy, error) is not worth

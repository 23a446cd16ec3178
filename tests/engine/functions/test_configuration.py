"""Options of functions: from what apps register to checked values, and applied to events."""

from __future__ import annotations

from typing import Any

import pytest

from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import (
    Batch,
    CancelOn,
    ConcurrencyOption,
    Debounce,
    FunctionOptions,
    RateLimit,
    Singleton,
    ThrottleOption,
)
from stephttp.engine.model.function_start import StartingEvent
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.functions.configuration import read_options
from stephttp.engine.rules.functions.planning import looks_into, plan

KEY = "event.data.user"
EVENT = StartingEvent("01E", "order/placed", 1_000, b"{}")
CONTENT = {"name": "order/placed", "data": {"user": "u1", "n": 3, "whole": {"b": 1, "a": [2]}}}

READ: list[tuple[dict[str, Any], FunctionOptions]] = [
    ({}, FunctionOptions()),
    ({"concurrency": 3}, FunctionOptions(concurrency=(ConcurrencyOption(3),))),
    ({"concurrency": {"limit": 0}}, FunctionOptions(concurrency=(ConcurrencyOption(0),))),
    (
        {"concurrency": [{"limit": 2, "key": KEY, "scope": "account"}, {"limit": 9}]},
        FunctionOptions(concurrency=(ConcurrencyOption(2, KEY, "account"), ConcurrencyOption(9))),
    ),
    (
        {"throttle": {"limit": 2, "period": "1m", "burst": 1, "key": KEY}},
        FunctionOptions(throttle=ThrottleOption(2, 60_000, 1, KEY)),
    ),
    (
        {"rateLimit": {"limit": 1, "period": "24h"}},
        FunctionOptions(rate_limit=RateLimit(1, 86_400_000)),
    ),
    (
        {"debounce": {"period": "5s", "timeout": "1m"}},
        FunctionOptions(debounce=Debounce(5_000, None, 60_000)),
    ),
    (
        {"batchEvents": {"maxSize": 10, "timeout": "5s", "key": KEY, "if": "event.data.n > 1"}},
        FunctionOptions(batch=Batch(10, 5_000, KEY, "event.data.n > 1")),
    ),
    ({"singleton": {"mode": "cancel"}}, FunctionOptions(singleton=Singleton(None, cancels=True))),
    (
        {"cancel": [{"event": "a", "if": "async.data.n == event.data.n", "timeout": "1h"}]},
        FunctionOptions(cancel_on=(CancelOn("a", "async.data.n == event.data.n", 3_600_000),)),
    ),
    ({"priority": {"run": "event.data.n"}}, FunctionOptions(priority="event.data.n")),
    ({"idempotency": KEY}, FunctionOptions(idempotency=KEY)),
    (
        {"timeouts": {"start": "10s", "finish": "1m"}},
        FunctionOptions(start_timeout_ms=10_000, finish_timeout_ms=60_000),
    ),
    ({"concurrency": None, "timeouts": None, "cancel": []}, FunctionOptions()),
]


@pytest.mark.parametrize(("config", "options"), READ)
def test_options_are_read(config: dict[str, Any], options: FunctionOptions) -> None:
    assert read_options(config, "f") == options


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"concurrency": -1}, "f.concurrency.limit: expected a number from 0 to 1000000, got -1"),
        ({"concurrency": True}, "f.concurrency: expected an object, got bool"),
        ({"concurrency": [1, 2]}, "f.concurrency[0]: expected an object, got int"),
        ({"concurrency": [{}] * 3}, "f.concurrency: 3, at most 2 are accepted"),
        (
            {"concurrency": {"limit": 1, "scope": "world"}},
            "f.concurrency.scope: expected one of fn, env, account, got 'world'",
        ),
        (
            {"concurrency": {"limit": 1, "scope": "env"}},
            "f.concurrency.key: must be there if the scope is 'env'",
        ),
        (
            {"throttle": {"limit": 0, "period": "1s"}},
            "f.throttle.limit: expected a number from 1 to 1000000, got 0",
        ),
        (
            {"throttle": {"limit": 1, "period": "365d", "burst": 101}},
            "f.throttle.burst: the throttle takes more than 100 years to forget 101 starts",
        ),
        (
            {"throttle": {"limit": 1}},
            "f.throttle.period: '' is not a duration such as '30s', '1h30m' or '2w'",
        ),
        (
            {"debounce": {"period": "0s"}},
            "f.debounce.period: '0s' is not from 1 ms to 366 days",
        ),
        (
            {"rateLimit": {"limit": 1, "period": "1s", "key": 3}},
            "f.rateLimit.key: expected text, got int",
        ),
        (
            {"batchEvents": {"maxSize": 101, "timeout": "1s"}},
            "f.batchEvents.maxSize: expected a number from 1 to 100, got 101",
        ),
        (
            {"batchEvents": {"maxSize": 2, "timeout": "1s", "if": "event.data.n +"}},
            "f.batchEvents.if: not a valid CEL expression",
        ),
        ({"singleton": {"key": "nobody"}}, "f.singleton.key: not a valid CEL expression"),
        ({"cancel": {"event": "a"}}, "f.cancel: expected an array, got dict"),
        ({"cancel": [{}]}, "f.cancel[0].event: must name an event"),
        ({"cancel": [{"event": "a"}] * 6}, "f.cancel: 6, at most 5 are accepted"),
        ({"priority": 3}, "f.priority: expected an object, got int"),
        ({"idempotency": 3}, "f.idempotency: expected text, got int"),
        ({"timeouts": {"start": "soon"}}, "f.timeouts.start: 'soon' is not a duration"),
    ],
)
def test_what_cannot_be_read_is_refused(config: dict[str, Any], problem: str) -> None:
    with pytest.raises(Refused) as raised:
        read_options(config, "f")
    assert str(raised.value).startswith(problem)


def function(**options: Any) -> Function:
    endpoint = Endpoint(
        "app", "fn-1", "app-fn", "", "fn", "http://a", "POST", "/", "", 4, -1, query="",
    )  # fmt: skip
    return Function(endpoint, "fn", (), b"{}", read_options(options, "f"))


def test_only_options_with_expressions_look_into_events() -> None:
    limit = {"limit": 1, "period": "1s"}
    plain: list[dict[str, Any]] = [{}, {"concurrency": 2}, {"throttle": limit}, {"singleton": {}}]
    for options in plain:
        assert not looks_into(function(**options).options), options
    keyed = limit | {"key": KEY}
    looking: list[dict[str, Any]] = [
        {"concurrency": {"limit": 1, "key": KEY}},
        {"throttle": keyed},
        {"rateLimit": keyed},
        {"debounce": {"period": "1s", "key": KEY}},
        {"batchEvents": {"maxSize": 2, "timeout": "1s", "key": KEY}},
        {"batchEvents": {"maxSize": 2, "timeout": "1s", "if": "event.data.n == 1"}},
        {"singleton": {"key": KEY}},
        {"priority": {"run": "event.data.n"}},
        {"idempotency": KEY},
    ]
    for options in looking:
        assert looks_into(function(**options).options), options


def test_keys_are_those_of_the_event() -> None:
    limit = {"limit": 1, "period": "1s"}
    start = plan(
        function(
            rateLimit=limit,
            debounce={"period": "1s", "key": KEY},
            batchEvents={"maxSize": 2, "timeout": "1s", "key": "event.data.whole"},
            singleton={"key": "event.data.missing"},
            idempotency="event.data.n",
            priority={"run": "event.data.n * 1000"},
        ),
        EVENT, CONTENT, 1_000,
    )  # fmt: skip
    assert start.event == EVENT
    assert (start.rate_limit, start.debounce, start.batch) == ("", '"u1"', '{"a":[2],"b":1}')
    assert (start.singleton, start.idempotency, start.priority) == ("", "3", 600)
    assert start.gates == ()


def test_without_options_there_are_no_keys() -> None:
    start = plan(function(), EVENT, CONTENT, 1_000)
    keys = (start.rate_limit, start.debounce, start.batch, start.singleton, start.idempotency)
    assert keys == (None,) * 5
    assert (start.gates, start.priority) == ((), 0)


def test_an_event_that_is_not_for_a_batch_starts_alone() -> None:
    batch = {"maxSize": 2, "timeout": "1s", "if": "event.data.n > 5"}
    assert plan(function(batchEvents=batch), EVENT, CONTENT, 1_000).batch is None


def test_an_event_without_a_value_is_not_idempotent() -> None:
    """All such events would count as one."""
    start = plan(function(idempotency="event.data.missing"), EVENT, CONTENT, 1_000)
    assert start.idempotency is None


@pytest.mark.parametrize(
    "run", ["event.data.user", "event.data.missing", "event.data.n > 1", "0.0 / 0.0"]
)
def test_a_priority_that_is_not_a_number_changes_nothing(run: str) -> None:
    assert plan(function(priority={"run": run}), EVENT, CONTENT, 1_000).priority == 0


def test_limits_have_the_names_that_share_them() -> None:
    keyed = {"limit": 2, "key": KEY}
    one = plan(
        function(concurrency=[keyed, keyed | {"scope": "account"}],
                 throttle={"limit": 3, "period": "1s", "burst": 1}),
        EVENT, CONTENT, 1_000,
    ).gates  # fmt: skip
    other = plan(
        function(concurrency=[keyed, keyed | {"scope": "account"}]),
        EVENT, CONTENT | {"data": {"user": "u2"}}, 1_000,
    ).gates  # fmt: skip
    assert [(gate.place, gate.most, gate.period_ms, gate.burst) for gate in one] == [
        (0, 2, None, 0), (1, 2, None, 0), (-1, 3, 1_000, 1),
    ]  # fmt: skip
    assert one[0].name.startswith("~concurrency fn-1 0 ")
    assert one[1].name.startswith("~concurrency account ")
    assert one[2].name.startswith("~throttle fn-1 ")
    assert not {gate.name for gate in one} & {gate.name for gate in other}


def test_a_limit_of_zero_is_no_limit() -> None:
    assert plan(function(concurrency=0), EVENT, CONTENT, 1_000).gates == ()


def test_functions_share_the_limit_of_their_account() -> None:
    def name(fn_id: str, key: str) -> str:
        limit = {"limit": 2, "key": key, "scope": "account"}
        made = function(concurrency=limit)
        endpoint = Endpoint(
            "app", fn_id, fn_id, "", "fn", "http://a", "POST", "/", "", 4, -1, query="",
        )  # fmt: skip
        made = Function(endpoint, "fn", (), b"{}", made.options)
        return plan(made, EVENT, CONTENT, 1_000).gates[0].name

    assert name("fn-1", KEY) == name("fn-2", KEY)
    assert name("fn-1", KEY) != name("fn-1", "event.data.n")

"""The options of functions in words."""

from __future__ import annotations

from typing import Any

import pytest

from stephttp.engine.dashboard.option_words import in_words
from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import NO_OPTIONS
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.rules.functions.configuration import read_options

ENDPOINT = Endpoint("a", "f", "shop-pack", "", "shop-pack", "http://a", "POST", "/", "", 4, -1)
USER = "event.data.user"


def words(**config: Any) -> list[tuple[str, str]]:
    """What is said of a function that is registered so, without its retries."""
    function = Function(ENDPOINT, "pack", (), b"{}", read_options(config, "f"))
    _, *options = in_words(function)
    return [(term, str(text)) for term, text in options]


@pytest.mark.parametrize(
    ("config", "term", "text"),
    [
        ({"concurrency": 1}, "Concurrency", "At most 1 call at a time."),
        (
            {"concurrency": [{"limit": 3, "key": USER}]},
            "Concurrency",
            "At most 3 calls at a time for each value of <code>event.data.user</code>.",
        ),
        (
            {"concurrency": [{"limit": 3, "key": "'mail'", "scope": "env"}]},
            "Concurrency",
            (
                "At most 3 calls at a time for each value of <code>&#39;mail&#39;</code>, of all "
                "functions with the same key."
            ),
        ),
        (
            {"throttle": {"limit": 1, "period": "10s", "burst": 2}},
            "Throttle",
            "At most 1 run starts in 10 s (2 more at once); others wait for their turn.",
        ),
        (
            {"throttle": {"limit": 5, "period": "1m", "key": USER}},
            "Throttle",
            (
                "At most 5 runs start in 1 min for each value of <code>event.data.user</code>; "
                "others wait for their turn."
            ),
        ),
        (
            {"priority": {"run": "event.data.n"}},
            "Priority",
            (
                "A run goes before its turn by <code>event.data.n</code> seconds, at most by 10 "
                "minutes."
            ),
        ),
        (
            {"idempotency": "event.data.id"},
            "Idempotency",
            (
                "One run in 24 hours for each value of <code>event.data.id</code>; further events "
                "start nothing."
            ),
        ),
        (
            {"rateLimit": {"limit": 1000, "period": "24h"}},
            "Rate limit",
            "At most 1\u202f000 runs start in 1 d, evenly spread; further events start nothing.",
        ),
        (
            {"debounce": {"period": "1500ms", "key": USER, "timeout": "1h"}},
            "Debounce",
            (
                "The latest event starts a run, once none has come for 1.5 s for each value of "
                "<code>event.data.user</code>, at the latest 1 h after the first."
            ),
        ),
        (
            {"debounce": {"period": "30s"}},
            "Debounce",
            "The latest event starts a run, once none has come for 30 s.",
        ),
        (
            {"batchEvents": {"maxSize": 10, "timeout": "5s", "if": "event.data.n < 3"}},
            "Batches",
            (
                "Up to 10 events start a run together, at the latest 5 s after the first. One that "
                "does not fulfil <code>event.data.n &lt; 3</code> starts a run alone."
            ),
        ),
        (
            {"singleton": {"mode": "skip"}},
            "Singleton",
            "One run at a time; events that come meanwhile start nothing.",
        ),
        (
            {"singleton": {"mode": "cancel", "key": USER}},
            "Singleton",
            (
                "One run at a time for each value of <code>event.data.user</code>; a new one "
                "cancels it."
            ),
        ),
        (
            {"cancel": [{"event": "order/gone"}]},
            "Cancelled by",
            "The event <code>order/gone</code>.",
        ),
        (
            {"cancel": [{"event": "go", "if": "async.data.id == event.data.id", "timeout": "2h"}]},
            "Cancelled by",
            (
                "The event <code>go</code> if <code>async.data.id == event.data.id</code>, within "
                "2 h of the start of the run."
            ),
        ),
        (
            {"timeouts": {"start": "10s"}},
            "Start timeout",
            "A run that was not called 10 s after it started is cancelled.",
        ),
        (
            {"timeouts": {"finish": "1h30m"}},
            "Finish timeout",
            "A run that has not ended 1 h 30 min after its first call is cancelled.",
        ),
    ],
)
def test_an_option(config: dict[str, Any], term: str, text: str) -> None:
    assert words(**config) == [(term, text)]


@pytest.mark.parametrize(
    ("retries", "text"),
    [
        (0, "A step that fails is not tried again."),
        (1, "A step that fails is tried again up to 1 time."),
        (4, "A step that fails is tried again up to 4 times."),
    ],
)
def test_retries(retries: int, text: str) -> None:
    endpoint = Endpoint("a", "f", "s", "", "s", "http://a", "POST", "/", "", retries, -1)
    function = Function(endpoint, "pack", (), b"{}", NO_OPTIONS)
    assert [(term, str(words)) for term, words in in_words(function)] == [("Retries", text)]


def test_what_limits_nothing_is_not_named() -> None:
    assert words(concurrency=[{"limit": 0}]) == []


def test_expressions_are_text() -> None:
    ((_, text),) = words(idempotency="'<script>'")
    assert "<script>" not in text
    assert "<code>&#39;&lt;script&gt;&#39;</code>" in text

"""The options of a function in words. Pure.

Each is a term and a sentence, in which expressions are marked up; everything is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from stephttp.engine.dashboard.formatting import period
from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import (
    Batch,
    CancelOn,
    ConcurrencyOption,
    Debounce,
    RateLimit,
    Singleton,
    ThrottleOption,
)

Worded = tuple[str, Markup]
"""A term, and what there is to say of it."""

_CODE = Markup("<code>{}</code>")
_LARGEST_PRIORITY = "10 minutes"


def in_words(function: Function) -> tuple[Worded, ...]:
    """Return what a function asks of the engine beside being called."""
    return tuple(_words(function))


def _words(function: Function) -> Iterator[Worded]:
    options = function.options
    yield "Retries", Markup(_retries(function.endpoint.retries))
    for limit in options.concurrency:
        if limit.most:
            yield "Concurrency", _concurrency(limit)
    if options.throttle is not None:
        yield "Throttle", _throttle(options.throttle)
    if options.priority is not None:
        text = Markup("A run goes before its turn by {} seconds, at most by {}.")
        yield "Priority", text.format(_code(options.priority), _LARGEST_PRIORITY)
    if options.idempotency is not None:
        text = Markup("One run in 24 hours for each value of {}; further events start nothing.")
        yield "Idempotency", text.format(_code(options.idempotency))
    if options.rate_limit is not None:
        yield "Rate limit", _rate_limit(options.rate_limit)
    if options.debounce is not None:
        yield "Debounce", _debounce(options.debounce)
    if options.batch is not None:
        yield "Batches", _batch(options.batch)
    if options.singleton is not None:
        yield "Singleton", _singleton(options.singleton)
    for cancel_on in options.cancel_on:
        yield "Cancelled by", _cancel_on(cancel_on)
    if options.start_timeout_ms is not None:
        text = Markup("A run that was not called {} after it started is cancelled.")
        yield "Start timeout", text.format(period(options.start_timeout_ms))
    if options.finish_timeout_ms is not None:
        text = Markup("A run that has not ended {} after its first call is cancelled.")
        yield "Finish timeout", text.format(period(options.finish_timeout_ms))


def limit_words(most: int, period_ms: int | None, burst: int = 0) -> str:
    """Return what a limit lets through.

    Args:
        most: calls at a time; or, with a period, runs that start in one.
        period_ms: of a throttle.
        burst: how many more may start at once.
    """
    if period_ms is None:
        return f"at most {_count(most, 'call')} at a time"
    more = f" ({burst} more at once)" if burst else ""
    return f"at most {_count(most, 'run')} {_verb(most, 'start')} in {period(period_ms)}{more}"


def _retries(retries: int) -> str:
    if not retries:
        return "A step that fails is not tried again."
    return f"A step that fails is tried again up to {_count(retries, 'time')}."


def _concurrency(limit: ConcurrencyOption) -> Markup:
    shared = "" if limit.scope == "fn" else ", of all functions with the same key"
    return Markup("{}{}{}.").format(
        _capital(limit_words(limit.most, None)), _each(limit.key), shared
    )


def _throttle(limit: ThrottleOption) -> Markup:
    words = limit_words(limit.most, limit.period_ms, limit.burst)
    return Markup("{}{}; others wait for their turn.").format(_capital(words), _each(limit.key))


def _rate_limit(limit: RateLimit) -> Markup:
    words = limit_words(limit.most, limit.period_ms)
    return Markup("{}{}, evenly spread; further events start nothing.").format(
        _capital(words), _each(limit.key)
    )


def _debounce(debounce: Debounce) -> Markup:
    latest = (
        ""
        if debounce.timeout_ms is None
        else f", at the latest {period(debounce.timeout_ms)} after the first"
    )
    text = Markup("The latest event starts a run, once none has come for {}{}{}.")
    return text.format(period(debounce.period_ms), _each(debounce.key), latest)


def _batch(batch: Batch) -> Markup:
    alone = ""
    if batch.condition is not None:
        alone = Markup(" One that does not fulfil {} starts a run alone.").format(
            _code(batch.condition)
        )
    text = Markup("Up to {} start a run together{}, at the latest {} after the first.{}")
    events, late = _count(batch.most, "event"), period(batch.timeout_ms)
    return text.format(events, _each(batch.key), late, alone)


def _singleton(singleton: Singleton) -> Markup:
    then = (
        "a new one cancels it" if singleton.cancels else "events that come meanwhile start nothing"
    )
    return Markup("One run at a time{}; {}.").format(_each(singleton.key), then)


def _cancel_on(cancel_on: CancelOn) -> Markup:
    condition, within = Markup(""), ""
    if cancel_on.condition is not None:
        condition = Markup(" if {}").format(_code(cancel_on.condition))
    if cancel_on.timeout_ms is not None:
        within = f", within {period(cancel_on.timeout_ms)} of the start of the run"
    return Markup("The event {}{}{}.").format(_code(cancel_on.event), condition, within)


def _each(key: str | None) -> Markup:
    return Markup("") if key is None else Markup(" for each value of {}").format(_code(key))


def _code(text: str) -> Markup:
    return _CODE.format(text)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}".replace(",", "\u202f")


def _verb(number: int, verb: str) -> str:
    return f"{verb}s" if number == 1 else verb


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

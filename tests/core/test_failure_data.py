"""What is kept of a failure, to the character, and when its step is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from stephttp._core.failures import (
    describe,
    error_info,
    failed_attempt,
    is_final,
    next_attempt,
    retry_after,
    step_error,
)
from stephttp._core.retry_policy import RetryPolicy
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    NonRetriableError,
    RetryAfterError,
    StepError,
    StepErrorGroup,
    StepTimeoutError,
)

NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01
SECOND = timedelta(seconds=1)
LONGEST = 16_384


class Mute(Exception):
    """Nothing can be had of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Untraceable(Exception):
    """One that no traceback can be written of, by any version of Python."""

    @property
    def __suppress_context__(self) -> bool:  # type: ignore[override]  # pyright: ignore
        raise RuntimeError("no context")


class Odd(StepError):
    """A class of the user's that sets what it likes."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        Exception.__init__(self, *args)
        for name, value in fields.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError: "),
        (KeyError("a\ud800"), r"KeyError: 'a\ud800'"),
        (ValueError("a\ud800b"), "ValueError: a?b"),
        (ValueError("x" * 20_000), "ValueError: " + "x" * LONGEST),
        (Mute(), "Mute: (its text cannot be had)"),
    ],
)
def test_an_exception_is_one_line_that_can_be_written(error: Exception, text: str) -> None:
    assert describe(error) == text
    info = error_info(error)
    assert f"{info.name}: {info.message}" == text
    assert info.no_retry is UNSET
    assert (info.data, info.cause) == (UNSET, UNSET)
    msgspec.json.encode(info)


def test_of_a_long_traceback_the_end_is_kept() -> None:
    try:
        raise ValueError("a\ud800" + "x" * 20_000)
    except ValueError as error:
        stack = error_info(error).stack
    assert stack == "x" * (LONGEST - 1) + "\n"
    assert error_info(ValueError("a\ud800")).stack == "ValueError: a?\n"
    try:
        raise KeyError("k")
    except KeyError as error:
        whole = error_info(error).stack
    assert whole is not None
    assert whole.startswith("Traceback (most recent call last):\n  File ")
    assert whole.endswith("\nKeyError: 'k'\n")
    without = error_info(Untraceable("a"))
    assert (without.name, without.message, without.stack) == ("Untraceable", "a", "")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (StepError("m", "Name", data=[1]), ("Name", "m", [1])),
        (StepError("m", "Name\ud800"), ("Name?", "m", UNSET)),
        (StepError("m\ud800", "Name"), ("Name", "m?", UNSET)),
        (Odd(), ("Odd", "()", UNSET)),
        (Odd("only"), ("Odd", "only", UNSET)),
        (Odd("one", 2), ("Odd", "('one', 2)", UNSET)),
        (Odd("arg", message="m", name=""), ("Odd", "m", UNSET)),
        (Odd("arg", name=7, data=0), ("Odd", "arg", 0)),
        (Odd("arg", data=object), ("Odd", "arg", "<class 'object'>")),
        (Odd("arg", data=float("nan")), ("Odd", "arg", "nan")),
    ],
)
def test_what_a_step_error_says_of_itself(error: StepError, kept: Any) -> None:
    info = error_info(error)
    data = msgspec.json.decode(info.data) if isinstance(info.data, Raw) else UNSET
    assert (info.name, info.message, data) == kept


def test_the_traceback_of_a_step_error_is_that_of_this_call() -> None:
    info = error_info(StepError("m", "N", stack="of an earlier call"))
    assert info.stack == "stephttp.errors.StepError: N: m\n"
    outer = ValueError("outer")
    outer.__cause__ = StepError("m", "N", stack="of an earlier call")
    cause = step_error(error_info(outer)).cause
    assert cause is not None
    assert (cause.name, cause.message, cause.stack) == ("N", "m", "of an earlier call")


def test_causes_are_kept_eight_deep() -> None:
    error: Exception = ValueError("8")
    for number in range(7, -1, -1):
        outer = KeyError(number)
        outer.__cause__ = error
        error = outer
    names: list[str] = []
    found: StepError | None = step_error(error_info(error))
    while found is not None:
        names.append(found.message)
        found = found.cause
    assert names == ["0", "1", "2", "3", "4", "5", "6", "7", "8"]


def test_a_part_of_a_group_keeps_its_own_cause_alone() -> None:
    first, second, part = ValueError("1"), ValueError("2"), ValueError("part")
    second.__cause__, part.__cause__ = first, second
    again = step_error(error_info(ExceptionGroup("g", [part])))
    assert isinstance(again, StepErrorGroup)
    (kept,) = again.exceptions
    assert isinstance(kept, StepError)
    assert kept.cause is not None
    assert (kept.cause.message, kept.cause.cause) == ("2", None)


@pytest.mark.parametrize(
    ("info", "remembered"),
    [
        (ErrorInfo("E", "m"), (StepError, "E", "m", None, None)),
        (ErrorInfo("", "m", stack="s"), (StepError, "Error", "m", "s", None)),
        (ErrorInfo("E", "m", data=Raw(b"null")), (StepError, "E", "m", None, None)),
        (ErrorInfo("E", "m", data=Raw(b'{"a":1}')), (StepError, "E", "m", None, {"a": 1})),
        (
            ErrorInfo("StepTimeoutError", "m"),
            (StepTimeoutError, "StepTimeoutError", "m", None, None),
        ),
    ],
)
def test_a_remembered_failure(info: ErrorInfo, remembered: Any) -> None:
    error = step_error(info)
    assert (type(error), error.name, error.message, error.stack, error.data) == remembered
    assert error.cause is None


@pytest.mark.parametrize(
    ("status", "final"),
    [
        (399, False), (400, True), (401, False), (404, True), (408, False), (425, False),
        (429, False), (499, True), (500, False),
    ],
)  # fmt: skip
def test_what_a_server_would_refuse_again_is_final(status: int, final: bool) -> None:
    error = APIStatusError("x", status)
    assert is_final(error) is final
    assert is_final(ExceptionGroup("g", [ValueError(), error])) is final
    assert error_info(error).no_retry is (True if final else UNSET)


def test_the_latest_time_that_is_asked_for_counts() -> None:
    soon, later = RetryAfterError("x", SECOND), RetryAfterError("x", 2 * SECOND)
    silent = RetryAfterError("x", SECOND)
    silent.retry_after = None  # type: ignore[assignment]
    group = ExceptionGroup("g", [soon, later, silent, ValueError()])
    assert retry_after(group, NOW_NS) == "2026-01-01T00:00:02.000Z"
    assert retry_after(silent, NOW_NS) is retry_after(None, NOW_NS) is None
    past = RetryAfterError("x", -SECOND)
    assert retry_after(past, NOW_NS) == "2026-01-01T00:00:00.000Z"


PAUSING = RetryPolicy(delay=4 * SECOND)


@pytest.mark.parametrize(
    ("error", "policy", "failures", "text"),
    [
        (ValueError(), RetryPolicy(), 0, None),
        (ValueError(), PAUSING, 0, "2026-01-01T00:00:04.200Z"),
        (ValueError(), PAUSING, 1, "2026-01-01T00:00:08.400Z"),
        (None, PAUSING, 0, "2026-01-01T00:00:04.200Z"),
        (RetryAfterError("x", SECOND), PAUSING, 1, "2026-01-01T00:00:01.000Z"),
    ],
)
def test_the_next_attempt_is_when_the_exception_asks_or_after_the_pause(
    error: Exception | None, policy: RetryPolicy, failures: int, text: str | None
) -> None:
    def jitter() -> float:
        return 0.5

    # The pause is up to a tenth longer, so that not all come back together.
    assert next_attempt(error, policy, failures, NOW_NS, jitter) == text
    if error is not None:
        info, when = failed_attempt(error, policy, failures, NOW_NS, jitter)
        assert (info.name, info.no_retry, when) == (type(error).__name__, UNSET, text)


@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (NonRetriableError("x"), PAUSING),
        (KeyError(), RetryPolicy(delay=SECOND, give_up_on=(LookupError,))),
        (ValueError(), RetryPolicy(delay=SECOND, retry_on=(LookupError,))),
    ],
)
def test_what_is_given_up_has_no_next_attempt(error: Exception, policy: RetryPolicy) -> None:
    info, when = failed_attempt(error, policy, 0, NOW_NS, lambda: 0.0)
    assert (info.no_retry, when) == (True, None)

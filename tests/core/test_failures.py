"""Exceptions as data, and made of that again."""

import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from stephttp._core.failures import error_info, retry_after, step_error
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    NonRetriableError,
    RetryAfterError,
    StepError,
    StepTimeoutError,
)


def test_an_error_keeps_name_message_and_stack() -> None:
    try:
        raise KeyError("id")
    except KeyError as error:
        info = error_info(error)
    assert (info.name, info.message) == ("KeyError", "'id'")
    assert info.stack is not None
    assert "test_failures.py" in info.stack
    assert info.no_retry is msgspec.UNSET
    assert error_info(NonRetriableError("no")).no_retry is True


def test_a_remembered_error_becomes_a_step_error() -> None:
    info = error_info(ValueError("bad"))
    info.data = msgspec.Raw(b'{"code": 7}')
    error = step_error(info)
    assert (error.name, error.message, error.data) == ("ValueError", "bad", {"code": 7})
    assert str(error) == "ValueError: bad"


def test_a_timeout_is_one_when_it_is_remembered_and_can_be_pickled() -> None:
    error = step_error(error_info(StepTimeoutError("step 's' took longer than 1 s")))
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert type(copy) is StepTimeoutError
        assert isinstance(copy, StepError)
        assert isinstance(copy, TimeoutError)
        assert (copy.name, copy.message) == ("StepTimeoutError", "step 's' took longer than 1 s")
        assert str(copy) == "StepTimeoutError: step 's' took longer than 1 s"
        assert copy.errno is None
        assert "StepTimeoutError" in str(copy.stack)


def failure() -> Exception:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise StepError("outer", "CardError", data={"code": 7}) from inner
    except StepError as error:
        return error


def test_an_error_keeps_name_data_and_causes_and_can_be_pickled() -> None:
    error = step_error(error_info(failure()))
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert (copy.name, copy.message, copy.data) == ("CardError", "outer", {"code": 7})
        assert "KeyError: 'inner'" in str(copy.stack)
        assert isinstance(copy.cause, StepError)
        assert (copy.cause.name, copy.cause.message) == ("KeyError", "'inner'")
        assert copy.__cause__ is copy.cause
        assert str(copy) == "CardError: outer"


def test_causes_do_not_go_on_for_ever() -> None:
    error: Exception = ValueError("0")
    for n in range(1, 100):
        outer = ValueError(str(n))
        outer.__cause__ = error
        error = outer
    cause = step_error(error_info(error)).cause
    depth = 0
    while cause is not None:
        cause, depth = cause.cause, depth + 1
    assert depth == 8


@pytest.mark.parametrize(
    ("raw", "message"), [(b'"text"', "text"), (b"null", None), (b'{"message":"m"}', "m")]
)
def test_causes_of_other_sdks(raw: bytes, message: str | None) -> None:
    cause = step_error(ErrorInfo("E", "m", cause=msgspec.Raw(raw))).cause
    assert (cause.message if cause else None) == message


WEST, EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))
NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (90, "2026-01-01T00:01:30.000Z"),
        (0.25, "2026-01-01T00:00:00.250Z"),
        (timedelta(hours=2), "2026-01-01T02:00:00.000Z"),
        (timedelta.max, "2027-01-02T00:00:00.000Z"),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2026-03-01T10:00:00.000Z"),
    ],
)
def test_when_to_try_again(wish: Any, text: str) -> None:
    error = RetryAfterError("busy", wish)
    assert retry_after(error, NOW_NS) == text
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), retry_after(again, NOW_NS)) == ("busy", text)


class Unset(RetryAfterError):
    def __init__(self, *when: Any) -> None:
        if when:
            (self.retry_after,) = when


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unset(), None),
        (Unset("soon"), None),
        (Unset(float("nan")), None),
        (Unset(datetime(2026, 3, 1)), None),  # noqa: DTZ001
        (Unset(90), "2026-01-01T00:01:30.000Z"),
        (RetryAfterError("x", datetime.max.replace(tzinfo=WEST)), "2027-01-02T00:00:00.000Z"),
        (RetryAfterError("x", datetime.min.replace(tzinfo=EAST)), "2026-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_that_makes_no_sense_leaves_it_to_the_server(
    error: Exception, text: str | None
) -> None:
    assert retry_after(error, NOW_NS) == text


class Empty(StepError):
    def __init__(self, code: int) -> None:
        self.code = code


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (Empty(4), "Empty", "4"),
        (StepError({"a": 1}), "Error", "{'a': 1}"),  # type: ignore[arg-type]
        (StepError("m", None), "StepError", "m"),  # type: ignore[arg-type]
        (StepError("m", "N", stack=5), "N", "m"),  # type: ignore[arg-type]
        (ExceptionGroup("g", [Empty(4), Unset()]), "ExceptionGroup", "g (2 sub-exceptions)"),
    ],
)
def test_errors_that_were_made_in_unusual_ways_are_recorded(
    error: Exception, name: str, message: str
) -> None:
    """A step whose failure could not be recorded would be waited for in vain."""
    remembered = step_error(error_info(error))
    assert (remembered.name, str(remembered)) == (name, f"{name}: {message}")


def test_when_to_try_again_needs_a_time_zone() -> None:
    assert retry_after(ValueError(), NOW_NS) is None
    with pytest.raises(ValueError, match="time zone"):
        RetryAfterError("busy", datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (NonRetriableError("x"), True),
        (APIStatusError("x", 400), True),
        (APIStatusError("x", 429), None),
        (APIStatusError("x", 503), None),
        (RetryAfterError("x", 1), None),
    ],
)
def test_what_is_not_to_be_tried_again(error: Exception, final: bool | None) -> None:
    info = error_info(error)
    assert (None if info.no_retry is msgspec.UNSET else info.no_retry) is final

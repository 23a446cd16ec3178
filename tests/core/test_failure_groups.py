"""Exception groups as data, and made of that again."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._core.failures import error_info, retry_after, step_error
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import NonRetriableError, RetryAfterError, StepError, StepErrorGroup


class CardDeclined(Exception):
    """An exception whose `__init__` wants arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class LateCard(CardDeclined):
    pass


class Closed(ValueError):
    """Nothing can be made of this class."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError("closed")


def remembered(error: Exception) -> StepError:
    """The error as a later call gets it."""
    wire = msgspec.json.encode(error_info(error))
    return step_error(msgspec.json.decode(wire, type=ErrorInfo))


def shape(error: BaseException) -> Any:
    """Messages and names, nested as the exceptions are."""
    if isinstance(error, ExceptionGroup):
        return error.message, [shape(part) for part in error.exceptions]
    name = error.name if isinstance(error, StepError) else type(error).__name__
    return name, error.message if isinstance(error, StepError) else str(error)


ERRORS = (
    ValueError("a"), KeyError("b"), FileNotFoundError(2, "no"), TimeoutError(), LateCard(code=7),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), StopIteration(3), SyntaxError("s"),
    subprocess.CalledProcessError(1, "x"), json.JSONDecodeError("m", "d", 0),
    asyncio.QueueEmpty(), NonRetriableError("no"),
)  # fmt: skip
groups = st.recursive(
    st.sampled_from(ERRORS),
    lambda inner: st.builds(
        ExceptionGroup, st.text(max_size=3), st.lists(inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
).filter(lambda error: isinstance(error, ExceptionGroup))


@given(groups)
def test_a_group_keeps_its_parts_and_their_classes(group: ExceptionGroup[Exception]) -> None:
    again = remembered(group)
    assert isinstance(again, StepErrorGroup)
    assert shape(again) == shape(group)
    for copy in (again, pickle.loads(pickle.dumps(again)), remembered(again)):
        assert isinstance(copy, StepErrorGroup)
        assert shape(copy) == shape(group)
        for kind in (*map(type, ERRORS), OSError, CardDeclined, LookupError, Exception):
            ours: Any = copy.subgroup(kind)
            theirs: Any = group.subgroup(kind)
            assert (ours and shape(ours)) == (theirs and shape(theirs)), kind
        assert copy.subgroup(StepError) is copy


def test_except_star_splits_a_remembered_group() -> None:
    cause = KeyError("cause")
    inner = ExceptionGroup("inner", [ValueError("b"), StepError("c", "Mine", data={"x": 1})])
    group = ExceptionGroup("outer", [LateCard(code=7), inner])
    group.__cause__ = cause
    again = remembered(group)
    assert str(again) == "ExceptionGroup: outer (2 sub-exceptions)"
    assert again.message == "outer"
    assert again.data is None
    assert again.cause is not None
    assert again.cause.name == "KeyError"
    assert "LateCard: code 7" in str(again.stack)
    handled, rest = split(again)
    card, closed = handled
    assert isinstance(card, StepError)
    assert (card.name, card.message) == ("LateCard", "code 7")
    assert not hasattr(card, "code")
    assert shape(closed) == ("outer", [("inner", [("ValueError", "b")])])
    assert isinstance(rest, StepErrorGroup)
    assert shape(rest) == ("outer", [("inner", [("Mine", "c")])])
    assert rest.stack == again.stack


def split(error: Exception) -> tuple[list[Any], Exception | None]:
    """What an application handles of a group, and what it lets through."""
    handled: list[Any] = []
    try:
        try:
            raise error
        except* CardDeclined as cards:
            handled += cards.exceptions
        except* ValueError as values:
            handled.append(values)
    except Exception as rest:
        return handled, rest
    return handled, None


def test_other_sdks_see_an_ordinary_error() -> None:
    info = error_info(ExceptionGroup("two", [ValueError("a"), KeyError("b")]))
    assert (info.name, info.message) == ("ExceptionGroup", "two (2 sub-exceptions)")
    assert info.stack


def test_a_class_that_is_gone_or_closed_is_its_base_or_a_step_error() -> None:
    class Local(KeyError):
        pass

    again = remembered(ExceptionGroup("g", [Local("a"), Closed("b")]))
    assert isinstance(again, StepErrorGroup)
    local, closed = again.exceptions
    assert isinstance(local, KeyError)
    assert (type(closed), closed.args[:2]) == (StepError, ("b", "Closed"))


def test_a_large_group_is_cut() -> None:
    info = error_info(ExceptionGroup("g", [ValueError("x" * 100_000)] * 1000))
    again = step_error(info)
    assert isinstance(again, StepErrorGroup)
    assert len(again.exceptions) == 256
    assert len(msgspec.json.encode(info)) < 1_000_000


@pytest.mark.parametrize("data", [b"1", b'{"stephttp:exceptions": 3}', b'{"x": 1}'])
def test_other_data_is_left_alone(data: bytes) -> None:
    error = step_error(ErrorInfo("E", "m", data=msgspec.Raw(data)))
    assert type(error) is StepError
    assert error.data == json.loads(data)


def test_what_a_part_wants_counts() -> None:
    def inside(error: Exception) -> Exception:
        return ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [error])])

    assert error_info(inside(NonRetriableError("no"))).no_retry is True
    assert error_info(inside(ValueError("b"))).no_retry is msgspec.UNSET
    later = RetryAfterError("later", timedelta(seconds=60))
    assert retry_after(inside(later), 0) == "1970-01-01T00:01:00.000Z"
    assert retry_after(inside(ValueError("b")), 0) is None

"""Which parts of an exception group are kept, and of which classes they are again."""

from __future__ import annotations

import builtins
import pickle
import sys
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from stephttp._core.failure_groups import like
from stephttp._core.failures import error_info, step_error
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import StepError, StepErrorGroup, StepResultError, StepTimeoutError


class Mute(Exception):
    """No text can be had of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Declined(ValueError):
    """With arguments of its own."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code} {text}")


class Gone(Declined):
    pass


class Closed(KeyError):
    def __init_subclass__(cls) -> None:
        raise TypeError("closed")


class Shop:
    class Closed(KeyError):
        pass


def remembered(error: Exception, **fields: Any) -> StepError:
    info = error_info(error)
    for name, value in fields.items():
        setattr(info, name, value)
    return step_error(msgspec.json.decode(msgspec.json.encode(info), type=ErrorInfo))


def parts_of(error: StepError) -> list[Any]:
    assert isinstance(error, StepErrorGroup)
    return list(error.exceptions)


def test_a_part_is_of_its_class_and_keeps_all_that_it_said() -> None:
    part = StepError("m", "Mine", data={"a": 1})
    part.__cause__ = KeyError("k")
    group = ExceptionGroup("g", [Gone(7, text="no"), part, OSError(2, "no file")])
    gone, mine, missing = parts_of(remembered(group))
    assert isinstance(gone, Gone)
    assert isinstance(gone, StepError)
    assert (gone.name, gone.message, gone.stack, gone.data, gone.cause) == (
        "Gone", "7 no", None, None, None
    )  # fmt: skip
    assert str(gone) == "Gone: 7 no"
    assert (type(gone).__name__, type(gone).__qualname__, type(gone).__module__) == (
        "Gone", "Gone", __name__
    )  # fmt: skip
    assert type(gone).__doc__ is None
    assert type(mine) is StepError
    assert (mine.name, mine.message, mine.data) == ("Mine", "m", {"a": 1})
    assert mine.cause is not None
    assert (mine.cause.name, mine.cause.message) == ("KeyError", "'k'")
    assert mine.__cause__ is mine.cause
    assert isinstance(missing, OSError)
    assert isinstance(missing, StepError)
    assert (missing.name, missing.message) == ("FileNotFoundError", "[Errno 2] no file")


def test_an_error_is_made_like_a_class_once() -> None:
    cause = StepError("why")
    error = StepError("m", "N", "stack", [1], cause)
    made = like(Declined, error)
    assert isinstance(made, Declined)
    assert (made.args, made.message, made.name, made.stack, made.data, made.cause) == (
        error.args, "m", "N", "stack", [1], cause
    )  # fmt: skip
    assert made.__cause__ is cause
    assert type(made).__doc__ == "With arguments of its own."
    assert type(like(Declined, StepError("other"))) is type(made)
    assert like(Declined, made) is made
    assert like(None, error) is error
    assert like(StepError, error) is error
    assert like(Closed, error) is error
    copy = pickle.loads(pickle.dumps(made))
    assert isinstance(copy, Declined)
    assert isinstance(copy, StepError)
    assert (copy.name, copy.message) == ("N", "m")


def test_a_group_says_what_its_step_attached() -> None:
    group = StepErrorGroup("g", [StepError("a")], "Several", None, {"code": 1}, None)
    again = remembered(group)
    assert isinstance(again, StepErrorGroup)
    assert (again.name, again.message, again.data, again.cause) == (
        "Several", "g", {"code": 1}, None
    )  # fmt: skip
    unnamed = remembered(ExceptionGroup("g", [ValueError("a")]), name="", stack="s")
    assert (unnamed.name, unnamed.stack, unnamed.data) == ("ExceptionGroup", "s", None)


def test_how_much_is_kept_of_a_group() -> None:
    inner = ExceptionGroup("inner", [ValueError("x" * 3000)] * 300)
    whole = ExceptionGroup("g", [ValueError("first"), inner, ValueError("beyond")])
    first, kept = parts_of(remembered(whole))
    assert first.message == "first"
    assert isinstance(kept, StepErrorGroup)
    assert (kept.name, kept.message) == ("ExceptionGroup", "inner")
    assert len(kept.exceptions) == 254, "256 parts, the inner group is one"
    assert {one.message for one in parts_of(kept)} == {"x" * 2048}
    # An inner group of which no part is kept is not kept.
    many = ExceptionGroup("g", [ValueError("a")] * 255 + [ExceptionGroup("h", [ValueError()])])
    assert len(parts_of(remembered(many))) == 255


def kept_types(error: Exception) -> Any:
    info = error_info(ExceptionGroup("g", [error]))
    assert isinstance(info.data, Raw)
    (part,) = msgspec.json.decode(info.data)["stephttp:exceptions"]
    return part.get("types", [])


@pytest.mark.parametrize(
    ("error", "types"),
    [
        (ValueError(), ["builtins:ValueError"]),
        (Gone(1, text=""), [f"{__name__}:Gone", f"{__name__}:Declined", "builtins:ValueError"]),
        (StepError("m"), []),
        (StepTimeoutError("m"), ["builtins:TimeoutError"]),
        (StepResultError("m"), [f"{StepResultError.__module__}:StepResultError"]),
        (Exception(), []),
        (Shop.Closed(), [f"{__name__}:Shop.Closed", "builtins:KeyError"]),
        (Mute(), [f"{__name__}:Mute"]),
    ],
)
def test_which_classes_of_a_part_are_kept(error: Exception, types: list[str]) -> None:
    assert kept_types(error) == types


def test_the_class_of_a_part_is_the_first_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("g", [Gone(1, text="a")])
    (gone,) = parts_of(remembered(group))
    assert isinstance(gone, Gone)
    info = error_info(group)
    monkeypatch.setattr(sys.modules[__name__], "Gone", "no class")
    (declined,) = parts_of(step_error(info))
    assert isinstance(declined, Declined)
    monkeypatch.setattr(sys.modules[__name__], "Declined", int)
    (value,) = parts_of(step_error(info))
    assert isinstance(value, ValueError)
    assert type(value).__name__ == "ValueError"
    (closed,) = parts_of(remembered(ExceptionGroup("g", [Shop.Closed("a")])))
    assert isinstance(closed, Shop.Closed)
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    (again,) = parts_of(step_error(info))
    assert type(again).__name__ == "ValueError"
    monkeypatch.setattr(builtins, "ValueError", None)
    (plain,) = parts_of(step_error(info))
    assert type(plain) is StepError


@pytest.mark.parametrize(
    "data",
    [
        b'{"stephttp:exceptions":[],"message":"g"}',
        b'{"stephttp:exceptions":[{"name":"E"}],"message":"g"}',
        b'{"stephttp:exceptions":[{"name":"E","message":"m"}]}',
    ],
)
def test_a_group_of_another_version_is_one_error(data: bytes) -> None:
    error = step_error(ErrorInfo("E", "m", data=Raw(data)))
    assert type(error) is StepError
    assert error.data == msgspec.json.decode(data)

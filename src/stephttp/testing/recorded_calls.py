"""`RecordedCall`: how a stub or spy was called, and what came of that."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import isawaitable
from typing import Any


class RecordedCall:
    """One use of a step: how its function, or what stands for it, was called.

    Attributes:
        step: the id of the step.
        tool: the tool that was used, such as `run` or `wait_for_event`.
        args: positional arguments.
        kwargs: keyword arguments.
        result: what was returned; `None` until then, and if it failed.
        error: what was raised, if anything was.
    """

    def __init__(
        self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], tool: str = "run"
    ) -> None:
        self.step = step
        self.tool = tool
        self.args = args
        self.kwargs = kwargs
        self.result: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        given = [
            *map(repr, self.args),
            *(f"{name}={value!r}" for name, value in self.kwargs.items()),
        ]
        came = f"raised {self.error!r}" if self.error is not None else f"-> {self.result!r}"
        return f"<{self.step}({', '.join(given)}) {came}>"


def recording(function: Callable[..., Any], call: RecordedCall) -> Callable[..., Any]:
    """Return a function that notes in `call` what it is called with, and what comes of it."""

    def recorded(*args: Any, **kwargs: Any) -> Any:
        call.args, call.kwargs = args, kwargs
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            call.error = error
            raise
        if isawaitable(value):
            return _awaited(value, call)
        call.result = value
        return value

    return update_wrapper(recorded, function)


async def _awaited(value: Any, call: RecordedCall) -> Any:
    try:
        call.result = await value
    except BaseException as error:
        call.error = error
        raise
    return call.result

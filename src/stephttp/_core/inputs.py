"""Input that somebody gave a step by hand, in place of what the handler gives it (PROTOCOL 5.3)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

import msgspec
from msgspec import Raw

from stephttp.errors import UsageError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def with_input(body: Callable[..., Any], raw: bytes | Raw, step_id: str) -> Callable[[], Any]:
    """`body` of a step, to be called with this input.

    Args:
        body: what the step runs; its annotations tell what the values are to be.
        raw: JSON: the list of its positional arguments, or its only one.
        step_id: named in errors.
    """

    def edited() -> Any:
        data = bytes(raw).strip()
        is_list = data.startswith(b"[")
        values = msgspec.json.decode(data, type=list[Raw]) if is_list else [Raw(data)]
        types = chain(_types(body), repeat(Any))
        try:
            arguments = [
                msgspec.json.decode(value, type=type_)
                for value, type_ in zip(values, types, strict=False)
            ]
        except Exception as error:  # a type may be one that cannot be decoded at all
            raise UsageError(
                f"the input given to step {step_id!r} does not fit: {error}"
            ) from error
        return body(*arguments)

    return edited


def _types(body: Callable[..., Any]) -> Iterator[Any]:
    try:
        parameters = inspect.signature(body, eval_str=True).parameters.values()
    except (ValueError, TypeError, NameError):
        return
    for parameter in parameters:
        if parameter.kind in _POSITIONAL:
            said = parameter.annotation
            yield Any if said is inspect.Parameter.empty else said

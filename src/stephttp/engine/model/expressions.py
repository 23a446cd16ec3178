"""Conditions of waits and cancellations, in CEL (https://cel.dev).

An expression is parsed and type-checked once, then kept. `event` is the event that started a run,
`async` the one that has just come; their contents have no type until then. The library is the
CEL project's own: it has no loops but over lists, counts those, bounds the depth of an
expression, and matches regular expressions in linear time; the length is bounded here, because
the time for checking grows faster than it.
"""

from __future__ import annotations

import logging
import math
import re
from functools import lru_cache
from typing import Any

import msgspec
from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs]  (it has some)

from stephttp.engine.model.refused import Refused

log = logging.getLogger(__name__)

MAX_LENGTH = 4096
"""Characters of an expression."""

_LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*["]""", re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")

TRIGGER = "event"
INCOMING = "async"
WAIT_NAMES = frozenset({TRIGGER, INCOMING})
CANCEL_NAMES = frozenset({TRIGGER})


def check(text: str, field: str, names: frozenset[str]) -> None:
    """Refuse what could never be a condition.

    Args:
        text: the expression.
        field: where it stands in the request, for the error.
        names: the variables that it may use.

    Raises:
        Refused: it is too long, does not parse or type-check, or its value is not a truth value.
    """
    if len(text) > MAX_LENGTH:
        raise Refused(f"{field}: the expression is longer than {MAX_LENGTH} characters")
    try:
        program = _compile(text, names)
    except Exception as error:  # the library has no exception of its own
        reason = str(error).removeprefix("INVALID_ARGUMENT: ").split("\n", 1)[0].strip()
        raise Refused(f"{field}: not a valid CEL expression: {reason[:500]}") from None
    kind = program.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise Refused(f"{field}: the expression must be true or false, not {kind.name().lower()}")


def matches(text: str, values: dict[str, Any]) -> bool:
    """Say whether an expression that was checked holds.

    Args:
        text: the expression.
        values: the variables, as decoded JSON.

    Returns:
        `False`, too, if it has no value for these variables (a key is missing, say).
    """
    try:
        result = _compile(text, frozenset(values)).eval(data=values)
        value, kind = result.plain_value(), result.type().name()
    except Exception as error:
        value, kind = str(error), "ERROR"
    if isinstance(value, bool):
        return value
    if kind == "ERROR":  # its value begins with a code, such as NOT_FOUND
        kind = str(value).partition(":")[0]
    # No values: they are data of events, and so is what the reason of a failure may quote.
    shown = _LITERAL.sub("'…'", text)
    log.info("no match: the expression %r has no truth value: %.40s", shown, kind)
    return False


def read_event(body: bytes) -> Any:
    """Decode a stored event for `matches`.

    Whole numbers that do not fit into 64 bits become floating-point, as all numbers are for the
    Inngest server: the library would give up on the whole event.
    """
    value = msgspec.json.decode(body)
    return _narrowed(value) if _LONG_NUMBER.search(body) else value


def _narrowed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _narrowed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_narrowed(item) for item in value]
    if not isinstance(value, int) or -(2**63) <= value < 2**64:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@lru_cache(maxsize=8)
def _environment(names: frozenset[str]) -> cel.Env:
    return cel.NewEnv(variables=dict.fromkeys(sorted(names), cel.Type.DYN))


@lru_cache(maxsize=4096)
def _compile(text: str, names: frozenset[str]) -> cel.Expression:
    return _environment(names).compile(text)

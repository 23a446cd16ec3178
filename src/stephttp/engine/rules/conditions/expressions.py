"""Conditions (`if_exp`): checked when a wait opens, matched when an event comes.

`event` is the event that started a run, `async` the one that has just come; their contents have no
type until then. An expression is parsed, type-checked and compiled once, then kept.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.conditions import equalities
from stephttp.engine.rules.conditions.evaluation import Evaluate, Scope, TooMuchWorkError, compiled
from stephttp.engine.rules.conditions.operators import NO_VALUE
from stephttp.engine.rules.conditions.syntax import parse

log = logging.getLogger(__name__)

MAX_LENGTH = 4096
"""Characters of an expression."""
_MOST_KEPT = 2_000_000
"""Characters of all expressions that are kept compiled: some 100 MB of memory at worst."""
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*["]""", re.DOTALL)

TRIGGER = "event"
INCOMING = "async"
WAIT_NAMES = frozenset({TRIGGER, INCOMING})
CANCEL_NAMES = frozenset({TRIGGER})


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled expression.

    Attributes:
        kind: the type of its value.
        is_condition: whether that may be true or false.
        wanted: the values that an incoming event must have, if it names some.
        joins: the parts of an incoming event that must equal parts of the event of the run.
    """

    evaluate: Evaluate
    kind: str
    is_condition: bool
    wanted: equalities.Wanted | None
    joins: tuple[equalities.Join, ...]


def check(text: str, field: str, names: frozenset[str]) -> Condition:
    """Refuse what could never be a condition.

    Args:
        text: the expression.
        field: where it stands in the request, for the error.
        names: the variables that it may use.

    Returns:
        The condition.

    Raises:
        Refused: it is too long, does not parse or type-check, or its value is not a truth value.
    """
    condition = check_value(text, field, names)
    if not condition.is_condition:
        raise Refused(f"{field}: the expression must be true or false, not {condition.kind}")
    return condition


def check_value(text: str, field: str, names: frozenset[str]) -> Condition:
    """Refuse what could never have a value, whatever that may be; see `check`.

    Raises:
        Refused: it is too long, or does not parse or type-check.
    """
    if len(text) > MAX_LENGTH:
        raise Refused(f"{field}: the expression is longer than {MAX_LENGTH} characters")
    try:
        return _KEPT.get(text, names)
    except ValueError as error:
        raise Refused(f"{field}: not a valid CEL expression: {error}") from None


def matches(text: str, values: dict[str, Any], now_ms: int = 0) -> bool:
    """Say whether an expression that was checked holds.

    Args:
        text: the expression.
        values: the variables, as decoded JSON.
        now_ms: the present time.

    Returns:
        `False`, too, if it has no truth value for these variables.
    """
    value = value_of(text, values, now_ms)
    if isinstance(value, bool):
        return value
    if value is not NO_VALUE:
        _log_no_value(text, f"but a {type(value).__name__}")
    return False


def value_of(text: str, values: dict[str, Any], now_ms: int = 0) -> Any:
    """Return the value of an expression that was checked, or `NO_VALUE`; see `matches`."""
    try:
        value = _KEPT.get(text, frozenset(values)).evaluate(Scope(dict(values), now_ms))
    except TooMuchWorkError:
        _log_no_value(text, "it takes too long")
    except (ValueError, RecursionError) as error:
        _log_no_value(text, type(error).__name__)
    else:
        if value is NO_VALUE:
            _log_no_value(text, "")
        return value
    return NO_VALUE


def read_event(body: bytes) -> Any:
    """Decode a stored event for `matches`."""
    return msgspec.json.decode(body)


def _log_no_value(text: str, reason: str) -> None:
    # Without texts: they may be names and addresses of people.
    shown = _QUOTED.sub("'…'", text)
    log.info("no match: the expression %r has no truth value %s", shown, reason)


class _Kept:
    """Compiled expressions; the one that was not used for the longest time goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._length = 0
        self._known: OrderedDict[tuple[str, frozenset[str]], Condition] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str, names: frozenset[str]) -> Condition:
        """Return an expression.

        Raises:
            ValueError: it is not valid.
        """
        key = text, names
        with self._lock:
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return known
        tree = parse(text, names)
        wanted = equalities.find(tree.root, INCOMING)
        joins = equalities.find_joins(tree.root, INCOMING, TRIGGER)
        made = Condition(compiled(tree.root), tree.kind, tree.is_condition, wanted, joins)
        with self._lock:
            if key not in self._known:
                self._known[key] = made
                self._length += len(text)
            while self._length > self._most:
                (oldest, _), _ = self._known.popitem(last=False)
                self._length -= len(oldest)
        return made


_KEPT = _Kept(_MOST_KEPT)

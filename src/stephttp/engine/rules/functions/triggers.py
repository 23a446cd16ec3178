"""Which functions an event starts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from stephttp.engine.model.function import Function
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.functions import planning
from stephttp.engine.rules.functions.run_events import ANY, RESERVED


class Triggers:
    """The triggers of all functions, by the names of events. Nothing in it changes.

    It is false if nothing can be started.
    """

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._named: dict[str, list[tuple[Function, str | None]]] = defaultdict(list)
        self._beginning: list[tuple[str, Function, str | None]] = []
        for function in functions:
            if function.why_not_started is not None:
                continue
            for trigger in function.triggers:
                if trigger.cron is not None:
                    continue
                if trigger.event.endswith(ANY):
                    begin = trigger.event.removesuffix(ANY)
                    self._beginning.append((begin, function, trigger.condition))
                else:
                    self._named[trigger.event].append((function, trigger.condition))

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._named or self._beginning)

    def looks_into(self, name: str) -> bool:
        """Say whether it takes the contents of events of this name to know what they start."""
        return any(
            condition is not None or planning.looks_into(function.options)
            for function, condition in self._candidates(name)
        )

    def started_by(self, name: str, event: Any, now_ms: int) -> list[Function]:
        """Return the functions that an event starts, each once, however many of its triggers fit.

        Args:
            name: of the event.
            event: the event, decoded.
            now_ms: the present time.
        """
        started: dict[str, Function] = {}
        for function, condition in self._candidates(name):
            if function.endpoint.fn_id not in started and (
                condition is None
                or expressions.matches(condition, {expressions.TRIGGER: event}, now_ms)
            ):
                started[function.endpoint.fn_id] = function
        return list(started.values())

    def may_start(self, name: str) -> bool:
        """Say whether events of this name start anything, if they fulfil a condition."""
        return bool(self._candidates(name))

    def _candidates(self, name: str) -> list[tuple[Function, str | None]]:
        # What the engine itself sends is not meant by a pattern such as `*`.
        least = RESERVED if name.startswith(RESERVED) else ""
        begun = [
            (one, if_)
            for begin, one, if_ in self._beginning
            if name.startswith(begin) and begin.startswith(least)
        ]
        return [*self._named.get(name, ()), *begun]

"""Final failures of steps: if one leaves a handler, another call would only meet it again."""

from __future__ import annotations

_MOST_CAUSES = 32
"""Exceptions of a chain of causes that are looked at; a chain may be a circle."""


class FinalFailures:
    """The failures that the steps of a re-entry raise, and would raise in every later call."""

    __slots__ = ("last", "raised")

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.last = False
        """Whether the last thing that happened was one of them."""

    def note(self, error: BaseException) -> None:
        """Note that a step raises `error` in the handler."""
        self.raised.append(error)
        self.last = True

    def explain(self, error: BaseException | None) -> bool:
        """Return whether a handler that has failed would only meet the same failure again.

        Args:
            error: what it raised. Without one, its framework has made an answer of that (Flask,
                Django); then it counts what happened last.
        """
        return self.last if error is None else self._led_to(error)

    def _led_to(self, error: BaseException | None) -> bool:
        for _ in range(_MOST_CAUSES):
            if error is None:
                return False
            if any(error is failure for failure in self.raised):
                return True
            if isinstance(error, BaseExceptionGroup) and any(map(self._led_to, error.exceptions)):
                return True
            error = error.__cause__
        return False

"""The outcome of starts of functions."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from stephttp.engine.model.change import Change
from stephttp.engine.model.values import Value


class Refusal(Value, frozen=True, gc=False):
    """Why an event does not start a function.

    Attributes:
        reason: for people; the option comes first.
        status: of an answer to a caller who wants it started.
    """

    reason: str
    status: int = HTTPStatus.CONFLICT


@dataclass(frozen=True, slots=True)
class Started:
    """The outcome of starts of functions.

    Attributes:
        changes: of the runs that have begun, and of others.
        refused: why starts are nothing, and who wait for their results.
        held_ms: when the first is due of those whose events are held.
    """

    changes: list[Change]
    refused: list[tuple[Refusal, tuple[str, ...]]]
    held_ms: int | None = None

"""One finding: what does not fit between two calls of a handler, or between a history and the
code at hand.
"""

from __future__ import annotations

import os

from msgspec import Struct

from stephttp._core.remembered import Divergence


class Place(Struct, frozen=True):
    """A line of the user's code; without a file it is not known."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.file:
            return ""
        near = os.path.relpath(self.file)
        return f"{self.file if near.startswith('..') else near}:{self.line}"


NOWHERE = Place()


class Finding(Struct, frozen=True):
    """Something that does not fit.

    Attributes:
        kind: what it is. Of replays: `step_not_met`, `step_changed`, `new_step`, `answer_differs`,
            `handler_failed`, `not_reached`. Of `always_replay` as well: `step_added`,
            `id_differs`, `arguments_differ`, `argument_mutated`, `unstepped_io`, `set_order`,
            `environment_differs`.
        message: what happened, in a sentence.
        step: the id of the step that it is about; empty if it is about none.
        tool: the kind of that step, such as `run` or `sleep`.
        place: the line of the user's code where it shows.
        before: the value before, as text; of a history, what it has.
        now: the value now, as text.
    """

    kind: str
    message: str
    step: str = ""
    tool: str = ""
    place: Place = NOWHERE
    before: str = ""
    now: str = ""

    @property
    def file(self) -> str:
        """The file of `place`; empty if it is not known."""
        return self.place.file

    @property
    def line(self) -> int:
        """The line of `place`; 0 if it is not known."""
        return self.place.line

    def __str__(self) -> str:
        where = str(self.place)
        return f"{where}: {self.message}" if where else self.message


def changed(found: Divergence, place: Place) -> Finding:
    """Return the finding of a step whose id has a step of another kind now."""
    return Finding(
        found.kind, str(found), found.step_id, found.before, place, found.before, found.now
    )


def excerpt(text: str, most: int = 200) -> str:
    """Return the beginning of a text that may be long."""
    return text if len(text) <= most else f"{text[:most]}…"

"""Parameters that several operations have, in the words of OpenAPI."""

from __future__ import annotations

from typing import Any

from stephttp._wire.ids import ULID_LETTERS
from stephttp.engine.api.openapi.describing import Json, parameter

RUN = parameter(
    "path", "run", "Id of a run, a ULID.",
    type="string", pattern=f"^[0-7][0-9{ULID_LETTERS}{ULID_LETTERS.lower()}]{{25}}$",
)  # fmt: skip
EVENT = parameter("path", "event", "`internal_id` of an event.", type="string", minLength=1)
LIMIT = parameter(
    "query", "limit", "How many, at most 100; what is more counts as 100.",
    type="integer", minimum=1, maximum=999_999_999, default=20,
)  # fmt: skip
CURSOR = parameter(
    "query", "cursor", "`older` or `newer` of a page's metadata.",
    type="string", pattern="^[0-9]{1,18}$",
)  # fmt: skip
DIRECTION = parameter(
    "query", "direction", "Whether the items before the cursor are wanted, or those after it.",
    type="string", enum=["older", "newer"], default="older",
)  # fmt: skip


def cursor_of(what: str, **schema: Any) -> Json:
    """A cursor that is an id."""
    about = f"{what} of the last item of the page before."
    return parameter("query", "cursor", about, type="string", **schema)


def time_parameter(name: str) -> Json:
    """A time in the query."""
    return parameter("query", name, "A time.", type="string", format="date-time")

"""Parameters of operations, in the words of OpenAPI; and those that several operations have."""

from __future__ import annotations

from typing import Any

from stephttp._wire.ids import ULID_LETTERS
from stephttp.engine.api.openapi.schema import Json


def parameter(place: str, name: str, about: str, **schema: Any) -> Json:
    """Describe a parameter in `path`, `query` or `header`."""
    described = {"in": place, "name": name, "description": about, "schema": schema}
    return described | ({"required": True} if place == "path" else {})


def cursor_of(what: str, **schema: Any) -> Json:
    """Describe a cursor that is an id."""
    about = f"{what} of the last item of the page before."
    return parameter("query", "cursor", about, type="string", **schema)


def time_parameter(name: str) -> Json:
    """Describe a time in the query."""
    return parameter("query", name, "A time.", type="string", format="date-time")


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

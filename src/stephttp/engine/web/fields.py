"""Types of fields in the JSON of requests and answers. Decoders and the OpenAPI document read them.

The limits of a `Given...` type are for the document only; handlers check them, with their own
message.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from stephttp._wire.ids import ULID_PATTERN

RunId = Annotated[str, Meta(pattern=f"^{ULID_PATTERN}$")]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Base64 = Annotated[str, Meta(extra_json_schema={"contentEncoding": "base64"})]
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
NameAndValue = Annotated[list[str], Meta(min_length=2, max_length=2)]
Int32 = Annotated[int, Meta(ge=-(2**31), lt=2**31)]

GivenRunId = Annotated[str, Meta(extra_json_schema={"pattern": f"^{ULID_PATTERN}$"})]
"""In capitals, as run ids are shown; lower case is accepted as well."""
GivenOrigin = Annotated[str, Meta(extra_json_schema={"pattern": r"^https?://[^\s/?#@\\]+/?$"})]


def one_of(*values: str) -> Meta:
    """Name the values that a text may have."""
    return Meta(extra_json_schema={"enum": list(values)})


class AnswerBody(Struct, forbid_unknown_fields=True):
    """An object in an answer, with exactly these fields, in this order."""

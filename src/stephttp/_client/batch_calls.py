"""Calls of the checkpoint API about many runs at once, and their answers: batches of checkpoints,
renewals of leases.

Only the stephttp engine has them (docs/design.md 3.8).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from stephttp._client.api_calls import JSON_HEADERS, read, unreadable
from stephttp._client.flow import Answer, APICall
from stephttp._wire.json import encode_struct
from stephttp.errors import APIStatusError


class _ItemOutcome(Struct):
    status: int
    error: str = ""


class _Items(Struct):
    items: list[_ItemOutcome]


class _BatchAnswer(Struct):
    data: _Items


class _Lost(Struct):
    lost: list[str]


class _RenewAnswer(Struct):
    data: _Lost


_batch_answer = msgspec.json.Decoder(_BatchAnswer)
_renew_answer = msgspec.json.Decoder(_RenewAnswer)


def post_batch(bodies: Iterable[bytes]) -> APICall:
    """Send encoded checkpoints, first and further ones, in one request."""
    return APICall("POST", "/v1/checkpoint/batch", b"[" + b",".join(bodies) + b"]", JSON_HEADERS)


def post_renewal(run_ids: list[str], lease: int) -> APICall:
    """Move the leases of runs ahead, to so many milliseconds from now."""
    body = encode_struct({"runs": run_ids, "lease": lease})
    return APICall("POST", "/v1/leases/renew", body, JSON_HEADERS)


def read_batch(answer: Answer, count: int) -> list[APIStatusError | None]:
    """Return what became of each of `count` checkpoints: an error, or `None` if it was accepted.

    Raises:
        APIStatusError: it is not what the stephttp engine answers.
    """
    items = read(_batch_answer, answer, "POST /v1/checkpoint/batch").data.items
    if len(items) != count:
        raise unreadable(answer, "POST /v1/checkpoint/batch", f"{len(items)} outcomes of {count}")
    return [
        None if item.status < 300 else APIStatusError(item.error, item.status) for item in items
    ]


def read_renewal(answer: Answer) -> list[str]:
    """Return the runs that this process has lost.

    Raises:
        APIStatusError: it is not what the stephttp engine answers.
    """
    return read(_renew_answer, answer, "POST /v1/leases/renew").data.lost

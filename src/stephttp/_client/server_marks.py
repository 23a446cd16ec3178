"""Whether an answer is the server's own, or the page of a load balancer or proxy in between
(docs/design.md 3.8). Pure.

Both servers mark every answer of theirs: the stephttp engine with its extras, an Inngest server
with its kind. A page of whatever status has neither. It says nothing: what was sent is not stored,
nor refused, nor known to be unsupported (docs/design.md 3.8).

    answer                                   of the server, if
    with the extras of the stephttp engine   always
    without, and the engine is known         never
    with the kind of an Inngest server       always
    with neither                             it is JSON, empty or of no type, or a 401: what is
                                             between may have dropped headers of an Inngest server;
                                             but nothing is learned from it, unless it is what an
                                             Inngest server says of its health
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stephttp._wire.json import UNREADABLE
from stephttp._wire.stored_state import FEATURES

SERVER_KIND = "x-inngest-server-kind"
_HEALTH = {"status": 200, "message": "OK"}
"""What an Inngest server answers when it is asked for its health (docs/protocol.md 4)."""
_HEALTHY, _UNAUTHORIZED = 200, 401
_EXCERPT = 200


def is_marked(headers: Mapping[str, str]) -> bool:
    """Return whether an answer says that it is a server's; header names are lower case."""
    return FEATURES in headers or SERVER_KIND in headers


def is_foreign(status: int, headers: Mapping[str, str], *, empty: bool, known: bool) -> bool:
    """Return whether an answer is not the server's; see the table on top.

    Args:
        status: of the answer.
        headers: of the answer; names are lower case.
        empty: whether it has no body.
        known: whether the server is known to be the stephttp engine.
    """
    if FEATURES in headers:
        return False
    if known:
        return True
    if SERVER_KIND in headers or status == _UNAUTHORIZED:
        return False
    return not empty and "json" not in headers.get("content-type", "json")


def is_inngest(status: int, body: bytes) -> bool:
    """Return whether an answer about the server's health that has no marks is that of an Inngest
    server. Our engine always has marks."""
    try:
        return status == _HEALTHY and msgspec.json.decode(body) == _HEALTH
    except UNREADABLE:
        return False


def describe(status: int, body: bytes = b"") -> str:
    """Return what is said about such an answer."""
    text = body[: 4 * _EXCERPT].decode(errors="replace")[:_EXCERPT].strip()
    return (
        f"something else than the server answered {status}"
        f"{': ' if text else ''}{text} (this process has to be started again if another server "
        "has taken the place of the stephttp engine)"
    )

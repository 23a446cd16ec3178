"""What differs on an Inngest server, and why: all that the matrix lets differ.

The numbers are those of docs/protocol.md. A cell that stands here has to differ in just this way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.matrix.sides import Answer, Outcome

EITHER = ("first", "late")
PLACES = (1, 2)


@dataclass
class Like:
    """An answer of which status and a part of the text are known; equal to those that fit."""

    status: int
    text: str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        return other.status == self.status and self.text in other.body.decode()

    __hash__ = None  # type: ignore[assignment]


REFUSED = [Like(500, "Server Error")]
"""The answer of a framework to an exception."""


def first_cookie_alone(answers: list[Answer]) -> list[Answer]:
    """Leave out all cookies but the first."""
    found: list[Answer] = []
    for answer in answers:
        cookies = [pair for pair in answer.headers if pair[0] == "set-cookie"]
        kept = [pair for pair in answer.headers if pair not in cookies[1:]]
        found.append(answer._replace(headers=kept))
    return found


def headers_in_utf_8(answers: list[Answer]) -> list[Answer]:
    """Encode headers that are not ASCII in another way."""
    return [
        answer._replace(headers=[(n, v.decode("latin-1").encode()) for n, v in answer.headers])
        for answer in answers
    ]


@dataclass
class Difference:
    """What is seen there instead.

    Args:
        cells: whose it is.
        reason: of it, with the section.
        seen: fields of the outcome; a function makes the value from that on the engine.
        when: in which call.
        processes: where: at the server's address (1), at the application's own origin (2).
    """

    cells: tuple[str, ...]
    reason: str
    seen: dict[str, Any] = field(default_factory=dict)
    when: tuple[str, ...] = EITHER
    processes: tuple[int, ...] = PLACES


DIFFERENCES = [
    Difference(
        ("retries-0", "retries-0-of-a-step", "non-retriable", "non-retriable-of-the-handler",
         "exception", "unavailable", "error-answer-5xx"),
        "7.2: a checkpoint with the answer is recorded as a success, whatever status that has",
        {"records": ["Completed"]}, ("first",),
    ),
    Difference(
        ("invoke",), "13.10: that server cannot invoke endpoints, so the SDK refuses it at once",
        {"waited": False, "answers": REFUSED, "runs": {"a": 1}}, ("first",),
    ),
    Difference(
        ("invoke",), "13.10",
        {"answers": REFUSED, "runs": {"a": 1}, "records": ["Failed"]}, ("late",),
    ),
    Difference(
        ("invoke-refused",), "13.10: nothing has to be waited for", {"waited": False}, ("first",),
    ),
    Difference(
        ("fetch-text",), "13.8: it would encode a text as JSON, so the SDK refuses it at once",
        {"waited": False, "answers": REFUSED, "records": [""]}, ("first",),
    ),
    Difference(
        ("fetch-text",), "13.8", {"answers": REFUSED, "records": ["Failed"]}, ("late",),
    ),
    Difference(
        ("signal-conflict",), "13.8: the server ends such a run, and answers for it",
        {"answers": [Like(200, '"Signal conflict; taken"'), Like(200, '{"n": 1}')]},
        processes=(1,),
    ),
    Difference(
        ("signal-conflict",), "13.8: relayed by the SDK, it is the failure that it is",
        {"answers": [Like(200, '{"n": 1}'), Like(500, '"Signal conflict; taken"')]},
        processes=(2,),
    ),
    Difference(
        ("cancel",), "7.2: its address has an empty answer for a cancelled run",
        {"answers": [Like(200, "")]}, processes=(1,),
    ),
    Difference(
        ("cookies",), "7.2: its answers have each header once, and cookies cannot be joined",
        {"answers": first_cookie_alone}, ("late",),
    ),
    Difference(
        ("header-in-latin-1",), "7.2: it writes the texts of headers as UTF-8",
        {"answers": headers_in_utf_8}, ("late",),
    ),
    Difference(
        ("binary",), "7.2: its answers are text",
        {"answers": [Like(500, "not UTF-8 text")], "records": ["Failed"]}, ("late",),
    ),
    Difference(
        ("idempotency-key",), "14: only our engine knows keys, so both requests run",
        {"runs": {"a": 2}}, ("first",),
    ),
    Difference(
        ("idempotency-key-of-one-that-waits",), "14",
        {"runs": {"a": 2}, "records": ["Completed"] * 2},
    ),
]  # fmt: skip


def there(expected: Outcome, name: str, when: str, processes: int) -> Outcome:
    """Return what comes of a cell there, from what comes of it on our engine."""
    for one in DIFFERENCES:
        if name in one.cells and when in one.when and processes in one.processes:
            made = {
                key: value(getattr(expected, key)) if callable(value) else value
                for key, value in one.seen.items()
            }
            expected = expected._replace(**made)
    return expected

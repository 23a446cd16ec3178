"""Reads the answers of the checkpoint API (docs/protocol.md 4). `api_calls` builds the calls."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from stephttp._client.flow import Answer
from stephttp._wire.inline_state import FAILURES
from stephttp._wire.memo import decode_memos
from stephttp.errors import APIStatusError


class CheckpointRun(Struct, omit_defaults=True):
    """The server's ids of a run, its function and its app; and where a re-entry continues.

    Attributes:
        run_id: ULID.
        fn_id, app_id: UUIDs that the server made, for later checkpoints.
        token: opens the run's result for an hour.
        stack: on re-entry, the hashes of the steps that the server remembers.
        signature: on re-entry, the signature that came with it.
        attempt: on re-entry, how many calls for the same purpose failed before.
    """

    run_id: str
    fn_id: str = ""
    app_id: str = ""
    token: str = ""
    stack: list[str] = field(default_factory=list, name="Stack")
    signature: str = field(default="", name="Signature")
    attempt: int = field(default=0, name="Attempt")

    def __repr__(self) -> str:
        return f"<CheckpointRun {self.run_id}>"  # token and signature are secrets


class _NewRunAnswer(Struct):
    data: CheckpointRun


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


class Outcome(Struct):
    """How the first call of a run ended; `state` is `sync` while it still runs."""

    state: str
    token: str = ""
    status: int = 0
    headers: list[tuple[str, str]] = []
    body: bytes = b""


class _OutcomeAnswer(Struct):
    data: Outcome


_new_run_answer = msgspec.json.Decoder(_NewRunAnswer)
_batch_answer = msgspec.json.Decoder(_BatchAnswer)
_renew_answer = msgspec.json.Decoder(_RenewAnswer)
_outcome_answer = msgspec.json.Decoder(_OutcomeAnswer)


def read_new_run(answer: Answer) -> CheckpointRun:
    """Read the answer to a first checkpoint.

    Raises:
        APIStatusError: it is not what a server answers.
    """
    try:
        return _new_run_answer.decode(answer.body).data
    except msgspec.MsgspecError as error:
        raise _unreadable(answer, "POST /v1/http/runs", error) from error


def read_token(body: bytes) -> str:
    """Return the output token in the answer to a first checkpoint; empty without one."""
    try:
        return _new_run_answer.decode(body).data.token
    except msgspec.MsgspecError:
        return ""


def read_batch(answer: Answer, count: int) -> list[APIStatusError | None]:
    """Return what became of each of `count` checkpoints: an error, or `None` if it was accepted.

    Raises:
        APIStatusError: it is not what the stephttp engine answers.
    """
    try:
        items = _batch_answer.decode(answer.body).data.items
    except msgspec.MsgspecError as error:
        raise _unreadable(answer, "POST /v1/checkpoint/batch", error) from error
    if len(items) != count:
        raise _unreadable(answer, "POST /v1/checkpoint/batch", f"{len(items)} outcomes of {count}")
    return [
        None if item.status < 300 else APIStatusError(item.error, item.status) for item in items
    ]


def read_renewal(answer: Answer) -> list[str]:
    """Return the runs that this process has lost.

    Raises:
        APIStatusError: it is not what the stephttp engine answers.
    """
    try:
        return _renew_answer.decode(answer.body).data.lost
    except msgspec.MsgspecError as error:
        raise _unreadable(answer, "POST /v1/leases/renew", error) from error


def read_outcome(answer: Answer) -> Outcome:
    """Read the answer to `get_outcome`.

    Raises:
        APIStatusError: it is not what the stephttp engine answers.
    """
    try:
        return _outcome_answer.decode(answer.body).data
    except msgspec.MsgspecError as error:
        raise _unreadable(answer, "GET /v1/runs/…/outcome", error) from error


def read_actions(answer: Answer) -> dict[str, Raw]:
    """Read the memoised steps, by step hash.

    Raises:
        APIStatusError: it is not what a server answers.
    """
    try:
        return decode_memos(answer.body)
    except ValueError as error:
        raise _unreadable(answer, "GET /v0/runs/…/actions", error) from error


def read_failures(answer: Answer) -> dict[str, int]:
    """Return how often unfinished steps have failed, by step hash (stephttp engine only)."""
    pairs = (pair.strip().partition("=") for pair in answer.headers.get(FAILURES, "").split(","))
    return {step: int(count) for step, _, count in pairs if count.isdecimal()}


def _unreadable(answer: Answer, what: str, error: Any) -> APIStatusError:
    return APIStatusError(f"{what}: cannot read the answer: {error}", answer.status, answer.body)

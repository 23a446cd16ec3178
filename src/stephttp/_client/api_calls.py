"""Calls of the checkpoint API (docs/protocol.md 4) and their answers, but for batches of runs."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from stephttp._client.flow import Answer, APICall, T
from stephttp._version import __version__
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp._wire.limits import MAX_CHECKPOINT_BYTES
from stephttp._wire.opcodes import Op
from stephttp._wire.stored_state import (
    FAILURES,
    PROCESS,
    STEPS,
    CallId,
    KnownStep,
    decode_memos,
    read_steps,
)
from stephttp.errors import APIStatusError

_ROOM = MAX_CHECKPOINT_BYTES - 1024
"""For the ops of one checkpoint of steps, beside its own fields."""

SDK = f"stephttp-py:v{__version__}"
JSON_HEADERS = {"content-type": "application/json", "x-inngest-sdk": SDK}
_ACTIONS_HEADERS = {**JSON_HEADERS, "x-stephttp-accept": "pending"}
_NAMED_HEADERS = {**JSON_HEADERS, "x-stephttp-accept": "pending, step-names"}

MOST_OPS = 100
"""In one checkpoint for a server that is not ours, which takes them one by one."""
_SMALL, _PACE = 64 * 1024, 10_000
"""Bytes for which the usual time is enough, and bytes for which there is one second more."""
_SHORTEST, _LONGEST = 15.0, 120.0
NEW_RUN = "/v1/http/runs"


class _Steps(Struct, omit_defaults=True):
    run_id: str
    steps: list[Op]
    ts: int
    fn_id: str = ""
    app_id: str = ""
    lease: int | None = None
    call: CallId | None = None


class CheckpointRun(Struct, omit_defaults=True):
    """The server's ids of a run, its function and its app; and where a re-entry continues.

    Attributes:
        run_id: ULID.
        fn_id, app_id: UUIDs that the server made, for later checkpoints.
        token: opens the run's result.
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


class OpenedRun(CheckpointRun, omit_defaults=True):
    """The same, as the answer to a first checkpoint says it.

    Attributes:
        realtime_token: opens the run's stream.
        retry_after: seconds after which the limits of the run may have room; 0: it was opened.
    """

    realtime_token: str = ""
    retry_after: int = 0


class _NewRunAnswer(Struct):
    data: OpenedRun


class _MintedToken(Struct):
    jwt: str


class FirstCallOutcome(Struct):
    """How the first call of a run ended; `state` is `sync` while it still runs."""

    state: str
    token: str = ""
    status: int = 0
    headers: list[tuple[str, str]] = []
    body: bytes = b""


class _OutcomeAnswer(Struct):
    data: FirstCallOutcome


_new_run_answer = msgspec.json.Decoder(_NewRunAnswer)
_minted_token = msgspec.json.Decoder(_MintedToken)
_outcome_answer = msgspec.json.Decoder(_OutcomeAnswer)


def post_new_run(body: bytes) -> APICall:
    """Send an encoded first checkpoint."""
    return APICall("POST", NEW_RUN, body, JSON_HEADERS, timeout=patience(len(body)))


def post_steps(
    run_id: str,
    ops: list[Op],
    now_ms: int,
    *,
    fn_id: str = "",
    app_id: str = "",
    call: CallId | None = None,
) -> APICall:
    """Send further ops of a run, from a call of the stephttp engine where that is given."""
    body = encode_struct(_Steps(run_id, ops, now_ms, fn_id, app_id, call=call))
    return post(steps_path(run_id), body)


def steps_path(run_id: str) -> str:
    """Return the path for further ops of a run."""
    return f"{NEW_RUN}/{run_id}/steps"


def checkpoint_steps(run_id: str, ops: list[Op], now_ms: int, lease: int | None = None) -> bytes:
    """Encode a further checkpoint."""
    return encode_struct(_Steps(run_id, ops, now_ms, lease=lease))


def post(path: str, body: bytes) -> APICall:
    """Send an encoded checkpoint."""
    return APICall("POST", path, body, JSON_HEADERS, timeout=patience(len(body)))


def patience(size: int) -> float | None:
    """Return how many seconds a server may take for a checkpoint of so many bytes; `None`: what any
    call may take. A real server that is busy takes 15 ms for a small step."""
    if size < _SMALL:
        return None
    return min(_LONGEST, _SHORTEST + size / _PACE)


def get_outcome(run_id: str, wait: int, *, cookies: bool) -> APICall:
    """Ask how the first phase of a run ended, waiting so many seconds for that.

    Args:
        cookies: whether the token, if there is one, opens an output that sets cookies.
    """
    more = "" if cookies else "&cookies=no"
    return APICall("GET", f"/v1/runs/{run_id}/outcome?wait={wait}{more}", None, JSON_HEADERS)


def get_health() -> APICall:
    """Ask whether the server is up; its answer announces its extras."""
    return APICall("GET", "/health", None, JSON_HEADERS)


def get_actions(run_id: str, *, names: bool = False, call: CallId | None = None) -> APICall:
    """Ask for what the server remembers of a run.

    Args:
        names: the stephttp engine is to say what steps that are; see `stored_state.STEPS`.
        call: the call of the engine in which it is asked; one that was superseded gets a 409, one
            that another process works on a 423.
    """
    headers = _NAMED_HEADERS if names else _ACTIONS_HEADERS
    if call is not None:
        headers = headers | call.headers
        if call.process:
            headers[PROCESS] = call.process
    return APICall("GET", f"/v0/runs/{run_id}/actions", None, headers)


def output_path(run_id: str, token: str) -> str:
    """Return the path at which the run's result is waited for."""
    return f"/v1/http/runs/{run_id}/output?token={token}"


def portions(ops: list[Op], already: int = 0, most: int | None = None) -> list[list[Op]]:
    """Cut `ops` into lists that each fit into one checkpoint.

    Args:
        already: bytes of the first checkpoint that are taken; its list may remain empty.
        most: how many ops one may have; `None`: any number.
    """
    cut: list[list[Op]] = [[]]
    room = _ROOM - already
    for op in ops:
        size = len(encode_struct(op)) + 1
        if (size > room and (cut[-1] or already)) or len(cut[-1]) == most:
            cut.append([])
            room, already = _ROOM, 0
        cut[-1].append(op)
        room -= size
    return cut


def read_new_run(answer: Answer) -> OpenedRun:
    """Read the answer to a first checkpoint.

    Raises:
        APIStatusError: it is not what a server answers.
    """
    return read(_new_run_answer, answer, "POST /v1/http/runs").data


def post_stream_token(run_id: str) -> APICall:
    """Ask for a token that opens the stream of a run."""
    body = msgspec.json.encode([{"channel": run_id, "name": "$stream", "kind": "run"}])
    return APICall("POST", "/v1/realtime/token", body, JSON_HEADERS)


def read_stream_token(answer: Answer) -> str:
    """Read the answer to `post_stream_token`.

    Raises:
        APIStatusError: it is not what a server answers.
    """
    return read(_minted_token, answer, "POST /v1/realtime/token").jwt


def read_token(body: bytes) -> str:
    """Return the output token in the answer to a first checkpoint; empty without one."""
    try:
        return _new_run_answer.decode(body).data.token
    except UNREADABLE:
        return ""


def read_outcome(answer: Answer) -> FirstCallOutcome:
    """Read the answer to `get_outcome`.

    Raises:
        APIStatusError: it is not what the stephttp engine answers.
    """
    return read(_outcome_answer, answer, "GET /v1/runs/…/outcome").data


def read_actions(answer: Answer) -> dict[str, Raw]:
    """Read the memoised steps, by step hash.

    Raises:
        APIStatusError: it is not what a server answers.
    """
    try:
        answer.body.decode()  # as in `read`
        return decode_memos(answer.body)
    except ValueError as error:
        raise unreadable(answer, "GET /v0/runs/…/actions", error) from error


def read_state(answer: Answer) -> tuple[dict[str, Raw], dict[str, KnownStep] | None]:
    """Read the memoised steps, and what steps they are, if the server says that; by step hash.

    Raises:
        APIStatusError: it is not what a server answers.
    """
    memos = read_actions(answer)
    try:
        return memos, read_steps(memos.pop(STEPS, None))
    except ValueError as error:
        raise unreadable(answer, "GET /v0/runs/…/actions", error) from error


def read_failures(answer: Answer) -> dict[str, int]:
    """Return how often unfinished steps have failed, by step hash (stephttp engine only)."""
    pairs = (pair.strip().partition("=") for pair in answer.headers.get(FAILURES, "").split(","))
    return {step: int(count) for step, _, count in pairs if count.isdecimal()}


def read(decoder: msgspec.json.Decoder[T], answer: Answer, what: str) -> T:
    """Read an answer as the type of the decoder.

    Raises:
        APIStatusError: it is not that, or is damaged.
    """
    try:
        answer.body.decode()  # the decoder does not look into what it leaves raw or does not know
        return decoder.decode(answer.body)
    except UNREADABLE as error:
        raise unreadable(answer, what, error) from error


def unreadable(answer: Answer, what: str, error: Any) -> APIStatusError:
    """Return the error for an answer that is not what a server answers."""
    return APIStatusError(f"{what}: cannot read the answer: {error}", answer.status, answer.body)

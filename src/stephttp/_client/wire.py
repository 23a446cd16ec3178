"""The requests of the checkpoint API and its answers (docs/protocol.md 4), as pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from stephttp._client.flow import Answer, Call
from stephttp._core.replies import ResultData
from stephttp._version import __version__
from stephttp._wire.ids import COMPLETE
from stephttp._wire.inline_state import FAILURES
from stephttp._wire.json import encode_struct
from stephttp._wire.memo import decode_memos
from stephttp._wire.opcodes import Op, OpCode
from stephttp.errors import APIStatusError

EVENT_NAME = "inngest/http.request"
"""The name under which a real server restores query and body (docs/protocol.md 6.1)."""

REQUEST_VERSION = 2
MAX_CHECKPOINT_BYTES = 4 * 1024 * 1024
"""What a server reads of one checkpoint (docs/protocol.md 10)."""

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""What a server reads of the answer to a re-entry (docs/protocol.md 10)."""

_ROOM = MAX_CHECKPOINT_BYTES - 1024
"""For the ops of one checkpoint of steps, beside its own fields."""

SDK = f"stephttp-py:v{__version__}"
JSON_HEADERS = {"content-type": "application/json", "x-inngest-sdk": SDK}
_ACTIONS_HEADERS = {**JSON_HEADERS, "x-stephttp-accept": "pending"}


class NewAPIRunData(Struct, gc=False):
    """The request that started a run, as the data of its event."""

    domain: str
    method: str
    path: str
    fn: str = ""
    ip: str = ""
    content_type: str = ""
    query_params: str = ""
    body: bytes | None = None
    """Raw; base64 on the wire."""


class IdempotencyClaim(Struct):
    """The wish of a run to be the only one with an idempotency key (docs/design.md 3.7)."""

    scope: str
    key: str
    request: str
    """Digest of the request."""


class RunEvent(Struct, gc=False):
    """The synthetic event behind a run."""

    data: NewAPIRunData
    ts: int
    """Milliseconds since the epoch."""
    name: str = EVENT_NAME


class CheckpointNewRunRequest(Struct, omit_defaults=True, gc=False):
    """The first checkpoint of a run."""

    run_id: str
    event: RunEvent
    steps: list[Op] = field(default_factory=list)
    retries: int | None = None
    request_version: int | None = None
    idempotency: str = ""
    """A key of the caller's; a real server ignores it."""
    lease: int | None = None
    """Milliseconds for which the run is left to this process; for our engine only."""
    claim: IdempotencyClaim | None = None
    reads_state: bool = False
    """Whether calls of the server may bring the run's state along; for our engine only."""


class CheckpointRun(Struct, omit_defaults=True):
    """What the server calls a run, its function and its app; and where a re-entry goes on.

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


class APIResult(Struct):
    """The answer of an API, as the end of a run.

    Attributes:
        status_code: HTTP status (`status` on the wire; docs/protocol.md 7.2).
        headers: one value each.
        body: a server stores text only; `None` is empty.
        duration: how long the handler took.
        error: an error of the machinery, such as a step that failed for good.
    """

    status_code: int = field(name="status")
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    duration: timedelta = timedelta()
    error: str = ""

    def op(self) -> Op:
        """The op that ends a run with this answer by checkpoint.

        A real server shows only the body of such a result, so status and headers travel inside
        of it (docs/protocol.md 7.3).

        Raises:
            ValueError: the body is not UTF-8.
        """
        try:
            body = (self.body or b"").decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"APIResult.body: a server stores UTF-8 text only: {error}") from None
        inner = {"status": self.status_code, "headers": self.headers, "body": body}
        data = ResultData(
            self.status_code,
            self.headers,
            encode_struct({"data": inner}).decode(),
            self.duration // timedelta(microseconds=1) * 1_000,
            self.error or None,
        )
        return Op(OpCode.RUN_COMPLETE, COMPLETE, data=Raw(encode_struct(data)))


class _Steps(Struct, omit_defaults=True):
    run_id: str
    steps: list[Op]
    ts: int
    fn_id: str = ""
    app_id: str = ""
    lease: int | None = None


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
    """How the first phase of a run ended, or that it goes on (`state` is `sync`)."""

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

NEW_RUN = "/v1/http/runs"


def checkpoint_new_run(request: CheckpointNewRunRequest) -> bytes:
    """The body of the first checkpoint."""
    return encode_struct(request)


def post_new_run(body: bytes) -> Call:
    """Send an encoded first checkpoint."""
    return Call("POST", NEW_RUN, body, JSON_HEADERS)


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
    """The output token in the answer to a first checkpoint; empty if there is none."""
    try:
        return _new_run_answer.decode(body).data.token
    except msgspec.MsgspecError:
        return ""


def post_steps(
    run_id: str, ops: list[Op], now_ms: int, *, fn_id: str = "", app_id: str = ""
) -> Call:
    """Send further ops of a run."""
    body = encode_struct(_Steps(run_id, ops, now_ms, fn_id, app_id))
    return post(steps_path(run_id), body)


def steps_path(run_id: str) -> str:
    """Where further ops of a run go."""
    return f"{NEW_RUN}/{run_id}/steps"


def checkpoint_steps(run_id: str, ops: list[Op], now_ms: int, lease: int | None = None) -> bytes:
    """The body of a further checkpoint."""
    return encode_struct(_Steps(run_id, ops, now_ms, lease=lease))


def post(path: str, body: bytes) -> Call:
    """Send an encoded checkpoint."""
    return Call("POST", path, body, JSON_HEADERS)


def post_batch(bodies: Iterable[bytes]) -> Call:
    """Send encoded checkpoints, first and further ones, in one request."""
    return Call("POST", "/v1/checkpoint/batch", b"[" + b",".join(bodies) + b"]", JSON_HEADERS)


def read_batch(answer: Answer, count: int) -> list[APIStatusError | None]:
    """What became of each of `count` checkpoints: an error, or `None` if it was taken.

    Raises:
        APIStatusError: it is not what our engine answers.
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


def post_renewal(run_ids: list[str], lease: int) -> Call:
    """Move the leases of runs ahead, to so many milliseconds from now."""
    body = encode_struct({"runs": run_ids, "lease": lease})
    return Call("POST", "/v1/leases/renew", body, JSON_HEADERS)


def read_renewal(answer: Answer) -> list[str]:
    """The runs that are not this process's any more.

    Raises:
        APIStatusError: it is not what our engine answers.
    """
    try:
        return _renew_answer.decode(answer.body).data.lost
    except msgspec.MsgspecError as error:
        raise _unreadable(answer, "POST /v1/leases/renew", error) from error


def get_outcome(run_id: str, wait: int) -> Call:
    """Ask how the first phase of a run ended, waiting so many seconds for that."""
    return Call("GET", f"/v1/runs/{run_id}/outcome?wait={wait}", None, JSON_HEADERS)


def read_outcome(answer: Answer) -> Outcome:
    """Read the answer to `get_outcome`.

    Raises:
        APIStatusError: it is not what our engine answers.
    """
    try:
        return _outcome_answer.decode(answer.body).data
    except msgspec.MsgspecError as error:
        raise _unreadable(answer, "GET /v1/runs/…/outcome", error) from error


def get_health() -> Call:
    """Ask whether the server is there; its answer tells its extras."""
    return Call("GET", "/health", None, JSON_HEADERS)


def portions(ops: list[Op], already: int = 0) -> list[list[Op]]:
    """Cut `ops` into lists that each fit into one checkpoint.

    Args:
        already: bytes of the first checkpoint that are taken; its list may remain empty.
    """
    cut: list[list[Op]] = [[]]
    room = _ROOM - already
    for op in ops:
        size = len(encode_struct(op)) + 1
        if size > room and (cut[-1] or already):
            cut.append([])
            room, already = _ROOM, 0
        cut[-1].append(op)
        room -= size
    return cut


def get_actions(run_id: str) -> Call:
    """Ask for what the server remembers of a run."""
    return Call("GET", f"/v0/runs/{run_id}/actions", None, _ACTIONS_HEADERS)


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
    """How often steps that are not done have failed, by step hash; only our engine tells."""
    pairs = (pair.strip().partition("=") for pair in answer.headers.get(FAILURES, "").split(","))
    return {step: int(count) for step, _, count in pairs if count.isdecimal()}


def output_path(run_id: str, token: str) -> str:
    """Where the run's result is waited for."""
    return f"/v1/http/runs/{run_id}/output?token={token}"


def _unreadable(answer: Answer, what: str, error: Any) -> APIStatusError:
    return APIStatusError(f"{what}: cannot read the answer: {error}", answer.status, answer.body)

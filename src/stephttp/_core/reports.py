"""The reports of a run to the server: ops of steps that have ended or wait, `RunComplete`, and the
answers of re-entries that carry them.

Finished steps can be reported at any time, also while the handler runs. Ops that make the server
act, such as a wait or a step to be retried, are reported when the handler has ended. A step whose
writes may still be rolled back is held back until they last.

docs/protocol.md 6.3 and 7.2 say what the real server makes of an answer.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from stephttp._core.replies import error_answer
from stephttp._core.steps import Step
from stephttp._wire.http import Response, joined_headers, json_response, text_headers
from stephttp._wire.ids import COMPLETE, types_id
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import SYNC_OPS, ErrorInfo, Op, OpCode, Timing, Userland

_STEP_RUN = OpCode.STEP_RUN
_RUN_COMPLETE = OpCode.RUN_COMPLETE


class Unreported(Struct, eq=False, gc=False):
    """The ops of one run that are still to be reported."""

    # Appending is atomic, so taking ops needs no lock against steps that end; only one thread may
    # take at a time.
    finished: list[Op] = []
    """Finished steps."""
    requests: list[Op] = []
    """What makes the server act."""
    _uncommitted: set[str] | None = None
    """Hashes of steps that are held back, because what they wrote may be rolled back."""

    def add(self, op: Op) -> None:
        """Record an op."""
        (self.finished if op.op in SYNC_OPS else self.requests).append(op)

    @property
    def count(self) -> int:
        """The number of finished steps that are not taken yet, without those held back."""
        held = sum(map(self._is_held, tuple(self.finished))) if self._uncommitted else 0
        return len(self.finished) - held

    @property
    def kept_bytes(self) -> int:
        """The bytes of JSON that finished steps hold."""
        return sum(map(kept_bytes, tuple(self.finished)))

    @property
    def waiting_for(self) -> str:
        """The step for which this call asks the server first; empty without one."""
        return next((op.display_name or op.name or "" for op in tuple(self.requests)), "")

    def take_finished(self) -> list[Op]:
        """Take the finished steps, but for those that are held back."""
        taken = _drain(self.finished)
        if self._uncommitted:
            self.finished[:0] = [op for op in taken if self._is_held(op)]
            taken = [op for op in taken if not self._is_held(op)]
        return taken

    def take_all(self) -> list[Op]:
        """Take everything; what makes the server act comes last."""
        finished = _drain(self.finished)
        return finished + _drain(self.requests) if self.requests else finished

    def take_by_kind(self) -> tuple[list[Op], list[Op]]:
        """Take the finished steps, but for those that are held back, and what makes the server
        act."""
        return self.take_finished(), _drain(self.requests)

    def requeue(self, ops: Sequence[Op]) -> None:
        """Put back finished steps that were taken and could not be stored."""
        self.finished[:0] = ops

    def withdraw(self, hashes: Collection[str]) -> None:
        """Do not ask the server for these steps."""
        self.requests[:] = [op for op in self.requests if op.id not in hashes]

    def give_up_waits(self, ops: Sequence[Op] = ()) -> None:
        """Ask the server for nothing: the run has to wait, and cannot. A failed step that was to be
        retried has failed for good.

        Args:
            ops: what was taken, and has to be reported in another way.
        """
        waits = [op for op in (*ops, *_drain(self.requests)) if op.op not in SYNC_OPS]
        self.finished[:0] = [op for op in ops if op.op in SYNC_OPS]
        self.finished += [_final(op) for op in waits if op.op is OpCode.STEP_ERROR]

    def hold_back(self, step_hash: str) -> None:
        """Report a step that runs now only after `settle`, even if it has finished before."""
        self._uncommitted = self._uncommitted or set()
        self._uncommitted |= {step_hash, types_id(step_hash)}

    def settle(self, step_hash: str) -> None:
        """Note that what a step wrote lasts."""
        if self._uncommitted:
            self._uncommitted -= {step_hash, types_id(step_hash)}

    def holds_back(self, step_hash: str) -> bool:
        """Whether a step has finished, and is held back."""
        return any(op.id == step_hash and self._is_held(op) for op in self.finished)

    def release_held(self) -> None:
        """Hold back no step any more."""
        self._uncommitted = None

    def drop_held(self) -> None:
        """Never report the steps that are held back: what they wrote is lost."""
        self.finished[:] = [op for op in self.finished if not self._is_held(op)]
        self._uncommitted = None

    def _is_held(self, op: Op) -> bool:
        return op.op is _STEP_RUN and self._uncommitted is not None and op.id in self._uncommitted


def kept_bytes(op: Op) -> int:
    """Bytes of JSON that an op keeps: the result of a step, and what the step was called with."""
    size = len(op.data or b"")
    return size if op.opts is None else size + len(op.opts.get("input") or b"")


def step_op(
    step: Step,
    op: OpCode,
    *,
    name: str | None = None,
    opts: dict[str, Any] | None = None,
    error: ErrorInfo | None = None,
    timing: Timing | None = None,
) -> Op:
    """Return the op that reports `step`, or requests it.

    Args:
        step: what is reported.
        op: its opcode.
        name: what the server shows of it; `None` for its id.
        opts: what is asked for, or reported in addition.
        error: with which it failed.
        timing: when its body ran.
    """
    return Op(
        op,
        step.hash,
        name or step.step_id,
        step.step_id,
        opts,
        error=error,
        timing=timing,
        userland=Userland(step.step_id, step.index or None, step.branch),
    )


class RawResponse(Struct):
    """A response as it is, where text and a map of headers are not enough."""

    headers: list[tuple[str, str]]
    body: str
    """Base64."""


class ResultData(Struct, omit_defaults=True, gc=False):
    """`data` of the op that ends a run (docs/protocol.md 7.2)."""

    status: int
    headers: dict[str, str]
    body: str
    duration: int = 0
    """Nanoseconds."""
    error: str | None = None
    raw: RawResponse | None = None
    """Only for the stephttp engine, which announces that it reads it (docs/design.md 3.8)."""


def run_complete(
    response: Response,
    *,
    duration_ns: int,
    error: str | None = None,
    raw_allowed: bool = False,
    lossy: bool = False,
) -> Op:
    """Return the op that ends a run with the handler's response.

    Args:
        raw_allowed: whether the server reads `raw`. If not, a body that is not UTF-8 cannot be
            carried: the run then ends with a 500 that says so. Repeated headers become one, whose
            values are joined; of several cookies only the first survives.
        lossy: what is not UTF-8 in the body is replaced: its caller has the answer already.
    """
    text = response.body.decode(errors="replace") if lossy else _utf8(response.body)
    headers = joined_headers(response.headers)
    data = ResultData(response.status, headers, text or "", duration_ns, error)
    if raw_allowed and (text is None or len(headers) != len(response.headers)):
        data.body = ""
        body = base64.b64encode(response.body).decode()
        data.raw = RawResponse(text_headers(response.headers), body)
    elif text is None:
        message = (
            "the response's body is not UTF-8 text, which this server cannot carry; "
            "answer such requests without waiting steps, or encode the body"
        )
        error_response = error_answer(500, message)
        data = ResultData(
            500,
            joined_headers(error_response.headers),
            error_response.body.decode(),
            duration_ns,
            message,
        )
    return Op(_RUN_COMPLETE, COMPLETE, data=Raw(encode_struct(data)))


def ops_answer(ops: Sequence[Op]) -> Response:
    """Report what a re-entry found to do next, and the latest time that a failed step asks for."""
    response = json_response(206, encode_struct(ops))
    asked = [op.opts["retry_after"] for op in ops if op.opts and "retry_after" in op.opts]
    if asked:
        response.headers.append((b"retry-after", max(asked).encode()))
    return response


class _End(Struct):
    """What of `ResultData` tells whether the run has failed."""

    status: int
    error: str | None = None


_end = msgspec.json.Decoder(_End)
_SERVER_ERROR = 500


def has_failed(op: Op) -> bool:
    """Return whether the op that ends a run says that it has failed: as the stephttp engine does,
    by an error, or by the status of the handler's answer."""
    assert isinstance(op.data, Raw)
    end = _end.decode(op.data)
    return bool(end.error) or end.status >= _SERVER_ERROR


def result_answer(
    op: Op,
    steps: Sequence[Op] = (),
    *,
    again: bool = False,
    retry_after: str | None = None,
    plain: bool = False,
) -> Response:
    """Report the end of the run as one object: an array would lose its body (docs/protocol.md S1).

    Args:
        plain: the server is not the stephttp engine: it takes a run for failed by a header, and
            then gives the caller the handler's answer all the same (docs/protocol.md 13.6).
        steps: finished ones that the server does not know yet; only for the stephttp engine, which
            accepts an array then (docs/design.md 3.8).
        again: it is a failure, and an attempt is left: the server is to call once more.
        retry_after: when, in RFC 3339.
    """
    response = json_response(500 if again else 206, encode_struct([*steps, op] if steps else op))
    if again:
        response.headers.append((b"x-inngest-no-retry", b"false"))
        if retry_after is not None:
            response.headers.append((b"retry-after", retry_after.encode()))
    elif plain and has_failed(op):
        response.headers.append((b"x-inngest-no-retry", b"true"))
    return response


def _final(op: Op) -> Op:
    """Return the report of a step that fails, and is to be retried, as one of its last failure."""
    wishes = ("retries", "retry_after")
    opts = {name: value for name, value in (op.opts or {}).items() if name not in wishes}
    return replace(op, op=OpCode.STEP_FAILED, opts=opts or None)


def _drain(ops: list[Op]) -> list[Op]:
    taken = ops[:]
    del ops[: len(taken)]  # what was added meanwhile stays
    return taken


def _utf8(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None

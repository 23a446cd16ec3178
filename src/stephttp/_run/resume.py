"""A call of the server: how it is recognised and verified, and where its run stands."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec import Struct

from stephttp._client import api_answers, api_calls
from stephttp._client.api_answers import CheckpointRun
from stephttp._client.flow import Answer, Flow, send
from stephttp._core import replies
from stephttp._core.run import Run
from stephttp._run.checkpoints import RETRY_SOON, Checkpoints
from stephttp._wire import capsule, inline_state, signatures
from stephttp._wire.http import Request, Response
from stephttp._wire.ids import CAPSULE, hash_step_id, ulid_number
from stephttp._wire.memo import MemoKind
from stephttp.errors import APIConnectionError, APIError, APIStatusError

logger = logging.getLogger("stephttp")

_ROOT = "step"
"""A server that sends this as the step wants the whole handler called."""
_ATTEMPT = b"x-stephttp-attempt"
"""On a re-entry by our engine: the exact number of attempts before (docs/design.md 3.8)."""
SERVER_HEADERS = frozenset(
    {
        b"x-inngest-signature",
        b"x-inngest-req-version",
        b"x-inngest-generation-id",
        b"x-inngest-job-id",
    }
)
"""A server sends all of these; one is enough to know its call, even if a proxy ate the others."""


class Resumed(Struct):
    """A run that a re-entry continues."""

    run: Run
    point: CheckpointRun
    """Where it continues."""
    ours: bool
    """Whether it is our engine that calls."""
    raw_allowed: bool
    """Whether the server reads `raw` in a result (docs/design.md 3.8)."""
    started_ns: int
    with_result: bool = False
    """Whether the server takes finished steps with the result (docs/design.md 3.8)."""
    heard: bool = True
    """Whether the answer will be read, as far as this side can know."""
    request_id: str = ""
    """The server's id of this call."""
    ended: bool = False
    """Whether the answer ends the run."""

    @property
    def attempt(self) -> int:
        """How many calls for the same purpose failed before; where unsure, one too many."""
        return self.point.attempt


def verify(checkpoints: Checkpoints, request: Request, state: bytes | None) -> Response | None:
    """Check that a re-entry, with what came along, comes from the server.

    Returns:
        What refuses it, if it does not.
    """
    run_id = request.header(b"x-run-id")
    try:
        ulid_number(run_id)
    except ValueError:
        return replies.refused(400, f"x-run-id: {run_id!r} is not a ULID")
    if checkpoints.settings.dev:
        return None
    if not checkpoints.settings.keys:
        return replies.refused(
            401, "no signing key is configured, so this call cannot be verified; "
            "set INNGEST_SIGNING_KEY, or INNGEST_DEV=1 for development",
        )  # fmt: skip
    header = request.header(b"x-inngest-signature")
    now = checkpoints.now_ns() / 1_000_000_000
    if not signatures.verify(header, request.body, checkpoints.settings.keys, now):
        return replies.refused(401, "x-inngest-signature: missing, wrong or too old")
    if state is not None and not inline_state.is_signed(
        request, run_id, state, checkpoints.settings.keys, now
    ):
        return replies.refused(401, f"{inline_state.SIGNATURE}: missing, wrong or too old")
    return None


def resume(
    checkpoints: Checkpoints, request: Request, state: bytes | None = None
) -> Flow[Resumed | Response]:
    """Load the run of a re-entry that was verified; a `Response` refuses it.

    Args:
        request: is changed into what the original caller sent.
        state: what came along, if it can be relied on.
    """
    run_id = request.header(b"x-run-id")
    request_id = request.header(b"x-request-id")
    ours = bool(request.header(_ATTEMPT))
    try:
        if state is None:
            answer = yield from send(
                api_calls.get_actions(run_id), checkpoints.keys, checkpoints.rng
            )
        else:
            answer = Answer(200, _sent_along(request), state)
        memos = api_answers.read_actions(answer)
    except APIStatusError as error:
        if error.status == 410:  # ended meanwhile; nothing is to be done (docs/protocol.md 12.1)
            return replies.ops_answer([])
        if error.status == 404:
            return replies.refused(404, f"run {run_id} is not known to the server")
        return unavailable(checkpoints, ours, f"the state of run {run_id} cannot be loaded", error)
    except APIConnectionError as error:
        return unavailable(checkpoints, ours, f"the state of run {run_id} cannot be loaded", error)
    target = request.header(b"x-inngest-step-id")
    features = answer.features
    run = Run(run_id, memos, target=target if target not in ("", _ROOT) else None)
    point = CheckpointRun(
        run_id, stack=list(memos), signature=request.header(b"x-inngest-signature")
    )
    stored = run.memo_of(CAPSULE)
    kept = capsule.Capsule()
    if stored is not None and stored.kind is MemoKind.VALUE:
        try:
            kept = capsule.unpack(stored.raw, run_id, checkpoints.sealer.open)
        except ValueError as error:
            return replies.refused(400, f"run {run_id}: {error}")
    point.attempt = _attempt(request, run, kept.failing)
    # Ours counts the failures of each step, and knows its limit.
    attempt = 0 if "step-retries" in features else point.attempt
    run.resume_at(attempt, api_answers.read_failures(answer))
    if stored is not None:
        capsule.restore(request, kept)
        run.carry(kept.carried)
    return Resumed(
        run,
        point,
        ours=ours,
        raw_allowed="raw-response" in features,
        started_ns=checkpoints.now_ns(),
        with_result="steps-with-result" in features,
        request_id=request_id,
    )


def _sent_along(request: Request) -> dict[str, str]:
    """Return the headers that the answer to `get_actions` would have had."""
    return {
        name: request.header(name.encode())
        for name in (inline_state.FEATURES, inline_state.FAILURES)
    }


def unavailable(checkpoints: Checkpoints, ours: bool, what: str, error: APIError) -> Response:
    """The answer to a re-entry that cannot continue, because the server's API does not work.

    Our engine takes a 503 for what it is. A real server would count it as an attempt, and
    after the last one leave the run hanging, so it is asked to come again.
    """
    logger.error("stephttp: %s: %s", what, error)
    if ours:
        return replies.error_answer(503, f"{what}: {error}", headers=RETRY_SOON)
    op_id = hash_step_id(f"stephttp:again:{checkpoints.now_ns()}")
    return replies.call_again(503, what, RETRY_SOON, op_id)


def _attempt(request: Request, run: Run, failing: Sequence[str]) -> int:
    """Return how many calls for the same purpose failed before this one.

    A real server sends only the generation: 1 for the first call of a queue item. But where a
    step failed before the run went async, the checkpoint was the first attempt
    (docs/protocol.md 6.4). Whether this call still belongs to that item is certain only for a first
    generation that finds those steps done; elsewhere the higher number is taken: a failure that
    is delivered one attempt early is better than a run that never ends.
    """
    exact = request.header(_ATTEMPT)
    if exact.isdecimal():
        return int(exact)
    text = request.header(b"x-inngest-generation-id")
    generation = max(1, int(text)) if text.isdecimal() else 1
    unsure = generation > 1 or any(run.memo_of(step) is None for step in failing)
    return generation if failing and unsure else generation - 1

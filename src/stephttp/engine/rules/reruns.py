"""Running a run again ("rerun"): the new run's request, and the steps that it keeps when it starts
from a step, with edited input or output. Pure.

The new run starts like one that waits: with a call of the endpoint. It has the request, the number
of retries and the event of the old one, and the headers that its SDK has kept in the capsule.

From a step on: the steps that were reported before that step, and are over, are over in the new
run as well, with what they returned or how they failed. That step, and all that were reported
after it, are run again; unless the step is given an output, with which it is over, too, or an
input, which the SDK hands to it instead of what the handler says (docs/protocol.md 5.3). A step
that was planned or ran beside it counts as before it if it was reported first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from stephttp._wire import capsule
from stephttp._wire.ids import CAPSULE, CUT_NAME, is_own, types_id
from stephttp._wire.opcodes import OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import HIDDEN, NewRun, Run, RunStatus, Step
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id, new_ulid

_BARE = frozenset({OpCode.STEP, OpCode.WAIT_FOR_EVENT, OpCode.SLEEP})
"""Ops whose memo is the output itself (docs/protocol.md 5.3)."""

_RUN_BY_THE_HANDLER = frozenset({OpCode.STEP_RUN, OpCode.STEP_ERROR, OpCode.STEP_FAILED})


@dataclass(frozen=True, slots=True)
class Source:
    """A run that is to be repeated, with the steps that it reported, in their order."""

    new: NewRun
    fn_id: str
    retries: int
    request_version: int
    steps: Sequence[Step] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Edit:
    """The differences of the new run.

    Attributes:
        body: of the request.
        step_id: the first step that is run again; `None`: all are.
        output: JSON that this step returns, without being run.
        input: JSON that this step is run with.
    """

    body: bytes | None = None
    step_id: str | None = None
    output: bytes | None = None
    input: bytes | None = None


AS_IT_WAS = Edit()


def repeat(source: Source, edit: Edit, at: Moment) -> tuple[NewRun, Change]:
    """Return the new run, with its first change.

    Raises:
        Refused: the edit does not fit the run.
    """
    run_id = new_ulid(at.now_ms, at.rng)
    old = source.new
    steps = [_copied(step, old.run_id, at.now_ms) for step in _kept(source, edit)]
    own = [replace(step, seq=HIDDEN) for step in steps if _is_own(step)]
    numbered = [step for step in steps if not _is_own(step)]
    numbered = [replace(step, seq=number) for number, step in enumerate(numbered, 1)]
    run = Run(
        run_id=run_id,
        status=RunStatus.ASYNC,
        fn_id=source.fn_id,
        is_of_function=old.events is not None,
        retries=source.retries,
        request_version=source.request_version,
        job_id=new_job_id(at.rng),
        step_count=len(numbered),
        state_size=sum(len(step.memo or b"") for step in steps),
    )
    new = replace(
        old,
        run_id=run_id,
        # No SDK reports the start of this run; this digest only has to differ from all others.
        digest=sha256(run_id.encode()).digest(),
        created_ms=at.now_ms,
        began_ms=at.now_ms,
        body=_body(source, edit),
        rerun_of=old.run_id,
    )
    timer = Timer(RESUME, TimerKind.RESUME, at.now_ms)
    return new, Change(run, steps=(*own, *numbered), timers=(timer,))


def moved(new: NewRun, function: Endpoint) -> NewRun:
    """Return the new run of a function as one at the place where that is served now."""
    return replace(
        new,
        domain=function.domain,
        path=function.path,
        query=function.query or "",
        sdk=function.sdk,
    )


def _kept(source: Source, edit: Edit) -> list[Step]:
    if edit.step_id is None:
        if edit.output is not None or edit.input is not None:
            raise Refused("step_id: must name the step that the output or input is for")
        return [step for step in source.steps if step.step_id == CAPSULE]
    target = next((step for step in source.steps if step.step_id == edit.step_id), None)
    if target is None or _is_own(target):
        run_id = source.new.run_id
        raise Refused(f"step_id: run {run_id} has no step {edit.step_id[:64]!r}", 404)
    if edit.output is not None and edit.input is not None:
        raise Refused("input: a step that is given its output is not run, so it needs no input")
    if edit.input is not None:
        _check_input(target, edit.input)
    kept = [
        step
        for step in source.steps
        if step.memo is not None and step.seq < target.seq and not _is_own(step)
    ]
    owned = {types_id(step.step_id) for step in kept} | {CAPSULE}
    kept += [step for step in source.steps if step.step_id in owned]
    # They have no number; what was cut off before the target began stays so.
    kept += [
        step
        for step in source.steps
        if step.userland_id == CUT_NAME and step.started_ns + step.duration_ns <= target.started_ns
    ]
    if edit.output is not None:
        bare = OpCode(target.op) in _BARE
        memo = edit.output if bare else b'{"data":' + edit.output + b"}"
        kept.append(replace(target, memo=memo, error=None))
    elif edit.input is not None:
        kept.append(replace(target, memo=None, error=None, edited=edit.input))
    return kept


def _is_own(step: Step) -> bool:
    return is_own(step.step_id, step.userland_id)


def _check_input(step: Step, arguments: bytes) -> None:
    if OpCode(step.op) not in _RUN_BY_THE_HANDLER:
        raise Refused(f"input: step {step.step_id} is a {step.op}, which takes none")
    if not arguments.lstrip().startswith(b"["):
        raise Refused("input: must be an array, of the arguments of the step's function")


def _copied(step: Step, run_id: str, now_ms: int) -> Step:
    """Copy a step for the new run, in which it has had no attempt."""
    memo = step.memo
    if step.step_id == CAPSULE and memo is not None:
        memo = _of_another_run(memo, run_id)
    return replace(step, memo=memo, attempts=0, started_ns=now_ms * 1_000_000, duration_ns=0)


def _of_another_run(memo: bytes, run_id: str) -> bytes:
    """Note in a capsule for which run its secrets were sealed."""
    try:
        wrapped = msgspec.json.decode(memo, type=dict[str, dict[str, msgspec.Raw]])
    except msgspec.DecodeError:
        return memo  # Another SDK made it.
    for kept in wrapped.values():
        kept.setdefault(capsule.SEALED_FOR, msgspec.Raw(msgspec.json.encode(run_id)))
    return msgspec.json.encode(wrapped)


def _body(source: Source, edit: Edit) -> bytes | None:
    if edit.body is None:
        return source.new.body
    if source.new.events is not None:
        raise Refused("body: an event started this run, and starts it again as it is")
    memo = next((step.memo for step in source.steps if step.step_id == CAPSULE), None)
    if source.new.body is None and memo is not None and _hides(memo):
        raise Refused("body: it is kept from the engine (omit_request_body), so it stays as it is")
    return edit.body


def _hides(memo: bytes) -> bool:
    """Say whether a capsule may hold a body."""
    try:
        wrapped = msgspec.json.decode(memo, type=dict[str, capsule.Capsule])
    except msgspec.DecodeError:
        return False
    return any(
        kept.sealed is not None or (kept.secrets is not None and kept.secrets.body is not None)
        for kept in wrapped.values()
    )

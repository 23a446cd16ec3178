"""Runs that are repeated, as whole values: what the new run has of the old one."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from stephttp._wire.ids import CAPSULE, CUT_NAME, types_id
from stephttp.engine import Settings
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import HIDDEN, NewRun, Run, RunStatus, Step
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id, new_ulid
from stephttp.engine.rules.reruns import AS_IT_WAS, Edit, Source, repeat

NOW = 1_800_000_000_000
OLD = NewRun(
    run_id="old", app_id="app", slug="slug", digest=b"d", event_id="e", event_name="n",
    event_ts=5, fn="fn", domain="http://app.test", method="PUT", path="/p", query="q=1",
    content_type="text/plain", ip="ip", sdk="sdk", created_ms=6, began_ms=7, body=b"body",
    reads_state=True,
)  # fmt: skip
RNG = Random(1)
NEW_ID = new_ulid(NOW, RNG)
JOB = new_job_id(RNG)


def step(step_id: str, seq: int, memo: bytes | None = b'{"data":1}', **more: Any) -> Step:
    fields: dict[str, Any] = {"op": "StepRun", "userland_id": step_id, **more}
    return Step(
        **{
            "step_id": step_id, "seq": seq, "userland_index": 0, "name": step_id, "memo": memo,
            "attempts": 3, "started_ns": 100 * seq, "duration_ns": 50, **fields,
        }
    )  # fmt: skip


def own(step_id: str, memo: bytes | None, name: str = "stephttp:x", **more: Any) -> Step:
    return step(step_id, HIDDEN, memo, **{"userland_id": name, **more})


SEALED = b'{"data":{"sealed":"AAAA"}}'
CAPSULE_STEP = replace(own(CAPSULE, SEALED), seq=9, userland_id=None)
FIRST, OPEN, SECOND, THIRD = step("a", 1), step("b", 2, None), step("c", 3), step("d", 4)
NAP = step("nap", 5, b"null", op="Sleep")
TYPES = [own(types_id(id_), b'{"data":"t"}', "stephttp:types:") for id_ in "abcd"]
CUTS = [
    own(f"cut{end}", b"{}", CUT_NAME, started_ns=end - 10, duration_ns=10)
    for end in (299, 300, 301)
]
STEPS = [CAPSULE_STEP, FIRST, OPEN, SECOND, THIRD, NAP, *TYPES, *CUTS]


def source(steps: list[Step] = STEPS, **new: Any) -> Source:
    return Source(replace(OLD, **new), "f1", 4, 2, steps)


def again(edit: Edit = AS_IT_WAS, of: Source | None = None) -> tuple[NewRun, Change]:
    return repeat(of or source(), edit, Moment(NOW, Random(1), Settings()))


def fresh(one: Step, **more: Any) -> Step:
    """A step as the new run has it."""
    fields: dict[str, Any] = {"attempts": 0, "started_ns": NOW * 1_000_000, "duration_ns": 0}
    return replace(one, **{**fields, **more})


KEPT_CAPSULE = fresh(CAPSULE_STEP, seq=HIDDEN, memo=b'{"data":{"sealed":"AAAA","run_id":"old"}}')


def test_the_whole_request_again() -> None:
    new, change = again()
    assert new == replace(
        OLD, run_id=NEW_ID, digest=sha256(NEW_ID.encode()).digest(), created_ms=NOW,
        began_ms=NOW, rerun_of="old",
    )  # fmt: skip
    run = Run(
        NEW_ID, RunStatus.ASYNC, fn_id="f1", retries=4, request_version=2, job_id=JOB,
        state_size=len(KEPT_CAPSULE.memo or b""),
    )  # fmt: skip
    timers = (Timer(RESUME, TimerKind.RESUME, NOW),)
    assert change == Change(run, steps=(KEPT_CAPSULE,), timers=timers)


@pytest.mark.parametrize(
    ("edit", "target", "count"),
    [
        (Edit(step_id="c"), [], 1),
        (Edit(step_id="c", output=b"[2]"), [fresh(SECOND, seq=2, memo=b'{"data":[2]}')], 2),
        (Edit(step_id="c", input=b" [2]"), [fresh(SECOND, seq=2, memo=None, edited=b" [2]")], 2),
    ],
)
def test_from_a_step_on(edit: Edit, target: list[Step], count: int) -> None:
    failed = replace(SECOND, error=b"{}", op="StepFailed")
    new, change = again(edit, source([failed if one is SECOND else one for one in STEPS]))
    target = [replace(one, op="StepFailed") for one in target]
    assert change.steps == (
        KEPT_CAPSULE, fresh(TYPES[0]), fresh(CUTS[0]), fresh(CUTS[1]), fresh(FIRST), *target,
    )  # fmt: skip
    assert (new.body, change.run.step_count) == (b"body", count)
    assert change.run.state_size == sum(len(one.memo or b"") for one in change.steps)


def test_the_output_of_a_wait_is_no_data_of_a_step() -> None:
    _, change = again(Edit(step_id="nap", output=b"[2]"))
    assert change.steps[-1] == fresh(NAP, seq=4, memo=b"[2]")
    assert [one.step_id for one in change.steps if one.seq] == ["a", "c", "d", "nap"]


@pytest.mark.parametrize("op", ["Step", "WaitForEvent", "Sleep"])
def test_whose_output_is_their_memo(op: str) -> None:
    _, change = again(Edit(step_id="a", output=b"2"), source([step("a", 1, op=op)]))
    assert [one.memo for one in change.steps] == [b"2"]


@pytest.mark.parametrize("op", ["StepRun", "StepError", "StepFailed"])
def test_which_steps_take_an_input(op: str) -> None:
    _, change = again(Edit(step_id="a", input=b"[]"), source([step("a", 1, op=op)]))
    assert [one.edited for one in change.steps] == [b"[]"]


@pytest.mark.parametrize(
    ("edit", "message", "status"),
    [
        (Edit(output=b"1"), "step_id: must name the step that the output or input is for", 400),
        (Edit(input=b"[]"), "step_id: must name the step that the output or input is for", 400),
        (Edit(step_id="x" * 65), f"step_id: run old has no step '{'x' * 64}'", 404),
        (Edit(step_id=CAPSULE), f"step_id: run old has no step {CAPSULE!r}", 404),
        (Edit(step_id="cut299"), "step_id: run old has no step 'cut299'", 404),
        (Edit(step_id="a", output=b"1", input=b"[]"),
         "input: a step that is given its output is not run, so it needs no input", 400),
        (Edit(step_id="nap", input=b"[]"), "input: step nap is a Sleep, which takes none", 400),
        (Edit(step_id="a", input=b" {}"),
         "input: must be an array, of the arguments of the step's function", 400),
    ],
)  # fmt: skip
def test_edits_that_do_not_fit(edit: Edit, message: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        again(edit)
    assert (str(refused.value), refused.value.status) == (message, status)


@pytest.mark.parametrize(
    ("memo", "kept"),
    [
        (b'{"data":{"a":1}}', b'{"data":{"a":1,"run_id":"old"}}'),
        (b'{"data":{"run_id":"older"}}', b'{"data":{"run_id":"older"}}'),
        (b'{"data":[1]}', b'{"data":[1]}'),
        (None, None),
    ],
)
def test_a_capsule_says_for_which_run_it_was_sealed(memo: bytes | None, kept: bytes | None) -> None:
    _, change = again(of=source([own(CAPSULE, memo), own("o", memo)]))
    assert [one.memo for one in change.steps] == [kept]


HIDES = [b'{"data":{"sealed":"AAAA"}}', b'{"data":{"secrets":{"body":"eA=="}}}']
SHOWS = [None, b"{}", b'{"data":{}}', b'{"data":{"secrets":{}}}', b'{"data":[1]}']


@pytest.mark.parametrize("memo", HIDES)
def test_a_body_that_is_hidden_stays_as_it_is(memo: bytes) -> None:
    hidden = source([FIRST, own(CAPSULE, memo)], body=None)
    with pytest.raises(Refused) as refused:
        again(Edit(b"new"), hidden)
    message = "body: it is kept from the engine (omit_request_body), so it stays as it is"
    assert str(refused.value) == message
    assert again(of=hidden)[0].body is None
    assert again(Edit(b"new"), source([own(CAPSULE, memo)]))[0].body == b"new"


@pytest.mark.parametrize("memo", SHOWS)
def test_another_body_is_given_where_none_is_hidden(memo: bytes | None) -> None:
    for steps in ([own(CAPSULE, memo)], [own("o", HIDES[0])]):
        assert again(Edit(b"new"), source(steps, body=None))[0].body == b"new"

"""`Replay.safe` and the other verdicts: what a replay says of a run. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import httpx2
from msgspec import Struct

from stephttp._core.earlier_calls import EarlierCalls
from stephttp._core.remembered import Divergence
from stephttp.testing.findings import NOWHERE, Finding, Place, changed, excerpt
from stephttp.testing.history import ExportedStep, History, as_bytes
from stephttp.testing.places_in_code import place_of
from stephttp.testing.watched_call import RACE, Met, WatchedCall

_NOT_AUTHORISED = (401, 403)
_BAD = 400
_FAILED = 500


class Replay(Struct, frozen=True):
    """What a replay of a run has found.

    Attributes:
        run_id: the run.
        endpoint: its endpoint.
        findings: what does not fit the code at hand.
        unchecked: why the run could not be replayed; empty if it could.
        met: the ids of the remembered steps that the handler came to, in its order.
        stopped_at: the new steps at which it was ended, with the lines of the code. Remembered
            steps behind one that was added are not seen, if their ids are still in the code.
    """

    run_id: str
    endpoint: str
    findings: tuple[Finding, ...] = ()
    unchecked: str = ""
    met: tuple[str, ...] = ()
    stopped_at: tuple[tuple[str, Place], ...] = ()

    @property
    def safe(self) -> bool:
        """Whether the code at hand accepts everything that is remembered."""
        return not self.findings and not self.unchecked

    def __str__(self) -> str:
        head = f"run {self.run_id} ({self.endpoint})"
        if self.unchecked:
            return f"{head} could not be replayed: {self.unchecked}"
        if self.safe:
            return f"{head} fits the code: {len(self.met)} steps"
        return "\n".join([f"{head} does not fit the code:", *(f"  {one}" for one in self.findings)])


def unchecked(history: History, reason: str) -> Replay:
    """Return that a run could not be replayed."""
    return Replay(history.run.id, history.run.endpoint, unchecked=reason)


def judge(
    history: History,
    calls: Sequence[WatchedCall],
    reply: httpx2.Response,
    error: BaseException | None,
) -> Replay:
    """Compare a history with what the handler did.

    Args:
        history: of the run.
        calls: of its handler, which were watched; more than one if it calls itself.
        reply: of the application, to the server.
        error: what it raised, as far as that is known.
    """
    watched = next((call for call in calls if call.run.run_id == history.run.id), None)
    if watched is None:
        return unchecked(history, _why_refused(reply))
    met = tuple(one.title for one in watched.met if one.known)
    stopped = tuple(
        (one.title, one.place) for one in watched.met if not one.known and one.kind != RACE
    )
    if watched.responded and not watched.met and history.user_steps:
        found, why = _not_reached(history, watched, error)
    elif watched.left_branches and watched.run.suspended and _left(history, watched):
        found, why = [], _WAITS_ELSEWHERE
    else:
        found, why = _of_steps(history, watched), ""
        if not (found and watched.run.suspended):
            found += _of_end(history, watched, error)
    return Replay(history.run.id, history.run.endpoint, tuple(found), why, met, stopped)


_WAITS_ELSEWHERE = (
    "a branch of the handler waits for something that is not a step, so it cannot be known which "
    "steps it would come to"
)


def _why_refused(reply: httpx2.Response) -> str:
    return (
        f"the application did not let the call of the server in: it answered {reply.status_code} "
        f"({excerpt(reply.text) or 'without a body'}); is the durable middleware on this path, and "
        "the signing key the one of the run?"
    )


def _not_reached(
    history: History, watched: WatchedCall, error: BaseException | None
) -> tuple[list[Finding], str]:
    """Judge a call that responded without coming to any step."""
    status, body = watched.answer
    if status in _NOT_AUTHORISED and history.lacks_secrets:
        return [], (
            f"the application answered {status}, and the history has no secrets; give "
            "`headers={'authorization': ...}` to the replay"
        )
    what = f"the application answered {status}"
    if error is not None:
        what = f"it raised {type(error).__name__}: {error}"
    first = history.user_steps[0]
    message = (
        f"the handler came to no step, {what} ({excerpt(body.decode(errors='replace'), 100)}); "
        f"{len(history.user_steps)} steps are remembered, the first of them {first.title!r}"
    )
    place = NOWHERE if error is None else place_of(error.__traceback__)
    return [Finding("not_reached", message, first.title, first.kind, place)], ""


def _of_steps(history: History, watched: WatchedCall) -> list[Finding]:
    """Return the remembered steps that the handler did not come to, or as another kind."""
    earlier: EarlierCalls = watched.run.earlier
    noted = {one.step_hash: one for one in earlier.divergences(ended=False)}
    left = _left(history, watched)
    found = [_changed(noted[step.hash], watched) for step in left if step.hash in noted]
    lost = [step for step in left if step.hash not in noted]
    if _instead(watched) is None:
        return [*found, *(_not_met(step, watched) for step in lost)]
    # Behind the new step at which the handler was ended, it might come to them.
    texts = {text for one in watched.met for text in one.texts}
    if lost and all(step.id in texts for step in lost):
        return found  # what is new was added before them
    return found or [_not_met(step, watched, lost[1:]) for step in lost[:1]]


def _changed(change: Divergence, watched: WatchedCall) -> Finding:
    uses = [one for one in watched.met if one.step.step_id == change.step_id.partition(":")[0]]
    use = next((one for one in uses if one.kind == change.now), None)
    return changed(change, NOWHERE if use is None else use.place)


def _left(history: History, watched: WatchedCall) -> list[ExportedStep]:
    """Return the remembered steps that the handler surely did not come to."""
    met = {one.step.hash for one in watched.met}
    # A branch that was given up might have come to what seems to be left over.
    unsure = watched.cut_short or any(one.kind == RACE for one in watched.met)
    return [
        step
        for step in history.user_steps
        if step.hash not in met and not (step.branch and unsure) and _counts(step, watched)
    ]


def _counts(step: ExportedStep, watched: WatchedCall) -> bool:
    cuts = watched.run.cuts
    return cuts is None or cuts.earlier(step.hash) is None


def _not_met(
    step: ExportedStep, watched: WatchedCall, further: Sequence[ExportedStep] = ()
) -> Finding:
    was = f"a step.{step.kind}" if step.kind else "a step"
    state = "remembered" if step.is_done else "waited for"
    instead = _instead(watched)
    place = NOWHERE if instead is None else instead.place
    came = "the handler responds without it"
    if instead is not None:
        came = f"the handler comes to step {instead.title!r} (step.{instead.kind}) instead"
    elif watched.run.suspended:
        came = "the handler does not come to it"
    message = f"step {step.title!r}, which is {was}, is {state}, but {came}"
    if further:
        names = ", ".join(repr(one.title) for one in further)
        message += f"; so it is not known whether it would come to {names}"
    return Finding(
        "step_not_met", message, step.title, step.kind, place, step.title,
        "" if instead is None else instead.title,
    )  # fmt: skip


def _instead(watched: WatchedCall) -> Met | None:
    """Return the new step at which the handler was ended."""
    new = [one for one in watched.met if not one.known and one.kind != RACE]
    return new[-1] if new and watched.run.suspended else None


def _of_end(history: History, watched: WatchedCall, error: BaseException | None) -> list[Finding]:
    """Return what differs in how the handler ended."""
    if not watched.responded:
        return _goes_further(history, watched)
    status, body = watched.answer
    if history.response is None or history.run.status == "cancelled":
        return _failed(history, status, error or watched.error)
    return _of_answer(history, status, body, error or watched.error)


def _goes_further(history: History, watched: WatchedCall) -> list[Finding]:
    new = _instead(watched)
    if history.run.status != "completed" or new is None:
        return []
    message = (
        f"the run had ended, but the handler comes to the new step {new.title!r} (step.{new.kind})"
    )
    return [Finding("new_step", message, new.title, new.kind, new.place, "", new.title)]


def _failed(history: History, status: int, error: BaseException | None) -> list[Finding]:
    if status < _FAILED:
        return []
    raised = (
        f"raised {type(error).__name__}: {error}" if error is not None else f"answered {status}"
    )
    place = NOWHERE if error is None else place_of(error.__traceback__)
    return [Finding("handler_failed", f"the handler {raised}", place=place, now=raised)]


def _of_answer(
    history: History, status: int, body: bytes, error: BaseException | None
) -> list[Finding]:
    assert history.response is not None
    before = history.response
    if before.status != status:
        place = NOWHERE
        message = f"the answer has the status {status}, and had {before.status}"
        if error is not None and status >= _FAILED:
            place = place_of(error.__traceback__)
            message += f": the handler raised {type(error).__name__}: {error}"
        now = str(status)
        return [Finding("answer_differs", message, "", "", place, str(before.status), now)]
    had = as_bytes(before.body)
    if status >= _FAILED or _is_same(had, body):
        return []
    texts = (excerpt(had.decode(errors="replace")), excerpt(body.decode(errors="replace")))
    message = f"the answer differs: it was {texts[0]!r}, and is {texts[1]!r}"
    return [Finding("answer_differs", message, before=texts[0], now=texts[1])]


def _is_same(before: bytes, now: bytes) -> bool:
    """Return whether two bodies say the same; masks may have changed the spaces in JSON."""
    if before == now:
        return True
    try:
        return bool(json.loads(before) == json.loads(now))
    except ValueError:
        return False

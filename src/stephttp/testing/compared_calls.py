"""`always_replay`'s comparison of two calls of one run: what the later one did in another way.
Pure.

A call of a handler comes to every step that the call before it came to: those that have ended give
back what they gave, and the last one, which was left to it, now runs. It gives each of them what
it gave before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from stephttp.testing.findings import NOWHERE, Finding, Place, excerpt
from stephttp.testing.watched_call import RACE, Met


class Trace(Struct, frozen=True):
    """What one call of a handler did.

    Attributes:
        number: of the call, from 1.
        met: the steps that it came to, in its order.
        responded: whether it responded, and was not ended.
        sure: whether it would have come to all steps that it could; not where it gave branches up.
        error: what it raised, as text.
        place: the line that raised it.
    """

    number: int
    met: tuple[Met, ...]
    responded: bool
    sure: bool
    error: str = ""
    place: Place = NOWHERE


def compared(before: Trace, now: Trace) -> Iterator[Finding]:
    """Return what a call did otherwise than the one before it."""
    had = {one.step.hash: one for one in before.met}
    has = {one.step.hash: one for one in now.met}
    for key, met in has.items():
        if key in had:
            yield from _given(had[key], met, before, now)
    if not now.sure:
        return
    lost = [one for key, one in had.items() if key not in has and one.kind != RACE]
    if not lost:
        yield from _added(had, before, now)
        return
    new = [one for key, one in has.items() if key not in had and one.kind != RACE]
    if now.error:
        yield _failed(lost[0], before, now)
        return
    yield from _lost(lost, new, before, now)


def mutated(met: Met, name: str, now: str) -> Finding:
    """Return the finding of a step whose body has changed what it was given."""
    before = met.given[name]
    message = (
        f"the body of step {met.title!r} has changed {name} from {excerpt(before)} to "
        f"{excerpt(now)}; a later call does not run the body, and has the value as it was: return "
        "what is new"
    )
    return Finding("argument_mutated", message, met.title, met.kind, met.place, before, now)


def _given(had: Met, has: Met, before: Trace, now: Trace) -> Iterator[Finding]:
    for name, text in has.given.items():
        was = had.given.get(name, text)
        if was == text:
            continue
        what = "the same in another order" if sorted(was) == sorted(text) else "another value"
        message = (
            f"step {has.title!r} gets {what} in call {now.number} as {name}: it was "
            f"{excerpt(was)} in call {before.number}, and is {excerpt(text)}"
        )
        yield Finding(
            "arguments_differ", message, has.title, has.kind, has.place, was, text
        )  # fmt: skip


def _added(had: Collection[str], before: Trace, now: Trace) -> Iterator[Finding]:
    """Return the new steps before one that the call before had come to without them."""
    for number, one in enumerate(now.met):
        if one.step.hash in had or one.kind == RACE or one.step.branch:
            continue
        behind = (met for met in now.met[number:] if met.step.hash in had and met.task == one.task)
        if (known := next(behind, None)) is not None:
            message = (
                f"call {now.number} comes to step {one.title!r} before step {known.title!r}, and "
                f"call {before.number} came there without it"
            )
            yield Finding("step_added", message, one.title, one.kind, one.place, "", one.title)


def _failed(lost: Met, before: Trace, now: Trace) -> Finding:
    message = (
        f"call {now.number} raised {now.error}, where call {before.number} came to step "
        f"{lost.title!r} ({lost.place})"
    )
    return Finding(
        "handler_failed", message, lost.title, lost.kind, now.place, lost.title, now.error
    )


def _lost(lost: Sequence[Met], new: Sequence[Met], before: Trace, now: Trace) -> Iterator[Finding]:
    left = list(new)
    for one in lost:
        twin = next((other for other in left if _is_twin(one, other)), None)
        if twin is not None:
            left.remove(twin)
            message = (
                f"the id of this step is {twin.title!r} in call {now.number}, and was "
                f"{one.title!r} in call {before.number}: so it is a new step, and runs again"
            )
            yield Finding(
                "id_differs", message, twin.title, twin.kind, twin.place, one.title, twin.title
            )
            continue
        instead = f"came to step {new[0].title!r} ({new[0].place})" if new else "did not"
        if not new and now.responded:
            instead = "responded without it"
        place = new[0].place if new else one.place
        message = (
            f"call {before.number} came to step {one.title!r} (step.{one.kind}, {one.place}), and "
            f"call {now.number} {instead}"
        )
        yield Finding(
            "step_not_met", message, one.title, one.kind, place, one.title,
            new[0].title if new else "",
        )  # fmt: skip


def _is_twin(one: Met, other: Met) -> bool:
    return one.kind == other.kind and one.place == other.place and bool(one.place.file)

"""`crash_everywhere`: runs a test once for each boundary at which its process may die; see
`crashes`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import httpx2
from msgspec import Struct

from stephttp.errors import UsageError
from stephttp.testing.blocking_call import Call
from stephttp.testing.blocking_client import DurableClient
from stephttp.testing.crashes import Boundary, Crashes
from stephttp.testing.findings import excerpt
from stephttp.testing.side_effects import CountingClient, Effects, SideEffects, check_allowed
from stephttp.testing.world import World

_MOST = 2_000
"""Boundaries of one test; each costs a run of it."""
_MOST_TURNS = 100
"""How often the clock moves for runs whose callers got no answer."""
_NOTHING = (
    "the test returned nothing, so that no answer could differ; return what its requests give: "
    "`return client.post(...)`"
)
_NO_STEP = (
    "no request of the test came to a step, so that the process could die nowhere; send a request "
    "whose handler has steps"
)
_TOO_MANY = "the test has {} boundaries, and {} are tried at most; split it"


class CrashError(AssertionError):
    """A test that has another outcome when the process dies somewhere.

    Attributes:
        failures: what is different, by boundary; `None` stands for a run without a crash.
    """

    def __init__(self, failures: list[tuple[Boundary | None, str]]) -> None:
        lines = "\n".join(f"  {_where(at)}: {what}" for at, what in failures)
        super().__init__(f"not everything is as it was when the process dies:\n{lines}")
        self.failures = failures


class CrashReport(Struct, frozen=True):
    """What `crash_everywhere` did.

    Attributes:
        boundaries: at each of them the process died once.
        answer: what the test returned each time.
        unanswered: those at which the caller got no answer, since the first call had not ended. The
            side effects were counted all the same.
    """

    boundaries: tuple[Boundary, ...]
    answer: Any
    unanswered: tuple[Boundary, ...]


def crash_everywhere(
    test: Callable[[DurableClient], Any],
    app: Any,
    *,
    effects: Effects | None = None,
    allowed: Mapping[str, int | Collection[int]] | None = None,
    **options: Any,
) -> CrashReport:
    """Run a test once for each boundary, and let the process of the application die there.

    Boundaries are the end of each step's function, before and behind everything that the SDK sends
    to the engine, and before each answer of the application. They come from a first run of the
    test, in which nothing dies.

    Args:
        test: gets a client, and returns the answer: a call, a response, or anything else that can
            be compared. It sets up what it needs itself, since it runs many times.
        app: the application, as for `DurableClient`.
        effects: for each side effect, what counts how often it has happened so far. The test must
            never reset a count, which may only grow.
        allowed: how often each of them may happen in one run of the test: a number, or several
            (`range(1, 3)`); by default exactly once.
        **options: of `DurableClient`.

    Returns:
        What was done.

    Raises:
        CrashError: an answer differs, or a side effect happened more or less often. Where the
            caller gets no answer, because the first call died, less is allowed.
        UsageError: a count of a side effect has fallen, `allowed` names one that is not in
            `effects`, or the test could find nothing: it returned nothing, or came to no step.
        Exception: what the test raises without a crash.
    """
    effects, allowed = effects or {}, allowed or {}
    check_allowed(allowed, effects)
    first = _Outcome.of(test, app, Crashes(), effects, options)
    if first.error is not None:
        raise first.error
    boundaries = first.crashes.seen
    if not first.crashes.has_met_step:
        raise UsageError(_NO_STEP)
    if first.answer is None:
        raise UsageError(_NOTHING)
    if len(boundaries) > _MOST:
        raise UsageError(_TOO_MANY.format(len(boundaries), _MOST))
    failures: list[tuple[Boundary | None, str]] = []
    failures += [(None, what) for what in _wrong_counts(first, allowed)]
    died: list[Boundary] = []
    unanswered: list[Boundary] = []
    for boundary in boundaries:
        again = _Outcome.of(test, app, Crashes(boundary.number), effects, options)
        at = again.crashes.died_at
        if at is None:  # what is sent in the background may go together with something else
            continue
        died.append(at)
        if again.lost:
            unanswered.append(at)
        failures += [(at, what) for what in _differences(first, again, at, allowed)]
    if failures:
        raise CrashError(failures)
    return CrashReport(tuple(died), first.answer, tuple(unanswered))


class _Outcome(Struct):
    """What came of one run of the test."""

    crashes: Crashes
    answer: Any
    error: Exception | None
    counts: dict[str, int]

    @classmethod
    def of(
        cls,
        test: Callable[[DurableClient], Any],
        app: Any,
        crashes: Crashes,
        effects: Effects,
        options: Mapping[str, Any],
    ) -> _Outcome:
        answer: Any = None
        failed: Exception | None = None
        client = CountingClient(app, **options)
        client.side_effects = side_effects = SideEffects(effects)
        client._world.crashes = crashes
        client.open()
        try:
            try:
                answer = _plain(test(client))
            except Exception as error:
                failed = error
                client._opened.call(_let_end(client._world))
        finally:
            client.close()
        return cls(crashes, answer, failed, side_effects.since())

    @property
    def lost(self) -> bool:
        """Whether the caller got no answer, because the first call died."""
        at = self.crashes.died_at
        return isinstance(self.error, httpx2.ReadError) and at is not None and at.first_call


async def _let_end(world: World) -> None:
    """Let time pass for the runs whose callers got no answer, until they have ended."""
    await world.settle()
    for _ in range(_MOST_TURNS):
        if all(run.ended for run in await world.runs()) or not await world.turn():
            return


def _plain(answer: Any) -> Any:
    """Return an answer in a form that can be compared."""
    if isinstance(answer, Call):
        answer = answer.response
    if isinstance(answer, httpx2.Response):
        return answer.status_code, answer.text
    if type(answer) in (list, tuple):
        return type(answer)(map(_plain, answer))
    if type(answer) is dict:
        return {name: _plain(one) for name, one in answer.items()}
    return answer


def _wrong_counts(
    outcome: _Outcome, allowed: Mapping[str, int | Collection[int]], *, less: bool = False
) -> list[str]:
    found: list[str] = []
    for name, count in outcome.counts.items():
        wanted = allowed.get(name, 1)
        numbers = {wanted} if isinstance(wanted, int) else set(wanted)
        if count not in numbers and not (less and count <= max(numbers)):
            text = " or ".join(map(str, sorted(numbers)))
            found.append(f"the side effect {name!r} happened {count} times, and not {text}")
    return found


def _differences(
    first: _Outcome,
    again: _Outcome,
    at: Boundary,
    allowed: Mapping[str, int | Collection[int]],
) -> list[str]:
    found = _wrong_counts(again, allowed, less=again.lost)
    if again.lost:
        return found
    if again.error is not None:
        text = f"{type(again.error).__name__}: {excerpt(str(again.error), 500)}"
        return [f"the test raised {text}", *found]
    if again.answer != first.answer:
        answers = excerpt(repr(first.answer)), excerpt(repr(again.answer))
        found.insert(0, f"the answer was {answers[0]}, and is {answers[1]}")
    return found


def _where(at: Boundary | None) -> str:
    return "without a crash" if at is None else f"the process dies at {at}"

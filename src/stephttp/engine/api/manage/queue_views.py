"""`/v1/stephttp/queues`: what waits behind which limit."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.clock import rfc3339
from stephttp.engine.web.fields import AnswerBody, Time, Uuid, one_of
from stephttp.engine.web.requests import engine_of
from stephttp.engine.web.responses import wrapped


class LimitItem(AnswerBody):
    """A limit that calls of a function have to pass, for one value of its key.

    Without `period_ms`, `most` is how many calls may be under way at a time; with it, how many runs
    may start in a period, and `burst` how many more at once. `opens_at`: when the next run may
    start, if none may now.
    """

    function_id: Uuid
    function: str
    key: str
    most: int
    period_ms: int | None
    burst: int
    under_way: int
    waiting: int
    opens_at: Time | None


class HeldItem(AnswerBody):
    """Events that are held until they start one run of a function, for one value of a key."""

    function_id: Uuid
    function: str
    key: str
    hold: Annotated[str, one_of("debounce", "batch")]
    events: Annotated[int, Meta(ge=1)]
    since: Time
    due_at: Time


class WaitingOrigin(AnswerBody):
    """An application that has no room for calls that are due."""

    origin: str
    waiting: int


class QueuesAnswer(AnswerBody):
    """What waits. Of limits and of held events at most 200 are listed, those with the most calls
    that wait, and those that are due first; `limits_in_all` and `held_in_all` count them."""

    limits: list[LimitItem]
    limits_in_all: int
    held: list[HeldItem]
    held_in_all: int
    applications: list[WaitingOrigin]


async def queues(request: Request) -> Response:
    """Return what waits behind which limit."""
    engine = engine_of(request)
    found, origins = await engine.reader.queues(), await engine.reader.waiting_by_origin()
    used = engine.executor.gates.used
    answer = QueuesAnswer(
        limits=[
            LimitItem(
                function_id=one.fn_id,
                function=one.slug,
                key=one.key,
                most=one.most,
                period_ms=one.period_ms,
                burst=one.burst,
                under_way=used[one.name],
                waiting=one.waiting,
                opens_at=rfc3339(one.opens_ms),
            )
            for one in found.gates
        ],
        limits_in_all=found.gates_in_all,
        held=[
            HeldItem(
                function_id=one.fn_id,
                function=one.slug,
                key=one.key,
                hold=one.hold,
                events=one.events,
                since=rfc3339(one.opened_ms),
                due_at=rfc3339(one.due_ms),
            )
            for one in found.held
        ],
        held_in_all=found.held_in_all,
        applications=[WaitingOrigin(*one) for one in sorted(origins.items())],
    )
    return wrapped(answer, engine.clock.now_ms())

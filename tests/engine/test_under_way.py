"""Which process may work on a call that is delivered more than once; the processes of an origin."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from stephttp._wire import stored_state
from stephttp._wire.stored_state import RESENT_AFTER, CallId
from stephttp.engine.model.call import EndpointCall, ResumeState
from stephttp.engine.model.clock import VirtualClock
from stephttp.engine.model.settings import Settings
from stephttp.engine.outbound.connection import HTTPRequest
from stephttp.engine.outbound.reentry_call import EndpointCaller
from stephttp.engine.outbound.under_way import Heard, Processes, UnderWay
from stephttp.engine.rules.answers import HTTPResponse

CURRENT, SUPERSEDED, UNSURE, TAKEN = Heard
LATER = RESENT_AFTER


def call(process: str, delivery: str = "d1", step: str = "") -> CallId:
    return CallId("job", 0, step, delivery, process)


@pytest.mark.parametrize(
    ("receiver", "heard"),
    [
        # The first one that asks has it.
        ("", [("one", 0, CURRENT), ("two", 0, TAKEN), ("one", 0, CURRENT), ("two", LATER, TAKEN)]),
        # The one that the state was sent to has it, once it was heard of.
        ("one", [("one", 0, CURRENT), ("two", 0, TAKEN), ("two", LATER, TAKEN)]),
        ("one", [("two", 0, UNSURE), ("one", 0.5, CURRENT), ("two", LATER, TAKEN)]),
        # It has not got the call, and another one has.
        ("one", [("two", 0, UNSURE), ("two", LATER, CURRENT), ("one", LATER, TAKEN)]),
        # An SDK that does not name its process is not told apart.
        ("", [("one", 0, CURRENT), ("", 0, CURRENT)]),
    ],
)
def test_a_delivery_counts_for_one_process(
    receiver: str, heard: list[tuple[str, float, Heard]]
) -> None:
    under_way = UnderWay()
    under_way.send(("run", ""), "d1", receiver, 0)
    said = [under_way.hear("run", call(process), at) for process, at, _ in heard]
    assert said == [expected for *_, expected in heard]


def test_only_the_sending_counts_that_is_waited_for() -> None:
    under_way = UnderWay()
    assert under_way.hear("run", call("one"), 0) is SUPERSEDED
    under_way.send(("run", ""), "d1", "", 0)
    assert under_way.hear("run", call("one"), 0) is CURRENT
    under_way.send(("run", ""), "d2", "", 0)
    assert under_way.hear("run", call("one"), 0) is SUPERSEDED
    assert under_way.hear("run", call("two", "d2"), 0) is CURRENT
    assert under_way.hear("run", call("two", "d2", "step"), 0) is SUPERSEDED
    assert under_way.hear("run", CallId("job", 0), 0) is CURRENT, "an SDK without deliveries"
    assert under_way.forget(("run", ""))
    assert under_way.hear("run", call("two", "d2"), 0) is SUPERSEDED
    assert not under_way.forget(("run", ""))


def test_a_process_may_be_at_work_if_it_was_heard_of_or_had_the_state() -> None:
    under_way, key = UnderWay(), ("run", "")
    assert not under_way.may_be_at_work(key)
    under_way.send(key, "d1", "", 0)
    assert not under_way.may_be_at_work(key)
    under_way.hear("run", call("one"), 0)
    assert under_way.may_be_at_work(key)
    under_way.send(key, "d2", "one", 0)
    assert under_way.may_be_at_work(key)


def test_an_origin_has_one_process_as_long_as_no_other_was_heard_of() -> None:
    processes = Processes()
    assert processes.only("http://a", 0) == ""
    processes.note("http://a", "one", 0)
    processes.note("http://b", "", 0)
    processes.note("http://b", "not\r\na-header", 0)
    assert (processes.only("http://a", 0), processes.only("http://b", 0)) == ("one", "")
    processes.note("http://a", "two", 10)
    assert processes.only("http://a", 3609) == ""
    assert processes.only("http://a", 3610) == "two"
    processes.note("http://a", "one", 3000)
    processes.note("http://a", "one", 3001)
    assert processes.only("http://a", 6599) == ""
    for number in range(5000):
        processes.note(f"http://{number}", "one", 0)
    assert processes.only("http://a", 9999) == "", "the memory is bounded"


class Closing:
    """A sender whose kept connection breaks after each request has been received."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, HTTPRequest]] = []
        self.received = asyncio.Event()
        self.breaks = asyncio.Event()

    async def send(self, request: HTTPRequest, limit: int) -> HTTPResponse:
        self.sent.append((self.clock.now(), request))
        self.received.set()
        await self.breaks.wait()
        assert request.again is not None
        again = await request.again()
        self.sent.append((self.clock.now(), again))
        return HTTPResponse(206, [], again.body)

    async def close(self) -> None: ...


@pytest.mark.parametrize(("state", "asks", "waits"), [
    (False, False, False),  # nobody can have begun
    (True, False, True),
    (False, True, True),
])  # fmt: skip
async def test_a_call_that_may_be_at_work_is_not_sent_again_before_that_has_to_ask(
    state: bool, asks: bool, waits: bool
) -> None:
    clock = VirtualClock()
    caller = EndpointCaller(Settings(), clock, random.Random(1))
    sender: Any = Closing(clock)
    caller._sender = sender
    caller.note_process("http://app", "one")
    made = EndpointCall(
        "01M81KWY2JTNRXZTV817ZB746V", "job", 0, 2, "", "", "http://app", "POST", "/", "", "",
        state=ResumeState(b"{}") if state else None,
    )  # fmt: skip
    answer = asyncio.create_task(caller.call(made))
    await sender.received.wait()
    delivery = sender.sent[0][1].headers[stored_state.DELIVERY]
    named = CallId("job", 0, "", delivery, "one")
    if asks:
        assert caller.hear(made.run_id, named) is CURRENT
    sender.breaks.set()
    for _ in range(9):
        await asyncio.sleep(0)
    assert len(sender.sent) == (1 if waits else 2)
    assert caller.hear(made.run_id, named) is SUPERSEDED, "it may not begin another step"
    clock.advance(RESENT_AFTER)
    await answer
    (_, first), (at, second) = sender.sent
    assert at == clock.now() - (0 if waits else RESENT_AFTER)
    assert (stored_state.SIZE in first.headers, stored_state.SIZE in second.headers) == (
        state, False,
    )  # fmt: skip
    assert first.headers[stored_state.DELIVERY] != second.headers[stored_state.DELIVERY]

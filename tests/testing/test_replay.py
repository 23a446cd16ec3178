"""Replays of histories against the code that wrote them, and against other code."""

import asyncio
import inspect
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
from fastapi import FastAPI, Header, HTTPException, Request

import stephttp
from stephttp import step
from stephttp.errors import ConfigurationError
from stephttp.sync import step as blocking
from stephttp.testing import History, replay
from tests.testing.shop_histories import KEY, Handler, app_of, recorded

NAP = timedelta(minutes=1)
ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    ran.clear()


def note(text: str) -> str:
    ran.append(text)
    return text


def line_of(handler: Handler, text: str) -> int:
    lines, first = inspect.getsourcelines(handler)
    return first + next(number for number, line in enumerate(lines) if text in line)


async def order() -> str:
    await step.run("charge", note, "charge")
    await step.sleep("pack", NAP)
    return "done"


async def renamed() -> str:
    await step.run("debit", note, "debit")
    await step.sleep("pack", NAP)
    return "done"


async def of_another_kind() -> str:
    await step.sleep("charge", NAP)
    await step.sleep("pack", NAP)
    return "done"


async def side_by_side() -> str:
    await asyncio.gather(step.run("charge", note, "charge"), step.sleep("pack", NAP))
    return "done"


async def longer() -> str:
    await step.run("charge", note, "charge")
    await step.sleep("pack", NAP)
    await step.run("more", note, "more")
    return "done"


async def with_a_step_before_the_wait() -> str:
    await step.run("charge", note, "charge")
    await step.run("audit", note, "audit")
    await pack()
    return "done"


async def pack() -> None:
    await step.sleep("pack", NAP)


async def with_another_wait() -> str:
    await step.run("charge", note, "charge")
    await step.sleep("packing", NAP)
    return "done"


async def waiting_for_something_else() -> str:
    await step.run("charge", note, "charge")
    await step.wait_for_event("pack", event="packed", timeout=NAP)
    return "done"


async def in_another_order() -> str:
    await asyncio.gather(step.sleep("pack", NAP), step.run("charge", note, "charge"))
    return "done"


async def failing() -> str:
    await step.run("charge", note, "charge")
    raise ValueError("out of stock")


async def answering_otherwise() -> str:
    await step.run("charge", note, "charge")
    await step.sleep("pack", NAP)
    return "sent"


def order_blocking() -> str:
    blocking.run("charge", note, "charge")
    blocking.sleep("pack", NAP)
    return '"done"'


def renamed_blocking() -> str:
    blocking.run("debit", note, "debit")
    blocking.sleep("pack", NAP)
    return '"done"'


def of_another_kind_blocking() -> str:
    blocking.sleep("charge", NAP)
    return '"done"'


def failing_blocking() -> str:
    blocking.run("charge", note, "charge")
    raise ValueError("out of stock")


CASES: list[tuple[Handler, list[tuple[str, str, str]], list[tuple[str, str, str]]]] = [
    # the code; its findings for a run that waits, and for one that has ended: kind, step, line
    (order, [], []),
    (order_blocking, [], []),
    (side_by_side, [], []),
    (longer, [], [("new_step", "more", '"more"')]),
    (renamed, [("step_not_met", "charge", '"debit"')], [("step_not_met", "charge", '"debit"')]),
    (
        renamed_blocking,
        [("step_not_met", "charge", '"debit"')],
        [("step_not_met", "charge", '"debit"')],
    ),
    (
        of_another_kind,
        [("step_changed", "charge", '"charge"')],
        [("step_changed", "charge", '"charge"')],
    ),
    (
        of_another_kind_blocking,
        [("step_changed", "charge", '"charge"')],
        [("step_changed", "charge", '"charge"')],
    ),
    (
        failing,
        [("step_not_met", "pack", ""), ("handler_failed", "", "raise")],
        [("step_not_met", "pack", ""), ("answer_differs", "", "raise")],
    ),
    (
        failing_blocking,
        [("step_not_met", "pack", ""), ("handler_failed", "", "raise")],
        [("step_not_met", "pack", ""), ("answer_differs", "", "raise")],
    ),
    (with_a_step_before_the_wait, [], [("new_step", "audit", '"audit"')]),
    (
        with_another_wait,
        [("step_not_met", "pack", '"packing"')],
        [("step_not_met", "pack", '"packing"')],
    ),
    (
        waiting_for_something_else,
        [("step_changed", "pack", '"pack"')],
        [("step_changed", "pack", '"pack"')],
    ),
    (in_another_order, [], []),
    (answering_otherwise, [], [("answer_differs", "", "")]),
]


async def test_replays_find_what_does_not_fit() -> None:
    for handler in (order, order_blocking):
        waiting, ended = await recorded(handler)
        assert (waiting.run.status, ended.run.status) == ("waiting", "completed")
        ran.clear()
        for code, in_waiting, in_ended in CASES:
            for history, expected in ((waiting, in_waiting), (ended, in_ended)):
                found = replay(history, app_of(code))
                assert [(one.kind, one.step) for one in found.findings] == [
                    (kind, step_id) for kind, step_id, _ in expected
                ], f"{code.__name__}: {found}"
                for one, (_, _, text) in zip(found.findings, expected, strict=True):
                    assert one.line == (line_of(code, text) if text else 0), one
                    assert one.file == (__file__ if text else "")
                assert found.safe == (not expected)
    assert ran == []


async def test_a_finding_says_what_where_and_which_kind() -> None:
    waiting, _ = await recorded(order)
    (one,) = replay(waiting, app_of(renamed)).findings
    assert one.tool == "run"
    assert (one.before, one.now) == ("charge", "debit")
    assert str(one).startswith(f"tests/testing/test_replay.py:{one.line}: step 'charge', which is")
    (one,) = replay(waiting, app_of(of_another_kind)).findings
    assert (one.before, one.now) == ("run", "sleep")


async def test_a_history_is_a_file(tmp_path: Path) -> None:
    _, ended = await recorded(order)
    file = tmp_path / "run.json"
    file.write_text(ended.dump())
    assert replay(file, app_of(order)).safe
    assert replay(json.loads(file.read_text()), app_of(order)).safe
    assert replay(file.read_text(), app_of(renamed)).findings
    assert History.load(file) == History.load(str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a history"),
        ('{"a": 1}', "has the format ''"),
        ('{"format": "stephttp-history", "version": 2}', "up to version 1"),
        ('{"format": "stephttp-history", "version": 1, "steps": 3}', "damaged"),
    ],
)
def test_what_is_no_history_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replay(text, app_of(order))


async def secret_order(request: Request, authorization: str = Header("")) -> Any:
    if authorization != "Bearer abc":
        raise HTTPException(401, "who are you?")
    total = await step.run("price", lambda: 12)
    await step.sleep("pack", NAP)
    return {"total": total, "body": (await request.body()).decode()}


async def test_headers_that_were_sealed_come_back_with_the_key() -> None:
    given: dict[str, Any] = {"headers": {"authorization": "Bearer abc"}, "content": b"x"}
    waiting, ended = await recorded(secret_order, method="POST", **given)
    app = app_of(secret_order, "POST")
    assert replay(waiting, app).safe
    assert replay(ended, app).safe
    assert replay(ended, app_of(secret_order, "POST", signing_key="cd" * 16)).unchecked


async def test_a_route_that_is_gone_is_found() -> None:
    waiting, _ = await recorded(order)
    provider = stephttp.setup("http://app.test")
    for app in (provider.asgi(FastAPI()), provider.wsgi(flask.Flask("gone"))):
        (one,) = replay(waiting, app).findings
        assert one.kind == "not_reached"
        assert "404" in one.message


async def test_steps_behind_no_middleware_do_not_run() -> None:
    waiting, _ = await recorded(order)
    provider = stephttp.setup("http://app.test")
    inner = FastAPI()
    inner.get("/orders")(order)
    outer = FastAPI()
    outer.mount("/durable", provider.asgi(FastAPI()))
    outer.mount("/", inner)
    ran.clear()
    assert "did not let the call of the server in" in replay(waiting, outer).unchecked
    assert ran == []


async def races() -> str:
    async def slow() -> str:
        await step.sleep("slow", 5 * NAP)
        return "slow"

    async def fast() -> str:
        await step.sleep("fast", NAP)
        return "fast"

    won = await step.race("won", (slow, fast))
    await step.sleep("pack", NAP)
    return won


async def cut_short() -> str:
    await step.run("charge", note, "charge")
    try:
        async with asyncio.timeout(0.001):
            await step.run("slow", asyncio.sleep, 5)
    except TimeoutError:
        await step.run("late", note, "late")
    await step.sleep("pack", NAP)
    return "done"


def races_blocking() -> str:
    def slow() -> str:
        blocking.sleep("slow", 5 * NAP)
        return "slow"

    def fast() -> str:
        blocking.sleep("fast", NAP)
        return "fast"

    won = blocking.race("won", (slow, fast))
    blocking.sleep("pack", NAP)
    return won


def branches_blocking() -> str:
    blocking.parallel(
        (lambda: blocking.run("same", note, "1"), lambda: blocking.run("same", note, "2"))
    )
    blocking.sleep("pack", NAP)
    return "done"


async def branches() -> str:
    await step.parallel((lambda: step.run("same", note, "1"), lambda: step.run("same", note, "2")))
    await step.sleep("pack", NAP)
    await asyncio.gather(*(step.run(f"item-{n}", note, str(n)) for n in range(3)))
    await step.sleep("pack", NAP)
    return "done"


async def catches() -> str:
    try:
        await step.run("bad", int, "x")
    except (ValueError, stephttp.StepError):
        await step.run("instead", note, "instead")
    await step.sleep("pack", NAP)
    return "done"


@pytest.mark.parametrize(
    "handler", [races, cut_short, races_blocking, branches_blocking, branches, catches]
)
async def test_a_run_fits_the_code_that_made_it(handler: Handler) -> None:
    waiting, ended = await recorded(handler)
    ran.clear()
    for history in (waiting, ended):
        found = replay(history, app_of(handler))
        assert found.safe, str(found)
        assert found.met or history is waiting
    assert ran == []


async def no_longer_cut_short() -> str:
    await step.run("charge", note, "charge")
    await step.run("slow", note, "slow")
    await step.run("late", note, "late")
    await step.sleep("pack", NAP)
    return "done"


async def test_steps_that_are_no_longer_cut_off_do_not_run() -> None:
    for history in await recorded(cut_short):
        ran.clear()
        assert replay(history, app_of(no_longer_cut_short)).stopped_at == ()
        assert ran == []

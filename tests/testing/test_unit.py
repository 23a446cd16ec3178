"""`unit`: steps in plain functions."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

import stephttp
from stephttp import Event, ModelAdapter, step
from stephttp.sync import step as blocking
from stephttp.testing import unit

START = datetime(2030, 1, 1, tzinfo=UTC)
provider = stephttp.setup("https://shop.example.com", signing_key="ab" * 16)


class Charge(BaseModel):
    """What the bank says."""

    id: str


async def charge(order: str) -> Charge:
    """Charge an order."""
    return Charge(id=f"charge-{order}")


def charge_blocking(order: str) -> Charge:
    """Do the same, blocking."""
    return Charge(id=f"charge-{order}")


@provider.endpoint(id="place-order", retries=3)
async def place_order(order: str) -> dict[str, Any]:
    """Do what the handler of an application does."""
    charged = await step.run("charge", charge, order)
    both = await asyncio.gather(step.run("a", lambda: 1), step.run("b", lambda: 2))
    await step.sleep("cool-off", timedelta(days=30))
    await step.sleep_until("later", START + timedelta(days=31))
    packed = await step.wait_for_event(
        "packed", event="order/packed", match={"data.id": order}, timeout=timedelta(days=3)
    )
    signal = await step.wait_for_signal("by", signal="approval", timeout=timedelta(days=3))
    total = await step.invoke("total", function="total", data={"order": order}, output_type=int)
    page = await step.fetch("page", "https://example.com/page")
    await step.send_event("tell", Event(name="order/placed", data={"id": order}))
    return {
        "charge": charged.id, "both": both, "packed": packed and packed.data,
        "by": signal and signal.data, "total": total, "page": page.body,
    }  # fmt: skip


def place_order_blocking(order: str) -> dict[str, Any]:
    """Do the same, blocking."""
    charged = blocking.run("charge", charge_blocking, order)
    both = blocking.parallel(
        (lambda: blocking.run("a", lambda: 1), lambda: blocking.run("b", lambda: 2))
    )
    blocking.sleep("cool-off", timedelta(days=30))
    blocking.sleep_until("later", START + timedelta(days=31))
    packed = blocking.wait_for_event("packed", event="order/packed", timeout=timedelta(days=3))
    signal = blocking.wait_for_signal("by", signal="approval", timeout=timedelta(days=3))
    total = blocking.invoke("total", function="total", data={"order": order}, output_type=int)
    page = blocking.fetch("page", "https://example.com/page")
    blocking.send_event("tell", Event(name="order/placed", data={"id": order}))
    return {
        "charge": charged.id, "both": list(both), "packed": packed and packed.data,
        "by": signal and signal.data, "total": total, "page": page.body,
    }  # fmt: skip


def _called(style: str) -> dict[str, Any]:
    return asyncio.run(place_order("o1")) if style == "async" else place_order_blocking("o1")


@pytest.mark.parametrize("style", ["async", "blocking"])
def test_a_handler_runs_as_a_plain_function(style: str) -> None:
    with unit(start=START) as run:
        run.stub("packed", {"id": "o1"})
        run.stub("by", "ann")
        total = run.stub("total", 7)
        run.stub_url("https://example.com/*", text="hello")
        assert _called(style) == {
            "charge": "charge-o1", "both": [1, 2], "packed": {"id": "o1"}, "by": "ann",
            "total": 7, "page": "hello",
        }  # fmt: skip
        assert sorted(run.step_ids[:3]) == ["a", "b", "charge"]
        assert run.step_ids[3:] == ["cool-off", "later", "packed", "by", "total", "page", "tell"]
        assert [step.tool for step in run.steps[3:]] == [
            "sleep",
            "sleep",
            "wait_for_event",
            "wait_for_signal",
            "invoke",
            "fetch",
            "send_event",
        ]
        assert run.step("charge").args == ("o1",)
        assert run.step("packed").tool == "wait_for_event"
        assert total.calls[0].args == ({"order": "o1"},)
        assert run.now == START + timedelta(days=31)
        assert [(event.name, event.data) for event in run.events] == [
            ("order/placed", {"id": "o1"})
        ]
        with pytest.raises(LookupError, match="no step 'chrage' was used, only: "):
            run.step("chrage")


async def test_an_async_test_awaits_the_handler() -> None:
    with unit(start=START) as run:
        run.stub("packed", None)
        run.stub("by", None)
        run.stub("total", 0)
        run.stub("page", stephttp.FetchResponse(status_code=200, body="x"))
        run.stub(charge, raises=TimeoutError("away"))
        with pytest.raises(TimeoutError, match="away"):
            await place_order("o1")
        run.stub(charge, {"id": "c2"})
        answer = await place_order("o1")
        assert (answer["charge"], answer["packed"], answer["page"]) == ("c2", None, "x")


@pytest.mark.parametrize("style", ["async", "blocking"])
def test_a_wait_without_a_stub_is_named(style: str) -> None:
    with (
        unit(start=START),
        pytest.raises(AssertionError, match=r"'packed' waits \(wait_for_event 'or"),
    ):
        _called(style)


def test_a_request_without_a_stub_fails_the_test() -> None:
    async def handler() -> str:
        try:
            return (await step.fetch("page", "https://example.com/page")).body
        except ValueError:
            return "an application that hides it"

    with pytest.raises(AssertionError, match="no network in tests"), unit():
        asyncio.run(handler())


@pytest.mark.parametrize("fails", [True, False])
def test_every_request_without_a_stub_is_shown(fails: bool) -> None:
    async def handler() -> None:
        for name in ("first", "second"):
            with contextlib.suppress(ValueError):
                await step.fetch(name, f"https://{name}.example.com/")
        if fails:
            raise ZeroDivisionError

    with pytest.raises((AssertionError, ZeroDivisionError)) as raised, unit():
        asyncio.run(handler())
    shown = "\n".join([str(raised.value), *raised.value.__notes__])
    assert (raised.type is ZeroDivisionError) is fails
    assert [shown.count(f"GET https://{name}") for name in ("first", "second")] == [1, 1]


def test_models_answer_by_address() -> None:
    adapter = ModelAdapter(
        url="https://api.openai.com/v1/chat", format="openai-chat", auth_key="k", model="m"
    )

    async def handler() -> Any:
        return await step.ai.infer("ask", adapter=adapter, body={"messages": []})

    with unit() as run:
        model = run.stub_url("https://api.openai.com/*", {"choices": ["yes"]})
        assert asyncio.run(handler()) == {"choices": ["yes"]}
        assert model.requests[0].method == "POST"


def test_results_are_stored_as_ever() -> None:
    async def handler() -> Any:
        return await step.run("bad", object)

    with unit(), pytest.raises(stephttp.StepResultError, match="step 'bad'"):
        asyncio.run(handler())


def test_a_stub_that_stands_for_nothing_fails_the_unit() -> None:
    with pytest.raises(AssertionError, match="stub of 'chrge' was never used"), unit() as run:
        run.stub("chrge", 1)
    with unit() as run:
        run.stub("chrge", 1, optional=True)


def test_units_do_not_nest_and_end() -> None:
    with (
        unit(),
        pytest.raises(stephttp.UsageError, match=r"unit\(\) cannot be used inside"),
        unit(),
    ):
        pass
    with pytest.raises(stephttp.OutsideRunError):
        blocking.sleep("nap", timedelta(1))

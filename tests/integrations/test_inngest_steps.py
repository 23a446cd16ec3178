"""`stephttp.step` in functions of PyPI `inngest` (`StepMiddleware`): the same code as in
endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import httpx2
import inngest
import msgspec
import pytest
from pydantic import BaseModel

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.integrations.functions_world import STYLES, FunctionWorld, output, serving

NAP = timedelta(minutes=1)
DAY = timedelta(days=1)
done: list[Any] = []


class Order(BaseModel):
    id: str
    pence: int


class Charge(BaseModel):
    order: Order
    at: str


def charge_card(order: Order) -> Charge:
    done.append(f"charge {order.id}")
    return Charge(order=order, at="noon")


async def pay(order: Order) -> tuple[Charge, Any]:
    charge = await step.run("charge", charge_card, order)
    assert isinstance(charge, Charge)
    await step.sleep("nap", NAP)
    packed = await step.wait_for_event(
        "packed", event="order/packed", match={"data.id": order.id}, timeout=DAY
    )
    return charge, None if packed is None else packed.data


def pay_now(order: Order) -> tuple[Charge, Any]:
    charge = blocking.run("charge", charge_card, order)
    assert isinstance(charge, Charge)
    blocking.sleep("nap", NAP)
    packed = blocking.wait_for_event(
        "packed", event="order/packed", match={"data.id": order.id}, timeout=DAY
    )
    return charge, None if packed is None else packed.data


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


@pytest.mark.parametrize("style", STYLES)
async def test_a_helper_with_steps_works_in_an_endpoint_and_in_a_function(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        charge, packed = await pay(Order.model_validate(ctx.event.data))
        return [charge.model_dump(), packed]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        charge, packed = pay_now(Order.model_validate(ctx.event.data))
        return [charge.model_dump(), packed]

    def routes(app: Any) -> None:
        async def endpoint(order: Order) -> Any:
            charge, packed = await pay(order)
            return [charge.model_dump(), packed]

        def endpoint_now() -> Any:
            charge, packed = pay_now(Order.model_validate(flask.request.get_json()))
            return [charge.model_dump(), packed]

        app.post("/pay")(endpoint if style == "async" else endpoint_now)

    async with serving(style, on_loop, in_thread, routes=routes) as world:
        event_id = await world.send("shop/go", id="o1", pence=5)
        await world.durable.turn()  # the nap
        await world.send("order/packed", id="another")
        await world.send("order/packed", id="o1", by="Ada")
        run = await world.outcome(event_id)
        order: dict[str, Any] = {"id": "o1", "pence": 5}
        assert output(run) == [
            {"order": order, "at": "noon"},
            {"id": "o1", "by": "Ada"},
        ]
        assert done == ["charge o1"]
        of_function = await world.steps(run["run_id"])

        order["id"] = "o2"
        first = await world.durable.client.post("/pay", json=order)
        await world.durable.turn()
        await world.send("order/packed", id="o2", by="Eve")
        final = await world.durable.follow(first)
        assert final.json() == [{"order": order, "at": "noon"}, {"id": "o2", "by": "Eve"}]
        of_endpoint = await world.steps(first.headers["x-run-id"])
        shown = [one for one in of_endpoint if not one[0].startswith("stephttp:")]
        assert shown == of_function == [
            ("charge", "Completed", 1), ("nap", "Completed", 1), ("packed", "Completed", 1),
        ]  # fmt: skip


class Cash(BaseModel):
    pence: int


class Voucher(BaseModel):
    pence: int


def take(kind: type[Cash | Voucher]) -> Cash | Voucher:
    done.append("take")
    return kind(pence=3)


class Point(msgspec.Struct):
    x: int
    at: datetime


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("style", STYLES)
async def test_results_come_back_in_their_types(style: str) -> None:
    def point(x: int, *, at: datetime) -> Point:
        return Point(x, at)

    def checked(first: Any, second: Any, third: Any, plain: Any) -> Any:
        assert first == Point(1, NOON)
        assert type(second) is Voucher, "JSON does not tell it from Cash"
        assert third == Cash(pence=4)
        return plain

    async def on_loop(ctx: inngest.Context) -> Any:
        async def later(x: int, *, at: datetime) -> Point:
            await asyncio.sleep(0)
            return Point(x, at)

        first = await step.run("a", later, 1, at=NOON)
        second = await step.run("a", take, Voucher)
        third = await step.options(output_type=Cash, thread=True).run("b", lambda: {"pence": 4})
        return checked(first, second, third, await step.run("c", lambda: (1, None)))

    def in_thread(ctx: inngest.ContextSync) -> Any:
        first = blocking.run("a", point, 1, at=NOON)
        second = blocking.run("a", take, Voucher)
        third = blocking.options(output_type=Cash).run("b", lambda: {"pence": 4})
        return checked(first, second, third, blocking.run("c", lambda: (1, None)))

    async with serving(style, on_loop, in_thread) as world:
        assert await world.result() == [1, None]
    assert done == ["take"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_step_has_the_same_idempotency_key_in_each_attempt(style: str) -> None:
    def keyed() -> str:
        done.append(stephttp.idempotency_key())
        if len(done) == 1:
            raise ZeroDivisionError
        return str(done[-1])

    async def on_loop(ctx: inngest.Context) -> Any:
        with pytest.raises(stephttp.UsageError, match="outside a step"):
            stephttp.idempotency_key()
        return [await step.run("a", keyed), await step.run("a", keyed)]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        with pytest.raises(stephttp.UsageError, match="outside a step"):
            stephttp.idempotency_key()
        return [blocking.run("a", keyed), blocking.run("a", keyed)]

    async with serving(style, on_loop, in_thread, retries=1) as world:
        run = await world.outcome(await world.send("shop/go"))
    first, second = output(run)
    assert done == [first, first, second]
    assert first != second
    assert first.startswith(run["run_id"])


async def test_a_plain_function_in_a_thread_of_an_asgi_application_uses_the_blocking_tools() -> (
    None
):
    """Inngest's SDK has a pool of threads for these, which it gives no context."""

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.sleep("nap", NAP)
        return [
            blocking.run("a", lambda: "a"),
            *blocking.parallel([lambda: blocking.run("b", lambda: "b")]),
        ]

    plain: Any = in_thread
    async with serving("async", plain, in_thread) as world:
        assert await world.result() == ["a", "b"]
        # Its threads have seen the run of a function.
        assert await world.result() == ["a", "b"]


@pytest.mark.parametrize("style", STYLES)
async def test_the_server_calls_models_and_sleeps_until_a_time(style: str) -> None:
    asked: list[httpx2.Request] = []
    model = stephttp.ModelAdapter(url="http://model.test/chat", auth_key="sk", model="m")
    body = {"messages": ["hello"]}

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, json={"pence": 9})

    async def on_loop(ctx: inngest.Context) -> Any:
        await step.sleep_until("noon", NOON)
        said = await step.ai.infer("ask", adapter=model, body=body, output_type=Cash)
        assert said == Cash(pence=9)
        return said.pence

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.sleep_until("noon", NOON)
        said = blocking.ai.infer("ask", adapter=model, body=body, output_type=Cash)
        assert said == Cash(pence=9)
        return said.pence

    gateway = httpx2.MockTransport(answer)
    async with serving(style, on_loop, in_thread, gateway=gateway) as world:
        assert await world.result() == 9
    (request,) = asked
    assert request.headers["authorization"] == "Bearer sk"
    assert msgspec.json.decode(request.content) == {**body, "model": "m"}


@pytest.mark.parametrize("style", STYLES)
async def test_functions_are_invoked(style: str) -> None:
    children: list[inngest.Function[Any]] = []

    def double(ctx: Any) -> Any:
        if ctx.event.data.get("fail"):
            raise inngest.NonRetriableError("the child failed")
        return {"pence": 2 * int(ctx.event.data["n"])}

    async def double_later(ctx: inngest.Context) -> Any:
        return double(ctx)

    def others(client: inngest.Inngest) -> list[inngest.Function[Any]]:
        trigger = inngest.TriggerEvent(event="never")
        made = client.create_function(fn_id="child", trigger=trigger, retries=0)
        children[:] = [made(double_later if style == "async" else double)]
        return children

    failing: dict[str, Any] = {"app_id": "shop", "function_id": "child", "data": {"fail": True}}

    async def on_loop(ctx: inngest.Context) -> Any:
        (child,) = children
        good = await step.invoke("good", function=child, data={"n": 2}, output_type=Cash)
        assert good == Cash(pence=4)
        try:
            await step.invoke_by_id("bad", **failing)
        except stephttp.StepError as error:
            return [error.name, error.message]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        (child,) = children
        good = blocking.invoke("good", function=child, data={"n": 2}, output_type=Cash)
        assert good == Cash(pence=4)
        try:
            blocking.invoke_by_id("bad", **failing)
        except stephttp.StepError as error:
            return [error.name, error.message]

    async with serving(style, on_loop, in_thread, others=others) as world:
        assert await world.result() == ["NonRetriableError", "the child failed"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_durable_endpoint_is_invoked_by_its_id(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        cash = await step.invoke("ask", function="price", data={}, output_type=Cash)
        return cash.pence

    def in_thread(ctx: inngest.ContextSync) -> Any:
        return blocking.invoke("ask", function="price", data={}, output_type=Cash).pence

    def routes(app: Any) -> None:
        async def price() -> Any:
            stephttp.configure(id="price")
            return await step.run("price", lambda: {"pence": 7})

        def price_now() -> Any:
            stephttp.configure(id="price")
            return blocking.run("price", lambda: {"pence": 7})

        app.post("/price")(price if style == "async" else price_now)

    async with serving(style, on_loop, in_thread, routes=routes) as world:
        # The engine knows an endpoint from its first request.
        assert (await world.durable.client.post("/price")).json() == {"pence": 7}
        await world.durable.engine.idle()
        assert await world.result() == 7


@pytest.mark.parametrize("style", STYLES)
async def test_own_steps_and_those_of_the_other_sdk_stand_beside_each_other(style: str) -> None:
    async def theirs() -> str:
        return "theirs"

    async def on_loop(ctx: inngest.Context) -> Any:
        return [await ctx.step.run("a", theirs), await step.run("a", lambda: "ours")]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        return [ctx.step.run("a", lambda: "theirs"), blocking.run("a", lambda: "ours")]

    async with serving(style, on_loop, in_thread) as world:
        assert await world.result() == ["theirs", "ours"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_function_that_an_endpoint_calls_in_its_process_has_a_run_of_its_own(
    style: str,
) -> None:
    """The endpoint makes a request to its own application, inside a step and outside of one."""
    reach: list[Callable[[], Any]] = []

    async def on_loop(ctx: inngest.Context) -> Any:
        with pytest.raises(stephttp.OutsideRunError):
            stephttp.current_run()
        return await step.run("a", lambda: "of the function")

    def in_thread(ctx: inngest.ContextSync) -> Any:
        with pytest.raises(stephttp.OutsideRunError):
            stephttp.current_run()
        return blocking.run("a", lambda: "of the function")

    def routes(app: Any) -> None:
        async def endpoint() -> Any:
            inside = await step.run("a", reach[0])
            outside = await reach[0]()
            return [inside, outside, await step.run("a", lambda: "of the endpoint")]

        def endpoint_now() -> Any:
            inside = blocking.run("a", reach[0])
            outside = reach[0]()
            return [inside, outside, blocking.run("a", lambda: "of the endpoint")]

        app.get("/calls")(endpoint if style == "async" else endpoint_now)

    async with serving(style, on_loop, in_thread, routes=routes) as world:
        reach.append(function_call(world, style))
        answer = await world.durable.client.get("/calls")
    assert answer.json() == ["of the function", "of the function", "of the endpoint"]


def function_call(world: FunctionWorld, style: str) -> Callable[[], Any]:
    """Return what calls the function once, as its server does, and returns what its step did."""
    events = [{"name": "shop/go"}]
    ctx = {
        "attempt": 0,
        "disable_immediate_execution": False,
        "run_id": "r",
        "stack": {"stack": []},
    }
    body = {"ctx": ctx, "event": events[0], "events": events, "steps": {}, "use_api": False}
    url = "/api/inngest?fnId=shop-go&stepId=step"
    app = world.durable.to_app.app

    async def on_loop() -> Any:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            answer = await client.post(url, json=body)
        return answer.json()[0]["data"]

    def in_thread() -> Any:
        return flask.Flask.test_client(app).post(url, json=body).get_json()[0]["data"]

    return on_loop if style == "async" else in_thread

"""Idempotency keys: one execution, and the same answer for everybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

import stephttp
from stephttp import step
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import APP, ENGINE, Durable, durable
from tests.integrations.test_checkpointing import Gate, Plain

BODY = bytes(range(256)) * 40
HEADER = "Idempotency-Key"


class Shop:
    """Charges cards, which must not happen twice."""

    def __init__(self) -> None:
        self.charged: list[str] = []
        self.gate = Gate()
        self.gate.open.set()

    def charge(self, name: str) -> int:
        self.charged.append(name)
        return len(self.charged)

    async def slow_charge(self, name: str) -> int:
        await self.gate()
        return self.charge(name)

    def build(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.api_route("/header", methods=["POST", "PUT", "GET"])
        async def by_header(request: Request) -> Response:
            name = (await request.body()).decode()
            number = await step.run("charge", self.slow_charge, name)
            answer = Response(BODY + bytes([number]), 201, {"x-number": str(number)})
            answer.set_cookie("a", "1")
            answer.set_cookie("b", "2")
            return answer

        @app.post("/late")
        async def late(request: Request, key: str, other: str = "") -> dict[str, Any]:
            stephttp.configure(id=f"late{other}", idempotency=key)
            name = (await request.body()).decode()
            one, two = await asyncio.gather(
                step.run("charge", self.slow_charge, name), step.run("two", self.charge, "two")
            )
            return {"charge": one, "two": two}

        @app.post("/unread")
        async def unread(request: Request) -> str:
            stephttp.configure(idempotency="k")
            await step.run("charge", self.charge, "x")
            return (await request.body()).decode()

        @app.post("/blocking")
        def in_thread(key: str) -> int:
            stephttp.configure(idempotency=key)
            return blocking.run("charge", self.charge, key)

        @app.post("/nap")
        async def nap() -> int:
            number = await step.run("charge", self.charge, "nap")
            await step.sleep("nap", timedelta(minutes=1))
            return number

        @app.post("/fails")
        async def fails() -> None:
            await step.run("charge", self.charge, "fails")
            raise ValueError("no")

        @app.post("/plain")
        async def without_steps() -> int:
            return self.charge("plain")

        return provider.asgi(app)


async def post(
    world: Durable, path: str = "/header", key: str = "k", body: bytes = b"me", **headers: str
) -> httpx2.Response:
    headers = {"idempotency-key": key, **headers}
    return await world.client.post(path, content=body, headers=headers)


def same(answers: list[httpx2.Response]) -> httpx2.Response:
    """All answers are equal, byte for byte; returns one of them."""
    seen = {(a.status_code, tuple(sorted(a.headers.multi_items())), a.content) for a in answers}
    assert len(seen) == 1, [(a.status_code, a.text[:80]) for a in answers]
    return answers[0]


async def test_fifty_at_once_are_one_execution_and_fifty_equal_answers() -> None:
    shop = Shop()
    shop.gate.open.clear()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        mine = "Bearer mine"  # nobody else gets the cookies
        calls = [asyncio.ensure_future(post(world, authorization=mine)) for _ in range(50)]
        await shop.gate.reached.wait()
        shop.gate.open.set()
        first = same(await asyncio.gather(*calls))
        assert (first.status_code, first.content) == (201, BODY + b"\x01")
        assert first.headers.get_list("set-cookie") == [
            "a=1; Path=/; SameSite=lax",
            "b=2; Path=/; SameSite=lax",
        ]
        same([first, await post(world, authorization=mine)])  # later as well
        assert await world.status(first) == "Completed"
        assert (await post(world, key="another")).headers["x-number"] == "2"
    assert shop.charged == ["me", "me"]


async def test_a_different_request_with_the_same_key_is_refused() -> None:
    shop = Shop()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        await post(world)
        for different in (
            post(world, body=b"other"),
            post(world, path="/header?x=1"),
            post(world, path="/late?key=x"),
            world.client.put("/header", content=b"me", headers={"idempotency-key": "k"}),
        ):
            answer = await different
            assert answer.status_code == 422
            assert "use a new key" in answer.json()["error"]
        assert (await post(world, authorization="Bearer you")).status_code == 201
    assert shop.charged == ["me", "me"], "somebody else's key is another key"


async def test_requests_without_a_key_and_safe_ones_are_as_ever() -> None:
    shop = Shop()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        for _ in range(2):
            assert (await world.client.post("/header")).status_code == 201
            got = await world.client.get("/header", headers={"idempotency-key": "k"})
            assert got.status_code == 201
        assert len(shop.charged) == 4
        too_long = await post(world, key="k" * 1025)
        assert (too_long.status_code, len(shop.charged)) == (400, 4)


async def test_a_key_may_come_from_a_function_of_the_request() -> None:
    shop = Shop()

    def build(provider: Provider) -> Any:
        provider.runtime.settings = resolve(
            APP,
            base_url=ENGINE,
            environ={"INNGEST_DEV": "1"},
            idempotency=lambda request: request.header(b"x-order") or None,
        )
        return shop.build(provider)

    async with durable(build) as world:
        for _ in range(3):
            await world.client.post("/header", headers={"x-order": "1"})
            await world.client.post("/header", headers={"idempotency-key": "1"})
    assert len(shop.charged) == 4


async def test_a_handler_may_give_the_key_itself() -> None:
    shop = Shop()
    shop.gate.open.clear()
    async with durable(shop.build) as world:
        calls = [
            asyncio.ensure_future(world.client.post("/late?key=k", content=b"x")) for _ in range(10)
        ]
        await shop.gate.reached.wait()
        shop.gate.open.set()
        assert same(await asyncio.gather(*calls)).json() == {"charge": 2, "two": 1}
        assert (await world.client.post("/late?key=k", content=b"y")).status_code == 422
        other = await world.client.post("/late?key=k&other=2", content=b"x")
        assert other.status_code == 200, "another endpoint has keys of its own"
    assert sorted(shop.charged) == ["two", "two", "x", "x"]


async def test_a_body_that_was_not_read_yet_reaches_the_handler_all_the_same() -> None:
    async with durable(Shop().build) as world:
        for _ in range(2):
            assert (await world.client.post("/unread", content=BODY[:128])).json() == (
                BODY[:128].decode()
            )


async def test_blocking_handlers_can_have_keys() -> None:
    shop = Shop()
    async with durable(shop.build) as world:
        answers = [await world.client.post("/blocking?key=a") for _ in range(3)]
        assert same(answers).json() == 1
        assert (await world.client.post("/blocking?key=b")).json() == 2
    assert shop.charged == ["a", "b"]


async def test_who_comes_while_the_run_sleeps_is_redirected_to_its_result() -> None:
    shop = Shop()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        first = await post(world, "/nap")
        second = await post(world, "/nap")
        assert (first.status_code, second.status_code) == (303, 303)
        assert second.headers["x-run-id"] == first.headers["x-run-id"]
        assert (await world.follow(second)).json() == 1
        third = await post(world, "/nap")
        assert (third.status_code, third.json()) == (200, 1)
    assert shop.charged == ["nap"]


async def test_a_failure_is_an_answer_too() -> None:
    shop = Shop()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        with pytest.raises(ValueError, match="no"):
            await post(world, "/fails")
        second = await post(world, "/fails")
        assert (second.status_code, second.text) == (500, "Internal Server Error")
    assert shop.charged == ["fails"]


async def test_a_handler_without_steps_is_executed_once_as_well() -> None:
    shop = Shop()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        assert same([await post(world, "/plain") for _ in range(3)]).json() == 1
    assert shop.charged == ["plain"]


async def test_the_process_dies_and_who_waits_gets_the_answer_of_the_next() -> None:
    shop = Shop()
    shop.gate.open.clear()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        first = asyncio.ensure_future(post(world))
        await shop.gate.reached.wait()
        second = asyncio.ensure_future(post(world))
        while len(world.engine.waiters) == 0:  # noqa: ASYNC110 - until the second one waits
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        shop.gate.open.set()
        for seconds in (30, 1):
            world.clock.advance(seconds)
            await world.engine.idle()
        answer = await second
        if answer.status_code == 303:  # it asked between the takeover and the end
            answer = await world.api.get(answer.headers["location"])
        assert (answer.status_code, answer.content) == (201, BODY + b"\x01")
    assert shop.charged == ["me"]


async def test_without_the_engine_nothing_is_executed() -> None:
    shop = Shop()
    async with durable(shop.build, idempotency_header=HEADER) as world:
        world.to_engine.down = True
        answer = await post(world)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert shop.charged == []
        world.to_engine.down = False
        assert (await post(world)).status_code == 201


async def test_with_a_plain_server_requests_run_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()
    plain = Plain()
    provider = Provider(
        resolve(
            APP,
            base_url=ENGINE,
            environ={"INNGEST_DEV": "1"},
            idempotency_header="Idempotency-Key",
        ),
        transport=httpx2.MockTransport(plain),
    )
    transport = httpx2.ASGITransport(app=shop.build(provider))
    async with httpx2.AsyncClient(transport=transport, base_url=APP) as client:
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                answer = await client.post("/header", headers={"idempotency-key": "k"})
                assert answer.status_code == 201
        assert await provider.aclose()
    assert len(shop.charged) == 3
    (record,) = caplog.records
    assert "does not support" in record.message
    assert all("claim" not in (body or {}) for _, body in plain.calls)


async def test_what_cannot_be_kept_is_not_passed_off_as_the_answer() -> None:
    mine = "Bearer mine"
    async with durable(Shop().build, idempotency_header=HEADER, max_body_bytes=100) as world:
        assert (await post(world, authorization=mine)).content == BODY + b"\x01"
        second = await post(world, authorization=mine)
        assert (second.status_code, "was not kept" in second.text) == (500, True)
        assert (await post(world, key="large", body=b"x" * 101)).status_code == 413


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"idempotency_header": ""}, "idempotency_header"),
        ({"idempotency_header": "a b"}, "idempotency_header"),
        ({"idempotency_header": "a", "idempotency": str}, "idempotency_header and idempotency"),
    ],
)
def test_nonsense_is_refused_by_name(options: Any, name: str) -> None:
    with pytest.raises(stephttp.ConfigurationError, match=name):
        stephttp.setup("http://app", **options)


async def test_a_run_whose_handler_gave_the_key_may_wait() -> None:
    app = FastAPI()
    shop = Shop()

    @app.post("/")
    async def nap() -> int:
        stephttp.configure(idempotency="k")
        number = await step.run("charge", shop.charge, "nap")
        await step.sleep("nap", timedelta(minutes=1))
        return number

    async with durable(lambda provider: provider.asgi(app)) as world:
        assert (await world.follow(await world.client.post("/"))).json() == 1
        assert (await world.client.post("/")).json() == 1
    assert shop.charged == ["nap"]


# --- stored before sent ---


def orders(shop: Shop, *, wsgi: bool, size: int = 3) -> Callable[[Provider], Any]:
    """An application whose answers come in pieces."""
    pieces = [b"x" * size, b"y" * size]

    def on_loop(provider: Provider) -> Any:
        app = FastAPI()

        async def body(breaks: bool) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece
                if breaks:
                    raise ValueError("amid the answer")

        @app.post("/")
        async def order(breaks: bool = False, background: bool = False) -> Response:
            number = await step.run("charge", shop.charge, "order")
            answer = StreamingResponse(body(breaks), 201, {"x-number": str(number)})
            if background:
                answer.background = BackgroundTask(shop.gate)
            return answer

        return provider.asgi(app)

    def in_threads(provider: Provider) -> Any:
        app = flask.Flask("shop")

        def body(breaks: bool) -> Iterator[bytes]:
            for piece in pieces:
                yield piece
                if breaks:
                    raise ValueError("amid the answer")

        @app.post("/")
        def order() -> flask.Response:
            number = blocking.run("charge", shop.charge, "order")
            breaks = bool(flask.request.args.get("breaks"))
            return flask.Response(body(breaks), 201, {"x-number": str(number)})

        return provider.wsgi(app)

    return in_threads if wsgi else on_loop


def alike(one: httpx2.Response, other: httpx2.Response) -> bool:
    """Whether two answers are the same but for their framing."""
    left, right = (
        (answer.status_code, answer.content, answer.headers.get("x-number"))
        for answer in (one, other)
    )
    return left == right


KINDS = pytest.mark.parametrize("wsgi", [False, True])


def keyed(
    shop: Shop, wsgi: bool, size: int = 3, **options: Any
) -> AbstractAsyncContextManager[Durable]:
    return durable(
        orders(shop, wsgi=wsgi, size=size),
        wsgi=wsgi,
        idempotency_header="Idempotency-Key",
        **options,
    )


@KINDS
async def test_nothing_of_an_answer_is_sent_before_it_is_stored(wsgi: bool) -> None:
    shop = Shop()
    async with keyed(shop, wsgi) as world:
        stored: list[Any] = []
        send = world.to_engine.handle_async_request

        async def see(request: httpx2.Request) -> httpx2.Response:
            response: httpx2.Response = await send(request)
            if b"RunComplete" in request.content:
                stored.append(request)
            return response

        world.to_engine.handle_async_request = see  # type: ignore[method-assign]
        answer = await post(world, "/")
        assert (answer.status_code, answer.content, len(stored)) == (201, b"xxxyyy", 1)
        assert alike(answer, await post(world, "/"))
    assert shop.charged == ["order"]


def partition(world: Durable) -> asyncio.Event:
    """Keep the ends of runs from the engine, until the event that is returned is set."""
    send, healed = world.to_engine.handle_async_request, asyncio.Event()

    async def cut(request: httpx2.Request) -> httpx2.Response:
        if b"RunComplete" in request.content and not healed.is_set():
            raise httpx2.ConnectError("partition", request=request)
        return await send(request)

    world.to_engine.handle_async_request = cut  # type: ignore[method-assign]
    return healed


@KINDS
async def test_an_answer_that_cannot_be_stored_is_not_sent(
    wsgi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stephttp._run.keyed_journal.STORE_TIMEOUT", 0.01)
    shop = Shop()
    async with keyed(shop, wsgi) as world:
        healed = partition(world)
        first = await post(world, "/")
        assert (first.status_code, first.headers["retry-after"]) == (503, "5")
        assert "same key again" in first.json()["error"]
        healed.set()
        again = await post(world, "/")
        assert (again.status_code, again.content) == (201, b"xxxyyy")
    assert shop.charged == ["order"], "one execution"


@KINDS
async def test_the_lease_runs_out_while_the_answer_waits_to_be_stored(
    wsgi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes the run over, and its call waits for what this process has to say."""
    monkeypatch.setattr("stephttp._run.keyed_journal.STORE_TIMEOUT", 0.01)
    shop = Shop()
    async with keyed(shop, wsgi) as world:
        healed = partition(world)
        assert (await post(world, "/")).status_code == 503
        while not world.reentries:  # until the engine has called
            world.clock.advance(1)
            await asyncio.sleep(0)
        healed.set()
        again = await post(world, "/")
        if again.status_code == 303:
            again = await world.follow(again)
        assert (again.status_code, again.content) == (201, b"xxxyyy")
        await world.engine.idle()
    assert shop.charged == ["order"], "one execution"


@KINDS
async def test_an_answer_that_breaks_off_is_the_same_for_all(wsgi: bool) -> None:
    shop = Shop()
    async with keyed(shop, wsgi) as world:
        answers = [await post(world, "/?breaks=1") for _ in range(2)]
        assert alike(*answers)
        assert answers[0].status_code == 500
        assert "did not come to its end" in answers[0].text
    assert shop.charged == ["order"]


@KINDS
async def test_an_answer_that_is_too_large_is_sent_as_it_comes(wsgi: bool) -> None:
    shop = Shop()
    async with keyed(shop, wsgi, 60, max_body_bytes=100) as world:
        first = await post(world, "/")
        assert (first.status_code, first.content) == (201, b"x" * 60 + b"y" * 60)
        assert (await post(world, "/")).status_code == 500
    assert shop.charged == ["order"]


async def test_what_follows_an_answer_does_not_hold_it_up() -> None:
    shop = Shop()
    shop.gate.open.clear()
    async with keyed(shop, wsgi=False) as world:
        call = asyncio.ensure_future(post(world, "/?background=1"))
        await shop.gate.reached.wait()
        again = await post(world, "/?background=1")
        assert again.content == b"xxxyyy"
        shop.gate.open.set()
        assert alike(again, await call)

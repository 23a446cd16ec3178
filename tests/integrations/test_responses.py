"""What the caller of a request that goes async gets, and where the result is served."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

import stephttp
from stephttp import (
    AsyncRequest,
    AsyncResponseCustom,
    AsyncResponseRedirect,
    AsyncResponseToken,
    step,
)
from stephttp._wire.stored_state import FEATURES
from stephttp.engine.model.tokens import run_token
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import APP, ENGINE, KEY, durable
from tests.engine.support import until

NAP = timedelta(seconds=30)
RESULT = "/_stephttp/result"
BINARY = bytes(range(256)) * 40


def build(response: Any = None, body: bytes = BINARY) -> Any:
    """An application whose one endpoint waits, then answers with all that a response can have."""
    app = FastAPI()

    @app.post("/")
    async def handler(request: Request) -> Response:
        if response is not None:
            stephttp.configure(async_response=response)
        await request.body()
        await step.sleep("nap", NAP)
        answer = Response(body, 418, {"content-type": "application/octet-stream", "x-own": "yes"})
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        return answer

    return lambda provider: provider.asgi(app)


def whole(final: httpx2.Response) -> None:
    assert final.status_code == 418
    assert final.headers["x-own"] == "yes"
    cookies = final.headers.get_list("set-cookie")
    assert [cookie.split(";")[0] for cookie in cookies] == ["a=1", "b=2"]
    assert final.content == BINARY


async def later(
    world: Any, response: httpx2.Response | None, path: str, **kwargs: Any
) -> httpx2.Response:
    """Ask for a result that is not there yet, turn the clock, and get it."""
    waiting = asyncio.ensure_future(world.client.request("GET", path, **kwargs))
    await world.engine.idle()
    await world.turn()
    return await waiting  # type: ignore[no-any-return]


async def test_token() -> None:
    async with durable(build(AsyncResponseToken())) as world:
        first = await world.client.post("/")
        assert first.status_code == 200
        told = first.json()
        assert told.keys() == {"run_id", "token", "result_url"}
        assert told["run_id"] == first.headers["x-run-id"]
        await world.turn()
        path = f"/v1/http/runs/{told['run_id']}/output?token={told['token']}"
        assert told["result_url"].endswith(path)
        whole(await world.api.get(path))


async def test_redirect_to_a_url_of_ones_own() -> None:
    kind = AsyncResponseRedirect(lambda run_id, token: f"https://shop.test/wait/{run_id}#{token}")
    async with durable(build(kind)) as world:
        first = await world.client.post("/")
        assert first.status_code == 303
        start = f"https://shop.test/wait/{first.headers['x-run-id']}#ey"
        assert first.headers["location"].startswith(start)
        await world.turn()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_custom(asynchronous: bool) -> None:
    seen: list[AsyncRequest] = []

    def answer(request: AsyncRequest) -> stephttp.Response:
        seen.append(request)
        return stephttp.Response.of(299, request.run_id, {"X-Mine": "1"})

    async def later_answer(request: AsyncRequest) -> stephttp.Response:
        await asyncio.sleep(0)
        return answer(request)

    kind = AsyncResponseCustom(later_answer if asynchronous else answer)
    async with durable(build(kind), result_path=RESULT) as world:
        first = await world.client.post("/?a=1", content=b"body", headers={"x-thing": "t"})
        assert (first.status_code, first.headers["x-mine"]) == (299, "1")
        assert first.text == first.headers["x-run-id"]
        (request,) = seen
        assert (request.method, request.path, request.query) == ("POST", "/", "a=1")
        assert (request.header(b"x-thing"), request.body) == ("t", b"body")
        await world.turn()
        whole(await world.client.get(request.result_url))


@pytest.mark.parametrize("result", [None, "text"])
async def test_a_custom_answer_that_fails_is_an_error_of_the_request_only(result: Any) -> None:
    def answer(request: AsyncRequest) -> Any:
        if result is None:
            raise ZeroDivisionError
        return result

    async with durable(build(AsyncResponseCustom(answer))) as world:
        with pytest.raises((ZeroDivisionError, stephttp.ConfigurationError)):
            await world.client.post("/")
        await world.turn()
        rows = (await world.api.get("/v1/runs")).json()["data"]
        assert [row["status"] for row in rows] == ["Completed"]


async def test_the_providers_default_and_the_endpoints_own() -> None:
    options: Any = {"default_async_response": AsyncResponseToken()}
    async with durable(build(), **options) as world:
        assert (await world.client.post("/")).status_code == 200
    async with durable(build(AsyncResponseRedirect()), **options) as world:
        assert (await world.client.post("/")).status_code == 303


# --- Prefer (RFC 7240) ------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, RESULT])
async def test_respond_async(path: str | None) -> None:
    async with durable(build(), result_path=path) as world:
        first = await world.client.post("/", headers={"prefer": "respond-async"})
        assert first.status_code == 202
        assert first.headers["preference-applied"] == "respond-async"
        assert first.json()["result_url"] == first.headers["location"]
        assert int(first.headers["retry-after"]) > 0
        assert first.json()["run_id"] == first.headers["x-run-id"]
        await world.turn()
        client = world.client if path else world.api
        whole(await client.get(first.headers["location"]))


async def test_wait_zero_does_not_wait() -> None:
    async with durable(build()) as world:
        first = await world.client.post("/", headers={"prefer": "wait=0"})
        assert (first.status_code, first.headers["preference-applied"]) == (202, "wait=0")


async def test_wait_gets_the_result_that_comes_in_time() -> None:
    async with durable(build()) as world:
        waits = asyncio.Event()
        send = world.to_engine.handle_async_request

        async def noticed(request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/output"):
                waits.set()
            return await send(request)

        world.to_engine.handle_async_request = noticed  # type: ignore[method-assign]
        asked = asyncio.ensure_future(world.client.post("/", headers={"prefer": "wait=100"}))
        await waits.wait()
        await world.engine.idle()
        await world.turn()
        final = await asked
        whole(final)
        assert final.headers["content-length"] == str(len(BINARY))
        assert "access-control-allow-origin" not in final.headers, "that is the application's"


async def test_wait_ends_with_202_when_the_result_does_not_come_in_time() -> None:
    async with durable(build()) as world:
        limits: list[float] = []
        send = world.to_engine.handle_async_request

        async def never(request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/output"):
                limits.append(request.extensions["timeout"]["read"])
                raise httpx2.ReadTimeout("too late", request=request)
            return await send(request)

        world.to_engine.handle_async_request = never  # type: ignore[method-assign]
        answer = await world.client.post("/", headers={"prefer": "respond-async, wait=7"})
        assert (answer.status_code, limits) == (202, [8.0])
        assert answer.headers["preference-applied"] == "respond-async, wait=7"


# --- the result on the API's own origin -------------------------------------------------------


@pytest.mark.parametrize("key", ["", KEY])
async def test_the_result_is_served_by_the_api_itself(key: str) -> None:
    async with durable(build(), key=key, result_path=RESULT) as world:
        first = await world.client.post("/")
        location = first.headers["location"]
        assert location.startswith(f"{RESULT}?run_id={first.headers['x-run-id']}&token=")
        final = await later(world, first, location, headers={"origin": "https://front.test"})
        whole(final)
        assert final.headers["access-control-allow-origin"] == "https://front.test"
        assert final.headers["access-control-allow-credentials"] == "true"
        ours = {k: v for k, v in final.headers.items() if k.startswith("x-stephttp-")}
        assert ours == {"x-stephttp-result": "final"}
        assert "content-security-policy" not in final.headers, "on this origin it is trusted"
        again = await world.client.get(location)
        whole(again)
        assert again.headers["access-control-allow-origin"] == "*"
        for one in (final, again):
            assert one.headers.get_list("vary") == ["Origin"]
        head = await world.client.head(location)
        assert (head.status_code, head.content) == (418, b"")
        assert head.headers["content-length"] == str(len(BINARY))


async def test_preflight_and_wrong_questions() -> None:
    async with durable(build(), result_path=RESULT) as world:
        asked = {
            "origin": "https://front.test",
            "access-control-request-method": "GET",
            "access-control-request-headers": "x-a",
        }
        preflight = await world.client.options(RESULT, headers=asked)
        assert preflight.status_code == 204
        assert "GET" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "x-a"
        assert preflight.headers["access-control-allow-origin"] == "https://front.test"
        assert (await world.client.put(RESULT)).status_code == 405
        run_id = "01M81NT13NCCP5V7EQ9MPKSWMT"
        for query, named in [
            ("", "run_id"),
            ("?run_id=../../x&token=t", "run_id"),
            (f"?run_id={run_id}", "token"),
            (f"?run_id={run_id}&token=a/b?", "token"),
        ]:
            answer = await world.client.get(RESULT + query)
            assert answer.status_code == 400
            assert named in answer.json()["error"]
        assert world.to_engine.requests == [], "nothing of that was passed on"


async def test_the_engine_is_not_asked_again_and_again_about_made_up_tokens() -> None:
    async with durable(build(), result_path=RESULT) as world:
        await world.client.post("/")
        before, run_id = len(world.to_engine.requests), "01M81NT13NCCP5V7EQ9MPKSWMT"
        forged = run_token(run_id, b"another" * 6, 1)
        for token, asked in [("a.b.c", 0), (forged, 1), (forged, 1)]:
            path = f"{RESULT}?run_id={run_id}&token={token}"
            wrong = await world.client.get(path, headers={"origin": "https://front.test"})
            assert (wrong.status_code, wrong.headers["x-stephttp-result"]) == (401, "refused")
            assert "x-stephttp-result" in wrong.headers["access-control-expose-headers"]
            assert len(world.to_engine.requests) == before + asked


def between() -> list[httpx2.Response | Exception]:
    """What is no answer for a caller: the engine is away, or what is between has its own words."""
    ours = {FEATURES: "batch"}
    return [
        httpx2.ConnectError("refused"),
        httpx2.RemoteProtocolError("broken"),
        httpx2.Response(502, html="<h1>Bad Gateway</h1>"),
        httpx2.Response(504, json={"title": "timeout"}),
        httpx2.Response(200, html="<h1>Maintenance</h1>"),
        httpx2.Response(503, text="the engine cannot store anything", headers=ours),
        httpx2.Response(429, text="too many requests", headers=ours),
        httpx2.Response(303, headers={**ours, "x-stephttp-result": "stopping"}),
    ]


@pytest.mark.parametrize("known", [False, True])
async def test_a_caller_at_the_result_path_outlasts_an_engine_that_is_away(known: bool) -> None:
    async with durable(build(), result_path=RESULT) as world:
        first = await world.client.post("/")
        await world.turn()
        if not known:
            await world.restart_app()
        send, instead = world.to_engine.handle_async_request, between()

        async def away(request: httpx2.Request) -> httpx2.Response:
            if not instead:
                return await send(request)
            answer = instead.pop(0)
            if isinstance(answer, Exception):
                raise answer

            async def body() -> AsyncIterator[bytes]:
                yield answer.content

            return httpx2.Response(answer.status_code, headers=answer.headers, content=body())

        world.to_engine.handle_async_request = away  # type: ignore[method-assign]
        whole(await world.client.get(first.headers["location"]))
        assert instead == []


async def test_a_caller_is_sent_to_wait_again_while_the_engine_is_away() -> None:
    async with durable(build(), result_path=RESULT, hold=9) as world:
        first = await world.client.post("/")
        location, now = first.headers["location"], [0.0]
        runtime = world.provider.runtime
        runtime.monotonic_ns = lambda: round(now[0] * 1e9)

        async def pause(seconds: float) -> None:
            now[0] += seconds

        runtime.pause = pause
        world.to_engine.down = True
        answer = await world.client.get(location)
        assert now == [9], "as long as the hold, with pauses"
        assert (answer.status_code, answer.headers["x-stephttp-result"]) == (303, "pending")
        again = str(answer.url.join(answer.headers["location"]))
        assert again == f"{APP}{location}&turn=1"
        bounded = await world.client.get(location, headers={"prefer": "wait=3"})
        assert (bounded.status_code, now) == (202, [12])
        assert bounded.headers["preference-applied"] == "wait=3"
        world.to_engine.down = False
        await world.turn()
        whole(await world.client.get(again))


async def test_the_server_is_asked_as_a_client_for_as_long_as_the_hold_lasts() -> None:
    async with durable(build(), key=KEY, result_path=RESULT, hold=timedelta(seconds=7)) as world:
        first = await world.client.post("/")
        asked = asyncio.ensure_future(world.client.get(first.headers["location"]))
        await until(lambda: len(world.engine.waiters) == 1)
        world.clock.advance(7)
        answer = await asked
        assert (answer.status_code, answer.json()["status"]) == (303, "running")
        assert answer.json()["run_id"] == first.headers["x-run-id"]
        assert answer.json()["result_url"] == answer.headers["location"]
        request = world.to_engine.requests[-1]
        assert request.extensions["timeout"]["read"] == pytest.approx(8, abs=0.5)
        assert request.headers["prefer"] == "wait=7"
        assert request.headers["authorization"].startswith("Bearer ")


LOOKALIKES = [
    '{"status":"running","message":"run did not end within 5 minutes"}',
    '{"run_id":"01M81NT13NCCP5V7EQ9MPKSWMT","status":"running","result_url":"output"}',
]


@pytest.mark.parametrize("status", [200, 202, 303, 503])
@pytest.mark.parametrize("text", LOOKALIKES)
async def test_an_answer_of_the_handler_may_look_like_ours(text: str, status: int) -> None:
    app = FastAPI()

    @app.post("/")
    async def handler() -> Response:
        await step.sleep("nap", NAP)
        headers = {"x-stephttp-result": "pending", "location": "/elsewhere"}
        return Response(text, status, headers, "application/json")

    async with durable(lambda provider: provider.asgi(app), result_path=RESULT) as world:
        first = await world.client.post("/")
        answer = await later(world, first, first.headers["location"])
        assert (answer.status_code, answer.text) == (status, text)
        waited = asyncio.ensure_future(world.client.post("/", headers={"prefer": "wait=99"}))
        await until(lambda: len(world.engine.waiters) > 0)
        await world.turn()
        assert ((await waited).status_code, (await waited).text) == (status, text)


async def test_a_token_in_a_header_stays_out_of_addresses() -> None:
    async with durable(build(AsyncResponseToken()), result_path=RESULT) as world:
        first = (await world.client.post("/")).json()
        headers = {"authorization": f"Bearer {first['token']}"}
        path = f"{RESULT}?run_id={first['run_id']}"
        early = await world.client.get(path, headers={**headers, "prefer": "wait=0"})
        assert (early.status_code, early.headers["location"]) == (
            202,
            f"result?run_id={first['run_id']}",
        )
        whole(await later(world, None, path, headers=headers))
        assert (await world.client.get(path)).status_code == 400


async def test_a_caller_who_leaves_ends_the_wait() -> None:
    async with durable(build(), result_path=RESULT) as world:
        first = await world.client.post("/")
        query = first.headers["location"].partition("?")[2]
        left = asyncio.Event()
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": RESULT,
            "query_string": query.encode(),
            "headers": [],
            "client": ("127.0.0.1", 1),
        }
        serving = asyncio.ensure_future(world.to_app.app(scope, receive, send))
        await world.engine.idle()
        assert not serving.done()
        left.set()
        await serving
        assert sent == []


# --- what is stored, and what is not ----------------------------------------------------------


async def test_bodies_can_be_kept_out_of_the_record() -> None:
    app = FastAPI()

    @app.post("/{kind}")
    async def handler(kind: str, request: Request) -> str:
        stephttp.configure(omit_request_body=True, omit_response_body=True)
        text = (await request.body()).decode()
        await step.run("a", lambda: 1)
        if kind == "failed":
            stephttp.update_omit_response_body(False)
        if kind == "waits":
            await step.sleep("nap", NAP)
        return "answer to " + text

    async with durable(lambda p: p.asgi(app), key=KEY) as world:
        for kind, stored in (("fine", False), ("failed", True)):
            answer = await world.client.post(f"/{kind}", content=b"private")
            assert answer.json() == "answer to private"
            assert await world.provider.wait()
            body = world.to_engine.requests[-1].content
            assert (b"answer to" in body) is stored
            assert json.loads(body)["event"]["data"]["body"] is None
        final = await world.follow(await world.client.post("/waits", content=b"private"))
        assert final.json() == "answer to private"
        checkpoint = next(r for r in world.to_engine.requests if b'"Sleep"' in r.content)
        assert b"private" not in checkpoint.content
        assert json.loads(checkpoint.content)["event"]["data"]["body"] is None
        assert b"private" not in world.reentries[-1].content


@pytest.mark.parametrize("wsgi", [False, True])
async def test_without_a_key_nothing_waits_outside_development(
    wsgi: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The call that continues such a run would be refused, and its caller would wait for ever."""
    app, site = FastAPI(), flask.Flask(__name__)
    ran: list[str] = []

    @app.get("/")
    async def handler(nap: bool) -> str:
        await step.run("before", ran.append, "before")
        try:
            await step.sleep("nap", NAP) if nap else None
        except stephttp.CannotWaitError as error:
            return str(error)
        return "done"

    @site.get("/")
    def view() -> str:
        sync_step.run("before", ran.append, "before")
        try:
            sync_step.sleep("nap", NAP) if flask.request.args["nap"] == "true" else None
        except stephttp.CannotWaitError as error:
            return str(error)
        return "done"

    def build(provider: Any) -> Any:
        return provider.wsgi(site) if wsgi else provider.asgi(app)

    with caplog.at_level(logging.WARNING):
        async with durable(build, wsgi=wsgi, dev=False) as world:
            assert "requests that have to wait are refused" not in caplog.text
            assert (await world.client.get("/?nap=false")).text.strip('"') == "done"
            assert caplog.text.count("requests that have to wait are refused") == 1
            refused = await world.client.get("/?nap=true", headers={"authorization": "secret"})
            assert refused.status_code == 200
            assert "set INNGEST_SIGNING_KEY" in refused.text
    assert caplog.text.count("requests that have to wait are refused") == 1
    assert ran == ["before", "before"]
    assert not any(b"secret" in (one.content or b"") for one in world.to_engine.requests)


async def test_all_endpoints_can_be_recorded() -> None:
    app = FastAPI()
    app.get("/plain")(lambda: "x")
    for track in (False, True):
        async with durable(lambda p: p.asgi(app), track_all_endpoints=track) as world:
            assert (await world.client.get("/plain")).status_code == 200
            assert await world.provider.wait()
            rows = (await world.api.get("/v1/runs")).json()["data"]
            assert len(rows) == int(track)


async def test_a_forged_host_does_not_send_a_signed_re_entry_elsewhere() -> None:
    forged = {"host": "evil.test", "x-forwarded-host": "evil.test", "forwarded": "host=evil.test"}
    async with durable(build(), key=KEY, trusted_proxies=["0.0.0.0/0"]) as world:
        first = await world.client.post("/", headers=forged)
        whole(await world.follow(first))
        assert {str(r.url.copy_with(path="/")) for r in world.reentries} == {"http://app.test/"}
        assert all(b"http://evil" not in r.content for r in world.to_engine.requests)


async def test_the_environment_name_is_sent() -> None:
    async with durable(build(), env="feature-1") as world:
        await world.client.post("/")
        sent = world.to_engine.requests
        assert sent
        assert {r.headers["x-inngest-env"] for r in sent} == {"feature-1"}
        assert {f"{r.url.scheme}://{r.url.host}" for r in sent} == {ENGINE}


def redirecting(provider: Provider) -> Any:
    app = FastAPI()

    @app.post("/shop/orders")
    async def order(to: str) -> Response:
        await step.sleep("nap", NAP)
        return RedirectResponse(to, 303, {"content-location": "7", "refresh": "1; url=7"})

    return provider.asgi(app)


def redirecting_wsgi(provider: Provider) -> Any:
    app = flask.Flask("shop")

    @app.post("/shop/orders")
    def order() -> flask.Response:
        sync_step.sleep("nap", NAP)
        headers = {
            "location": flask.request.args["to"],
            "content-location": "7",
            "refresh": "1; url=7",
        }
        response = flask.Response("", 303, headers)
        response.autocorrect_location_header = False
        return response

    return provider.wsgi(app)


@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("to", "where"),
    [
        ("/shop/orders/7", f"{APP}/shop/orders/7"),
        ("https://other.test/7", "https://other.test/7"),
        ("//other.test/7", "http://other.test/7"),
    ],
)
async def test_relative_addresses_lead_to_the_application(
    to: str, where: str, wsgi: bool, key: str
) -> None:
    async with durable(redirecting_wsgi if wsgi else redirecting, key=key, wsgi=wsgi) as world:
        first = await world.client.post("/shop/orders", params={"to": to})
        final = await world.follow(first)
        assert (final.status_code, final.headers["location"]) == (303, where)
        assert final.headers["content-location"] == f"{APP}/shop/7"
        assert final.headers["refresh"] == f"1; url={APP}/shop/7"

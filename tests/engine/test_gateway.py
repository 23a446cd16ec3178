"""HTTP requests that the engine makes for steps: `Gateway` and `AIGateway`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine import Settings, VirtualClock
from stephttp.engine.model.refused import Refused
from stephttp.engine.outbound.gateway import Gateway
from stephttp.engine.outbound.in_process import InProcess
from stephttp.engine.rules.gateway_request import read_gateway

from .support import DONE, RUN, A, B, Server, World, Z, answer, sleep, until, world

_URL = "https://api.example.com/x?y=1"
_AI = {"url": _URL, "format": "openai-chat", "auth_key": "sk-1", "body": {"b": 1, "a": [1.0]}}


def gateway(id_: str = A, **opts: Any) -> dict[str, Any]:
    return {"op": "Gateway", "id": id_, "opts": {"url": _URL, **opts}}


def op(code: OpCode, opts: dict[str, Any]) -> Op:
    return Op(code, A, opts=opts)


async def fetch(
    reply: Any, code: OpCode = OpCode.GATEWAY, opts: dict[str, Any] | None = None, **settings: Any
) -> tuple[Any, list[httpx2.Request]]:
    """The memo of one request, and the requests that were made."""
    seen: list[httpx2.Request] = []

    async def transport(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if isinstance(reply, Exception):
            raise reply
        if reply is None:
            await asyncio.Event().wait()
        return httpx2.Response(*reply[:1], **reply[1])

    made = Gateway(Settings(**settings), httpx2.MockTransport(transport))
    try:
        spec = read_gateway(op(code, opts or {"url": _URL}), "steps[0]", RUN, 0, 0)
        return json.loads((await made.fetch(spec)).memo), seen
    finally:
        await made.close()


async def test_a_request_is_made_as_asked_for_and_any_status_is_a_result() -> None:
    opts = {"url": _URL, "method": "PUT", "headers": {"X-A": "b", "Host": "evil"}, "body": "text"}
    headers = [("x-b", "1"), ("x-b", "2"), ("content-type", "text/plain")]
    memo, (request,) = await fetch((503, {"headers": headers, "text": "oh"}), opts=opts)
    assert (request.method, str(request.url), request.content) == ("PUT", _URL, b"text")
    assert (request.headers["x-a"], request.headers["host"]) == ("b", "api.example.com")
    memo["data"]["headers"].pop("Content-Length", None)
    assert memo == {
        "data": {
            "url": _URL,
            "status_code": 503,
            "headers": {"X-B": "1,2", "Content-Type": "text/plain"},
            "body": "oh",
        }
    }


async def test_header_names_are_written_as_the_inngest_server_writes_them() -> None:
    """No receiver has to care, but some test suites look at them."""
    opts = {"url": _URL, "headers": {"x-my-header": "a", "X-API-key": "b"}}
    _, (request,) = await fetch((200, {}), opts=opts)
    names = {name for name, _ in request.headers.raw}
    assert {b"X-My-Header", b"X-Api-Key", b"Accept", b"Idempotency-Key"} <= names


async def test_the_method_is_post_unless_said_and_redirects_are_not_followed() -> None:
    memo, seen = await fetch((302, {"headers": {"location": "http://127.0.0.1/"}}))
    assert [request.method for request in seen] == ["POST"]
    assert memo["data"]["status_code"] == 302


@pytest.mark.parametrize(
    ("code", "name", "what"),
    [
        (OpCode.GATEWAY, "GatewayError", "gateway"),
        (OpCode.AI_GATEWAY, "AIGatewayError", "AI"),
    ],
)
async def test_what_prevents_an_answer_is_an_error(code: OpCode, name: str, what: str) -> None:
    opts = _AI if code is OpCode.AI_GATEWAY else {"url": _URL}
    memo, _ = await fetch(httpx2.ConnectError("refused"), code, opts)
    message = f"Error making {what} request: refused"
    assert memo == {"error": {"name": name, "message": message, "data": None}}
    memo, _ = await fetch(None, code, opts, gateway_timeout=0.01)
    assert memo["error"]["message"] == f"Error making {what} request: no answer within 0.01 s"
    memo, _ = await fetch((200, {"text": '"' + "x" * 99 + '"'}), code, opts, max_step_output=100)
    assert memo["error"]["message"].endswith("the answer is larger than 100 bytes")


@pytest.mark.parametrize(
    ("format_", "name", "value"),
    [
        ("openai-chat", "authorization", "Bearer sk-1"),
        ("openai-responses", "authorization", "Bearer sk-1"),
        ("grok", "authorization", "Bearer sk-1"),
        ("azure-openai", "api-key", "sk-1"),
        ("anthropic", "x-api-key", "sk-1"),
        ("gemini", "x-goog-api-key", "sk-1"),
    ],
)
async def test_each_provider_gets_its_key_its_way(format_: str, name: str, value: str) -> None:
    opts = {**_AI, "format": format_}
    memo, (request,) = await fetch((200, {"json": {"choices": []}}), OpCode.AI_GATEWAY, opts)
    assert memo == {"data": {"choices": []}}
    assert (request.method, request.headers[name]) == ("POST", value)
    assert request.headers["content-type"] == "application/json"
    assert request.content == b'{"a":[1],"b":1}'


async def test_a_refusal_of_an_ai_is_an_error_with_its_answer() -> None:
    memo, _ = await fetch((429, {"text": '{"slow": "down"}'}), OpCode.AI_GATEWAY, _AI)
    assert memo == {
        "error": {
            "name": "AIGatewayError",
            "message": "Error making AI request: unsuccessful status code: 429",
            "data": {"slow": "down"},
            "stack": '{"slow": "down"}',
        }
    }
    memo, _ = await fetch((502, {"text": "<html>"}), OpCode.AI_GATEWAY, _AI)
    assert (memo["error"]["data"], memo["error"]["stack"]) == (None, "<html>")
    memo, _ = await fetch((200, {"text": "<html>"}), OpCode.AI_GATEWAY, _AI)
    assert memo["error"]["message"] == "Error making AI request: the answer is not JSON"


@pytest.mark.parametrize(
    ("code", "opts", "message"),
    [
        (OpCode.GATEWAY, {}, "s.opts.url: not a URL"),
        (OpCode.GATEWAY, {"url": "ftp://x"}, "s.opts.url: 'ftp://x' is not an http or https URL"),
        (OpCode.GATEWAY, {"url": "http://"}, "s.opts.url: 'http://' is not an http or https URL"),
        (OpCode.GATEWAY, {"url": _URL, "method": "A B"}, "s.opts.method: 'A B' is not an HTTP"),
        (OpCode.GATEWAY, {"url": _URL, "headers": []}, "s.opts.headers: expected an object"),
        (OpCode.GATEWAY, {"url": _URL, "headers": {"a": "b\n"}}, "s.opts.headers.a: not a header"),
        (OpCode.GATEWAY, {"url": _URL, "headers": {"a b": ""}}, "s.opts.headers.a b: not a header"),
        (OpCode.GATEWAY, {"url": _URL, "headers": {"a": "😀"}}, "s.opts.headers.a: holds"),
        (OpCode.GATEWAY, {"url": _URL, "body": {}}, "s.opts.body: expected text, got dict"),
        (OpCode.AI_GATEWAY, {**_AI, "body": "x"}, "s.opts.body: expected an object, got str"),
        (OpCode.AI_GATEWAY, {**_AI, "body": {"a": 2**60}}, "s.opts.body: 1152921504606846976"),
        (OpCode.AI_GATEWAY, {**_AI, "format": "x"}, "s.opts.format: 'x' is not known; known are"),
        (OpCode.AI_GATEWAY, {**_AI, "auth_key": "a\n"}, "s.opts.auth_key: not a text"),
    ],
)
def test_bad_requests_are_refused(code: OpCode, opts: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        read_gateway(op(code, opts), "s", RUN, 0, 0)
    assert str(caught.value).startswith(message)


async def test_the_rules_for_endpoints_hold_for_these_requests_too() -> None:
    async def ask(url: str, **settings: Any) -> Any:
        made = Gateway(Settings(**settings))
        try:
            spec = read_gateway(op(OpCode.GATEWAY, {"url": url}), "s", RUN, 0, 0)
            return json.loads((await made.fetch(spec)).memo)
        finally:
            await made.close()

    async with Server() as server:
        url = f"http://localhost:{server.port}/a?b=c"
        memo = await ask(url, private_hosts=False)
        assert memo["error"]["name"] == "GatewayError"
        assert "not public" in memo["error"]["message"]
        assert "--allow-host" in memo["error"]["message"]
        memo = await ask(url, allow_hosts=("api.example.com",))
        assert "not an allowed host (see --allow-host)" in memo["error"]["message"]
        assert server.asked == 0
        for settings in ({}, {"private_hosts": False, "allow_hosts": ("localhost",)}):
            assert (await ask(url, **settings))["data"]["body"] == "ok"
        assert server.asked == 2


class Outside:
    """The world that a gateway talks to; answers when it is told to."""

    def __init__(self, w: World) -> None:
        self.go_on = asyncio.Event()
        self.seen: list[httpx2.Request] = []
        self.running = self.most = 0
        w.engine._gateway._sender = InProcess(httpx2.MockTransport(self._answer))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go_on.wait()
        self.running -= 1
        return httpx2.Response(200, text="ok")


async def test_a_run_goes_on_with_the_answer() -> None:
    async with world() as w:
        outside = Outside(w)
        outside.go_on.set()
        w.script = [answer([gateway(B)]), answer(DONE)]
        await w.post(gateway(A))
        await w.engine.idle()
        assert [len(outside.seen), len(w.calls)] == [2, 2]
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert [(s["op"], s["status"]) for s in steps] == [("Gateway", "Completed")] * 2
        assert (await w.run())["status"] == "Completed"


async def test_requests_do_not_hold_up_calls_and_are_bounded() -> None:
    async with world(concurrency=1, gateway_concurrency=4) as w:
        outside = Outside(w)
        await w.post(*(gateway(str(n)) for n in range(5)), sleep(Z, "1s"))
        await until(lambda: len(outside.seen) == 2)
        w.script = [answer([sleep(B, "1h")])]
        w.clock.advance(1)
        await until(lambda: len(w.calls) == 1)
        assert outside.running == 2
        w.script += [answer([sleep(B, "1h")]) for _ in range(5)]
        outside.go_on.set()
        await w.engine.idle()
        assert (len(outside.seen), outside.most) == (5, 2)
        memos = await w.memos()
        assert [memos[str(n)]["data"]["body"] for n in range(5)] == ["ok"] * 5


async def test_an_answer_that_comes_during_a_re_entry_leads_to_another_one() -> None:
    async with world() as w:
        outside = Outside(w)
        entered, reply = asyncio.Event(), asyncio.Event()

        async def endpoint(request: httpx2.Request) -> httpx2.Response:
            w.calls.append(request)
            if len(w.calls) > 1:
                return answer(DONE)
            entered.set()
            await reply.wait()
            return answer([gateway(A), sleep(B, "1h")])

        w.reach(httpx2.MockTransport(endpoint))
        await w.post(gateway(A), sleep(Z, "1s"), sleep(B, "1h"))
        w.clock.advance(1)
        await entered.wait()
        outside.go_on.set()
        await until(lambda: not w.engine.executor._http_steps)
        reply.set()
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"
        assert (len(outside.seen), len(w.calls)) == (1, 2)


async def test_a_request_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "engine.db"
    async with world(clock, path) as w:
        outside = Outside(w)
        await w.post(gateway(A))
        await until(lambda: outside.seen)
    async with world(clock, path, [answer(DONE)]) as w:
        # The engine looks for due work before the test can do anything; it finds this slot taken.
        outside = Outside(w)
        outside.go_on.set()
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"
        assert len(outside.seen) == 1

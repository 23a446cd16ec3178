"""Requests to an application: of callers, of who poses as the engine, and with a damaged state."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import Any

import flask
import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import stephttp
from stephttp import step
from stephttp._wire import call_signatures, stored_state
from stephttp._wire.ids import CAPSULE, hash_step_id
from stephttp._wire.signatures import sign
from stephttp.engine.model.settings import FEATURES
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.fuzzing.cases import Case, Target
from tests.fuzzing.mutations import body_of, change_bytes, change_header, change_json, encode
from tests.wsgi import WSGITransport

KEY = "ab" * 16
NOW = 1_795_352_757
RUN = "01M81KWY2JTNRXZTV817ZB746V"
_CAPSULE = {
    "headers": [["host", "app.test"], ["traceparent", "00-01-02-01"]],
    "client": ["1.2.3.4", 5],
    "scheme": "http",
    "sealed": "AQAAAAAAAAAAAAAAAAAAAAAA",
    "failing": [hash_step_id("a")],
    "carried": {"a": "b"},
}
_MEMOS: dict[str, Any] = {
    CAPSULE: {"data": {"headers": [["host", "app.test"]], "scheme": "http"}},
    hash_step_id("a"): {"data": {"n": 1}},
    hash_step_id("z"): None,
    hash_step_id("stephttp:cut"): {"data": {"step": hash_step_id("c"), "id": "c", "known": 1}},
    hash_step_id("b"): {"error": {"name": "ValueError", "message": "m", "stack": "s"}},
    stored_state.STEPS: {hash_step_id("a"): ["StepRun", "a", 0, ""]},
}
_CALLERS: list[tuple[bytes, bytes]] = [
    (b"prefer", b'respond-async, wait=10; a="b"'),
    (b"idempotency-key", b"k-1"),
    (b"x-run-id", RUN.encode()),
    (b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"),
    (b"cookie", b"a=b"),
    (b"content-type", b"application/json"),
    (b"host", b"a:1"),
    (b"x-forwarded-for", b"1.2.3.4, [::1]"),
    (b"forwarded", b"for=1"),
    (b"baggage", b"a=b"),
    (b"x-stephttp-state", b"2"),
    (b"x-inngest-step-id", b"a" * 40),
    (b"accept-encoding", b"gzip"),
]
_STEERING: list[tuple[bytes, bytes]] = [
    (b"x-run-id", RUN.encode()),
    (b"x-inngest-signature", b""),
    (b"x-inngest-req-version", b"2"),
    (b"x-inngest-generation-id", b"1"),
    (b"x-inngest-job-id", b"j"),
    (b"x-stephttp-attempt", b"0"),
    (b"x-request-id", RUN.encode()),
]


class Application:
    """A durable application whose engine answers as the case says."""

    def __init__(self, wsgi: bool) -> None:
        self.rng = Random(0)
        self.memos: bytes = b"{}"
        self.features = FEATURES
        self.calls = 0
        self.provider = Provider(
            resolve(
                "http://app.test",
                base_url="http://engine.test",
                idempotency_header="idempotency-key",
                environ={"INNGEST_SIGNING_KEY": KEY},
            ),
            transport=httpx2.MockTransport(self.engine),
            sync_transport=httpx2.MockTransport(self.engine),
            now_ns=lambda: NOW * 1_000_000_000,
            pause=lambda seconds: asyncio.sleep(0),
            sync_pause=lambda seconds: None,
            rng=Random(1),
        )
        transport: httpx2.AsyncBaseTransport
        if wsgi:
            transport = WSGITransport(self.provider.wsgi(self._flask()))
        else:
            app = self.provider.asgi(
                Starlette(routes=[Route("/{rest:path}", self.handler, methods=["GET", "POST"])])
            )
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        self.http = httpx2.AsyncClient(transport=transport, base_url="http://app.test")

    async def handler(self, request: Request) -> JSONResponse:
        self.calls += 1
        try:
            await step.run("a", lambda: {"n": 1})
            await step.sleep("z", timedelta(seconds=1))
            await step.run("b", lambda: 2)
        except (stephttp.StephttpError, ValueError, TypeError) as error:
            return JSONResponse({"error": type(error).__name__}, 422)
        return JSONResponse({"length": len(await request.body())})

    def _flask(self) -> flask.Flask:
        app = flask.Flask("fuzzed")

        @app.route("/", defaults={"rest": ""}, methods=["GET", "POST"])
        @app.route("/<path:rest>", methods=["GET", "POST"])
        def handler(rest: str) -> Any:
            self.calls += 1
            try:
                blocking.run("a", lambda: {"n": 1})
                blocking.sleep("z", timedelta(seconds=1))
                blocking.run("b", lambda: 2)
            except (stephttp.StephttpError, ValueError, TypeError) as error:
                return {"error": type(error).__name__}, 422
            return {"length": len(flask.request.get_data())}

        return app

    def engine(self, request: httpx2.Request) -> httpx2.Response:
        """The engine: for the state of a run, what the case says; for a report, its thanks."""
        headers = {"x-inngest-server-kind": "cloud", "x-stephttp-engine": "0.1.0"}
        if self.features:
            headers |= {stored_state.FEATURES: self.features, stored_state.FAILURES: "x=1"}
        if request.url.path.endswith("/outcome"):
            done = {"state": "ended", "status": 200, "headers": [["a", "b"]], "body": "aGk="}
            return httpx2.Response(200, headers=headers, json={"data": done})
        if request.method == "GET":
            return httpx2.Response(200, headers=headers, content=self.memos)
        data = {"run_id": RUN, "fn_id": RUN, "app_id": RUN, "token": "t"}
        return httpx2.Response(200, headers=headers, json={"data": data})

    async def send(self, method: str, path: str, headers: Any, body: bytes) -> httpx2.Response:
        request = self.http.build_request(method, "http://app.test" + path, content=body)
        kept = [pair for pair in request.headers.raw if pair[0].lower() != b"host"]
        names = {name for name, _ in headers}
        kept = [pair for pair in kept if pair[0].lower() not in names]
        request.headers = httpx2.Headers([(b"host", b"app.test"), *kept, *headers])
        return await self.http.send(request)

    async def caller(self, rng: Random) -> str:
        """Any request of a caller is answered, and never by an error of ours."""
        self.features = FEATURES
        headers = [
            (name, change_header(rng, value) if rng.random() < 0.7 else value)
            for name, value in rng.sample(_CALLERS, rng.choice([0, 1, 2, 4]))
        ]
        path = "/" + "".join(rng.choice(["a", "/", "%2F", "%00", "?", "é", ";"]) for _ in range(5))
        body = change_bytes(rng, b'{"a": 1}') if rng.random() < 0.5 else b""
        answer = await self.send(rng.choice(["GET", "POST"]), path, headers, body)
        known = answer.status_code == 503 and "idempotency key" in answer.text
        assert answer.status_code < 500 or known, (answer.status_code, answer.text[:500])
        return str(answer.status_code)

    async def forger(self, rng: Random) -> str:
        """Nothing but what the engine signed gets to a handler."""
        self.features, self.memos = FEATURES, encode(_MEMOS)
        body = change_bytes(rng, b'{"a": 1}')
        state = encode(_MEMOS) if rng.random() < 0.5 else b""
        headers = [
            *_STEERING,
            *([(b"x-stephttp-state", str(len(state)).encode())] if state else []),
        ]
        target, whole = "/a?b=1", body + state
        signature = call_signatures.sign_call(KEY, NOW, "POST", target, headers, whole)
        plain = sign(KEY, body, NOW).encode()
        headers = [(n, plain if n == b"x-inngest-signature" else v) for n, v in headers]
        headers.append((call_signatures.SIGNATURE.encode(), signature.encode()))
        right = dict(headers)
        at = rng.randrange(len(headers))
        name, value = headers[at]
        kind = rng.random()
        if kind < 0.3:
            headers[at] = (name, change_header(rng, value))
        elif kind < 0.5:
            del headers[at]
        elif kind < 0.7:
            target = rng.choice(["/a?b=2", "/b?b=1", "/a", "/a/?b=1"])
        elif kind < 0.9:
            whole = change_bytes(rng, whole)
        before, steering = self.calls, {n for n, _ in _STEERING} - {b"x-request-id"}
        answer = await self.send("POST", target, headers, whole)
        got = dict(headers)
        unsigned = b"x-inngest-signature"
        same = target == "/a?b=1" and whole == body + state
        same = same and all(
            got.get(n, b"").strip() == right[n]
            for n in {*right, *steering} - {unsigned, b"x-request-id"}
        )
        if got.get(b"x-run-id") and steering & {*got} - {b"x-run-id"} and not same:
            assert self.calls == before, (headers, target, answer.status_code)
            assert answer.status_code in (400, 401, 404, 413), answer.status_code
        assert answer.status_code < 500, (answer.status_code, answer.text[:500])
        return f"{'right' if same else 'forged'} {answer.status_code}"

    async def damaged(self, rng: Random) -> str:
        """What a server remembers reaches the handler as values or errors, or it is not called."""
        memos = {**_MEMOS, CAPSULE: {"data": _CAPSULE}} if rng.random() < 0.3 else _MEMOS
        memos = change_json(rng, memos) if rng.random() < 0.7 else memos
        if isinstance(memos, dict) and rng.random() < 0.5:
            memos[CAPSULE] = {"data": change_json(rng, _CAPSULE)}
        self.memos = body_of(rng, memos)
        self.features = rng.choice([FEATURES, FEATURES, ""])
        body = b'{"a": 1}'
        headers = [pair for pair in _STEERING if pair[0] != b"x-inngest-signature"]
        headers.append((b"x-inngest-signature", sign(KEY, body, NOW).encode()))
        signature = call_signatures.sign_call(KEY, NOW, "POST", "/a", headers, body)
        headers.append((call_signatures.SIGNATURE.encode(), signature.encode()))
        answer = await self.send("POST", "/a", headers, body)
        assert answer.status_code in (206, 400, 500, 503), (answer.status_code, answer.text[:500])
        assert "Traceback" not in answer.text
        if answer.status_code == 500:
            assert answer.headers.get("content-type") == "application/json", answer.text[:500]
            json.loads(answer.content)
        return str(answer.status_code)


def _target(kind: str, wsgi: bool) -> Target:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Case]:
        # That a state cannot be read is one of its errors.
        level = logging.CRITICAL if kind == "damaged" else logging.ERROR
        logging.getLogger("stephttp").setLevel(level)
        made = Application(wsgi)
        case: Case = getattr(made, kind)
        yield case
        await made.http.aclose()
        await made.provider.aclose()

    return Target(f"{kind}-{'wsgi' if wsgi else 'asgi'}", opened)


TARGETS = [
    _target(kind, wsgi) for kind in ("caller", "forger", "damaged") for wsgi in (False, True)
]

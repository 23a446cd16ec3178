"""HTTP requests to the engine: every route, with parts that are almost right."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import quote, unquote

import httpx2

from stephttp.engine.dashboard.sessions import CSRF_HEADER, OPEN
from stephttp.engine.store.check import invariants
from tests.engine.support import (
    KEY,
    OTHER,
    RUN,
    SDK,
    A,
    B,
    World,
    Z,
    complete,
    new_run,
    sleep,
    step,
    step_error,
    world,
)
from tests.fuzzing.cases import Case, Target
from tests.fuzzing.mutations import NASTY, body_of, change_bytes, change_header, change_text

WAITS: list[dict[str, Any]] = [
    {
        "op": "WaitForEvent",
        "id": A,
        "name": "e",
        "opts": {"event": "e", "timeout": "1d", "if": "async.data.a == event.data.a"},
    },
    {"op": "WaitForSignal", "id": B, "name": "s", "opts": {"signal": "s", "timeout": "1d"}},
    {"op": "InvokeFunction", "id": B, "opts": {"function_id": "f", "payload": {"data": {}}}},
    {
        "op": "Gateway",
        "id": Z,
        "opts": {"url": "http://127.0.0.1:1/x", "method": "PUT", "body": ""},
    },
    {
        "op": "AIGateway",
        "id": Z,
        "opts": {
            "url": "http://127.0.0.1:1/",
            "format": "openai-chat",
            "auth_key": "k",
            "body": {"a": 1},
        },
    },
    {"op": "StepPlanned", "id": A, "opts": {"parallelMode": "race"}},
    {"op": "SyncRunComplete", "id": Z, "data": {"status": 200}},
    {"op": "None", "id": A, "opts": {"warnings": [{"kind": "step_not_met", "message": "m"}]}},
    {"op": "DiscoveryRequest", "id": A},
    {"op": "Step", "id": A, "data": 1},
    {"op": "StepFailed", "id": B, "error": {"name": "E", "message": "m", "cause": {}}},
]
DONE = complete(
    {
        "status": 200,
        "headers": {"a": "b"},
        "body": "hi",
        "raw": {"headers": [["a", "b"]], "body": "aGk="},
    }
)
OPS = [step(), sleep(), step_error(B, stack="s"), *WAITS, DONE]
_SPANS = {
    "resourceSpans": [
        {
            "resource": {"attributes": []},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "01" * 16,
                            "spanId": "02" * 8,
                            "name": "n",
                            "startTimeUnixNano": "1",
                            "endTimeUnixNano": "2",
                            "attributes": [{"key": "sdk.run.id", "value": {"stringValue": RUN}}],
                        }
                    ]
                }
            ],
        }
    ]
}

BODIES: dict[str, list[Any]] = {
    "/v1/checkpoint": [
        new_run(step(), run_id=OTHER),
        new_run(*OPS[:3], retries=3, reads_state=True),
        new_run(step(), lease=5000, claim={"scope": "s", "key": "k", "request": "r"}),
    ],
    "/v1/checkpoint/batch": [[new_run(step(), DONE), {"run_id": RUN, "steps": [step(B)]}]],
    "steps": [{"run_id": RUN, "steps": OPS, "ts": 1}, {"steps": [sleep()]}],
    "async": [{"run_id": RUN, "steps": OPS, "ts": 1, "qi_id": "a", "request_id": "b"}],
    "response": [{"status_code": 200, "headers": {"a": "b"}, "body": "aGk=", "error": "E: m"}],
    "renew": [{"runs": [RUN, OTHER], "lease": 5000}],
    "token": [[{"channel": RUN, "name": "$stream", "kind": "run"}]],
    "publish": [{"a": 1}, "text"],
    "/e/{key}": [
        {"name": "e", "data": {"a": 1}, "id": "i", "ts": 1, "v": "1"},
        [{"name": "e"}] * 3,
    ],
    "signals": [{"signal": "s", "data": {"a": 1}}],
    "cancellations": [
        {
            "app_id": RUN,
            "function_id": RUN,
            "started_before": "2030-01-01T00:00:00Z",
            "if": "event.data.a == 1",
        }
    ],
    "register": [{"url": "http://a", "functions": [{"id": "f"}], "sdk": "js:v1", "appName": "a"}],
    "rerun": [{"body": "YQ=="}, {"step_id": A, "input": [1]}, {"step_id": A, "output": {"a": 1}}],
    "resume": [{"step_id": A, "data": 1}, {}],
    "cancel": [{"status": ["running"], "text": "a", "endpoint": ["POST /orders"]}, {"runs": [RUN]}],
    "probe": [{"origin": "http://127.0.0.1:1"}],
    "events": [{"name": "e", "data": {}}],
    "userland": [_SPANS],
}
_QUERIES = [
    "limit=5",
    "cursor=MDFN",
    "status=Running&status=waiting",
    "after=2026-01-01T00:00:00Z",
    "before=2026-01-01T00:00:00%2B02:00",
    "text=a",
    "endpoint=POST%20/orders",
    "wait=0",
    "name=e",
    f"channel={RUN}&topic=a&topic=b",
    "received_after=1999-01-01",
    "hours=24",
    "since=0",
    "next=//x",
    "metadata=%7B%22a%22%3A1%7D&run_id=x",
    "sort=started",
    "page=2",
    "step=" + A,
    "q=a&state=failed",
]
_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-protobuf"),
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"content-type", b"text/stream"),
    (b"x-inngest-sdk", b"inngest-js:v4"),
    (b"x-stephttp-accept", b"pending, step-names"),
    (b"x-inngest-event-id-seed", b"1795352757000,AAAAAAAAAAAAAA=="),
    (b"content-encoding", b"gzip"),
    (b"origin", b"http://evil.test"),
    (b"host", b"evil.test"),
    (b"cookie", b"stephttp_session=a.b.c"),
    (b"accept", b"application/openmetrics-text; version=1.0.0"),
    (b"if-none-match", b'"a"'),
    (b"x-forwarded-for", b"1.2.3.4"),
    (b"hx-request", b"true"),
    (b"accept-encoding", b"gzip"),
    (b"content-length", b"99999999999"),
    (b"last-event-id", b"5"),
    (b"x-inngest-env", b"branch"),
    (b"sec-fetch-site", b"cross-site"),
    (b"range", b"bytes=0-1"),
]
_PARAMETER = re.compile(r"\{([a-z]+)(?::path)?\}")


def _values(known: dict[str, list[str]], name: str) -> list[str]:
    return known.get(name, [RUN, "app.css", "body", A])


def _path(rng: Random, template: str, known: dict[str, list[str]]) -> str:
    def value(match: re.Match[str]) -> str:
        kind = rng.random()
        right = rng.choice(_values(known, match[1]))
        if kind < 0.7:
            return right
        nasty = rng.choice(NASTY) if kind < 0.85 else change_text(rng, right)
        return quote(str(nasty)[:3000].encode("utf-8", "replace"), safe="")

    path = _PARAMETER.sub(value, template)
    if rng.random() < 0.05:
        changed = change_bytes(rng, path.encode())
        path = "/" + quote(changed, safe="/%:@!$&'()*+,;=-._~").lstrip("/")
    return path


def _body(rng: Random, path: str, fields: dict[str, str]) -> bytes:
    last = path.rpartition("/")[2]
    right = BODIES.get(path) or BODIES.get(last)
    if right and not fields:
        return body_of(rng, rng.choice(right))
    if fields and rng.random() < 0.8:
        text = "&".join(f"{name}={quote(value)}" for name, value in fields.items())
        return change_bytes(rng, text.encode()) if rng.random() < 0.7 else text.encode()
    return body_of(rng, rng.choice([{}, {"a": 1}, [], OPS]))


_FIELDS = {
    "csrf": "",
    "password": "x",
    "run": RUN,
    "runs": RUN,
    "name": "e",
    "data": "{}",
    "signal": "s",
    "step": A,
    "input": "[1]",
    "body": "a",
    "id": "i",
    "next": "/runs",
    "action": "cancel",
    "match": "on",
    "status": "running",
}


class Fuzzed:
    """An engine for development with runs of all kinds, or one for production."""

    def __init__(self, w: World, keyed: bool) -> None:
        self.w = w
        self.keyed = keyed
        self.rows = [
            (method, str(getattr(route, "path", "")))
            for route in w.app.routes
            for method in sorted(getattr(route, "methods", None) or {"GET"})
        ]
        dashboard: Any = w.app.state.dashboard
        self.csrf = dashboard.sessions.csrf_token(OPEN)
        self.tokens: dict[str, str] = {}

    async def case(self, rng: Random) -> str:
        method, template = rng.choice(self.rows)
        if rng.random() < 0.03:
            method = rng.choice(["PUT", "PATCH", "TRACE", "CONNECT", "GET", "POST", "X" * 50])
        known = {"run": [RUN, OTHER], "key": ["k"], "event": [RUN, "internal"]}
        path = _path(rng, template, known)
        query = "&".join(rng.sample(_QUERIES, rng.choice([0, 0, 1, 2, 4])))
        if rng.random() < 0.4:
            query += "&token=" + rng.choice([*self.tokens.values(), "a.b.c"])
        if rng.random() < 0.3:
            query = quote(change_bytes(rng, query.encode()), safe="/%:@!$&'()*+,;=-._~?[]|")
        form = not template.startswith(("/v", "/e/", "/fn", "/dev", "/metrics", "/open", "/health"))
        headers = [(b"host", b"127.0.0.1"), (CSRF_HEADER.encode(), self.csrf.encode())]
        if self.keyed and rng.random() < 0.8:
            headers.append((b"authorization", f"Bearer {KEY}".encode()))
        if form:
            headers.append((b"content-type", b"application/x-www-form-urlencoded"))
        more = rng.sample(_HEADERS, rng.choice([0, 0, 1, 2, 3]))
        headers += [
            (name, change_header(rng, value) if rng.random() < 0.5 else value)
            for name, value in more
        ]
        body = b"" if method in ("GET", "HEAD") else _body(rng, template, _FIELDS if form else {})
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": headers,
            "scheme": "http",
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8288),
            "http_version": "1.1",
        }
        status, answer = await exchange(self.w.app, scope, _pieces(rng, body))
        assert b"Traceback" not in answer, answer[:1000]
        is_output = template.endswith("/output")  # a handler's answer, whatever it is
        assert status < 500 or is_output, (status, answer[:1000])
        if rng.random() < 0.05:
            self.w.clock.advance(rng.choice([0.1, 1, 60]))
        return f"{status // 100}xx"


def _pieces(rng: Random, body: bytes) -> list[bytes]:
    if rng.random() < 0.9:
        return [body]
    at = rng.randint(0, len(body))
    return [body[:at], body[at:]]


async def exchange(app: Any, scope: dict[str, Any], pieces: list[bytes]) -> tuple[int, bytes]:
    """Status and body of the answer; streams end because the client leaves."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]
    answer: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answer.append(message)

    await app(scope, receive, send)
    assert answer, "no answer"
    return answer[0]["status"], b"".join(message.get("body", b"") for message in answer[1:])


@asynccontextmanager
async def _open(keyed: bool) -> AsyncIterator[Case]:
    keys: dict[str, Any] = {"signing_keys": (KEY,), "event_keys": ("k",)} if keyed else {}
    async with world(
        **keys, output_timeout=0, stream_lifetime=0.02, max_body=100_000, rate_limit=0
    ) as w:
        w.reach(
            httpx2.MockTransport(lambda request: httpx2.Response(206, headers=SDK, json=[sleep()]))
        )
        fuzzed = Fuzzed(w, keyed)
        if keyed:
            w.http.headers["authorization"] = f"Bearer {KEY}"
        for run_id in (RUN, OTHER):
            made = await w.post(step(Z), *WAITS[:2], run_id=run_id, retries=2)
            fuzzed.tokens[run_id] = made["token"]
            fuzzed.tokens[run_id + "r"] = made["realtime_token"]
        yield fuzzed.case
        await w.engine.idle()
        assert await w.engine.store.read(invariants) == []


TARGETS = [
    Target("engine-dev", lambda: _open(keyed=False)),
    Target("engine-start", lambda: _open(keyed=True)),
]

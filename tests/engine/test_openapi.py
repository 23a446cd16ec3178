"""The OpenAPI document: valid, complete, and kept to whatever schemathesis sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, checks
from schemathesis.config import SchemathesisConfig
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.specs.openapi import checks as openapi_checks
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from stephttp.engine import Settings, create_app
from stephttp.engine.api import OPERATIONS as TABLE
from stephttp.engine.api import ROUTES
from stephttp.engine.api.openapi.document import document
from stephttp.engine.api.sdk import extensions
from tests.examples import LONG, examples

from .support import KEY, SDK, A, B, Z, complete, new_run, sleep, step, step_error, world

METHODS = ("get", "head", "post", "delete", "options")
OPERATIONS = [
    (path, method.upper(), item[method])
    for path, item in document(TABLE)["paths"].items()
    for method in METHODS
    if method in item
]
RUNS = [f"01M81KWY2JTNRXZTV817ZB74{n:02}" for n in range(7)]
SYNC, WAITING, RETRYING, COMPLETED, FAILED, CANCELLED, PLAIN = RUNS
EVENT = "order/paid"
WAITS = [
    {"op": "WaitForEvent", "id": A, "name": EVENT, "opts": {"event": EVENT, "timeout": "1d"}},
    {"op": "WaitForSignal", "id": B, "name": "s", "opts": {"signal": "s", "timeout": "1d"}},
    sleep(Z, "1d"),
]
APP: dict[str, Any] = {
    "url": "http://app.test/api/inngest",
    "appName": "shop",
    "functions": [
        {
            "id": "shop-pack",
            "name": "pack",
            "triggers": [{"event": EVENT}],
            "steps": {"step": {"id": "step", "name": "step", "runtime": {
                "type": "http", "url": "http://app.test/api/inngest?fnId=shop-pack&stepId=step",
            }}},
        }
    ],
}  # fmt: skip
TEXT = {"content-type": "text/plain"}
GOOD = complete({"status": 201, "headers": TEXT, "body": "hi"})
BAD = complete({"status": 500, "headers": TEXT, "body": "no", "error": {"name": "E"}})
CHECKED = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


@dataclass
class Known:
    """What an engine has: runs with what opens them, events, a cancellation, an app."""

    runs: dict[str, dict[str, str]]
    events: list[str]
    cancellation: str

    @property
    def values(self) -> dict[str, list[str]]:
        """For the parameters of paths."""
        return {
            "run": RUNS,
            "event": self.events,
            "id": [self.cancellation],
            "name": ["shop"],
            "slug": ["shop-pack"],
            "function": ["shop-pack"],
        }

    def query(self, path: str, run_id: str | None) -> dict[str, str]:
        """What opens an output or a stream."""
        if path == "/fn/remove":
            return {"url": APP["url"]}
        if path.endswith("/sse"):
            return {"token": self.runs[SYNC]["realtime_token"]}
        if path.endswith("/output") and run_id in self.runs:
            return {"token": self.runs[run_id]["token"]}
        return {}


def _endpoint(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(206, headers=SDK, json=WAITS)


_current: list[ASGIApp] = []


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """The engine of the test that runs. Schemathesis keeps what it was given."""
    await _current[-1](scope, receive, send)


schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")
# What lies at the ends of each schema is 3,900 requests more.
API = schemathesis.openapi.from_dict(
    document(TABLE),
    config=SchemathesisConfig.from_dict({"phases": {"coverage": {"enabled": LONG}}}),
)
API.app = _app
API.validate()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Generator[Known]:
    """A new engine works, and has runs of every kind; what is told of each.

    Nothing in it waits: neither for the end of a run, nor for what else a stream brings.
    """
    monkeypatch.setattr(extensions, "_LONGEST_WAIT", 0.0)
    chosen = Settings(output_timeout=0, stream_lifetime=0.02, max_body=100_000, max_event=50_000)
    transport = httpx2.MockTransport(_endpoint)
    _current[:] = [create_app(chosen, rng=Random(1), transport=transport)]
    yield _fill()
    shutdown_lifespans()


def _call(method: str, path: str, body: Any = None, **parameters: Any) -> httpx2.Response:
    """One good request, whose answer is checked."""
    more = {} if body is None else {"body": body, "media_type": "application/json"}
    case = API[path][method].Case(**more, **parameters)
    response = case.call_and_validate(checks=_checks(case))
    return httpx2.Response(response.status_code, content=response.content)


def _post(path: str, body: Any, **parameters: Any) -> Any:
    response = _call("POST", path, body, **parameters)
    assert response.status_code == 200, response.text
    return response.json() if response.content else None


def _checks(case: Case[Any]) -> list[Any]:
    """Outputs are what handlers answered, whatever it was."""
    failed = case.operation.path.endswith("/output") and case.path_parameters == {"run": FAILED}
    return CHECKED[1:] if failed else CHECKED


def _fill() -> Known:
    runs = {}
    for run_id, ops, more in [
        (SYNC, [step()], {"lease": 60_000}),
        (WAITING, [step(), *WAITS], {"retries": 3}),
        (RETRYING, [step(), step_error()], {"retries": 3}),
        (COMPLETED, [step(), GOOD], {}),
        (FAILED, [step(), BAD], {}),
        (CANCELLED, WAITS[2:], {}),
        (PLAIN, [], {}),
    ]:
        body = new_run(*ops, run_id=run_id, **more)
        runs[run_id] = _post("/v1/checkpoint", body)["data"]
    result = {"status_code": 200, "headers": {"content-type": "text/plain"}, "body": "aGk="}
    _post("/v1/http/runs/{run}/response", result, path_parameters={"run": PLAIN})
    _call("DELETE", "/v1/runs/{run}", path_parameters={"run": CANCELLED})
    _post("/fn/register", APP)
    sent = [{"name": "other", "data": {"a": 1}}, {"name": "another"}]
    (event, _) = _post("/e/{key}", sent, path_parameters={"key": "k"})["ids"]
    of = {"app_id": runs[SYNC]["app_id"], "function_id": runs[SYNC]["fn_id"]}
    order = {**of, "started_before": "2000-01-01T00:00:00Z"}
    began = _call("GET", "/v1/runs/{run}", path_parameters={"run": SYNC}).json()["data"]
    return Known(
        runs=runs,
        events=[event, began["event_id"]],
        cancellation=_post("/v1/cancellations", order)["data"]["id"],
    )


def _make_known(case: Case[Any], known: Known) -> None:
    """Let most things that are named be there, and give what opens them."""
    named = case.path_parameters
    number = sum(map(ord, str(named)))
    for name, values in known.values.items():
        if name in named and number % 8:
            named[name] = values[number % len(values)]
    case.query = known.query(case.operation.path, named.get("run")) or case.query


@pytest.mark.parametrize(("path", "method"), [o[:2] for o in OPERATIONS if o[1] != "POST"])
def test_answers_about_what_is_there(path: str, method: str, known: Known) -> None:
    (name,) = [name for name in (*known.values, "") if f"{{{name}}}" in path or not name][:1]
    statuses = set()
    for value in known.values.get(name, [""]):
        named = {name: value} if name else {}
        query = known.query(path, value)
        statuses.add(_call(method, path, path_parameters=named, query=query).status_code)
    assert statuses & {200, 201, 204, 303}, statuses


def test_a_signal_that_is_waited_for(known: Known) -> None:
    answer = _post("/v1/signals", {"signal": "s", "data": None})
    assert answer["data"] == {"run_id": WAITING}


def _conformance(path: str, method: str) -> Callable[..., None]:
    """Make the test of one operation."""

    @API.include(path=path, method=method).parametrize()
    @settings(
        max_examples=examples(4, 60),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def test(case: Case[Any], known: Known) -> None:
        _make_known(case, known)
        case.call_and_validate(checks=_checks(case))

    made: Callable[..., None] = test
    return made


# schemathesis gives the tests of all operations one node id, of which pytest-xdist would run one.
globals().update(
    {
        f"test_answers_are_as_documented_{operation['operationId']}": _conformance(path, method)
        for path, method, operation in OPERATIONS
    }
)


def test_document_and_routes_agree() -> None:
    # Starlette answers HEAD wherever it answers GET; only outputs name it.
    # What goes by websocket is none of OpenAPI's.
    assert {type(route) for route in ROUTES} == {Route, WebSocketRoute}
    routes = [route for route in ROUTES if isinstance(route, Route)]
    routed = {
        (route.path, method)
        for route in routes
        for method in route.methods or ()
        if method != "HEAD" or route.path.endswith("/output")
    }
    assert {(path, method) for path, method, _ in OPERATIONS} == routed
    assert sum(len(item) for item in document(TABLE)["paths"].values()) == len(OPERATIONS)
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


async def test_document_is_served_and_needs_a_key_where_others_do() -> None:
    async with world() as w:
        response = await w.http.get("/openapi.json")
        assert response.headers["content-type"] == "application/json"
        assert response.json() == json.loads(json.dumps(document(TABLE)))
    async with world(signing_keys=(KEY,)) as w:
        assert (await w.http.get("/openapi.json")).status_code == 401
        w.http.headers["authorization"] = f"Bearer {KEY}"
        assert (await w.http.get("/openapi.json")).status_code == 200


NAMED = {"run": SYNC, "key": 1, "event": 1, "id": 1, "name": "shop", "slug": "shop-pack"}
NAMED |= {"function": "shop-pack"}


async def test_who_may_do_what_is_as_documented() -> None:
    async with world(signing_keys=(KEY,)) as w:
        for path, method, operation in OPERATIONS:
            response = await w.http.request(method, path.format(**NAMED))
            refused = (response.status_code, response.text) == (401, "Authentication failed\n")
            assert refused == (operation["security"] == [{"signingKey": []}]), (path, method)


async def test_times_at_the_ends_of_the_calendar() -> None:
    async with world() as w:
        names = await w.post(step())
        order = {"app_id": names["app_id"], "function_id": names["fn_id"]}
        first = {**order, "started_before": "0001-01-01T00:00:00Z"}
        made = await w.http.post("/v1/cancellations", json=first)
        assert made.json()["data"]["started_before"] == "0001-01-01T00:00:00.000Z"
        late = {**order, "started_before": "9999-12-31T23:59:59-01:00"}
        refused = await w.http.post("/v1/cancellations", json=late)
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("started_before: ")
        assert len((await w.http.get("/v1/cancellations")).json()["data"]) == 1

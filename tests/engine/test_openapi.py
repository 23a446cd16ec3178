"""The OpenAPI document: valid, complete, and kept to whatever schemathesis sends."""

from __future__ import annotations

import json
from collections.abc import Generator
from random import Random
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, checks
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi import checks as openapi_checks
from starlette.routing import Route

from stephttp.engine import Settings, create_app
from stephttp.engine.api import ROUTES, extras
from stephttp.engine.api.openapi import document

from .support import DONE, KEY, SDK, A, B, Z, new_run, sleep, step, step_error, world

Tokens = dict[str, dict[str, Any]]
METHODS = ("get", "head", "post", "delete", "options")
OPERATIONS = [
    (path, method.upper(), item[method])
    for path, item in document()["paths"].items()
    for method in METHODS
    if method in item
]
RUNS = [f"01M81KWY2JTNRXZTV817ZB74{n:02}" for n in range(6)]
SYNC, WAITING, COMPLETED, FAILED, CANCELLED, PLAIN = RUNS
EVENT = "order/paid"
WAITS = [
    {"op": "WaitForEvent", "id": A, "name": EVENT, "opts": {"event": EVENT, "timeout": "1d"}},
    {"op": "WaitForSignal", "id": B, "name": "s", "opts": {"signal": "s", "timeout": "1d"}},
    sleep(Z, "1d"),
]
CHECKED = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]


def _endpoint(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(206, headers=SDK, json=WAITS)


def _call(schema: BaseSchema, path: str, body: Any, **parameters: Any) -> Any:
    """One good request, which is checked as well."""
    case = schema[path]["POST"].Case(body=body, media_type="application/json", **parameters)
    response = case.call_and_validate(checks=CHECKED)
    assert response.status_code == 200, response.text
    return response.json().get("data") if response.content else None


# Nothing in it waits: neither for the end of a run, nor for what else a stream brings.
API = schemathesis.openapi.from_dict(document())
API.app = create_app(
    Settings(output_timeout=0, stream_lifetime=0.02, max_body=100_000, max_event=50_000),
    rng=Random(1),
    transport=httpx2.MockTransport(_endpoint),
)


@pytest.fixture(scope="module")
def tokens() -> Generator[Tokens]:
    """The engine works and has runs of every kind; what is told of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extras, "_LONGEST_WAIT", 0.0)
        yield _fill(API)
        shutdown_lifespans()


def _fill(schema: BaseSchema) -> Tokens:
    """Make runs; return what is told of each."""
    names = {}
    for run_id, ops, more in [
        (SYNC, [step()], {"lease": 60_000}),
        (WAITING, [step(), *WAITS], {"retries": 3}),
        (COMPLETED, [step(), DONE], {}),
        (FAILED, [step_error()], {"retries": 0}),
        (CANCELLED, WAITS[2:], {}),
        (PLAIN, [], {}),
    ]:
        body = new_run(*ops, run_id=run_id, **more)
        names[run_id] = _call(schema, "/v1/checkpoint", body)
    result = {"status_code": 200, "headers": {"x-a": "b"}, "body": "aGk="}
    _call(schema, "/v1/http/runs/{run}/response", result, path_parameters={"run": PLAIN})
    schema["/v1/runs/{run}"]["DELETE"].Case(path_parameters={"run": CANCELLED}).call()
    sent = [{"name": EVENT, "data": {"a": 1}}, {"name": "other"}]
    _call(schema, "/e/{key}", sent, path_parameters={"key": "k"})
    span = {"started_before": "2000-01-01T00:00:00Z"}
    of = {"app_id": names[SYNC]["app_id"], "function_id": names[SYNC]["fn_id"]}
    _call(schema, "/v1/cancellations", {**of, **span})
    return names


def _make_known(case: Case, tokens: Tokens) -> None:
    """Most runs that are named are there, and so is what opens them."""
    path = case.operation.path
    if not isinstance(case.path_parameters, dict) or "run" not in case.path_parameters:
        return
    number = sum(map(ord, str(case.path_parameters["run"])))
    known = [*RUNS, None][number % (len(RUNS) + 1)]
    if known is not None:
        case.path_parameters["run"] = known
        if path.endswith("/output"):
            case.query = {"token": tokens[known]["token"]}


@API.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(case: Case, tokens: Tokens) -> None:
    _make_known(case, tokens)
    case.call_and_validate(checks=CHECKED)


def test_document_and_routes_agree() -> None:
    # Starlette answers HEAD wherever it answers GET; only outputs name it.
    routed = {
        (route.path, method)
        for route in ROUTES
        for method in route.methods or ()
        if method != "HEAD" or route.path.endswith("/output")
    }
    assert all(type(route) is Route for route in ROUTES)
    assert {(path, method) for path, method, _ in OPERATIONS} == routed
    assert sum(len(item) for item in document()["paths"].values()) == len(OPERATIONS)
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


async def test_document_is_served_and_needs_a_key_where_others_do() -> None:
    async with world() as w:
        response = await w.http.get("/openapi.json")
        assert response.headers["content-type"] == "application/json"
        assert response.json() == json.loads(json.dumps(document()))
    async with world(signing_keys=(KEY,)) as w:
        assert (await w.http.get("/openapi.json")).status_code == 401
        w.http.headers["authorization"] = f"Bearer {KEY}"
        assert (await w.http.get("/openapi.json")).status_code == 200


async def test_who_may_do_what_is_as_documented() -> None:
    async with world(signing_keys=(KEY,)) as w:
        for path, method, operation in OPERATIONS:
            response = await w.http.request(method, path.format(run=SYNC, key=1, event=1, id=1))
            refused = (response.status_code, response.text) == (401, "Authentication failed\n")
            assert refused == (operation["security"] == [{"signingKey": []}]), (path, method)

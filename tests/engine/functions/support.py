"""What tests of functions share: apps that register, events, answers."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import httpx2

from tests.engine.support import SDK, A, World

URL = "http://app.test/api/inngest"


def config(id_: str, *triggers: str | dict[str, Any], retries: int = 2, **more: Any) -> Any:
    url = f"{URL}?fnId={id_}&stepId=step"
    step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": url}}
    return {
        "id": id_,
        "name": f"the {id_}",
        "triggers": [{"event": one} if isinstance(one, str) else one for one in triggers],
        "steps": {"step": {**step, "retries": {"attempts": retries}}},
        **more,
    }


async def register(w: World, *functions: Any, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"appname": "shop", "url": URL, "sdk": "py:v0.5.19"}
    body |= {"functions": list(functions), **more}
    response = await w.http.post("/fn/register", json=body)
    assert response.status_code == 200, response.text
    said: dict[str, Any] = response.json()
    return said


async def send(w: World, name: str, data: Any = None, **more: Any) -> str:
    event = {"name": name, "data": data or {}, **more}
    response = await w.http.post("/e/key", json=event)
    assert response.status_code == 200, response.text
    event_id: str = response.json()["ids"][0]
    await w.engine.idle()
    return event_id


async def started(w: World, event_id: str) -> list[dict[str, Any]]:
    listed = (await w.http.get(f"/v1/events/{event_id}/runs")).json()["data"]
    return [await w.run(run["run_id"]) for run in listed]


async def only(w: World, event_id: str) -> dict[str, Any]:
    (run,) = await started(w, event_id)
    return run


def returns(value: Any) -> httpx2.Response:
    return httpx2.Response(200, headers=SDK, json=value)


def fails(status: int = 500, *, headers: dict[str, str] | None = None, **error: Any) -> Any:
    body = {"name": "ValueError", "message": "no", **error}
    return httpx2.Response(status, headers={**SDK, **(headers or {})}, json=body)


def body_of(request: httpx2.Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.content)
    return body


def output(run: dict[str, Any]) -> Any:
    return json.loads(b64decode(run["output"]))


def step_run(id_: str = A, data: Any = 1) -> dict[str, Any]:
    return {"op": "StepRun", "id": id_, "displayName": "a", "name": "a", "data": data}


def planned(id_: str, **opts: Any) -> dict[str, Any]:
    return {"op": "StepPlanned", "id": id_, "name": id_[:4], "opts": opts or None}


def invoke(id_: str = A, function: str = "shop-child", **more: Any) -> dict[str, Any]:
    opts = {"function_id": function, "payload": {"data": {"n": 1}}, "timeout": None, **more}
    return {"op": "InvokeFunction", "id": id_, "name": "i", "opts": opts}

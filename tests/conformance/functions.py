"""What tests of the real SDKs' functions share: an app, its events, and what becomes of them."""

from __future__ import annotations

import json
from base64 import b64decode
from itertools import count
from typing import Any

import httpx2

from tests.acceptance.processes import eventually

_KEYS = count(1)


class App:
    """An app with functions, and the engine that runs them.

    Args:
        name: of the app, and of the framework that serves it.
        url: its address.
        engine: a client of the engine.
        event_key: a key for sending events.
    """

    def __init__(self, name: str, url: str, engine: httpx2.Client, event_key: str = "any") -> None:
        self.event_key = event_key
        self.name = name
        self.url = url
        self.engine = engine
        self.key = f"k{next(_KEYS)}"

    def send(self, event: str, **data: Any) -> str:
        """Send an event about this test, and return its id."""
        message = {"name": f"{self.name}/{event}", "data": {"key": self.key, **data}}
        answer = self.engine.post(f"/e/{self.event_key}", json=message)
        (event_id,) = answer.json()["ids"]
        return str(event_id)

    def send_together(self, event: str, *data: dict[str, Any]) -> list[str]:
        """Send events about this test in one request, and return their ids."""
        messages = [
            {"name": f"{self.name}/{event}", "data": {"key": self.key, **one}} for one in data
        ]
        ids: list[str] = self.engine.post(f"/e/{self.event_key}", json=messages).json()["ids"]
        return ids

    def runs(self, event_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.engine.get(f"/v1/events/{event_id}/runs").json()["data"]
        return found

    def ended(self, event_id: str) -> list[dict[str, Any]]:
        """The runs that an event has started, once all have ended."""

        def look() -> list[dict[str, Any]]:
            runs = self.runs(event_id)
            return runs if all(run["ended_at"] for run in runs) else []

        found = eventually(look)
        return [self.engine.get(f"/v1/runs/{run['run_id']}").json()["data"] for run in found]

    def outcome(self, function: str, **data: Any) -> dict[str, Any]:
        """The one run of a function that an event of its name starts, once it has ended."""
        (run,) = self.ended(self.send(function, **data))
        assert run["function"] == f"{self.name}-{function}"
        return run

    def result(self, function: str, **data: Any) -> Any:
        """What a function returns."""
        run = self.outcome(function, **data)
        assert run["status"] == "Completed", run
        return output(run)

    def latest(self, function: str, count: int) -> list[dict[str, Any]]:
        """The latest runs of a function, once they have ended."""
        query = {"endpoint": f"{self.name}-{function}", "limit": str(count)}

        def look() -> list[dict[str, Any]]:
            runs = self.engine.get("/v1/runs", params=query).json()["data"]
            return runs if len(runs) == count and all(run["ended_at"] for run in runs) else []

        found = eventually(look)
        return [self.engine.get(f"/v1/runs/{run['run_id']}").json()["data"] for run in found]

    def completed(self, event_id: str) -> list[str]:
        """The ids of the steps that have completed in the runs that an event has started."""
        paths = [f"/v1/stephttp/runs/{run['run_id']}" for run in self.runs(event_id)]
        lists = [self.engine.get(path).json()["data"]["step_list"] for path in paths]
        return [step["id"] for steps in lists for step in steps if step["state"] == "completed"]

    def counts(self) -> dict[str, int]:
        """How often things happened in this test."""
        counts: dict[str, int] = httpx2.get(f"{self.url}/counts", params={"key": self.key}).json()
        return counts


def started_by_time(engine: httpx2.Client, function: str) -> list[Any]:
    """What a function has returned that time has started at least twice, the latest first."""

    def look() -> list[Any]:
        query = {"endpoint": function, "status": "completed"}
        runs = engine.get("/v1/runs", params=query).json()["data"]
        return runs if len(runs) > 1 else []

    return [
        output(engine.get(f"/v1/runs/{run['run_id']}").json()["data"]) for run in eventually(look)
    ]


def output(run: dict[str, Any]) -> Any:
    return json.loads(b64decode(run["output"]))

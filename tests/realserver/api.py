"""The API of the server (docs/protocol.md 4, 7, 8)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx2
from ulid import ULID

from stephttp._wire.signatures import bearer_matches
from tests.realserver.executor import OPS, Executor
from tests.realserver.state import Config, Function, Op, RealRun


class API:
    """Answers the SDK, and those who wait for results.

    Args:
        executor: carries out what is asked for.
        key: signing key; empty is the development server.
    """

    def __init__(self, executor: Executor, key: str) -> None:
        self.executor = executor
        self.key = key
        self.functions: dict[str, Function] = {}
        self.forwarded: dict[str, bytes] = {}
        """What was sent to those who follow the streams of runs."""
        self.empty_outputs = 0
        """How often the output of a run that has ended is still empty."""
        self.late_records = 0
        """The same of what is said about the run."""
        self.forgets_first: Callable[[], bool] = lambda: False
        """Whether the state of a run that has ended is gone, but not its name: 200 `{}`."""
        self.no_ui = False
        """Whether the server was started with `--no-ui`."""
        self.seconds_per_op = 0.0
        """How long a checkpoint takes; the client may give up before its end."""

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        path = request.url.path
        if path.endswith("/output"):
            return self._output(path.split("/")[4], request)
        if path == "/v1/realtime/publish/tee":
            return self._tee(request)
        if path.startswith("/e/"):
            return self._events(request)
        if path == "/health":
            return json_answer({"status": 200, "message": "OK"}, request)
        check_plain(request)
        bearer = request.headers.get("authorization", "")
        if self.key and not bearer_matches(bearer, [self.key]):
            return text_answer(401, "Authentication failed\n", request)
        if path.endswith("/actions"):
            return self._actions(path.split("/")[3], request)
        if path == "/v1/signals":
            return self._signal(request)
        if path.startswith("/v1/runs/"):
            return self._run(path.split("/")[3], request)
        try:
            body = json.loads(request.content)
            ops = body.get("steps") or []
            assert all(op["op"] in OPS for op in ops)
            if path.endswith("/steps"):
                answer = await self._steps(body["run_id"], ops, request)
            else:
                answer = await self._create(body, ops, request)
        except (ValueError, AssertionError):
            return error_answer(400, "Invalid request body", request)
        patience = request.extensions.get("timeout", {}).get("read")
        if patience is not None and len(ops) * self.seconds_per_op > patience:
            raise httpx2.ReadTimeout("the server was too slow", request=request)
        return answer

    async def _steps(self, run_id: str, ops: list[Op], request: httpx2.Request) -> httpx2.Response:
        run = self.executor.runs.get(run_id)
        if run is not None:  # an unknown one is only logged
            await self.executor.checkpoint(run, ops)
        return text_answer(200, "", request)

    async def _create(
        self, body: dict[str, Any], ops: list[Op], request: httpx2.Request
    ) -> httpx2.Response:
        ULID.from_str(body["run_id"])
        data = body["event"]["data"]
        base64.b64decode(data.get("body") or "", validate=True)
        if any(_panics(op) for op in ops):
            return text_answer(500, "", request)
        retries = body.get("retries", 0)
        config = Config(4 if retries < 0 else retries, data["method"])
        slug = data.get("fn") or f"{data['method']} {data['path']}"
        function = self.functions.setdefault(slug, Function(config, config))
        function.update(config)
        version = body.get("request_version", -1)
        new = RealRun(body["run_id"], body["event"], function, version)
        run = self.executor.runs.setdefault(new.run_id, new)
        await self.executor.checkpoint(run, ops)
        ids = {"fn_id": "f" * 36, "app_id": "a" * 36, "run_id": run.run_id, "realtime_token": "r"}
        token = {"token": f"token-{run.run_id}"} if ops else {}
        return json_answer({"data": ids | token, "metadata": {}}, request)

    def _actions(self, run_id: str, request: httpx2.Request) -> httpx2.Response:
        run = self.executor.runs.get(run_id)
        if run is not None and run.over and self.forgets_first():
            return text_answer(200, "{}\n", request)
        if run is None or run.over:
            message = f"runtime state is no longer available for runID: {run_id}"
            return error_answer(410, message, request)
        return text_answer(200, json.dumps(run.memos) + "\n", request)

    def _output(self, run_id: str, request: httpx2.Request) -> httpx2.Response:
        if self.no_ui:
            return httpx2.Response(500, request=request)
        run = self.executor.runs.get(run_id)
        if run is None or request.url.params.get("token") != f"token-{run_id}":
            return error_answer(401, "Unable to find run with auth token", request)
        if not run.over:
            message = "run did not end within 5 minutes"
            return json_answer({"status": "running", "message": message}, request)
        headers = {"x-inngest-server-kind": "cloud", "vary": "Origin"}
        plain = headers | {"content-type": "application/json"}
        if self.empty_outputs:
            self.empty_outputs -= 1
            return httpx2.Response(200, headers=plain, request=request)
        value = "" if run.status == "Cancelled" else run.output
        if isinstance(value, dict) and isinstance(value.get("data"), dict):
            inner = value["data"]
            if inner.get("status", 0) > 0 and isinstance(inner.get("headers"), dict):
                given = {name: value.encode() for name, value in inner["headers"].items()}
                return httpx2.Response(
                    inner["status"],
                    headers=[*headers.items(), *given.items()],
                    content=inner["body"].encode(),
                    request=request,
                )
        text = value if isinstance(value, str) else json.dumps(value)
        return httpx2.Response(200, headers=plain, content=text.encode(), request=request)

    def _run(self, run_id: str, request: httpx2.Request) -> httpx2.Response:
        """Say how a run stands; what it has ended with is base64 of what was stored."""
        run = self.executor.runs.get(run_id)
        if run is None:
            return json_answer({"error": "run not found", "data": None, "status": 500}, request)
        if request.method == "DELETE":
            run.end("Cancelled", {})
            return text_answer(200, "", request)
        found: dict[str, Any] = {
            "run_id": run_id, "run_started_at": "2026-11-28T12:00:00Z", "function_id": "f" * 36,
            "function_version": 0, "event_id": run_id, "status": run.status, "ended_at": None,
        }  # fmt: skip
        if run.over and self.late_records:
            self.late_records -= 1
        elif run.over:
            value = run.output
            text = value if isinstance(value, str) else json.dumps(value)
            found["output"] = base64.b64encode(text.encode()).decode()
        return json_answer({"data": found, "metadata": {}}, request)

    def _events(self, request: httpx2.Request) -> httpx2.Response:
        events = json.loads(request.content)
        events = events if isinstance(events, list) else [events]
        ids = [str(ULID()) for _ in events]
        for event, event_id in zip(events, ids, strict=True):
            self.executor.send_event(event["name"], event.get("data"), event_id=event_id)
        return json_answer({"ids": ids, "status": 200}, request)

    def _signal(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        run_id = self.executor.send_signal(body["signal"], body.get("data"))
        if run_id is None:
            return error_answer(404, "No signal found", request)
        return json_answer({"data": {"run_id": run_id}, "metadata": {}}, request)

    def _tee(self, request: httpx2.Request) -> httpx2.Response:
        """Forward bytes to those who listen now, and keep nothing (docs/protocol.md 8.4)."""
        assert not [name for name in request.headers if name.startswith("x-stephttp-")]
        if self.key and not bearer_matches(request.headers.get("authorization", ""), [self.key]):
            return error_answer(401, "Not authenticated for publishing", request)
        if len(request.content) > 1_024_000:
            return error_answer(500, "Error forwarding data", request)
        channel = request.url.params["channel"]
        self.forwarded[channel] = self.forwarded.get(channel, b"") + request.content
        return text_answer(200, "", request)


def _panics(op: Op) -> bool:
    opts = op.get("opts") or {}
    return (
        (op["op"] == "StepError" and not op.get("error"))
        or (op["op"] == "WaitForEvent" and "event." in (opts.get("if") or ""))
        or (op["op"] == "InvokeFunction" and not opts.get("payload"))
    )


def check_plain(request: httpx2.Request) -> None:
    """Nothing that only our engine understands is sent to a server that did not announce it. But a
    lease is asked for before it is known, because ours may take the opening and its answer be
    lost."""
    extras = {name for name in request.headers if name.startswith("x-stephttp-")}
    assert extras <= {"x-stephttp-accept"}, extras
    body = json.loads(request.content or b"{}")
    assert isinstance(body, dict), "no batches"
    assert not {"reads_state", "claim"} & body.keys(), body.keys()


def text_answer(status: int, text: str, request: httpx2.Request) -> httpx2.Response:
    """An answer of the server."""
    headers = {"x-inngest-server-kind": "cloud"}
    return httpx2.Response(status, headers=headers, content=text.encode(), request=request)


def json_answer(value: Any, request: httpx2.Request) -> httpx2.Response:
    """An answer of JSON."""
    return text_answer(200, json.dumps(value, separators=(",", ":")) + "\n", request)


def error_answer(status: int, message: str, request: httpx2.Request) -> httpx2.Response:
    """An error in the shape of the server."""
    body = {"error": message, "data": None, "status": status}
    return text_answer(status, json.dumps(body) + "\n", request)

"""A double of the real Inngest server, built from docs/protocol.md 4, 6 and 7: with its traps.

It is the transport of the SDK under test, and calls the application itself. What it does not do
for good runs it does not do here either: it hangs on `[]`, it never ends a run whose attempts are
used up by plain errors, it restores no header but the content type, it shows only the body of a
result that came by checkpoint, it sends further re-entries than anybody needs.

Time is virtual: what is due next happens when nothing else is left to do.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from ulid import ULID

from stephttp._wire.durations import parse_duration
from stephttp._wire.signatures import bearer_matches, sign
from stephttp.options import resolve
from stephttp.provider import Provider
from tests.wsgi import Blocking, WSGITransport

APP, SERVER = "http://app.test", "http://inngest.test"
START = 1_795_352_000.0
TABLE = (15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200)
CHECKPOINT_RETRY = 5.0
EVENT_NAME = "inngest/http.request"
PLANNING = {"StepPlanned", "Sleep", "WaitForEvent", "WaitForSignal", "InvokeFunction", "StepError"}
OPS = PLANNING | {
    "None", "Step", "StepRun", "StepFailed", "AIGateway", "Gateway", "RunComplete",
    "SyncRunComplete", "DiscoveryRequest", "DeferAdd", "DeferAbort",
}  # fmt: skip


@dataclass
class Item:
    """A queue item: one reason to call the application, with its attempts."""

    run_id: str
    attempt: int = 0
    generation: int = 1
    step_id: str = ""
    saves: str = ""
    """A step that becomes `null` when the item is due: a sleep, or a wait that timed out."""
    job: str = ""


@dataclass
class RealRun:
    """A run, as the server stores it."""

    run_id: str
    event: dict[str, Any]
    retries: int
    version: int
    status: str = "Running"
    memos: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    force_plan: bool = False
    queued: set[str] = field(default_factory=set)


class RealServer(httpx2.AsyncBaseTransport):
    """The server. Set `app` to the wrapped application.

    Args:
        key: signing key; empty is the development server.
        extra: calls the application once more for every re-entry, as racing discoveries do.
        force_plan: asks for step plans on every call.
        wsgi: whether the application is one of WSGI.
    """

    def __init__(
        self, *, key: str = "", extra: bool = False, force_plan: bool = False, wsgi: bool = False
    ) -> None:
        self.app: Any = None
        self.wsgi = wsgi
        self.blocking = Blocking(self)
        self.key = key
        self.extra = extra
        self.always_plan = force_plan
        self.now = START
        self.runs: dict[str, RealRun] = {}
        self.reentries: list[httpx2.Request] = []
        self.answers: list[httpx2.Response] = []
        self.api: list[httpx2.Request] = []
        self.forwarded: dict[str, bytes] = {}
        """What was sent to those who follow the streams of runs."""
        self.down: Callable[[httpx2.Request], bool] = lambda request: False
        self.rng = random.Random(7)
        self._queue: list[tuple[float, int, Item]] = []
        self._order = itertools.count()

    def provider(self, **options: Any) -> Provider:
        """The SDK's side: a provider that talks to this server."""
        environ = {"INNGEST_SIGNING_KEY": self.key} if self.key else {"INNGEST_DEV": "1"}
        return Provider(
            resolve(APP, base_url=SERVER, environ=environ, **options),
            transport=self,
            sync_transport=self.blocking,
            now_ns=lambda: int(self.now * 1_000_000_000),
            pause=self._pause,
            sync_pause=self._sync_pause,
            rng=random.Random(1),
        )

    def client(self) -> httpx2.AsyncClient:
        """A user of the application."""
        self.blocking.loop = asyncio.get_running_loop()
        return httpx2.AsyncClient(transport=self._to_app(), base_url=APP)

    def _to_app(self) -> httpx2.AsyncBaseTransport:
        if self.wsgi:
            return WSGITransport(self.app)
        return httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)

    async def finish(self, response: httpx2.Response, calls: int = 200) -> httpx2.Response:
        """The final answer behind a redirect.

        Raises:
            AssertionError: the run hangs, or needs more calls than that.
        """
        assert response.status_code == 303, (response.status_code, response.text)
        await self.work(calls)
        url = httpx2.URL(response.headers["location"])
        return await self.handle_async_request(httpx2.Request("GET", url))

    async def work(self, calls: int = 200) -> None:
        """Do what is due, and let time pass, until nothing is left to do."""
        while self._queue:
            due, _, item = heapq.heappop(self._queue)
            self.now = max(self.now, due)
            await self._call(item)
            calls -= 1
            assert calls, "the run goes in circles"

    # --- the API ------------------------------------------------------------------------------

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.api.append(request)
        if self.down(request):
            raise httpx2.ConnectError("connection refused", request=request)
        path = request.url.path
        if path.endswith("/output"):
            return self._output(path.split("/")[4], request)
        if path == "/v1/realtime/publish/tee":
            return self._tee(request)
        _check_plain(request)
        authorized = bearer_matches(request.headers.get("authorization", ""), [self.key])
        if self.key and not authorized:
            return self._text(401, "Authentication failed\n", request)
        if path.endswith("/actions"):
            return self._actions(path.split("/")[3], request)
        try:
            body = json.loads(request.content)
            ops = body.get("steps") or []
            assert all(op["op"] in OPS for op in ops)
            if not path.endswith("/steps"):
                return self._create(body, ops, request)
        except (ValueError, AssertionError):
            return self._error(400, "Invalid request body", request)
        run = self.runs.get(body["run_id"])
        if run is not None:  # an unknown one is only logged
            self._checkpointed(run, ops)
        return self._text(200, "", request)

    def _tee(self, request: httpx2.Request) -> httpx2.Response:
        """Forward bytes to those who listen now, and keep nothing (docs/protocol.md 8.4)."""
        assert not [name for name in request.headers if name.startswith("x-stephttp-")]
        if self.key and not bearer_matches(request.headers.get("authorization", ""), [self.key]):
            return self._error(401, "Not authenticated for publishing", request)
        if len(request.content) > 1_024_000:
            return self._error(500, "Error forwarding data", request)
        channel = request.url.params["channel"]
        self.forwarded[channel] = self.forwarded.get(channel, b"") + request.content
        return self._text(200, "", request)

    def _create(
        self, body: dict[str, Any], ops: list[dict[str, Any]], request: httpx2.Request
    ) -> httpx2.Response:
        ULID.from_str(body["run_id"])
        encoded = body["event"]["data"].get("body")
        base64.b64decode(encoded or "", validate=True)
        for op in ops:
            panics = (
                (op["op"] == "StepError" and not op.get("error"))
                or (op["op"] == "WaitForEvent" and "event." in (op["opts"].get("if") or ""))
                or (op["op"] == "InvokeFunction" and not op["opts"].get("payload"))
            )
            if panics:
                return self._text(500, "", request)
        retries = body.get("retries", 0)
        run = RealRun(
            body["run_id"],
            body["event"],
            4 if retries < 0 else retries,
            body.get("request_version", -1),
        )
        self.runs.setdefault(run.run_id, run)
        self._checkpointed(run, ops)
        ids = {"fn_id": "f" * 36, "app_id": "a" * 36, "run_id": run.run_id, "realtime_token": "r"}
        token = {"token": f"token-{run.run_id}"} if ops else {}
        return self._json({"data": ids | token, "metadata": {}}, request)

    def _checkpointed(self, run: RealRun, ops: list[dict[str, Any]]) -> None:
        run.force_plan = run.force_plan or len(ops) > 1
        ends = any(op["op"] == "RunComplete" for op in ops)
        for op in ops:
            if run.status != "Running":
                return
            if op["op"] in ("StepRun", "Step"):
                if not ends:
                    self._save(run, op["id"], {"data": op.get("data")})
            elif op["op"] == "RunComplete":
                # Whatever status and headers it has, only the body is kept (docs/protocol.md 7.2).
                self._end(run, "Completed", _peel(op["data"]["body"]))
            elif op["op"] == "StepError":
                if run.retries > 0 and not (op["error"] or {}).get("noRetry"):
                    self._push(CHECKPOINT_RETRY, Item(run.run_id, attempt=1))
                else:
                    self._save(run, op["id"], {"error": op["error"]})
                    self._push(0, Item(run.run_id))
            else:
                self._single(run, op)

    def _single(self, run: RealRun, op: dict[str, Any]) -> None:
        """An op that leads to a call by itself."""
        kind, opts = op["op"], op.get("opts") or {}
        if kind == "StepFailed":
            self._save(run, op["id"], {"error": op["error"]})
            self._push(0, Item(run.run_id))
        elif kind == "Sleep" and op["id"] not in run.memos | dict.fromkeys(run.queued):
            run.queued.add(op["id"])
            seconds = _seconds(opts.get("duration") or op.get("name") or "", self.now)
            self._push(seconds, Item(run.run_id, saves=op["id"]))
        elif kind == "WaitForEvent" and op["id"] not in run.memos | dict.fromkeys(run.queued):
            run.queued.add(op["id"])
            self._push(_seconds(opts["timeout"], self.now), Item(run.run_id, saves=op["id"]))
        elif kind == "StepPlanned":
            self._push(0, Item(run.run_id, step_id=op["id"]))
        elif kind == "DiscoveryRequest" and op["id"] not in run.queued:
            run.queued.add(op["id"])
            self._push(0.1, Item(run.run_id))

    def _actions(self, run_id: str, request: httpx2.Request) -> httpx2.Response:
        run = self.runs.get(run_id)
        if run is None or run.status != "Running":
            message = f"runtime state is no longer available for runID: {run_id}"
            return self._error(410, message, request)
        return self._text(200, json.dumps(run.memos) + "\n", request)

    def _output(self, run_id: str, request: httpx2.Request) -> httpx2.Response:
        run = self.runs[run_id]
        if request.url.params.get("token") != f"token-{run_id}":
            return self._error(401, "Unable to find run with auth token", request)
        if run.status == "Running":
            message = "run did not end within 5 minutes"
            return self._json({"status": "running", "message": message}, request)
        value = run.output
        if isinstance(value, dict) and isinstance(value.get("data"), dict):
            inner = value["data"]
            if inner.get("status", 0) > 0 and isinstance(inner.get("headers"), dict):
                return httpx2.Response(
                    inner["status"],
                    headers=inner["headers"],
                    content=inner["body"].encode(),
                    request=request,
                )
        text = value if isinstance(value, str) else json.dumps(value)
        headers = {"content-type": "application/json"}
        return httpx2.Response(200, headers=headers, content=text.encode(), request=request)

    # --- re-entries ---------------------------------------------------------------------------

    async def _call(self, item: Item) -> None:
        run = self.runs[item.run_id]
        if run.status != "Running":
            return
        if item.saves:
            self._save(run, item.saves, None)
            item.saves = ""
        answer = await self._reenter(run, item)
        if answer is not None:
            self._answered(run, item, answer)
        else:
            self._again(run, item, TABLE)
        if self.extra and not item.generation > 1 and run.status == "Running":
            late = await self._reenter(run, Item(run.run_id, job="late"))
            if late is not None:
                self._answered(run, Item(run.run_id), late)

    async def _reenter(self, run: RealRun, item: Item) -> httpx2.Response | None:
        item.job = item.job or f"job{next(self._order)}"
        data = run.event["data"]
        faithful = run.event["name"] == EVENT_NAME
        body = base64.b64decode(data.get("body") or "") if faithful else b""
        url = data["domain"] + data["path"]
        if faithful and data["query_params"]:
            url += "?" + data["query_params"]
        headers = {
            "user-agent": "Inngest",
            "connection": "close",
            "accept-encoding": "gzip",
            "content-type": (data["content_type"] if faithful else "") or "application/json",
            "x-inngest-generation-id": str(item.generation),
            "x-inngest-job-id": item.job,
            "x-inngest-req-version": str(run.version),
            "x-inngest-signature": sign(self.key, body, int(self.now)) if self.key else "",
            "x-request-id": str(ULID()),
            "x-run-id": run.run_id,
        }
        if run.force_plan or self.always_plan:
            headers["x-inngest-force-step-plan"] = "true"
        if item.step_id:
            headers["x-inngest-step-id"] = item.step_id
        request = httpx2.Request(data["method"], url, headers=headers, content=body)
        self.reentries.append(request)
        if not url.startswith(APP) or self.down(request):
            return None
        answer = await self._to_app().handle_async_request(request)
        await answer.aread()
        self.answers.append(answer)
        return answer

    def _answered(self, run: RealRun, item: Item, answer: httpx2.Response) -> None:
        good = 200 <= answer.status_code < 300
        if "x-inngest-sdk" not in answer.headers:
            error = {"error": "", "name": "Server returned a fatal error"}
            self._end(run, "Completed", answer.text if good else error)
            return
        run.version = int(answer.headers.get("x-inngest-req-version", "0"))
        if answer.content[:1] == b"[":
            ops = json.loads(answer.content)
            if not all(op["op"] in OPS for op in ops):
                self._end(run, "Completed", answer.text)
            else:
                self._ops(run, item, ops, answer)
            return
        if good:
            op = _json_or_none(answer.content)
            complete = isinstance(op, dict) and op.get("op") == "RunComplete"
            self._end(run, "Completed", {"data": op["data"]} if complete and op else answer.text)
        elif answer.headers.get("x-inngest-no-retry") == "true":
            self._end(run, "Failed", answer.text)
        else:
            self._again(run, item, TABLE)  # retry-after is ignored here

    def _ops(
        self, run: RealRun, item: Item, ops: list[dict[str, Any]], answer: httpx2.Response
    ) -> None:
        run.force_plan = len(ops) > 1 or (run.force_plan and run.version < 2)
        planning = any(op["op"] in PLANNING for op in ops)
        for op in ops:
            if op["op"] in ("StepRun", "Step"):
                self._save(run, op["id"], {"data": op.get("data")})
                if not planning:
                    self._push(0, Item(run.run_id))
            elif op["op"] in ("RunComplete", "SyncRunComplete"):
                self._end(run, "Completed", None)  # in an array the body is lost
            elif op["op"] == "StepError":
                final = item.attempt >= run.retries or op["error"].get("noRetry")
                if final or answer.headers.get("x-inngest-no-retry") == "true":
                    self._save(run, op["id"], {"error": op["error"]})
                    self._push(0, Item(run.run_id))
                else:
                    after = answer.headers.get("retry-after")
                    self._again(run, item, (int(after),) if after else TABLE)
            else:
                self._single(run, op)

    def _again(self, run: RealRun, item: Item, table: tuple[int, ...]) -> None:
        if item.attempt >= run.retries:
            return  # and nobody ever ends the run
        delay = table[min(item.attempt, len(table) - 1)] + self.rng.uniform(0, 30)
        again = Item(run.run_id, item.attempt + 1, item.generation + 1, item.step_id, "", item.job)
        self._push(delay, again)

    def _push(self, seconds: float, item: Item) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), item))

    def _save(self, run: RealRun, step: str, memo: Any) -> None:
        run.memos.setdefault(step, memo)  # the first output wins

    def _end(self, run: RealRun, status: str, output: Any) -> None:
        if run.status == "Running":
            run.status, run.output = status, output
            run.memos = {}

    async def _pause(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def _sync_pause(self, seconds: float) -> None:
        self.now += seconds

    def _text(self, status: int, text: str, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            status,
            headers={"x-inngest-server-kind": "cloud"},
            content=text.encode(),
            request=request,
        )

    def _json(self, value: Any, request: httpx2.Request) -> httpx2.Response:
        return self._text(200, json.dumps(value) + "\n", request)

    def _error(self, status: int, message: str, request: httpx2.Request) -> httpx2.Response:
        body = {"error": message, "data": None, "status": status}
        return self._text(status, json.dumps(body) + "\n", request)


def _check_plain(request: httpx2.Request) -> None:
    """Nothing that only our engine understands is sent to a server that did not announce it."""
    extras = {name for name in request.headers if name.startswith("x-stephttp-")}
    assert extras <= {"x-stephttp-accept"}, extras
    body = json.loads(request.content or b"{}")
    assert isinstance(body, dict), "no batches"
    assert not {"reads_state", "lease", "claim"} & body.keys(), body.keys()


def _peel(body: str) -> Any:
    """Trick 7.3: a body that is itself an envelope is understood."""
    value = _json_or_none(body.encode())
    return value if isinstance(value, dict) and "data" in value else body


def _json_or_none(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _seconds(text: str, now: float) -> float:
    from datetime import datetime

    if len(text) >= 10:
        try:
            return max(0.0, round(datetime.fromisoformat(text).timestamp()) - now)
        except ValueError:
            pass
    return parse_duration(text).total_seconds() if text else 0.0

"""Everything that the Go package exports is here, and does what it says."""

import inspect
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import sync
from stephttp.middleware import StepInfo
from tests import parity
from tests.realserver import RealServer

ROOT = Path(__file__).resolve().parents[2]
RUN = "01M81NT13NCCP5V7EQ9MPKSWMT"
DATA = stephttp.NewAPIRunData(
    domain="https://api.test", method="POST", path="/v1/runs", fn="runs", ip="192.0.2.1",
    content_type="text/plain", query_params="a=1", body=b"hello",
)  # fmt: skip
STEP = stephttp.Op(stephttp.OpCode.STEP_RUN, "a" * 40, "a")
proofs: dict[str, Callable[..., Any]] = {}


def proves(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def note(proof: Callable[..., Any]) -> Callable[..., Any]:
        proofs.update(dict.fromkeys(names, proof))
        return proof

    return note


def all_of(name: str) -> Iterator[str]:
    return (go for go, _, _ in parity.ROWS if go == name or go.startswith(name + "."))


async def served(
    provider_of: Callable[[RealServer], stephttp.Provider],
    configure: Callable[[], Any] = lambda: None,
    waits: bool = False,
    plain: bool = False,
) -> tuple[RealServer, httpx2.Response]:
    """One request to an application with one endpoint, and the server that heard of it."""
    server, app = RealServer(), FastAPI()
    provider = provider_of(server)

    @app.post("/v1/runs")
    async def handler() -> str:
        configure()
        if not plain:
            await stephttp.step.run("a", lambda: 1)
        if waits:
            await stephttp.step.sleep("nap", timedelta(seconds=1))
        return "answer"

    server.app = provider.asgi(app)
    async with server.client() as client:
        response = await client.post("/v1/runs", content=b"asked")
    assert await provider.wait(60)
    return server, response


def recorded(server: RealServer) -> Any:
    (request,) = [call for call in server.api if call.url.path == "/v1/http/runs"]
    return json.loads(request.content)


def from_setup(optional: stephttp.OptionalSetupOpts, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`setup` with that, its calls going to the double."""
    monkeypatch.setenv("INNGEST_DEV", "1")
    made = stephttp.setup(stephttp.SetupOpts("api.test", optional))

    def provider_of(server: RealServer) -> stephttp.Provider:
        return stephttp.Provider(made.settings, transport=server, pause=server._pause)

    return provider_of


@proves("Setup", "SetupOpts", "SetupOpts.Domain", "SetupOpts.Optional", "OptionalSetupOpts",
        "OptionalSetupOpts.BaseURL", "OptionalSetupOpts.SigningKey",
        "OptionalSetupOpts.SigningKeyFallback")  # fmt: skip
async def test_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INNGEST_DEV", raising=False)
    optional = stephttp.OptionalSetupOpts(
        base_url="http://inngest.test", signing_key="ab" * 16, signing_key_fallback="cd" * 16
    )
    made = stephttp.setup(stephttp.SetupOpts("api.test", optional))
    seen: list[httpx2.Request] = []

    class Refuses(RealServer):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return await super().handle_async_request(request)

    server = Refuses(key="cd" * 16)
    provider = stephttp.Provider(made.settings, transport=server, pause=server._pause)
    app = FastAPI()

    @app.get("/")
    async def handler() -> int:
        return await stephttp.step.run("a", lambda: 1)

    server.app = provider.asgi(app)
    async with server.client() as client:
        await client.get("/")
    assert await provider.wait(60)
    assert {str(request.url) for request in seen} == {"http://inngest.test/v1/http/runs"}
    assert len({request.headers["authorization"] for request in seen}) == 2, "then the fallback"
    assert recorded_last(server)["event"]["data"]["domain"] == "https://api.test"
    assert len(server.runs) == 1


def recorded_last(server: RealServer) -> Any:
    return json.loads(server.api[-1].content)


@proves("OptionalSetupOpts.TrackAllEndpoints")
async def test_track_all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    for track in (False, True):
        optional = stephttp.OptionalSetupOpts(track_all_endpoints=track)
        server, _ = await served(from_setup(optional, monkeypatch), plain=True)
        assert len(server.runs) == int(track)


@proves("OptionalSetupOpts.DefaultAsyncResponse", "AsyncResponseToken", "AsyncResponse")
async def test_default_async_response(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: stephttp.AsyncResponse = stephttp.AsyncResponseToken()
    optional = stephttp.OptionalSetupOpts(default_async_response=kind)
    server, response = await served(from_setup(optional, monkeypatch), waits=True)
    (run,) = server.runs
    told = response.json()
    assert told.pop("result_url").endswith(f"/v1/http/runs/{run}/output?token=token-{run}")
    assert told == {"run_id": run, "token": f"token-{run}"}


@proves("Configure", "FnOpts", "FnOpts.ID", "FnOpts.OmitRequestBody", "FnOpts.OmitResponseBody")
async def test_configure() -> None:
    opts = stephttp.FnOpts(id="runs", omit_request_body=True, omit_response_body=True)
    server, response = await served(lambda s: s.provider(), lambda: stephttp.configure(opts))
    sent = recorded(server)
    assert response.json() == "answer"
    assert (sent["event"]["data"]["fn"], sent["event"]["data"]["body"]) == ("runs", None)
    assert sent["steps"][-1]["data"]["body"] == ""
    server, _ = await served(lambda s: s.provider())
    assert json.loads(recorded(server)["steps"][-1]["data"]["body"]) == "answer"


@proves("UpdateOmitResponseBody")
async def test_update_omit_response_body() -> None:
    for omit in (True, False):
        server, _ = await served(
            lambda s: s.provider(), partial(stephttp.update_omit_response_body, omit)
        )
        assert bool(recorded(server)["steps"][-1]["data"]["body"]) is not omit


@proves("FnOpts.AsyncResponse", "AsyncResponseRedirect", "AsyncResponseRedirect.URL",
        "AsyncResponseCustom")  # fmt: skip
async def test_async_responses() -> None:
    kinds: list[tuple[Any, int, str]] = [
        (stephttp.AsyncResponseRedirect(), 303, "/output?token=token-"),
        (stephttp.AsyncResponseRedirect(lambda run, token: f"/w/{token}"), 303, "/w/token-"),
        (stephttp.AsyncResponseCustom(lambda r: stephttp.Response.of(299, r.token)), 299, ""),
    ]
    for kind, status, location in kinds:
        opts = stephttp.FnOpts(async_response=kind)
        _, response = await served(
            lambda s: s.provider(), partial(stephttp.configure, opts), waits=True
        )
        assert response.status_code == status
        assert location in response.headers.get("location", "")
        assert location or response.text.startswith("token-")


@proves("NewAPIClient", *all_of("APIClient"), *all_of("NewAPIRunData"), *all_of("APIResult"),
        "CheckpointRun", "CheckpointRun.FnID", "CheckpointRun.AppID", "CheckpointRun.RunID",
        "CheckpointRun.Token")  # fmt: skip
@pytest.mark.parametrize("blocking", [False, True])
async def test_api_client(blocking: bool) -> None:
    server = RealServer(key="cd" * 16)

    async def call(method: str, *arguments: Any) -> Any:
        if not blocking:
            return await getattr(client, method)(*arguments)
        import asyncio

        return await asyncio.to_thread(getattr(client, method), *arguments)

    client: Any
    if blocking:
        import asyncio

        loop = asyncio.get_running_loop()

        def carry(request: httpx2.Request) -> httpx2.Response:
            request.read()
            done = asyncio.run_coroutine_threadsafe(server.handle_async_request(request), loop)
            return done.result(60)

        client = sync.APIClient(
            "http://inngest.test", "ab" * 16, "cd" * 16, transport=httpx2.MockTransport(carry)
        )
    else:
        client = stephttp.APIClient("http://inngest.test", "ab" * 16, "cd" * 16, transport=server)
    run = await call("checkpoint_new_run", RUN, DATA, STEP)
    assert (run.run_id, run.fn_id, run.app_id) == (RUN, "f" * 36, "a" * 36)
    assert run.token == f"token-{RUN}"
    assert recorded_last(server)["event"]["data"] == {
        "domain": "https://api.test", "method": "POST", "path": "/v1/runs", "fn": "runs",
        "ip": "192.0.2.1", "content_type": "text/plain", "query_params": "a=1",
        "body": "aGVsbG8=",
    }  # fmt: skip
    other = stephttp.Op(stephttp.OpCode.STEP_RUN, "b" * 40, data=_raw(b"2"))
    await call("checkpoint_steps", run, [other])
    sent = recorded_last(server)
    assert (sent["fn_id"], sent["app_id"]) == (run.fn_id, run.app_id)
    assert await call("get_steps", RUN) == {"a" * 40: {"data": None}, "b" * 40: {"data": 2}}
    result = stephttp.APIResult(418, {"x-q": "1"}, b"teapot", timedelta(milliseconds=5), "boom")
    await call("checkpoint_response", run, result)
    data = recorded_last(server)["steps"][0]["data"]
    assert (data["status"], data["headers"]) == (418, {"x-q": "1"})
    assert (data["duration"], data["error"]) == (5_000_000, "boom")
    output = httpx2.Request(
        "GET", f"http://inngest.test/v1/http/runs/{RUN}/output?token={run.token}"
    )
    final = await server.handle_async_request(output)
    assert (final.status_code, final.headers["x-q"], final.text) == (418, "1", "teapot")
    with pytest.raises(stephttp.APIStatusError) as caught:
        await call("get_steps", RUN)
    assert (caught.value.status, b"no longer available" in caught.value.body) == (410, True)
    with pytest.raises(ValueError, match="run_id"):
        await call("get_steps", "nonsense")
    with pytest.raises(ValueError, match=r"APIResult\.body"):
        await call("checkpoint_response", run, stephttp.APIResult(200, body=b"\xff"))
    if blocking:
        client.close()
    else:
        await client.aclose()


def _raw(text: bytes) -> Any:
    import msgspec

    return msgspec.Raw(text)


@proves(*all_of("CheckpointNewRunRequest"))
def test_checkpoint_new_run_request() -> None:
    import msgspec

    event = stephttp.RunEvent(DATA, 5)
    request = stephttp.CheckpointNewRunRequest(RUN, event, [STEP], idempotency="key")
    value = json.loads(msgspec.json.encode(request))
    assert (value["run_id"], value["idempotency"]) == (RUN, "key")
    assert value["event"]["data"]["path"] == "/v1/runs"
    assert value["steps"][0]["op"] == "StepRun"


@proves("CheckpointRun.Stack", "CheckpointRun.Signature", "CheckpointRun.Attempt")
async def test_checkpoint_run_of_a_re_entry() -> None:
    from stephttp._run.resumed_run import Resumed
    from stephttp._run.resuming import resume
    from stephttp._wire.http import Request
    from stephttp._wire.ids import CAPSULE
    from stephttp._wire.signatures import sign

    server = RealServer(key="ab" * 16)
    provider = server.provider()
    client = stephttp.APIClient("http://inngest.test", "ab" * 16, transport=server)
    await client.checkpoint_new_run(RUN, DATA, STEP)
    server.runs[RUN].memos[CAPSULE] = {"data": {}}  # a middleware would have sent it
    signature = sign("ab" * 16, b"", int(server.now))
    headers = [
        (b"x-run-id", RUN.encode()),
        (b"x-inngest-signature", signature.encode()),
        (b"x-inngest-generation-id", b"3"),
    ]
    resumed = await provider.runtime.drive(
        resume(provider.runtime.checkpoints, Request("GET", "/", "", headers))
    )
    assert isinstance(resumed, Resumed)
    point = resumed.point
    assert (point.stack, point.signature, point.attempt) == (["a" * 40, CAPSULE], signature, 2)
    await client.aclose()
    assert await provider.aclose()


@proves("Provider", "Provider.ServeHTTP", "Provider.Middleware", "Provider.Wait")
async def test_provider() -> None:
    server, app = RealServer(), FastAPI()
    provider = server.provider()

    @app.get("/")
    @provider.endpoint(id="one")
    async def handler() -> int:
        return await stephttp.step.run("a", lambda: 1)

    server.app = provider.asgi(app)
    async with server.client() as client:
        server.down = lambda request: True
        assert (await client.get("/")).json() == 1
    assert not await provider.wait(0)
    server.down = lambda request: False
    assert await provider.wait(60)
    assert recorded_last(server)["event"]["data"]["fn"] == "one"


@proves("OptionalSetupOpts.Middleware")
async def test_middleware_is_told_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Telling(stephttp.Middleware):
        def before_step(self, step: StepInfo) -> None:
            seen.append(step.id)

    optional = stephttp.OptionalSetupOpts(middleware=[Telling])
    await served(from_setup(optional, monkeypatch))
    assert seen == ["a"]


def test_every_row_has_a_proof_and_a_counterpart() -> None:
    assert {go for go, _, _ in parity.ROWS} - proofs.keys() == set()
    assert len({go for go, _, _ in parity.ROWS}) == len(parity.ROWS) == 61
    for _, python, _ in parity.ROWS:
        owner, _, member = python.partition(".")
        found = getattr(stephttp, owner)
        if member and not hasattr(found, member):
            assert member in inspect.signature(found).parameters, python
        assert owner in stephttp.__all__


def test_there_is_a_row_for_every_exported_name() -> None:
    """The names were read from the reference of Go's `stephttp` v0.15.1."""
    names = (Path(__file__).parent / "data" / "go-names.txt").read_text().split()
    assert sorted(go for go, _, _ in parity.ROWS) == names


def test_the_guide_shows_this_table() -> None:
    assert parity.markdown() in (ROOT / "docs" / "migrating-from-go.md").read_text()

"""Whole runs: an engine, a scripted endpoint, and a clock that the test turns."""

from __future__ import annotations

import asyncio
import gzip
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._wire.signatures import verify
from stephttp.engine import Settings, VirtualClock, create_app
from stephttp.engine.store.store import StoreClosedError

from .support import (
    DONE,
    KEY,
    OTHER,
    RUN,
    SDK,
    A,
    B,
    Z,
    answer,
    complete,
    new_run,
    sleep,
    step,
    step_error,
    world,
)


@pytest.mark.parametrize(
    ("sdk", "called"), [("inngest-js:v4.24.0", True), ("stephttp-py:v0.1.0", False)]
)
@pytest.mark.parametrize("path", ["/v1/checkpoint", "/v1/checkpoint/batch"])
async def test_a_step_that_has_failed_for_good_in_the_first_checkpoint(
    path: str, sdk: str, called: bool
) -> None:
    """Ours gives the failure to the handler; the others leave it, and expect to be called."""
    failed = {"op": "StepFailed", "id": B, "error": {"name": "E", "message": "m"}}
    async with world(script=[answer(DONE)]) as w:
        body: Any = new_run(failed, retries=1)
        body = [body] if path.endswith("batch") else body
        response = await w.http.post(path, json=body, headers={"x-inngest-sdk": sdk})
        assert response.status_code == 200
        await w.engine.idle()
        assert (len(w.calls), (await w.run())["status"]) == (
            (1, "Completed") if called else (0, "Running")
        )


async def test_a_sleep_is_followed_by_the_same_request_again() -> None:
    async with world() as w:
        token = (await w.post(step(), sleep()))["token"]
        assert await w.after(4.9) == []
        w.script = [answer(DONE)]
        (call,) = await w.after(0.1)
        assert (call.method, str(call.url)) == ("POST", "http://app.test/orders?k=1")
        assert call.content == b'{"a": 1}'
        sent = {k: v for k, v in call.headers.items() if k.startswith(("x-", "user", "content-t"))}
        assert len(request_id := sent.pop("x-request-id")) == 26
        assert sent.pop("x-stephttp-delivery") == request_id
        assert len(sent.pop("x-inngest-job-id")) == 13
        assert sent == {
            "user-agent": "Inngest",
            "content-type": "application/json",
            "x-run-id": RUN,
            "x-inngest-signature": "",
            "x-inngest-generation-id": "1",
            "x-inngest-req-version": "-1",
            "x-stephttp-attempt": "0",
        }
        result = await w.output(token)
        assert (result.status_code, result.headers["x-a"], result.text) == (201, "b", "hi")
        assert (await w.run())["status"] == "Completed"


async def test_query_and_body_are_restored_for_go_and_nothing_is_signed() -> None:
    async with world(signing_keys=(KEY,)) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        request = new_run(sleep(text="1s"))
        request["event"]["name"] = "http/run.started"
        w.script = [answer(DONE)]
        assert (await w.http.post("/v1/http/runs", json=request)).status_code == 200
        (call,) = await w.after(1)
        assert (call.url.query, call.content) == (b"k=1", b'{"a": 1}')
        signature = call.headers["x-inngest-signature"]
        assert verify(signature, b"", [KEY], w.clock.now())


async def test_re_entries_are_signed_over_the_raw_body() -> None:
    async with world(signing_keys=(KEY, "cd" * 16)) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        await w.post(sleep(text="1s"))
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        assert verify(call.headers["x-inngest-signature"], b'{"a": 1}', [KEY], w.clock.now())


async def test_a_failing_step_is_retried_and_counted() -> None:
    async with world() as w:
        await w.post(step_error(), retries=2)
        w.script = [answer([step_error()]), answer([step(B)]), answer(DONE)]
        assert await w.after(0.9) == []
        assert len(await w.after(0.1)) == 1
        assert await w.after(1.9) == []
        # The step succeeds, and as nothing else is waited for, the endpoint is called at once.
        assert len(await w.after(0.1)) == 2
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert [(s["status"], s["attempts"]) for s in steps] == [("Completed", 3)]


async def test_an_exhausted_step_is_remembered_as_failed() -> None:
    async with world() as w:
        await w.post(step_error(), retries=1)
        memos: list[Any] = []

        async def look() -> None:
            memos.append(await w.memos())

        w.script = [answer([step_error(stack="s", data=None)]), answer([sleep()])]
        assert len(await w.after(1)) == 2
        await look()
        error = {"name": "E", "message": "m", "stack": "s", "data": None}
        assert memos == [{B: {"error": error}}]


async def test_retry_after_of_the_answer_sets_the_delay() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=3)
        w.script = [answer([step_error()], retry_after="90"), answer(DONE)]
        assert len(await w.after(1)) == 1
        assert await w.after(89) == []
        assert len(await w.after(1)) == 1


async def test_an_endpoint_that_is_down_is_tried_without_end_and_not_counted() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        w.script = [httpx2.ConnectError("refused")] * 7
        waits = [1, 1, 2, 4, 8, 16, 30]
        for seconds in waits:
            assert len(await w.after(seconds)) == 1
        run = await w.run()
        assert (run["status"], run["attempt"]) == ("Running", 0)
        assert run["last_error"] == "ConnectError: POST http://app.test/orders: refused"
        w.script = [answer(DONE)]
        (call,) = await w.after(30)
        assert call.headers["x-inngest-generation-id"] == "1"
        run = await w.run()
        assert (run["status"], run["last_error"]) == ("Completed", None)


@pytest.mark.parametrize("error", [httpx2.ReadTimeout("slow"), TimeoutError()], ids=type)
async def test_an_endpoint_that_takes_too_long_is_counted(error: Exception) -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        w.script = [error]
        await w.after(1)
        run = await w.run()
        assert (run["status"], len(w.calls)) == ("Failed", 1)
        assert "imeout" in run["error"]["name"]


async def test_an_answer_that_the_store_cannot_take_fails_the_run() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        write = w.engine.store.write

        async def choosy(unit: Any, *args: Any) -> Any:
            if "Ops" in type(unit.keywords.get("outcome")).__name__:
                raise OverflowError("too large for SQLite")
            return await write(unit, *args)

        w.engine.store.write = choosy
        w.script = [answer([step(B)])]
        await w.after(1)
        run = await w.run()
        assert (run["status"], len(w.calls)) == ("Failed", 1)
        assert run["error"]["message"] == "the answer cannot be stored: too large for SQLite"


@pytest.mark.parametrize("headers", [SDK, {}])
async def test_a_503_is_not_counted(headers: dict[str, str]) -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        w.script = [httpx2.Response(503, headers=headers), answer(DONE)]
        assert len(await w.after(1)) == 1
        assert len(await w.after(1)) == 1
        assert (await w.run())["status"] == "Completed"


async def test_a_rate_limiter_in_front_of_the_application_is_not_its_answer() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=0)
        w.script = [httpx2.Response(429, headers={"retry-after": "30"}), answer(DONE)]
        assert len(await w.after(1)) == 1
        assert len(await w.after(29)) == 0
        (again,) = await w.after(1)
        assert again.headers["x-inngest-generation-id"] == "1"
        assert (await w.run())["status"] == "Completed"


async def test_a_500_is_counted_and_keeps_its_job() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s"), retries=1))["token"]
        failure = {"name": "ValueError", "message": "boom", "stack": "…"}
        w.script = [answer(failure, 500), answer(failure, 500)]
        (first,) = await w.after(1)
        (second,) = await w.after(1)
        ids = [
            (c.headers["x-inngest-job-id"], c.headers["x-inngest-generation-id"])
            for c in (first, second)
        ]
        assert ids == [(ids[0][0], "1"), (ids[0][0], "2")]
        assert (await w.run())["status"] == "Failed"
        result = await w.output(token)
        assert result.status_code == 500
        assert result.json() == {
            "error": {"name": "ValueError", "message": "boom"},
            "status": 500,
        }


async def test_the_last_answer_of_a_handler_that_keeps_failing_is_delivered() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s"), retries=1))["token"]
        last = complete({"status": 500, "headers": {"x-last": "1"}, "body": "sorry"})
        w.script = [answer(last, 500), answer(last, 500)]
        await w.after(1)
        assert (await w.run())["status"] == "Running"
        await w.after(1)
        assert (await w.run())["status"] == "Failed"
        result = await w.output(token)
        assert (result.status_code, result.headers["x-last"], result.text) == (500, "1", "sorry")


async def test_no_retry_fails_the_run_at_once() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=5)
        w.script = [answer({"message": "never"}, 400, x_inngest_no_retry="true")]
        assert len(await w.after(1)) == 1
        run = await w.run()
        assert (run["status"], run["error"]) == (
            "Failed",
            {"name": "EndpointError", "message": "never"},
        )


async def test_an_answer_that_is_not_from_the_sdk_fails_clearly() -> None:
    async with world(foreign_answer_timeout=100) as w:
        await w.post(sleep(text="1s"))
        page = httpx2.Response(404, text="<h1>nginx</h1>" + "x" * 1000)
        w.script = [page, httpx2.Response(200, text="another page"), page, page, page, page, page]
        await w.after(1)
        run = await w.run()
        assert (run["status"], run["last_error"][:13]) == ("Running", "UpstreamError")
        w.script += [httpx2.ConnectError("refused")] * 5
        await w.after(99)
        assert (await w.run())["status"] == "Running"
        await w.after(60)
        error = (await w.run())["error"]
        assert error["name"] == "UpstreamError"
        assert "answered 404 without passing the request to the SDK: <h1>nginx" in error["message"]
        assert len(error["message"]) < 400


@pytest.mark.parametrize(
    "ops", [[], [{"op": "None", "id": "n"}], [{"op": "DiscoveryRequest", "id": "d"}]]
)
async def test_an_answer_that_holds_nothing_is_repeated_and_then_fails(ops: Any) -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        w.script = [answer(ops) for _ in range(11)]
        # Two at once: the first empty answer may follow progress that was checkpointed.
        assert len(await w.after(1)) == 2
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60]:
            assert len(await w.after(seconds)) == 1
        run = await w.run()
        assert (run["status"], run["error"]["name"]) == ("Failed", "NoProgressError")


async def test_run_complete_in_an_array() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["token"]
        w.script = [answer([step(), DONE])]
        await w.after(1)
        result = await w.output(token)
        assert (result.status_code, result.text) == (201, "hi")


async def test_an_op_of_a_later_version_fails_the_run_clearly() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        w.script = [answer([step(), {"op": "DeferAdd", "id": "w"}])]
        await w.after(1)
        assert (await w.run())["error"] == {
            "name": "AnswerError",
            "message": "answer[1].op: 'DeferAdd' is not supported by this engine yet",
        }
        # Nothing of the answer was stored.
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert [s["op"] for s in steps] == ["Sleep"]


async def test_an_answer_that_is_too_large_fails_the_run() -> None:
    async with world(max_response=1000) as w:
        await w.post(sleep(text="1s"), retries=3)
        w.script = [answer("x" * 1000)]
        await w.after(1)
        assert (await w.run())["error"]["message"].endswith("larger than 1000 bytes")


async def test_parallel_waits_each_lead_to_a_re_entry() -> None:
    async with world() as w:
        await w.post(sleep(A, "1s"), sleep(B, "3s"))
        w.script = [answer([sleep(B, "3s")]), answer(DONE)]
        assert len(await w.after(1)) == 1
        assert await w.memos() == {A: None}
        assert await w.memos(**{"X-Stephttp-Accept": "pending"}) == {A: None, B: {"pending": True}}
        # B was met again, but it was not started again.
        assert len(await w.after(2)) == 1
        assert (await w.run())["status"] == "Completed"


async def test_what_falls_due_during_a_call_waits_for_its_end() -> None:
    async with world() as w:
        entered, go_on = asyncio.Event(), asyncio.Event()
        concurrent = most = 0

        async def endpoint(request: httpx2.Request) -> httpx2.Response:
            nonlocal concurrent, most
            w.calls.append(request)
            concurrent += 1
            most = max(most, concurrent)
            entered.set()
            await go_on.wait()
            concurrent -= 1
            return answer([sleep(B)] if len(w.calls) == 1 else DONE)

        w.reach(httpx2.MockTransport(endpoint))
        await w.post(sleep(A, "1s"), sleep(B, "3s"))
        w.clock.advance(1)
        await entered.wait()
        w.clock.advance(2)
        # Another run is not held up by it.
        await w.post(step(), run_id=OTHER)
        assert await w.memos() == {A: None}
        go_on.set()
        await w.engine.idle()
        assert (len(w.calls), most) == (2, 1)
        assert (await w.run())["status"] == "Completed"


async def test_concurrency_is_bounded_and_everything_is_called_once() -> None:
    async with world(concurrency=6) as w:
        running = most = 0

        async def endpoint(request: httpx2.Request) -> httpx2.Response:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            w.calls.append(request)
            return answer(DONE)

        w.reach(httpx2.MockTransport(endpoint))
        ids = [f"01M81KWY2JTNRXZTV817ZB{n:04d}" for n in range(40)]
        for n, run_id in enumerate(ids):
            await w.post(sleep(text=f"{n // 4 + 1}s"), run_id=run_id)
        await w.after(60)
        assert most == 3
        called = [call.headers["x-run-id"] for call in w.calls]
        assert sorted(called) == ids
        assert {(await w.run(run_id))["status"] for run_id in ids} == {"Completed"}


async def test_a_run_survives_the_engine(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "engine.db"
    async with world(clock, path) as w:
        token = (await w.post(step(), sleep()))["token"]
        asleep = asyncio.create_task(w.output(token))
        w.script = [httpx2.ConnectError("refused")]
        await w.after(5)
        w.engine.drain()
        assert (await asleep).status_code == 503
    clock.advance(3600 - 7)
    async with world(clock, path, [answer(DONE)]) as w:
        await w.after(1)
        assert len(w.calls) == 1
        assert (await w.output(token)).text == "hi"


async def test_a_call_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "engine.db"
    async with world(clock, path) as w:
        entered = asyncio.Event()

        async def endpoint(request: httpx2.Request) -> httpx2.Response:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError

        w.reach(httpx2.MockTransport(endpoint))
        await w.post(sleep())
        clock.advance(5)
        await entered.wait()
    async with world(clock, path, [answer(DONE)]) as w:
        await w.engine.idle()
        assert len(w.calls) == 1
        assert (await w.run())["status"] == "Completed"


async def test_a_store_that_fails_for_a_while_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world() as w:
        await w.post(sleep())
        write, failures = w.engine.store.write, 2

        async def failing(*args: Any) -> Any:
            nonlocal failures
            failures -= 1
            if failures < 0:
                w.engine.store.write = write
            else:
                raise OSError("disk full")
            return await write(*args)

        w.engine.store.write = failing
        w.script = [answer(DONE)]
        with caplog.at_level(logging.CRITICAL):
            w.clock.advance(5)
            while failures >= 0:
                await asyncio.sleep(0)
                w.clock.advance(1)
        await w.engine.idle()
        assert (await w.run())["status"] == "Completed"


async def test_a_plain_answer_of_the_handler_is_the_result() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["token"]
        headers = {**SDK, "x-mine": "1", "x-run-id": OTHER, "content-type": "text/plain"}
        w.script = [httpx2.Response(202, headers=headers, text="[not ops]")]
        await w.after(1)
        result = await w.output(token)
        assert (result.status_code, result.text) == (202, "[not ops]")
        assert result.headers["x-mine"] == "1"
        assert "x-run-id" not in result.headers


async def test_steps_checkpointed_during_a_call_count_as_progress() -> None:
    async with world() as w:
        await w.post(sleep(Z, "1s"))
        assert (await w.report(step(A))).status_code == 200
        w.script = [answer([]), answer(DONE)]
        assert len(await w.after(1)) == 2
        assert (await w.run())["status"] == "Completed"


async def test_a_sleep_that_ends_during_a_back_off_is_noted_but_calls_nobody() -> None:
    async with world() as w:
        await w.post(sleep(A, "1s"), sleep(B, "11s"))
        w.script = [httpx2.ConnectError("refused")] * 4
        for seconds in (1, 1, 2, 4):
            assert len(await w.after(seconds)) == 1
        # Tried after 1, 2, 4 and 8 s; next after 16 s. B ends in between.
        assert await w.after(4) == []
        assert await w.memos() == {A: None, B: None}
        w.script = [answer(DONE)]
        assert await w.after(3.9) == []
        assert len(await w.after(0.1)) == 1
        assert (await w.run())["status"] == "Completed"


async def test_a_step_in_its_back_off_is_pending_for_those_who_ask() -> None:
    async with world() as w:
        await w.post(step_error(), retries=1)
        assert await w.memos(**{"x-stephttp-accept": "pending"}) == {B: {"pending": True}}
        assert await w.memos() == {}
        path, asks = f"/v0/runs/{RUN}/actions", {"x-stephttp-accept": "pending"}
        told = await w.http.get(path, headers=asks)
        assert told.headers["x-stephttp-failures"] == f"{B}=1"
        assert "x-stephttp-failures" not in (await w.http.get(path)).headers
        seen: list[Any] = []

        def endpoint(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return answer([sleep()])

        w.script = [endpoint]
        await w.after(1)
        # Its back-off is over, and it is to be run again.
        accepted = await w.memos(**{"x-stephttp-accept": "pending"})
        assert accepted == {Z: {"pending": True}}


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        ("", "", b"/"),
        ("/a b", "", b"/a%20b"),
        ("/a%20b/%C3%A9", "x=%2F&y=1+2&z[]=?", b"/a%20b/%C3%A9?x=%2F&y=1+2&z[]=?"),
        ("/é?#", "q=é", b"/%C3%A9%3F%23?q=%C3%A9"),
        ("//evil.test/x", "", b"//evil.test/x"),
        ("@evil.test", "", b"/@evil.test"),
    ],
)
async def test_the_target_is_the_one_that_was_first_asked_for(
    path: str, query: str, target: bytes
) -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), data={"path": path, "query_params": query})
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        assert (call.url.host, call.url.raw_path) == ("app.test", target)


async def test_an_answer_that_cannot_be_decoded_is_counted() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))

        def broken(request: httpx2.Request) -> httpx2.Response:
            stream = httpx2.ByteStream(b"not gzip")
            return httpx2.Response(206, headers={**SDK, "content-encoding": "gzip"}, stream=stream)

        w.script = [broken]
        await w.after(1)
        run = await w.run()
        assert (run["status"], run["error"]["name"]) == ("Failed", "DecodingError")


async def test_a_compressed_answer_is_read() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["token"]
        headers = {**SDK, "content-encoding": "gzip"}
        w.script = [httpx2.Response(200, headers=headers, content=gzip.compress(b"plain"))]
        await w.after(1)
        result = await w.output(token)
        assert (result.text, "content-encoding" in result.headers) == ("plain", False)


async def test_the_lifespan_starts_and_stops_the_engine(tmp_path: Path) -> None:
    app = create_app(Settings(db_path=str(tmp_path / "db")), clock=VirtualClock())
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://e") as client:
            assert (await client.get("/health")).status_code == 200
            token = (await client.post("/v1/checkpoint", json=new_run(step()))).json()["data"]
    assert token["run_id"] == RUN
    with pytest.raises(StoreClosedError):
        await app.state.engine.report(RUN, [])

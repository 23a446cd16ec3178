"""Whole runs against a double of the real Inngest server, with its traps.

Every one must end with the handler's own status, headers and body. See docs/protocol.md 6, 7
and 12.1.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse

import stephttp
from stephttp import step
from stephttp._wire.opcodes import Op, OpCode
from tests.integrations.worlds import TEAPOT, BlockingWorld, World
from tests.realserver import RealServer

KEY = "ab" * 16

Worlds = Callable[..., World]


@pytest.fixture(params=[World, BlockingWorld], ids=["asgi", "wsgi"])
def worlds(request: pytest.FixtureRequest) -> Worlds:
    """Makes the same application of either kind."""
    kind: Worlds = request.param
    return kind


def own(final: httpx2.Response) -> Any:
    """The handler's own answer, whole."""
    assert final.status_code == TEAPOT, (final.status_code, final.text)
    assert final.headers["x-own"] == "yes"
    assert final.headers["content-type"].startswith("text/tea")
    assert final.headers["set-cookie"].startswith("a=1")
    return json.loads(final.text)


def ended(server: RealServer) -> list[str]:
    return [run.status for run in server.runs.values()]


@pytest.mark.parametrize("key", ["", KEY], ids=["development", "self-hosted"])
@pytest.mark.parametrize("extra", [False, True], ids=["", "racing"])
@pytest.mark.parametrize("plan", [False, True], ids=["", "force-plan"])
async def test_body_query_and_lost_headers_survive(
    worlds: Worlds, key: str, extra: bool, plan: bool
) -> None:
    server, world = RealServer(key=key, extra=extra, force_plan=plan), worlds()
    client = world.behind(server)
    body = '{ "b":2, "a":1}'
    headers = {"authorization": "Bearer user", "cookie": "s=1", "content-type": "application/json"}
    first = await client.post("/sleeps?q=é+1", content=body, headers=headers)
    expected = {"q": "é 1", "body": body, "authorization": "Bearer user", "cookie": "s=1"}
    assert own(await server.finish(first)) == expected
    assert world.done == ["before", "after"]
    assert ended(server) == ["Completed"]
    for sent in server.reentries:
        assert "authorization" not in sent.headers, "the server has no such thing to send"
    if key:
        assert all(b"Bearer user" not in call.content for call in server.api)


@pytest.mark.parametrize("extra", [False, True], ids=["", "racing"])
@pytest.mark.parametrize("plan", [False, True], ids=["", "force-plan"])
@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("parallel", ["first", "one", "two", "last"]),
        ("loop", ["turn"] * 4),
    ],
)
async def test_each_step_runs_once(
    worlds: Worlds, path: str, bodies: list[str], extra: bool, plan: bool
) -> None:
    server, world = RealServer(extra=extra, force_plan=plan), worlds()
    client = world.behind(server)
    assert own(await server.finish(await client.get(f"/{path}"))) == path
    assert sorted(world.done) == sorted(bodies)
    assert (world.done[0], world.done[-1]) == (bodies[0], bodies[-1])
    assert ended(server) == ["Completed"]


@pytest.mark.parametrize("path", ["/fails", "/fails-late", "/catches"])
@pytest.mark.parametrize("retries", [1, 2, 5])
async def test_a_step_is_retried_until_it_succeeds(worlds: Worlds, path: str, retries: int) -> None:
    server, world = RealServer(), worlds(retries)
    world.failures = {"bad": retries}
    client = world.behind(server)
    assert own(await server.finish(await client.get(path))) == "recovered"
    assert world.done.count("bad") == 1
    assert world.failures["bad"] == 0


@pytest.mark.parametrize("path", ["/fails", "/fails-late"])
@pytest.mark.parametrize("retries", [1, 2, 5])
async def test_a_step_that_never_succeeds_ends_the_run_with_the_handlers_500(
    worlds: Worlds, path: str, retries: int
) -> None:
    server, world = RealServer(), worlds(retries)
    world.failures = {"bad": 1000}
    client = world.behind(server)
    final = await server.finish(await client.get(path))
    assert (final.status_code, final.text) == (500, "Internal Server Error")
    assert ended(server) == ["Failed"]
    assert 1000 - world.failures["bad"] == retries + 1, "as often as was declared"


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_a_failed_step_can_be_caught(worlds: Worlds, retries: int) -> None:
    server, world = RealServer(), worlds(retries)
    world.failures = {"bad": 1000}
    client = world.behind(server)
    caught = own(await server.finish(await client.get("/catches")))
    assert caught == "ZeroDivisionError", "the failure itself, in the call of the last attempt"


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_a_handler_that_fails_is_retried_and_never_left_hanging(
    worlds: Worlds, retries: int
) -> None:
    server, world = RealServer(), worlds(retries)
    world.failures = {"handler": 1000}
    client = world.behind(server)
    final = await server.finish(await client.get("/explodes"))
    assert (final.status_code, final.text) == (500, "Internal Server Error")
    assert 1000 - world.failures["handler"] == retries + 1
    assert ended(server) == ["Failed"]


@pytest.mark.parametrize("retries", [1, 3])
async def test_a_handler_that_recovers_answers(worlds: Worlds, retries: int) -> None:
    server, world = RealServer(), worlds(retries)
    world.failures = {"handler": retries}
    client = world.behind(server)
    assert own(await server.finish(await client.get("/explodes"))) == "recovered"


@pytest.mark.parametrize("retries", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("late", ["handler", "late handler"])
async def test_after_a_first_checkpoint_with_a_failed_step_no_run_hangs(
    worlds: Worlds, retries: int, steps: int, late: str
) -> None:
    server, world = RealServer(), worlds(retries)
    world.failures = {"bad": min(steps, retries), late: 1000}
    client = world.behind(server)
    final = await server.finish(await client.get("/step-then-explodes"))
    assert (final.status_code, final.text) == (500, "Internal Server Error")
    assert ended(server) == ["Failed"]


async def test_a_5xx_of_the_handlers_own_is_delivered_as_it_is(worlds: Worlds) -> None:
    server, world = RealServer(), worlds()
    client = world.behind(server)
    final = await server.finish(await client.get("/refuses"))
    assert (final.status_code, final.json()) == (503, {"detail": "try elsewhere"})
    assert final.headers["x-own"] == "yes"
    assert ended(server) == ["Failed"]


@pytest.mark.parametrize("path", ["/actions", "/steps"])
async def test_a_run_survives_that_the_api_is_away_for_a_while(worlds: Worlds, path: str) -> None:
    server, world = RealServer(key=KEY), worlds()
    client = world.behind(server)
    first = await client.post("/sleeps", content=b"x")
    back = server.now + 60 + 30
    server.down = lambda request: request.url.path.endswith(path) and server.now < back
    assert own(await server.finish(first))["body"] == "x"
    assert any(answer.status_code == 503 for answer in server.answers)


async def test_a_stored_request_that_was_tampered_with_fails_the_run_visibly(
    worlds: Worlds,
) -> None:
    server, world = RealServer(key=KEY), worlds()
    client = world.behind(server)
    first = await client.post("/sleeps", headers={"authorization": "Bearer user"})
    (run,) = server.runs.values()
    (kept,) = [memo["data"] for memo in run.memos.values() if "sealed" in str(memo)]
    kept["sealed"] = kept["sealed"][:-8] + "AAAAAAA="
    final = await server.finish(first)
    assert world.done == ["before"], "the handler was not called"
    assert (final.status_code, ended(server)) == (400, ["Failed"])
    assert "signing key" in final.json()["error"]


async def test_a_wrong_signing_key_fails_the_run_visibly(worlds: Worlds) -> None:
    server, world = RealServer(key=KEY), worlds()
    client = world.behind(server)
    first = await client.post("/sleeps")
    server.key = "cd" * 16
    await server.work()
    assert (server.answers[-1].status_code, ended(server)) == (401, ["Failed"])
    assert "x-inngest-signature" in (await server.finish(first)).json()["error"]


async def test_every_answer_is_one_that_the_server_understands(worlds: Worlds) -> None:
    server, world = RealServer(extra=True), worlds(2)
    client = world.behind(server)
    for path in ("/parallel", "/loop", "/fails", "/explodes", "/refuses"):
        world.failures = {"bad": 1, "handler": 1}
        await server.finish(await client.get(path))
    assert len(server.answers) >= 14
    for answer in server.answers:
        assert answer.headers["x-inngest-sdk"].startswith("stephttp-py:v")
        assert answer.headers["x-inngest-req-version"] == "1"
        value = answer.json()
        if isinstance(value, list):
            assert all(op["op"] != "RunComplete" for op in value)
        else:
            assert value["op"] == "RunComplete"


async def test_a_finished_run_polled_after_its_end_by_checkpoint_keeps_status_and_headers() -> None:
    server = RealServer()
    client = stephttp.APIClient("http://inngest.test", transport=server)
    run_id = "01M81NT13NCCP5V7EQ9MPKSWMT"
    data = stephttp.NewAPIRunData(domain="http://app.test", method="GET", path="/")
    step_op = Op(OpCode.STEP_RUN, "a" * 40, "a")
    run = await client.checkpoint_new_run(run_id, data, step_op)
    assert await client.get_steps(run_id) == {"a" * 40: {"data": None}}
    result = stephttp.APIResult(TEAPOT, {"x-q": "1"}, b"teapot", timedelta(seconds=1))
    await client.checkpoint_response(run, result)
    url = f"http://inngest.test/v1/http/runs/{run_id}/output?token={run.token}"
    final = await server.handle_async_request(httpx2.Request("GET", url))
    assert (final.status_code, final.headers["x-q"], final.text) == (TEAPOT, "1", "teapot")
    with pytest.raises(stephttp.APIStatusError) as caught:
        await client.get_steps(run_id)
    assert caught.value.status == 410
    await client.aclose()


class Over(Exception):
    """Ends a task group: the answer is sent, or the connection has ended."""


async def test_an_application_that_is_cancelled_at_the_end_of_its_connection_answers() -> None:
    """Django since 6.1 listens in a task group beside the view. Where nothing is awaited before the
    answer, its listener begins while the answer is delivered."""
    server, done = RealServer(), list[str]()

    async def listen(receive: Any) -> None:
        message = await receive()
        assert message["type"] == "http.disconnect"
        raise Over

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(listen(receive))
                await step.run("first", done.append, "first")
                await step.sleep("nap", timedelta(minutes=1))
                await step.run("second", done.append, "second")
                await JSONResponse("done", TEAPOT)(scope, receive, send)
                raise Over
        except* Over:
            pass

    server.app = server.provider().asgi(app)
    first = await server.client().get("/")
    final = await server.finish(first)
    assert (final.status_code, final.json()) == (TEAPOT, "done")
    assert done == ["first", "second"]


async def test_a_request_that_must_wait_is_a_500_where_the_server_refuses_its_key(
    worlds: Worlds,
) -> None:
    """At once, because no later attempt would be better."""
    server = RealServer(key=KEY)
    client = worlds().behind(server)
    server.key = "cd" * 16
    answer = await client.post("/sleeps")
    assert (answer.status_code, server.runs) == (500, {})
    assert "the engine answered 401" in answer.json()["error"]
    assert "retry-after" not in answer.headers

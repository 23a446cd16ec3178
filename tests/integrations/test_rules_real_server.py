"""The rules for runs on a real server, one by one, with the application as a whole.

Their numbers are those of docs/protocol.md 13; `tests/core/test_plain_server.py` has the rules
without server.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import Context
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request

import stephttp
from stephttp import Checkpointing, step
from stephttp._client.flow import Flow
from stephttp._run.reentry_guard import KeyedLock
from stephttp._wire.ids import hash_step_id
from stephttp.options import CLOUD_URL
from tests.integrations.parallel_programs import SECOND, World
from tests.realserver import Item, RealServer


class Application:
    """One handler in several processes, behind a real server."""

    def __init__(
        self, handler: Callable[..., Awaitable[Any]], *, nodes: int = 1, key: str = "", **more: Any
    ) -> None:
        self.server = RealServer(key=key)
        for _ in range(nodes):
            app = FastAPI()
            app.add_api_route("/", handler, methods=["GET", "HEAD", "POST"], response_model=None)
            self.server.apps.append(self.server.provider(**more).asgi(app))

    async def begin(self, method: str = "GET") -> httpx2.Response:
        return await self.server.client().request(method, "/")

    async def run(self) -> Any:
        final = await self.server.finish(await self.begin())
        assert final.status_code == 200, final.text
        return final.json()

    def sent(self, path: str) -> list[Any]:
        """The bodies of the requests to a path of the API."""
        found = [call for call in self.server.api if call.url.path.endswith(path)]
        return [json.loads(call.content) for call in found]

    @property
    def only(self) -> Any:
        (run,) = self.server.runs.values()
        return run


async def call_what_is_due(server: RealServer) -> None:
    """Make the calls that need no time to pass, but for that in which a server gets to them."""
    while server.executor.queue and min(server.executor.queue)[0] <= server.now + 0.1:
        for item in server.due_next():
            await server.call(item)


def loses_answers(server: RealServer) -> set[str]:
    """Lose the first answer of each planned step, whose node has died. Returns those steps."""
    answered, lost = server.executor.answered, set[str]()

    def loses(run: Any, item: Item, answer: httpx2.Response) -> None:
        if item.step_id and item.step_id not in lost:
            lost.add(item.step_id)
            server.executor.push(60, item)
        else:
            answered(run, item, answer)

    server.executor.answered = loses  # type: ignore[method-assign]
    return lost


async def two_naps() -> None:
    await asyncio.gather(step.sleep("one", SECOND), step.sleep("two", SECOND))


async def test_p1_r1_m2_what_the_first_checkpoint_declares() -> None:
    async def handler() -> None:
        stephttp.configure(retries=1)
        await step.run("a", str)
        await step.sleep("nap", SECOND)

    app = Application(handler)
    await app.run()
    (checkpoint,) = app.sent("/runs")
    assert (checkpoint["request_version"], checkpoint["retries"]) == (1, 20)


@pytest.mark.parametrize("key", ["", "ab" * 16])
async def test_m2_a_request_by_head_does_not_change_how_waiting_runs_are_called(key: str) -> None:
    async def handler(request: Request) -> str:
        stephttp.configure(id="shared")
        await step.run("a", str)
        if request.method != "HEAD":
            await step.sleep("nap", SECOND)
        return "ok"

    app = Application(handler, key=key)
    first = await app.begin()
    await app.begin("HEAD")
    await asyncio.sleep(0)
    assert len(app.server.runs) == 2
    assert (await app.server.finish(first)).json() == "ok"


async def test_p2a_an_event_that_comes_at_once_finds_all_steps_stored() -> None:
    done = Counter[str]()

    async def handler() -> str:
        for number in range(30):
            await step.run(f"s{number}", done.update, [f"s{number}"])
        event = await step.wait_for_event("go", event="go", timeout=timedelta(hours=1))
        return "came" if event else "did not"

    app = Application(handler)

    async def event_comes(run: Any) -> None:
        if run.pauses:
            app.server.executor.send_event("go")
            await asyncio.create_task(call_what_is_due(app.server), context=Context())

    app.server.executor.between_ops = event_comes
    first = await app.begin()
    app.server.executor.send_event("go")
    assert (await app.server.finish(first)).json() == "came"
    assert set(done.values()) == {1}


async def test_p6_targeted_calls_of_a_run_work_side_by_side() -> None:
    together = asyncio.Barrier(4)

    async def body() -> None:
        await together.wait()

    async def handler() -> str:
        await two_naps()
        await asyncio.gather(*(step.run(f"s{number}", body) for number in range(4)))
        return "ok"

    assert await asyncio.wait_for(Application(handler).run(), 60) == "ok"


async def test_p7_a_discovery_leaves_it_to_one_that_waits_behind_it() -> None:
    began = 0

    async def handler() -> str:
        nonlocal began
        began += 1
        await asyncio.gather(*(step.sleep(f"nap{number}", SECOND) for number in range(40)))
        return "ok"

    app = Application(handler)
    assert await app.run() == "ok"
    assert began < 25, "of 41 calls"


async def test_p10_a_step_whose_answer_is_lost_does_not_run_again() -> None:
    done = Counter[str]()

    async def handler() -> str:
        await two_naps()
        await asyncio.gather(*(step.run(name, done.update, [name]) for name in "ab"))
        return "ok"

    app = Application(handler)
    lost = loses_answers(app.server)
    assert await app.run() == "ok"
    assert (len(lost), done) == (2, Counter("ab"))


@pytest.mark.parametrize("version", [1, 2])
async def test_p5_a_repeated_call_wakes_the_run_whatever_else_is_open(version: int) -> None:
    """The answer to the first one was lost. At version 2 what another answer has listed is open."""
    done = Counter[str]()

    async def handler() -> str:
        await two_naps()
        first = asyncio.create_task(step.run("a", done.update, ["a"]))
        year = asyncio.create_task(step.sleep("year", 300 * 86_400 * SECOND))
        await asyncio.wait([first, year], return_when=asyncio.FIRST_COMPLETED)
        year.cancel()
        return "ok"

    app = Application(handler)
    lost = loses_answers(app.server)
    first = await app.begin()
    app.only.version = version
    await app.server.work_until(app.server.now + 86_400)
    assert (len(lost), done, app.only.status) == (1, Counter("a"), "Completed")
    assert first.status_code == 303


@pytest.mark.parametrize("version", [1, 2])
async def test_a_run_is_called_again_after_the_api_was_away_whatever_else_is_open(
    version: int,
) -> None:
    ran = list[float]()

    async def short() -> None:
        await step.sleep("short", SECOND)
        await step.run("a", lambda: ran.append(app.server.now))

    async def handler() -> str:
        await two_naps()
        await asyncio.gather(short(), step.sleep("month", 30 * 86_400 * SECOND))
        return "ok"

    app = Application(handler)
    first = await app.begin()
    app.only.version, began = version, app.server.now
    away = 0

    def down(request: httpx2.Request) -> bool:
        nonlocal away
        asks = request.url.path.endswith("/actions") and hash_step_id("short") in app.only.memos
        away += asks
        return asks and away <= 5  # one call, with its retries

    app.server.down = down
    calls = len(app.server.reentries)
    final = await app.server.finish(first)
    assert (final.status_code, away > 5) == (200, True)
    times = [int(one.headers["x-inngest-generation-id"]) for one in app.server.reentries[calls:]]
    assert times == [1] * len(times), "it is not an attempt"
    assert [when - began < 3600 for when in ran] == [True]


async def test_p11_p13_a_call_for_a_run_that_is_over_does_nothing() -> None:
    began = 0

    async def handler() -> str:
        nonlocal began
        began += 1
        await step.sleep("nap", SECOND)
        return "ok"

    app = Application(handler)
    await app.run()
    app.server.settings.forgets_first = iter([True, False]).__next__
    for _ in range(2):  # the state is gone, and then the name of the run, too
        answer = await app.server.reenter(app.only, Item(app.only.run_id, job="late"))
        assert answer is not None
        (op,) = answer.json()
        assert (op["op"], len(op["id"])) == ("None", 40)
    assert began == 2


async def test_r1_a_step_has_the_retries_that_it_asks_for() -> None:
    left = {"one": 3, "two": 2}

    def fails(name: str) -> str:
        left[name] -= 1
        if left[name] >= 0:
            raise ConnectionError(name)
        return name

    async def handler() -> list[str]:
        await step.sleep("nap", SECOND)
        return await asyncio.gather(
            *(step.options(retries=3).run(name, fails, name) for name in left)
        )

    assert await Application(handler).run() == ["one", "two"]


async def test_r2_a_planned_step_says_when_it_is_tried_again() -> None:
    times = list[float]()

    def fails() -> None:
        times.append(app.server.now)
        if len(times) == 1:
            raise stephttp.RetryAfterError("later", timedelta(hours=3))

    async def handler() -> str:
        await two_naps()
        await asyncio.gather(step.options(retries=1).run("a", fails), step.run("b", str))
        return "ok"

    app = Application(handler)
    assert await app.run() == "ok"
    assert 10_790 <= times[1] - times[0] <= 10_810


async def test_r3_steps_that_fail_together_in_a_first_request_have_their_own_attempts() -> None:
    tries = Counter[str]()

    def fails(name: str, times: int) -> str:
        tries[name] += 1
        if tries[name] <= times:
            raise ConnectionError(name)
        return name

    async def handler() -> list[str]:
        stephttp.configure(retries=1)
        times = {"one": 1, "two": 1, "never": 9}
        return await asyncio.gather(*(step.run(name, fails, name, times[name]) for name in times))

    app = Application(handler)
    final = await app.server.finish(await app.begin())
    assert (final.status_code, tries) == (500, Counter({"one": 2, "two": 2, "never": 2}))


async def test_s1_a_signal_that_is_taken_ends_the_second_run_at_once() -> None:
    async def handler() -> Any:
        return await step.wait_for_signal("wait", signal="s", timeout=timedelta(hours=1))

    app = Application(handler)
    await app.begin()
    await call_what_is_due(app.server)  # which reports the wait
    second = await app.begin()
    assert second.status_code == 303
    await call_what_is_due(app.server)
    assert [run.status for run in app.server.runs.values()] == ["Running", "Failed"]


@pytest.mark.parametrize("key", ["", "ab" * 16])
async def test_s2_a_request_of_a_step_in_the_first_call_is_made_once(key: str) -> None:
    async def handler() -> int:
        return (await step.fetch("get", "http://127.0.0.1/")).status_code

    app = Application(handler, key=key)
    assert await app.run() == 200
    assert app.server.executor.fetched == [hash_step_id("get")]


async def test_a_discovery_beside_a_solo_section_does_nothing() -> None:
    """Section 13.4: one that comes late, in another process, while the owner is at work."""

    async def end(world: World) -> Any:
        async def others() -> None:
            (run,) = world.server.runs.values()
            while hash_step_id("s2") not in run.memos:  # noqa: ASYNC110 - sent beside the handler
                await asyncio.sleep(0)
            await world.server.call(Item(run.run_id, job="late"))
            await call_what_is_due(world.server)

        async def beside() -> None:
            world.done["beside"] += 1
            if world.done["beside"] == 1:
                await asyncio.create_task(others(), context=Context())

        await two_naps()
        for number in range(3):
            await world.do(f"s{number}")
        await step.run("beside", beside)
        return await world.do("last")

    world = World(end, nodes=3)
    assert await world.run() == "last"
    assert set(world.done.values()) == {1}, world.done
    names = [op["name"] for call in world.server.api for op in _ops(call)]
    assert sum(name.startswith("stephttp:own:") for name in names) == 1


@pytest.mark.parametrize("naps", [False, True])
async def test_a_section_whose_answer_is_lost_continues_where_it_was(naps: bool) -> None:
    async def end(world: World) -> Any:
        await two_naps()
        for number in range(3):
            await world.do(f"s{number}")
        if naps:
            await step.sleep("nap", SECOND)
        return await world.do("last")

    world = World(end)
    answered, lost = world.server.executor.answered, list[str]()

    def loses(run: Any, item: Item, answer: httpx2.Response) -> None:
        if item.step_id and len(lost) < 2:
            lost.append(item.step_id)
            world.server.executor.push(60, item)
        else:
            answered(run, item, answer)

    world.server.executor.answered = loses  # type: ignore[method-assign]
    assert await world.run() == "last"
    assert len(lost) == 2
    assert set(world.done.values()) == {1}, world.done


async def test_a_section_that_is_delivered_twice_at_the_same_moment_runs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other delivery takes it, in another thread, just before this one: what this one has
    loaded is old by then."""

    async def end(world: World) -> Any:
        await two_naps()
        for number in range(3):
            await world.do(f"s{number}")
        return await world.do("last")

    world, acquire, raced = World(end), KeyedLock.acquire, list[str]()

    def second(lock: KeyedLock, name: str) -> Flow[bool]:
        if not name.startswith("section of") or raced:
            return (yield from acquire(lock, name))
        raced.append(name)
        assert list(acquire(lock, name)) == []
        waits = acquire(lock, name)
        next(waits)
        lock.release(name)
        return (yield from waits)

    monkeypatch.setattr(KeyedLock, "acquire", second)
    assert await world.run() == "last"
    statuses = [answer.status_code for answer in world.server.answers]
    assert (len(raced), statuses.count(503)) == (1, 1)
    assert set(world.done.values()) == {1}, world.done


@pytest.mark.parametrize("new", ["-new", ""], ids=["renamed", "removed"])
async def test_a_planned_step_that_a_deploy_takes_away_does_not_keep_its_run(new: str) -> None:
    version = ["-old"]

    async def branch(name: str) -> str:
        await step.sleep(f"nap-{name}", SECOND)
        if version[0]:
            return await step.run(f"{name}{version[0]}", str, name)
        return name

    async def handler() -> list[str]:
        found = list(await asyncio.gather(branch("x"), branch("y")))
        await step.sleep("last", SECOND)
        return found

    app = Application(handler)
    call = app.server.call

    async def deployed(item: Item) -> None:
        if item.step_id:
            version[0] = new
        await call(item)

    app.server.call = deployed  # type: ignore[method-assign]
    assert await app.run() == ["x", "y"]


async def test_code_that_waits_for_something_else_begins_no_section() -> None:
    """One open step is then not known to be all."""
    done = Counter[str]()
    reached = asyncio.Event()

    async def handler() -> str:
        async def elsewhere() -> None:
            await step.sleep("before", SECOND)
            await reached.wait()  # no step
            await step.run("elsewhere", done.update, ["elsewhere"])

        async def here() -> None:
            await step.sleep("nap", SECOND)
            await step.run("here", done.update, ["here"])
            reached.set()

        await asyncio.gather(here(), elsewhere())
        return "ok"

    app = Application(handler)
    assert await app.run() == "ok"
    assert set(done.values()) == {1}
    assert not [op for call in app.server.api for op in _ops(call) if ":solo:" in op["name"]]


async def test_a_checkpoint_of_many_steps_goes_in_portions_that_a_slow_server_takes_once() -> None:
    async def handler() -> int:
        for number in range(900):
            await step.run(f"s{number}", str)
        await step.sleep("nap", SECOND)
        return 1

    app = Application(handler)
    app.server.settings.seconds_per_op = 0.1
    assert await app.run() == 1
    bodies = [*app.sent("/runs"), *app.sent("/steps")]
    names = [op["name"] for body in bodies for op in body["steps"]]
    assert len(names) == len(set(names)) == 902
    assert max(len(body["steps"]) for body in bodies) <= 101


async def test_a_run_without_waits_is_recorded_by_a_slow_server_once() -> None:
    async def handler() -> int:
        for number in range(900):
            await step.run(f"s{number}", str, number)
        return 1

    app = Application(handler)
    app.server.settings.seconds_per_op = 0.03
    assert (await app.begin()).json() == 1
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(app.sent("/runs")) == 1


async def test_a_step_that_failed_before_is_not_reported_as_such_while_its_run_continues() -> None:
    """The report would lead to a call beside the one that continues."""
    done = Counter[str]()

    def fails() -> None:
        done["bad"] += 1
        raise ConnectionError

    async def handler() -> str:
        await step.sleep("nap", SECOND)
        try:
            await step.run("bad", fails)
        except (ConnectionError, stephttp.StepError):
            pass
        await step.run("good", done.update, ["good"])
        await step.sleep("another", SECOND)
        return "ok"

    app = Application(handler, nodes=2, checkpointing=Checkpointing.safe)
    assert await app.run() == "ok"
    assert (len(app.server.reentries), done) == (2, Counter(["bad", "good"]))


async def test_the_cloud_is_not_asked_what_it_is() -> None:
    """Its address says it, and nothing is known of another one there."""

    async def handler() -> None:
        await two_naps()

    app = Application(handler)
    provider = app.server.provider(base_url=CLOUD_URL)
    wrapped, api = FastAPI(), app.server.api
    wrapped.add_api_route("/", handler, response_model=None)
    app.server.app = provider.asgi(wrapped)
    await app.begin()
    assert [call.url.path for call in api] == ["/v1/http/runs"]
    assert app.sent("/runs")[0]["retries"] == 20


def _ops(call: httpx2.Request) -> list[Any]:
    found: list[Any] = json.loads(call.content).get("steps", []) if call.content else []
    return found

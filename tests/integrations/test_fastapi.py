"""What a FastAPI user sees, from the request to the final answer."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel

import stephttp
from stephttp import step
from stephttp.provider import Provider
from tests.durable import KEY, durable

NAP = timedelta(minutes=1)


class SignUp(BaseModel):
    name: str


class User(BaseModel):
    id: int
    name: str


def build(app: FastAPI) -> Any:
    return lambda provider: provider.asgi(app)


@pytest.mark.parametrize("how", ["asgi", "add_middleware"])
async def test_a_sign_up_survives_its_sleep(how: str) -> None:
    app = FastAPI()
    bodies: list[str] = []

    def authenticate(token: str) -> str:
        bodies.append("authenticate")
        return token.removeprefix("Bearer ")

    async def create(name: str, *, id: int) -> User:
        bodies.append("create")
        return User(id=id, name=name)

    @app.post("/users/{tenant}", status_code=201)
    async def sign_up(
        tenant: str,
        form: SignUp,
        response: Response,
        q: int,
        authorization: Annotated[str, Header()],
    ) -> dict[str, Any]:
        who = await step.run("authenticate", authenticate, authorization)
        await step.sleep("cool-off", 3 * NAP)
        user = await step.run("create", create, form.name, id=q)
        assert isinstance(user, User)
        response.headers["location"] = f"/users/{user.id}"
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return {"tenant": tenant, "by": who, "user": user}

    def wrap(provider: Provider) -> Any:
        if how == "asgi":
            return provider.asgi(app)
        app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
        return app

    async with durable(wrap) as world:
        first = await world.client.post(
            "/users/a%20b?q=7", json={"name": "Grüße"}, headers={"authorization": "Bearer me"}
        )
        assert first.status_code == 303
        assert first.json()["status"] == "running"
        assert bodies == ["authenticate"]
        final = await world.follow(first)
        assert final.status_code == 201
        assert final.json() == {"tenant": "a b", "by": "me", "user": {"id": 7, "name": "Grüße"}}
        assert final.headers["location"] == "http://app.test/users/7"
        assert [c.split(";")[0] for c in final.headers.get_list("set-cookie")] == ["a=1", "b=2"]
        assert bodies == ["authenticate", "create"]
        (reentry,) = world.reentries
        assert (reentry.method, reentry.url.raw_path) == ("POST", b"/users/a%20b?q=7")
        steps = await world.steps(first)
        assert [steps[name]["status"] for name in ("authenticate", "cool-off", "create")] == [
            "Completed"
        ] * 3


async def test_a_flaky_step_is_retried_until_it_works() -> None:
    app = FastAPI()
    calls: list[str] = []

    async def flaky() -> int:
        calls.append("flaky")
        if len(calls) < 3:
            raise ConnectionError("no luck")
        return len(calls)

    @app.post("/", status_code=201)
    async def handler() -> dict[str, int]:
        stephttp.configure(id="flaky", retries=3)
        return {"calls": await step.run("flaky", flaky)}

    async with durable(build(app)) as world:
        first = await world.client.post("/")
        final = await world.follow(first)
        assert (final.status_code, final.json()) == (201, {"calls": 3})
        assert (await world.steps(first))["flaky"]["attempts"] == 3


@pytest.mark.parametrize("caught", [True, False])
async def test_a_step_that_keeps_failing_raises_step_error(caught: bool) -> None:
    app = FastAPI()
    calls: list[str] = []

    def broken() -> None:
        calls.append("broken")
        raise KeyError("id")

    @app.get("/")
    async def handler() -> dict[str, str]:
        stephttp.configure(retries=2)
        try:
            await step.run("broken", broken)
        except KeyError:  # the last failure; from now on it is remembered
            await step.sleep("nap", NAP)
        except stephttp.StepError as error:
            if not caught:
                raise HTTPException(418, str(error)) from error
            return {"caught": f"{error.name} {error.message} {'broken()' in (error.stack or '')}"}
        return {}

    async with durable(build(app)) as world:
        final = await world.follow(await world.client.get("/"))
        assert len(calls) == 3
        if caught:
            assert final.json() == {"caught": "KeyError 'id' False"}
        else:
            assert (final.status_code, final.json()) == (418, {"detail": "KeyError: 'id'"})


async def test_without_retries_a_step_raises_like_any_function() -> None:
    app = FastAPI()

    def broken() -> None:
        raise KeyError("id")

    @app.get("/")
    async def handler() -> dict[str, str]:
        try:
            await step.run("broken", broken)
        except KeyError as error:
            return {"caught": repr(error)}
        return {}

    async with durable(build(app)) as world:
        answer = await world.client.get("/")
        assert answer.json() == {"caught": "KeyError('id')"}
        assert await world.provider.wait()
        assert (await world.steps(answer))["broken"]["status"] == "Failed"


async def test_a_non_retriable_error_is_final_at_once() -> None:
    app = FastAPI()
    calls: list[str] = []

    def refuse() -> None:
        calls.append("x")
        raise stephttp.NonRetriableError("never")

    @app.get("/")
    async def handler() -> str:
        stephttp.configure(retries=5)
        try:
            await step.run("refuse", refuse)
        except stephttp.NonRetriableError as error:
            return str(error)
        return ""

    async with durable(build(app)) as world:
        assert (await world.client.get("/")).json() == "never"
        assert calls == ["x"]


async def test_gathered_steps_run_at_the_same_time_and_without_a_redirect() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> list[int]:
        together = asyncio.Barrier(3)  # passes only if all three are inside at once

        async def body(n: int) -> int:
            await together.wait()
            return n

        return list(await asyncio.gather(*(step.run(f"s{n}", body, n) for n in range(3))))

    async with durable(build(app)) as world:
        answer = await world.client.get("/")
        assert (answer.status_code, answer.json()) == (200, [0, 1, 2])
        assert await world.provider.wait()
        assert await world.status(answer) == "Completed"
        assert set(await world.steps(answer)) >= {"s0", "s1", "s2"}


async def test_siblings_of_a_sleep_run_on_and_are_not_run_again() -> None:
    app = FastAPI()
    ran: list[str] = []

    async def body(name: str) -> str:
        await asyncio.sleep(0)
        ran.append(name)
        return name

    async def chain() -> list[str]:
        first = await asyncio.gather(step.run("a", body, "a"), step.run("b", body, "b"))
        return [*first, await step.run("c", body, "c")]

    @app.get("/")
    async def handler() -> list[str]:
        done, _ = await asyncio.gather(chain(), step.sleep("nap", NAP))
        return [*done, await step.run("d", body, "d")]

    async with durable(build(app)) as world:
        first = await world.client.get("/")
        assert ran == ["a", "b", "c"], "the whole chain ran beside the sleep"
        assert (await world.follow(first)).json() == ["a", "b", "c", "d"]
        assert ran == ["a", "b", "c", "d"]
        assert len(world.reentries) == 1


async def test_a_step_in_its_back_off_is_left_alone_by_other_wake_ups() -> None:
    """Its sibling's naps wake the run; that must not use up the step's attempts."""
    app = FastAPI()
    calls: list[int] = []

    async def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return "ok"

    async def naps() -> None:
        for n in range(6):
            await step.sleep(f"nap-{n}", timedelta(milliseconds=10))

    @app.get("/")
    async def handler() -> str:
        stephttp.configure(retries=2)
        value, _ = await asyncio.gather(step.run("flaky", flaky), naps())
        return value

    async with durable(build(app)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == "ok"
        assert len(calls) == 3


async def test_steps_in_a_loop_each_have_their_own_memory() -> None:
    app = FastAPI()
    ran: list[int] = []

    def remember(n: int) -> int:
        ran.append(n)
        return n

    @app.get("/")
    async def handler() -> list[int]:
        results = []
        for n in range(4):
            results.append(await step.run("same", remember, n))
            await step.sleep("nap", timedelta(minutes=1))
        return results

    async with durable(build(app)) as world:
        assert (await world.follow(await world.client.get("/"))).json() == [0, 1, 2, 3]
        assert ran == [0, 1, 2, 3]
        assert len(world.reentries) == 4


@pytest.mark.parametrize("read_before", [True, False])
async def test_a_body_of_any_bytes_comes_back_as_it_was(read_before: bool) -> None:
    app = FastAPI()
    sent = bytes(range(256)) * 999

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 10_000):
            yield sent[start : start + 10_000]

    @app.post("/")
    async def handler(request: Request) -> Response:
        if read_before:
            await request.body()
        await step.sleep("nap", NAP)
        body = await request.body()
        return Response(body[::-1], media_type="application/octet-stream")

    async with durable(build(app)) as world:
        final = await world.follow(await world.client.post("/", content=chunks()))
        assert final.content == sent[::-1]
        assert final.headers["content-type"] == "application/octet-stream"


async def test_a_body_over_the_limit_cannot_wait() -> None:
    app = FastAPI()

    @app.post("/")
    async def handler(request: Request) -> None:
        await step.sleep("nap", NAP)

    async with durable(build(app)) as world:
        answer = await world.client.post("/", content=b"x" * (8 * 1024 * 1024 + 1))
        assert answer.status_code == 413
        assert "8388609 bytes" in answer.json()["error"]
        assert await world.provider.wait()
        assert await world.status(answer) == "Failed"


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_handler_that_fails_after_a_sleep(retries: int) -> None:
    app = FastAPI()
    calls: list[int] = []

    @app.get("/")
    async def handler() -> None:
        stephttp.configure(retries=retries)
        await step.sleep("nap", NAP)
        calls.append(1)
        raise RuntimeError("bug")

    async with durable(build(app)) as world:
        first = await world.client.get("/")
        final = await world.follow(first)
        assert (final.status_code, final.text) == (500, "Internal Server Error")
        assert len(calls) == retries + 1
        assert await world.status(first) == "Failed"


async def test_a_handler_that_recovers_delivers_its_answer() -> None:
    app = FastAPI()
    calls: list[int] = []

    @app.get("/")
    async def handler(response: Response) -> str:
        stephttp.configure(retries=1)
        await step.sleep("nap", NAP)
        calls.append(1)
        if len(calls) == 1:
            raise HTTPException(503)
        return "fine"

    async with durable(build(app)) as world:
        assert (await world.follow(await world.client.get("/"))).json() == "fine"


@pytest.mark.parametrize(
    ("value", "message"),
    [(object(), "builtins.object"), ({1, object()}, "builtins.set")],
)
async def test_a_result_that_cannot_be_json_is_an_error_that_names_it(
    value: object, message: str
) -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> str:
        stephttp.configure(retries=3)
        try:
            await step.run("odd", lambda: value)
        except stephttp.StepResultError as error:
            return str(error)
        return ""

    async with durable(build(app)) as world:
        answer = await world.client.get("/")
        assert "step 'odd' returned a value of type " + message in answer.json()


async def test_with_keys_on_both_sides_secrets_come_back_and_are_stored_encrypted() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(request: Request) -> dict[str, str | None]:
        await step.sleep("nap", NAP)
        return {name: request.headers.get(name) for name in ("user-agent", "authorization")}

    async with durable(build(app), key=KEY) as world:
        first = await world.client.get(
            "/", headers={"user-agent": "me", "authorization": "Bearer secret"}
        )
        final = await world.follow(first)
        assert final.json() == {"user-agent": "me", "authorization": "Bearer secret"}
        assert b"secret" not in b"".join(r.content for r in world.to_engine.requests)


async def test_dependencies_with_yield_are_closed_once_each_time() -> None:
    app = FastAPI()
    log: list[str] = []

    async def session() -> AsyncIterator[str]:
        log.append("open")
        try:
            yield "s"
            log.append("commit")
        finally:
            log.append("close")

    @app.get("/")
    async def handler(s: Annotated[str, Depends(session)]) -> str:
        await step.sleep("nap", NAP)
        return s

    async with durable(build(app)) as world:
        first = await world.client.get("/")
        assert log == ["open", "close"]
        assert (await world.follow(first)).json() == "s"
        assert log == ["open", "close", "open", "commit", "close"]

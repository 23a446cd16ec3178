"""What the handler gets of a step is the same in the call in which it runs and in later ones."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.styles import STYLES, fails, serving

NOON = datetime(2030, 5, 6, 12, tzinfo=UTC)
NAP = timedelta(minutes=1)
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Paid(BaseModel):
    cents: int = Field(alias="paidCents")


@dataclass
class Visit:
    when: datetime | str
    paid: Paid | None


def visit() -> Visit | str:
    tenant.set("somebody")
    return Visit("2030-05-06T12:00:00Z", Paid(paidCents=3))


def text() -> datetime | str:
    return "2030-05-06T12:00:00Z"


async def visit_later() -> Visit | str:
    return visit()


@STYLES
async def test_values_and_context_variables_are_the_same_in_each_call(style: str) -> None:
    seen: list[Any] = []

    async def on_loop() -> str:
        seen.append((await step.run("visit", visit), await step.run("text", text), tenant.get()))
        seen.append((await step.run("later", visit_later), tenant.get()))
        await step.sleep("nap", NAP)
        return "done"

    def in_thread() -> str:
        seen.append((blocking.run("visit", visit), blocking.run("text", text), tenant.get()))
        seen.append((blocking.run("later", visit), tenant.get()))
        blocking.sleep("nap", NAP)
        return "done"

    async with serving(style, on_loop, in_thread) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == "done"
        run_id = first.headers["x-run-id"]
        shown = (await world.api.get(f"/v1/stephttp/runs/{run_id}")).json()["data"]["step_list"]
        names = ["visit", "text", "later", "nap"]
        assert [one["name"] for one in shown] == names
        # Which types were returned is kept beside the results, and is not a step.
        listed = (await world.api.get(f"/v1/runs/{run_id}/steps")).json()["data"]
        assert [one["name"] for one in listed] == names
        (row,) = (await world.api.get("/v1/runs")).json()["data"]
        assert row["steps"] == len(names)
    wanted = visit()
    tenant.set("nobody")
    assert seen == [(wanted, text(), "nobody"), (wanted, "nobody")] * 2


async def test_a_step_that_runs_again_has_the_type_that_it_returns_then() -> None:
    results: list[date | str] = [date(2030, 5, 6), "2030-05-06"]
    seen: list[Any] = []
    app = FastAPI()

    def when() -> date | str:
        return results[0]

    @app.get("/")
    async def handler() -> None:
        seen.append(await step.run("when", when))
        await step.sleep("nap", NAP)

    async with durable(lambda provider: provider.asgi(app)) as world:
        first = await world.client.get("/")
        await world.follow(first)
        assert seen == [date(2030, 5, 6)] * 2
        results.reverse()
        run_id = first.headers["x-run-id"]
        steps = (await world.api.get(f"/v1/runs/{run_id}/steps")).json()["data"]
        edit = {"step_id": steps[0]["step_id"]}
        answer = await world.api.post(f"/v1/stephttp/runs/{run_id}/rerun", json=edit)
        assert answer.status_code == 200
        await world.engine.idle()
        await world.turn()
        assert seen[2:] == ["2030-05-06"] * 2


class CardDeclined(Exception):
    pass


@STYLES
@pytest.mark.parametrize("retries", [0, 1])
async def test_the_parts_of_a_group_are_handled_in_each_call(style: str, retries: int) -> None:
    """What is let through is final: no further call is made for it."""
    seen: list[str] = []

    def charge() -> None:
        inner = ExceptionGroup("inner", [ValueError("b"), KeyError("c")])
        raise ExceptionGroup("outer", [CardDeclined("a"), inner])

    def handle(group: ExceptionGroup[Any], name: str) -> None:
        seen.append(f"{name} {len(group.exceptions)} of {group.message}")

    async def on_loop() -> None:
        stephttp.configure(retries=retries)
        try:
            await step.run("charge", charge)
        except* CardDeclined as group:
            handle(group, "declined")
        except* LookupError as group:
            handle(group, "lookup")
        except* ValueError:
            await step.sleep("nap", NAP)
            raise

    def in_thread() -> None:
        stephttp.configure(retries=retries)
        try:
            blocking.run("charge", charge)
        except* CardDeclined as group:
            handle(group, "declined")
        except* LookupError as group:
            handle(group, "lookup")
        except* ValueError:
            blocking.sleep("nap", NAP)
            raise

    async with serving(style, on_loop, in_thread) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).status_code == 500
        assert await world.status(first) == "Failed"
        assert len(world.reentries) == 1 + retries
    assert seen == ["declined 1 of outer", "lookup 1 of outer"] * 2


class Account(BaseModel):
    name: str
    hashed: str = Field(default="", exclude=True)


@STYLES
async def test_a_step_whose_result_would_lose_a_field_does_not_begin(style: str) -> None:
    ran: list[str] = []

    def account() -> Account:
        ran.append("account")
        return Account(name="a", hashed="b")

    async def on_loop() -> None:
        await step.run("account", account)

    def in_thread() -> None:
        blocking.run("account", account)

    async with serving(style, on_loop, in_thread) as world:
        await fails(world, stephttp.StepResultError, "the result of step 'account': Account.hashed")
    assert ran == []

"""What the handler gets of a step is the same in the call in which it runs and in later ones."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from stephttp import step
from stephttp.sync import step as blocking
from tests.styles import STYLES, serving

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
        assert [one["name"] for one in shown] == ["visit", "text", "later", "nap"]
    wanted = visit()
    tenant.set("nobody")
    assert seen == [(wanted, text(), "nobody"), (wanted, "nobody")] * 2

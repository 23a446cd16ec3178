"""`crash_everywhere`: the same answer and the allowed side effects, wherever the process dies."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import step
from stephttp._client.outbox import Item
from stephttp._client.outbox_batch import Parcel
from stephttp.sync import step as blocking
from stephttp.testing import CrashError, CrashReport, DurableClient, crash_everywhere
from stephttp.testing.quiet_deaths import ProcessDied

NAP = timedelta(days=1)
EXAMPLES = [
    "plain_wsgi", "plain_asgi", "flask_app", "starlette_app", "litestar_app", "quart_app",
    "falcon_asgi", "falcon_wsgi",
]  # fmt: skip


class Payments:
    """A payment service that charges once for each key."""

    def __init__(self) -> None:
        self.charges: list[str] = []
        self.mails = 0

    def charge(self, key: str | None = None) -> int:
        key = key or f"without a key {len(self.charges)}"
        if key not in self.charges:
            self.charges.append(key)
        return 1200

    def mail(self) -> None:
        self.mails += 1


payments = Payments()


def with_key() -> int:
    return payments.charge(stephttp.idempotency_key())


def shop(charge: Callable[[], int]) -> Any:
    """A shop of FastAPI."""
    provider = stephttp.setup("http://app.test")
    app = FastAPI()

    @app.post("/orders")
    @provider.endpoint(retries=3)
    async def orders() -> dict[str, int]:
        await step.sleep("think", NAP)
        amount = await step.run("charge", charge)
        await step.run("mail", payments.mail)
        await step.sleep("pack", NAP)
        return {"amount": amount}

    return provider.asgi(app)


def blocking_shop(charge: Callable[[], int]) -> Any:
    """A shop of Flask."""
    provider = stephttp.setup("http://app.test")
    app = flask.Flask("shop")

    @app.post("/orders")
    @provider.endpoint(retries=3)
    def orders() -> dict[str, int]:
        blocking.sleep("think", NAP)
        amount = blocking.run("charge", charge)
        blocking.run("mail", payments.mail)
        blocking.sleep("pack", NAP)
        return {"amount": amount}

    return provider.wsgi(app)


def order(client: DurableClient) -> Any:
    return client.post("/orders").response


def crashed(app: Any, **allowed: Any) -> CrashReport:
    effects = {"charge": lambda: len(payments.charges), "mail": lambda: payments.mails}
    return crash_everywhere(order, app, effects=effects, allowed=allowed)


@pytest.mark.parametrize("make", [shop, blocking_shop])
def test_a_charge_with_a_key_happens_once(make: Callable[..., Any]) -> None:
    report = crashed(make(with_key), mail=range(1, 3))
    assert report.answer[0] == 200
    assert json.loads(report.answer[1]) == {"amount": 1200}
    names = [one.what for one in report.boundaries]
    assert "behind the function of step 'charge'" in names
    assert "before the answer to the engine's call POST /orders" in names
    assert any(name.startswith("before POST /v1/http/runs") for name in names)
    assert all(one.first_call for one in report.unanswered)
    assert report.unanswered


@pytest.mark.parametrize("make", [shop, blocking_shop])
def test_a_double_charge_is_found_and_its_boundary_named(make: Callable[..., Any]) -> None:
    with pytest.raises(CrashError) as raised:
        crashed(make(payments.charge), mail=range(1, 3))
    (at, what) = raised.value.failures[0]
    assert at is not None
    assert at.what == "behind the function of step 'charge'"
    assert what == "the side effect 'charge' happened 2 times, and not 1"
    assert f"{at}: {what}" in str(raised.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_survive(name: str) -> None:
    module = importlib.import_module(f"examples.{name}")

    def test(client: DurableClient) -> Any:
        return client.post("/orders/7", json={"item": "a book"}).response

    report = crash_everywhere(test, module.app)
    assert report.answer[0] == 201
    assert len(report.boundaries) > 5


def all_kinds() -> Any:
    """A handler with branches, retries, events and a race."""
    provider = stephttp.setup("http://app.test")
    app = FastAPI()

    @app.post("/orders")
    @provider.endpoint(retries=5)
    async def orders() -> dict[str, Any]:
        tried: list[int] = []

        def unsteady() -> int:
            tried.append(1)
            payments.mail()
            if payments.mails % 3:
                raise ValueError("not yet")
            return 1

        await step.parallel(
            (lambda: step.run("charge", with_key), lambda: step.sleep("aside", NAP))
        )
        await asyncio.gather(*(step.run(f"item-{n}", str, n) for n in range(3)))
        await step.run("unsteady", unsteady)
        event = await step.wait_for_event("packed", event="packed", timeout=NAP)

        async def slow() -> str:
            await step.sleep("slow", 2 * NAP)
            return "slow"

        async def fast() -> str:
            await step.sleep("fast", NAP)
            return "fast"

        won = await step.race("won", (slow, fast))
        await step.send_event("tell", stephttp.Event(name="shop/done"))
        return {"packed": event is not None, "won": won}

    return provider.asgi(app)


def test_all_kinds_of_steps_survive() -> None:
    def test(client: DurableClient) -> Any:
        payments.mails = 0
        call = client.post("/orders")
        call.until_waiting("packed")
        client.send_event("packed")
        return call.response

    effects = {"charge": lambda: len(payments.charges)}
    report = crash_everywhere(test, all_kinds(), effects=effects)
    assert json.loads(report.answer[1]) == {"packed": True, "won": "fast"}
    assert {one.what.split(" of step ")[-1] for one in report.boundaries} >= {
        "'charge'", "'item-0'", "'unsteady'"
    }  # fmt: skip


def test_what_happens_twice_without_a_crash_is_said_so() -> None:
    provider = stephttp.setup("http://app.test")
    app = flask.Flask("shop")

    @app.post("/orders")
    def orders() -> str:
        payments.charge()
        blocking.sleep("pack", NAP)
        return "done"

    with pytest.raises(CrashError, match="without a crash: the side effect 'charge' happened 2"):
        crashed(provider.wsgi(app), mail=0)


@pytest.mark.parametrize("when", ["before the request", "behind it"])
def test_a_count_that_the_test_resets_is_refused(when: str) -> None:
    def test(client: DurableClient) -> Any:
        if when == "before the request":
            payments.charges.clear()
        answer = client.post("/orders").response
        if when == "behind it":
            payments.charges.clear()
        return answer

    effects = {"charge": lambda: len(payments.charges)}
    said = r"effects\['charge'\] was \d+, and is 0; a count may only grow"
    with pytest.raises(stephttp.UsageError, match=said):
        crash_everywhere(test, shop_at_once(), effects=effects)


def shop_at_once() -> Any:
    """A shop without a wait, whose charge happens again if the process dies."""
    provider = stephttp.setup("http://app.test")
    app = flask.Flask("shop")

    @app.post("/orders")
    def orders() -> str:
        return str(blocking.run("charge", payments.charge))

    return provider.wsgi(app)


def test_an_answer_that_differs_is_found() -> None:
    provider = stephttp.setup("http://app.test")
    app = flask.Flask("shop")
    served: list[int] = []

    @app.post("/orders")
    def orders() -> str:
        blocking.sleep("pack", NAP)
        served.append(1)
        return str(len(served))

    def test(client: DurableClient) -> Any:
        served.clear()
        return client.post("/orders").text

    with pytest.raises(CrashError, match="the answer was '1', and is '2'"):
        crash_everywhere(test, provider.wsgi(app))


def test_what_the_test_itself_raises_is_raised() -> None:
    def test(client: DurableClient) -> None:
        assert client.post("/orders").status_code == 404

    with pytest.raises(AssertionError, match="200 == 404"):
        crash_everywhere(test, blocking_shop(with_key))


def one_step(*, is_async: bool, safe: bool = False) -> Any:
    """An application whose handler never waits."""
    mode = stephttp.Checkpointing.safe if safe else stephttp.Checkpointing()
    provider = stephttp.setup("http://app.test", checkpointing=mode)
    api, app = FastAPI(), flask.Flask("shop")

    @api.post("/orders")
    async def orders() -> int:
        return await step.run("charge", with_key)

    @app.post("/orders")
    def orders_blocking() -> str:
        return str(blocking.run("charge", with_key))

    return provider.asgi(api) if is_async else provider.wsgi(app)


async def test_an_async_test_calls_it_in_a_thread() -> None:
    report = await asyncio.to_thread(crash_everywhere, order, one_step(is_async=True))
    assert report.answer[0] == 200


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_never_waits(is_async: bool, safe: bool) -> None:
    served = one_step(is_async=is_async, safe=safe)
    report = crash_everywhere(order, served, effects={"charge": lambda: len(payments.charges)})
    assert report.answer == (200, "1200")
    assert [one.what for one in report.unanswered][:1]


def test_what_a_dead_process_still_reports_goes_nowhere() -> None:
    provider = stephttp.setup("http://app.test")
    left = list[int]()

    def hello(environ: Any, start_response: Any) -> list[bytes]:
        try:
            amount = blocking.run("charge", with_key)
        except ProcessDied:
            provider.runtime.outbox.put(Item(Parcel("/v1/http/runs", b"{}")))
            left.append(provider.runtime.outbox.depth)
            raise
        start_response("200 OK", [])
        return [str(amount).encode()]

    report = crash_everywhere(order, provider.wsgi(hello))
    assert report.answer == (200, "1200")
    assert left == [0]

"""How failed steps are retried: as the step, its endpoint or `setup` says, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import stephttp
from stephttp import (
    ConfigurationError,
    FnOpts,
    ModelAdapter,
    NonRetriableError,
    RetryAfterError,
    StepError,
    step,
)
from stephttp.sync import step as blocking
from tests.durable import Durable
from tests.integrations.test_tools import Busy, application, world
from tests.integrations.test_tools_engine import due_in, outcome
from tests.styles import STYLES, fails, serving

SECOND, NAP = timedelta(seconds=1), timedelta(hours=1)


class CardDeclined(Exception):
    pass


class Bank:
    """Raises one error after the other, and then has money."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "paid"


def both(**options: Any) -> Callable[[Bank], dict[str, Any]]:
    """A handler that pays, with these options of the step, async and blocking."""

    def of(bank: Bank) -> dict[str, Any]:
        async def on_loop() -> Any:
            return await step.options(**options).run("pay", bank)

        def in_thread() -> Any:
            return blocking.options(**options).run("pay", bank)

        return {"on_loop": on_loop, "in_thread": in_thread}

    return of


async def pauses(world: Durable, count: int) -> list[float]:
    """Seconds that the engine waits before each of so many attempts."""
    found = []
    for _ in range(count):
        found.append(await due_in(world))
        await world.turn()
    return found


def near(*seconds: float) -> Any:
    """At most a tenth longer, as the jitter allows."""
    return [pytest.approx(one * 1.05, rel=0.05) for one in seconds]


@STYLES
async def test_a_steps_own_pauses(style: str) -> None:
    bank = Bank(*[OSError("closed")] * 4)
    options = {"retries": 4, "delay": 10 * SECOND, "max_delay": 30 * SECOND}
    async with serving(style, **both(**options)(bank)) as w:
        first = await w.client.get("/")
        assert await pauses(w, 4) == near(10, 20, 30, 30)
        assert await outcome(w, first) == "paid"
        assert (await w.steps(first))["pay"]["attempts"] == 5


async def test_what_an_exception_says_itself_takes_precedence() -> None:
    bank = Bank(RetryAfterError("later", 90), OSError(), NonRetriableError("never"))
    options = {"retries": 9, "delay": 10 * SECOND, "retry_on": OSError}
    async with serving("async", **both(**options)(bank)) as w:
        first = await w.client.get("/")
        assert await pauses(w, 2) == [pytest.approx(90, abs=1), *near(20)]
        assert (await w.follow(first)).status_code == 500
        assert (await w.status(first), bank.asked) == ("Failed", 3)


@STYLES
@pytest.mark.parametrize(
    "options", [{"retry_on": OSError}, {"give_up_on": [CardDeclined]}], ids=["only", "never"]
)
async def test_some_exceptions_are_not_worth_another_attempt(
    style: str, options: dict[str, Any]
) -> None:
    bank = Bank(CardDeclined("no funds"))
    async with serving(style, **both(retries=3, **options)(bank)) as w:
        await fails(w, CardDeclined, "no funds")
        assert bank.asked == 1
    bank = Bank(ConnectionError("reset"), CardDeclined("no funds"))
    async with serving(style, **both(retries=3, **options)(bank)) as w:
        first = await w.client.get("/")
        await w.follow(first)
        assert (await w.status(first), bank.asked) == ("Failed", 2)
        assert (await w.steps(first))["pay"]["error"]["name"] == "CardDeclined"


@STYLES
@pytest.mark.parametrize("where", ["setup", "configure", "FnOpts", "endpoint"])
async def test_the_policy_of_all_steps(style: str, where: str) -> None:
    bank = Bank(OSError("closed"), OSError("closed"), CardDeclined("no funds"))
    policy: dict[str, Any] = {
        "retries": 5, "delay": 7 * SECOND, "max_delay": 8 * SECOND, "give_up_on": CardDeclined,
    }  # fmt: skip
    setup: dict[str, Any] = policy if where == "setup" else {"retries": 1, "delay": NAP}

    def configure() -> None:
        if where == "configure":
            stephttp.configure(**policy)
        elif where == "FnOpts":
            stephttp.configure(FnOpts(**policy))

    async def on_loop() -> Any:
        configure()
        try:
            return await step.run("pay", bank)
        except CardDeclined:
            return "declined"

    def in_thread() -> Any:
        configure()
        try:
            return blocking.run("pay", bank)
        except CardDeclined:
            return "declined"

    if where == "endpoint":
        decorated = stephttp.setup("https://api.example.com").endpoint(**policy)
        on_loop, in_thread = decorated(on_loop), decorated(in_thread)
    async with serving(style, on_loop, in_thread, **setup) as w:
        first = await w.client.get("/")
        assert await pauses(w, 2) == near(7, 8)
        assert await outcome(w, first) == "declined"


async def test_a_steps_own_fields_take_precedence_one_by_one() -> None:
    bank = Bank(OSError("closed"), CardDeclined("no funds"), OSError("closed"))

    async def handler() -> str:
        stephttp.configure(retries=1, delay=7 * SECOND, give_up_on=CardDeclined)
        return await step.options(retries=5, give_up_on=()).run("pay", bank)

    async with serving("async", handler, handler) as w:
        first = await w.client.get("/")
        assert await pauses(w, 3) == near(7, 14, 28)
        assert await outcome(w, first) == "paid"


@STYLES
async def test_the_endpoints_policy_is_that_of_its_handler_too(style: str) -> None:
    bank = Bank(OSError("disk"), OSError("disk"), CardDeclined("no funds"))

    async def on_loop() -> str:
        stephttp.configure(retries=5, delay=7 * SECOND, give_up_on=CardDeclined)
        await step.sleep("nap", SECOND)
        return bank()

    def in_thread() -> str:
        stephttp.configure(retries=5, delay=7 * SECOND, give_up_on=CardDeclined)
        blocking.sleep("nap", SECOND)
        return bank()

    async with serving(style, on_loop, in_thread) as w:
        first = await w.client.get("/")
        await w.turn()
        assert await pauses(w, 2) == near(7, 14)
        assert (await w.follow(first)).status_code == 500
        assert (await w.status(first), bank.asked) == ("Failed", 3)


def test_setup_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ConfigurationError, match="max_delay must not be shorter than delay"):
        stephttp.setup("x", delay=NAP, max_delay=SECOND)
    with pytest.raises(ConfigurationError, match="retries must be a whole number"):
        stephttp.setup("x", retries=21)
    with pytest.raises(ValueError, match="retry_on must not be empty"):
        stephttp.setup("x").endpoint(retry_on=())
    with pytest.raises(TypeError, match="delay must be a timedelta"):
        stephttp.configure(delay=5)  # type: ignore[arg-type]


# --- requests of the engine ---

MODEL = ModelAdapter(url="http://x.test/chat", auth_key="sk", model="m")


@STYLES
async def test_requests_of_the_engine_obey_the_options_of_their_step(style: str) -> None:
    asked: list[str] = []

    def busy(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return httpx2.Response(503, json={"busy": True})

    patient: dict[str, Any] = {"retries": 2, "delay": 5 * SECOND, "max_delay": 6 * SECOND}

    async def on_loop() -> Any:
        stephttp.configure(retries=1, delay=NAP)
        page = await step.options(**patient).fetch("page", "http://x.test/page", method="POST")
        try:
            await step.options(**patient).ai.infer("ask", adapter=MODEL, body={})
        except StepError as error:
            once = await step.options(retries=0).fetch("once", "http://x.test/once")
            await step.fetch("usual", "http://x.test/usual")
            return [page.status_code, error.name, once.status_code]

    def in_thread() -> Any:
        stephttp.configure(retries=1, delay=NAP)
        page = blocking.options(**patient).fetch("page", "http://x.test/page", method="POST")
        try:
            blocking.options(**patient).ai.infer("ask", adapter=MODEL, body={})
        except StepError as error:
            once = blocking.options(retries=0).fetch("once", "http://x.test/once")
            blocking.fetch("usual", "http://x.test/usual")
            return [page.status_code, error.name, once.status_code]

    gateway = httpx2.MockTransport(busy)
    async with serving(style, on_loop, in_thread, gateway=gateway) as w:
        first = await w.client.get("/")
        await w.engine.idle()
        assert await pauses(w, 5) == near(5, 6, 5, 6, 3600)
        assert await outcome(w, first) == [503, "AIGatewayError", 503]
        assert asked == ["/page"] * 3 + ["/chat"] * 3 + ["/once"] + ["/usual"] * 2


async def test_options_that_are_for_functions_are_refused_before_the_request() -> None:
    async def handler() -> str:
        try:
            await step.options(give_up_on=OSError).fetch("page", "http://x.test/page")
        except ValueError as error:
            return str(error)
        return "asked"

    async with serving("async", handler, handler) as w:
        answer = (await w.client.get("/")).json()
        assert answer.startswith("step 'page': give_up_on is for functions, and fetch is a request")
        assert "use retries, delay and max_delay" in answer


# --- an Inngest server ---


async def test_with_an_inngest_server_later_calls_ask_for_the_declared_time() -> None:
    busy = Busy(3, ValueError("busy"), delay=10 * SECOND)
    async with world(busy.app) as w:
        (op,) = await w.first()
        assert "2026-01-01T00:00:10" <= op["opts"]["retry_after"] < "2026-01-01T00:00:11.1"
        answer = await w.again(x_inngest_generation_id="2")
        (op,) = answer.json()
        asked = answer.headers["retry-after"]
        assert (op["op"], op["opts"]["retry_after"]) == ("StepError", asked)
        assert "2026-01-01T00:00:20" <= asked < "2026-01-01T00:00:22.1"


async def test_a_failure_that_is_given_up_on_is_final_for_every_server() -> None:
    busy = Busy(3, ValueError("busy"), retry_on=OSError)
    async with world(busy.app) as w:
        assert (await w.client.get("/")).json() == "ValueError"
        assert await w.provider.wait(60)
        (op, _) = w.server.bodies("/runs")[-1]["steps"]
        assert (op["op"], op["error"]["noRetry"]) == ("StepFailed", True)


async def test_requests_carry_the_policy_for_the_stephttp_engine() -> None:
    async def handler() -> int:
        answer = await step.options(retries=2, delay=90 * SECOND).fetch("page", "http://x.test")
        return answer.status_code

    async with world(application(handler)) as w:
        (op,) = await w.first()
        assert op["opts"] == {
            "url": "http://x.test", "method": "GET",
            "retries": 2, "delay": "1m30s", "max_delay": "1d",
        }  # fmt: skip

"""`always_replay` finds handlers that do not do the same in each call, and names the line."""

import asyncio
import inspect
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import flask
import pytest

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from stephttp.testing import AsyncDurableClient, DurableClient, ReplayError
from tests.testing.shop_histories import app_of

Handler = Callable[..., Any]
NAP = timedelta(days=1)
today = date.today()  # noqa: DTZ011
counter = 0
cache: dict[str, int] = {}
file = Path()


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    global counter, file
    counter, file = 0, tmp_path / "orders.txt"
    cache.clear()
    cache.update(one=1, two=2)
    monkeypatch.setenv("SHOP_MODE", "first")


def echo(value: Any = None) -> Any:
    return value


# --- the twelve bugs, each with the line that shows it marked -------------------------------------


async def by_time() -> str:
    await step.run("log", echo, time.time())  # HERE arguments_differ
    return "done"


async def by_chance() -> str:
    await step.run("draw", echo, random.random())  # HERE arguments_differ
    return "done"


async def by_set_order() -> str:
    tags = set(await step.run("tags", echo, ["red", "green", "blue"]))
    for tag in tags:  # HERE set_order
        await step.run("tag", echo, tag)
    return "done"


async def by_input_and_output() -> str:
    await step.run("first", echo)
    file.write_text("ordered")  # noqa: ASYNC240 # HERE unstepped_io
    await step.run("second", echo)
    return "done"


async def by_id() -> str:
    await step.run("first", echo)
    await step.run(f"charge-{random.random()}", echo)  # HERE id_differs
    return "done"


async def by_condition() -> str:
    global counter  # noqa: PLW0603
    counter += 1
    if counter == 2:
        await step.run("extra", echo)  # HERE step_not_met
    await step.run("charge", echo)
    return "done"


async def by_mutation() -> str:
    order = {"total": 12}

    def price(order: dict[str, int]) -> int:
        order["total"] = 13
        return 1

    await step.run("price", price, order)
    await step.run("charge", echo, order)  # HERE arguments_differ
    return "done"


async def by_dict_order() -> str:
    oldest = next(iter(cache))
    cache[oldest] = cache.pop(oldest)
    await step.run("charge", echo, dict(cache))  # HERE arguments_differ
    return "done"


async def by_global_state() -> str:
    global counter  # noqa: PLW0603
    counter += 1
    await step.run("number", echo, counter)  # HERE arguments_differ
    return "done"


async def by_arrival() -> str:
    arrived: list[str] = []

    async def stepped() -> None:
        await step.run("slow", asyncio.sleep, 0.01)
        arrived.append("stepped")

    async def unstepped() -> None:
        await asyncio.sleep(0.001)
        arrived.append("unstepped")

    await asyncio.gather(stepped(), unstepped())
    await step.run("use", echo, arrived)  # HERE arguments_differ
    return "done"


class Session:
    """A session of a database, as a handler has it."""

    def __init__(self) -> None:
        self.user: dict[str, str] | None = None

    def load(self) -> None:
        self.user = {"name": "ann"}


async def by_session() -> str:
    session = Session()

    def load() -> None:
        session.load()

    await step.run("load", load)
    assert session.user is not None  # HERE handler_failed
    await step.run("greet", echo, session.user["name"])
    return "done"


async def by_environment() -> str:
    mode = os.environ["SHOP_MODE"]  # HERE environment_differs

    def change() -> None:
        os.environ["SHOP_MODE"] = "second"

    await step.run("change", change)
    await step.run("work", echo)
    return mode


# --- the same in handlers that block --------------------------------------------------------------


def by_time_blocking() -> str:
    blocking.run("log", echo, time.time())  # HERE arguments_differ
    return "done"


def by_set_order_blocking() -> str:
    tags = frozenset(blocking.run("tags", echo, ["red", "green", "blue"]))
    first, *_ = tags  # HERE set_order
    blocking.run("tag", echo, first)
    return "done"


def by_input_and_output_blocking() -> str:
    blocking.run("first", echo)
    with open(file, "a") as opened:  # HERE unstepped_io
        opened.write("ordered")
    blocking.run("second", echo)
    return "done"


def by_id_blocking() -> str:
    blocking.run("first", echo)
    blocking.sleep(f"pause-{random.random()}", NAP)  # HERE id_differs
    return "done"


def by_condition_blocking() -> str:
    global counter  # noqa: PLW0603
    counter += 1
    blocking.run("first", echo)
    if counter > 2:
        blocking.run("extra", echo)  # HERE step_added
    blocking.run("charge", echo)
    return "done"


def by_mutation_blocking() -> str:
    lines: list[str] = []
    blocking.run("add", lines.append, "one")
    blocking.run("use", lambda: len(lines))  # HERE arguments_differ
    return "done"


def by_session_blocking() -> str:
    session = Session()
    blocking.run("load", session.load)
    assert session.user is not None  # HERE handler_failed
    blocking.run("greet", echo, session.user["name"])
    return "done"


def by_the_answer_blocking() -> str:
    global counter  # noqa: PLW0603
    blocking.run("charge", echo)
    counter += 1
    return str(counter)  # HERE answer_differs


def by_environment_blocking() -> str:
    mode = os.getenv("SHOP_MODE", "")  # HERE environment_differs
    blocking.run("change", os.environ.update, {"SHOP_MODE": "second"})
    blocking.run("work", echo)
    return mode


async def by_environment_of_another_process() -> str:
    if os.environ.get("NEW_FLOW"):  # HERE environment_differs
        await step.run("new", echo)
    await step.run("old", echo)
    return "done"


async def by_environment_in_an_argument() -> str:
    await step.run("send", echo, os.environ["SHOP_MODE"])  # HERE environment_differs
    return "done"


async def by_mutation_that_shows_late() -> list[str]:
    lines = ["one", "two"]
    await step.run("sort", list.sort, lines, reverse=True)  # HERE argument_mutated
    return lines


async def by_variable_that_a_step_sets() -> str:
    total = 0

    def add() -> None:
        nonlocal total
        total += 5

    await step.run("add", add)  # HERE argument_mutated
    return str(total)


def by_variable_that_a_step_sets_blocking() -> str:
    found: str | None = None

    def find(name: str) -> None:
        nonlocal found
        found = name

    blocking.run("find", partial(find, "ann"))  # HERE argument_mutated
    return f"found {found}"


async def by_orm_object() -> str:
    user = None

    def load() -> None:
        nonlocal user
        user = Session()

    await step.run("load", load)
    await step.run("use", lambda: repr(user))  # HERE arguments_differ
    return "done"


async def by_the_second() -> str:
    await step.run("log", echo, int(time.time()))  # HERE arguments_differ
    return "done"


async def by_the_day() -> str:
    if date.today() == today:  # noqa: DTZ011
        await step.run("today", echo)
    else:
        await step.run("another day", echo)  # HERE step_not_met
    return "done"


async def by_the_hour() -> str:
    await step.run(f"at-{datetime.now(UTC):%d-%H}", echo)  # HERE id_differs
    return "done"


BUGS = [
    by_time, by_chance, by_set_order, by_input_and_output, by_id, by_condition, by_mutation,
    by_dict_order, by_global_state, by_arrival, by_session, by_environment,
    by_environment_of_another_process, by_environment_in_an_argument, by_mutation_that_shows_late,
    by_orm_object, by_the_second, by_the_day, by_the_hour, by_variable_that_a_step_sets,
]  # fmt: skip
BLOCKING_BUGS = [
    by_time_blocking, by_set_order_blocking, by_input_and_output_blocking, by_id_blocking,
    by_condition_blocking, by_mutation_blocking, by_session_blocking, by_the_answer_blocking,
    by_environment_blocking, by_variable_that_a_step_sets_blocking,
]  # fmt: skip


def marked(handler: Handler) -> tuple[int, str]:
    """The line of a handler that shows its bug, and the kind of the finding."""
    lines, first = inspect.getsourcelines(handler)
    (number,) = [number for number, line in enumerate(lines) if "# HERE" in line]
    return first + number, lines[number].split("# HERE ")[1].strip()


def check(handler: Handler, error: ReplayError) -> None:
    line, kind = marked(handler)
    found = {(one.kind, one.line) for one in error.findings}
    assert (kind, line) in found, str(error)
    assert all(one.file == __file__ for one in error.findings)
    assert f"tests/testing/test_always_replay.py:{line}: " in str(error)


@pytest.mark.parametrize("handler", BUGS)
async def test_each_bug_is_found_and_its_line_named(handler: Handler) -> None:
    with pytest.raises(ReplayError) as raised:
        async with AsyncDurableClient(app_of(handler), always_replay=True) as client:
            await client.get("/orders")
    check(handler, raised.value)


@pytest.mark.parametrize("handler", BLOCKING_BUGS)
def test_so_are_bugs_of_handlers_that_block(handler: Handler) -> None:
    with (
        pytest.raises(ReplayError) as raised,
        DurableClient(app_of(handler), always_replay=True) as client,
    ):
        assert client.get("/orders").text
    check(handler, raised.value)


class Ledger:
    """A service that a test replaces, with a state of its own."""

    def __init__(self) -> None:
        self.charged: list[int] = []

    def charge(self, amount: int) -> None:
        self.charged.append(amount)


ledger = Ledger()


async def as_it_should_be() -> str:
    await step.run("charge", ledger.charge, 12)
    await step.run("charge by", Ledger.charge, ledger, 12)
    names = sorted(set(await step.run("names", echo, ["b", "a"])))
    for name in names:
        await step.run("use", echo, name)
    assert isinstance(datetime.now(UTC), datetime)
    total = sum(len(name) for name in set(names))
    stephttp.logger.info("so far: %s", total)
    mode = os.environ.get("SHOP_MODE")
    await asyncio.gather(*(step.run(f"item-{n}", asyncio.sleep, 0, n) for n in range(3)))
    await step.parallel((lambda: step.run("same", echo, 1), lambda: step.run("same", echo, 2)))
    await step.sleep("pack", NAP)
    order = {"lines": [1, 2]}
    await step.run("lambda", lambda: order["lines"])
    event = await step.wait_for_event("packed", event="packed", timeout=NAP)
    await step.run("write", file.write_text, "packed")
    try:
        await step.run("bad", int, "x")
    except (ValueError, stephttp.StepError):
        await step.run("instead", echo)
    tries = 0

    def attempt() -> int:
        nonlocal tries  # which nothing else reads
        tries += 1
        return tries

    await step.run("attempt", attempt)
    return f"{total} {mode} {event is None}"


async def racing() -> str:
    async def slow() -> str:
        await step.sleep("slow", 5 * NAP)
        return "slow"

    async def fast() -> str:
        await step.run("fast", echo)
        return "fast"

    won = await step.race("won", (slow, fast))
    await step.sleep("pack", NAP)
    return won


async def retried() -> str:
    stephttp.configure(retries=2)

    def unsteady() -> int:
        global counter  # noqa: PLW0603
        counter += 1
        if counter < 3:
            raise ValueError("not yet")
        return counter

    return str(await step.run("unsteady", unsteady))


def as_it_should_be_blocking() -> str:
    blocking.run("write", file.write_text, "packed")
    blocking.sleep("pack", NAP)
    for number in (1, 2, 3):
        blocking.run("number", echo, number)
    blocking.parallel((lambda: blocking.run("a", echo, 1), lambda: blocking.run("b", echo, 2)))
    won = blocking.race("won", (lambda: blocking.run("one", echo, "one"),))
    return flask.render_template_string("{{ won }}", won=won)


def without_steps() -> str:
    return "done"


@pytest.mark.parametrize("handler", [as_it_should_be, racing, retried])
async def test_nothing_is_found_in_a_good_handler(handler: Handler) -> None:
    async with AsyncDurableClient(app_of(handler), always_replay=True) as client:
        response = await client.get("/orders")
        assert response.status_code == 200, response.text
        assert client.findings == []
        assert len(client._world.always_replay._last) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("handler", [as_it_should_be_blocking, without_steps])
def test_nor_in_one_that_blocks(handler: Handler) -> None:
    with DurableClient(app_of(handler), always_replay=True) as client:
        assert client.get("/orders").text
        assert client.findings == []


def test_each_step_has_a_call_of_its_own() -> None:
    calls: list[int] = []

    def handler() -> str:
        calls.append(0)
        for number in range(4):
            blocking.run("step", echo, number)
        return "done"

    with DurableClient(app_of(handler), always_replay=True) as client:
        run = client.get("/orders").finish()
        assert [one.result for one in run.steps] == [0, 1, 2, 3]
    # The first call, one for each step, the whole run three times, and once a day later.
    assert len(calls) == 1 + 4 + 3 + 1


def test_findings_can_be_ignored() -> None:
    app = app_of(by_input_and_output_blocking)
    with DurableClient(app, always_replay=True, ignored_findings=["unstepped_io"]) as client:
        assert client.get("/orders").text == "done"
        assert client.findings == []


def test_watching_leaves_nothing_behind() -> None:
    encode = os.environ.encodekey
    with DurableClient(app_of(without_steps), always_replay=True) as client:
        assert os.environ.encodekey is not encode
        assert client.get("/orders").text == "done"
    assert os.environ.encodekey is encode
    assert os.environ["SHOP_MODE"] == "first"


def test_a_run_that_never_ends_since_each_call_differs_is_given_up() -> None:
    provider, calls = stephttp.setup("http://app.test"), list[int]()

    def endless(environ: Any, start_response: Any) -> list[bytes]:
        calls.append(1)
        if len(calls) < 200:
            blocking.run(f"step-{len(calls)}", int)
        blocking.run("last", int)
        start_response("200 OK", [])
        return [b"done"]

    with DurableClient(provider.wsgi(endless), always_replay=True) as client:
        with pytest.raises(ReplayError, match="step-1"):
            client.post("/orders")
        assert len(calls) < 50

"""Functions written with PyPI's `inngest`, driven by tests/conformance/test_python_functions.py.

    python app.py fastapi      # functions are coroutines
    python app.py flask        # functions block

The engine is found by INNGEST_DEV, or by INNGEST_API_BASE_URL, INNGEST_EVENT_API_BASE_URL and keys.
PORT is where it listens. CRON has the times of a further function; without it there is none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import encryption
    import flow_control
    import inngest
    import inngest.fast_api
    import inngest.flask
    import models

COUNTS: dict[str, Counter[str]] = {}
"""How often each step of each test ran."""

CRON = os.environ.get("CRON")
PORT = int(os.environ.get("PORT", "0"))
SAME_KEY = "event.data.key == async.data.key"
HOUR = timedelta(hours=1)
AT_ONCE = inngest.Timeouts(start=HOUR, finish=timedelta(seconds=1))
BIG = 700_000
"""Characters of a result; seven of them are more than a call carries."""


def ran(ctx: inngest.Context | inngest.ContextSync, name: str) -> int:
    counts = COUNTS.setdefault(str(ctx.event.data.get("key")), Counter())
    counts[name] += 1
    return counts[name]


LIMIT = [inngest.Concurrency(limit=2, key="event.data.key")]
EACH_SECOND = inngest.Throttle(
    limit=1, period=timedelta(seconds=1), burst=None, key="event.data.key"
)
UNDER_WAY: Counter[str] = Counter()
"""Handlers that run now, by test."""


@contextmanager
def under_way(ctx: inngest.Context | inngest.ContextSync) -> Generator[None]:
    """Count a handler while it runs, and how many there were at most."""
    key = str(ctx.event.data["key"])
    counts = COUNTS.setdefault(key, Counter())
    UNDER_WAY[key] += 1
    counts["most"] = max(counts["most"], UNDER_WAY[key])
    try:
        yield
    finally:
        UNDER_WAY[key] -= 1


def failing(message: str) -> Any:
    raise ValueError(message)


def rescued(ctx: inngest.Context | inngest.ContextSync) -> str:
    """Note the failure of a run, of which an event tells."""
    failed: Any = ctx.event.data
    counts = COUNTS.setdefault(str(failed["event"]["data"]["key"]), Counter())
    counts[f"{failed['function_id']}: {failed['error']['message']}"] += 1
    return str(failed["run_id"])


def stopped_by(client: inngest.Inngest) -> list[inngest.Cancel]:
    """What cancels a run: an event with the same key."""
    return [inngest.Cancel(event=f"{client.app_id}/stop", if_exp=SAME_KEY)]


def blocking(client: inngest.Inngest) -> list[inngest.Function[Any]]:
    """Functions that block; `coroutines` has the same as coroutines."""
    made: list[inngest.Function[Any]] = []

    def function(
        fn_id: str, *triggers: inngest.TriggerEvent, retries: int = 1, **options: Any
    ) -> Any:
        def add(handler: Any) -> Any:
            named = triggers or (inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}"),)
            create = client.create_function(
                fn_id=fn_id, trigger=[*named], retries=retries, **options
            )
            made.append(create(handler))
            return made[-1]

        return add

    @function("steps")
    def steps(ctx: inngest.ContextSync) -> Any:
        ran(ctx, "handler")
        a = ctx.step.run("a", lambda: {"x": ran(ctx, "a")})
        b = ctx.step.run("b", lambda: "two")
        again = [ctx.step.run("b", lambda n=n: n) for n in range(2)]
        return {"a": a, "b": b, "again": again, "run": ctx.run_id, "event": ctx.event.name}

    @function("parallel")
    def parallel(ctx: inngest.ContextSync) -> Any:
        all_ = ctx.group.parallel(
            (
                lambda: ctx.step.run("p1", lambda: ran(ctx, "p1")),
                lambda: ctx.step.run("p2", lambda: {"n": ran(ctx, "p2")}),
                lambda: ctx.step.sleep("nap", 50),
            )
        )
        last = ctx.step.run("after", lambda: ran(ctx, "after"))
        return [*all_, last]

    @function("race")
    def race(ctx: inngest.ContextSync) -> Any:
        def quick() -> int:
            first = ctx.step.run("quick", lambda: ran(ctx, "quick"))
            return first + ctx.step.run("further", lambda: ran(ctx, "further"))

        def slow() -> bool:
            event = f"{client.app_id}/on"
            return ctx.step.wait_for_event("slow", event=event, timeout=60_000) is not None

        both = ctx.group.parallel((quick, slow), parallel_mode=inngest.ParallelMode.RACE)
        return [*both]

    @function("sleep")
    def sleep(ctx: inngest.ContextSync) -> Any:
        ctx.step.sleep("nap", timedelta(milliseconds=50))
        return ctx.step.run("a", lambda: "woken")

    @function("wait")
    def wait(ctx: inngest.ContextSync) -> Any:
        found = ctx.step.wait_for_event(
            "w",
            event=f"{client.app_id}/answer",
            if_exp="event.data.key == async.data.key",
            timeout=timedelta(minutes=1),
        )
        late = ctx.step.wait_for_event("late", event="conf/never", timeout=1000)
        return {"found": found and found.data, "late": late}

    @function("child")
    def child(ctx: inngest.ContextSync) -> Any:
        if ctx.event.data.get("fail"):
            raise inngest.NonRetriableError("the child failed")
        if ctx.event.data.get("hang"):
            ctx.step.sleep("long", timedelta(hours=1))
        return {"doubled": int(str(ctx.event.data["n"])) * 2, "name": ctx.event.name}

    @function("invoke")
    def invoke(ctx: inngest.ContextSync) -> Any:
        good = ctx.step.invoke("good", function=child, data={"n": 21})
        errors = {}
        for name, data in (("bad", {"fail": True}), ("late", {"hang": True}), ("none", None)):
            try:
                if data is None:
                    ctx.step.invoke_by_id(name, function_id="no-such-function")
                else:
                    ctx.step.invoke(name, function=child, data=data, timeout=1000)
            except inngest.StepError as error:
                errors[name] = [error.name, error.message]
        return {"good": good, "errors": errors}

    @function("send")
    def send(ctx: inngest.ContextSync) -> Any:
        data = {"key": ctx.event.data["key"]}
        sent = inngest.Event(name=f"{client.app_id}/sent", data=data)
        return ctx.step.send_event("send", [sent, sent])

    @function("sent")
    def sent(ctx: inngest.ContextSync) -> Any:
        return ran(ctx, "sent")

    @function("retry")
    def retry(ctx: inngest.ContextSync) -> Any:
        def flaky() -> int:
            return ran(ctx, "flaky") if ran(ctx, "try") > 1 else failing("not yet")

        return {"flaky": ctx.step.run("flaky", flaky), "attempt": ctx.attempt}

    @function("exhausted", retries=0)
    def exhausted(ctx: inngest.ContextSync) -> Any:
        try:
            ctx.step.run("bad", lambda: failing("gives up"))
        except inngest.StepError as error:
            return [error.name, error.message, "gives up" in (error.stack or "")]

    @function("handler-fails", retries=1)
    def handler_fails(ctx: inngest.ContextSync) -> Any:
        return failing(f"attempt {ran(ctx, 'handler')}")

    @function("final")
    def final(ctx: inngest.ContextSync) -> Any:
        ran(ctx, "handler")
        raise inngest.NonRetriableError("for good")

    @function("later")
    def later(ctx: inngest.ContextSync) -> Any:
        if ran(ctx, "handler") == 1:
            raise inngest.RetryAfterError("later", timedelta(seconds=1))
        return ctx.attempt

    @function(
        "picky",
        inngest.TriggerEvent(event=f"{client.app_id}/picky", expression="event.data.n > 3"),
        inngest.TriggerEvent(event=f"{client.app_id}/pick*"),
    )
    def picky(ctx: inngest.ContextSync) -> Any:
        return [ctx.event.name, ctx.event.id]

    @function(
        "large", inngest.TriggerEvent(event=f"{client.app_id}/picky", expression="event.data.n > 3")
    )
    def large(ctx: inngest.ContextSync) -> Any:
        return "large"

    def on_failure(ctx: inngest.ContextSync) -> str:
        return ctx.step.run("rescue", rescued, ctx)

    @function("fragile", retries=0, on_failure=on_failure)
    def fragile(ctx: inngest.ContextSync) -> Any:
        failing("it broke")

    @function("stoppable", cancel=stopped_by(client))
    def stoppable(ctx: inngest.ContextSync) -> None:
        ctx.step.sleep("long", HOUR)

    @function("slow", timeouts=AT_ONCE)
    def slow(ctx: inngest.ContextSync) -> None:
        ctx.step.sleep("long", HOUR)

    @function("bounded", concurrency=LIMIT)
    def bounded(ctx: inngest.ContextSync) -> Any:
        with under_way(ctx):
            time.sleep(0.02)
            return ran(ctx, "handler")

    @function("paced", throttle=EACH_SECOND)
    def paced(ctx: inngest.ContextSync) -> Any:
        return time.time()

    @function("big")
    def big(ctx: inngest.ContextSync) -> Any:
        sizes = [len(ctx.step.run(f"part-{n}", lambda: "x" * BIG)) for n in range(7)]
        return {"size": sum(sizes), "events": len(ctx.events)}

    def timed(ctx: inngest.ContextSync) -> Any:
        return [ctx.event.name, ctx.event.data, ctx.event.ts]

    if CRON is not None:
        times = inngest.TriggerCron(cron=CRON)
        made.append(client.create_function(fn_id="timed", trigger=times)(timed))
    return made


def coroutines(client: inngest.Inngest) -> list[inngest.Function[Any]]:
    """Functions that are coroutines."""
    made: list[inngest.Function[Any]] = []

    def function(
        fn_id: str, *triggers: inngest.TriggerEvent, retries: int = 1, **options: Any
    ) -> Any:
        def add(handler: Any) -> Any:
            named = triggers or (inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}"),)
            create = client.create_function(
                fn_id=fn_id, trigger=[*named], retries=retries, **options
            )
            made.append(create(handler))
            return made[-1]

        return add

    async def give(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    async def counted(ctx: inngest.Context, name: str) -> int:
        return ran(ctx, name)

    @function("steps")
    async def steps(ctx: inngest.Context) -> Any:
        ran(ctx, "handler")

        async def x() -> Any:
            return {"x": ran(ctx, "a")}

        a = await ctx.step.run("a", x)
        b = await ctx.step.run("b", give, "two")
        again = [await ctx.step.run("b", give, n) for n in range(2)]
        return {"a": a, "b": b, "again": again, "run": ctx.run_id, "event": ctx.event.name}

    @function("parallel")
    async def parallel(ctx: inngest.Context) -> Any:
        async def n() -> Any:
            return {"n": ran(ctx, "p2")}

        all_ = await ctx.group.parallel(
            (
                lambda: ctx.step.run("p1", counted, ctx, "p1"),
                lambda: ctx.step.run("p2", n),
                lambda: ctx.step.sleep("nap", 50),
            )
        )
        last = await ctx.step.run("after", counted, ctx, "after")
        return [*all_, last]

    @function("race")
    async def race(ctx: inngest.Context) -> Any:
        async def quick() -> int:
            first = await ctx.step.run("quick", counted, ctx, "quick")
            return first + await ctx.step.run("further", counted, ctx, "further")

        async def slow() -> bool:
            event = f"{client.app_id}/on"
            return await ctx.step.wait_for_event("slow", event=event, timeout=60_000) is not None

        both = await ctx.group.parallel((quick, slow), parallel_mode=inngest.ParallelMode.RACE)
        return [*both]

    @function("sleep")
    async def sleep(ctx: inngest.Context) -> Any:
        await ctx.step.sleep("nap", timedelta(milliseconds=50))
        return await ctx.step.run("a", give, "woken")

    @function("wait")
    async def wait(ctx: inngest.Context) -> Any:
        found = await ctx.step.wait_for_event(
            "w",
            event=f"{client.app_id}/answer",
            if_exp="event.data.key == async.data.key",
            timeout=timedelta(minutes=1),
        )
        late = await ctx.step.wait_for_event("late", event="conf/never", timeout=1000)
        return {"found": found and found.data, "late": late}

    @function("child")
    async def child(ctx: inngest.Context) -> Any:
        if ctx.event.data.get("fail"):
            raise inngest.NonRetriableError("the child failed")
        if ctx.event.data.get("hang"):
            await ctx.step.sleep("long", timedelta(hours=1))
        return {"doubled": int(str(ctx.event.data["n"])) * 2, "name": ctx.event.name}

    @function("invoke")
    async def invoke(ctx: inngest.Context) -> Any:
        good = await ctx.step.invoke("good", function=child, data={"n": 21})
        errors = {}
        for name, data in (("bad", {"fail": True}), ("late", {"hang": True}), ("none", None)):
            try:
                if data is None:
                    await ctx.step.invoke_by_id(name, function_id="no-such-function")
                else:
                    await ctx.step.invoke(name, function=child, data=data, timeout=1000)
            except inngest.StepError as error:
                errors[name] = [error.name, error.message]
        return {"good": good, "errors": errors}

    @function("send")
    async def send(ctx: inngest.Context) -> Any:
        data = {"key": ctx.event.data["key"]}
        sent = inngest.Event(name=f"{client.app_id}/sent", data=data)
        return await ctx.step.send_event("send", [sent, sent])

    @function("sent")
    async def sent(ctx: inngest.Context) -> Any:
        return ran(ctx, "sent")

    @function("retry")
    async def retry(ctx: inngest.Context) -> Any:
        async def flaky() -> int:
            return ran(ctx, "flaky") if ran(ctx, "try") > 1 else failing("not yet")

        return {"flaky": await ctx.step.run("flaky", flaky), "attempt": ctx.attempt}

    @function("exhausted", retries=0)
    async def exhausted(ctx: inngest.Context) -> Any:
        async def bad() -> Any:
            return failing("gives up")

        try:
            await ctx.step.run("bad", bad)
        except inngest.StepError as error:
            return [error.name, error.message, "gives up" in (error.stack or "")]

    @function("handler-fails", retries=1)
    async def handler_fails(ctx: inngest.Context) -> Any:
        return failing(f"attempt {ran(ctx, 'handler')}")

    @function("final")
    async def final(ctx: inngest.Context) -> Any:
        ran(ctx, "handler")
        raise inngest.NonRetriableError("for good")

    @function("later")
    async def later(ctx: inngest.Context) -> Any:
        if ran(ctx, "handler") == 1:
            raise inngest.RetryAfterError("later", timedelta(seconds=1))
        return ctx.attempt

    @function(
        "picky",
        inngest.TriggerEvent(event=f"{client.app_id}/picky", expression="event.data.n > 3"),
        inngest.TriggerEvent(event=f"{client.app_id}/pick*"),
    )
    async def picky(ctx: inngest.Context) -> Any:
        return [ctx.event.name, ctx.event.id]

    @function(
        "large", inngest.TriggerEvent(event=f"{client.app_id}/picky", expression="event.data.n > 3")
    )
    async def large(ctx: inngest.Context) -> Any:
        return "large"

    async def on_failure(ctx: inngest.Context) -> str:
        async def rescue() -> str:
            return rescued(ctx)

        return await ctx.step.run("rescue", rescue)

    @function("fragile", retries=0, on_failure=on_failure)
    async def fragile(ctx: inngest.Context) -> Any:
        failing("it broke")

    @function("stoppable", cancel=stopped_by(client))
    async def stoppable(ctx: inngest.Context) -> None:
        await ctx.step.sleep("long", HOUR)

    @function("slow", timeouts=AT_ONCE)
    async def slow(ctx: inngest.Context) -> None:
        await ctx.step.sleep("long", HOUR)

    @function("bounded", concurrency=LIMIT)
    async def bounded(ctx: inngest.Context) -> Any:
        with under_way(ctx):
            await asyncio.sleep(0.02)
            return ran(ctx, "handler")

    @function("paced", throttle=EACH_SECOND)
    async def paced(ctx: inngest.Context) -> Any:
        return time.time()

    @function("big")
    async def big(ctx: inngest.Context) -> Any:
        sizes = [len(await ctx.step.run(f"part-{n}", give, "x" * BIG)) for n in range(7)]
        return {"size": sum(sizes), "events": len(ctx.events)}

    async def timed(ctx: inngest.Context) -> Any:
        return [ctx.event.name, ctx.event.data, ctx.event.ts]

    if CRON is not None:
        times = inngest.TriggerCron(cron=CRON)
        made.append(client.create_function(fn_id="timed", trigger=times)(timed))
    return made


def client_of(app_id: str) -> inngest.Inngest:
    """The client of an app. Models are serialised where a function or step names their type."""
    serializer = inngest.PydanticSerializer()
    return inngest.Inngest(app_id=app_id, logger=logging.getLogger("quiet"), serializer=serializer)


def serve_fastapi() -> None:
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()
    client = client_of("fastapi")
    functions = [*coroutines(client), *flow_control.coroutines(client)]
    functions += [*models.coroutines(client), *encryption.coroutines(client)]
    inngest.fast_api.serve(app, client, functions)
    app.get("/counts")(lambda key: COUNTS.get(key, {}))
    config = uvicorn.Config(app, port=PORT, log_level="warning")
    listener = config.bind_socket()
    listener.listen()  # before that, connections are refused
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def serve_flask() -> None:
    import flask
    from werkzeug.serving import make_server

    app = flask.Flask(__name__)
    client = client_of("flask")
    functions = [*blocking(client), *flow_control.blocking(client)]
    functions += [*models.blocking(client), *encryption.blocking(client)]
    inngest.flask.serve(app, client, functions)
    app.get("/counts")(lambda: COUNTS.get(flask.request.args["key"], {}))
    server = make_server("127.0.0.1", PORT, app, threaded=True)
    print(f"listening on http://127.0.0.1:{server.port}", flush=True)
    threading.Thread(target=server.serve_forever).run()


if __name__ == "__main__":
    logging.getLogger("quiet").setLevel(logging.CRITICAL)
    {"fastapi": serve_fastapi, "flask": serve_flask}[sys.argv[1]]()

"""Functions of the real TypeScript SDK (npm `inngest`), run by a real engine: with checkpoints of
their steps during a call, which is the SDK's default, and without.

The engine asks for them itself (`--app`); in their answer they say what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import STEPHTTP, Process, eventually, free_port
from tests.conformance import encryption, flow_control
from tests.conformance.functions import App, output, started_by_time


@pytest.fixture(scope="module")
def processes(typescript_app: Path) -> Generator[tuple[str, httpx2.Client]]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    apps = [f"{address}/{name}/api/inngest" for name in ("checkpointed", "plain")]
    named = [word for app in apps for word in ("--app", app)]
    command = [*STEPHTTP, "dev", "--port", "0", "--no-discovery", *named, "--"]
    command += ["node", str(typescript_app / "functions.mjs")]
    with Process(command, env={"PORT": str(port)}) as engine:
        url = engine.wait_for(r"engine ready on (http://\S+)")[1]
        for app in apps:
            engine.wait_for(f"functions at {app}: registered")
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield address, client


@pytest.fixture(params=["checkpointed", "plain"])
def app(request: pytest.FixtureRequest, processes: tuple[str, httpx2.Client]) -> App:
    return App(request.param, *processes)


def test_steps_run_once_each(app: App) -> None:
    run = app.outcome("steps")
    expected = {"a": {"x": 1}, "b": "two", "run": run["run_id"], "event": f"{app.name}/steps"}
    assert output(run) == expected
    calls = {"checkpointed": 1, "plain": 3}[app.name]
    assert app.counts() == {"handler": calls, "a": 1}


def test_parallel_steps(app: App) -> None:
    assert app.result("parallel") == [1, {"n": 1}, None, 1]
    assert app.counts() == {"p1": 1, "p2": 1, "after": 1}


def test_a_branch_of_a_race_continues_while_another_one_waits(app: App) -> None:
    event_id = app.send("race")
    eventually(lambda: "further" in app.completed(event_id))
    # The SDK ends a run only once it has met all its steps.
    app.send("on")
    (run,) = app.ended(event_id)
    assert output(run) == 2
    assert app.counts() == {"quick": 1, "further": 1}


def test_a_race_outside_of_that_mode_is_won_by_what_ended_first(app: App) -> None:
    event_id = app.send("settled")
    eventually(lambda: "quick" in app.completed(event_id))
    app.send("on")
    (run,) = app.ended(event_id)
    assert output(run) == ["quick", 1]
    assert app.counts() == {"quick": 1, "after": 1}


def test_waits(app: App) -> None:
    event_id = app.send("wait")
    eventually(lambda: app.runs(event_id))
    app.send("answer", n=1)
    (run,) = app.ended(event_id)
    assert output(run) == {"found": {"key": app.key, "n": 1}, "late": None}


def test_functions_invoke_functions(app: App) -> None:
    result = app.result("invoke")
    assert result["good"] == {"doubled": 42, "name": "inngest/function.invoked"}
    assert result["errors"].keys() == {"bad", "late", "none"}
    assert "the child failed" in result["errors"]["bad"][1]
    assert "imed out" in result["errors"]["late"][1]
    assert "no-such-function" in result["errors"]["none"][1]


def test_sent_events_start_functions(app: App) -> None:
    (event_id,) = app.result("send")
    (run,) = app.ended(event_id)
    assert output(run) == 1


def test_retries(app: App) -> None:
    assert app.result("retry")["flaky"] == 1
    assert app.counts()["try"] == 2
    assert app.result("caught") == "gives up"


def test_failures(app: App) -> None:
    run = app.outcome("handler-fails")
    assert (run["status"], run["error"]["name"]) == ("Failed", "Error")
    assert run["error"]["message"] == "attempt 2"
    assert "failing" in run["error"]["stack"]
    run = app.outcome("final")
    assert (run["status"], run["error"]["message"]) == ("Failed", "for good")
    assert app.counts() == {"handler": 3}


def test_a_function_says_when_it_is_to_be_tried_again(app: App) -> None:
    assert app.result("later") == 1


def test_a_condition_of_a_trigger(app: App) -> None:
    assert app.runs(app.send("picky", n=3)) == []
    assert app.result("picky", n=4) == 4


def test_the_failure_of_a_function_is_handled_once(app: App) -> None:
    run = app.outcome("fragile")
    assert run["status"] == "Failed"
    told = f"{app.name}-fragile: it broke"
    eventually(lambda: app.counts().get(told))
    (handled,) = app.latest("fragile-failure", 1)
    assert output(handled) == run["run_id"]
    assert app.counts() == {told: 1}


def test_an_event_cancels_the_run_that_it_is_for(app: App) -> None:
    event_id = app.send("stoppable")
    app.engine.post("/e/any", json={"name": f"{app.name}/stop", "data": {"key": "another"}})
    (run,) = app.runs(event_id)
    assert run["status"] == "Running"
    app.send("stop")
    (run,) = app.ended(event_id)
    assert run["status"] == "Cancelled"


def test_a_run_that_takes_too_long_is_cancelled(app: App) -> None:
    assert app.outcome("slow")["status"] == "Cancelled"


def test_large_state(app: App) -> None:
    assert app.result("big") == {"size": 7 * 700_000, "events": 1}


def test_the_engine_stores_what_it_gets_encrypted(app: App) -> None:
    encryption.check_encryption(app)


CHECKS = (
    flow_control.check_batches,
    flow_control.check_debounce,
    flow_control.check_limits,
    flow_control.check_singletons,
    flow_control.check_invokers,
    flow_control.check_concurrency,
    flow_control.check_throttle,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda one: one.__name__.removeprefix("check_"))
def test_options_decide_whether_and_when_a_run_starts(
    app: App, check: Callable[[App], None]
) -> None:
    check(app)


def test_metadata_and_scores_are_kept_with_the_run(app: App) -> None:
    run = app.outcome("rated")
    assert run["status"] == "Completed", run
    kept = {(one["step"], one["kind"]): one["values"] for one in run["metadata"]}
    of_pack = ("pack", "userland.default")
    assert kept.pop(of_pack) == {"boxes": 2}
    assert kept.pop(("pack", "userland.late")) == {"later": 1}
    assert kept.pop((None, "userland.state")) == {"state": "packed"}
    scores = {name: one["value"] for values in kept.values() for name, one in values.items()}
    assert scores == {"good": True, "fit": 0.5}
    assert {kind for _, kind in kept} == {"inngest.score"}


def test_sessions_go_from_runs_to_what_they_start(app: App) -> None:
    meta = {"sessions": {"chat": "c1", "user": 7}}
    message = {"name": f"{app.name}/in-session", "data": {"key": app.key}, "meta": meta}
    (event_id,) = app.engine.post("/e/any", json=message).json()["ids"]
    (run,) = app.ended(event_id)
    sessions = {"chat": "c1", "user": "7"}
    assert run["status"] == "Completed", run
    assert output(run)["done"] == [sessions, sessions]
    (event_id,) = output(run)["ids"]
    (child,) = app.ended(event_id)
    assert output(child) == [sessions, sessions]


def test_time_starts_functions(typescript_app: Path) -> None:
    port = free_port()
    app = f"http://127.0.0.1:{port}/plain/api/inngest"
    command = [*STEPHTTP, "dev", "--port", "0", "--no-discovery", "--app", app, "--"]
    command += ["node", str(typescript_app / "functions.mjs")]
    with Process(command, env={"PORT": str(port), "CRON": "@every 1s"}) as engine:
        url = engine.wait_for(r"engine ready on (http://\S+)")[1]
        with httpx2.Client(base_url=url, timeout=60) as client:
            last, before, *_ = started_by_time(client, "plain-timed")
            assert last[:2] == ["inngest/scheduled.timer", {"cron": "@every 1s"}]
            assert (last[2] - before[2]) % 1000 == 0 < last[2] - before[2]
            functions = client.get("/v1/apps/plain/functions").json()
            (trigger,) = next(one for one in functions if one["slug"] == "plain-timed")["triggers"]
            assert trigger.keys() == {"cron", "jitter", "next_at"}

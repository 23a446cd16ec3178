"""Functions of the real Python SDK (PyPI `inngest`), run by a real engine: the same ones as
coroutines behind FastAPI, and blocking behind Flask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import ROOT, STEPHTTP, Process, eventually, free_port
from tests.conformance import encryption, flow_control
from tests.conformance.functions import App, output, started_by_time

APP = ROOT / "conformance" / "python" / "app.py"
SIGNING_KEY = "signkey-prod-" + "6b2f9d0c" * 8


@pytest.fixture(scope="module")
def engine() -> Generator[httpx2.Client]:
    with Process([*STEPHTTP, "dev", "--port", "0", "--no-discovery"]) as process:
        url = process.wait_for(r"engine ready on (http://\S+)")[1]
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield client


@pytest.fixture(scope="module")
def urls(engine: httpx2.Client) -> Generator[dict[str, str]]:
    env = {"INNGEST_DEV": str(engine.base_url).rstrip("/")}
    with (
        Process([sys.executable, str(APP), "fastapi"], env=env) as fastapi,
        Process([sys.executable, str(APP), "flask"], env=env) as flask,
    ):
        served = {}
        for name, process in (("fastapi", fastapi), ("flask", flask)):
            served[name] = process.wait_for(r"listening on (http://\S+)")[1]
            answer = httpx2.put(f"{served[name]}/api/inngest", timeout=60)
            assert answer.json() | {"sync_id": "", "app_id": ""} == {
                "ok": True, "modified": True, "sync_id": "", "app_id": "",
            }, answer.text  # fmt: skip
        yield served


@pytest.fixture(params=["fastapi", "flask"])
def app(request: pytest.FixtureRequest, urls: dict[str, str], engine: httpx2.Client) -> App:
    return App(request.param, urls[request.param], engine)


def test_steps_run_once_each_and_their_results_are_kept(app: App) -> None:
    run = app.outcome("steps")
    assert output(run) == {
        "a": {"x": 1},
        "b": "two",
        "again": [0, 1],
        "run": run["run_id"],
        "event": f"{app.name}/steps",
    }
    assert app.counts() == {"handler": 5, "a": 1}


def test_parallel_steps_are_called_side_by_side_and_run_once(app: App) -> None:
    assert app.result("parallel") == [1, {"n": 1}, None, 1]
    assert app.counts() == {"p1": 1, "p2": 1, "after": 1}


def test_a_branch_of_a_race_continues_while_another_one_waits(app: App) -> None:
    event_id = app.send("race")
    eventually(lambda: app.counts().get("further"))
    app.send("on")
    (run,) = app.ended(event_id)
    assert output(run) == [2, True]
    assert app.counts() == {"quick": 1, "further": 1}


def test_sleeps_end(app: App) -> None:
    assert app.result("sleep") == "woken"


def test_waits_end_with_the_event_that_fits_or_with_their_time(app: App) -> None:
    event_id = app.send("wait")
    eventually(lambda: app.runs(event_id))
    app.engine.post("/e/any", json={"name": f"{app.name}/answer", "data": {"key": "another"}})
    app.send("answer", n=1)
    (run,) = app.ended(event_id)
    assert output(run) == {"found": {"key": app.key, "n": 1}, "late": None}


def test_functions_invoke_functions(app: App) -> None:
    result = app.result("invoke")
    assert result["good"] == {"doubled": 42, "name": "inngest/function.invoked"}
    assert result["errors"].keys() == {"bad", "late", "none"}
    assert result["errors"]["bad"] == ["NonRetriableError", "the child failed"]
    assert "imed out" in result["errors"]["late"][1]
    assert "no-such-function" in result["errors"]["none"][1]


def test_sent_events_start_functions(app: App) -> None:
    ids = app.result("send")
    assert len(set(ids)) == 2
    started = [output(run) for event_id in ids for run in app.ended(event_id)]
    assert sorted(started) == [1, 2]


def test_a_step_that_fails_is_tried_again(app: App) -> None:
    assert app.result("retry") == {"flaky": 1, "attempt": 0}
    assert app.counts()["try"] == 2


def test_a_step_without_attempts_left_raises_what_it_failed_with(app: App) -> None:
    assert app.result("exhausted") == ["ValueError", "gives up", True]


def test_a_function_fails_with_its_whole_error_once_no_attempt_is_left(app: App) -> None:
    run = app.outcome("handler-fails")
    assert run["status"] == "Failed"
    assert app.counts()["handler"] == 2
    assert (run["error"]["name"], run["error"]["message"]) == ("ValueError", "attempt 2")
    assert run["error"]["code"] == "unknown"
    assert "failing" in run["error"]["stack"]
    assert output(run) == run["error"]


def test_an_error_that_is_not_to_be_tried_again_ends_the_run(app: App) -> None:
    run = app.outcome("final")
    assert (run["status"], run["error"]["name"]) == ("Failed", "NonRetriableError")
    assert app.counts() == {"handler": 1}


def test_a_function_says_when_it_is_to_be_tried_again(app: App) -> None:
    assert app.result("later") == 1


def test_an_event_starts_all_functions_whose_triggers_fit_once_each(app: App) -> None:
    both = app.ended(app.send("picky", n=4))
    assert sorted(run["function"] for run in both) == [f"{app.name}-large", f"{app.name}-picky"]
    (one,) = app.ended(app.send("picky", n=3))
    assert one["function"] == f"{app.name}-picky"
    (one,) = app.ended(app.send("pick-another"))
    assert output(one)[0] == f"{app.name}/pick-another"


def test_an_event_that_is_sent_twice_starts_a_function_once(app: App) -> None:
    message = {"name": f"{app.name}/sent", "data": {"key": app.key}, "id": f"once-{app.key}"}
    ids = [app.engine.post("/e/any", json=message).json()["ids"][0] for _ in range(2)]
    assert len(app.ended(ids[0])) == 1
    assert app.runs(ids[1]) == []
    assert app.counts() == {"sent": 1}


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


def test_state_that_is_too_large_for_a_call_is_fetched(app: App) -> None:
    assert app.result("big") == {"size": 7 * 700_000, "events": 1}


def test_models_come_back_from_steps_and_functions_as_models(app: App) -> None:
    assert app.result("models") == {"types": ["Order", "Line"], "total": "4.70"}
    (order,) = app.latest("order", 1)
    line = {"unit_price": "1.10", "count": 2}
    assert output(order) == {
        "placed": "2026-03-01T12:00:00Z",
        "lines": [line, line, {"unit_price": "0.30", "count": 1}],
    }


def test_the_engine_stores_what_it_gets_encrypted(app: App) -> None:
    encryption.check_encryption(app)


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_time_starts_functions(framework: str) -> None:
    with Process([*STEPHTTP, "dev", "--port", "0", "--no-discovery"]) as engine:
        address = engine.wait_for(r"engine ready on (http://\S+)")[1]
        env = {"INNGEST_DEV": address, "CRON": "@every 1s"}
        with (
            Process([sys.executable, str(APP), framework], env=env) as app,
            httpx2.Client(base_url=address, timeout=60) as client,
        ):
            url = app.wait_for(r"listening on (http://\S+)")[1]
            assert httpx2.put(f"{url}/api/inngest", timeout=60).status_code == 200
            last, before, *_ = started_by_time(client, f"{framework}-timed")
            assert last[:2] == ["inngest/scheduled.timer", {"cron": "@every 1s"}]
            assert (last[2] - before[2]) % 1000 == 0 < last[2] - before[2]


def test_in_production_both_sides_sign(tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = [*STEPHTTP, "start", "--port", "0", "--db", str(tmp_path / "db")]
    words += ["--allow-host", "127.0.0.1", "--log-format", "text"]
    words += ["--app", f"{address}/api/inngest"]
    keys = {"INNGEST_SIGNING_KEY": SIGNING_KEY, "INNGEST_EVENT_KEY": "any-event-key"}
    with Process(words, env=keys) as engine:
        url = engine.wait_for(r'engine\.start engine ready url="(\S+)"')[1]
        where = {"INNGEST_API_BASE_URL": url, "INNGEST_EVENT_API_BASE_URL": url}
        command = [sys.executable, str(APP), "fastapi"]
        with (
            Process(command, env={**keys, **where, "PORT": str(port)}),
            httpx2.Client(base_url=url, timeout=60) as client,
        ):
            client.headers["authorization"] = f"Bearer {SIGNING_KEY}"
            engine.wait_for("app.registered")
            app = App("fastapi", address, client, event_key="any-event-key")
            assert app.result("steps")["a"] == {"x": 1}
            assert len(app.result("send")) == 2
            assert app.result("big")["size"] == 7 * 700_000
            # A call that the engine has not signed is refused.
            forged = httpx2.post(f"{address}/api/inngest?fnId=fastapi-steps&stepId=step", json={})
            assert forged.status_code == 401


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

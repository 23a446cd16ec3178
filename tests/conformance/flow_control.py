"""What the options of functions decide, seen by the real SDKs: whether and when a run starts.

Each is called with an app of `conformance`, whatever SDK that has.
"""

from __future__ import annotations

from typing import Any

from tests.acceptance.processes import eventually
from tests.conformance.functions import App, output


def check_batches(app: App) -> None:
    first, second, third = app.send_together("batch", {"n": 1}, {"n": 2}, {"n": 3})
    (run,) = app.ended(first)
    assert output(run) == {"n": 1, "all": [1, 2]}
    assert app.ended(second) == [run]
    assert app.runs(third) == []
    late = app.send_together("batch-late", {"n": 4}, {"n": 5}, {"n": 6})
    (run,) = app.ended(late[2])
    assert output(run) == {"n": 4, "all": [4, 5, 6]}


def check_debounce(app: App) -> None:
    *earlier, last = app.send_together("debounced", *({"n": n} for n in range(5)))
    (run,) = app.ended(last)
    assert output(run) == {"n": 4, "all": [4]}
    assert [app.runs(event_id) for event_id in earlier] == [[]] * 4


def check_limits(app: App) -> None:
    for function in ("limited", "idempotent"):
        data: dict[str, Any] = {"id": f"{app.key} {app.name}"}
        first, second = app.send_together(function, {**data, "n": 1}, {**data, "n": 2})
        (run,) = app.ended(first)
        assert output(run) == {"n": 1, "all": [1]}
        assert app.runs(second) == []
        assert app.runs(app.send(function, **data)) == []


def check_singletons(app: App) -> None:
    first = waiting(app, "only-one", 1)
    assert app.runs(app.send("only-one", n=2)) == []
    app.send("release")
    (run,) = app.ended(first)
    assert output(run) == {"released": True, "n": 1, "all": [1]}

    first = waiting(app, "newest", 3)
    second = waiting(app, "newest", 4)
    (run,) = app.ended(first)
    assert run["status"] == "Cancelled"
    app.send("release")
    (run,) = app.ended(second)
    assert output(run) == {"released": True, "n": 4, "all": [4]}


def waiting(app: App, function: str, n: int) -> str:
    """Start a run that waits, and return the id of its event once it does."""
    event_id = app.send(function, n=n)
    (run,) = app.runs(event_id)
    path = f"/v1/stephttp/runs/{run['run_id']}"
    eventually(lambda: app.engine.get(path).json()["data"]["waiting_for"])
    return event_id


def check_invokers(app: App) -> None:
    result = app.result("invoke-limited")
    assert result["good"] == {"n": 1, "all": [1]}
    assert "not started: rateLimit" in result["error"][1]
    assert app.result("invoke-held") == {"n": 7, "all": [7]}


def check_concurrency(app: App) -> None:
    """No more handlers run at a time than the function allows, however many events there are."""
    ids = app.send_together("bounded", *[{}] * 24)
    assert sorted(output(run) for id_ in ids for run in app.ended(id_)) == list(range(1, 25))
    assert app.counts()["most"] == 2


def check_throttle(app: App) -> None:
    """Runs start one after the other."""
    ids = app.send_together("paced", *[{}] * 3)
    first, _, third = sorted(output(run) for id_ in ids for run in app.ended(id_))
    # The engine counts in milliseconds, and the handler is called a little later than it may be.
    assert third - first > 1.5

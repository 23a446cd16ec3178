"""What is done on purpose, under load: a deploy of the application, a restart of the engine.

No caller loses an answer, and no step runs twice, also none that was not acknowledged: all
processes had the time to report what they did.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.faults.runner import carry_out
from tests.faults.schedules import Blow, rolling
from tests.faults.world import World

KINDS = ("request", "accepted", "call")


async def test_deploys_and_restarts_under_load(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        for number, (app, *blows) in enumerate((
            ("uvicorn-2", Blow(0.8, "reload app", 0.5)),  # one worker after the other
            ("gunicorn", Blow(0.8, "reload app", 0.5)),  # new ones, then the old ones end
            ("gunicorn", Blow(0.8, "terminate engine", 0.1)),
        )):  # fmt: skip
            since = world.ledger.size()
            plan = rolling(number, app, tuple(blows))
            verdict = await carry_out(world, plan, keep_alive=False)
            assert verdict.broken == [], (app, blows)
            entries = list(world.ledger.entries(since))
            # A request that has to wait is refused if the engine is away for too long. It was
            # opened before, so the engine calls its handler all the same.
            refused = {entry["label"] for entry in entries if entry["kind"] == "refused"}
            ran = Counter((e["label"], e["step"]) for e in entries if e["kind"] == "step")
            twice = {step for step, count in ran.items() if count > 1 and step[0] not in refused}
            assert twice == set(), (app, blows)
            if blows[0].what == "reload app":
                assert refused == set()
                # A server that ends closes connections whose request it has not read yet; uvicorn
                # does so with any application. What a handler was called for has its answer.
                labels = {
                    kind: {e["label"] for e in entries if e["kind"] == kind} for kind in KINDS
                }
                unread = labels["request"] - labels["accepted"]
                assert unread.isdisjoint(labels["call"]), (app, world.app and world.app.said())
                assert len(unread) <= 2, (app, unread)

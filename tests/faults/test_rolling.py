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
            ran = Counter((e["label"], e["step"]) for e in entries if e["kind"] == "step")
            assert {step: count for step, count in ran.items() if count > 1} == {}, (app, blows)
            refused = [entry for entry in entries if entry["kind"] == "refused"]
            if blows[0].what == "reload app":
                assert refused == []
                assert verdict.accepted == verdict.requests, (app, world.app and world.app.said())

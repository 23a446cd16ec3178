"""A few schedules of faults, always the same: `python -m tests.faults` has the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.runner import carry_out
from tests.faults.schedules import APPS, EXCHANGE_FAULTS, PROCESS_FAULTS, schedule, short
from tests.faults.world import World

# One for each kind of application. Applications and a worker are killed, both networks are parted,
# and the disk is read-only; exchanges are spoilt between all of them.
SEEDS = (13, 18, 23)


def test_a_seed_makes_one_schedule() -> None:
    assert schedule(7) == schedule(7)
    assert schedule(7) != schedule(8)


def test_schedules_have_all_faults_and_all_applications() -> None:
    plans = [schedule(seed) for seed in range(200)]
    assert {plan.app for plan in plans} == set(APPS)
    assert {fault for plan in plans for fault in plan.faults} == set(EXCHANGE_FAULTS)
    assert {blow.what for plan in plans for blow in plan.blows} == set(PROCESS_FAULTS)


@pytest.mark.parametrize("seed", SEEDS)
async def test_promises_are_kept(seed: int, tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        verdict = await carry_out(world, short(seed))
    assert verdict.requests == 8
    assert verdict.accepted > 2
    assert verdict.broken == [], f"again: python -m tests.faults --short --seed {seed}"

"""What type checkers see of runs, from inside and from outside; mypy and pyright read this."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, assert_type

import pytest

import stephttp
from stephttp import step
from stephttp.sync import step as sync_step

HOUR = timedelta(hours=1)
RUN = "01M81NT13NCCP5V7EQ9MPKSWMT"


def inside() -> None:
    run = stephttp.current_run()
    assert_type(run, stephttp.CurrentRun)
    assert_type(run.id, str)
    assert_type(run.result_url, str)
    assert_type(run.attempt, int)
    assert_type(run.replaying, bool)


async def outside(provider: stephttp.Provider) -> None:
    assert_type(await provider.send_event("a", {"b": 1}, id="c"), str)
    assert_type(await provider.send_signal("a", [1]), str)
    info = await provider.get_run(RUN)
    assert_type(info, stephttp.RunInfo)
    assert_type(info.status, Literal["running", "waiting", "completed", "failed", "cancelled"])
    assert_type(info.started_at, datetime)
    assert_type(info.ended_at, datetime | None)
    assert_type(info.error, stephttp.ErrorInfo | None)
    result = await provider.result(RUN, timeout=timedelta(seconds=1))
    assert_type(result, stephttp.RunResult)
    assert_type(result.json(), Any)
    assert_type(result.json(list[int]), list[int])
    await provider.cancel(RUN)


def outside_and_blocking(provider: stephttp.Provider) -> None:
    assert_type(provider.send_event_sync("a"), str)
    assert_type(provider.send_signal_sync("a"), str)
    assert_type(provider.get_run_sync(RUN), stephttp.RunInfo)
    assert_type(provider.result_sync(RUN), stephttp.RunResult)
    provider.cancel_sync(RUN)


async def waits(order: str) -> None:
    by_values = await step.wait_for_event(
        "e", event="e", match={"data.id": order, "data.n": 1, "data.x": None}, timeout=HOUR
    )
    assert_type(by_values, stephttp.Event | None)
    blocking = sync_step.wait_for_event(
        "e", event="e", match={"data.id": order}, timeout=HOUR, lookback=HOUR
    )
    assert_type(blocking, stephttp.Event | None)


def test_the_functions_above_are_there_to_be_checked() -> None:
    with pytest.raises(stephttp.OutsideRunError):
        inside()
    assert callable(outside)
    assert callable(outside_and_blocking)
    assert callable(waits)

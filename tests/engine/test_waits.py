"""Sleep arguments, `Retry-After`, clocks."""

from __future__ import annotations

import asyncio

import pytest

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine import SystemClock, VirtualClock
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.due_times import retry_after_ms, sleep_until_ms

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("  ", 0),
        ("1s", 1000),
        ("1h30m", 5_400_000),
        ("366d", 366 * DAY),
        ("-5s", 0),
        ("0s", 0),
        ("1h30m20s10ms", 5_420_010),
        ("2027-01-15T08:00:01Z", 1000),
        ("2027-01-15T08:00:00.250Z", 250),
        ("2027-01-15T09:00:00.123456789+01:00", 123),
        ("2027-01-16T08:00", DAY),
        ("1999-01-01T00:00:00Z", 0),
    ],
)
def test_sleeps(text: str, expected: int) -> None:
    assert sleep_until_ms(Op(OpCode.SLEEP, "z", name=text), "f", NOW) - NOW == expected


def test_the_duration_goes_before_the_name() -> None:
    op = Op(OpCode.SLEEP, "z", name="zzz", opts={"duration": "1s"})
    assert sleep_until_ms(op, "f", NOW) == NOW + 1000


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "1",
        "1 s",
        "1.5s",
        "2027-13-01T00:00:00Z",
        "367d",
        "9" * 5000 + "s",
        "-x",
        "9999-01-01T00:00:00Z",
        "\u0661s",
    ],
)
def test_texts_that_are_no_sleep(text: str) -> None:
    with pytest.raises(Refused, match=r"^f\.name: "):
        sleep_until_ms(Op(OpCode.SLEEP, "z", name=text), "f", NOW)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", 5000),
        ("0", 1000),
        ("9999999", DAY),
        ("2027-01-15T08:00:05.000Z", 5000),
        ("Fri, 15 Jan 2027 08:00:05 GMT", 5000),
        ("Friday, 15-Jan-27 08:00:05 GMT", 5000),
        ("Fri Jan 15 08:00:05 2027", 5000),
        ("Fri, 15 Jan 1999 08:00:05 GMT", 1000),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("12345678", None),
        ("not a date at all", None),
    ],
)
def test_retry_after(value: str, expected: int | None) -> None:
    assert retry_after_ms(value, NOW) == expected


def test_times_are_written_exactly() -> None:
    assert rfc3339(NOW + 7) == "2027-01-15T08:00:00.007Z"
    assert rfc3339(None) is None


async def test_the_virtual_clock_wakes_whoever_is_due() -> None:
    clock = VirtualClock(NOW)
    soon, later = asyncio.Event(), asyncio.Event()
    tasks = [
        asyncio.create_task(clock.wait_until(NOW + 1000, soon)),
        asyncio.create_task(clock.wait_until(NOW + 9000, later)),
    ]
    await asyncio.sleep(0)
    clock.advance(1)
    await tasks[0]
    assert (soon.is_set(), later.is_set()) == (True, False)
    later.set()
    await tasks[1]
    await clock.wait_until(NOW, asyncio.Event())
    assert clock.now() * 1000 == clock.now_ms() == NOW + 1000


async def test_the_system_clock() -> None:
    clock = SystemClock()
    assert abs(clock.now() * 1000 - clock.now_ms()) < 60_000
    await clock.wait_until(clock.now_ms() - 1, asyncio.Event())
    await clock.wait_until(clock.now_ms() + 1, asyncio.Event())
    wake = asyncio.Event()
    wake.set()
    await clock.wait_until(None, wake)
    await clock.wait_until(clock.now_ms() + 10**9, wake)

"""Sleep arguments, `Retry-After`, clocks."""

from __future__ import annotations

import asyncio

import pytest

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine import SystemClock, VirtualClock
from stephttp.engine.model.clock import Alarm, rfc3339
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


class SetClock(VirtualClock):
    """A wall clock that can be set ahead, which nothing that waits for it notices."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


async def test_a_new_timer_rings_although_the_wall_clock_was_set_past_an_older_one() -> None:
    clock = SetClock(NOW)
    alarm = Alarm(clock)
    alarm.set(NOW + 60_000)
    waiting = asyncio.create_task(alarm.wait())
    await asyncio.sleep(0)
    clock.ahead_ms = 8 * 3_600_000
    await asyncio.sleep(0)
    assert not waiting.done()
    alarm.set(clock.now_ms() + 100)  # later than the one that nobody has noticed to be due
    await waiting


async def test_a_length_of_time_is_waited_for_by_the_virtual_clock() -> None:
    clock = VirtualClock(NOW)
    wake = asyncio.Event()
    waiting = [asyncio.create_task(clock.wait_for(5)), asyncio.create_task(clock.wait_for(9, wake))]
    await asyncio.sleep(0)
    clock.advance(5)
    await waiting[0]
    assert not waiting[1].done()
    wake.set()
    await waiting[1]
    assert clock.monotonic() * 1000 == NOW + 5000


async def test_the_system_clock() -> None:
    clock = SystemClock()
    assert abs(clock.now() * 1000 - clock.now_ms()) < 60_000
    await clock.wait_until(clock.now_ms() - 1, asyncio.Event())
    await clock.wait_until(clock.now_ms() + 1, asyncio.Event())
    wake = asyncio.Event()
    wake.set()
    await clock.wait_until(None, wake)
    await clock.wait_until(clock.now_ms() + 10**9, wake)
    before = clock.monotonic()
    await clock.wait_for(10**9, wake)
    await clock.wait_for(0.001)
    assert clock.monotonic() > before

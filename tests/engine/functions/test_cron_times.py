"""Which cron expressions there are, and their times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stephttp.engine.rules.functions import cron_times

MINUTE_MS = 60_000


def _ms(text: str) -> int:
    when = datetime.fromisoformat(text)
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


def following(expression: str, after: str, count: int, zone: str = "UTC") -> list[str]:
    """The next times of an expression, in a time zone."""
    found, at_ms = [], _ms(after)
    for _ in range(count):
        at_ms = cron_times.next_ms(expression, at_ms)
        found.append(datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)))
    return [f"{one:%Y-%m-%d %H:%M:%S%z}".removesuffix("+0000") for one in found]


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("* * * * *", ["2026-11-29 12:34:00", "2026-11-29 12:35:00"]),
        ("*/20 * * * *", ["2026-11-29 12:40:00", "2026-11-29 13:00:00"]),
        ("5/20 * * * *", ["2026-11-29 12:45:00", "2026-11-29 13:05:00"]),
        ("10-30/10,50 12 * * *", ["2026-11-29 12:50:00", "2026-11-30 12:10:00"]),
        ("5-5/2 * * * *", ["2026-11-29 13:05:00", "2026-11-29 14:05:00"]),
        ("? ? ? ? ?", ["2026-11-29 12:34:00", "2026-11-29 12:35:00"]),
        ("  0   9  *  *  mon-FRI ", ["2026-11-30 09:00:00", "2026-12-01 09:00:00"]),
        ("0 0 1 jan,Jul *", ["2027-01-01 00:00:00", "2027-07-01 00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        # One of the two days is enough, unless the other is any day.
        ("0 0 13 * fri", ["2026-12-04 00:00:00", "2026-12-11 00:00:00", "2026-12-13 00:00:00"]),
        ("0 0 1-31/2 * 0", ["2026-12-01 00:00:00", "2026-12-03 00:00:00"]),
        ("0 0 */2 * 0", ["2026-12-01 00:00:00", "2026-12-03 00:00:00"]),
        ("0 0 */1 * 0", ["2026-12-06 00:00:00", "2026-12-13 00:00:00"]),
        ("0 0 5,* * sun", ["2026-12-06 00:00:00", "2026-12-13 00:00:00"]),
        ("0 0 31 * *", ["2026-12-31 00:00:00", "2027-01-31 00:00:00", "2027-03-31 00:00:00"]),
        ("@hourly", ["2026-11-29 13:00:00", "2026-11-29 14:00:00"]),
        ("@daily", ["2026-11-30 00:00:00", "2026-12-01 00:00:00"]),
        ("@midnight", ["2026-11-30 00:00:00", "2026-12-01 00:00:00"]),
        ("@weekly", ["2026-12-06 00:00:00", "2026-12-13 00:00:00"]),
        ("@monthly", ["2026-12-01 00:00:00", "2027-01-01 00:00:00"]),
        ("@yearly", ["2027-01-01 00:00:00", "2028-01-01 00:00:00"]),
        ("@annually", ["2027-01-01 00:00:00", "2028-01-01 00:00:00"]),
        ("@every 1h30m", ["2026-11-29 14:03:10", "2026-11-29 15:33:10"]),
        ("@every 1s", ["2026-11-29 12:33:11", "2026-11-29 12:33:12"]),
        ("TZ=Europe/Paris 0 9 * * *", ["2026-11-30 08:00:00", "2026-12-01 08:00:00"]),
        ("CRON_TZ=America/New_York @daily", ["2026-11-30 05:00:00", "2026-12-01 05:00:00"]),
        ("TZ=Asia/Kolkata */30 * * * *", ["2026-11-29 13:00:00", "2026-11-29 13:30:00"]),
    ],
)
def test_times(expression: str, times: list[str]) -> None:
    cron_times.check(expression)
    assert following(expression, "2026-11-29 12:33:10", len(times)) == times


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "expected five fields (minute, hour, day of month, month, day of week), got 0"),
        ("* * * *", "got 4"),
        ("0 * * * * *", "got 6"),
        ("60 * * * *", "minute: 60 is not from 0 to 59"),
        ("* 24 * * *", "hour: 24 is not from 0 to 23"),
        ("* * 0 * *", "day of month: 0 is not from 1 to 31"),
        ("* * * 13 *", "month: 13 is not from 1 to 12"),
        ("* * * * 7", "day of week: 7 is not from 0 to 6"),
        ("* * * * mon-sun", "day of week: 'mon-sun' ends before it begins"),
        ("30-10 * * * *", "minute: '30-10' ends before it begins"),
        ("*/0 * * * *", "minute: '0' in '*/0' is not a step"),
        ("*/ * * * *", "minute: '' in '*/' is not a step"),
        ("1, * * * *", "minute: '' in '1,' is not a value"),
        ("-5 * * * *", "minute: '' in '-5' is not a value"),
        ("1-2-3 * * * *", "minute: '2-3' in '1-2-3' is not a value"),
        ("*-5 * * * *", "minute: '*' in '*-5' is not a value"),
        ("jan * * * *", "minute: 'jan' in 'jan' is not a value"),
        ("0 0 L * *", "day of month: 'l' in 'L' is not a value"),
        ("0 0 * * mon#2", "day of week: 'mon#2' in 'mon#2' is not a value"),
        ("٣ * * * *", "minute: '٣' in '٣' is not a value"),
        ("9999999999 * * * *", "minute: '9999999999' in '9999999999' is not a value"),
        ("0 0 30 2 *", "'0 0 30 2 *' never comes"),
        ("0 0 31 4,6,sep *", "'0 0 31 4,6,sep *' never comes"),
        ("@reboot", "'@reboot' is not one of @yearly"),
        ("@every", "'' is not a duration"),
        ("@every soon", "'soon' is not a duration"),
        ("@every 999ms", "@every: '999ms' is not from 1 s to 366 days"),
        ("@every 367d", "@every: '367d' is not from 1 s to 366 days"),
        ("TZ=Mars/Base * * * * *", "'Mars/Base' is not a time zone"),
        ("TZ= * * * * *", "'' is not a time zone"),
        ("TZ=../../etc/passwd * * * * *", "'../../etc/passwd' is not a time zone"),
        ("TZ=Europe * * * * *", "'Europe' is not a time zone"),
        ("TZ=Europe/Paris", "expected five fields"),
    ],
)
def test_what_is_not_accepted_says_why(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        cron_times.check(expression)


@pytest.mark.parametrize(
    ("fields", "after", "times"),
    [
        # 29 March: 02:00 to 03:00 is left out, and what falls into it comes after it.
        ("30 2 * * *", "2026-03-27 12:00", ["03-28 02:30+0100", "03-29 03:00+0200",
                                            "03-30 02:30+0200"]),
        ("0 3 * * *", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 03:00+0200"]),
        ("30 1-3 * * *", "2026-03-29 00:00", ["03-29 01:30+0100", "03-29 03:00+0200",
                                              "03-29 03:30+0200"]),
        ("30 * * * *", "2026-03-29 00:00", ["03-29 01:30+0100", "03-29 03:30+0200"]),
        ("*/20 2 * * *", "2026-03-28 12:00", ["03-30 02:00+0200", "03-30 02:20+0200"]),
        ("0 0 * * *", "2026-03-28 12:00", ["03-29 00:00+0100", "03-30 00:00+0200"]),
        # 25 October: 02:00 to 03:00 comes twice, and a time in it counts once.
        ("30 2 * * *", "2026-10-24 12:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        # From within the second of the two hours.
        ("30 2 * * *", "2026-10-25 01:15", ["10-26 02:30+0100"]),
        ("0 1-3 * * *", "2026-10-24 22:30", ["10-25 01:00+0200", "10-25 02:00+0200",
                                             "10-25 03:00+0100"]),
        ("30 * * * *", "2026-10-25 00:00", ["10-25 02:30+0200", "10-25 02:30+0100",
                                            "10-25 03:30+0100"]),
        ("*/30 2 * * *", "2026-10-24 23:00", ["10-25 02:00+0200", "10-25 02:30+0200",
                                              "10-25 02:00+0100", "10-25 02:30+0100"]),
        ("0 0 * * *", "2026-10-24 12:00", ["10-25 00:00+0200", "10-26 00:00+0100"]),
    ],
)  # fmt: skip
def test_clock_changes_in_paris(fields: str, after: str, times: list[str]) -> None:
    found = following(f"TZ=Europe/Paris {fields}", after, len(times), "Europe/Paris")
    assert [one.replace("2026-", "").replace(":00+", "+") for one in found] == times


def test_the_last_year_has_an_end() -> None:
    with pytest.raises(ValueError, match="no time after"):
        cron_times.next_ms("0 0 1 1 *", _ms("9999-06-01"))


_FIELD_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


@st.composite
def _fields(draw: st.DrawFn) -> list[tuple[str, set[int]]]:
    """Fields, each with the numbers that it stands for."""
    fields = []
    for least, most in _FIELD_RANGES:
        numbers = st.integers(least, most)
        form = draw(st.sampled_from(["any", "any", "list", "range", "steps"]))
        if form == "any":
            fields.append(("*", set(range(least, most + 1))))
        elif form == "list":
            some = draw(st.lists(numbers, min_size=1, max_size=4))
            fields.append((",".join(map(str, some)), set(some)))
        elif form == "range":
            first, last = sorted((draw(numbers), draw(numbers)))
            fields.append((f"{first}-{last}", set(range(first, last + 1))))
        else:
            step = draw(st.integers(2, 9))
            fields.append((f"*/{step}", set(range(least, most + 1, step))))
    return fields


@given(
    fields=_fields(),
    after=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - UTC, below
)
def test_no_time_is_left_out_and_none_is_added(
    fields: list[tuple[str, set[int]]], after: datetime
) -> None:
    """Looked for day by day, as a person with a calendar would."""
    texts, (minutes, hours, days, months, weekdays) = zip(*fields, strict=True)
    expression = " ".join(texts)
    try:
        cron_times.check(expression)
    except ValueError as error:
        assert "never comes" in str(error)  # noqa: PT017 - that is what may be drawn
        assume(False)

    def fits(day: datetime) -> bool:
        in_month, in_week = day.day in days, day.isoweekday() % 7 in weekdays
        either = "*" not in (texts[2], texts[4])
        return day.month in months and (in_month or in_week if either else in_month and in_week)

    start = after.replace(tzinfo=UTC)
    first = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    day = first.replace(hour=0, minute=0)
    while True:
        times = (day.replace(hour=h, minute=m) for h in sorted(hours) for m in sorted(minutes))
        expected = next((one for one in times if one >= first), None) if fits(day) else None
        if expected is not None:
            break
        day += timedelta(days=1)
        assume(day.year < 2045)
    found = cron_times.next_ms(expression, round(start.timestamp() * 1000))
    assert datetime.fromtimestamp(found / 1000, UTC) == expected


@given(
    expression=st.sampled_from(
        ["30 2 * * *", "*/7 * * * *", "0 */3 * * *", "15 0-5 * * *", "@every 90s", "@daily"]
    ),
    zone=st.sampled_from(["Europe/Paris", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    after_ms=st.integers(_ms("2024-01-01"), _ms("2028-01-01")),
)
def test_each_time_is_later_than_the_one_before_and_the_same_from_anywhere_between(
    expression: str, zone: str, after_ms: int
) -> None:
    expression = f"TZ={zone} {expression}"
    times = [after_ms]
    for _ in range(4):
        times.append(cron_times.next_ms(expression, times[-1]))
    assert all(before < after for before, after in pairwise(times))
    if "@every" not in expression:
        for before, after in pairwise(times):
            assert cron_times.next_ms(expression, (before + after) // 2) == after


@given(zone=st.sampled_from(["Europe/Paris", "Africa/Casablanca", "America/Sao_Paulo"]),
       after_ms=st.integers(_ms("2016-01-01"), _ms("2030-01-01")))  # fmt: skip
def test_schedules_by_the_minute_go_through_clock_changes_as_time_does(
    zone: str, after_ms: int
) -> None:
    found_ms = cron_times.next_ms(f"TZ={zone} * * * * *", after_ms)
    assert found_ms == (after_ms // MINUTE_MS + 1) * MINUTE_MS

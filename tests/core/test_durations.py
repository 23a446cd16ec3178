from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._wire.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", timedelta(seconds=1)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("2w", timedelta(weeks=2)),
        ("500ms", timedelta(milliseconds=500)),
        ("1d1us", timedelta(days=1, microseconds=1)),
        ("1500ns", timedelta(microseconds=1)),
        ("0s", timedelta(0)),
    ],
)
def test_reads_what_sdks_write(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1.5h", "-1s", "1 s", "1y", "1s ", "٣s", "9" * 40 + "w"]
)
def test_refuses_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4000)))
def test_writing_and_reading_are_inverse(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


def test_a_negative_duration_is_over_at_once() -> None:
    assert format_duration(timedelta(seconds=-3)) == "0s"

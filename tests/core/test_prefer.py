import pytest

from stephttp._wire.http import MAX_WAIT, Prefer, read_prefer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Prefer()),
        (["respond-async"], Prefer(True)),
        (["respond-async, wait=10"], Prefer(True, 10)),
        (["respond-async", "wait=10"], Prefer(True, 10)),
        (["Wait=5"], Prefer(False, 5)),
        (['wait="7"'], Prefer(False, 7)),
        (["wait=5, wait=9"], Prefer(False, 5)),
        (['foo="a, respond-async"; bar="x,y", wait = 3'], Prefer(False, 3)),
        (["wait=3; priority=5, respond-async"], Prefer(True, 3)),
        ([",, respond-async ,"], Prefer(True)),
        (["wait=soon"], Prefer()),
        (["wait=-1"], Prefer()),
        (["wait=99999"], Prefer(False, MAX_WAIT)),
        (["return=minimal"], Prefer()),
    ],
)
def test_preferences_are_read(values: list[str], expected: Prefer) -> None:
    assert read_prefer([(b"prefer", value.encode()) for value in values]) == expected


def test_what_was_applied_is_told() -> None:
    assert Prefer(True, 3).applied == b"respond-async, wait=3"
    assert Prefer(True).applied == b"respond-async"


@pytest.mark.parametrize(
    "value",
    [
        b"a ;" + b" " * 60_000 + b'"',
        b"a" + b" " * 60_000 + b'"',
        b"a =" + b" " * 60_000 + b"\\",
        b'a="' + b"\\" * 60_001,
        b'a;"' + b'""' * 30_000,
    ],
    ids=range(5),
)
def test_a_long_header_takes_no_longer_than_its_length(value: bytes) -> None:
    """By the square of it, each of these took a minute or more, which the test's timeout ends."""
    assert read_prefer([(b"prefer", value)]) == Prefer()

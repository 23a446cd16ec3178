"""The address of a result: its count, and how its answers name it."""

from urllib.parse import urljoin

import pytest

from stephttp._wire.http import Prefer
from stephttp._wire.result_address import not_ended, reference, turn_of


@pytest.mark.parametrize(
    ("query", "turn"),
    [("", 0), ("token=a", 0), ("turn=3&token=a", 3), ("turn=99", 12), ("turn=-1", 0),
     ("turn=x", 0), ("turn=999999999999", 0), ("turn=²", 0)],
)  # fmt: skip
def test_turns_are_read(query: str, turn: int) -> None:
    assert turn_of(query) == turn


@pytest.mark.parametrize(
    "path", ["/v1/http/runs/R/output", "/_result", "/results/", "/a:b", "/shop/_result", "/"]
)
@pytest.mark.parametrize("query", ["token=a.b-c&run_id=R", "token=x&turn=4", ""])
def test_a_reference_leads_to_the_same_address_below_any_prefix(path: str, query: str) -> None:
    for prefix in ("", "/api/v2"):
        here = f"https://api.test{prefix}{path}?{query}"
        there = urljoin(here, reference(path, query, 5))
        assert there.partition("?")[0] == here.partition("?")[0]
        assert turn_of(there.partition("?")[2]) == 5
        assert ("token=" in there) is ("token=" in query)
        fresh = urljoin(here, reference(path, query))
        assert "turn" not in fresh
        assert fresh.partition("?")[0] == here.partition("?")[0]


def test_a_caller_that_came_often_enough_is_asked_to_return() -> None:
    statuses = [not_ended("R", "/_result", f"turn={turn}", Prefer())[0] for turn in range(13)]
    assert statuses == [303] * 12 + [202]
    assert not_ended("R", "/_result", "", Prefer(wait=3))[0] == 202

"""Answers of the engine that arrived damaged: none of them is more than an error of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stephttp._client import api_calls, batch_calls
from stephttp._client.flow import Answer
from stephttp.errors import APIStatusError

RUN = b'{"data":{"run_id":"01M81KWY2JTNRXZTV817ZB746V","token":"abc"}}'
READERS: dict[str, tuple[Callable[[Answer], Any], bytes]] = {
    "first checkpoint": (api_calls.read_new_run, RUN),
    "outcome": (api_calls.read_outcome, b'{"data":{"state":"async","token":"abc"}}'),
    "memos": (api_calls.read_actions, b'{"a":{"data":"text"}}'),
    "state": (api_calls.read_state, b'{"a":{"data":"text"}}'),
    "batch": (
        lambda answer: batch_calls.read_batch(answer, 1),
        b'{"data":{"items":[{"status":400,"error":"text"}]}}',
    ),
    "renewal": (batch_calls.read_renewal, b'{"data":{"lost":["01M81KWY2JTNRXZTV817ZB746V"]}}'),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_answer_is_an_error_of_the_api_wherever_the_damage_is(name: str) -> None:
    read, whole = READERS[name]
    read(Answer(200, {}, whole))
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            with pytest.raises(APIStatusError, match="cannot read the answer"):
                read(Answer(200, {}, damaged))


def test_a_damaged_answer_has_no_token() -> None:
    assert api_calls.read_token(RUN) == "abc"
    damaged = [RUN[:at] + b"\xff" + RUN[at + 1 :] for at in range(len(RUN))]
    assert {api_calls.read_token(body) for body in damaged} == {""}

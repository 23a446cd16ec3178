"""The judge sees each kind of broken promise, and nothing where all is well."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.judge import judge

LABEL, RUN = "r", "run-1"


def story(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Give entries the times of their order."""
    return [{"t": number, "label": LABEL, "run": RUN, **one} for number, one in enumerate(entries)]


def step(nonce: str, name: str = "a", run: str = RUN) -> dict[str, Any]:
    return {"kind": "step", "step": name, "nonce": nonce, "run": run}


CALL = {"kind": "call"}
REQUEST, ACCEPTED = {"kind": "request"}, {"kind": "accepted"}
ACK = {"kind": "ack", "nonces": ["n1"]}


def answer(**values: str) -> dict[str, Any]:
    return {"kind": "answer", "values": values, "cookies": ["b=1"]}


def got(**values: str) -> dict[str, Any]:
    return {"kind": "got", "status": 201, "values": values, "cookies": ["b=1"]}


@pytest.mark.parametrize(
    ("entries", "broken"),
    [
        ([REQUEST, step("n1"), ACCEPTED, ACK, answer(a="n1"), got(a="n1")], []),
        # A process died before its result was stored: that is not promised.
        ([REQUEST, step("n0"), step("n1"), ACCEPTED, ACK, answer(a="n1"), got(a="n1")], []),
        # Refused: nothing was promised.
        ([REQUEST, step("n1")], []),
        ([REQUEST, step("n1"), ACCEPTED, ACK], ["lost"]),
        ([ACCEPTED, step("n1"), ACK, step("n2"), answer(a="n1"), got(a="n1")], ["repeated"]),
        ([REQUEST, ACCEPTED, step("n1"), answer(a="n1"), got(a="n2")], ["wrong"]),
        ([REQUEST, ACCEPTED, step("n1"), got(a="n1")], ["wrong"]),
        ([REQUEST, ACCEPTED, step("n1"), ACK, answer(a="n2"), got(a="n2")], ["wrong"]),
        ([REQUEST, ACCEPTED, step("n1"), answer(a="n2"), got(a="n2"), ACK], ["wrong"]),
        (
            [REQUEST, ACCEPTED, answer(a="1"), answer(a="2"), got(a="1"), got(a="2")],
            ["wrong"],
        ),
        (
            [REQUEST, CALL, ACCEPTED, step("n1"), {**CALL, "run": "run-2"}, answer(a="n1"),
             got(a="n1")],
            ["twice"],
        ),
        # A gateway's 502 would be seen as one; the application's own is an answer like any other.
        ([REQUEST, {"kind": "refused", "status": 503, "text": ""}], []),
        ([REQUEST, {"kind": "refused", "status": 500, "text": ""}], ["wrong"]),
        ([REQUEST, ACCEPTED, answer(), {**got(), "status": 500}], ["wrong"]),
        ([REQUEST, ACCEPTED, answer(), {**got(), "cookies": []}], ["wrong"]),
        ([REQUEST, ACCEPTED, answer(), {**answer(), "cookies": ["b=2"]}, got(),
          {**got(), "cookies": ["b=2"]}], ["wrong"]),
    ],
)  # fmt: skip
def test_each_broken_promise_is_seen(entries: list[dict[str, Any]], broken: list[str]) -> None:
    verdict = judge(story(*entries), keyed=[LABEL])
    assert [one.split(":")[0] for one in verdict.broken] == broken


def test_cookies_are_repeated_to_callers_only_who_are_known() -> None:
    plain = [REQUEST, ACCEPTED, answer(), got(), {**got(), "cookies": []}]
    assert judge(story(*plain), [LABEL]).wrong
    assert judge(story(*plain), [LABEL], [LABEL]).wrong == []
    other = [*plain, {**got(), "cookies": ["b=2"]}]
    assert judge(story(*other), [LABEL], [LABEL]).wrong


def test_what_is_acknowledged_after_an_answer_that_no_key_holds_back_is_of_another_call() -> None:
    late = [REQUEST, step("n2"), answer(a="n2"), ACCEPTED, got(a="n2"), step("n1"), ACK]
    assert judge(story(*late)).broken == []
    assert judge(story(*late), [LABEL]).wrong


def test_without_a_key_a_request_that_was_sent_twice_runs_twice() -> None:
    verdict = judge(
        story(REQUEST, CALL, step("n1"), {**CALL, "run": "run-2"}, step("n2", run="run-2"))
    )
    assert verdict.broken == []

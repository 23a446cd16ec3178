"""Sending events: what goes out, and what a sender learns."""

import json
import random
from typing import Any

import pytest

from stephttp import APIStatusError, Event
from stephttp._client.flow import Answer, APICall, Keys
from stephttp._client.outgoing_events import check, post, prepare

RUN, STEP = "01M81NT13NCCP5V7EQ9MPKSWMT", "ab" * 20


def test_events_get_ids_that_depend_on_run_and_step_alone() -> None:
    events = [Event(name="a/b", data={"x": 1}), Event(name="a/c", id="mine", ts=5)]
    first = prepare("s", events, RUN, STEP, now_ms=1000)
    again = prepare("s", events, RUN, STEP, now_ms=2000)
    assert json.loads(first.body) == [
        {"name": "a/b", "data": {"x": 1}, "id": f"{RUN}-{STEP[:12]}-0"},
        {"name": "a/c", "id": "mine", "ts": 5},
    ]
    assert first.body == again.body
    assert first.seed.split(",")[0] == "1000"
    assert first.seed.split(",")[1] == again.seed.split(",")[1]
    assert prepare("s", events, RUN, "cd" * 20, 1000).seed != first.seed
    assert events[0].id == ""


@pytest.mark.parametrize(
    ("origin", "key", "path", "label"),
    [
        ("", "k", "/e/k", "/e/…"),
        ("https://inn.gs", "a/b?", "https://inn.gs/e/a%2Fb%3F", "https://inn.gs/e/…"),
    ],
)
def test_the_request(origin: str, key: str, path: str, label: str) -> None:
    flow = post(
        prepare("s", [Event(name="n")], RUN, STEP, 1), origin, key, Keys(), random.Random(1)
    )
    call = next(flow)
    assert isinstance(call, APICall)
    assert (call.method, call.path, str(call)) == ("POST", path, f"POST {label}")
    assert "authorization" not in call.headers
    assert call.headers["x-inngest-event-id-seed"].startswith("1,")
    with pytest.raises(StopIteration) as end:
        flow.send(Answer(200, {}, b'{"ids":["i"],"status":200}'))
    assert end.value.value == ["i"]


@pytest.mark.parametrize("answer", [Answer(401, {}, b"no"), Answer(200, {}, b"<html>")])
def test_an_error_does_not_show_the_key(answer: Answer) -> None:
    flow = post(
        prepare("s", [Event(name="n")], RUN, STEP, 1), "", "secret", Keys(), random.Random(1)
    )
    next(flow)
    with pytest.raises(APIStatusError) as error:
        flow.send(answer)
    assert "secret" not in str(error.value)
    assert "POST /e/…" in str(error.value)


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ([], ValueError, "0 events; 1 to 5000"),
        ([{"name": "x"}], TypeError, r"events\[0\] must be a stephttp.Event"),
        (7, TypeError, "events must be a stephttp.Event, or several, not 7"),
        ([Event(name="a"), Event(name="")], ValueError, r"events\[1\].name must not be empty"),
        (Event(name="inngest/x"), ValueError, "for the server's own"),
        (Event(name="x", data={"a": object()}), ValueError, r"events\[0\].data cannot be"),
        (Event(name="x", data={"a": [float("nan")]}), ValueError, "nan is not JSON"),
    ],
)
def test_bad_events(events: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"step 's': .*{message}|step 's': {message}"):
        check("s", events)

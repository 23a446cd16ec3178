"""The retry flow, played by hand: what it asks for, and what it makes of each answer."""

import random
from typing import Any

import pytest

from stephttp._client.flow import ATTEMPTS, MAX_PAUSE, Answer, APICall, Keys, Pause, backoff, send
from stephttp._wire.stored_state import FEATURES
from stephttp.errors import APIConnectionError, APIStatusError

PRIMARY, FALLBACK = "aa" * 16, "bb" * 16
CALL = APICall("POST", "/v1/http/runs", b"{}")


def play(keys: Keys, *answers: Answer | Exception) -> tuple[list[APICall], list[float], Any]:
    """Feed `answers` in turn; returns the calls made, the pauses asked for, and the outcome."""
    flow = send(CALL, keys, random.Random(1))
    calls: list[APICall] = []
    pauses: list[float] = []
    feed = iter(answers)
    try:
        wanted = next(flow)
        while True:
            if isinstance(wanted, Pause):
                pauses.append(wanted.seconds)
                wanted = next(flow)
                continue
            calls.append(wanted)
            answer = next(feed)
            wanted = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    except StopIteration as end:
        return calls, pauses, end.value
    except (APIConnectionError, APIStatusError) as error:
        return calls, pauses, error


def answer(status: int) -> Answer:
    return Answer(status, {}, b"text")


def test_a_good_answer_is_returned_at_once() -> None:
    calls, pauses, outcome = play(Keys(), answer(200))
    assert (calls, pauses, outcome) == ([CALL], [], answer(200))


@pytest.mark.parametrize(
    "failure", [answer(500), answer(503), answer(429), APIConnectionError("x")]
)
def test_what_may_pass_is_tried_five_times(failure: Answer | Exception) -> None:
    calls, pauses, outcome = play(Keys(), *[failure] * ATTEMPTS)
    assert len(calls) == ATTEMPTS
    assert len(pauses) == ATTEMPTS - 1
    assert pauses == sorted(pauses)
    assert isinstance(outcome, APIConnectionError | APIStatusError)


def test_what_arrived_damaged_is_sent_again() -> None:
    """No JSON of ours has bytes that are not UTF-8, so the engine says that it wants it again."""
    damaged = Answer(400, {FEATURES: "", "retry-after": "1"}, b"not UTF-8")
    calls, _, outcome = play(Keys(), damaged, answer(200))
    assert (len(calls), outcome) == (2, answer(200))
    calls, _, outcome = play(Keys(), *[damaged] * ATTEMPTS)
    assert (len(calls), outcome.status) == (ATTEMPTS, 400)
    _, _, outcome = play(Keys(), *[answer(503)] * (ATTEMPTS - 1), damaged)
    assert isinstance(outcome, APIConnectionError), "not refused, which would be final"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413])
def test_what_cannot_pass_is_not_tried_again(status: int) -> None:
    calls, pauses, outcome = play(Keys(PRIMARY), answer(status))
    assert (len(calls), pauses) == (1, [])
    assert isinstance(outcome, APIStatusError)
    assert (outcome.status, outcome.body) == (status, b"text")


def test_it_recovers() -> None:
    _, pauses, outcome = play(Keys(), APIConnectionError("x"), answer(502), answer(200))
    assert outcome == answer(200)
    assert len(pauses) == 2


def test_a_refused_key_gives_way_to_the_fallback_until_that_is_refused() -> None:
    keys = Keys(PRIMARY, FALLBACK)
    first = keys.bearer
    calls, pauses, outcome = play(keys, answer(401), answer(200))
    assert [call.headers["authorization"] for call in calls] == [
        f"Bearer {first}",
        f"Bearer {keys.bearer}",
    ]
    assert (pauses, outcome) == ([], answer(200))
    assert keys.bearer != first
    calls, _, outcome = play(keys, answer(401), answer(200))
    assert outcome == answer(200)
    assert keys.bearer == first, "the rotation has reached the server"
    calls, _, outcome = play(keys, answer(401), answer(401))
    assert len(calls) == 2
    assert isinstance(outcome, APIStatusError)


OURS = Answer(200, {"x-stephttp-features": "batch, leases"}, b"{}")
INNGEST = Answer(200, {"x-inngest-server-kind": "cloud"}, b"{}")
HTML, JSON = {"content-type": "text/html"}, {"content-type": "application/json"}


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 409, 410, 413, 429, 502, 503])
@pytest.mark.parametrize("headers", [HTML, JSON, {}, {"x-inngest-server-kind": "cloud"}])
def test_a_page_is_no_answer_of_an_engine_that_is_known(
    status: int, headers: dict[str, str]
) -> None:
    keys = Keys(PRIMARY, FALLBACK)
    play(keys, OURS)
    known, bearer = keys.features, keys.bearer
    page = Answer(status, headers, b"<h1>sorry</h1>")
    calls, pauses, outcome = play(keys, *[page] * ATTEMPTS)
    assert (len(calls), len(pauses)) == (ATTEMPTS, ATTEMPTS - 1)
    assert isinstance(outcome, APIConnectionError)
    assert f"answered {status}: <h1>sorry</h1>" in str(outcome)
    assert (keys.features, keys.bearer) == (known, bearer), "nothing is learned from it"
    _, _, outcome = play(keys, page, OURS)
    assert outcome == OURS


@pytest.mark.parametrize("status", [200, 403, 404, 410])
def test_nor_of_a_server_that_is_not_known_yet(status: int) -> None:
    keys = Keys()
    _, _, outcome = play(keys, *[Answer(status, HTML, b"<h1>sorry</h1>")] * ATTEMPTS)
    assert isinstance(outcome, APIConnectionError)
    play(keys, Answer(200, JSON, b"{}"))
    assert keys.features is None, "it did not say who it is"


def test_an_inngest_server_is_known_by_its_kind() -> None:
    keys = Keys()
    assert play(keys, INNGEST)[2] == INNGEST
    assert keys.features == frozenset()
    refused = Answer(404, {"x-inngest-server-kind": "cloud", "content-type": "text/plain"}, b"no")
    assert isinstance(play(keys, refused)[2], APIStatusError)
    assert play(keys, OURS)[2] == OURS
    assert keys.supports("leases")


def test_without_a_key_there_is_no_authorization() -> None:
    calls, _, _ = play(Keys(), answer(200))
    assert calls[0].headers == {}


def test_keys_do_not_show() -> None:
    assert PRIMARY not in repr(Keys(PRIMARY))
    calls, _, _ = play(Keys(PRIMARY), answer(200))
    assert calls[0].headers["authorization"][len("Bearer ") :] not in repr(calls[0])


@pytest.mark.parametrize("attempt", range(1, 60, 7))
def test_pauses_double_up_to_a_cap(attempt: int) -> None:
    full = min(MAX_PAUSE, 0.1 * 2 ** (attempt - 1))
    assert full / 2 <= backoff(attempt, random.Random(attempt)) <= full

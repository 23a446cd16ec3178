"""The real TypeScript SDK against `stephttp dev`.

What is expected is what the real server does with it (docs/protocol.md, and the recorded traffic),
except where docs/differences.md says otherwise. J and a number: docs/protocol.md 11.2.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.processes import eventually, serving

from .conftest import Peer


def unfolded(response: httpx2.Response) -> object:
    """The handler's own JSON: after going async it comes encoded a second time (J2)."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.json())


def test_a_request_that_never_waits(peer: Peer) -> None:
    response = peer.get("/sync")
    assert response.status_code == 201
    assert response.json() == {"a": {"x": 1}, "b": "two"}
    assert response.headers["x-mine"] == "yes"
    assert peer.counts() == {"handler": 1, "a": 1, "b": 1}


def test_scores_of_a_request_that_never_waits(peer: Peer) -> None:
    """The first of them comes long before the run is reported."""
    response = peer.get("/rated")
    assert (response.status_code, response.json()) == (200, {"done": True})
    expected = {None: {"early": {"value": 0.5}}, "a": {"in-step": {"value": True}}}

    def kept() -> bool:
        runs = peer.http.get(f"{peer.engine}/v1/runs", params={"endpoint": "conformance-rated"})
        found = [run["run_id"] for run in runs.json()["data"]]
        url = f"{peer.engine}/v1/runs/"
        metadata = [peer.http.get(url + one).json()["data"]["metadata"] for one in found]
        return [{one["step"]: one["values"] for one in some} for some in metadata] == [expected]

    eventually(kept)


def test_a_request_without_steps(peer: Peer) -> None:
    assert peer.get("/none").json() == {"none": True}


def test_several_steps_after_a_sleep(peer: Peer) -> None:
    response = peer.outcome("/sleep")
    assert unfolded(response) == {"s": "helloworld!"}
    # One re-entry a step and one for the end, beside the first request (app 1 to 4).
    assert peer.counts() == {"handler": 4, "a": 1, "b": 1, "c": 1}
    assert peer.run(response)["status"] == "Completed"


def test_a_handler_that_returns_plain_data(peer: Peer) -> None:
    response = peer.outcome("/plain")
    assert response.json() == {"s": "plain"}


def test_promise_all(peer: Peer) -> None:
    assert unfolded(peer.outcome("/parallel")) == [1, 2, None, "after"]
    steps = peer.counts()
    del steps["handler"]
    assert steps == {"p1": 1, "p2": 1, "after": 1}


def test_promise_all_of_chains_after_a_sleep(peer: Peer) -> None:
    assert unfolded(peer.outcome("/chains")) == [["c1", "c2"], ["d1", "d2"]]
    steps = peer.counts()
    del steps["handler"]
    assert steps == {"c1": 1, "c2": 1, "d1": 1, "d2": 1}


def test_planned_steps_run_at_the_same_time(peer: Peer) -> None:
    assert unfolded(peer.outcome("/together")) == ["left", "right"]


def test_planned_steps_are_retried_each_on_its_own(peer: Peer) -> None:
    assert unfolded(peer.outcome("/parallel-flaky")) == ["good", "after 3", "always"]
    steps = peer.counts()
    del steps["handler"]
    assert steps == {"good": 1, "flaky": 3, "bad": 3}


def test_a_race_does_not_wait_for_the_loser(peer: Peer) -> None:
    assert unfolded(peer.outcome("/race")) == {"winner": "fast", "after": "after"}
    steps = peer.counts()
    del steps["handler"]
    assert steps == {"fast": 1, "slow": 1, "after": 1}


def test_a_step_that_fails_then_works(peer: Peer) -> None:
    assert unfolded(peer.outcome("/flaky")) == {"times": 3}
    assert peer.counts()["flaky"] == 3


def test_a_step_that_fails_for_good_and_is_caught(peer: Peer) -> None:
    assert unfolded(peer.outcome("/caught")) == {"name": "Error", "m": "always"}
    assert peer.counts()["bad"] == 3


def test_a_step_that_must_not_be_retried_is_met_by_the_handler(peer: Peer) -> None:
    """The SDK reports it with its first checkpoint, and leaves the handler."""
    found = unfolded(peer.outcome("/fatal-step", caught=""))
    assert found == {"name": "NonRetriableError", "m": "never again"}
    assert peer.counts()["bad"] == 1


def test_a_step_that_must_not_be_retried_ends_its_run(peer: Peer) -> None:
    response = peer.outcome("/fatal-step")
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "never again"
    assert peer.counts()["bad"] == 1
    assert peer.run(response)["status"] == "Failed"


def test_a_handler_that_throws(peer: Peer) -> None:
    response = peer.outcome("/throws")
    # The real server never ends such a run (S3).
    assert response.status_code == 500
    assert response.json() == {
        "error": {"name": "Error", "message": "handler exploded"},
        "status": 500,
    }
    assert peer.counts() == {"handler": 3, "a": 1}
    assert peer.run(response)["status"] == "Failed"


def test_a_handler_that_throws_once(peer: Peer) -> None:
    assert unfolded(peer.outcome("/throws-once")) == {"handler": "well again"}
    assert peer.counts() == {"handler": 2, "a": 1}


def test_a_handler_that_must_not_be_retried(peer: Peer) -> None:
    response = peer.get("/fatal")
    assert response.status_code == 400
    assert response.json()["message"] == "never again"
    assert peer.counts() == {"handler": 1}


def test_a_handler_that_must_not_be_retried_after_a_sleep(peer: Peer) -> None:
    response = peer.outcome("/fatal-later")
    assert response.status_code == 500
    assert response.json()["error"] == {"name": "NonRetriableError", "message": "never again"}
    assert peer.counts() == {"handler": 2}


@pytest.mark.parametrize(
    "body",
    ["", '{ "b":2, "a":1}', "not JSON at all", "aGVsbG8="],
    ids=["none", "json", "text", "b64"],
)
def test_any_body_can_be_posted(peer: Peer, body: str) -> None:
    """The real server refuses text that is no base64, and the caller gets 500 (J1)."""
    response = peer.http.post(f"{peer.app}/sync?key={peer.key}", content=body)
    assert response.status_code == 201, response.text


def test_a_posted_body_is_there_after_a_sleep(peer: Peer) -> None:
    response = peer.http.post(f"{peer.app}/sleep?key={peer.key}", content='{ "b":2, "a":1}')
    assert response.status_code == 302
    assert unfolded(peer.http.get(response.headers["location"])) == {"s": "helloworld!"}


def test_token_response(peer: Peer) -> None:
    response = peer.get("/token")
    assert response.status_code == 200
    told = response.json()
    assert set(told) - {"result_url"} == {"run_id", "token"}  # an extra of this SDK
    answer = peer.http.get(
        f"{peer.engine}/v1/http/runs/{told['run_id']}/output", params={"token": told["token"]}
    )
    assert unfolded(answer) == {"s": "hello"}


def test_redirect_to_a_path_of_the_app_which_proxies(peer: Peer) -> None:
    response = peer.get("/redirect-path")
    assert response.status_code == 302
    location = httpx2.URL(response.headers["location"])
    assert str(location).startswith(f"{peer.app}/poll?runId=")
    assert peer.http.get(location).json() == {"s": "hello"}


def test_redirect_url_by_a_function(peer: Peer) -> None:
    response = peer.get("/redirect-function")
    assert response.status_code == 302
    location = httpx2.URL(response.headers["location"])
    assert location.host == "wait.example.com"
    answer = peer.http.get(
        f"{peer.engine}/v1/http/runs{location.path}/output", params={"token": location.params["t"]}
    )
    assert unfolded(answer) == {"s": "hello"}


def test_an_event_that_is_waited_for(peer: Peer) -> None:
    response = peer.get("/wait")
    assert response.status_code == 302
    for key in (f"not {peer.key}", peer.key):
        event = {"name": "conformance/go", "data": {"key": key, "n": 1}}
        sent = peer.http.post(f"{peer.engine}/e/any", json=event)
        assert sent.status_code == 200, sent.text
        assert len(sent.json()["ids"]) == 1
    answer = unfolded(peer.http.get(response.headers["location"]))
    assert answer == {"event": {"name": "conformance/go", "data": {"key": peer.key, "n": 1}}}


def test_an_event_that_does_not_come(peer: Peer) -> None:
    assert unfolded(peer.outcome("/wait", timeout="1s")) == {"event": None}


def test_an_event_is_waited_for_beside_a_step(peer: Peer) -> None:
    assert unfolded(peer.outcome("/wait-beside")) == {"event": None, "value": "done"}
    assert peer.counts()["beside"] == 1


def test_an_event_sent_by_a_step(peer: Peer) -> None:
    answer = peer.get("/send")
    assert answer.status_code == 200
    (event_id,) = answer.json()["ids"]
    event = peer.http.get(f"{peer.engine}/v1/events/{event_id}").json()["data"]
    assert (event["name"], event["data"]) == ("conformance/sent", {"key": peer.key})


def test_an_event_sent_by_a_step_after_a_sleep_ends_a_wait(peer: Peer) -> None:
    waiting = peer.get("/wait", key=f"{peer.key}-other")
    assert unfolded(peer.outcome("/send-later")) == "sent"
    answer = unfolded(peer.http.get(waiting.headers["location"]))
    assert isinstance(answer, dict)
    assert answer["event"]["data"] == {"key": f"{peer.key}-other"}


def test_a_signal(peer: Peer) -> None:
    response = peer.get("/signal")
    assert response.status_code == 302
    told = {"signal": peer.key, "data": {"n": 1}}
    sent = peer.http.post(f"{peer.engine}/v1/signals", json=told)
    assert sent.status_code == 200, sent.text
    assert unfolded(peer.http.get(response.headers["location"])) == {"signal": told}


def test_a_signal_that_does_not_come(peer: Peer) -> None:
    assert unfolded(peer.outcome("/signal", timeout="1s")) == {"signal": None}


def test_another_endpoint_invoked(peer: Peer) -> None:
    # The engine knows an endpoint from its first request on.
    assert peer.get("/target").json()["a"] == "invoked"
    answer = unfolded(peer.outcome("/invoke", function="target"))
    assert isinstance(answer, dict)
    assert answer["result"] is not None
    assert peer.last_run("conformance-target")["status"] == "Completed"


def test_another_endpoint_invoked_that_fails(peer: Peer) -> None:
    assert peer.outcome("/target-fails").status_code == 500
    answer = unfolded(peer.outcome("/invoke", function="target-fails"))
    assert answer == {"error": "never again"}


def test_an_unknown_function_invoked(peer: Peer) -> None:
    answer = unfolded(peer.outcome("/invoke", function="nobody"))
    assert isinstance(answer, dict)
    assert answer["error"].startswith("could not find function with ID: conformance-nobody")


class Stub(BaseHTTPRequestHandler):
    """What gateway steps talk to: an echo, and a provider of AI that knows one model."""

    def do_PUT(self) -> None:
        told = {"body": self._body(), "mine": self.headers["x-mine"], "path": self.path}
        self._answer(418, told)

    def do_POST(self) -> None:
        request = json.loads(self._body())
        if self.path != "/v1/chat/completions" or request["model"] != "known":
            self._answer(429, {"error": {"message": "slow down"}})
            return
        told = {"auth": self.headers["authorization"], "messages": request["messages"]}
        self._answer(200, {"choices": [told]})

    def _body(self) -> str:
        return self.rfile.read(int(self.headers["content-length"])).decode()

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def stub() -> Generator[str]:
    with serving(Stub) as url:
        yield url


def test_a_fetch_by_the_engine(peer: Peer, stub: str) -> None:
    answer = unfolded(peer.outcome("/fetch", url=f"{stub}/x?y=1"))
    assert isinstance(answer, dict)
    assert answer["status"] == 418
    assert json.loads(answer["body"]) == {"body": "text", "mine": "yes", "path": "/x?y=1"}


def test_a_fetch_that_reaches_nobody(peer: Peer) -> None:
    answer = unfolded(peer.outcome("/fetch-fails", url="http://127.0.0.1:9/"))
    assert isinstance(answer, dict)
    assert answer["message"].startswith("Error making gateway request: ")


def test_a_question_to_an_ai(peer: Peer, stub: str) -> None:
    answer = unfolded(peer.outcome("/infer", url=f"{stub}/v1/", model="known"))
    messages = [{"role": "user", "content": "hi"}]
    assert answer == {"choices": [{"auth": "Bearer sk-test", "messages": messages}]}


def test_a_question_that_an_ai_refuses(peer: Peer, stub: str) -> None:
    answer = unfolded(peer.outcome("/infer", url=f"{stub}/v1/", model="other"))
    assert answer == {"error": "Error making AI request: unsuccessful status code: 429"}


def script(app: Path, name: str, *arguments: str, **environment: str) -> Any:
    """What a script beside the app prints, as JSON."""
    said = subprocess.run(
        ["node", "--experimental-websocket", str(app / name), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )
    return json.loads(said.stdout)


def test_messages_are_published_and_heard(peer: Peer, typescript_app: Path) -> None:
    """With the SDK's own token, websocket and publishing."""
    heard = script(typescript_app, "subscribe.mjs", INNGEST_DEV=peer.engine)
    message = {"channel": "orders", "topic": "paid", "kind": "data"}
    assert heard == [{**message, "data": {"amount": 7}}, {**message, "data": "text"}]


def test_a_stream_goes_on_after_a_sleep(peer: Peer, typescript_app: Path) -> None:
    """With the SDK's own streaming client, which follows the redirect by itself (J10)."""
    told = script(typescript_app, "follow.mjs", f"{peer.app}/stream?key={peer.key}")
    assert told["status"] == 202
    assert told["body"] == '{"a":1,"b":2}'
    # What is pushed outside steps is sent again by later re-entries, how often is not for sure.
    assert told["data"][0] == "p1"
    assert told["data"][-1] == "p2"
    assert set(told["data"]) == {"p1", "p2"}


def test_one_who_comes_late_to_a_stream_gets_it_and_its_end(
    peer: Peer, typescript_app: Path
) -> None:
    """With the handler's own status, which only the stream has."""
    url = f"{peer.app}/stream?key={peer.key}"
    (told,) = script(typescript_app, "follow_many.mjs", url, "1", "0")
    assert (told["status"], told["body"]) == (202, '{"a":1,"b":2}')
    late = told["late"]
    assert (late["status"], late["body"]) == (202, '{"a":1,"b":2}')
    assert late["data"][-1] == "p2"


def test_a_stream_of_a_run_that_fails_ends(peer: Peer, typescript_app: Path) -> None:
    """The SDK sends no end then (J11), so the engine does."""
    told = script(typescript_app, "follow.mjs", f"{peer.app}/stream-fails?key={peer.key}")
    assert told["status"] == 500
    assert json.loads(told["body"]) == {"name": "Error", "message": "too bad"}

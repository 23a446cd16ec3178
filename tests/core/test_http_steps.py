"""Requests that a server makes: exactly what it is asked for, and what is refused."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from stephttp import FetchResponse, ModelAdapter
from stephttp._core.endpoint_options import FnOpts
from stephttp._core.http_steps import fetch, gateway_opts, infer, keyed
from stephttp._core.retry_policy import RetryPolicy
from stephttp._core.waits import Wait
from stephttp._wire.opcodes import OpCode

URL = "https://x.test/a"
POLICY = RetryPolicy(retries=1)


def plain_opts(wait: Wait) -> Any:
    return {
        name: json.loads(bytes(value)) if isinstance(value, Raw) else value
        for name, value in wait.opts.items()
    }


@pytest.mark.parametrize(
    ("given", "opts"),
    [
        ((URL, "get", None, None), {"url": URL, "method": "GET"}),
        ((URL, "Purge", {}, None), {"url": URL, "method": "PURGE"}),
        (
            ("http://[::1]:1/ä?b#c", "PUT", {"A": "é", "b": ""}, ""),
            {
                "url": "http://[::1]:1/ä?b#c",
                "method": "PUT",
                "headers": {"A": "é", "b": ""},
                "body": "",
            },
        ),
        (
            (URL, "POST", {"Tab": "a\tb"}, '{"a":1}'),
            {"url": URL, "method": "POST", "headers": {"Tab": "a\tb"}, "body": '{"a":1}'},
        ),
    ],
)
def test_what_a_fetch_asks_for(given: Any, opts: dict[str, Any]) -> None:
    wait = fetch("s", *given)
    assert (wait.step_id, wait.op, wait.name, wait.result) == (
        "s", OpCode.GATEWAY, "s", FetchResponse
    )  # fmt: skip
    assert wait.opts == opts
    assert wait.policy is None


def test_a_fetch_has_the_policy_of_its_step() -> None:
    assert fetch("s", URL, "GET", None, None, POLICY).policy is POLICY


def test_a_body_that_is_not_json_arrives_otherwise_from_another_server() -> None:
    def why(body: str | None) -> str | None:
        wait = fetch("s", URL, "POST", None, body)
        return None if wait.only_ours is None else wait.only_ours(lambda _: False)

    assert why(None) is None
    assert [why(body) for body in ('{"a":[1]}', "7", '"x"', "null")] == [""] * 4
    for body in ("", "text", "{", "[" * 100_000):
        assert str(why(body)).startswith("body: an Inngest server sends only JSON as it is, and")


class Adapter:
    """All that an adapter says, of a class of the user's."""

    def __init__(self, **said: Any) -> None:
        self.said: dict[str, Any] = {"url": URL, "key": "sk", "headers": {"A": "b"}} | said

    def auth_key(self) -> str:
        key: str = self.said["key"]
        return key

    def format(self) -> str:
        return "anthropic"

    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = self.said["headers"]
        return headers

    def on_call(self, body: dict[str, Any]) -> None:
        body["model"] = "m"

    def url_infer(self) -> str:
        url: str = self.said["url"]
        return url


def test_what_an_inference_asks_for() -> None:
    body = {"max_tokens": 5}
    wait = infer("s", Adapter(), body, dict[str, int], POLICY)
    assert (wait.step_id, wait.op, wait.name) == ("s", OpCode.AI_GATEWAY, "s")
    assert (wait.result, wait.policy) == (dict[str, int], POLICY)
    assert infer("s", Adapter(), {}).result is Any
    assert infer("s", Adapter(), {}).policy is None
    assert plain_opts(wait) == {
        "type": "step.ai.infer",
        "url": URL,
        "headers": {"A": "b"},
        "auth_key": "sk",
        "format": "anthropic",
        "body": {"max_tokens": 5, "model": "m"},
    }
    assert body == {"max_tokens": 5}, "the adapter completes another one"


def test_an_adapter_for_any_provider() -> None:
    adapter = ModelAdapter(url=URL)
    assert (adapter.url_infer(), adapter.auth_key(), adapter.format(), adapter.headers()) == (
        URL, "", "openai-chat", {}
    )  # fmt: skip
    given = {"A": "b"}
    adapter = ModelAdapter(url=URL, auth_key="sk", format="gemini", model="m", headers=given)
    assert (adapter.auth_key(), adapter.format(), adapter.headers()) == ("sk", "gemini", given)
    given["A"] = adapter.headers()["A"] = "changed"
    assert adapter.headers() == {"A": "b"}
    assert repr(adapter) == f"<ModelAdapter gemini {URL}>"
    for model, body, completed in (
        ("m", {}, {"model": "m"}),
        ("m", {"model": "mine"}, {"model": "mine"}),
        (None, {}, {}),
    ):
        ModelAdapter(url=URL, model=model).on_call(body)
        assert body == completed


def ask(url: Any = URL, method: Any = "GET", headers: Any = None, body: Any = None) -> Wait:
    return fetch("s", url, method, headers, body)


def call(body: Any = None, **said: Any) -> Wait:
    return infer("s", Adapter(**said), {} if body is None else body)


ADDRESS = "is not an http(s) address"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ask(""), ValueError, "url must not be empty"),
        (lambda: ask(7), TypeError, "url must be text, not 7"),
        (lambda: ask("/a"), ValueError, f"url: '/a' {ADDRESS}"),
        (lambda: ask("ftp://x.test"), ValueError, f"url: 'ftp://x.test' {ADDRESS}"),
        (lambda: ask("http://"), ValueError, f"url: 'http://' {ADDRESS}"),
        (lambda: ask("http://:80/"), ValueError, f"url: 'http://:80/' {ADDRESS}"),
        (lambda: ask("http://x:y/"), ValueError, f"url: 'http://x:y/' {ADDRESS}"),
        (lambda: ask("http://[::1/"), ValueError, f"url: 'http://[::1/' {ADDRESS}"),
        (lambda: ask("http://x/\x7f"), ValueError, f"url: 'http://x/\\x7f' {ADDRESS}"),
        (lambda: ask("http://x/\n"), ValueError, f"url: 'http://x/\\n' {ADDRESS}"),
        (lambda: ask("ftp://me:pw@x/"), ValueError, f"url: 'ftp://x/' {ADDRESS}"),
        (lambda: ask(method=""), ValueError, "method must not be empty"),
        (lambda: ask(method=None), TypeError, "method must be text, not None"),
        (lambda: ask(method="a b"), ValueError, "method: 'a b' is not an HTTP method"),
        (lambda: ask(headers={"a b": "c"}), ValueError, "headers['a b']: not the name of a header"),
        (lambda: ask(headers={7: "c"}), ValueError, "headers[7]: not the name of a header"),
        (lambda: ask(headers={"a": 7}), TypeError, "headers['a'] must be text, not int"),
        (lambda: ask(headers={"a": "€"}), ValueError, "headers['a'] must be Latin-1"),
        (
            lambda: ask(headers={"a": "b\r\nc"}),
            ValueError,
            "headers['a'] must not hold control characters",
        ),
        (lambda: ask(body=b"x"), TypeError, "body must be text, not b'x'"),
        (lambda: ask(body="\ud800"), ValueError, "body must be valid Unicode"),
        (lambda: ask(body="x" * 2**22), ValueError, "body has 4194306 bytes as JSON; at most"),
        (lambda: call(url="/a"), ValueError, f"adapter.url_infer(): '/a' {ADDRESS}"),
        (
            lambda: call(headers={"": "a"}),
            ValueError,
            "adapter.headers()['']: not the name of a header",
        ),
        (lambda: call(key=None), TypeError, "adapter.auth_key() must be text, not NoneType"),
        (lambda: call(key="a\nb"), ValueError, "adapter.auth_key() must not hold control"),
        (lambda: call({"a": object()}), ValueError, "body cannot be sent as JSON"),
    ],
)
def test_what_is_refused_names_step_and_argument(
    make: Callable[[], Wait], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^step 's': {re.escape(message)}"):
        make()


@pytest.mark.parametrize(
    ("opts", "headers"),
    [
        ({"method": "POST"}, {"Idempotency-Key": "K"}),
        ({"method": "PATCH", "headers": {"a": "b"}}, {"a": "b", "Idempotency-Key": "K"}),
        ({"method": "PATCH", "headers": None}, {"Idempotency-Key": "K"}),
        ({"method": "PUT", "headers": {"IDEMPOTENCY-key": "mine"}}, {"IDEMPOTENCY-key": "mine"}),
        ({"method": "POST", "headers": {7: "x"}}, {7: "x", "Idempotency-Key": "K"}),
        # What middleware may leave.
        ({"method": "POST", "headers": "sealed"}, "sealed"),
        ({"method": "POST", "headers": ["sealed"]}, ["sealed"]),
        *(({"method": name, "headers": {}}, {}) for name in ("GET", "HEAD", "OPTIONS", "TRACE")),
        ({}, None),
    ],
)
def test_a_request_that_may_change_something_has_a_key(opts: dict[str, Any], headers: Any) -> None:
    before = dict(opts)
    assert keyed(opts, "K") == ({**opts, "headers": headers} if headers is not None else opts)
    assert opts == before


MINUTE = timedelta(minutes=1)
PAUSES = {"delay": "1m", "max_delay": "2m"}
PATIENT = RetryPolicy(delay=MINUTE, max_delay=2 * MINUTE)


@pytest.mark.parametrize(
    ("own", "endpoint", "retries", "tells", "told"),
    [
        (None, FnOpts(), 0, False, {}),
        (None, FnOpts(), 0, True, {"retries": 0}),
        (None, FnOpts(), 3, False, {"retries": 3}),
        (None, FnOpts(retries=2), 3, False, {"retries": 2}),
        (None, FnOpts(retries=0), 3, False, {}),
        (POLICY, FnOpts(retries=2), 3, False, {"retries": 1}),
        (RetryPolicy(retries=0), FnOpts(retries=2), 3, True, {"retries": 0}),
        (PATIENT, FnOpts(), 0, False, {}),
        (PATIENT, FnOpts(retries=2), 0, False, {"retries": 2, **PAUSES}),
        (POLICY, FnOpts(delay=MINUTE, max_delay=2 * MINUTE), 0, False, {"retries": 1, **PAUSES}),
    ],
)
def test_how_often_a_request_is_repeated(
    own: RetryPolicy | None, endpoint: FnOpts, retries: int, tells: bool, told: Mapping[str, Any]
) -> None:
    wait = fetch("s", URL, "POST", {"a": "b"}, None, own)
    assert gateway_opts(wait, "K", endpoint, retries, tells_retries=tells) == {
        "url": URL,
        "method": "POST",
        "headers": {"a": "b", "Idempotency-Key": "K"},
        **told,
    }
    assert "retries" not in wait.opts

"""The engine's signature covers all that decides what its call of an endpoint does."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._wire import call_signatures
from stephttp._wire.call_signatures import (
    SIGNATURE,
    request_target,
    sign_call,
    verify_any,
    verify_call,
)
from stephttp._wire.signatures import TOLERANCE, sign

KEY, OTHER = "signkey-test-" + "ab" * 16, "cd" * 16
NOW = 1_795_352_757
RUN = b"01M81KWY2JTNRXZTV817ZB746V"
CALL: dict[str, Any] = {
    "method": "POST",
    "target": "/orders/7?a=1",
    "headers": [
        (b"content-type", b"application/json"),
        (b"x-inngest-generation-id", b"2"),
        (b"x-inngest-job-id", b"job"),
        (b"x-run-id", RUN),
        (b"x-stephttp-attempt", b"1"),
        (b"x-stephttp-state", b"2"),
    ],
    "body": b'{"b": 2}{}',
}
SIGNED = sign_call(KEY, NOW, **CALL)


def verified(call: dict[str, Any], signature: str = SIGNED, now: float = NOW) -> bool:
    return verify_call(signature, [OTHER, KEY], now, **call)


def header(name: bytes, value: bytes) -> Callable[[dict[str, Any]], Any]:
    return lambda call: [*(pair for pair in call["headers"] if pair[0] != name), (name, value)]


def test_a_call_as_it_was_sent_is_right() -> None:
    assert verified(CALL)
    assert verify_call(SIGNED, ["ab" * 16], NOW, **CALL), "the prefix of a key is not part of it"


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("method", lambda _: "PUT"),
        ("target", lambda _: "/orders/8?a=1"),
        ("target", lambda _: "/orders/7?a=2"),
        ("target", lambda _: "/orders/7"),
        ("target", lambda _: "/orders%2F7?a=1"),
        ("body", lambda call: call["body"] + b" "),
        ("body", lambda _: b""),
        ("headers", header(b"x-run-id", b"01M81KWY4BC292NS2P7Q9MNAN7")),
        ("headers", header(b"x-inngest-job-id", b"job-2")),
        ("headers", header(b"x-inngest-generation-id", b"3")),
        ("headers", header(b"x-inngest-step-id", b"a" * 40)),
        ("headers", header(b"x-inngest-force-step-plan", b"true")),
        ("headers", header(b"x-stephttp-attempt", b"0")),
        ("headers", header(b"x-stephttp-state", b"1")),
        ("headers", header(b"x-stephttp-failures", b"a=9")),
        ("headers", header(b"x-stephttp-features", b"pending")),
        ("headers", lambda call: [*call["headers"], (b"x-run-id", RUN)]),
        ("headers", lambda call: call["headers"][:-1]),
    ],
)
def test_nothing_that_steers_a_call_can_be_changed(
    part: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    assert not verified({**CALL, part: change(CALL)})


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("headers", lambda call: call["headers"][::-1]),
        ("headers", header(b"x-forwarded-for", b"10.0.0.1")),
        ("headers", header(b"x-request-id", b"a proxy's own")),
        ("headers", header(b"x-inngest-signature", b"another")),
        ("headers", header(SIGNATURE.encode(), b"itself")),
        ("headers", header(b"x-run-id", b" " + RUN + b" ")),
        ("target", lambda _: "/%6frders/7?a=1"),
        ("method", lambda _: "post"),
    ],
)
def test_what_proxies_do_to_any_request_changes_nothing(
    part: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    assert verified({**CALL, part: change(CALL)})


def test_it_holds_for_a_time_and_for_the_keys_that_are_known() -> None:
    assert verified(CALL, now=NOW + TOLERANCE)
    assert not verified(CALL, now=NOW + TOLERANCE + 1)
    assert not verified(CALL, now=NOW - TOLERANCE - 1)
    assert not verify_call(SIGNED, [OTHER], NOW, **CALL)
    assert not verify_call(SIGNED, [], NOW, **CALL)


@pytest.mark.parametrize("text", ["", "t=1", "t=1&s=" + "a" * 64, "ü", SIGNED + "0", SIGNED[:-1]])
def test_a_malformed_signature_is_simply_wrong(text: str) -> None:
    assert not verified(CALL, text)


def test_the_body_is_read_once_and_only_where_the_signature_may_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def counted(data: bytes) -> Any:
        sizes.append(len(data))
        return sha256(data)

    monkeypatch.setattr(call_signatures, "sha256", counted)
    body = bytes(1000)
    signed = sign_call(KEY, NOW, **{**CALL, "body": body})
    others = {**CALL, "body": body}
    targets = ["/a", "/b", others.pop("target")]
    for signature, now, holds in [(signed, NOW, True), ("x", NOW, False), (signed, 0, False)]:
        sizes.clear()
        assert verify_any(signature, [OTHER, KEY], now, targets=targets, **others) is holds
        assert [size for size in sizes if size >= len(body)] == [len(body)] * holds


def test_nothing_else_that_the_key_signs_passes_for_it() -> None:
    """A caller chooses the body of a request, which the engine then signs."""
    call: dict[str, Any] = {"method": "GET", "target": "/", "headers": [], "body": b""}
    assert not verified(call, sign(KEY, b"GET /\n\n", NOW))
    assert verified(call, sign_call(KEY, NOW, **call))


parts = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.text("ab/?%\n ", max_size=6),
    st.lists(st.tuples(st.just(b"x-inngest-a"), st.sampled_from([b"", b"1", b"1:2"])), max_size=2),
    st.sampled_from([b"", b"x-inngest-a:1\n", b"\n", b"1"]),
)


@given(parts, parts)
def test_two_calls_that_differ_never_have_the_same_signature(one: Any, other: Any) -> None:
    def call(drawn: Any) -> dict[str, Any]:
        method, path, headers, body = drawn
        target = request_target(path, "")
        return {"method": method, "target": target, "headers": headers, "body": body}

    first, second = call(one), call(other)
    same = {**first, "headers": sorted(first["headers"])} == {
        **second,
        "headers": sorted(second["headers"]),
    }
    assert verified(second, sign_call(KEY, NOW, **first)) is same


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        ("", "", "/"),
        ("/a", "b=1", "/a?b=1"),
        ("a", "", "/a"),
        ("/a b/ü", 'q="x"&p={y}', "/a%20b/%C3%BC?q=%22x%22&p=%7By%7D"),
        ("/a%2fb", "c[]=1|2", "/a%2fb?c[]=1|2"),
    ],
)
def test_the_target_is_what_was_received(path: str, query: str, target: str) -> None:
    assert request_target(path, query) == target
    assert request_target(*target.partition("?")[::2]) == target, "the same when it comes again"

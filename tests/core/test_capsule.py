import pytest

from stephttp._wire import capsule
from stephttp._wire.http import Request
from stephttp._wire.json import encode_struct


def test_what_is_allowed_comes_back_and_the_servers_own_headers_go() -> None:
    headers = [(b"authorization", b"Bearer t"), (b"x-secret", b"1"), (b"cookie", b"\xe9=1")]
    original = Request("POST", "/", "", headers, client=("10.0.0.1", 5), scheme="https")
    packed = capsule.pack(original, {b"authorization", b"cookie"}, keep_open=True)
    reentry = Request(
        "POST",
        "/",
        "",
        [(b"user-agent", b"Inngest"), (b"x-run-id", b"R"), (b"content-length", b"2")],
    )
    capsule.restore(reentry, capsule.unpack(encode_struct(packed), "run"))
    assert reentry.headers == [
        (b"authorization", b"Bearer t"),
        (b"cookie", b"\xe9=1"),
        (b"content-length", b"2"),
    ]
    assert (reentry.client, reentry.scheme) == (("10.0.0.1", 5), "https")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "QUERY"])
def test_the_method_comes_back(method: str) -> None:
    packed = capsule.pack(Request(method, "/", "", []), ())
    reentry = Request("POST", "/", "", [])
    capsule.restore(reentry, capsule.unpack(encode_struct(packed), "run"))
    assert reentry.method == method


def test_a_capsule_of_an_earlier_release_leaves_the_method_as_it_came() -> None:
    reentry = Request("PATCH", "/", "", [])
    capsule.restore(reentry, capsule.unpack(b'{"headers":[]}', "run"))
    assert reentry.method == "PATCH"


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="stored request"):
        capsule.unpack(b'{"headers": 3}', "run")


def test_secrets_and_unknown_headers_travel_sealed_only() -> None:
    headers = [(b"accept", b"a"), (b"cookie", b"c=1"), (b"x-tenant", b"t")]
    original = Request("POST", "/", "", headers, body=b"hidden")
    allowed = {b"accept", b"cookie", b"x-tenant"}
    packed = capsule.pack(
        original, allowed, seal=lambda text: text[::-1], hidden_body=b"hidden", failing=["h"]
    )
    stored = encode_struct(packed)
    for secret in (b"c=1", b"x-tenant", b"hidden"):
        assert secret not in stored
    reentry = Request("POST", "/", "", [(b"content-length", b"0")])
    opened = capsule.unpack(stored, "run", lambda _: lambda text: text[::-1])
    capsule.restore(reentry, opened)
    assert reentry.headers == [*headers, (b"content-length", b"6")]
    assert (reentry.body, opened.failing) == (b"hidden", ["h"])
    with pytest.raises(ValueError, match="no key"):
        capsule.unpack(stored, "run")
    bare = capsule.pack(original, allowed)
    assert (bare.headers, bare.sealed, bare.secrets) == ([("accept", "a")], None, None)

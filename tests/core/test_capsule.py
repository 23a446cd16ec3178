import pytest

from stephttp._core import capsule
from stephttp._core.codec import encode_struct
from stephttp._core.messages import Request


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
    capsule.restore(reentry, capsule.unpack(encode_struct(packed)))
    assert reentry.headers == [
        (b"authorization", b"Bearer t"),
        (b"cookie", b"\xe9=1"),
        (b"content-length", b"2"),
    ]
    assert (reentry.client, reentry.scheme) == (("10.0.0.1", 5), "https")


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="stored request"):
        capsule.unpack(b'{"headers": 3}')

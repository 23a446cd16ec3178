"""Nothing that a caller sends decides where a signed request goes."""

from typing import Any

import pytest

from stephttp._run.checkpoints import caller_of, origin_of
from stephttp._wire.http import Request
from stephttp.options import resolve

DEV: Any = {"environ": {"INNGEST_DEV": "1"}}
PROXIED: Any = {**DEV, "trusted_proxies": ["10.0.0.0/8", "::1"]}
FORWARDED = {"x-forwarded-host": "shop.test", "x-forwarded-proto": "https"}


def request(headers: dict[str, str], client: str = "10.1.2.3") -> Request:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request("GET", "/", "", pairs, client=(client, 1))


@pytest.mark.parametrize(
    ("options", "headers", "client", "origin"),
    [
        ({"environ": {}}, {"host": "evil.test", **FORWARDED}, "10.1.2.3", "https://api.test"),
        ({"environ": {}, "trusted_proxies": ["10.0.0.0/8"]}, FORWARDED, "10.1.2.3",
         "https://api.test"),
        (DEV, {"host": "localhost:8000"}, "127.0.0.1", "http://localhost:8000"),
        (DEV, {"host": "[::1]:8000"}, "::1", "http://[::1]:8000"),
        (DEV, {"host": "localhost", **FORWARDED}, "10.1.2.3", "http://localhost"),
        (PROXIED, {"host": "localhost", **FORWARDED}, "10.1.2.3", "https://shop.test"),
        (PROXIED, {"host": "localhost", **FORWARDED}, "::1", "https://shop.test"),
        (PROXIED, {"host": "localhost", **FORWARDED}, "11.1.2.3", "http://localhost"),
        (PROXIED, {"host": "localhost", "x-forwarded-host": "evil.test, shop.test"}, "10.1.2.3",
         "http://shop.test"),
        (DEV, {"host": "user@evil.test"}, "127.0.0.1", "https://api.test"),
        (DEV, {"host": "evil.test/path?"}, "127.0.0.1", "https://api.test"),
        (DEV, {}, "127.0.0.1", "https://api.test"),
        ({**DEV, "serve_origin": "http://app:1"}, {"host": "x"}, "127.0.0.1", "http://app:1"),
    ],
)  # fmt: skip
def test_origin(options: Any, headers: dict[str, str], client: str, origin: str) -> None:
    assert origin_of(request(headers, client), resolve("api.test", **options)) == origin


@pytest.mark.parametrize(
    ("forwarded", "client", "caller"),
    [
        ("1.1.1.1", "9.9.9.9", "9.9.9.9"),
        ("1.1.1.1", "10.0.0.1", "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1, 10.0.0.7", "10.0.0.1", "1.1.1.1"),
        ("", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.2", "10.0.0.1", "10.0.0.1"),
        ("<script>", "10.0.0.1", "10.0.0.1"),
    ],
)
def test_caller(forwarded: str, client: str, caller: str) -> None:
    settings = resolve("api.test", **PROXIED)
    assert caller_of(request({"x-forwarded-for": forwarded}, client), settings) == caller

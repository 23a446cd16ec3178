"""Addresses that a handler gives relative to its request, for a caller at another origin."""

import pytest

from stephttp._core.locations import absolute

SHOP = "https://shop.example:8443"


@pytest.mark.parametrize("name", [b"location", b"Content-Location"])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("/orders/7", f"{SHOP}/orders/7"),
        ("/orders/7?a=%20b#c", f"{SHOP}/orders/7?a=%20b#c"),
        ("/orders/caf\xe9", f"{SHOP}/orders/caf\xe9"),
        ("/a/../b//c", f"{SHOP}/a/../b//c"),
        ("?", f"{SHOP}/api/v1/orders?"),
        ("7", f"{SHOP}/api/v1/7"),
        ("./7?x=1", f"{SHOP}/api/v1/7?x=1"),
        ("../7", f"{SHOP}/api/7"),
        ("?page=2", f"{SHOP}/api/v1/orders?page=2"),
        ("#done", f"{SHOP}/api/v1/orders?q=%2F#done"),
        ("", f"{SHOP}/api/v1/orders?q=%2F"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("https://other.example/x", "https://other.example/x"),
        ("HTTP://other.example", "HTTP://other.example"),
        ("mailto:a@example.com", "mailto:a@example.com"),
        ("shop-app://orders/7", "shop-app://orders/7"),
        ("//[broken", "//[broken"),
    ],
)
def test_an_address_leads_to_the_application(name: bytes, given: str, wanted: str) -> None:
    headers = [(name, given.encode("latin-1")), (b"x-own", b"/as it is")]
    assert absolute(headers, SHOP, "/api/v1/orders", "q=%2F") == [
        (name, wanted.encode("latin-1")),
        (b"x-own", b"/as it is"),
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("5; url=/next", f"5; url={SHOP}/next"),
        ("0;URL='/next'", f"0;URL='{SHOP}/next'"),
        ('1.5, url = "next?x=;" ', f'1.5, url = "{SHOP}/next?x=;" '),
        ("3; /next", f"3; {SHOP}/next"),
        ("3;url=#top", f"3;url={SHOP}/orders#top"),
        ("3; url=https://other.example/", "3; url=https://other.example/"),
        ("3; url=//other.example/", "3; url=https://other.example/"),
        ("0;url='b' x='/../c'", f"0;url='{SHOP}/b' x='/../c'"),
        ("0;url='' x", "0;url='' x"),
        ("5", "5"),
        ("5;", "5;"),
        ("5; url=", "5; url="),
        ("nonsense", "nonsense"),
    ],
)
def test_a_refresh_leads_to_the_application(given: str, wanted: str) -> None:
    headers = [(b"refresh", given.encode())]
    assert absolute(headers, SHOP, "/orders", "") == [(b"refresh", wanted.encode())]


def test_other_headers_are_left_as_they_are() -> None:
    headers = [(b"link", b"</next>; rel=next"), (b"set-cookie", b"a=1; path=/")]
    assert absolute(headers, SHOP, "/", "") == headers

from typing import Any

import pytest

from stephttp.errors import ConfigurationError
from stephttp.options import CLOUD_URL, DEV_URL, resolve


@pytest.mark.parametrize(
    ("environ", "given", "url", "dev"),
    [
        ({}, None, CLOUD_URL, False),
        ({"INNGEST_DEV": "1"}, None, DEV_URL, True),
        ({"INNGEST_DEV": "http://localhost:9999"}, None, "http://localhost:9999", True),
        ({"INNGEST_DEV": "0"}, None, CLOUD_URL, False),
        ({"INNGEST_DEV": "false"}, None, CLOUD_URL, False),
        (
            {"INNGEST_BASE_URL": "https://inngest.internal/"},
            None,
            "https://inngest.internal",
            False,
        ),
        ({"INNGEST_DEV": "1", "INNGEST_BASE_URL": "http://e:1"}, None, "http://e:1", True),
        ({"INNGEST_BASE_URL": "http://e:1"}, "http://f:2", "http://f:2", False),
    ],
)
def test_where_the_server_is(
    environ: dict[str, str], given: str | None, url: str, dev: bool
) -> None:
    settings = resolve("api.example.com", base_url=given, environ=environ)
    assert (settings.base_url, settings.dev) == (url, dev)


@pytest.mark.parametrize(
    ("domain", "origin"),
    [
        ("api.example.com", "https://api.example.com"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_the_origin_of_the_api(domain: str, origin: str) -> None:
    assert resolve(domain, environ={}).domain == origin


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"domain": "https://api.example.com/v1"}, "domain"),
        ({"domain": "ftp://x"}, "domain"),
        ({"domain": ""}, "domain"),
        ({"domain": "https://x:port"}, "domain"),
        ({"domain": "https://user@x"}, "domain"),
        ({"domain": "x", "base_url": "engine:8288"}, "base_url"),
        ({"domain": "x", "signing_key": "not hex"}, "signing_key"),
        ({"domain": "x", "max_body_bytes": 0}, "max_body_bytes"),
    ],
)
def test_nonsense_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        resolve(**arguments, environ={})


def test_keys_come_from_the_environment_and_do_not_show() -> None:
    settings = resolve(
        "x",
        environ={"INNGEST_SIGNING_KEY": "aa" * 8, "INNGEST_SIGNING_KEY_FALLBACK": "bb" * 8},
    )
    assert settings.keys == ("aa" * 8, "bb" * 8)
    assert "aaaa" not in repr(settings)
    assert "bbbb" not in repr(settings)
    assert resolve("x", signing_key="", environ={"INNGEST_SIGNING_KEY": "aa"}).keys == ()


def test_secrets_are_kept_for_re_entry_in_development_only() -> None:
    assert b"authorization" in resolve("x", environ={"INNGEST_DEV": "1"}).restored_headers
    production = resolve("x", environ={}).restored_headers
    assert b"authorization" not in production
    assert b"cookie" not in production
    assert b"user-agent" in production

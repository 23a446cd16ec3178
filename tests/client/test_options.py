from typing import Any

import pytest

import stephttp
from stephttp import (
    DEFAULT_RESTORE_HEADERS,
    AsyncResponseToken,
    ConfigurationError,
    OptionalSetupOpts,
    SetupOpts,
)
from stephttp.options import CLOUD_URL, DEV_URL, resolve


@pytest.mark.parametrize(
    ("environ", "given", "url", "dev"),
    [
        ({}, None, CLOUD_URL, False),
        ({"INNGEST_DEV": "1"}, None, DEV_URL, True),
        ({"INNGEST_DEV": "http://localhost:9999"}, None, "http://localhost:9999", True),
        ({"INNGEST_DEV": "127.0.0.1:9999"}, None, "http://127.0.0.1:9999", True),
        ({"INNGEST_DEV": " engine:8288 "}, None, "http://engine:8288", True),
        ({"INNGEST_DEV": "[::1]:8288"}, None, "http://[::1]:8288", True),
        ({"INNGEST_DEV": "True"}, None, DEV_URL, True),
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


@pytest.mark.parametrize("value", ["production", "engine", "http://", "https://engine:8288/path"])
def test_a_development_that_is_neither_a_word_nor_an_address_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="INNGEST_DEV"):
        resolve("api.example.com", environ={"INNGEST_DEV": value})


def test_white_space_around_keys_is_none_of_them() -> None:
    environ = {"INNGEST_SIGNING_KEY": " abcd\n", "INNGEST_EVENT_KEY": "key\r\n"}
    settings = resolve("api.example.com", signing_key_fallback="ef01 ", environ=environ)
    assert (settings.keys, settings.event_key) == (("abcd", "ef01"), "key")


@pytest.mark.parametrize("key", ["ABCD", "ab cd", "signkey-prod-", "abc", "signkey-prod-xyz"])
def test_a_signing_key_that_could_not_sign_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="hexadecimal in lower case"):
        resolve("api.example.com", signing_key=key, environ={})


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
        ({"domain": "x", "serve_origin": "https://x/path"}, "serve_origin"),
        ({"domain": "x", "trusted_proxies": ["proxy"]}, "trusted_proxies"),
        ({"domain": "x", "trusted_proxies": "10.0.0.1/8"}, "trusted_proxies"),
        ({"domain": "x", "restore_headers": ["a b"]}, "restore_headers"),
        ({"domain": "x", "result_path": "results"}, "result_path"),
        ({"domain": "x", "result_path": "/a?b"}, "result_path"),
        ({"domain": "x", "env": "a b"}, "env"),
        ({"domain": "x", "default_async_response": AsyncResponseToken}, "default_async_response"),
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


def test_which_headers_come_back() -> None:
    assert resolve("x", environ={}).restored_headers == {
        name.encode() for name in DEFAULT_RESTORE_HEADERS
    }
    given = resolve("x", restore_headers={"X-Tenant", "cookie"}, environ={})
    assert given.restored_headers == {b"x-tenant", b"cookie"}


def test_the_environment_fills_in_what_is_not_given() -> None:
    environ = {"INNGEST_ENV": "feature-1", "INNGEST_EVENT_KEY": "event-secret"}
    settings = resolve("x", environ=environ)
    assert (settings.env, settings.event_key) == ("feature-1", "event-secret")
    assert settings.api_headers == {"x-inngest-env": "feature-1"}
    assert "event-secret" not in repr(settings)
    given = resolve("x", env="", event_key="other", environ=environ)
    assert (given.api_headers, given.event_key) == ({}, "other")


@pytest.mark.parametrize(
    ("dev", "serve_origin", "origin", "from_request"),
    [
        ("", None, "https://x", False),
        ("1", None, "https://x", True),
        ("1", "http://app:8000", "http://app:8000", False),
        ("", "app.internal", "https://app.internal", False),
    ],
)
def test_where_the_server_re_enters(
    dev: str, serve_origin: str | None, origin: str, from_request: bool
) -> None:
    settings = resolve("x", serve_origin=serve_origin, environ={"INNGEST_DEV": dev})
    assert (settings.domain, settings.origin_from_request) == (origin, from_request)
    assert settings.public_origin == "https://x", "callers come to where they ever came"


def test_nothing_secret_shows_in_options_either() -> None:
    optional = OptionalSetupOpts(signing_key="ab" * 16, signing_key_fallback="cd" * 16)
    shown = repr(SetupOpts("x", optional))
    assert "abab" not in shown
    assert "cdcd" not in shown


def test_an_option_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'retry'"):
        stephttp.setup("x", retry=1)  # type: ignore[call-arg]


def test_what_is_given_beside_setup_opts_wins() -> None:
    optional = OptionalSetupOpts(track_all_endpoints=True, signing_key="ab", base_url="http://e:1")
    given = resolve(SetupOpts("x", optional), environ={}, signing_key="cd", base_url=None)
    assert given.track_all_endpoints
    assert (given.keys, given.base_url) == (("cd",), "http://e:1")

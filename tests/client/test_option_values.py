"""How `setup` takes each value of an option: what it makes of it, or how it refuses it."""

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from stephttp import (
    AsyncResponseCustom,
    AsyncResponseToken,
    Checkpointing,
    ConfigurationError,
    OptionalSetupOpts,
    Response,
)
from stephttp.options import DEFAULT_ASYNC_RESPONSE, resolve

SECOND = timedelta(seconds=1)
RESULT = "/_stephttp/result"


def plain(_: Any) -> str:
    return ""


async def asynchronous(_: Any) -> str:
    return ""


class Plain:
    """An instance can be called, and is no function of its own."""

    def __call__(self, _: Any) -> str:
        return ""


PLAIN, CUSTOM = Plain(), AsyncResponseCustom(lambda _: Response(status=200))


@pytest.mark.parametrize(
    ("option", "value", "setting", "made"),
    [
        ("idempotency_header", None, "idempotency_header", ""),
        ("idempotency_header", "Idempotency-Key", "idempotency_header", "idempotency-key"),
        ("restore_headers", "X-Tenant", "restored_headers", {b"x-tenant"}),
        ("restore_headers", [], "restored_headers", set()),
        ("trusted_proxies", "10.0.0.1", "trusted_proxies", (ip_network("10.0.0.1/32"),)),
        (
            "trusted_proxies",
            ["10.0.0.0/8", "::1"],
            "trusted_proxies",
            (ip_network("10.0.0.0/8"), ip_network("::1/128")),
        ),
        ("result_path", None, "result_path", ""),
        ("result_path", RESULT, "result_path", RESULT),
        ("hold", SECOND, "hold", 1.0),
        ("hold", 1, "hold", 1.0),
        ("hold", 240.0, "hold", 240.0),
        ("serve_prefix", None, "serve_prefix", None),
        ("serve_prefix", "", "serve_prefix", ""),
        ("serve_prefix", "/INDEX", "serve_prefix", "/INDEX"),
        ("serve_prefix", "/v1/api//", "serve_prefix", "/v1/api"),
        ("waiting_page", None, "waiting_page", None),
        ("idempotency_scope", None, "idempotency_scope", None),
        ("idempotency_scope", plain, "idempotency_scope", plain),
        ("idempotency_scope", PLAIN, "idempotency_scope", PLAIN),
        ("default_async_response", None, "default_async_response", DEFAULT_ASYNC_RESPONSE),
        ("default_async_response", CUSTOM, "default_async_response", CUSTOM),
        (
            "default_async_response",
            AsyncResponseToken(),
            "default_async_response",
            AsyncResponseToken(),
        ),
        ("on_divergence", "warn", "on_divergence", "warn"),
        ("on_divergence", "fail", "on_divergence", "fail"),
        ("middleware", [plain, PLAIN], "middleware", (plain, PLAIN)),
        ("retries", 3, "retry_policy", {"retries": 3}),
    ],
)
def test_what_is_made_of_a_value(option: str, value: Any, setting: str, made: Any) -> None:
    given: Any = {option: value}
    found = getattr(resolve("x", environ={}, **given), setting)
    assert (found, type(found)) == (made, type(found) if isinstance(made, set) else type(made))


def test_a_page_is_for_an_api_that_serves_results() -> None:
    settings = resolve("x", environ={}, waiting_page=plain, result_path=RESULT)
    assert settings.waiting_page is plain
    with pytest.raises(ConfigurationError, match=r"^waiting_page needs result_path: "):
        resolve("x", environ={}, waiting_page=plain)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("base_url", "https://x?a=b", "base_url: 'https://x?a=b' must be an origin only"),
        ("base_url", "https://x#part", "base_url: 'https://x#part' must be an origin only"),
        ("base_url", "https://x/X", "base_url: 'https://x/X' must be an origin only"),
        ("base_url", "https://me@x", "base_url: 'https://me@x' must be an origin only"),
        ("env", "a b", "env: 'a b' must be ASCII"),
        ("idempotency_header", "", "idempotency_header: '' is not a header name"),
        ("idempotency_header", "a b", "idempotency_header: 'a b' is not a header name"),
        ("restore_headers", "a b", "restore_headers: 'a b' is not a header name"),
        ("trusted_proxies", ["::1", "x"], "trusted_proxies: 'x' is not an address or network"),
        ("hold", timedelta(milliseconds=999), "hold: datetime.timedelta(microseconds=999000) must"),
        ("hold", 241, "hold: 241 must be 1 to 240 seconds"),
        ("hold", True, "hold: True must be 1 to 240 seconds"),
        ("hold", "9", "hold: '9' must be 1 to 240 seconds"),
        ("hold", float("nan"), "hold: nan must be 1 to 240 seconds"),
        ("serve_prefix", "api", "serve_prefix: 'api' must be the beginning of a path"),
        ("serve_prefix", "/a%20b", "serve_prefix: '/a%20b' must be the beginning of a path"),
        ("waiting_page", "page.html", "waiting_page: 'page.html' is not a plain function"),
        ("waiting_page", asynchronous, "waiting_page: {asynchronous} is not a plain function"),
        ("idempotency_scope", 7, "idempotency_scope: 7 is not a plain function"),
        (
            "idempotency_scope",
            asynchronous,
            "idempotency_scope: {asynchronous} is not a plain function",
        ),
        ("on_divergence", "ignore", "on_divergence must be 'warn' or 'fail', not 'ignore'"),
        ("middleware", [plain, None], "middleware[1]: None is neither a class nor a function"),
        ("middleware", [plain, Plain, plain], "middleware[2]: {plain} is in the list twice"),
        ("retries", 21, "retries must be a whole number from 0 to 20, not 21"),
        ("retry_on", ValueError("no"), "retry_on must be types of Exception, and"),
    ],
)
def test_a_value_that_makes_no_sense_is_shown_beside_its_option(
    option: str, value: Any, message: str
) -> None:
    given: Any = {option: value}
    said = message.format(asynchronous=asynchronous, plain=plain)
    with pytest.raises(ConfigurationError, match=f"^{re.escape(said)}"):
        resolve("x", environ={}, **given)


def test_a_class_in_the_place_of_an_answer_is_refused_with_what_fits() -> None:
    given: Any = {"default_async_response": AsyncResponseToken}
    with pytest.raises(
        ConfigurationError, match=r"^default_async_response: .* AsyncResponseCustom\(function\)$"
    ):
        resolve("x", environ={}, **given)


def test_an_address_in_the_environment_is_named_by_its_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"^INNGEST_DEV: 'ftp://engine' is not an origin"):
        resolve("x", environ={"INNGEST_DEV": "ftp://engine"})


def test_options_show_all_but_what_is_secret() -> None:
    assert repr(OptionalSetupOpts(signing_key="ab", base_url="http://e:1")) == (
        "OptionalSetupOpts(track_all_endpoints=False, default_async_response=None, "
        "base_url='http://e:1', middleware=())"
    )


@pytest.mark.parametrize(
    "mode",
    [
        {"buffered_steps": 1},
        {"max_interval": timedelta(microseconds=1)},
        {"max_runtime": timedelta(microseconds=1)},
        {"lease": SECOND},
        {"lease": 60 * SECOND},
    ],
)
def test_the_least_and_the_most_that_checkpointing_takes(mode: dict[str, Any]) -> None:
    checkpointing = Checkpointing(**mode)
    assert {name: getattr(checkpointing, name) for name in mode} == mode
    assert checkpointing.lease_ms == mode.get("lease", 30 * SECOND).total_seconds() * 1000


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ({"buffered_steps": 0}, "checkpointing.buffered_steps must be 1 or more, not 0"),
        ({"max_interval": 0 * SECOND}, "checkpointing.max_interval must be positive, not 0 s"),
        ({"max_runtime": -SECOND}, "checkpointing.max_runtime must be positive, not -1 s"),
        ({"lease": 0.999 * SECOND}, "checkpointing.lease must be 1 to 60 seconds, not 0.999"),
        ({"lease": 61 * SECOND}, "checkpointing.lease must be 1 to 60 seconds, not 61"),
    ],
)
def test_nonsense_in_checkpointing_is_refused_by_name(mode: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}"):
        Checkpointing(**mode)

"""Requests on other event loops, without a server: which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from stephttp._adapters.asgi.other_loops import pass_through
from stephttp.options import resolve
from stephttp.provider import Provider


async def answer(provider: Provider, scope: dict[str, Any]) -> tuple[int, bytes]:
    """Status and body of the answer; that of the application is an empty 206."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 206, "headers": []})
        await send({"type": "http.response.body"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await pass_through(app, provider.runtime, scope, receive, send)
    start, body = sent
    return start["status"], body.get("body", b"")


@pytest.mark.parametrize(
    ("setting", "path", "root_path", "refused"),
    [
        ("/_result", "/_result", "", True),
        ("/_result", "/root/_result", "/root", False),
        ("/root/_result", "/_result", "/root", True),
        ("/root/_result", "/root/_result", "/root", True),
        ("/_result", "/other", "", False),
        ("", "/", "", False),
        ("", "", "", False),
    ],
)
async def test_the_path_of_results_is_refused_as_proxies_and_as_the_application_see_it(
    setting: str, path: str, root_path: str, refused: bool
) -> None:
    provider = Provider(resolve("http://app.test", result_path=setting or None))
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": path, "root_path": root_path,
        "query_string": b"", "headers": [],
    }  # fmt: skip
    status, body = await answer(provider, scope)
    assert status == (503 if refused else 206)
    assert (b"result_path: steps need asyncio" in body) is refused


@pytest.mark.parametrize("of_a_function", [False, True])
async def test_calls_of_functions_of_serve_pass_and_re_entries_are_refused(
    of_a_function: bool,
) -> None:
    headers = [(b"x-run-id", b"01M81NT13NCCP5V7EQ9MPKSWMT"), (b"x-inngest-req-version", b"2")]
    if of_a_function:
        headers += [(b"account-id", b"a"), (b"x-inngest-step-id", b"step")]
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": "/api/inngest", "query_string": b"",
        "headers": headers,
    }  # fmt: skip
    status, _ = await answer(Provider(resolve("http://app.test")), scope)
    assert status == (206 if of_a_function else 503)

"""Requests on other event loops, without a server: which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from stephttp._adapters.asgi.other_loops import _refusal, pass_through
from stephttp.options import resolve
from stephttp.provider import Provider


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
def test_the_path_of_results_is_refused_as_proxies_and_as_the_application_see_it(
    setting: str, path: str, root_path: str, refused: bool
) -> None:
    provider = Provider(resolve("http://app.test", result_path=setting or None))
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": path, "root_path": root_path,
        "query_string": b"", "headers": [],
    }  # fmt: skip
    answer = _refusal(provider.runtime, scope)
    assert (answer is not None) is refused
    if answer is not None:
        assert answer.status == 503
        assert b"result_path: steps need asyncio" in answer.body


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
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 206, "headers": []})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    provider = Provider(resolve("http://app.test"))
    await pass_through(app, provider.runtime, scope, receive, send)
    assert sent[0]["status"] == (206 if of_a_function else 503)

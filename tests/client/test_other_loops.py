"""Requests on other event loops, without a server: which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from stephttp._adapters.asgi.other_loops import _refusal
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

"""Exports have no secrets, and replay as the run did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi import Request

from stephttp import step
from stephttp.testing import History, replay
from stephttp.testing.masking import mask
from tests.testing.shop_histories import KEY, app_of, recorded

SECRETS = ["tok-123456789", "hunter22222", "secretvalue99", "qqqqqqqqqq", "api-key-1", "sid=abc"]
GIVEN = {
    "access_token": "tok-123456789", "prompt_tokens": 12, "pin": 1234,
    "nested": {"credentials": {"user": "bob", "key": "secretvalue99"}},
}  # fmt: skip


async def login(request: Request) -> dict[str, Any]:
    body = (await request.body()).decode()
    given: dict[str, Any] = await step.run("login", lambda: GIVEN)
    await step.run(f"use-{given['access_token']}", lambda: f"Bearer {given['access_token']}")
    await step.sleep("pack", timedelta(minutes=1))
    return {"given": given, "body": body, "q": str(request.query_params)}


BODIES: list[dict[str, Any]] = [
    {"data": {"password": "hunter22222", "name": "ann b"}},
    {"json": {"user": {"Pass-Word": "hunter22222"}, "name": "ann b"}},
    {"files": {"password": (None, "hunter22222"), "name": (None, "ann b")}},
]


@pytest.mark.parametrize("body", BODIES, ids=["form", "json", "multipart"])
async def test_secrets_are_masked_and_the_run_replays(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    headers = {"cookie": "sid=abc", "x-api-key": "api-key-1"}
    params = {"token": "qqqqqqqqqq", "page": "1"}
    waiting, ended = await recorded(login, method="POST", headers=headers, params=params, **body)
    for history in (waiting, ended):
        text = mask(history).dump()
        assert [secret for secret in SECRETS if secret in text] == []
        assert "1234" not in text
        assert all(kept in text for kept in ("prompt_tokens", "page=1"))
        assert "ann" in text
        assert replay(History.load(text), app_of(login, "POST")).safe
    steps = mask(ended).user_steps
    assert steps[1].id.startswith("use-masked-")
    assert "ann" not in mask(ended, ["NAME"]).dump()


async def test_a_secret_has_the_same_mask_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    _, ended = await recorded(login, method="POST")
    masked = mask(ended)
    (name,) = {step.id.removeprefix("use-") for step in masked.user_steps if "use" in step.id}
    assert masked.response is not None
    assert f'"access_token":"{name}"' in str(masked.response.body)
    assert bytes(masked.user_steps[1].memo or b"") == b'{"data":"Bearer %s"}' % name.encode()
    assert masked.masked
    assert masked.lacks_secrets

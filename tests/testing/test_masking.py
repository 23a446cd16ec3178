"""Exports have no secrets, and replay as the run did."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Request
from msgspec import Raw
from msgspec.structs import replace

from stephttp import step
from stephttp.testing import History, replay
from stephttp.testing.history import (
    Encoded,
    ExportedRequest,
    ExportedResponse,
    ExportedRun,
    ExportedStep,
    as_bytes,
    as_text,
)
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


def history(memo: object = None, **request: Any) -> History:
    """The history of a run with one step."""
    return History(
        ExportedRun("01ARZ3NDEKTSV4RRFFQ69G5FAV", "hello", "completed", "2026-01-01T00:00:00Z"),
        ExportedRequest("POST", "/", **request),
        [ExportedStep("a" * 40, "one", memo=Raw(json.dumps(memo).encode()))],
    )


HIDDEN = "qT7-hidden/9"
TOKEN = {"access_token": HIDDEN}
TEXTS = [
    json.dumps(TOKEN), json.dumps(TOKEN, indent=2), json.dumps({"body": json.dumps(TOKEN)}),
    f"POST https://api.test/?api_key={HIDDEN}&page=1 failed", "?api_key=qT7-hidden%2F9",
    f"https://user:{HIDDEN.replace('/', '%2F')}@db.test/x", f"grant_type=x&client_secret={HIDDEN}",
    f"{{'authorization': 'Bearer {HIDDEN}'}}", f"Authorization: Bearer {HIDDEN}",
    f"curl -H 'X-Api-Key: {HIDDEN}'", f"refused Bearer {HIDDEN}",
    f'data: {json.dumps(TOKEN)}\n\ndata: {{"done": true}}', json.dumps(TOKEN)[:-1],
    f'password="{HIDDEN}" host="db"', f"Set-Cookie: sid={HIDDEN}; Path=/",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("around", ["result", "error", "body"])
def test_secrets_inside_of_texts_are_masked(text: str, around: str) -> None:
    memo: object = {"data": {"body": text, "used": HIDDEN}}
    if around == "error":
        memo = {"error": {"name": "E", "message": text, "stack": text}}
    found = mask(history(memo, body=text if around == "body" else None)).dump()
    assert "hidden" not in found
    assert "masked-" in found


@pytest.mark.parametrize(
    "name",
    ["jwt", "signature", "X-Amz-Signature", "bearer", "pass", "passcode", "id_token", "db_pwd"],
)
def test_names_of_secrets(name: str) -> None:
    assert HIDDEN not in mask(history({"data": {name: HIDDEN}})).dump()


@pytest.mark.parametrize("name", ["bypass_reason", "passenger", "compass", "key", "sign", "code"])
def test_names_of_what_is_no_secret(name: str) -> None:
    assert HIDDEN in mask(history({"data": {name: HIDDEN}})).dump()


def test_values_that_hide_nothing_stay() -> None:
    memo = {"data": {"text": "token=None password=true, page=12", "kept": ["None", "true", ""]}}
    (step,) = mask(history(memo)).steps
    assert json.loads(bytes(step.memo or b"")) == memo


def test_a_form_with_a_file_is_masked_as_bytes() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\nhunter\xc3\xbc22\r\n'
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n\x89PNG\xff\r\n--x\r\n"
        b'Content-Disposition: form-data; name="private_key"; filename="k"\r\n\r\n\xfe\x01key99999'
        b"\r\n--x--\r\n"
    )
    given = history(body=Encoded(body), content_type="multipart/form-data; boundary=x")
    masked = as_bytes(mask(given).request.body)
    assert (b"hunter" in masked, b"key99999" in masked, b"\x89PNG\xff\r\n--x" in masked) == (
        False, False, True,
    )  # fmt: skip


PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", ""])
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "latin-1"])
def test_bodies_that_are_packed_or_in_other_encodings_are_masked(coding: str, charset: str) -> None:
    plain = json.dumps({"password": HIDDEN, "name": "J\u00fcrgen"}, ensure_ascii=False).encode(
        charset
    )
    packed = PACKED.get(coding, bytes)(plain)
    given = history(
        {"data": HIDDEN},
        body=as_text(packed),
        content_type=f"application/json; charset={charset}",
        headers=[("content-encoding", coding)] if coding else [],
    )
    body = as_bytes(mask(given).request.body)
    if coding == "br":  # nothing here can read it
        assert body == b"masked"
        return
    unpacked = UNPACKED.get(coding, bytes)(body)
    expected = {"password": "masked-1", "name": "J\u00fcrgen"}
    assert json.loads(unpacked.decode(charset)) == expected


@pytest.mark.parametrize(
    ("headers", "used"),
    [
        ([("authorization", f"Bearer {HIDDEN}")], HIDDEN),
        ([("authorization", HIDDEN)], HIDDEN),
        ([("authorization", "Basic dXNlcjpodW50ZXIyMg==")], "hunter22"),
        ([("cookie", f"theme=dark; sid={HIDDEN}")], HIDDEN),
        ([("x-api-key", "k-12")], "k-12"),
        ([("x-of-our-own", HIDDEN)], HIDDEN),
        ([("referer", f"https://a.test/?token={HIDDEN}")], HIDDEN),
    ],
)
def test_secrets_of_headers_are_masked_elsewhere(headers: list[tuple[str, str]], used: str) -> None:
    texts = {"data": {"used": used, "theme": "dark", "message": f"{used} was refused"}}
    masked = mask(history({"data": {"used": used, "theme": "dark"}}, headers=headers)).dump()
    assert used not in masked
    assert "dark" in masked
    if len(used) >= 8:
        assert used not in mask(history(texts, headers=headers)).dump()


def test_cookies_of_an_answer_and_what_middleware_carries_are_masked() -> None:
    given = history({"data": [HIDDEN, "carried-text"]}, carried={"user": "carried-text"})
    response = ExportedResponse(200, [("set-cookie", f"sid={HIDDEN}; Path=/"), ("x-n", "1")])
    text = mask(replace(given, response=response)).dump()
    assert (HIDDEN in text, "carried-text" in text, '"x-n"' in text) == (False, False, True)


def test_json_in_a_text_stays_as_it_was_written() -> None:
    styles: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"ensure_ascii": False}]
    for style in styles:
        text = json.dumps({"a": [1, "ü"], "pin": 1234, "token": "abc"}, **style)
        (step,) = mask(history({"data": text})).steps
        found = json.loads(bytes(step.memo or b""))["data"]
        expected = {"a": [1, "ü"], "pin": 0, "token": "masked-1"}
        assert found == json.dumps(expected, **style)

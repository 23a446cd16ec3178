"""Each example of the repository, tested as its reader would test it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from examples.fastapi_signup import app as signup
from examples.fastapi_signup import database
from examples.llm_chat import app as chat
from stephttp.testing import DurableClient

ROOT = Path(__file__).resolve().parents[2]
ORDER = {"receipt": "paid for a book", "parcel": "a book is on its way"}


@pytest.mark.parametrize(
    "name",
    [
        "starlette_app", "litestar_app", "quart_app", "falcon_asgi", "falcon_wsgi", "flask_app",
        "plain_asgi", "plain_wsgi",
    ],
)  # fmt: skip
def test_an_order_is_charged_at_once_and_shipped_later(name: str) -> None:
    with DurableClient(importlib.import_module(f"examples.{name}").app) as client:
        call = client.post("/orders/7", json={"item": "a book"})
        assert call.run.step("charge").result == "paid for a book"
        assert [step.id for step in call.run.steps] == ["charge", "pack"]
        assert (call.status_code, call.json()) == (201, ORDER)
        assert call.headers["location"].endswith("/orders/7")
        assert [step.attempts for step in call.run.steps] == [1, 1, 1]


_DJANGO = f"""
import importlib, os
from stephttp.testing import DurableClient

def check(name):
    with DurableClient(importlib.import_module("examples." + name).app) as client:
        call = client.post("/orders/7", json={{"item": "a book"}})
        assert (call.status_code, call.json()) == (201, {ORDER!r}), call.text
        assert [step.attempts for step in call.run.steps] == [1, 1, 1], str(call.run)

for name in ("django_asgi", "django_wsgi"):
    if (child := os.fork()) == 0:  # a process can be one site of Django only
        check(name)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def test_the_examples_for_django() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", _DJANGO],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_sign_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATH", str(tmp_path / "signup.sqlite3"))
    form = {"name": "Ann", "email": "ann@example.com"}
    with DurableClient(signup.app) as client:
        assert client.post("/users", json=form).status_code == 401
        client.headers["authorization"] = "Bearer secret-of-the-shop"
        assert client.post("/users", json=form | {"email": "?"}).status_code == 422
        call = client.post("/users", json=form)
        call.until_waiting()
        assert client.get("/users").json() == []
        client.advance(signup.COOL_OFF - timedelta(milliseconds=1))
        assert not call.run.ended
        client.advance(timedelta(milliseconds=1))
        assert call.run.completed
        assert call.json()["greeting"] == "Hello Ann"
        assert len(client.get("/users").json()) == 1

        flaky = client.post("/flaky", json={"key": "k"})
        assert flaky.json() == {"key": "k", "receipt": "confirmed k at attempt 3"}
        assert flaky.run.step("call-shaky-service").attempts == 3


def test_the_chat_with_a_stubbed_model() -> None:
    with DurableClient(chat.app) as client:
        model = client.stub("answer", sequence=[ConnectionError("no model"), "Hello!"])
        call = client.post("/chat", json={"text": "Hi"})
        assert call.json() == {"answer": "Hello!"}
        assert model.calls[0].args == ("Hi",)
        assert "<html" in client.get("/").text

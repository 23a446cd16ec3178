"""The fixtures and clients under the runners of tests that people use, with `-W error`."""

from __future__ import annotations

import os
import re
import runpy
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import stephttp_pytest
from stephttp.engine.store.check import check_file
from stephttp.testing import DurableClient

_DEADLINE = 120
_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text()
NEWCOMERS = re.findall(r"^```python\n(# (?:test_)?shop\.py\n.*?)^```$", _PAGE, re.M | re.S)

NAP = """
from datetime import timedelta
from fastapi import FastAPI
import stephttp
from stephttp import step

provider = stephttp.setup("https://shop.example.com", signing_key="ab" * 16)
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)

@app.post("/orders")
async def order() -> str:
    charge = await step.run("charge", lambda: "c1")
    await step.sleep("cool-off", timedelta(days=30))
    return charge
"""

PYTEST_INI = """
[pytest]
stephttp_app = shop:app
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

CONFTEST = """
import sys
loaded = [name for name in sys.modules if name.split(".")[0] == "stephttp"]
assert not loaded, loaded  # by the plugin, in a project that has no use for it
"""

TESTS = """
import unittest
import pytest
from stephttp.testing import AsyncDurableClient, DurableClient
from nap import app

@pytest.fixture
def durable_app():
    return app

def test_plain(durable_client):
    assert durable_client.post("/orders").json() == "c1"

@pytest.mark.asyncio
async def test_asyncio(async_durable_client):
    call = async_durable_client.post("/orders")
    await call.until_waiting()
    assert (await call).json() == "c1"

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_anyio(async_durable_client):
    assert (await async_durable_client.post("/orders")).json() == "c1"

class TestAsMethods:
    @pytest.mark.asyncio
    async def test_method(self, async_durable_client):
        assert (await async_durable_client.post("/orders")).json() == "c1"

class Blocking(unittest.TestCase):
    def setUp(self):
        self.client = self.enterContext(DurableClient(app))

    def test_unittest(self):
        self.assertEqual(self.client.post("/orders").json(), "c1")

class Async(unittest.IsolatedAsyncioTestCase):
    async def test_unittest_async(self):
        async with AsyncDurableClient(app) as client:
            self.assertEqual((await client.post("/orders")).json(), "c1")

def test_fails(durable_client):
    durable_client.stub("chrage", 1)  # what a test that failed has not used says nothing
    call = durable_client.post("/orders")
    assert call.run.completed

@pytest.mark.asyncio
async def test_fails_async(async_durable_client):
    await async_durable_client.post("/orders").until_waiting()
    pytest.fail("by hand")

@pytest.mark.asyncio
async def test_fails_async_and_is_not_kept(async_durable_client, monkeypatch):
    monkeypatch.setattr(async_durable_client, "save", lambda path: 1 / 0)
    assert 1 == 2

def test_fails_in_the_client(durable_client):
    durable_client.post("/orders").run.step("chrage")

def test_fails_in_the_application(durable_client):
    durable_client.stub("charge", raises=ValueError("of the bank"))
    durable_client.post("/orders")

def test_leaves_a_stub(durable_client):
    durable_client.stub("chrage", 1)

def test_leaves_a_request_unanswered(durable_client):
    durable_client._stubs.complain(AssertionError("there is no network"))
    assert 1 == 3

def test_wrong(async_durable_client):
    pass
"""

DJANGO = {
    "settings.py": """
SECRET_KEY = "x"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "site_tests"]
ROOT_URLCONF = "urls"
""",
    "urls.py": """
from datetime import timedelta
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.urls import path
from stephttp import step
from stephttp.sync import step as blocking

def save():
    return User.objects.create(username="ann").pk

def order(request):
    blocking.run("save", save)
    blocking.sleep("cool-off", timedelta(days=30))
    return JsonResponse({"users": User.objects.count()})

async def async_order(request):
    await step.run("save", sync_to_async(save))
    await step.sleep("cool-off", timedelta(days=30))
    return JsonResponse({"users": await User.objects.acount()})

urlpatterns = [path("orders", order), path("async-orders", async_order)]
""",
    "served.py": """
import stephttp
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

provider = stephttp.setup("https://shop.example.com", signing_key="ab" * 16)
application = provider.wsgi(get_wsgi_application())
asgi_provider = stephttp.setup("https://shop.example.com", signing_key="ab" * 16)
asgi_application = asgi_provider.asgi(get_asgi_application())
""",
    "site_tests/__init__.py": "",
    "site_tests/tests.py": """
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase
from served import application, asgi_application
from stephttp.testing import AsyncDurableClient, DurableClient

class Orders(TestCase):
    def test_the_handler_sees_the_transaction_of_the_test(self):
        User.objects.create(username="bob")
        with DurableClient(application) as client:
            self.assertEqual(client.post("/orders").json(), {"users": 2})
        self.assertEqual(User.objects.count(), 2)

    async def test_async(self):
        await User.objects.acreate(username="bob")
        async with AsyncDurableClient(asgi_application) as client:
            self.assertEqual((await client.post("/async-orders")).json(), {"users": 2})

class Committed(TransactionTestCase):
    def test_without_a_transaction_around(self):
        with DurableClient(application) as client:
            call = client.post("/orders")
            self.assertEqual(call.json(), {"users": 1})
            self.assertEqual(call.run.step("save").attempts, 1)
""",
}


def _written(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def _ran(folder: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=_DEADLINE, check=False,
        env=environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder)},
    )  # fmt: skip
    return ended.stdout + ended.stderr


def test_pytest_with_its_plugins(tmp_path: Path) -> None:
    _written(
        tmp_path,
        {"nap.py": NAP, "pytest.ini": PYTEST_INI, "conftest.py": CONFTEST, "test_nap.py": TESTS},
    )
    # The newcomer's files of docs/testing.md, which find their application by the option.
    _written(tmp_path, {code.split()[1]: code for code in NEWCOMERS})
    plugins = ("stephttp_pytest", "asyncio", "anyio", "xdist")
    chosen = [part for plugin in plugins for part in ("-p", plugin)]
    said = _ran(tmp_path, "pytest", *chosen, "-n", "1", "--durable-db", "kept.db")
    assert f"{6 + 5 + 1} passed" in said, said
    assert "6 failed" in said, said
    assert "2 errors" in said, said
    assert "use durable_client in others" in said
    assert said.count("the stub of 'chrage' was never used") >= 1
    assert "test_fails " not in said.partition("ERROR at teardown of")[2].partition("\n")[0]
    assert "- stephttp problems -" in said
    assert "there is no network" in said
    # Tracebacks have the lines of the test and of the application, and not those between them.
    inside = ("stephttp/testing/", "stephttp/_run/", "concurrent/", "httpx2/")
    assert [path for path in inside if path in said] == []
    # What the runs of two tests that failed have done, from the fixture and from the exception.
    waterfall = 'charge    run ok  -> "c1"'
    # On CI, pytest repeats the whole message of a failed test in its summary.
    assert said.partition("short test summary")[0].count(waterfall) == 4, said
    assert "Failed: by hand" in said
    assert "assert 1 == 2" in said
    assert "--durable-db: kept-gw0-3.db cannot be written: ZeroDivisionError" in said
    assert "waits for sleep in step 'cool-off', until +30d" in said
    for kept in ("kept-gw0.db", "kept-gw0-2.db"):
        assert not check_file(str(tmp_path / kept)).problems
        with closing(sqlite3.connect(tmp_path / kept)) as database:
            assert database.execute("SELECT status FROM runs").fetchall() == [("async",)]


def test_an_older_pytest_starts_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest, "version_tuple", (7, 4, 4))
    assert not {name for name in _fresh() if name.startswith(("pytest_", "durable_"))}
    monkeypatch.undo()
    assert "durable_client" in _fresh()


def _fresh() -> dict[str, Any]:
    return runpy.run_path(stephttp_pytest.__file__)


def test_the_page_shows_what_a_run_looks_like() -> None:
    module: dict[str, Any] = {"__name__": "shop"}
    exec(NEWCOMERS[0], module)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", _PAGE, re.M | re.S)
    with DurableClient(module["app"]) as client:
        client.stub("charge", sequence=[TimeoutError(), TimeoutError(), "paid"])
        call = client.post("/orders/o1")
        call.until_waiting()
        client.post("/webhooks/warehouse", params={"order_id": "o1"})
        assert f"{call.run}\n" == shown


def test_the_runner_of_django(tmp_path: Path) -> None:
    _written(tmp_path, DJANGO)
    said = _ran(tmp_path, "django", "test", "--settings=settings")
    assert "Ran 3 tests" in said, said
    assert "\nOK\n" in said, said

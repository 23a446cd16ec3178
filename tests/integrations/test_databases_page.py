"""The applications of docs/databases.md do what the page says."""

from __future__ import annotations

import importlib
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import httpx2
import pytest
from sqlalchemy import create_engine

from stephttp._wire.ids import hash_step_id
from stephttp.integrations.sqlalchemy import create_table
from tests.acceptance.processes import inherited
from tests.durable import Durable, durable

PAGE = Path(__file__).parents[2] / "docs" / "databases.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def page(word: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the one block of the page that contains a word."""
    (code,) = [block for block in BLOCKS if word in block]
    (folder / "block.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "block", raising=False)
    return importlib.import_module("block")


async def test_a_request_that_is_made_again_has_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = page("httpx2", tmp_path, monkeypatch)
    keys: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        keys.append(request.headers["idempotency-key"])
        return httpx2.Response(500 if len(keys) < 3 else 200, json={"id": "ch_1"})

    transport = httpx2.MockTransport(answer)
    monkeypatch.setattr(
        block, "stripe", httpx2.AsyncClient(base_url="http://stripe.test", transport=transport)
    )
    async with durable(lambda provider: provider.asgi(block.app)) as world:
        response = await world.client.post("/orders", params={"cents": 1})
        assert (await world.follow(response)).json() == "ch_1"
        assert keys == [f"{response.headers['x-run-id']}-{hash_step_id('charge')}"] * 3


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "shop.sqlite3")) as connection:
        return connection.execute(sql).fetchall()


STEPS = "SELECT step_id, result FROM stephttp_steps ORDER BY created_at"


async def packed(world: Durable, method: str = "POST", path: str = "/orders") -> object:
    response = await world.client.request(method, path, params={"item": "book"})
    assert response.status_code == 303
    await world.turn()
    return (await world.api.get(response.headers["location"])).json()


async def test_fastapi_and_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = page("ForeignKey", tmp_path, monkeypatch)
    await block.create_tables()
    async with durable(lambda provider: provider.asgi(block.app)) as world:
        assert await packed(world) == {"order": 1, "parcel": 1}
    await block.engine.dispose()
    joined = "SELECT item, parcels.id FROM orders JOIN parcels ON order_id = orders.id"
    assert rows(tmp_path, joined) == [("book", 1)]
    assert rows(tmp_path, STEPS) == [("add order", "1"), ("add parcel", "1")]


async def test_flask_and_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = page("from flask import", tmp_path, monkeypatch)
    block.create_tables()
    build = lambda provider: provider.wsgi(block.flask_app)  # noqa: E731
    async with durable(build, wsgi=True) as world:
        assert await packed(world) == {"packed": "book"}
    block.engine.dispose()
    assert rows(tmp_path, "SELECT item FROM orders") == [("book",)]
    assert rows(tmp_path, STEPS) == [("add order", '"book"')]


# Django's settings are those of a process.
DJANGO = """
import asyncio
import block
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection
from tests.durable import durable
from tests.integrations.test_databases_page import packed

call_command("migrate", verbosity=0)
connection.cursor().execute("CREATE TABLE orders (item TEXT)")


async def main():
    build = lambda provider: provider.wsgi(get_wsgi_application())
    async with durable(build, wsgi=True) as world:
        print(await packed(world, "GET"))


asyncio.run(main())
call_command("prune_steps", days=30)
"""


def test_django(tmp_path: Path) -> None:
    (code,) = [block for block in BLOCKS if "get_wsgi_application" in block]
    (tmp_path / "block.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", DJANGO],
        cwd=tmp_path,
        env={**inherited(), "PYTHONPATH": f"{tmp_path}:{PAGE.parents[1]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{'packed': 'book'}\ndeleted 0 rows\n", done.stderr
    assert rows(tmp_path, "SELECT item FROM orders") == [("book",)]
    assert rows(tmp_path, STEPS) == [("add order", '"book"')]


async def test_outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = page("send_event", tmp_path, monkeypatch)
    with closing(sqlite3.connect("shop.sqlite3")) as connection:
        connection.execute("CREATE TABLE orders (item TEXT)")
        engine = create_engine("sqlite:///shop.sqlite3")
        create_table(engine)
        engine.dispose()
    async with durable(lambda provider: provider.asgi(block.outbox_app)) as world:
        response = await world.client.post("/orders", params={"item": "book"})
        assert (response.status_code, response.json()) == (201, "book")
        assert await world.provider.wait()
        events = (await world.api.get("/v1/events")).json()["data"]
    await block.sessions.kw["bind"].dispose()
    assert [(event["name"], event["data"]) for event in events] == [
        ("shop/order.added", {"item": "book"})
    ]
    assert rows(tmp_path, "SELECT item FROM orders") == [("book",)]

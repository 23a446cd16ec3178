"""The applications of docs/databases.md do what the page says."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import httpx2
import pytest

from stephttp._wire.ids import hash_step_id
from tests.durable import durable

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

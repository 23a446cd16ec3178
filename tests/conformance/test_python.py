"""The real Python SDK (PyPI `inngest`) against the engine.

An application can send events here, with and without keys, and learns why one is refused. Its
functions are in `test_python_functions`.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.processes import STEPHTTP, Process

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest

_SIGNING_KEY = "signkey-prod-" + "6b2f9d0c" * 8
_EVENT_KEY = "event-key-of-the-app"
_TS = 1_795_352_528_271


@contextmanager
def serving(*command: str) -> Generator[httpx2.Client]:
    """An engine, and a client that may ask it."""
    with Process([*STEPHTTP, *command, "--port", "0"]) as engine:
        url = engine.wait_for(r"engine ready .*?(http://[0-9.:]+)")[1]
        headers = {"authorization": f"Bearer {_SIGNING_KEY}"}
        with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
            yield client


@pytest.fixture(scope="module")
def dev() -> Generator[httpx2.Client]:
    with serving("dev") as client:
        yield client


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx2.Client]:
    db: Path = tmp_path_factory.mktemp("start") / "runs.db"
    keys = ("--signing-key", _SIGNING_KEY, "--event-key", _EVENT_KEY)
    with serving("start", "--db", str(db), "--log-format", "text", *keys) as client:
        yield client


@contextmanager
def sdk(engine: httpx2.Client, **options: Any) -> Generator[inngest.Inngest]:
    url = str(engine.base_url)
    client = inngest.Inngest(app_id="shop", api_base_url=url, event_api_base_url=url, **options)
    yield client
    client._http_client._http_client_sync.close()  # it cannot be closed itself


def stored(engine: httpx2.Client, event_id: str) -> dict[str, Any]:
    data: dict[str, Any] = engine.get(f"/v1/events/{event_id}").json()["data"]
    return data


async def send(client: inngest.Inngest, event: inngest.Event) -> str:
    (event_id,) = await client.send(event)
    await client._http_client._http_client.aclose()
    return event_id


def check_sending(client: inngest.Inngest, engine: httpx2.Client) -> None:
    data: dict[str, str | float] = {"id": "o1", "weight": 1.5}
    first, second = client.send_sync(
        [
            inngest.Event(name="shop/packed", data=data, id="mine", ts=_TS),
            inngest.Event(name="shop/sent"),
        ]
    )
    assert first != second
    kept = stored(engine, first)
    assert (kept["id"], kept["name"], kept["ts"]) == ("mine", "shop/packed", _TS)
    assert kept["data"] == data
    assert stored(engine, second)["data"] == {}
    third = asyncio.run(send(client, inngest.Event(name="shop/packed", data={})))
    assert stored(engine, third)["name"] == "shop/packed"


def test_events_are_sent_in_development(dev: httpx2.Client) -> None:
    with sdk(dev, is_production=False) as client:
        check_sending(client, dev)


def test_events_are_sent_with_a_key(start: httpx2.Client) -> None:
    with sdk(start, event_key=_EVENT_KEY, signing_key=_SIGNING_KEY) as client:
        check_sending(client, start)


def test_a_wrong_event_key_is_told(start: httpx2.Client) -> None:
    with (
        sdk(start, event_key="wrong", signing_key=_SIGNING_KEY) as client,
        pytest.raises(Exception, match="Event key not found"),
    ):
        client.send_sync(inngest.Event(name="a"))


def test_a_bad_event_is_told(dev: httpx2.Client) -> None:
    with sdk(dev, is_production=False) as client, pytest.raises(Exception, match="reserved"):
        client.send_sync(inngest.Event(name="inngest/mine"))

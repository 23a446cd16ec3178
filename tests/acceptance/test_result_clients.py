"""Real clients wait for a result, directly, at `result_path`, and behind nginx, while the engine is
killed and started again; and under WSGI servers that have few threads."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests import needs
from tests.acceptance.processes import DEADLINE, eventually
from tests.acceptance.result_places import OWN_ADDRESS, RESULT_PATH, Places

pytestmark = pytest.mark.usefixtures("measured")

_BROKEN = re.compile("connect|refused|reset|empty reply|fetch failed|socket", re.IGNORECASE)
Answer = tuple[int, str, str]
RECEIPT: Answer = (201, "7", "receipt")

NODE = """
const [url, method] = process.argv.slice(1);
const answer = await fetch(url, { method });
const said = [answer.status, answer.headers.get("x-receipt"), await answer.text()];
console.log(JSON.stringify(said));
"""


def _curl(method: str, url: str) -> Answer:
    # Without `-X`, which would ask with POST at the address of the result, too.
    data = ["-d", ""] if method == "POST" else []
    said = _said(["curl", "-sSL", "-o", "-", "-w", "\n%{http_code} %header{x-receipt}", *data, url])
    body, _, last = said.rpartition("\n")
    status, _, receipt = last.partition(" ")
    return int(status), receipt, body


def _node(method: str, url: str) -> Answer:
    said = _said(["node", "--input-type=module", "-e", NODE, url, method])
    status, receipt, body = json.loads(said)
    return status, receipt, body


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise ConnectionError(done.stderr)
    return done.stdout


def _requests(method: str, url: str) -> Answer:
    import requests

    answer = requests.request(method, url, timeout=DEADLINE)
    return answer.status_code, answer.headers.get("x-receipt", ""), answer.text


def _httpx(method: str, url: str) -> Answer:
    answer = httpx2.request(method, url, timeout=DEADLINE, follow_redirects=True)
    return answer.status_code, answer.headers.get("x-receipt", ""), answer.text


def _by_hand(method: str, url: str) -> Answer:
    """A client that follows nothing, and does what the JSON says."""
    answer = httpx2.request(method, url, timeout=DEADLINE)
    while answer.status_code in (202, 303):
        said = answer.json()
        assert said["status"] == "running"
        answer = httpx2.get(answer.url.join(said["result_url"]), timeout=DEADLINE)
    return answer.status_code, answer.headers.get("x-receipt", ""), answer.text


def _aiohttp(method: str, url: str) -> Answer:
    import aiohttp

    async def ask() -> Answer:
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url) as answer,
        ):
            return answer.status, answer.headers.get("x-receipt", ""), await answer.text()

    return asyncio.run(ask())


CLIENTS: dict[str, Callable[[str, str], Answer]] = {
    "curl": _curl,
    "requests": _requests,
    "httpx": _httpx,
    "by hand": _by_hand,
    "aiohttp": _aiohttp,
    "node": _node,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with ExitStack() as stack:
        yield Places(stack, tmp_path_factory.mktemp("places"))


def test_every_client_gets_the_answer_though_the_engine_is_killed_meanwhile(
    places: Places,
) -> None:
    for command in ("curl", "node"):
        needs.command(command)
    got: dict[tuple[str, str], Any] = {}

    def ask(place: str, name: str) -> None:
        client, shop = CLIENTS[name], places.shops[place]
        try:
            if place in OWN_ADDRESS:
                first = httpx2.post(f"{shop}/checkout", timeout=DEADLINE)
                link = first.headers["location"]
                got[place, name] = eventually(lambda: _unbroken(client, link))
            else:
                got[place, name] = client("POST", f"{shop}/checkout")
        except Exception as error:
            got[place, name] = repr(error)

    wanted = [(place, name) for place in places.shops for name in CLIENTS]
    asking = [threading.Thread(target=ask, args=one, daemon=True) for one in wanted]
    for thread in asking:
        thread.start()
    eventually(lambda: places.waiting() == len(wanted))
    places.kill_engine()
    assert got == {}, "no one was answered without the handler"
    places.start_engine()
    places.pay()
    for thread in asking:
        thread.join(DEADLINE)
    assert got == dict.fromkeys(wanted, RECEIPT)


def _unbroken(client: Callable[[str, str], Answer], link: str) -> Answer | None:
    """What a client gets; `None` if there was no one who could answer."""
    try:
        answer = client("GET", link)
    except Exception as error:
        if not _BROKEN.search(repr(error)):
            raise
        return None
    return None if answer[0] == 502 else answer


@pytest.mark.parametrize(
    ("options", "callers"),
    [((), 2), (("--threads", "4"), 8), (("-k", "gevent"), 8)],
    ids=["sync", "threads", "gevent"],
)
def test_under_gunicorn_a_held_caller_never_keeps_its_own_run_waiting(
    places: Places, options: tuple[str, ...], callers: int
) -> None:
    command = ("gunicorn", "--bind", "127.0.0.1:{port}", *options, "{target}:application")
    shop = places.shop({"RESULT_PATH": RESULT_PATH}, *command)
    got: list[Answer] = []
    asking = [
        threading.Thread(target=lambda: got.append(_httpx("POST", f"{shop}/nap")), daemon=True)
        for _ in range(callers)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(DEADLINE)
    assert got == [RECEIPT] * callers

"""Asks apps to register their functions: those that were named, and those found on this machine.

An app is asked with a ping (docs/protocol.md 9.3, 9.4), every few seconds, so that the engine knows
of a change soon after the app has restarted. It answers with its functions, or registers them by
a request of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from stephttp._wire.call_signatures import request_target
from stephttp._wire.json import UNREADABLE
from stephttp._wire.signatures import verify
from stephttp.engine.functions.registry import Functions, read_registration
from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import Settings
from stephttp.engine.outbound.client import Client
from stephttp.engine.outbound.connection import ConnectError, ExchangeError, HTTPRequest, decoded
from stephttp.engine.outbound.egress import Egress, EgressError
from stephttp.engine.outbound.function_call import ping_request
from stephttp.engine.rules.answers import HTTPResponse
from stephttp.engine.rules.functions import registration
from stephttp.engine.store.store import StoreClosedError
from stephttp.errors import ConfigurationError

log = logging.getLogger(__name__)

PORTS = (3000, 3001, 3002, 3333, 4000, 4321, 5000, 5001, 5173, 8000, 8001, 8080, 8787, 8888, 9000)
"""Where apps usually listen during development."""
PATHS = ("/api/inngest", "/x/inngest", "/.netlify/functions/inngest", "/.redwood/functions/inngest")
"""Where they usually serve their functions."""
_PAUSE = 5.0
"""Seconds between two pings of an app."""
_SHORT_PAUSE = 1.0
"""The same while one has not answered well: it may just be starting."""
_LOOK_AGAIN = 60
"""Pauses after which an open port is looked at again: an app that reloads may have begun to serve
functions. Seldom, because apps log such requests."""
_PATIENCE = 10.0
"""Seconds that an answer may take."""
_CONNECTING = 0.5
"""Seconds that a connection to this machine may take."""
_LARGEST = 8 * 1024 * 1024
"""Bytes of an answer."""
_IN_BAND = "in_band"
_UNANSWERED = (OSError, ValueError, ExchangeError, EgressError)


class Syncing:
    """Pings apps as long as it runs.

    Args:
        functions: where they register.
        clock: the time.
        settings: keys, and the hosts that may be called.
        urls: where apps serve their functions.
        ports: of this machine, where apps are looked for.
        notify: called with a line for people when an app comes or cannot be asked.
    """

    def __init__(
        self,
        functions: Functions,
        clock: Clock,
        settings: Settings,
        urls: Sequence[str],
        ports: Sequence[int] = (),
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._functions = functions
        self._clock = clock
        self._settings = settings
        self._urls = list(dict.fromkeys(urls))
        # Under two names, such as localhost and 127.0.0.1, an app would move to and fro.
        named = {urlsplit(url).port for url in urls}
        self._ports = [port for port in ports if port not in named]
        self._notify = notify
        self._client = Client(
            Egress.of(settings), settings.connect_timeout, ca_file=settings.ca_file
        )
        self._said: dict[str, str] = {}
        self._looked: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, if there is anything to do."""
        if self._urls or self._ports:
            self._task = asyncio.create_task(self._run(), name="stephttp-syncing")

    async def stop(self) -> None:
        """Stop; what is registered stays so."""
        task, self._task = self._task, None
        await cancelled(task)
        await self._client.close()

    async def sync(self, url: str) -> str | None:
        """Ask an app for its functions.

        Returns:
            Why that was in vain; `None` if the app has registered.
        """
        try:
            answer = await self._ping(url)
        except ConnectError as error:
            return f"no connection ({error})"
        except _UNANSWERED as error:
            return f"it cannot be asked ({str(error) or type(error).__name__})"
        if answer.status != HTTPStatus.OK:
            return f"it answered {answer.status}{_reason(answer)}"
        if answer.header("x-inngest-sync-kind") != _IN_BAND:
            return None if answer.header("x-inngest-sdk") else "no SDK has answered"
        if not await self._is_trusted(answer):
            return "its answer is not signed with a signing key of this engine"
        try:
            said = await read_registration(answer.body, answer.header("x-inngest-sdk"))
            await self._functions.register(said)
        except Refused as error:
            return str(error)
        return None

    async def _is_trusted(self, answer: HTTPResponse) -> bool:
        """Say whether an answer is signed, where it has to be: between the engine and the app,
        anything could register functions in its place."""
        keys = self._settings.signing_keys
        if not keys:
            return True
        signature = answer.header("x-inngest-signature")
        # In a thread, since the canonical form of a large body takes a while.
        now = self._clock.now()
        return await asyncio.to_thread(verify, signature, answer.body, keys, now)

    async def ask_all(self) -> float:
        """Look for apps, ask all, and return the seconds until that is to be done again."""
        for port in self._ports:
            await self._look_at(port)
        problems = [await self._asked(url) for url in self._urls]
        return _SHORT_PAUSE if any(problems) else _PAUSE

    async def _ping(self, url: str) -> HTTPResponse:
        parts = urlsplit(url)
        target = request_target(parts.path, parts.query)
        origin = f"{parts.scheme}://{parts.netloc}"
        request = await ping_request(origin, target, url, self._settings, int(self._clock.now()))
        async with asyncio.timeout(_PATIENCE):
            return decoded(await self._client.send(request, _LARGEST), _LARGEST)

    async def _run(self) -> None:
        while True:
            pause = _PAUSE
            try:
                pause = await self.ask_all()
            except StoreClosedError:
                return
            except Exception as error:
                log_event(log, logging.ERROR, "sync.failed", "trying again", error=str(error))
            await self._clock.wait_for(pause)

    async def _asked(self, url: str) -> str | None:
        """Ask an app, and say what came of it, unless that is what came of the last time."""
        problem = await self.sync(url)
        answer = "registered" if problem is None else f"{problem}; asking again"
        shown = url.partition("?")[0]  # queries may hold what opens a site
        said = f"functions at {shown}: {answer}"
        # An app may say anything; on a terminal, some characters are commands.
        line = "".join(one if one.isprintable() else " " for one in said)
        if self._said.get(url) != line:
            self._said[url] = line
            self._notify(line)
        return problem

    async def _look_at(self, port: int) -> None:
        """Look for functions behind a port, once it is open, and now and then."""
        if not await _is_open(port):
            self._looked.pop(port, None)
            return
        turn = self._looked.get(port, 0)
        self._looked[port] = (turn + 1) % _LOOK_AGAIN
        if turn:
            return
        for path in PATHS:
            url = f"http://localhost:{port}{path}"
            if url not in self._urls and await self._serves(port, path):
                self._urls.append(url)

    async def _serves(self, port: int, path: str) -> bool:
        headers = {"user-agent": "Inngest", "x-inngest-server-kind": self._settings.kind}
        request = HTTPRequest("GET", f"http://localhost:{port}", path, headers)
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await self._client.send(request, _LARGEST)
            said = msgspec.json.decode(answer.body, type=dict[str, object])
        except (*_UNANSWERED, *UNREADABLE):
            return False
        return answer.status == HTTPStatus.OK and "function_count" in said


def app_urls(urls: Sequence[str] | None) -> tuple[str, ...]:
    """Return what `--app` names.

    Raises:
        ConfigurationError: one of them is not a URL.
    """
    try:
        for url in urls or ():
            registration.check_url(url, "--app")
    except Refused as error:
        raise ConfigurationError(str(error)) from None
    return tuple(urls or ())


async def _is_open(port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECTING):
            _, writer = await asyncio.open_connection("localhost", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _reason(answer: HTTPResponse) -> str:
    """Return what an app says of its refusal."""
    try:
        said = msgspec.json.decode(answer.body, type=dict[str, object])
    except UNREADABLE:
        return ""
    text = said.get("error") or said.get("message")
    return f": {text[:300]}" if isinstance(text, str) else ""

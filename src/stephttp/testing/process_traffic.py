"""The requests of a process that dies in `crash_everywhere`: those that it answers, and those
that it sends.
"""

from __future__ import annotations

import re

import httpx2

from stephttp.testing.crashes import Crashes, process_number
from stephttp.testing.quiet_deaths import DEATH, Died, ProcessDied

_NAMES = re.compile("/[0-9A-HJKMNP-TV-Z]{26}(?=/|$)|(?<=^/e)/.+")
"""Ids of runs, and keys, in the paths of the engine."""
_REENTRY = "x-stephttp-attempt"


class ToApp(httpx2.AsyncBaseTransport):
    """Calls an application in its process."""

    def __init__(
        self, crashes: Crashes, caller: httpx2.AsyncBaseTransport, *, raises: bool
    ) -> None:
        self._crashes = crashes
        self.caller = caller
        self._raises = raises

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Call the application, and return its whole response."""
        crashes, is_first = self._crashes, _REENTRY not in request.headers
        if is_first:
            await crashes.before_request()
        number = crashes.number
        token = process_number.set(number)
        what = f"{request.method} {request.url.path}"
        asked = "the request" if is_first else "the engine's call"
        try:
            response = await crashes.while_alive(self._answer(request))
            if response.headers.get("x-run-id"):
                crashes.boundary(f"before the answer to {asked} {what}", first_call=is_first)
        except (Died, ProcessDied):
            raise httpx2.ReadError(DEATH, request=request) from None
        except Exception:
            if crashes.is_dead(number):
                raise httpx2.ReadError(DEATH, request=request) from None
            if self._raises:
                raise
            return httpx2.Response(500, request=request)
        finally:
            process_number.reset(token)
        if crashes.is_dead(number):
            raise httpx2.ReadError(DEATH, request=request)
        return response

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        return await _whole(await self.caller.handle_async_request(request), request)

    async def aclose(self) -> None:
        """End the requests that are still under way."""
        await self.caller.aclose()


class ToEngine(httpx2.AsyncBaseTransport):
    """Carries requests of a process to the engine."""

    def __init__(self, crashes: Crashes, transport: httpx2.AsyncBaseTransport) -> None:
        self._crashes = crashes
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, unless the process is dead by then."""
        crashes = self._crashes
        if not process_number.get():  # the test itself asks
            return await self._transport.handle_async_request(request)
        what = f"{request.method} {_NAMES.sub('/…', request.url.path)}"
        first_call = request.method == "POST" and request.url.path == "/v1/http/runs"
        if request.method != "GET":
            crashes.boundary(f"before {what} is sent", first_call=first_call)
        answer = self._transport.handle_async_request(request)
        response = await (answer if crashes.died_at is None else crashes.patiently(answer))
        if request.method != "GET":
            response = await _whole(response, request)
            crashes.boundary(f"behind {what}, which the engine has", first_call=first_call)
        else:
            crashes.check_alive()
        return response

    async def aclose(self) -> None:
        """Close what carries them."""
        await self._transport.aclose()


async def _whole(response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
    """Return a response whose body is here, as it was sent."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    body = b"".join([chunk async for chunk in response.stream])
    headers, stream = response.headers.raw, httpx2.ByteStream(body)
    return httpx2.Response(response.status_code, headers=headers, stream=stream, request=request)

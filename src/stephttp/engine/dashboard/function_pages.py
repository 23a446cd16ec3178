"""The page of a function, and its forms: pause, resume, and invoke from an editor."""

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from stephttp._wire.json import UNREADABLE
from stephttp.engine.dashboard.formatting import LONGEST_SHOWN, as_text
from stephttp.engine.dashboard.notices import notice_of
from stephttp.engine.dashboard.option_words import in_words
from stephttp.engine.dashboard.page_request import PageRequest
from stephttp.engine.model.refused import Refused
from stephttp.engine.web.invocation import invoke_function

_EMPTY = "{\n  \n}"
_BYTE = re.compile(r"\(byte (\d+)\)$")


async def function(request: PageRequest) -> Response:
    """Show one function."""
    return await _page(request)


async def pause(request: PageRequest) -> Response:
    """Pause a function."""
    return await _set_paused(request, paused=True)


async def resume(request: PageRequest) -> Response:
    """Resume a function that is paused."""
    return await _set_paused(request, paused=False)


async def invoke(request: PageRequest) -> Response:
    """Start the function with data from the editor, and lead to its run.

    If that is not possible, the page comes again, with what was written and the reason.
    """
    name, text = _name(request), request.field("data").replace("\r\n", "\n")
    try:
        event = {"data": msgspec.Raw(_json(text))}
        done = await invoke_function(request.engine, name, msgspec.json.encode(event))
    except Refused as error:
        if error.status == 404:
            raise
        return await _page(request, text, str(error), error.status)
    if done.run_id is None:
        return request.redirect(_path(name), notice="invoked-later")
    return request.redirect(f"/runs/{done.run_id}", notice="invoked")


async def _page(
    request: PageRequest, data: str | None = None, error: str | None = None, status: int = 200
) -> Response:
    detail = await request.engine.reader.function(_name(request))
    if data is None:
        latest = as_text(detail.data or b"{}")
        data = latest if latest != "{}" and len(latest) <= LONGEST_SHOWN else _EMPTY
    return request.render(
        "function.html",
        status,
        function=detail.function,
        detail=detail,
        options=in_words(detail.function),
        used=request.engine.executor.gates.used,
        data=data,
        error=error,
        notice=notice_of(request.http.query_params),
    )


async def _set_paused(request: PageRequest, *, paused: bool) -> Response:
    name = _name(request)
    await request.engine.functions.set_paused(name, paused=paused)
    notice = "function-paused" if paused else "function-resumed"
    return request.redirect(_path(name), notice=notice)


def _name(request: PageRequest) -> str:
    name: str = request.http.path_params["function"]
    return name


def _path(name: str) -> str:
    return f"/functions/{quote(name, safe='')}"


def _json(text: str) -> bytes:
    """Return what was written into the editor.

    Raises:
        Refused: it is not JSON; the text says where.
    """
    raw = text.rstrip().encode() or b"{}"
    try:
        msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise Refused(f"data: not valid JSON: {_with_line(str(error), raw)}") from None
    return raw


def _with_line(message: str, raw: bytes) -> str:
    """Return the message of a decoder with line and column in place of a number of bytes."""
    found = _BYTE.search(message)
    if found is None:
        return message
    *lines, last = raw[: int(found.group(1))].decode("utf-8", "replace").split("\n")
    return f"{message[: found.start()]}(line {len(lines) + 1}, column {len(last) + 1})"

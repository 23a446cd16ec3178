"""Buttons and forms: log in and out, cancel, rerun, resume, also many runs; send an event."""

from __future__ import annotations

import logging
import math

import msgspec
from starlette.responses import Response

from stephttp._wire.json import UNREADABLE
from stephttp.engine.bulk import Bulk
from stephttp.engine.dashboard import list_query
from stephttp.engine.dashboard.page_request import PageRequest
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.reruns import Edit
from stephttp.engine.web.event_message import store_event
from stephttp.engine.web.requests import parse_run_id
from stephttp.engine.web.responses import log_refusal


async def login_page(request: PageRequest) -> Response:
    """Show the form to log in."""
    target = _target(request.http.query_params.get("next", ""))
    if request.session is not None:
        return request.redirect(target)
    return _login(request, target)


async def login(request: PageRequest) -> Response:
    """Begin a session if the password is right."""
    sessions = request.dashboard.sessions
    target = _target(request.field("next"))
    if wait := sessions.wait_for_attempt(request.client):
        log_refusal(request.http, 429, "too many attempts to log in", logging.WARNING)
        seconds = math.ceil(wait)
        response = _login(request, target, f"Too many attempts. Try again in {seconds} s.", 429)
        response.headers["retry-after"] = str(seconds)
        return response
    if not await sessions.is_password(request.field("password")):
        log_refusal(request.http, 401, "wrong password for the dashboard", logging.WARNING)
        return _login(request, target, "That is not the password.", 401)
    response = request.redirect(target)
    sessions.begin(response, request.http)
    return response


async def logout(request: PageRequest) -> Response:
    """End the session."""
    response = request.redirect("/login" if request.dashboard.sessions.needs_login else "/")
    if request.session is not None:
        await request.dashboard.sessions.end(response, request.session)
    return response


def _login(
    request: PageRequest, target: str, error: str | None = None, status: int = 200
) -> Response:
    has_password = request.dashboard.sessions.has_password
    return request.render(
        "login.html", status, target=target, error=error, has_password=has_password
    )


def _target(text: str) -> str:
    """Return the page to show after the login: always one of ours."""
    plain = text.startswith("/") and not text.startswith("//")
    return text if plain and "\\" not in text and text.isprintable() else "/"


async def cancel(request: PageRequest) -> Response:
    """Cancel a run."""
    run_id = request.run_id
    done = await request.engine.cancel(run_id)
    return request.redirect(f"/runs/{run_id}", notice="cancelled" if done else "was-over")


async def rerun(request: PageRequest) -> Response:
    """Rerun a request, unchanged or with another body."""
    body = request.field("body").encode() if "body" in request.form else None
    new = await request.engine.rerun(request.run_id, Edit(body=body))
    return request.redirect(f"/runs/{new}", notice="rerun")


async def rerun_from(request: PageRequest) -> Response:
    """Rerun a request from a step on; the step may get a new input, or an output instead."""
    step_id, use = request.field("step"), request.field("use")
    value = request.field("value")
    if use not in ("again", "input", "output"):
        raise Refused("use: must be again, input or output")
    edit = Edit(step_id=step_id)
    if use == "input":
        edit = Edit(step_id=step_id, input=_arguments(value))
    elif use == "output":
        edit = Edit(step_id=step_id, output=_json(value, "output"))
    new = await request.engine.rerun(request.run_id, edit)
    return request.redirect(f"/runs/{new}", notice="rerun-from")


async def resume(request: PageRequest) -> Response:
    """Let a run continue now."""
    run_id, step_id = request.run_id, request.field("step") or None
    await request.engine.resume(run_id, step_id)
    notice = "timed-out" if request.field("why") == "time-out" else "resumed"
    return request.redirect(f"/runs/{run_id}", notice=notice)


async def send_to_run(request: PageRequest) -> Response:
    """Send the event or signal that a run waits for."""
    run_id, name = request.run_id, request.field("name")
    data = _json(request.field("data") or "null", "data")
    if request.field("kind") == "signal":
        await request.engine.signal(name, data)
        return request.redirect(f"/runs/{run_id}", notice="signalled")
    await store_event(request.engine, _event(name, data, ""))
    return request.redirect(f"/runs/{run_id}", notice="sent")


async def send(request: PageRequest) -> Response:
    """Send an event from the editor."""
    name, data, event_id = request.field("name").strip(), request.field("data"), request.field("id")
    try:
        if not name:
            raise Refused("name: an event needs a name, such as order/packed")
        sent = await store_event(
            request.engine, _event(name, _json(data or "{}", "data"), event_id)
        )
    except Refused as error:
        return request.render(
            "send.html", error.status, name=name, data=data, id=event_id, error=str(error)
        )
    return request.redirect(f"/events/{sent}", notice="sent")


async def bulk(request: PageRequest) -> Response:
    """Cancel or rerun the chosen runs, or all that the filter finds."""
    action = request.field("do")
    if action not in ("cancel", "rerun"):
        raise Refused("do: must be cancel or rerun")
    query = list_query.parse(request.form)
    back = query.url("/runs")
    separator = "&" if "?" in back else "?"
    engine = request.engine
    if request.field("scope") == "all":
        if not query.is_set:
            raise Refused("scope: set a filter first; without one this would be every run")
        each = engine.bulk.cancel if action == "cancel" else engine.bulk.rerun
        done = await each(query.run_filter(engine.clock.now_ms()))
    else:
        chosen = [parse_run_id(one, "run") for one in request.form.get("run", ())]
        if not chosen:
            return request.redirect(f"{back}{separator}notice=none-chosen")
        done = Bulk(await _each(request, action, chosen), more=False)
    more = "&more=1" if done.more else ""
    return request.redirect(f"{back}{separator}notice=bulk-{action}&n={done.count}{more}")


async def _each(request: PageRequest, action: str, run_ids: list[str]) -> int:
    count = 0
    for run_id in run_ids:
        if action == "cancel":
            count += await request.engine.cancel(run_id)
        else:
            await request.engine.rerun(run_id)
            count += 1
    return count


def _event(name: str, data: bytes, event_id: str) -> bytes:
    event = {"name": name, "data": msgspec.Raw(data)}
    return msgspec.json.encode({**event, "id": event_id} if event_id else event)


def _json(text: str, field: str) -> bytes:
    raw = text.encode()
    try:
        msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise Refused(f"{field}: not valid JSON: {error}") from None
    return raw


def _arguments(text: str) -> bytes:
    """Return the arguments of a step, given as a list or as its only one."""
    raw = _json(text, "input").strip()
    return raw if raw.startswith(b"[") else b"[" + raw + b"]"

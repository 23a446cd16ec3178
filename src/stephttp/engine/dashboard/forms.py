"""What can be done: log in and out, cancel, rerun, resume, send."""

from __future__ import annotations

import logging
import math

import msgspec
from starlette.responses import Response

from stephttp.engine.bulk import Bulk
from stephttp.engine.dashboard import list_address
from stephttp.engine.dashboard.page_request import Visit
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.reruns import Edit
from stephttp.engine.web.requests import parse_run_id
from stephttp.engine.web.responses import log_refusal


async def login_page(visit: Visit) -> Response:
    """The form to log in."""
    target = _target(visit.request.query_params.get("next", ""))
    if visit.session is not None:
        return visit.go(target)
    return _login(visit, target)


async def login(visit: Visit) -> Response:
    """Begin a session, if the password is right."""
    access = visit.dashboard.access
    target = _target(visit.field("next"))
    if wait := access.wait_for_attempt(visit.client):
        log_refusal(visit.request, 429, "too many attempts to log in", logging.WARNING)
        seconds = math.ceil(wait)
        response = _login(visit, target, f"Too many attempts. Try again in {seconds} s.", 429)
        response.headers["retry-after"] = str(seconds)
        return response
    if not await access.is_password(visit.field("password")):
        log_refusal(visit.request, 401, "wrong password for the dashboard", logging.WARNING)
        return _login(visit, target, "That is not the password.", 401)
    response = visit.go(target)
    access.begin(response, visit.request)
    return response


async def logout(visit: Visit) -> Response:
    """End the session."""
    response = visit.go("/login" if visit.dashboard.access.needs_login else "/")
    if visit.session is not None:
        await visit.dashboard.access.end(response, visit.session)
    return response


def _login(visit: Visit, target: str, error: str | None = None, status: int = 200) -> Response:
    has_password = visit.dashboard.access.has_password
    return visit.page("login.html", status, target=target, error=error, has_password=has_password)


def _target(text: str) -> str:
    """Where to go after the login: a page of ours, whatever the address says."""
    plain = text.startswith("/") and not text.startswith("//")
    return text if plain and "\\" not in text and text.isprintable() else "/"


async def cancel(visit: Visit) -> Response:
    """Cancel a run."""
    run_id = visit.run_id
    done = await visit.engine.cancel(run_id)
    return visit.go(f"/runs/{run_id}", notice="cancelled" if done else "was-over")


async def rerun(visit: Visit) -> Response:
    """Run a request again, as it was or with another body."""
    body = visit.field("body").encode() if "body" in visit.form else None
    new = await visit.engine.rerun(visit.run_id, Edit(body=body))
    return visit.go(f"/runs/{new}", notice="rerun")


async def rerun_from(visit: Visit) -> Response:
    """Run a request again from a step on, which may get another input, or an output outright."""
    step_id, use = visit.field("step"), visit.field("use")
    value = visit.field("value")
    if use not in ("again", "input", "output"):
        raise Refused("use: must be again, input or output")
    edit = Edit(step_id=step_id)
    if use == "input":
        edit = Edit(step_id=step_id, input=_arguments(value))
    elif use == "output":
        edit = Edit(step_id=step_id, output=_json(value, "output"))
    new = await visit.engine.rerun(visit.run_id, edit)
    return visit.go(f"/runs/{new}", notice="rerun-from")


async def resume(visit: Visit) -> Response:
    """Let a run go on now."""
    run_id, step_id = visit.run_id, visit.field("step") or None
    await visit.engine.resume(run_id, step_id)
    notice = "timed-out" if visit.field("why") == "time-out" else "resumed"
    return visit.go(f"/runs/{run_id}", notice=notice)


async def send_to_run(visit: Visit) -> Response:
    """Send the event or the signal that a run waits for."""
    run_id, name = visit.run_id, visit.field("name")
    data = _json(visit.field("data") or "null", "data")
    if visit.field("kind") == "signal":
        await visit.engine.signal(name, data)
        return visit.go(f"/runs/{run_id}", notice="signalled")
    await visit.engine.send_event(_event(name, data, ""))
    return visit.go(f"/runs/{run_id}", notice="sent")


async def send(visit: Visit) -> Response:
    """Send an event from the editor."""
    name, data, event_id = visit.field("name").strip(), visit.field("data"), visit.field("id")
    try:
        if not name:
            raise Refused("name: an event needs a name, such as order/packed")
        sent = await visit.engine.send_event(_event(name, _json(data or "{}", "data"), event_id))
    except Refused as error:
        return visit.page(
            "send.html", error.status, name=name, data=data, id=event_id, error=str(error)
        )
    return visit.go(f"/events/{sent}", notice="sent")


async def bulk(visit: Visit) -> Response:
    """Cancel or rerun the runs that were chosen, or all that the filter finds."""
    order = visit.field("do")
    if order not in ("cancel", "rerun"):
        raise Refused("do: must be cancel or rerun")
    wanted = list_address.read(visit.form)
    back = wanted.address("/runs")
    separator = "&" if "?" in back else "?"
    engine = visit.engine
    if visit.field("scope") == "all":
        if not wanted.is_set:
            raise Refused("scope: all that a filter finds needs a filter")
        each = engine.cancel_matching if order == "cancel" else engine.rerun_matching
        done = await each(wanted.runs(engine.clock.now_ms()))
    else:
        chosen = [parse_run_id(one, "run") for one in visit.form.get("run", ())]
        if not chosen:
            return visit.go(f"{back}{separator}notice=none-chosen")
        done = Bulk(await _each(visit, order, chosen), more=False)
    more = "&more=1" if done.more else ""
    return visit.go(f"{back}{separator}notice=bulk-{order}&n={done.count}{more}")


async def _each(visit: Visit, order: str, run_ids: list[str]) -> int:
    count = 0
    for run_id in run_ids:
        if order == "cancel":
            count += await visit.engine.cancel(run_id)
        else:
            await visit.engine.rerun(run_id)
            count += 1
    return count


def _event(name: str, data: bytes, event_id: str) -> bytes:
    event = {"name": name, "data": msgspec.Raw(data)}
    return msgspec.json.encode({**event, "id": event_id} if event_id else event)


def _json(text: str, field: str) -> bytes:
    raw = text.encode()
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"{field}: no valid JSON: {error}") from None
    return raw


def _arguments(text: str) -> bytes:
    """Arguments of a step: a list of them, or the only one."""
    raw = _json(text, "input").strip()
    return raw if raw.startswith(b"[") else b"[" + raw + b"]"

"""The application under gunicorn: programs whose steps block."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Flask, Response, jsonify, request

import stephttp
from stephttp import CheckpointRun, NewAPIRunData
from stephttp.sync import APIClient, step, stream
from tests.faults.boundaries.programs import DAYS, MODES, PROVIDER, Bodies, client, serve

app = Flask(__name__)
app.wsgi_app = PROVIDER.wsgi(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/up")
def up() -> str:
    return "up"


@app.post("/work")
@PROVIDER.endpoint(
    id="work", retries=20, delay=timedelta(seconds=0.1), max_delay=timedelta(seconds=0.5)
)
def work() -> tuple[dict[str, Any], int]:
    program: dict[str, Any] = request.get_json()
    stephttp.configure(checkpointing=MODES[program.get("mode", "blended")])
    bodies = Bodies(program)
    values: dict[str, Any] = {}
    for number, part in enumerate(program["parts"]):
        name, kind = f"{number}", part["kind"]
        if kind == "run":
            values[name] = step.run(name, bodies.run, name, part).rstrip(".")
        elif kind == "push":
            stream.push(name)
        elif kind == "sleep":
            step.sleep(name, timedelta(milliseconds=part["ms"]))
        elif kind == "event":
            event = step.wait_for_event(name, event=part["name"], timeout=DAYS)
            values[name] = event is not None
        elif kind == "signal":
            step.wait_for_signal(name, signal=part["name"], timeout=DAYS)
        elif kind == "fetch":
            values[name] = step.fetch(name, part["url"]).status_code
        elif kind == "send":
            step.send_event(name, stephttp.Event(name=part["name"]))
    return bodies.end(values), 201


@app.route("/functions/<name>", methods=["PUT", "POST"])
def functions(name: str) -> Response:
    call = request.get_json() if request.method == "POST" else None
    status, content, headers = serve(name, call)
    made = jsonify(content)
    made.status_code = status
    made.headers.update(headers)
    return made


@app.post("/by-hand/<run_id>")
def by_hand(run_id: str) -> dict[str, Any]:
    api = client(APIClient)
    run = CheckpointRun(run_id)
    try:
        api.checkpoint_new_run(run_id, NewAPIRunData("http://127.0.0.1", "POST", "/hand"))
    except stephttp.APIStatusError as error:
        if error.status != 409:
            raise
        # It is there: this is a repetition, and the answer to the first was lost.
    try:
        api.get_steps(run_id)
        api.checkpoint_response(run, stephttp.APIResult(200, {}, b"by hand"))
    except stephttp.APIStatusError as error:
        if error.status != 410:
            raise
        # It has ended, too.
    return {"run": run_id}


@app.post("/outside/<what>/<name>")
def outside(what: str, name: str) -> dict[str, Any]:
    try:
        if what == "result":
            return {"status": PROVIDER.result_sync(name).status_code}
        elif what == "cancel":
            PROVIDER.cancel_sync(name)
        else:
            PROVIDER.send_signal_sync(name)
    except stephttp.SignalNotAwaitedError:
        pass  # It was received, but the answer was lost.
    return {}

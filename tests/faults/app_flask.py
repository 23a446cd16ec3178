"""The application under gunicorn: programs whose steps block."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request

import stephttp
from stephttp.sync import step
from tests.faults.ledger import Ledger
from tests.faults.programs import MODES, RETRIES, Body, provider

HERE = Path(os.environ["FAULTS_WORLD"])
LEDGER = Ledger(HERE / "ledger")
PROVIDER = provider(HERE)
app = Flask(__name__)
app.wsgi_app = PROVIDER.wsgi(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/up")
def up() -> str:
    return "up"


@app.post("/work")
@PROVIDER.endpoint(
    id="work", retries=RETRIES, delay=timedelta(seconds=0.1), max_delay=timedelta(seconds=0.5)
)
def work() -> Response:
    program: dict[str, Any] = request.get_json()
    stephttp.configure(checkpointing=MODES[program["mode"]])
    body = Body(LEDGER, program)
    values: dict[str, Any] = {}
    for number, part in enumerate(program["parts"]):
        name, kind = f"{number}", part["kind"]
        if kind == "run":
            values[name] = step.run(name, body.once, name, part["ms"], part["fails"])
        elif kind == "sleep":
            step.sleep(name, timedelta(milliseconds=part["ms"]))
        elif kind == "event":
            event = step.wait_for_event(name, event=f"go-{body.label}", timeout=timedelta(days=3))
            values[name] = event is not None
        else:
            names = [f"{name}.{branch}" for branch in range(part["branches"])]
            got = step.parallel(
                [partial(step.run, one, body.once, one, part["ms"], part["fails"]) for one in names]
            )
            values.update(zip(names, got, strict=True))
    values["authorization"] = request.headers.get("authorization")
    answer, cookies = body.end(values)
    response = jsonify(answer)
    response.status_code = 201
    for name, value in cookies.items():
        response.set_cookie(name, value)
    return response

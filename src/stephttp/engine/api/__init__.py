"""The HTTP API: one table of routes, and what errors look like."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, WebSocketRoute

from stephttp.engine.api.manage import actions, browsing, probing, scrape
from stephttp.engine.api.openapi import document
from stephttp.engine.api.sdk import (
    cancellations,
    checkpoint,
    extensions,
    ingest,
    output,
    publishing,
    realtime,
    run_state,
    sent_events,
    system,
    traces,
)
from stephttp.engine.model.run import Refused
from stephttp.engine.store.store import StoreClosedError
from stephttp.engine.web import error_answers
from stephttp.engine.web.guard import secured

_PREFIXES = ("/v1/checkpoint", "/v1/http/runs")
_OURS = "/v1/stephttp"
"""For what an Inngest server has no path for."""

ROUTES = [
    # Before the routes in which the last part would be a run id.
    Route("/v1/checkpoint/batch", secured(extensions.batch), methods=["POST"]),
    Route("/v1/leases/renew", secured(extensions.renew), methods=["POST"]),
    Route("/v1/runs/{run}/outcome", secured(extensions.outcome)),
    *(
        route
        for prefix in _PREFIXES
        for route in (
            Route(prefix, secured(checkpoint.first), methods=["POST"]),
            Route(f"{prefix}/{{run}}/steps", secured(checkpoint.steps), methods=["POST"]),
            Route(f"{prefix}/{{run}}/async", secured(checkpoint.async_steps), methods=["POST"]),
            Route(f"{prefix}/{{run}}/response", secured(checkpoint.response), methods=["POST"]),
            # Not `secured`: the token in the query is what opens it.
            Route(
                f"{prefix}/{{run}}/output",
                output.output,
                methods=["GET", "HEAD", "POST", "OPTIONS"],
            ),
        )
    ),
    Route("/v0/runs/{run}/actions", secured(run_state.actions)),
    Route("/v0/runs/{run}/batch", secured(run_state.batch)),
    Route("/v0/runs/{run}", secured(cancellations.cancel_legacy), methods=["DELETE"]),
    Route("/v1/runs", secured(browsing.runs)),
    Route("/v1/runs/{run}", secured(run_state.run)),
    Route("/v1/runs/{run}", secured(cancellations.cancel), methods=["DELETE"]),
    Route("/v1/runs/{run}/jobs", secured(run_state.jobs)),
    Route("/v1/runs/{run}/steps", secured(run_state.steps)),
    # Before the routes in which the part after `runs` would be a run id.
    Route(f"{_OURS}/runs/cancel", secured(actions.cancel_many), methods=["POST"]),
    Route(f"{_OURS}/runs/rerun", secured(actions.rerun_many), methods=["POST"]),
    Route(f"{_OURS}/runs/{{run}}", secured(browsing.run)),
    Route(f"{_OURS}/runs/{{run}}/rerun", secured(actions.rerun), methods=["POST"]),
    Route(f"{_OURS}/runs/{{run}}/resume", secured(actions.resume), methods=["POST"]),
    Route(f"{_OURS}/overview", secured(browsing.overview)),
    Route(f"{_OURS}/endpoints", secured(browsing.endpoints)),
    Route(f"{_OURS}/changes", secured(browsing.changes)),
    Route(f"{_OURS}/events", secured(browsing.events)),
    Route(f"{_OURS}/events", secured(actions.send_event), methods=["POST"]),
    Route(f"{_OURS}/events/{{event}}", secured(browsing.event)),
    # Not `secured`: the token opens them.
    Route("/v1/realtime/sse", realtime.sse),
    WebSocketRoute("/v1/realtime/connect", realtime.connect),
    Route("/v1/realtime/token", secured(realtime.token), methods=["POST"]),
    Route("/v1/realtime/publish", secured(publishing.publish), methods=["POST"]),
    Route("/v1/realtime/publish/tee", secured(publishing.tee), methods=["POST"]),
    # Not `secured`: the event key in the path is what opens it.
    Route("/e/", ingest.without_key, methods=["GET", "POST"]),
    Route("/e/{key}", ingest.receive, methods=["POST"]),
    Route("/v1/events", secured(sent_events.listing)),
    Route("/v1/events/{event}", secured(sent_events.event)),
    Route("/v1/events/{event}/runs", secured(sent_events.runs)),
    Route("/v1/signals", secured(ingest.signal), methods=["POST"]),
    Route("/v1/cancellations", secured(cancellations.create), methods=["POST"]),
    Route("/v1/cancellations", secured(cancellations.listing)),
    Route("/v1/cancellations/{id}", secured(cancellations.delete), methods=["DELETE"]),
    Route("/v1/runs/{run}/spans", secured(traces.listing)),
    Route("/v1/traces/userland", secured(traces.receive), methods=["POST"]),
    Route("/v1/stephttp/probe", secured(probing.probe), methods=["POST"]),
    Route("/dev", secured(system.dev)),
    Route("/fn/register", secured(system.register), methods=["POST"]),
    Route("/health", system.health),
    Route("/metrics", scrape.scraping(scrape.metrics)),
    Route("/openapi.json", secured(document.openapi)),
]

ERROR_HANDLERS: Mapping[Any, Callable[..., Any]] = {
    Refused: error_answers.refused,
    HTTPException: error_answers.http,
    sqlite3.Error: error_answers.storage,
    StoreClosedError: error_answers.storage,
    Exception: error_answers.unexpected,
}

"""`POST /v1/runs/{run}/metadata`: attaches metadata and scores to a run (docs/protocol.md 4.9)."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.metadata_updates import (
    MetadataMessage,
    TargetMessage,
    read_target,
    read_updates,
)
from stephttp.engine.web.requests import engine_of, parse_run_id, read_json


class NewMetadata(Struct):
    """Metadata, and what it is about."""

    target: TargetMessage
    metadata: list[MetadataMessage]


_NEW = msgspec.json.Decoder(NewMetadata)


async def attach(request: Request) -> Response:
    """Attach metadata to a run, to one of its steps, or to a span."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    message = await read_json(request, _NEW)
    if parse_run_id(message.target.run_id, "target.run_id") != run_id:
        raise Refused("target.run_id: is not the run that the path names")
    updates = read_updates(read_target(message.target), message.metadata)
    await engine.metadata.attach(run_id, updates)
    return Response(status_code=204)

"""Endpoints, as the engine remembers them; a function is one of another kind."""

from __future__ import annotations

from stephttp.engine.model.values import Value


class Endpoint(Value, frozen=True, gc=False):
    """The latest data of an endpoint: enough to start a run of it.

    Attributes:
        query: of a function, the query of its URL; `None` if it is not one.
        refused: why this function is not started, if it is not.
    """

    app_id: str
    fn_id: str
    slug: str
    event_name: str
    fn: str
    domain: str
    method: str
    path: str
    sdk: str
    retries: int
    request_version: int
    reads_state: bool = False
    query: str | None = None
    refused: str | None = None

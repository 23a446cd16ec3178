"""Carries out queries with graphql-core: the schema of `types.graphql`, and what each field of
`Query` reads."""

from __future__ import annotations

import asyncio
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSchema,
    build_schema,
    execute,
    validate,
)

from stephttp.engine.api.graphql import graph_values
from stephttp.engine.api.graphql.graph_values import Graph
from stephttp.engine.api.graphql.query_limits import parse_query
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import RunDetail
from stephttp.engine.store.run_triggers import load_triggers

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine


async def carry_out(
    engine: Engine, text: str, variables: dict[str, Any] | None, operation: str | None
) -> ExecutionResult:
    """Return what a query asks for, or, without data, why it is not acceptable."""
    prepared = await asyncio.to_thread(_prepare, text)
    if isinstance(prepared, list):
        return ExecutionResult(None, prepared)
    done = execute(
        _schema(),
        prepared,
        root_value=_Queries(engine),
        variable_values=variables,
        operation_name=operation,
    )
    return done if isinstance(done, ExecutionResult) else await done


def _prepare(text: str) -> DocumentNode | list[GraphQLError]:
    try:
        document = parse_query(text)
    except GraphQLError as error:
        return [error]
    return validate(_schema(), document) or document


@cache
def _schema() -> GraphQLSchema:
    return build_schema(files("stephttp.engine.api.graphql").joinpath("types.graphql").read_text())


class _Queries:
    """The fields of `Query`; the arguments of each are those of the schema."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, _info: Any, runID: str) -> Graph | None:
        run = await self._run(runID)
        return None if run is None else graph_values.run_value(run)

    async def runTrigger(self, _info: Any, runID: str) -> Graph | None:
        run = await self._run(runID)
        if run is None:
            return None
        _, events = await self._engine.store.browse(partial(load_triggers, run_id=run.row.run_id))
        return graph_values.trigger_value(run, events)

    async def runTraceSpanOutputByID(self, _info: Any, outputID: str) -> Graph | None:
        run_id, _, step_id = outputID.partition(".")
        run = await self._run(run_id)
        return None if run is None else graph_values.output_value(run, step_id)

    async def event(self, _info: Any, query: Graph) -> Graph | None:
        reader, event_id = self._engine.reader, query["eventId"]
        try:
            event = await reader.event(event_id)
        except Refused:
            return None
        return graph_values.event_value(event, await reader.outcomes(event_id))

    async def eventV2(self, _info: Any, id: str) -> Graph | None:
        try:
            return graph_values.event_v2_value(await self._engine.reader.event(id))
        except Refused:
            return None

    async def _run(self, run_id: str) -> RunDetail | None:
        try:
            return await self._engine.reader.run(run_id.upper())
        except Refused:
            return None

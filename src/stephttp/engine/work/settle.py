"""Applies the answer of an endpoint, or the failure of the call, to its run."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from stephttp.engine.model.call import EndpointCall, GatewayRequest
from stephttp.engine.model.change import Change, Entry, Past
from stephttp.engine.model.inputs import UNANSWERED, CallFailure, FailureKind, Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Snapshot
from stephttp.engine.rules.answers import OpsAnswer, PlainAnswer, is_current
from stephttp.engine.rules.endings import call_failed, failed, finished
from stephttp.engine.rules.functions.function_answers import FunctionResult
from stephttp.engine.rules.gateway_answer import GatewayOutcome, request_made
from stephttp.engine.rules.results import error_json
from stephttp.engine.rules.transitions import apply_ops
from stephttp.engine.store import runs
from stephttp.engine.work import save
from stephttp.engine.work.report import report

Outcome = OpsAnswer | PlainAnswer | FunctionResult | CallFailure


def settle(
    connection: sqlite3.Connection,
    call: EndpointCall,
    outcome: Outcome,
    begun_ms: int,
    at: Moment,
) -> Change:
    """Apply the outcome of a call, unless the run has moved on since the call started.

    Args:
        begun_ms: when the call started.
    """
    ops = outcome.ops if isinstance(outcome, OpsAnswer) else []
    snapshot = runs.load(connection, call.run_id, {op.id for op in ops})
    if not is_current(snapshot, call.step_id, call.job_id, call.attempt):
        return Change(snapshot.run)
    if isinstance(outcome, CallFailure | FunctionResult) and outcome.steps:
        return _settle_last(connection, call, outcome, begun_ms, at)
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = _decide(snapshot, outcome, at, call.step_id)
    entry = _past(call, outcome, begun_ms, at.now_ms)
    change = replace(change, history=(entry, *change.history))
    return save.save(connection, change, snapshot.run, ops, at)


def settle_request(
    connection: sqlite3.Connection,
    request: GatewayRequest,
    outcome: GatewayOutcome,
    begun_ms: int,
    at: Moment,
) -> Change:
    """Apply what came of an HTTP request for a step.

    Args:
        begun_ms: when it was made.
    """
    snapshot = runs.load(connection, request.run_id)
    change = request_made(snapshot, request.step_id, outcome, begun_ms, at)
    return save.save(connection, change, snapshot.run, (), at)


def _settle_last(
    connection: sqlite3.Connection,
    call: EndpointCall,
    outcome: CallFailure | FunctionResult,
    begun_ms: int,
    at: Moment,
) -> Change:
    """Keep the steps of a last call as if reported before its end, then apply that."""
    try:
        kept = report(connection, call.run_id, outcome.steps, at)
    except Refused as error:
        failure = CallFailure(FailureKind.FINAL, "AnswerError", str(error))
        return settle(connection, call, failure, begun_ms, at)
    change = settle(connection, call, replace(outcome, steps=()), begun_ms, at)
    return replace(change, others=(kept, *change.others))


def _past(call: EndpointCall, outcome: Outcome, begun_ms: int, now_ms: int) -> Entry:
    """Make the entry of a call in the run's history."""
    kind, error = Past.CALL, None
    if isinstance(outcome, CallFailure):
        error = error_json(outcome.name, outcome.message)
        if outcome.kind in UNANSWERED:
            kind = Past.UNREACHED
    return Entry(kind, call.step_id, call.job_id, call.attempt, begun_ms, now_ms, error)


def _decide(snapshot: Snapshot, outcome: Outcome, at: Moment, target: str) -> Change:
    if isinstance(outcome, CallFailure):
        return call_failed(snapshot, outcome, at, target)
    if isinstance(outcome, PlainAnswer):
        return finished(snapshot, outcome.body, outcome.head, at)
    if isinstance(outcome, FunctionResult):
        return finished(snapshot, outcome.output, None, at)
    try:
        return apply_ops(snapshot, outcome.ops, Origin.ANSWER, at, outcome.hints, target)
    except Refused as error:
        return failed(snapshot, CallFailure(FailureKind.FINAL, "AnswerError", str(error)), at)

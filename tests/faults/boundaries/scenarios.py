"""Which workload is there to reach which boundaries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.boundaries import workloads
from tests.faults.boundaries.bench import Bench


@dataclass(frozen=True)
class Scenario:
    """A workload.

    Attributes:
        commits, calls, sends: names of the boundaries that it is there for.
        apps: the applications whose sends it reaches; the first one is there for the engine's.
        options: of the engine.
        fresh: whether it needs a bench of its own, whose engine is armed before it starts.
    """

    work: Callable[[Bench], Awaitable[None]]
    commits: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()
    apps: tuple[str, ...] = ("async", "sync")
    options: tuple[str, ...] = ()
    fresh: bool = False


_WORK, _SDK = "stephttp.engine.work", "stephttp._client"
_CALLS, _BATCHES = f"{_SDK}.api_calls", f"{_SDK}.batch_calls"
_RUN, _OUTBOUND = "stephttp._run", "stephttp.engine.outbound"
_CALL = f"{_OUTBOUND}.function_call"
_LOGOUT = "stephttp.engine.dashboard.sessions.Sessions.end.<locals>.<lambda>"

SCENARIOS = (
    Scenario(
        workloads.naps,
        commits=(f"{_WORK}.idempotency.claim", f"{_WORK}.due.claim", f"{_WORK}.settle.settle"),
        calls=(f"{_OUTBOUND}.reentry_call.EndpointCaller.call",),
        sends=(
            f"{_CALLS}.post_new_run < {_RUN}.idempotency.claim",
            f"{_CALLS}.post_new_run < {_RUN}.suspend.suspend",
            f"{_CALLS}.get_outcome < {_RUN}.idempotency._answer_of",
            f"{_RUN}.asking.Asking.call",
        ),
    ),
    Scenario(
        workloads.naps_unkeyed,
        sends=(f"{_CALLS}.post_new_run < {_RUN}.suspend.suspend",),
    ),
    Scenario(
        workloads.within_limits,
        commits=(f"{_WORK}.first_calls.open_within_limits",),
        sends=(f"{_CALLS}.post_new_run < {_RUN}.first_openings.open_run",),
        apps=("async",),
    ),
    Scenario(workloads.alone, commits=("stephttp.engine.engine.Engine._take",)),
    Scenario(
        workloads.many,
        commits=(f"{_WORK}.checkpoints.take",),
        sends=(f"{_BATCHES}.post_batch < {_RUN}.checkpoints.Checkpoints.deliver",),
    ),
    Scenario(
        workloads.one_by_one,
        sends=(f"{_CALLS}.post < {_RUN}.checkpoints.Checkpoints.deliver",),
    ),
    Scenario(
        workloads.long_step,
        commits=(f"{_WORK}.leases.renew",),
        sends=(f"{_BATCHES}.post_renewal < {_RUN}.checkpoints.Checkpoints.renew",),
    ),
    Scenario(
        workloads.reported_in_a_reentry,
        commits=(f"{_WORK}.report.report_from",),
        sends=(f"{_CALLS}.post < {_RUN}.checkpoints.Checkpoints.post_steps",),
    ),
    Scenario(workloads.moved, sends=(f"{_CALLS}.get_actions < {_RUN}.resuming.resume",)),
    Scenario(
        workloads.fresh_process, sends=(f"{_CALLS}.get_health < {_RUN}.server_question.is_ours",)
    ),
    Scenario(
        workloads.large,
        commits=(f"{_WORK}.report.report",),
    ),
    Scenario(
        workloads.pushes,
        commits=(f"{_WORK}.stream_parts.append",),
        sends=(f"{_RUN}.frame_sender.FrameSender._post",),
    ),
    Scenario(workloads.prefers_to_wait, sends=(f"{_RUN}.asking.Asking.call",)),
    Scenario(workloads.event, commits=(f"{_WORK}.events.receive",)),
    # Their calls pass gates: the claim takes a place at each, the end of the run gives it back.
    Scenario(
        workloads.functions,
        commits=(
            f"{_WORK}.due.claim",
            f"{_WORK}.settle.settle",
            *(
                f"{_WORK}.registered_functions.{one}"
                for one in ("register", "invoke", "set_paused", "remove")
            ),
        ),
        calls=(f"{_CALL}.function_request < {_OUTBOUND}.reentry_call.EndpointCaller.call",),
        options=("--app", "{app}/functions/shop"),
    ),
    Scenario(
        workloads.batches,
        commits=(f"{_WORK}.due_starts.begin",),
        options=("--app", "{app}/functions/shop"),
    ),
    Scenario(
        workloads.functions,
        calls=(f"{_CALL}.ping_request < stephttp.engine.functions.syncing.Syncing._ping",),
        options=("--app", "{app}/functions/shop"),
        fresh=True,
    ),
    Scenario(
        workloads.ends_of_runs,
        commits=(
            f"{_WORK}.registered_functions.start_portion",
            f"{_WORK}.events.receive",
            f"{_WORK}.settle.settle",
        ),
    ),
    Scenario(
        workloads.many_starts,
        commits=(f"{_WORK}.registered_functions.start_portion",),
        apps=("sync",),
    ),
    Scenario(workloads.metadata, commits=(f"{_WORK}.metadata.attach",)),
    Scenario(workloads.timed, commits=(f"{_WORK}.schedules.begin_due",)),
    Scenario(workloads.event_of_a_step, sends=(f"{_SDK}.outgoing_events.post",)),
    Scenario(workloads.crowd, commits=(f"{_WORK}.deliveries.end",), apps=("async",)),
    Scenario(workloads.signal, commits=(f"{_WORK}.events.signal",)),
    Scenario(
        workloads.fetch,
        commits=(f"{_WORK}.settle.settle_request",),
        calls=(f"{_OUTBOUND}.gateway._request < {_OUTBOUND}.gateway.Gateway.fetch",),
    ),
    Scenario(
        workloads.resent,
        calls=(f"{_OUTBOUND}.reentry_call.EndpointCaller._without_state",),
        apps=("sync",),
    ),
    Scenario(
        workloads.by_hand,
        sends=(
            f"{_CALLS}.post_new_run < {_SDK}.api_client._Flows.new_run",
            f"{_CALLS}.post < {_SDK}.api_client._Flows.steps",
            f"{_CALLS}.get_actions < {_SDK}.api_client._Flows.get_steps",
        ),
    ),
    Scenario(
        workloads.restart,
        commits=(f"{_WORK}.leases.extend_all", f"{_WORK}.stream_parts.forget"),
    ),
    Scenario(workloads.cancel, commits=(f"{_WORK}.save.cancel",)),
    Scenario(
        workloads.from_outside,
        sends=(
            f"{_SDK}.run_calls.send_signal",
            f"{_SDK}.run_calls._ask",
            f"{_CALLS}.get_outcome < {_SDK}.run_calls._answer_of",
            f"{_SDK}.run_calls.cancel",
        ),
    ),
    Scenario(workloads.cancel_many, commits=(f"{_WORK}.interventions.act_on",)),
    Scenario(
        workloads.cancel_by_time,
        commits=(f"{_WORK}.cancellations.create", f"{_WORK}.cancellations.delete"),
    ),
    Scenario(workloads.rerun, commits=(f"{_WORK}.interventions.rerun",)),
    Scenario(workloads.resume, commits=(f"{_WORK}.interventions.resume",)),
    Scenario(workloads.spans, commits=("stephttp.engine.traces.spans.store",)),
    Scenario(workloads.logout, commits=(_LOGOUT,)),
    Scenario(
        workloads.sweep,
        commits=(
            "stephttp.engine.retention.purge",
            "stephttp.engine.retention.purge_cancellations",
            "stephttp.engine.retention.purge_events",
            "stephttp.engine.retention.shrink",
        ),
        options=("--retain", "1ms"),
    ),
    Scenario(workloads.naps, commits=("stephttp.engine.store.database.prepare",), fresh=True),
)

UNREACHED = {
    f"send {_CALLS}.post_stream_token < {_RUN}.event_answers.follow": "for servers without "
    "leases only: the engine gives the token with the checkpoint that leaves the run to it",
    "call stephttp.engine.functions.syncing.Syncing._serves": "looks for apps on this machine, "
    "which only `stephttp dev` does",
    f"send {_CALLS}.get_actions < {_RUN}.server_question.is_ours": "behind a gateway that hides "
    "/health only",
}
"""Boundaries that nobody gets to from outside, and why."""

# ruff: noqa: E501 - sentences of a table
"""Where this engine means to answer otherwise than the real server, and why.

`test_wire.py` holds recorded traffic against this table; `python -m tests.engine.differences`
writes docs/differences.md from it, and a test sees that the page is up to date.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is meant to differ.

    Attributes:
        theirs: what the real server does (with its number in docs/protocol.md 11.1, if it has one).
        ours: what this engine does.
        why: the reason.
        answers: recorded rows that get another answer here, in status or in shape.
        unasked: recorded calls of the endpoint that are not made here, and the requests that SDKs
            therefore have no reason to send.
    """

    theirs: str
    ours: str
    why: str
    answers: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


DIFFERENCES = [
    Difference(
        "A run whose handler keeps failing never ends: callers that wait for its output get "
        '"running" after five minutes (S3).',
        "The run fails when its attempts are used up. The waiting caller gets 500 and the error.",
        "A caller must learn that no answer will come.",
        answers=("api 49",),
    ),
    Difference(
        "A handler's failure in the first call is stored like a step, and the handler is called "
        "again even if no attempt is left.",
        "The failure counts as the first attempt. If no attempt is left, the run fails at once.",
        "`retries: 0` means that the handler runs once.",
        unasked=("deapi 10", "deapi 11", "deapi 12", "deapi 31", "deapi 32", "deapi 33"),
    ),
    Difference(
        "The server loses the status and headers of a final answer that is not a `RunComplete`, "
        "such as Go's: the output is 200.",
        "The engine keeps them.",
        "The caller should get the answer that the handler made.",
        answers=("goapi 4", "goapi 14"),
    ),
    Difference(
        "Functions may ask for what this engine does not know.",
        "A function that asks for one of these is known, but not started; the log and "
        "`GET /v1/apps/{name}/functions` give the reason.",
        "It would run too often, or never, without a word.",
    ),
    Difference(
        "Not measured: pausing a function also holds its open runs, and cancels them after some days.",
        "Its open runs continue; nothing new starts it.",
        "A run that has started may hold something, such as a reservation. `stephttp runs cancel` ends "
        "runs.",
    ),
    Difference(
        "Not measured: times at which a function starts pass while the server is stopped, and it does "
        "not make up for them. The event's `ts` is when the run was made.",
        "A function starts once for all times that have passed. `ts` is the time for which the run "
        "is.",
        "A restart in the wrong minute must not cost a nightly run, which has to know its night.",
    ),
    Difference(
        "Not measured, but the SDK's docs say so: metadata that is to be merged replaces the values of "
        "its kind.",
        "It is merged: values under other names stay.",
        "SDKs send each score by itself, and a run may have several.",
    ),
    Difference(
        "Not measured: a cron expression of one time a day has no run on the day when clocks are set "
        "ahead past it, and two when they are set back.",
        "It has one run on both days.",
        "It says once a day.",
    ),
    Difference(
        "Not measured: an event that a singleton skips counts for the rate limit of its function.",
        "It does not, and neither does it use up its idempotency key.",
        "Both count what has started a run. The event may be sent again when the run has ended.",
    ),
    Difference(
        "A failed attempt of a function is repeated after 15 s, 30 s, 1 min and so on.",
        "The delays are those of endpoints: 1 s, 2 s, 4 s, up to a minute.",
        "There is one table of delays for all runs, with options for it.",
    ),
    Difference(
        "The recorded reports of functions are about runs and functions that the server knew.",
        "An engine to which they are replayed knows neither: it answers 400, or the step fails.",
        "Only the traffic is replayed, not what came before; `tests/conformance` runs functions.",
        answers=(
            *("jsapi 1", "jsapi 3", "jsapi2 1", "jsapi2 3"),
            *("goapi3 3", "goapi3 5"),
        ),
    ),
    Difference(
        "Each planned step that ends leads to a re-entry of its own. The re-entries race, and "
        "late ones may find that the run has ended (S18).",
        "One re-entry follows when the last planned step has ended (with `parallelMode: race` one "
        "for each). There are never two untargeted re-entries at a time.",
        "This takes fewer calls, and no step runs twice.",
        unasked=("app 9", "api 20", "api 21"),
    ),
]

_ANSWER = "the endpoint's answer to the call before is not in the recording"

UNRECORDED = {
    "goapi2 12": _ANSWER,
    "goapi2 13": _ANSWER,
    "goapi2 16": _ANSWER,
    "goapi2 17": _ANSWER,
    "goapi2 19": _ANSWER,
    "goapi3 10": "the run was made by hand, and how is not in the recording",
    "goapi3 11": "the run was made by hand, and how is not in the recording",
    "goapi3 12": "the run was made by hand, and how is not in the recording",
}
"""Rows that cannot be replayed, because what led to them is missing."""

UNSEEN = [
    Difference(
        "The output endpoint looks for the end of a run every two seconds.",
        "It answers as soon as the run ends.",
        "Waiting gains nothing.",
    ),
    Difference(
        "`x-inngest-force-step-plan: true` comes after every batch of more than one op, once too "
        "often.",
        "It comes with targeted calls, and with other calls while a planned step is open or a "
        "failed step waits for its next attempt.",
        "It keeps the SDK from running a step that already runs elsewhere. At other times it only "
        "costs a call.",
    ),
    Difference(
        "A failed step is repeated after 5 s if a checkpoint reported it, and after 15 s or more "
        "if an answer did.",
        "It is repeated after 1 s, then 2 s, 4 s, ... up to 60 s, with a little jitter; "
        "configurable.",
        "Most temporary faults are short.",
    ),
    Difference(
        "The server ignores `Retry-After` when the handler itself failed (S6).",
        "The engine honours it.",
        "The sender knows best when to try again.",
    ),
    Difference(
        "A re-entry answered with `[]` stalls the run; an array that contains `RunComplete` loses "
        "its result (S1, S5).",
        "The engine calls the endpoint again, with growing delays, and the run fails if the "
        "answers stay empty. An array may contain `RunComplete`.",
        "No run may be forgotten.",
    ),
    Difference(
        "An answer without `x-inngest-sdk`, even a proxy's 502, completes the run (S4).",
        "The engine calls again, and counts no attempt: without end after 429, 502, 503 and 504, for a day after any other answer (`--foreign-answer-timeout`).",
        "The answer of a proxy is not the handler's.",
    ),
    Difference(
        "For Go's runs, the server does not send query and body again (S7).",
        "The engine sends them again for every SDK.",
        "The handler must see the same request as in the first call.",
    ),
    Difference(
        "The server refuses a first checkpoint whose body is not base64, so JS endpoints cannot "
        "receive one (S8).",
        "The engine accepts text that is not base64 as it is.",
        "JS sends plain text.",
    ),
    Difference(
        "Re-entries are signed over the raw body (S21).",
        "For JS, the engine signs the canonical JSON of POST and PUT bodies, and nothing for "
        "other methods. For Go it signs nothing. For others it signs the raw body.",
        "These SDKs verify exactly that.",
    ),
    Difference(
        "Further checkpoints always get 200 and errors are only logged; some first checkpoints "
        "get an empty 500 (S9, S10).",
        "The engine refuses data that it cannot store with 4xx, names the field, and stores "
        "nothing. A wait or a request that it cannot carry out fails its step instead, so that "
        "finished steps are stored.",
        "The sender must learn that its input is wrong.",
    ),
    Difference(
        "An SDK that loads the state of an unknown run gets 410, as for a run that has ended.",
        "It gets 404; 410 is for runs that have ended.",
        "The two cases differ.",
    ),
    Difference(
        "Failing `GET`s below `/v1` are answered with 200; the output endpoint ignores the run id "
        "in its path (S11, S14).",
        "The status says what happened; the path must name the run of the token.",
        "HTTP works this way everywhere else.",
    ),
    Difference(
        "Tokens of self-hosted servers are signed with a secret that is public (S16).",
        "The secret is random and belongs to the database.",
        "Otherwise tokens could be forged.",
    ),
    Difference(
        "The request of a `Gateway` or `AIGateway` step is made once.",
        "It is made again after connection errors, 408, 425, 429 and 5xx, as often as `retries` of the step or of the run say, with the same `Idempotency-Key`.",
        "A rate limit or a short fault is the everyday answer of such services.",
    ),
    Difference(
        "`Gateway` steps may reach private addresses if an answer reports them, but not if a "
        "checkpoint does (S20).",
        "One rule covers both, and calls of endpoints: `stephttp dev` reaches every address, "
        "`stephttp start` only public or allowed ones (`--allow-host`).",
        "A rule with a hole protects nothing.",
    ),
    Difference(
        "Unknown: the server's treatment of redirects that a gateway request meets.",
        "The redirect is the result.",
        "A public host could lead the engine to a private one.",
    ),
    Difference(
        "`POST /v1/http/runs/{run}/response` is gone (404).",
        "It ends the run with the `APIResult` in its body, as the Go reference describes.",
        "The Go reference has it, and it carries any bytes.",
    ),
    Difference(
        "A checkpoint in an open call (`/async`) resets the attempt counter of that call.",
        "It does not; a step that ends has its own counter.",
        "Attempts count for the handler as a whole.",
    ),
    Difference(
        "An endpoint that refuses the signature of a call (401) ends its run, if its SDK asks for "
        "that; otherwise an attempt is used up.",
        "The engine repeats the call, with growing delays, and counts no attempt.",
        "While a key is being changed, runs must not fail because one side has it first.",
    ),
    Difference(
        "Conditions: arithmetic of a number of the event with a whole number fails, so "
        "`async.data.n * 2 == 200` never holds, and `+` joins them as text.",
        "Numbers are computed, whole or not; the result of `/` is whole only if both operands are "
        "whole numbers of the expression.",
        "JSON knows one kind of number.",
    ),
    Difference(
        "Conditions: whole numbers of an event beyond 2^53 are rounded, so that neighbours are "
        "equal.",
        "They are compared exactly.",
        "Such numbers are ids.",
    ),
    Difference(
        "Conditions: operands whose types cannot fit, such as `1 + 'a'` or `'a' > 1`, are accepted, "
        "and never hold, or join as text.",
        "The step fails with a `ConditionError` if the expression alone shows that; numbers of two "
        "kinds fit.",
        "A mistake should show when the wait starts.",
    ),
    Difference(
        "Conditions: `date` reads some more formats of Go (`Jan _2 15:04:05`); null joined to text "
        "is `NULL_VALUE`; an evaluation takes as long as it takes.",
        "`date` reads RFC 3339, ISO 8601, RFC 1123 and RFC 822 dates, and numbers as the server does; "
        "null joined to text is nothing; an evaluation with more than 10,000 turns of loops does "
        "not match.",
        "These are accidents of Go, and no event may stop the engine.",
    ),
    Difference(
        "The stream of a run that fails has no end.",
        "The engine ends it with an `inngest.response` that holds the error.",
        "A client that follows it would wait for its own timeout.",
    ),
    Difference(
        "Nothing of a stream (`publish/tee`) is kept; it stays open after the end of the run, and "
        "sends the bytes of each tee as they are.",
        "The engine keeps the events with the run (1 MiB), each listener gets them from the first "
        "one on, with an `id`, and the stream ends with the one answer of the run: that which an SDK "
        "has teed, unless it says the contrary of what became of the run.",
        "One who comes a moment late would lose what came before, or wait forever.",
    ),
    Difference(
        "An answer that plans steps and opens waits is a barrier (request version 2): the function "
        "is called again when all of them have ended.",
        "It is called again when the last planned step has ended, and when a wait ends: one call "
        "more.",
        "A branch must not stand still for a month because its neighbour sleeps.",
    ),
    Difference(
        "Of a list of events with a bad one, those before it are stored, and `ids` names them.",
        "None is stored, and `ids` is empty.",
        "A sender that repeats the request would send some of them twice.",
    ),
    Difference(
        "A cancellation of many runs also ends those whose handler still answers the first request.",
        "It ends them once they continue in the background.",
        "The caller of a request that is almost done would get 500.",
    ),
    Difference(
        "`/v0/gql` answers all that the server's dashboard asks, and changes things.",
        "It has `run`, `runTrigger`, `runTraceSpanOutputByID`, `event` and `eventV2`, with limits, "
        "and only reads; an engine without `stephttp[graphql]` answers 501.",
        "Test suites and tools read results by these; the dashboard has no need of it.",
    ),
    Difference(
        "Version 2 of the API (`/v2`, `/api/v2`) has apps, events, keys, sessions and more.",
        "It has `/runs/{id}`, `/runs/{id}/trace`, `/runs/{id}/cancel`, `/runs/{id}/rerun` and "
        "`/events/{id}/runs`.",
        "These are what the engine can do anyway, in other words.",
    ),
    Difference(
        "Pages of any origin may read every answer (CORS).",
        "They may read outputs and live streams, whose token is the permission.",
        "An engine in development requires no key, and the browser on the same machine may show "
        "any page.",
    ),
    Difference(
        "`DeferAdd` and `DeferAbort` keep account of deferred functions.",
        "The engine refuses them (400), like every op that it cannot perform.",
        "They call functions in a way that this engine does not know yet.",
    ),
    Difference(
        "Unknown: the part of a byte stream (`publish/tee`) that a websocket of "
        "`/v1/realtime/connect` gets.",
        "The websocket gets nothing of it; clients follow byte streams at `/v1/realtime/sse`.",
        "They are not JSON messages.",
    ),
    Difference(
        "More than 1,024,000 bytes to `publish/tee` get 500.",
        "They get 413.",
        "It is not the server's fault.",
    ),
    Difference(
        "A first checkpoint has no limits: runs of an endpoint are called as soon as they are due.",
        "It may bring `limits`, which decide how many are called at a time, and in which order; the SDK sends them only here, and refuses other servers.",
        "An application that is called at once by all that waits may not bear it.",
    ),
]
"""What recorded traffic does not show."""


def page() -> str:
    """docs/differences.md."""
    lines = [
        "# Differences from the Inngest server",
        "",
        "The engine answers SDKs as the real server does, with the exceptions on this page. It is",
        "generated from `tests/engine/differences.py`, which the tests compare with recorded traffic.",
        "S and a number name a quirk in [the wire protocol](protocol.md#111-server). Rows about what was",
        'not measured say "Not measured" or "Unknown".',
        "",
        "| Inngest server | stephttp | why |",
        "|---|---|---|",
        *(f"| {row.theirs} | {row.ours} | {row.why} |" for row in [*DIFFERENCES, *UNSEEN]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parents[2] / "docs" / "differences.md").write_text(page())

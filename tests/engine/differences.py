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
        "A run whose handler keeps failing is never finalised: whoever waits for its output is told "
        '"running" after five minutes (S3).',
        "It ends as failed when its attempts are used up. The waiting caller gets 500 and the error.",
        "A caller must learn that nothing will come.",
        answers=("api 49",),
    ),
    Difference(
        "A handler's failure in the first request is stored as if it were a step, and the handler is "
        "called again even if no attempt is left.",
        "It counts as the first attempt. Without attempts left the run fails at once.",
        "`retries: 0` means that the handler runs once.",
        unasked=("deapi 10", "deapi 11", "deapi 12", "deapi 31", "deapi 32", "deapi 33"),
    ),
    Difference(
        "The status and headers of a final answer that is no `RunComplete`, such as Go's, are lost: "
        "the output is 200.",
        "They are kept.",
        "The caller shall get the answer that the handler made.",
        answers=("goapi 4", "goapi 14"),
    ),
    Difference(
        "Functions of `serve` are registered (`/fn/register`), triggered, and can be called by events "
        "(`/invoke/{slug}`).",
        "400, with the reason; there is no `/invoke`.",
        "The engine is for durable endpoints.",
        answers=(
            *("jsapi 0", "jsapi 1", "jsapi 3", "jsapi2 0", "jsapi2 1", "jsapi2 3"),
            *("pyapi 0", "pyapi2 0"),
        ),
    ),
    Difference(
        "`InvokeFunction` also runs functions that `serve` apps have registered.",
        "It runs endpoints that the engine has seen; other functions are unknown to it.",
        "The engine is for durable endpoints.",
        answers=("goapi3 3", "goapi3 5"),
    ),
    Difference(
        "Each planned step that ends leads to a re-entry of its own; they race, and late ones may find "
        "that the run has ended (S18).",
        "There is one re-entry when the last of them has ended (with `parallelMode: race` one for "
        "each), and never two untargeted ones at a time.",
        "Fewer calls, and no step is run twice.",
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
        "It answers the moment the run ends.",
        "Nothing is gained by waiting.",
    ),
    Difference(
        "`x-inngest-force-step-plan: true` comes after every batch of more than one op, once too often.",
        "It comes with targeted calls, and with others while a planned step is open or a failed one "
        "waits for its next attempt.",
        "It keeps the SDK from running a step that is being run elsewhere. Otherwise it costs a call.",
    ),
    Difference(
        "A failed step reported by a checkpoint is repeated after 5 s, in an answer after 15 s and more.",
        "After 1 s, then 2 s, 4 s, ... up to 60 s, with a little jitter; configurable.",
        "Most faults that pass are short.",
    ),
    Difference(
        "`Retry-After` is ignored when the handler itself failed (S6).",
        "It is honoured.",
        "Whoever sends it knows best.",
    ),
    Difference(
        "A re-entry answered with `[]` stalls the run; an array that holds `RunComplete` loses its "
        "result (S1, S5).",
        "The endpoint is called again, later each time, and the run fails if that goes on; an array "
        "may hold `RunComplete`.",
        "No run may be forgotten.",
    ),
    Difference(
        "An answer without `x-inngest-sdk`, even a proxy's 502, completes the run (S4).",
        "It is a failed attempt; 502, 503 and 504 are not even counted.",
        "The answer of a proxy is not the handler's.",
    ),
    Difference(
        "For Go's runs, query and body are not sent again (S7).",
        "They are, for every SDK.",
        "The handler must see the request that it saw the first time.",
    ),
    Difference(
        "A first checkpoint whose body is not base64 is refused, so JS endpoints cannot be sent one (S8).",
        "Text that is not base64 is taken as it is.",
        "JS sends plain text.",
    ),
    Difference(
        "Re-entries are signed over the raw body (S21).",
        "For JS over the canonical JSON of POST and PUT bodies, and over nothing for other methods; for "
        "Go over nothing; for others over the raw body.",
        "It is what these SDKs verify.",
    ),
    Difference(
        "Further checkpoints always get 200, errors are only logged; some first checkpoints get an "
        "empty 500 (S9, S10).",
        "What cannot be stored is refused with 4xx, the field is named, and nothing is stored.",
        "Bad input must be told.",
    ),
    Difference(
        "What SDKs load of a run that never was is 410, as for one that has ended.",
        "404; 410 is for runs that have ended.",
        "They are not the same.",
    ),
    Difference(
        "Failing `GET`s below `/v1` come as 200; the output endpoint ignores the run id in its path "
        "(S11, S14).",
        "The status says what happened; the path must name the run of the token.",
        "As everywhere in HTTP.",
    ),
    Difference(
        "Tokens of self-hosted servers are signed with a secret that everybody knows (S16).",
        "The secret is random, and belongs to the database.",
        "Tokens could be forged.",
    ),
    Difference(
        "`Gateway` steps may reach private addresses if they come by answer, but not by checkpoint (S20).",
        "One rule for both, and for calls of endpoints: `stephttp dev` reaches every address, `stephttp start` those that are public or allowed (`--allow-host`).",
        "A rule with a hole is none.",
    ),
    Difference(
        "What it does with redirects that a gateway request meets is not known to us.",
        "They are its result.",
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
        "Attempts are those of the handler as a whole.",
    ),
    Difference(
        "An endpoint that refuses the signature of a call (401) ends its run, if its SDK asks for that; "
        "otherwise an attempt is used up.",
        "The call is made again, later each time, and no attempt is counted.",
        "While a key is being changed, runs must not fail because one side has it first.",
    ),
    Difference(
        "The stream of a run that fails has no end.",
        "The engine ends it with an `inngest.response` that holds the error.",
        "A client that follows it would wait for its own timeout.",
    ),
    Difference(
        "Pages of any origin may read every answer (CORS).",
        "They may read outputs and live streams, whose token is the permission.",
        "An engine in development asks for no key, and the browser on the same machine may have any page.",
    ),
    Difference(
        "`DeferAdd` and `DeferAbort` keep account of deferred functions.",
        "They are refused (400), as every op that cannot be done.",
        "They call functions of `serve`, which are not run here.",
    ),
    Difference(
        "What a websocket of `/v1/realtime/connect` gets of streams of bytes (`publish/tee`) is not known "
        "to us.",
        "Nothing; they are followed at `/v1/realtime/sse`.",
        "They are no JSON messages.",
    ),
    Difference(
        "More than 1,024,000 bytes to `publish/tee` get 500.",
        "They get 413.",
        "It is not the server's fault.",
    ),
]
"""What recorded traffic does not show."""


def page() -> str:
    """docs/differences.md."""
    lines = [
        "# Differences from the Inngest server",
        "",
        "The engine answers SDKs as the real server does, except here. Generated from",
        "`tests/engine/differences.py`, which the tests hold against recorded traffic. S and a number",
        "is a quirk in [the wire protocol](protocol.md#111-server).",
        "",
        "| Inngest server | stephttp | why |",
        "|---|---|---|",
        *(f"| {row.theirs} | {row.ours} | {row.why} |" for row in [*DIFFERENCES, *UNSEEN]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parents[2] / "docs" / "differences.md").write_text(page())

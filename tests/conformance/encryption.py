"""Data that an app encrypts for itself, seen by the real SDKs and by an engine without the key."""

from __future__ import annotations

from tests.conformance.functions import App

HALF = "4242 4242"
CARD = f"{HALF} {HALF}"


def check_encryption(app: App) -> None:
    """Functions read their data as it was, and the engine knows it only encrypted."""
    assert app.result("reads-card") == {"card": CARD, "both": [HALF, HALF], "checked": CARD}
    # Results of four steps, what one of them invokes with, and a result; an event and a result.
    for function, values in (("finds-card", 6), ("checks-card", 2)):
        (run,) = app.latest(function, 1)
        trace = app.engine.get(f"/v2/runs/{run['run_id']}/trace", params={"includeOutput": "true"})
        event = app.engine.get(f"/v1/events/{run['event_id']}")
        shown = trace.text + event.text
        assert HALF not in shown
        assert shown.count('"__ENCRYPTED__"') == values

"""The notice on a page after an action. A URL names the notice; it never holds its text."""

from __future__ import annotations

from collections.abc import Mapping

_NOTICES = {
    "cancelled": "The run was cancelled.",
    "was-over": "The run had already ended; nothing was changed.",
    "rerun": "This is a new run of the same request.",
    "rerun-from": "This is a new run; it took over the steps before the one you chose.",
    "resumed": "The run continues now.",
    "timed-out": "The wait was ended as if it had timed out.",
    "function-paused": "The function is paused. Nothing starts it until it is resumed.",
    "function-resumed": "The function is started again, by what comes from now on.",
    "invoked": "The function was invoked; this is its run.",
    "invoked-later": "The function was invoked; its options let the run start later.",
    "sent": "The event was sent.",
    "signalled": "The signal was sent.",
    "none-chosen": "Choose some runs first, or choose all that the filter finds.",
    "bulk-cancel": "Cancelled: {n}.",
    "bulk-rerun": "Run again: {n}.",
}
_MORE = " There may be more: repeat the action for those."


def notice_of(query: Mapping[str, str]) -> str | None:
    """Return the text of the notice that a query names, or `None`."""
    text = _NOTICES.get(query.get("notice", ""))
    if text is None:
        return None
    count = query.get("n", "")
    text = text.replace("{n}", count if count.isdecimal() and len(count) < 10 else "some")
    return text + _MORE if query.get("more") else text

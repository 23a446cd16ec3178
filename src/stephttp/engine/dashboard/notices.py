"""What a page says after something was done. Addresses name a notice; they never hold its text."""

from __future__ import annotations

from collections.abc import Mapping

_NOTICES = {
    "cancelled": "The run was cancelled.",
    "was-over": "The run had ended already; nothing was changed.",
    "rerun": "This is a new run of the same request.",
    "rerun-from": "This is a new run; the steps before the one you chose were taken over.",
    "resumed": "The run goes on now.",
    "timed-out": "The wait was ended as if it had timed out.",
    "sent": "The event was sent.",
    "signalled": "The signal was sent.",
    "none-chosen": "Choose runs first, or say that all of the list are meant.",
    "bulk-cancel": "Cancelled: {n}.",
    "bulk-rerun": "Run again: {n}.",
}
_MORE = " There may be more: repeat it for those."


def notice_of(query: Mapping[str, str]) -> str | None:
    """The text of the notice that an address names, if it names one."""
    text = _NOTICES.get(query.get("notice", ""))
    if text is None:
        return None
    count = query.get("n", "")
    text = text.replace("{n}", count if count.isdecimal() and len(count) < 10 else "some")
    return text + _MORE if query.get("more") else text

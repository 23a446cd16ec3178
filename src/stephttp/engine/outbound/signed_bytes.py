"""The bytes of a re-entry that are signed, as the SDK of each language verifies them
(docs/protocol.md 2.3). Pure.

run of               bytes
Go                   none at all, whatever the body is
JS, POST and PUT     the canonical form (RFC 8785) of a JSON body; other bodies as they are
JS, other methods    none at all
others               the body as it is
"""

from __future__ import annotations

import json
from typing import Any

from stephttp._wire import canonical_json
from stephttp.engine.model.call import EndpointCall

_GO_EVENT = "http/run.started"
_JS = "inngest-js:"
_JS_READS_BODY = ("POST", "PUT")


def signed_bytes(call: EndpointCall) -> bytes:
    """Return the bytes that the signature of `call` covers; see the table on top."""
    if call.event_name == _GO_EVENT:
        return b""
    if call.sdk.startswith(_JS):
        return canonical(call.body) if call.method.upper() in _JS_READS_BODY else b""
    return call.body


def canonical(body: bytes) -> bytes:
    """Return `body` as JavaScript hashes it; bytes that are not JSON stay as they are."""
    try:
        value = json.loads(body, parse_int=float, parse_constant=_refuse)
        # A text is hashed itself, without its quotes.
        return value.encode() if isinstance(value, str) else canonical_json.dumps(value)
    except (ValueError, RecursionError):
        return body


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")

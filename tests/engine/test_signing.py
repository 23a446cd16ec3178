"""What is signed for whom, and the canonical form of JSON (RFC 8785)."""

from __future__ import annotations

import pytest

from stephttp._wire.signatures import verify
from stephttp.engine.model.call import EndpointCall
from stephttp.engine.outbound.signed_bytes import canonical, signed_bytes

from .support import DONE, KEY, answer, new_run, sleep, world

_JS, _GO, _PY = "inngest-js:v4.24.0", "inngestgo:v0.16.0", "stephttp-py:v0.1"


def call(sdk: str, method: str = "POST", event: str = "inngest/http.request") -> EndpointCall:
    return EndpointCall("r", "j", 0, 2, event, sdk, "", method, "", "", "", b'{ "b":2, "a":1}')


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (call(_JS), b'{"a":1,"b":2}'),
        (call(_JS, "put"), b'{"a":1,"b":2}'),
        (call(_JS, "PATCH"), b""),
        (call(_JS, "DELETE"), b""),
        (call(_GO, event="http/run.started"), b""),
        (call(_PY), b'{ "b":2, "a":1}'),
        (call(""), b'{ "b":2, "a":1}'),
    ],
)
def test_bytes_that_are_signed(made: EndpointCall, expected: bytes) -> None:
    assert signed_bytes(made) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # RFC 8785, 3.2.2 and 3.2.4.
        (
            ('{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
            ' "string": "\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/",'
            ' "literals": [null, true, false]}'),
            ('{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'),
        ),
        # RFC 8785, 3.2.3: keys in the order of their UTF-16 code units.
        (
            '{"\\u20ac":1,"\\r":2,"\\ufb33":3,"1":4,"\\ud83d\\ude00":5,"\\u0080":6,"\\u00f6":7}',
            '{"\\r":2,"1":4,"\x80":6,"ö":7,"€":1,"😀":5,"\ufb33":3}',
        ),
        ("", ""),
        ("  {}\n", "{}"),
        ("not JSON", "not JSON"),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": 1e400}', '{"a": 1e400}'),
        ("1" * 400, "1" * 400),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
        ("[" * 100_000, "[" * 100_000),
        # As JavaScript reads them.
        ('{"a": 1, "a": 2}', '{"a":2}'),
        ("[12345678901234567890, -0, -0.0, 9007199254740993]",
         "[12345678901234567000,0,0,9007199254740992]"),
        (' "text \\n" ', "text \n"),
    ],
    ids=str,
)  # fmt: skip
def test_canonical_form(body: str, expected: str) -> None:
    assert canonical(body.encode()) == expected.encode()


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    assert canonical(b"\xff\x00") == b"\xff\x00"


async def test_a_re_entry_of_a_js_run_is_signed_over_the_canonical_body() -> None:
    async with world(signing_keys=(KEY,)) as w:
        headers = {"authorization": f"Bearer {KEY}", "x-inngest-sdk": _JS}
        w.script = [answer(DONE)]
        request = new_run(sleep(text="1s"))
        assert (await w.http.post("/v1/checkpoint", json=request, headers=headers)).is_success
        (made,) = await w.after(1)
        assert made.content == b'{"a": 1}'
        signature = made.headers["x-inngest-signature"]
        assert verify(signature, b'{"a":1}', [KEY], w.clock.now())

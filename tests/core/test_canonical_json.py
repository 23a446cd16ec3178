"""RFC 8785: its own vectors, and what is no I-JSON."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._wire.canonical_json import canonical, dumps, write_number

NUMBERS = """
0000000000000000 0
8000000000000000 0
0000000000000001 5e-324
8000000000000001 -5e-324
7fefffffffffffff 1.7976931348623157e+308
ffefffffffffffff -1.7976931348623157e+308
4340000000000000 9007199254740992
c340000000000000 -9007199254740992
4430000000000000 295147905179352830000
44b52d02c7e14af5 9.999999999999997e+22
44b52d02c7e14af6 1e+23
44b52d02c7e14af7 1.0000000000000001e+23
444b1ae4d6e2ef4e 999999999999999700000
444b1ae4d6e2ef4f 999999999999999900000
444b1ae4d6e2ef50 1e+21
3eb0c6f7a0b5ed8c 9.999999999999997e-7
3eb0c6f7a0b5ed8d 0.000001
41b3de4355555553 333333333.3333332
41b3de4355555554 333333333.33333325
41b3de4355555555 333333333.3333333
41b3de4355555556 333333333.3333334
41b3de4355555557 333333333.33333343
becbf647612f3696 -0.0000033333333333333333
43143ff3c1cb0959 1424953923781206.2
"""
"""Appendix B: IEEE 754 bits and the JSON text."""


@pytest.mark.parametrize("line", NUMBERS.strip().splitlines())
def test_numbers_are_written_as_ecmascript_does(line: str) -> None:
    bits, text = line.split()
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert write_number(value) == text


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_what_appendix_b_calls_errors_is_refused(bits: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    with pytest.raises(ValueError, match="is not JSON"):
        dumps([value])


def test_the_sample_of_section_3_2_3() -> None:
    source = rb"""{
       "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
       "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
       "literals": [null, true, false]
     }"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(source) == expected.encode() == dumps(json.loads(source))


def test_the_bytes_of_section_3_2_4() -> None:
    source = rb"""{
       "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
       "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
       "literals": [null, true, false]
     }"""
    expected = """
    7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72 75 65 2c 66 61 6c 73 65 5d 2c 22
    6e 75 6d 62 65 72 73 22 3a 5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31 65 2b
    33 30 2c 34 2e 35 2c 30 2e 30 30 32 2c 31 65 2d 32 37 5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2
    82 ac 24 5c 75 30 30 30 66 5c 6e 41 27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d
    """
    assert canonical(source) == bytes.fromhex(expected)


def test_integers_are_written_where_they_are_exact() -> None:
    most = 2**53 - 1
    assert dumps({"b": [0, -1, most], "a": [], "c": {}}) == (
        b'{"a":[],"b":[0,-1,9007199254740991],"c":{}}'
    )
    for value in (most + 1, -most - 1):
        with pytest.raises(ValueError, match=str(value)):
            dumps([value])


@pytest.mark.parametrize(
    "value", ["\ud800", {"\udc00": 1}, {"\udc00": 1, "a": 2}, ["\ude00\ud83d"]]
)
def test_a_lone_surrogate_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        dumps(value)


def test_names_are_sorted_by_utf_16_code_units() -> None:
    source = r"""{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With
 Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control",
 "\u00f6":"Latin Small Letter O With Diaeresis"}""".replace("\n", "")
    found = canonical(source.encode())
    assert found is not None
    assert list(json.loads(found)) == ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]


@pytest.mark.parametrize(
    "text",
    [b"", b"plain", b"{", b"\xff", b"NaN", b"[Infinity]", b"1e999", b'{"a":1,"a":2}',
     rb'"\ud800"', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_i_json_has_no_canonical_form(text: bytes) -> None:
    assert canonical(text) is None


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON)
def test_it_means_the_same_and_is_stable(value: object) -> None:
    text = canonical(json.dumps(value, indent=2).encode())
    assert text is not None
    assert json.loads(text, parse_int=float) == value
    assert canonical(text) == text

"""How values are written on pages."""

from __future__ import annotations

import shlex

import pytest

from stephttp.engine.dashboard import formatting, list_query
from stephttp.engine.dashboard.pages import guess
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import Header, RunState, SourceRequest


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "\u2013"),
        (0, "0 ms"),
        (0.42, "0.4 ms"),
        (9.96, "10 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
        (9_994, "9.99 s"),
        (59_949, "59.9 s"),
        (59_960, "1 min"),
        (90_000, "1 min 30 s"),
        (3_599_600, "1 h"),
        (3_600_000 * 5 + 60_000 * 7, "5 h 7 min"),
        (86_400_000 * 3, "3 d"),
        (86_400_000 * 3 + 3_600_000, "3 d 1 h"),
    ],
)
def test_durations(ms: float | None, text: str) -> None:
    assert formatting.duration(ms) == text


def test_numbers_and_parts() -> None:
    assert [formatting.number(n) for n in (None, 0, 12_345, 0.25, 0.04)] == [
        "\u2013", "0", "12\u202f345", "0.2", "0.04"
    ]  # fmt: skip
    assert [formatting.percent(p) for p in (None, 0, 0.005, 0.123, 1)] == [
        "\u2013", "0 %", "0.5 %", "12 %", "100 %"
    ]  # fmt: skip


def test_json_is_indented_marked_and_escaped() -> None:
    html = str(formatting.shown(b'{"<b>": "<script>alert(1)</script>", "n": [1.10, null]}'))
    assert "<script" not in html
    assert '<span class="j-key">&#34;&lt;b&gt;&#34;</span>' in html
    assert '<span class="j-text">&#34;&lt;script&gt;alert(1)&lt;/script&gt;&#34;</span>' in html
    assert '<span class="j-number">1.10</span>' in html, "as it was written"
    assert '<span class="j-word">null</span>' in html


def test_a_text_that_is_cut_off_is_read_once() -> None:
    # If each quotation mark in it began another search for the end, pages would hang.
    for text in ('["' + '\\"' * 9, '["' + '\\"' * 9 + "\\", '["a\nb'):
        html = str(formatting.highlighted(text))
        assert html.count("<span") == 1
        assert html.startswith('[<span class="j-text">')


def test_what_is_no_json_is_shown_as_it_is() -> None:
    assert str(formatting.shown(b"a < b")) == "a &lt; b"
    assert str(formatting.shown(b"\xff\xfe")) == "\ufffd\ufffd"
    assert str(formatting.shown(b"{broken")) == "{broken"
    assert str(formatting.shown(None)) == ""
    assert formatting.is_cut(b"x" * 20_001)
    assert len(formatting.shown(b"x" * 50_000)) == 20_000


def test_errors() -> None:
    error = formatting.error_of(b'{"name": "E", "message": "m", "stack": "s"}')
    assert error == {"name": "E", "message": "m", "stack": "s"}
    assert formatting.error_of(b'"plain"')["message"] == '"plain"'
    assert formatting.error_of(None) == {}
    assert formatting.error_of(b"{") == {"name": "Error", "message": "{", "stack": None}


def test_curl_can_be_pasted_and_holds_no_secret() -> None:
    request = SourceRequest(
        "POST", "http://a.test", "/it's", "q=1", "application/json", b"{\"a\": \"it's\"}",
        (Header("x-a", "b c", masked=False), Header("authorization", "hidden", masked=True)),
        False, "",
    )  # fmt: skip
    words = shlex.split(formatting.curl(request).replace("\\\n", ""))
    assert words == [
        "curl", "-X", "POST", "http://a.test/it's?q=1", "-H", "content-type: application/json",
        "-H", "x-a: b c", "--data-binary", '{"a": "it\'s"}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "data"),
    [
        (None, {}),
        ("async.data.id == 'o1'", {"id": "o1"}),
        ("async.data.a.b == 3 && async.data.ok == true", {"a": {"b": 3}, "ok": True}),
        ("async.data.a == 1 && async.data.a.b == 2", {}),
        ("event.data.id == async.data.id", {}),
    ],
)
def test_data_that_would_fulfil_a_condition(condition: str | None, data: object) -> None:
    import json

    assert json.loads(guess(condition)) == data


def test_a_filter_is_what_its_address_says() -> None:
    fields = {"state": ["failed", "waiting"], "endpoint": ["a", ""], "q": [" x "], "span": ["day"]}
    wanted = list_query.parse(fields)
    assert wanted.is_set
    assert wanted.url("/runs", older="c") == (
        "/runs?endpoint=a&state=failed&state=waiting&q=x&span=day&older=c"
    )
    found = wanted.run_filter(100_000_000)
    assert found.states == {RunState.FAILED, RunState.WAITING}
    assert (found.endpoints, found.text, found.run_id) == (("a",), "x", None)
    assert (found.after_ms, found.before_ms) == (100_000_000 - 86_400_000, None)
    assert not list_query.parse({}).is_set


def test_what_looks_like_an_id_of_a_run_is_one() -> None:
    found = list_query.parse({"q": ["01m81kwy2j"]}).run_filter(0)
    assert (found.run_id, found.text) == ("01M81KWY2J", None)


def test_times_are_those_of_the_viewer() -> None:
    fields = {"span": ["custom"], "after": ["1970-01-01T02:00"], "zone": ["-120"]}
    assert list_query.parse(fields).run_filter(0).after_ms == 0
    assert "zone=-120" in list_query.parse(fields).url("/runs")


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"state": ["broken"]}, "state: "),
        ({"span": ["year"]}, "span: "),
        ({"span": ["custom"], "after": ["yesterday"]}, "after: "),
    ],
)
def test_filters_that_make_no_sense(fields: dict[str, list[str]], names: str) -> None:
    with pytest.raises(Refused, match=names):
        list_query.parse(fields).run_filter(0)

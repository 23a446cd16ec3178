"""One use of a step: its id, its options, and the ops that are kept beside it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from stephttp._core.endpoint_options import FnOpts
from stephttp._core.retry_policy import (
    ExceptionTypes,
    RetryPolicy,
    checked,
    gives_up,
    merged,
    parts,
    pause,
    wishes,
)
from stephttp._core.step_options import StepOptions, policy_of_request, step_options
from stephttp._core.steps import (
    EXECUTE,
    Step,
    choices_op,
    discovery_request,
    plain_id,
    user_hash,
)
from stephttp._wire.ids import hash_step_id, types_id
from stephttp._wire.opcodes import Op, OpCode, Userland
from stephttp.errors import RetryAfterError

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)


class Text(str):
    def __str__(self) -> str:
        return "another text"


@pytest.mark.parametrize(
    ("step_id", "message"),
    [
        ("", "a step id must not be empty or start with 'stephttp:': ''"),
        ("stephttp:x", "a step id must not be empty or start with 'stephttp:': 'stephttp:x'"),
        ("\ud800", "a step id must be valid Unicode: '\\ud800'"),
    ],
)
def test_what_is_no_id_of_a_step(step_id: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - all of it is compared
        user_hash(step_id, 0)
    assert str(raised.value) == message


def test_an_id_is_its_text() -> None:
    assert user_hash("x", 2) == hash_step_id("x", 2)
    assert plain_id(Text("x")) == "x"
    assert type(plain_id(Text("x"))) is str
    with pytest.raises(TypeError, match=r"^a step id must be a str, not 7$"):
        plain_id(7)


def test_the_pseudo_steps_beside_a_step() -> None:
    for index, shown in ((0, None), (2, 2)):
        kept = choices_op(Step(EXECUTE, "pay", index, "hash"), b"[]")
        name = "stephttp:types:pay"
        assert kept == Op(
            OpCode.STEP_RUN, types_id("hash"), name, name, data=Raw(b"[]"),
            userland=Userland(name, shown),
        )  # fmt: skip
    name = "stephttp:discover:7"
    assert discovery_request("7") == Op(OpCode.DISCOVERY_REQUEST, hash_step_id(name), name, name)


ALL: dict[str, Any] = {
    "retries": 2, "delay": SECOND, "max_delay": HOUR, "retry_on": OSError, "give_up_on": [KeyError],
}  # fmt: skip
CHECKED: dict[str, Any] = ALL | {"retry_on": (OSError,), "give_up_on": (KeyError,)}


def test_the_options_of_a_step_are_all_kept() -> None:
    assert checked(**ALL) == CHECKED
    given = ALL | {"timeout": SECOND, "thread": True}
    assert step_options(given, int) == StepOptions(
        **CHECKED, output_type=int, timeout=SECOND, thread=True, supervised=True
    )
    assert step_options({}) == StepOptions()


@pytest.mark.parametrize(
    ("given", "supervised"),
    [
        ({}, False),
        ({"thread": False}, False),
        ({"timeout": None}, False),
        ({"thread": True}, True),
        ({"timeout": timedelta(microseconds=1)}, True),
        (ALL, False),
    ],
)
def test_only_a_limit_or_a_thread_needs_more_than_a_call(
    given: dict[str, Any], supervised: bool
) -> None:
    assert step_options(given).supervised is supervised


@pytest.mark.parametrize(
    ("given", "blocking", "message"),
    [
        (
            {"thread": False},
            True,
            "options() of the blocking tools takes no `thread`: the handler is in a thread already",
        ),
        ({"retry": 1}, False, "options() got an unexpected keyword argument 'retry'"),
        ({"thread": None}, False, "thread must be True or False, not None"),
        (
            {"timeout": 5},
            False,
            "timeout must be a timedelta, not 5; write for example timedelta(seconds=30)",
        ),
    ],
)
def test_options_that_do_not_exist_or_are_of_another_type(
    given: dict[str, Any], blocking: bool, message: str
) -> None:
    with pytest.raises(TypeError) as raised:
        step_options(given, blocking=blocking)
    assert str(raised.value) == message


def test_the_blocking_tools_take_all_others() -> None:
    given = ALL | {"timeout": SECOND}
    assert step_options(given, blocking=True) == step_options(given)
    assert step_options({"thread": True}, blocking=False).thread


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"timeout": SECOND}, "timeout"),
        ({"thread": True}, "thread"),
        ({"retry_on": OSError}, "retry_on"),
        ({"give_up_on": OSError}, "give_up_on"),
    ],
)
def test_a_request_of_the_server_has_no_options_of_functions(
    given: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=r"^step 's'") as raised:
        policy_of_request(step_options(given), "s", "fetch")
    assert str(raised.value) == (
        f"step 's': {name} is for functions, and fetch is a request of the server, which decides "
        "by the answer; use retries, delay and max_delay"
    )
    options = step_options({"retries": 1, "delay": SECOND, "max_delay": HOUR})
    assert policy_of_request(options, "s", "fetch") is options


@pytest.mark.parametrize("field", list(ALL))
def test_each_field_is_taken_from_the_endpoint_only_where_the_step_has_none(field: str) -> None:
    others: dict[str, Any] = {
        "retries": 0, "delay": 2 * SECOND, "max_delay": 2 * HOUR, "retry_on": (), "give_up_on": (),
    }  # fmt: skip
    outer, own = FnOpts(**CHECKED), RetryPolicy(**others)
    assert merged(own, outer) == own
    lacking = RetryPolicy(**(others | {field: None}))
    assert merged(lacking, outer) == RetryPolicy(**(others | {field: CHECKED[field]}))


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({}, {}),
        ({"delay": SECOND}, {"delay": "1s", "max_delay": "1d"}),
        ({"delay": SECOND, "max_delay": HOUR}, {"delay": "1s", "max_delay": "1h"}),
        ({"max_delay": HOUR}, {"delay": "1s", "max_delay": "1h"}),
        ({"max_delay": SECOND / 2}, {"delay": "500ms", "max_delay": "500ms"}),
        ({"delay": HOUR, "max_delay": SECOND}, {"delay": "1h", "max_delay": "1h"}),
        ({"delay": timedelta(0)}, {"delay": "0s", "max_delay": "1d"}),
    ],
)
def test_the_engine_learns_the_pauses_of_a_request(
    policy: dict[str, timedelta], wanted: dict[str, str]
) -> None:
    assert wishes(RetryPolicy(**policy)) == wanted  # type: ignore[arg-type]


def test_a_tenth_of_a_pause_is_added_at_random_at_most() -> None:
    policy = RetryPolicy(delay=100 * SECOND, max_delay=150 * SECOND)
    for failures, low in ((-1, 100), (0, 100), (1, 150)):
        assert pause(policy, failures, lambda: 0.0) == low * SECOND
        assert pause(policy, failures, lambda: 0.5) == 1.05 * low * SECOND
    doubled = RetryPolicy(delay=timedelta(microseconds=1))
    assert pause(doubled, 32, lambda: 0.0) == 2**32 * timedelta(microseconds=1)
    assert pause(doubled, 33, lambda: 0.0) == 2**32 * timedelta(microseconds=1)


@pytest.mark.parametrize("retries", [0, 20, None])
def test_the_bounds_of_what_is_allowed(retries: int | None) -> None:
    given = {"retries": retries, "delay": DAY, "max_delay": DAY}
    wanted = {name: value for name, value in given.items() if value is not None}
    assert checked(**given) == wanted  # type: ignore[arg-type]
    assert checked(delay=timedelta(0)) == {"delay": timedelta(0)}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"retry_on": (int,)},
            TypeError,
            ("retry_on must be types of Exception, and <class 'int'> is not one; name one, such as "
            "ConnectionError"),
        ),
        (
            {"give_up_on": KeyboardInterrupt},
            TypeError,
            ("give_up_on must be types of Exception, and <class 'KeyboardInterrupt'> is not one; "
            "leave it out: a step that it ends has not failed, and is not recorded"),
        ),
        (
            {"retry_on": "OSError"},
            TypeError,
            ("retry_on must be types of Exception, and 'OSError' is not one; name one, such as "
            "ConnectionError"),
        ),
        (
            {"retry_on": (OSError, KeyError), "give_up_on": (ValueError, LookupError)},
            ValueError,
            ("retry_on: KeyError would never be retried, because of give_up_on; take it out of one "
            "of the two"),
        ),
        (
            {"give_up_on": (OSError, RetryAfterError)},
            ValueError,
            ("give_up_on: RetryAfterError asks for another attempt, and gets it while retries are "
            "left; take it out, or raise NonRetriableError"),
        ),
        (
            {"delay": -HOUR},
            ValueError,
            ("delay must not be negative, and is -3600 seconds; leave it out for the server's own "
            "pauses"),
        ),
        (
            {"max_delay": DAY + SECOND},
            ValueError,
            ("max_delay may be 24 hours at most, the longest that a server waits for an attempt, "
            "not 1 day, 0:00:01; make it shorter, or catch the failure and use step.sleep"),
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_names_the_field_and_the_fix(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        checked(**given)
    assert str(raised.value) == message


def test_the_parts_of_a_group_are_those_of_its_groups() -> None:
    one, two, three = OSError(), KeyError(), ValueError()
    group = ExceptionGroup("g", [one, ExceptionGroup("h", [two]), three])
    assert list(parts(group)) == [one, two, three]
    assert list(parts(one)) == [one]


@pytest.mark.parametrize(
    ("retry_on", "give_up_on", "error", "gives"),
    [
        (None, None, OSError(), False),
        (None, (), OSError(), False),
        ((), None, OSError(), True),
        (OSError, None, OSError(), False),
        ([OSError], None, KeyError(), True),
        (None, [KeyError], KeyError(), True),
        (None, KeyError, OSError(), False),
        (OSError, None, RetryAfterError("x", 1), False),
        (None, OSError, ExceptionGroup("g", [KeyError(), OSError()]), True),
        (ExceptionGroup, None, ExceptionGroup("g", [KeyError()]), False),
        (OSError, None, ExceptionGroup("g", [OSError(), OSError()]), False),
        (OSError, None, ExceptionGroup("g", [OSError(), KeyError()]), True),
        (OSError, None, BaseExceptionGroup("g", [KeyError()]), True),
    ],
)
def test_types_count_as_users_wrote_them(
    retry_on: ExceptionTypes | None,
    give_up_on: ExceptionTypes | None,
    error: BaseException,
    gives: bool,
) -> None:
    assert gives_up(RetryPolicy(retry_on=retry_on, give_up_on=give_up_on), error) is gives


@pytest.mark.parametrize("field", ["retry_on", "give_up_on"])
def test_what_is_not_a_type_of_exceptions_is_named_when_it_is_used(field: str) -> None:
    with pytest.raises(TypeError, match=f"^{field} must be types of Exception, and 5 is not one"):
        gives_up(RetryPolicy(**{field: 5}), OSError())  # type: ignore[arg-type]

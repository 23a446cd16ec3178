"""docs/protocol.md 12.2, line by line: which tests show that it is met."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

CHECKLIST: dict[str, tuple[str, ...]] = {
    "1 both prefixes; bodies in base64 or as text": (
        "engine/test_api.py::test_a_first_checkpoint",
        "engine/test_api.py::test_the_event_keeps_the_body",
        "conformance/test_typescript.py::test_any_body_can_be_posted",
    ),
    "2 the first answer's names and tokens": ("engine/test_api.py::test_a_first_checkpoint",),
    "3 method, query and body are restored; no step id, but a signature header": (
        "engine/test_executor.py::test_a_sleep_is_followed_by_the_same_request_again",
        "engine/test_executor.py::test_query_and_body_are_restored_for_go_and_nothing_is_signed",
    ),
    "4 signatures over what each SDK verifies": (
        "engine/test_signing.py::test_bytes_that_are_signed",
        "conformance/test_typescript_keys.py::test_runs_go_on_after_a_sleep",
    ),
    "5 answers are recognised": (
        "engine/test_results.py::test_an_array_is_ops_whatever_the_status",
        "engine/test_results.py::test_a_final_op_alone_or_in_an_array",
        "engine/test_results.py::test_any_other_good_answer_is_the_result",
    ),
    "6 S1: an array may hold RunComplete": (
        "engine/test_executor.py::test_run_complete_in_an_array",
    ),
    "6 S2: status and headers of RunComplete by checkpoint": (
        "engine/test_results.py::test_run_complete_data_is_replayed",
        "engine/test_results.py::test_a_whole_answer_in_the_body_of_a_checkpoint",
    ),
    "6 S3: a run without attempts ends": (
        "engine/test_executor.py::test_the_last_answer_of_a_handler_that_keeps_failing_is_delivered",
    ),
    "6 S4: an answer that is none of an SDK's": (
        "engine/test_executor.py::test_an_answer_that_is_not_from_the_sdk_fails_clearly",
    ),
    "6 S5: an answer without ops": (
        "engine/test_executor.py::test_an_answer_that_holds_nothing_is_repeated_and_then_fails",
    ),
    "6 S6: Retry-After holds everywhere": (
        "engine/test_executor.py::test_retry_after_of_the_answer_sets_the_delay",
        "engine/test_transitions.py::test_failed_calls_are_repeated",
        "engine/test_planned.py::test_retry_after_of_a_planned_step",
    ),
    "7 shapes of memos": (
        "engine/test_transitions.py::test_what_ops_do",
        "engine/test_executor.py::test_an_exhausted_step_is_remembered_as_failed",
        "engine/test_wire.py::test_recorded_traffic",
    ),
    "8 410 after the end": ("engine/test_api.py::test_steps_of_an_ended_run",),
    "9 /fn/register": (
        "engine/functions/test_registered_functions.py::test_an_app_registers_again",
    ),
    "10 calls of functions": (
        (
            "engine/functions/test_called_functions.py::"
            "test_an_event_starts_a_function_which_is_called_as_the_protocol_says"
        ),
        (
            "engine/functions/test_called_functions.py::"
            "test_state_that_is_too_large_is_left_for_the_sdk_to_fetch"
        ),
    ),
    "11 /async": ("engine/test_api_more.py::test_steps_of_an_open_call",),
    "12 live streams": (
        "engine/test_realtime.py::test_a_stream_is_followed",
        "engine/test_api.py::test_output_wakes_with_the_end_of_the_run",
    ),
    "13 any event key in development; an id for each event": (
        "engine/test_events_api.py::test_an_empty_list_and_any_key_will_do_in_dev",
        "engine/test_events_api.py::test_one_event_and_many",
    ),
    "14 /dev, and the kind of server in all answers": (
        "engine/test_api.py::test_other_paths_and_methods",
        "engine/test_guard.py::test_headers_of_every_answer",
    ),
}


@pytest.mark.parametrize("line", CHECKLIST)
def test_the_tests_of_a_line_are_there(line: str) -> None:
    for place in CHECKLIST[line]:
        file, _, name = place.partition("::")
        nodes = ast.parse((TESTS / file).read_text()).body
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in nodes if isinstance(node, functions)}, place

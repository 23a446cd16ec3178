"""One `step.run` in a function of PyPI `inngest`: its result as plain JSON and back into its type,
its failures, and how often it is tried again.

Inngest's SDK calls the body of a step, and ends the call of the function with an interrupt that
reports what came of it. Its `NonRetriableError` and `RetryAfterError` pass the function instead,
which may catch them; so the body hides from it what it has raised, and the report is corrected
here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import inngest
import msgspec
from inngest._internal import server_lib, step_lib

from stephttp._core.annotations import conversion_of
from stephttp._core.encoding import (
    choose_types,
    decode_plain,
    decode_result,
    encode_result,
    refuse_result,
    result_conversion,
)
from stephttp._core.failures import failed_attempt
from stephttp._core.step_options import StepOptions
from stephttp._run.other_runs import here_runs
from stephttp.errors import UsageError
from stephttp.integrations._inngest_errors import in_our_terms, in_their_terms, remembered

if TYPE_CHECKING:
    from stephttp.integrations._inngest_run import FunctionRun

_TYPES, _VALUE = "stephttp:types", "value"
"""The fields of a result whose JSON leaves open which members of unions it is made of."""


class FunctionStep:
    """One step that runs in the process of its function.

    Args:
        run: its run.
        step_id: names it.
        handler: its function.
        options: of the step.

    Raises:
        TypeError: `handler` is not a function.
        UsageError: more retries are asked for than the function has.
        StepResultError: what `handler` returns cannot be stored.
    """

    def __init__(
        self, run: FunctionRun, step_id: str, handler: Callable[..., Any], options: StepOptions
    ) -> None:
        if not callable(handler):
            raise TypeError(
                f"step {step_id!r}: its function must be one, not {handler!r}; give the function "
                "itself and its arguments, as in step.run('charge', charge_card, order)"
            )
        if options.output_type is Any:
            self._conversion = result_conversion(handler)
        else:
            self._conversion = conversion_of(options.output_type, f"step {step_id!r}")
        if self._conversion.refusal:
            refuse_result(self._conversion, step_id)
        self._run = run
        self._options = options
        self._attempts = _attempts(run, step_id, options)
        self.step_id = step_id
        self._error: Exception | None = None

    @contextmanager
    def attempt(self) -> Generator[None]:
        """Run the body inside: it is in this step, and what it raises is reported by `ending`."""
        token = here_runs.set(self._run.inside(self.step_id))
        try:
            yield
        except Exception as error:
            self._error = error
            raise _BodyFailed from error
        finally:
            here_runs.reset(token)

    def stored(self, value: Any) -> Any:
        """Return what the body returned as plain JSON.

        Raises:
            StepResultError: it cannot be stored.
        """
        raw = encode_result(value, self.step_id)
        decoded = decode_result(raw, self._conversion, self.step_id, None, value)
        plain = decode_plain(raw)
        if not self._conversion.keeps_choices:
            return plain
        _, kept = choose_types(value, decoded, raw, self._conversion, self.step_id)
        return plain if kept is None else {_TYPES: decode_plain(kept), _VALUE: plain}

    def result(self, plain: Any) -> Any:
        """Return what the function gets of a result that is remembered."""
        kept = None
        if self._conversion.keeps_choices and isinstance(plain, dict) and _TYPES in plain:
            kept, plain = msgspec.json.encode(plain[_TYPES]), plain[_VALUE]
        return decode_result(msgspec.json.encode(plain), self._conversion, self.step_id, kept)

    @contextmanager
    def ending(self) -> Generator[None]:
        """Call the step inside: see that its failure is reported as it is."""
        try:
            yield
        except step_lib.ResponseInterrupt as interrupt:
            if self._error is not None:
                self._report(interrupt.responses[0], self._error)
            raise
        except inngest.StepError as error:
            raise remembered(error) from None

    def _report(self, response: step_lib.StepResponse, error: Exception) -> None:
        attempt = self._run.attempt
        info, later = failed_attempt(
            in_our_terms(error), self._options, attempt, time.time_ns(), random.random
        )
        final = info.no_retry is True or attempt + 1 >= self._attempts
        opcode = server_lib.Opcode
        response.step.op = opcode.STEP_FAILED if final else opcode.STEP_ERROR
        response.original_error = in_their_terms(error)
        if later is not None and not final:
            # Only the answer of a whole call can ask for a time.
            when = datetime.fromisoformat(later)
            self._run.later = inngest.RetryAfterError(str(error), when)


class _BodyFailed(Exception):
    """What Inngest's SDK sees of an exception in the body of a step."""


def _attempts(run: FunctionRun, step_id: str, options: StepOptions) -> float:
    """Return how often a step is tried at most, as far as that is known.

    Raises:
        UsageError: its options ask for more than its function has.
    """
    most = float("inf") if run.max_attempts is None else run.max_attempts
    if options.retries is None:
        return most
    if options.retries + 1 > most:
        raise UsageError(
            f"step {step_id!r}: retries={options.retries} is more than its function has "
            f"({run.max_attempts - 1 if run.max_attempts else 0}), and the server tries no step "
            "more often; set create_function(retries=...) to the largest number of its steps"
        )
    return options.retries + 1

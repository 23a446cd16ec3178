"""`StepMiddleware`: what makes the step tools of stephttp work in functions of PyPI `inngest`, by
setting what they find while a function is called.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any

import inngest

from stephttp._run.current import current_call
from stephttp._run.other_runs import here_runs
from stephttp.integrations._inngest_errors import in_their_terms
from stephttp.integrations._inngest_run import FunctionRun
from stephttp.integrations._inngest_tools import AsyncRun, BlockingRun

if TYPE_CHECKING:
    from stephttp._run.current import CurrentCall
    from stephttp._run.other_runs import OtherRun


class StepMiddleware(inngest.MiddlewareSync):
    """Makes the step tools of stephttp work in functions of PyPI `inngest`, so that code with steps
    is written once: `from stephttp import step` in `async def` functions, and
    `from stephttp.sync import step` in plain ones.

        client = inngest.Inngest(app_id="shop", middleware=[StepMiddleware])

    Or for one function, `client.create_function(..., middleware=[StepMiddleware])`. The tools have
    the ids, arguments, results and exceptions that they have in endpoints (docs/other-sdks.md says
    where they differ); `ctx.step` continues to work beside them. Durable endpoints ignore it.

    Args:
        client: the client that it was given to.
        raw_request: the request of the framework.
    """

    def __init__(self, client: inngest.Inngest, raw_request: object) -> None:
        super().__init__(client, raw_request)
        self._run: FunctionRun | None = None
        self._tokens: tuple[Token[CurrentCall | None], Token[OtherRun | None]] | None = None

    def transform_input(
        self,
        ctx: inngest.Context | inngest.ContextSync,
        function: inngest.Function[Any],
        steps: inngest.StepMemos,
    ) -> None:
        """Begin a call of a function.

        Args:
            ctx: of the call.
            function: the function.
            steps: what is remembered.
        """
        step: Any = ctx.step
        outer: OtherRun | None = here_runs.get()
        # An endpoint has no `ctx.step`. It may be there twice: for the client, and the function.
        if step is None or (isinstance(outer, AsyncRun | BlockingRun) and outer.is_of(ctx)):
            return
        if isinstance(ctx, inngest.ContextSync):
            self._run = BlockingRun(self.client, ctx)
        else:
            self._run = AsyncRun(self.client, ctx)
        # The request that calls the function, or one whose handler calls it, is not its own.
        self._tokens = current_call.set(None), here_runs.set(self._run)

    def after_execution(self) -> None:
        """End the call as its failed step wants it.

        Raises:
            inngest.RetryAfterError: the step is to be tried again at a time of its own.
        """
        if self._run is not None and self._run.later is not None:
            later, self._run.later = self._run.later, None
            raise later

    def transform_output(self, result: inngest.TransformOutputResult) -> None:
        """Report the error of a function in the terms of Inngest's SDK.

        Args:
            result: what the function, or one of its steps, has ended with.
        """
        if self._run is not None and result.error is not None and result.step is None:
            result.error = in_their_terms(result.error)

    def before_response(self) -> None:
        """End the call. (Where other middleware fails before, the run knows by itself that it has
        ended.)"""
        if self._tokens is not None:
            call, run = self._tokens
            self._tokens = None
            here_runs.reset(run)
            current_call.reset(call)

"""Exceptions in functions of PyPI `inngest`: those of stephttp as that SDK's, and back.

raised in a step, or leaving a function    what Inngest's SDK reports
stephttp.NonRetriableError                 inngest.NonRetriableError
stephttp.RetryAfterError                   inngest.RetryAfterError, with its time
stephttp.StepError                         inngest.StepError: its name, message and traceback
UsageError, StepResultError                the same: another attempt would only raise it again
any other                                  itself
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import inngest

from stephttp._core.failures import error_info, is_final, step_error
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import NonRetriableError, RetryAfterError, StepError


def in_our_terms(error: Exception) -> Exception:
    """Return what an exception means in the terms of stephttp; itself if it means nothing there."""
    if isinstance(error, inngest.NonRetriableError):
        return NonRetriableError(str(error))
    if isinstance(error, inngest.RetryAfterError):
        when = error.retry_after
        # Theirs is in local time, and does not say so.
        return RetryAfterError(str(error), when if when.tzinfo else when.astimezone())
    return error


def in_their_terms(error: Exception) -> Exception:
    """Return an exception in the terms of Inngest's SDK; see the table on top."""
    if isinstance(error, NonRetriableError):
        found: Exception = inngest.NonRetriableError(str(error))
    elif isinstance(error, RetryAfterError):
        found = retry_after(error)
    elif isinstance(error, StepError) or is_final(error):
        info = error_info(error)
        found = inngest.StepError(info.message, info.name, info.stack)
    else:
        return error
    return found.with_traceback(error.__traceback__)


def retry_after(error: RetryAfterError) -> inngest.RetryAfterError:
    """Return the wish for a later attempt, in the terms of Inngest's SDK."""
    when = error.retry_after
    if isinstance(when, timedelta):
        when = datetime.now(UTC) + when
    return inngest.RetryAfterError(str(error), when)


def remembered(error: inngest.StepError) -> StepError:
    """Return a remembered failure of a step, as endpoints get it. Inngest's SDK keeps neither its
    `data`, nor its cause, nor the parts of a group."""
    return step_error(ErrorInfo(error.name, error.message, error.stack))

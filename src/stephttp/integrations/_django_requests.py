"""Ends a request of Django whose view was unwound, because its run has to wait: `request_finished`,
database connections.

Django closes its connections, and what else an application does after each request, at the signal
`request_finished`. It sends that with the response. Where a `BaseException` ends a view there is
no response, and under ASGI the request's thread ends with a connection that is still open.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished

from stephttp._run.echoes import is_suspension


def watch() -> None:
    """Wrap the methods that see a request from its start to its end."""
    for class_, name, finished in _WRAPPED:
        setattr(class_, name, finished(getattr(class_, name)))


def _finished(method: Any) -> Any:
    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            if is_suspension(error):
                request_finished.send(sender=self.__class__)
            raise

    return wrapper


def _finished_async(method: Any) -> Any:
    @functools.wraps(method)
    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await method(self, *args, **kwargs)
        except BaseException as error:
            if is_suspension(error):
                # In the thread of the view, which lives until the caller of `handle` returns.
                await request_finished.asend(sender=self.__class__)
            raise

    return wrapper


_WRAPPED: list[tuple[type[Any], str, Callable[[Any], Any]]] = [
    (ASGIHandler, "handle", _finished_async),
    (WSGIHandler, "__call__", _finished),
]

"""Finds the providers of an application, and lets them work for a test.

An application is made when its module is imported, with providers whose engine is somewhere on the
network. For the time of a test they get another way to an engine, its clock, and an empty outbox;
afterwards they are as they were. The application itself is not changed.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, Unpack
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from stephttp._run.runtime import Replaced, Runtime
from stephttp.asgi import ASGIMiddleware
from stephttp.errors import ConfigurationError, UsageError
from stephttp.provider import Provider
from stephttp.testing.findings import Place
from stephttp.wsgi import WSGIMiddleware

_MOST = 100_000
"""Objects that are looked at; applications with more have their middleware near the surface."""
_LEAVES = (str, bytes, bytearray, int, float, complex, type, ModuleType, type(None))
_DURABLE = (Provider, ASGIMiddleware, WSGIMiddleware)

_NO_MIDDLEWARE = (
    "found no stephttp middleware in the application {app!r}, so none of its requests can be a "
    "durable run; add it (app.add_middleware(stephttp.ASGIMiddleware, provider=provider), "
    "provider.asgi(app) or provider.wsgi(app)) and give the wrapped application, or name its "
    "provider: DurableClient(app, provider=provider)"
)

_taken: WeakKeyDictionary[Runtime, Place] = WeakKeyDictionary()
"""The providers that work for a test, and the line that has opened its client."""


def runtimes_of(app: Any, providers: Iterable[Provider] = ()) -> list[Runtime]:
    """Return what the durable middleware of an application shares, by provider.

    Looks through attributes, containers, closures, and the arguments of middleware that is not
    made yet.

    Args:
        app: the application.
        providers: those that are known.

    Raises:
        ConfigurationError: it has no such middleware.
    """
    found = dict.fromkeys(provider.runtime for provider in providers)
    seen: set[int] = set()
    left = deque([app])
    while left and len(seen) < _MOST:
        one = left.popleft()
        # Never `isinstance`, which asks proxies such as `flask.request` what they stand for.
        kind = type(one)
        if issubclass(kind, _LEAVES) or id(one) in seen:
            continue
        seen.add(id(one))
        if issubclass(kind, Runtime):
            found[one] = None
        elif issubclass(kind, Provider):
            found[one.runtime] = None
        else:
            left.extend(_parts(one))
    if not found:
        raise ConfigurationError(_NO_MIDDLEWARE.format(app=app))
    return list(found)


def is_wsgi(app: Any) -> bool:
    """Return whether an application is one of WSGI; else it is one of ASGI.

    Raises:
        ConfigurationError: it cannot be called.
    """
    if not callable(app):
        raise ConfigurationError(f"app must be an ASGI or WSGI application, not {app!r}")
    while isinstance(app, partial):
        app = app.func
    return not any(map(inspect.iscoroutinefunction, (app, getattr(app, "__call__", None))))  # noqa: B004


@contextmanager
def taken_over(
    runtimes: Iterable[Runtime],
    engine: str,
    monotonic: Callable[[], float],
    opened_at: Place,
    **replaced: Unpack[Replaced],
) -> Generator[None]:
    """Let providers work with the engine of a test, in development.

    Args:
        runtimes: of the providers.
        engine: its origin.
        monotonic: a clock, in seconds, for how long callers are held and results waited for.
        opened_at: the line of the test that does so.
        **replaced: see `Runtime`.

    Raises:
        UsageError: another test has one of them.
    """
    with ExitStack() as stack:
        for runtime in runtimes:
            if runtime in _taken:
                other = _taken[runtime]
                where = f", opened at {other.file}:{other.line}" if other.line else ""
                raise UsageError(
                    f"this application is open in another DurableClient{where}; close that first, "
                    "or send all requests of a test with one client"
                )
            _taken[runtime] = opened_at
            stack.callback(_taken.pop, runtime, None)
            settings = replace(
                runtime.settings, base_url=engine, event_base_url="", env="", dev=True,
                signing_key="", signing_key_fallback="",
                record_inputs=not runtime.settings.middleware, origin_from_request=True,
                serves_at_proxy=False, serve_prefix=None,
            )  # fmt: skip
            stack.enter_context(runtime.replaced(settings, **replaced))
            vars(runtime)["monotonic"] = monotonic
        yield


def _parts(one: Any) -> Iterable[Any]:
    """Return what an object is made of."""
    kind = type(one)
    if issubclass(kind, dict):
        return list(dict.values(one))
    if issubclass(kind, list | tuple | set | frozenset | deque):
        return list(one)
    if kind is partial:
        return (one.func, *one.args, *one.keywords.values())
    if kind is MethodType:
        return (one.__self__, one.__func__)
    if kind is FunctionType:
        return _parts_of_function(one)
    names = ["__dict__", *(name for base in kind.__mro__ for name in _slots(base))]
    values = []
    for name in names:
        try:
            values.append(object.__getattribute__(one, name))
        except AttributeError:  # it is not set
            continue
    return values


def _parts_of_function(function: FunctionType) -> list[Any]:
    values: list[Any] = [function.__dict__]
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # it is empty
            continue
    # Not all of the globals: they lead to other applications.
    names = (function.__globals__.get(name) for name in function.__code__.co_names)
    return values + [one for one in names if issubclass(type(one), _DURABLE)]


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))

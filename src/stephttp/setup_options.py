"""Options of `setup`: each with its meaning and its default."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypedDict, cast

from msgspec import Struct, field, structs

from stephttp._core import checks
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.conversion import Converter
from stephttp._core.endpoint_options import AsyncResponse, OnDivergence
from stephttp._core.retry_policy import ExceptionTypes
from stephttp._wire.http import Request, Response
from stephttp._wire.progress import WaitingRun
from stephttp.middleware import MiddlewareFactory


class SetupOptions(TypedDict, total=False):
    """The options of `setup`. Each may be left out."""

    track_all_endpoints: bool
    """Also record requests that use no steps."""

    default_async_response: AsyncResponse | None
    """The answer to a request that goes async; default `AsyncResponseRedirect()`."""

    signing_key: str | None
    """Shared with the server; default `INNGEST_SIGNING_KEY`."""

    signing_key_fallback: str | None
    """Tried when the first is refused; default `INNGEST_SIGNING_KEY_FALLBACK`."""

    base_url: str | None
    """Origin of the engine or server. Default: `INNGEST_BASE_URL`; then, with `INNGEST_DEV` set,
    that variable if it is a URL, else `http://127.0.0.1:8288`; then `https://api.inngest.com`."""

    event_key: str | None
    """For `step.send_event`; default `INNGEST_EVENT_KEY`. A development server needs none."""

    env: str | None
    """Branch environment, sent as `x-inngest-env`; default `INNGEST_ENV`."""

    restore_headers: Collection[str] | None
    """Names of the request headers that a re-entry gets back, instead of
    `stephttp.DEFAULT_RESTORE_HEADERS`. Credentials, and headers that are not among the defaults,
    are encrypted with the signing key."""

    result_path: str | None
    """A path such as `/_stephttp/result`, at which this API then serves the results of its runs, so
    that callers need not reach the server. Redirects point there."""

    hold: timedelta | float
    """How long a caller is held at `result_path` before it is redirected there again: a
    `timedelta`, or seconds, from 1 to 240. Default: 50, because proxies give up after 60."""

    waiting_page: Callable[[WaitingRun], str | Response] | None
    """Makes the page (HTML) that a browser shows at `result_path` until the run has ended, instead
    of the one of the SDK. A plain function; gets a `WaitingRun`."""

    serve_origin: str | None
    """Origin at which the server re-enters this API, if that is not `domain`. Counts in development
    too. The server then uses the path that callers use: with what proxies take off it, as far as
    the application says that (`root_path`, `SCRIPT_NAME`)."""

    serve_prefix: str | None
    """What proxies take off the paths of this API, such as `/api`, where the server is to put it
    in front of them; `""`: nothing. Default: see `serve_origin`."""

    trusted_proxies: Iterable[str]
    """Addresses and networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For`, `-Host` and
    `-Proto` are believed."""

    max_body_bytes: int
    """The largest request body (bytes) of a run that may wait, and the largest response body that
    is kept with a finished run."""

    checkpointing: Checkpointing
    """When steps are sent while the request is still being answered; see `Checkpointing`.
    `configure` changes it for one request."""

    idempotency_header: str | None
    """Name of a request header, usually `Idempotency-Key`. Of the POST, PUT, PATCH and DELETE
    requests of one caller (see `idempotency_scope`) that carry the same value, the first is
    executed, and the others get its answer; one that differs in method, path, query or body gets
    422. Keys are forgotten after 24 hours. Costs a call of the engine before the handler; needs the
    stephttp engine."""

    idempotency: Callable[[Request], str | None] | None
    """Instead of a header, a function of the request (its body is not there yet) that returns the
    key, or `None` for a request without one. Its keys do not depend on the caller: let them hold
    who it is, or set `idempotency_scope`."""

    idempotency_scope: Callable[[Request], str | None] | None
    """A plain function of the request (its body is not there yet) that returns who sent it, such as
    a user's id that it has verified. Keys of two callers are two keys. `None` stands for callers
    who are not known: they share their keys, and only the first gets cookies that the answer sets.
    By default the caller is known by credentials in headers and by the cookie of its session."""

    background: bool | None
    """False: a response ends when its run is delivered, for hosts that stop a process between
    requests. Default: False on AWS Lambda (`AWS_LAMBDA_FUNCTION_NAME` is set), and True elsewhere:
    finished runs are delivered in the background, and no request waits for that."""

    middleware: Sequence[MiddlewareFactory]
    """Classes of `Middleware`, or functions that make one from a `RunContext`; the first is the
    outermost."""

    converters: Sequence[Converter[Any]]
    """How values of types of your own are stored, for what neither msgspec nor pydantic knows.
    Shared by all providers of the process."""

    retries: int | None
    """How often a failed step, and a resumed handler that fails, is tried again (0 to 20), where
    the endpoint or the step does not say it; default: 0. This and the four below are those of
    `configure`, for all endpoints."""

    delay: timedelta | None
    """The pause before the first repetition; each further one is twice as long."""

    max_delay: timedelta | None
    """The longest pause."""

    retry_on: ExceptionTypes | None
    """Only these types of exceptions are worth a repetition."""

    give_up_on: ExceptionTypes | None
    """These types of exceptions are not worth one."""

    on_divergence: OnDivergence
    """What becomes of a run whose handler no longer fits what is remembered of it, because it has
    changed: `"warn"`, the default, or `"fail"`."""

    record_inputs: bool | None
    """Send the positional arguments of steps with their results, for people to look at and to edit
    for a rerun: those that have a JSON form, up to 64 KiB a step. Default: in development without
    middleware, and not elsewhere, because they may hold what is not to be stored, and encoding them
    takes time."""


class OptionalSetupOpts(Struct, frozen=True):
    """The optional part of `SetupOpts`; see `setup` for what each of them means."""

    track_all_endpoints: bool = False
    default_async_response: AsyncResponse | None = None
    signing_key: str | None = None
    signing_key_fallback: str | None = None
    base_url: str | None = None
    middleware: Sequence[MiddlewareFactory] = ()

    def __repr__(self) -> str:
        return checks.without_secrets(self)


class SetupOpts(Struct, frozen=True):
    """The arguments of `setup` as one value, as the Go package has them.

    Attributes:
        domain: see `setup`.
        optional: the rest.
    """

    domain: str
    optional: OptionalSetupOpts = field(default_factory=OptionalSetupOpts)


def merged(optional: OptionalSetupOpts, given: SetupOptions) -> SetupOptions:
    """Return all options; those that were given beside `SetupOpts` win (`None`: not given)."""
    beside = {name: value for name, value in given.items() if value is not None}
    return cast(SetupOptions, {**structs.asdict(optional), **beside})

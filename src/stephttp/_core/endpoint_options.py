"""`FnOpts`, and the answers to a caller whose run goes to the background: `AsyncResponseRedirect`,
`AsyncResponseToken`, `AsyncResponseCustom`.

Plain data: `configure`, the endpoint decorator and `setup` fill it in, `_client` acts on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import Struct

from stephttp._core.retry_policy import RetryPolicy
from stephttp._wire.http import Request, Response


class AsyncRequest(Request):
    """The request whose run continues in the background, for `AsyncResponseCustom`.

    Attributes:
        method, path, query, headers, client, scheme, body: the request; header names are lower
            case, names and values bytes. `header(b"accept")` gives the first value as text.
        route: the template of its route, such as `/users/{id}`; empty where the framework does not
            say it, and where the endpoint has an id of its own.
        run_id: the run's ULID.
        token: opens the run's result.
        result_url: where the result can be waited for. A path when `result_path` is set.
    """

    run_id: str = ""
    token: str = ""
    result_url: str = ""


class AsyncResponseRedirect(Struct, frozen=True):
    """Redirect the caller (303) to a URL that blocks until the run ends, and gives its result.

    Attributes:
        url: makes the URL from run id and token; by default `result_path` on this API's own
            origin if that is set, else the engine's or server's output URL.
    """

    url: Callable[[str, str], str] | None = None


class AsyncResponseToken(Struct, frozen=True):
    """Answer 200 with `{"run_id": ..., "token": ..., "result_url": ...}`; the caller fetches the
    result."""


class AsyncResponseCustom(Struct, frozen=True):
    """Answer with the return value of your function.

    Attributes:
        handler: gets an `AsyncRequest`, returns a `Response`; may be async. An exception of it is
            an error of the request, but the run continues.
    """

    handler: Callable[[AsyncRequest], Response | Awaitable[Response]]


AsyncResponse = AsyncResponseRedirect | AsyncResponseToken | AsyncResponseCustom
"""How a request that goes async is answered."""


OnDivergence = Literal["warn", "fail"]
"""What becomes of a run whose handler no longer fits what is remembered of it."""


class FnOpts(RetryPolicy, frozen=True):
    """Options of one endpoint, for `configure` and `Provider.endpoint`.

    Attributes:
        id: name of the endpoint; empty means method and route template, or method and path where
            the framework knows no template.
        omit_request_body: keep the request's body out of the server's record of the run. A run
            that goes async still has it on re-entry, sealed in the request capsule.
        omit_response_body: keep the response's body out of the record of a run that ended
            without waiting. (A run that went async delivers its answer through the server.)
        async_response: how a request that goes async is answered; `None` is the provider's default.
        retries: how often a failed step, and a resumed handler that fails, is tried again.
        delay, max_delay, retry_on, give_up_on: when and after which exceptions, where the step
            itself does not say it; see `configure`. These and `retries` are keywords only.
        on_divergence: what becomes of a run whose handler no longer fits what is remembered of it:
            `warn` or `fail`; `None` is the provider's default.
    """

    id: str = ""
    omit_request_body: bool = False
    omit_response_body: bool = False
    async_response: AsyncResponse | None = None
    on_divergence: OnDivergence | None = None


DEFAULT_OPTS = FnOpts()

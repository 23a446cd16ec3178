"""The engine's settings: every limit, time and default. The CLI fills them in from options
and environment variables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random

from stephttp._version import __version__
from stephttp._wire.result_address import HOLD, LONGEST_HOLD, SHORTEST_HOLD
from stephttp._wire.signatures import hash_key
from stephttp.errors import ConfigurationError

FEATURES = (
    "pending, raw-response, step-retries, batch, leases, idempotency, reentry-state, "
    "steps-with-result, step-names, fenced-calls, warnings, signed-calls, "
    "outputs-without-cookies, further-keys, run-streams, run-links, run-limits"
)
"""Abilities beyond Inngest's protocol, as announced in `X-Stephttp-Features`."""

VERSION = __version__

SHORTEST_LEASE, LONGEST_LEASE = 1_000, 60_000
"""Milliseconds. After a restart every lease gets the longest, in which its holder, if it lives,
renews it at least once; see `work.leases.extend_all`."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing delays between tries.

    Attributes:
        first: seconds before the first repetition.
        factor: what each further delay is multiplied by.
        longest: seconds that no delay exceeds (before jitter).
        jitter: up to this fraction of the delay is added at random, so that many runs that
            failed together do not come back together.
    """

    first: float = 1.0
    factor: float = 2.0
    longest: float = 60.0
    jitter: float = 0.1

    def delay_ms(self, repetition: int, rng: Random) -> int:
        """Milliseconds before the given repetition (0 is the first)."""
        # Beyond 64 doublings any cap is reached; the bound keeps the power from overflowing.
        delay = min(self.longest, self.first * self.factor ** min(repetition, 64))
        return round(delay * (1 + self.jitter * rng.random()) * 1000)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about an engine that can be chosen.

    Attributes:
        db_path: the SQLite file, or `:memory:`.
        signing_keys: keys that requests may carry; the first one signs re-entries. None: the
            engine is of kind `dev` and checks nothing.
        host: where a server of this engine listens; informative, another library runs it.
        port: see `host`.
        concurrency: how many endpoints are called at once; an origin may have as many calls as it
            leaves free, so half of them if it is the only one.
        retry: delays between attempts of a failed step or handler.
        unreachable: delays between tries to reach an endpoint that does not answer.
        gateway_concurrency: how many HTTP requests are made at once for steps that ask for them;
            the runs of an origin share them with others in the same way.
        gateway_timeout: seconds that one of those may take.
        call_timeout: seconds that one call of an endpoint may take.
        foreign_answer_timeout: seconds for which calls of an endpoint that something else answers,
            such as an instance without the route, are tried again. Then their run fails.
        run_deadline: seconds after its first checkpoint in which a run must end; one that does not
            fails. None: it may take any time.
        connect_timeout: seconds that connecting to an endpoint may take.
        hold: seconds that a caller is held at the address of a result before it is redirected
            there again.
        output_timeout: the same for runs of other SDKs, whose clients then get the protocol's text.
        link_lifetime: seconds that the address of a result is good. None: as long as the run and
            its result are stored.
        realtime_token_lifetime: seconds that a realtime token is valid.
        stream_keep_alive: seconds of silence after which a follower of a stream gets a comment.
        stream_lifetime: seconds that a stream can be followed.
        max_stream: bytes of what a run pushes to those who follow it, as far as it is kept.
        stream_retain: seconds that this is kept after the end of the run.
        max_body: bytes of an API request's body.
        max_response: bytes of an endpoint's answer.
        max_step_output: bytes of one step's result.
        max_steps: steps of one run.
        max_state: bytes of the results of all steps of one run, with the request that travels with
            it.
        max_run_spans: OpenTelemetry spans of one run.
        max_run_spans_bytes: bytes of their details, beside their names and times.
        max_idle_answers: how many answers in a row may bring a run no further.
        lease_probation: seconds after a lease ran out in which its holder may still renew it. So
            an engine that was itself stopped for a while first reads the renewals that arrived
            meanwhile.
        idempotency_ttl: seconds that an idempotency key is remembered.
        retain: seconds that a run is kept after its end. None: forever.
        sweep_interval: seconds between two searches for runs to delete.
        trusted_hosts: host names in requests that an engine of kind `dev` accepts in addition to
            `host`, `localhost` and addresses; `*`: any. It guards against web pages whose own name
            is made to lead here (DNS rebinding).
        ca_file: a file of certificates (PEM) to trust beside those of the system; empty: no file.
        allow_hosts: where calls of endpoints and requests of steps may go, see
            `egress.parse_rule`. None: anywhere.
        private_hosts: whether they may go to private, loopback and other addresses that are not
            public, without being named in `allow_hosts`.
        rate_limit: requests a second that one client address may send to the routes that need no
            signing key (outputs, events). 0: any number.
        rate_burst: how many of them may come at once.
        metrics_token: the token with which metrics can be read, beside the signing keys.
        open_metrics: whether metrics can be read without a token.
        event_keys: keys that events may be sent with. None: any key will do, unless there are
            signing keys; then no events are accepted.
        event_lookback: seconds; a wait also sees events that arrived this long before it.
        event_dedupe: seconds for which a second event with the same `id` ends no waits.
        max_event: bytes of one event.
        max_events: events in one request.
        max_events_body: bytes of a request that brings events.
        dashboard_password: what opens the dashboard, or its hash (`dashboard.passwords`). Empty:
            no login is possible.
    """

    db_path: str = ":memory:"
    signing_keys: tuple[str, ...] = field(default=(), repr=False)
    host: str = "127.0.0.1"
    port: int = 8288
    concurrency: int = 128
    retry: Backoff = Backoff()
    unreachable: Backoff = Backoff(longest=30.0)
    gateway_concurrency: int = 32
    gateway_timeout: float = 300.0
    call_timeout: float = 7200.0
    foreign_answer_timeout: float = 86_400.0
    run_deadline: float | None = None
    connect_timeout: float = 10.0
    hold: float = HOLD
    output_timeout: float = 300.0
    link_lifetime: float | None = None
    realtime_token_lifetime: int = 960
    stream_keep_alive: float = 15.0
    stream_lifetime: float = 900.0
    max_stream: int = 1024 * 1024
    stream_retain: float = 3600.0
    max_body: int = 16 * 1024 * 1024
    max_response: int = 8 * 1024 * 1024
    max_step_output: int = 4 * 1024 * 1024
    max_steps: int = 10_000
    max_state: int = 64 * 1024 * 1024
    max_run_spans: int = 1_000
    max_run_spans_bytes: int = 4 * 1024 * 1024
    max_idle_answers: int = 10
    lease_probation: float = 1.0
    idempotency_ttl: float = 86_400.0
    retain: float | None = None
    sweep_interval: float = 60.0
    trusted_hosts: tuple[str, ...] = ("*",)
    ca_file: str = ""
    allow_hosts: tuple[str, ...] = ()
    private_hosts: bool = True
    rate_limit: float = 0.0
    rate_burst: int = 200
    metrics_token: str | None = field(default=None, repr=False)
    open_metrics: bool = False
    event_keys: tuple[str, ...] = field(default=(), repr=False)
    event_lookback: float = 0.0
    event_dedupe: float = 86_400.0
    max_event: int = 3 * 1024 * 1024
    max_events: int = 5_000
    max_events_body: int = 16 * 1024 * 1024
    dashboard_password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse what could only fail later.

        Raises:
            ConfigurationError: a signing key is not hexadecimal, an event key is empty, a time is
                negative or endless, or there are no call slots.
        """
        for key in self.signing_keys:
            try:
                hash_key(key)
            except ValueError as error:
                raise ConfigurationError(str(error)) from None
        for name in ("concurrency", "gateway_concurrency"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1")
        if not all(self.event_keys):
            raise ConfigurationError("event_keys: an event key must not be empty")
        for name in ("event_lookback", "event_dedupe"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} must be a number of seconds, and not negative")
        if not SHORTEST_HOLD <= self.hold <= LONGEST_HOLD:
            raise ConfigurationError(
                f"hold must be {SHORTEST_HOLD:g} to {LONGEST_HOLD:g} seconds, not {self.hold:g}"
            )
        for name in (
            "call_timeout",
            "connect_timeout",
            "gateway_timeout",
            "foreign_answer_timeout",
            "run_deadline",
            "retain",
            "stream_retain",
            "link_lifetime",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} must be a positive number of seconds")

    @property
    def kind(self) -> str:
        """`dev` or `cloud`, as announced in `x-inngest-server-kind`."""
        return "cloud" if self.signing_keys else "dev"

    @property
    def dashboard_login(self) -> bool:
        """Whether the dashboard is only for those who log in: in production, wherever other
        machines reach it, and if there is a password."""
        return bool(self.signing_keys or self.dashboard_password) or not _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False

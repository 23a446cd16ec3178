"""`stephttp start`: the engine for production; what it refuses to start with, and how it
drains at its stop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Mapping

from stephttp._wire.signatures import split_key
from stephttp.cli import key_sources
from stephttp.cli.ca_file import checked
from stephttp.cli.duration_options import optional_seconds, seconds_of
from stephttp.cli.engine_options import StartOptions
from stephttp.cli.key_sources import read_keys
from stephttp.cli.log_format import set_up
from stephttp.cli.password_option import dashboard_password
from stephttp.cli.ports import PortError, listen
from stephttp.cli.serving import Server, Stop, first_of
from stephttp.cli.terminal import complain
from stephttp.engine.app import create_app
from stephttp.engine.engine import Engine
from stephttp.engine.functions.syncing import Syncing, app_urls
from stephttp.engine.logs import log_event
from stephttp.engine.model.settings import VERSION, Backoff, Settings
from stephttp.engine.outbound.egress import parse_rule
from stephttp.engine.store.database import MEMORY, newest_version
from stephttp.errors import ConfigurationError

log = logging.getLogger(__name__)

# Seconds that open requests get at the very end. Those that wait for a run have ended before.
_REQUEST_GRACE = 2

_SHORTEST_KEY = 32
_SHORTEST_TOKEN = 16
_EVENT_KEY = re.compile(r"[A-Za-z0-9._~-]+")
"""What an address can hold as it is. Keys made for an Inngest server may have any length."""


def resolve(options: StartOptions, environ: Mapping[str, str]) -> Settings:
    """Return the settings for production.

    Raises:
        ConfigurationError: a setting is missing or not valid; the message names it.
    """
    signing = read_keys(
        options.signing_key, options.signing_key_file, environ, key_sources.SIGNING_KEY
    )
    if not signing:
        raise ConfigurationError(
            "no signing key: set INNGEST_SIGNING_KEY, or use --signing-key-file or --signing-key. "
            "`openssl rand -hex 32` makes one; the apps need the same"
        )
    for number, key in enumerate(signing, 1):
        if len(split_key(key)[1]) < _SHORTEST_KEY:
            raise ConfigurationError(
                f"signing key {number} is too short: it needs {_SHORTEST_KEY} hexadecimal digits "
                "(`openssl rand -hex 32` makes 64)"
            )
    events = read_keys(options.event_key, options.event_key_file, environ, key_sources.EVENT_KEY)
    if not events:
        raise ConfigurationError(
            "no event key: set INNGEST_EVENT_KEY, or use --event-key-file or --event-key. "
            "Senders of events have it in their URL; `openssl rand -hex 16` makes one"
        )
    for number, key in enumerate(events, 1):
        if not _EVENT_KEY.fullmatch(key):
            raise ConfigurationError(
                f"event key {number} must consist of A-Z, a-z, 0-9 and any of . _ ~ -, "
                "because senders of events have it in their URL; `openssl rand -hex 16` makes one"
            )
    scrape = read_keys(
        filter(None, [options.metrics_token]),
        options.metrics_token_file,
        environ,
        key_sources.METRICS_TOKEN,
    )
    if len(scrape) > 1:
        raise ConfigurationError("--metrics-token-file: more than one token")
    if scrape and len(scrape[0]) < _SHORTEST_TOKEN:
        raise ConfigurationError(
            f"the metrics token is too short: it needs {_SHORTEST_TOKEN} characters "
            "(`openssl rand -hex 16` makes 32)"
        )
    db, allow_hosts = str(options.db), tuple(options.allow_host or ())
    if db == MEMORY:
        raise ConfigurationError("--db: a file is needed; in memory, every restart loses all runs")
    if not math.isfinite(options.rate_limit):
        raise ConfigurationError("--rate-limit must be a finite number; 0 means no limit")
    for text in allow_hosts:
        parse_rule(text)
    return Settings(
        db_path=db,
        signing_keys=signing,
        event_keys=events,
        host=options.host,
        port=options.port,
        retain=optional_seconds("--retain", options.retain),
        run_deadline=optional_seconds("--run-deadline", options.run_deadline),
        call_timeout=seconds_of("--call-timeout", options.call_timeout),
        foreign_answer_timeout=seconds_of(
            "--foreign-answer-timeout", options.foreign_answer_timeout
        ),
        retry=Backoff(
            first=seconds_of("--retry-delay", options.retry_delay),
            longest=seconds_of("--retry-max-delay", options.retry_max_delay),
        ),
        concurrency=options.concurrency,
        max_body=options.max_body,
        max_state=options.max_state,
        max_stream=options.max_stream,
        stream_retain=seconds_of("--stream-retain", options.stream_retain),
        event_lookback=options.event_lookback,
        hold=seconds_of("--hold", options.hold),
        link_lifetime=optional_seconds("--link-lifetime", options.link_lifetime),
        metrics_token=scrape[0] if scrape else None,
        open_metrics=options.open_metrics,
        ca_file=checked(options.ca_file),
        allow_hosts=allow_hosts,
        private_hosts=False,
        rate_limit=options.rate_limit,
        rate_burst=options.rate_burst,
        dashboard_password=dashboard_password(options.dashboard_password_file, environ),
    )


async def run_start(options: StartOptions, environ: Mapping[str, str]) -> int:
    """Run until SIGTERM or Ctrl-C, and return the exit code.

    0 after a signal, 1 when the engine cannot run, 2 when the configuration is wrong.
    """
    try:
        settings = resolve(options, environ)
        grace, urls = seconds_of("--grace", options.grace), app_urls(options.app)
    except ConfigurationError as error:
        complain(f"cannot start: {error}")
        return 2
    stop = Stop()
    try:
        listener, url = listen(settings.host, settings.port)
    except PortError as error:
        complain(str(error))
        return 1
    with listener:
        set_up(options.log_format)
        app = create_app(settings)
        engine: Engine = app.state.engine
        try:
            await engine.start()
        except ConfigurationError as error:
            complain(f"cannot start: {error}")
            return 1
        proxies = options.trust_proxy or ("127.0.0.1",)
        server = Server(app, listener, _REQUEST_GRACE, engine.drain, proxies)
        serving = asyncio.create_task(server.run_until_exit())
        syncing = Syncing(engine.functions, engine.clock, settings, urls, notify=_log_sync)
        try:
            await first_of(server.ready, serving, stop.asked)
            if server.ready.done():
                _log_start(settings, url)
                syncing.start()
                await first_of(serving, stop.asked)
            if stop.asked.done():
                await _drain(engine, stop, grace)
        finally:
            begun = time.monotonic()
            server.should_exit = True
            await syncing.stop()
            await asyncio.wait({serving})
            await engine.stop()
            took_ms = round((time.monotonic() - begun) * 1000)
            log_event(log, logging.INFO, "engine.stop", "engine stopped", took_ms=took_ms)
    if stop.asked.done():
        return 0
    complain("the engine has failed; its log says why")
    return 1


async def _drain(engine: Engine, stop: Stop, grace: float) -> None:
    """Let the calls under way finish. The API stays open: they need it to report, and those who
    wait for a result can have it yet."""
    engine.executor.drain()
    quiet = asyncio.create_task(engine.executor.quiet())
    await asyncio.wait({quiet, stop.hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
    if not quiet.done():
        quiet.cancel()
        log_event(
            log, logging.WARNING, "engine.drain_incomplete", "calls under way are given up; they "
            "are repeated at the next start", hurried=stop.hurry.done(), grace_s=grace,
        )  # fmt: skip


def _log_sync(line: str) -> None:
    log_event(log, logging.INFO, "app.asked", line)


def _log_start(settings: Settings, url: str) -> None:
    log_event(
        log,
        logging.INFO,
        "engine.start",
        "engine ready",
        url=url,
        host=settings.host,
        version=VERSION,
        schema=newest_version(),
        db=settings.db_path,
        signing_keys=len(settings.signing_keys),
        event_keys=len(settings.event_keys),
        retain_s=settings.retain,
        run_deadline_s=settings.run_deadline,
        concurrency=settings.concurrency,
        allow_hosts=list(settings.allow_hosts),
        rate_limit=settings.rate_limit,
        max_body=settings.max_body,
    )

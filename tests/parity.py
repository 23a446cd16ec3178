"""Every exported name, field and method of the Go package `stephttp`, and its Python counterpart.

`tests/client/test_parity.py` proves each row by use, and checks that docs/migrating-from-go.md
shows this very table.
"""

ROWS: list[tuple[str, str, str]] = [
    ("Setup", "setup", "keywords, or one `SetupOpts`"),
    ("Configure", "configure", "no context argument; keywords, or one `FnOpts`"),
    ("UpdateOmitResponseBody", "update_omit_response_body", ""),
    ("NewAPIClient", "APIClient", "blocking: `stephttp.sync.APIClient`"),
    ("APIClient", "APIClient", ""),
    ("APIClient.CheckpointNewRun", "APIClient.checkpoint_new_run", ""),
    ("APIClient.CheckpointSteps", "APIClient.checkpoint_steps", ""),
    (
        "APIClient.CheckpointResponse",
        "APIClient.checkpoint_response",
        "status and headers are kept",
    ),
    ("APIClient.GetSteps", "APIClient.get_steps", "decoded JSON"),
    ("APIResult", "APIResult", ""),
    ("APIResult.StatusCode", "APIResult.status_code", "`status` on the wire"),
    ("APIResult.Headers", "APIResult.headers", ""),
    ("APIResult.Body", "APIResult.body", "text on the wire, not base64"),
    ("APIResult.Duration", "APIResult.duration", "a `timedelta`"),
    ("APIResult.Error", "APIResult.error", ""),
    ("AsyncResponse", "AsyncResponse", "a union"),
    ("AsyncResponseCustom", "AsyncResponseCustom", "gets a request, returns a `Response`"),
    ("AsyncResponseRedirect", "AsyncResponseRedirect", ""),
    ("AsyncResponseRedirect.URL", "AsyncResponseRedirect.url", ""),
    ("AsyncResponseToken", "AsyncResponseToken", ""),
    ("CheckpointNewRunRequest", "CheckpointNewRunRequest", ""),
    ("CheckpointNewRunRequest.RunID", "CheckpointNewRunRequest.run_id", "a `str`"),
    ("CheckpointNewRunRequest.Idempotency", "CheckpointNewRunRequest.idempotency", ""),
    ("CheckpointNewRunRequest.Event", "CheckpointNewRunRequest.event", "a `RunEvent`"),
    ("CheckpointNewRunRequest.Steps", "CheckpointNewRunRequest.steps", "`Op` values"),
    ("CheckpointRun", "CheckpointRun", ""),
    ("CheckpointRun.FnID", "CheckpointRun.fn_id", "a `str`"),
    ("CheckpointRun.AppID", "CheckpointRun.app_id", "a `str`"),
    ("CheckpointRun.RunID", "CheckpointRun.run_id", "a `str`"),
    ("CheckpointRun.Token", "CheckpointRun.token", ""),
    ("CheckpointRun.Stack", "CheckpointRun.stack", ""),
    ("CheckpointRun.Signature", "CheckpointRun.signature", ""),
    ("CheckpointRun.Attempt", "CheckpointRun.attempt", ""),
    ("FnOpts", "FnOpts", "also as keywords of `configure` and `Provider.endpoint`"),
    ("FnOpts.ID", "FnOpts.id", ""),
    ("FnOpts.OmitRequestBody", "FnOpts.omit_request_body", "encrypted when the run waits"),
    ("FnOpts.OmitResponseBody", "FnOpts.omit_response_body", ""),
    ("FnOpts.AsyncResponse", "FnOpts.async_response", ""),
    ("NewAPIRunData", "NewAPIRunData", ""),
    ("NewAPIRunData.Domain", "NewAPIRunData.domain", "an origin"),
    ("NewAPIRunData.Method", "NewAPIRunData.method", ""),
    ("NewAPIRunData.Path", "NewAPIRunData.path", ""),
    ("NewAPIRunData.Fn", "NewAPIRunData.fn", ""),
    ("NewAPIRunData.IP", "NewAPIRunData.ip", ""),
    ("NewAPIRunData.ContentType", "NewAPIRunData.content_type", ""),
    ("NewAPIRunData.QueryParams", "NewAPIRunData.query_params", ""),
    ("NewAPIRunData.Body", "NewAPIRunData.body", "bytes"),
    ("OptionalSetupOpts", "OptionalSetupOpts", "also as keywords of `setup`"),
    ("OptionalSetupOpts.TrackAllEndpoints", "OptionalSetupOpts.track_all_endpoints", ""),
    ("OptionalSetupOpts.DefaultAsyncResponse", "OptionalSetupOpts.default_async_response", ""),
    ("OptionalSetupOpts.SigningKey", "OptionalSetupOpts.signing_key", ""),
    ("OptionalSetupOpts.SigningKeyFallback", "OptionalSetupOpts.signing_key_fallback", ""),
    ("OptionalSetupOpts.BaseURL", "OptionalSetupOpts.base_url", "also `INNGEST_BASE_URL`"),
    ("OptionalSetupOpts.Middleware", "OptionalSetupOpts.middleware", "docs/middleware.md"),
    ("Provider", "Provider", ""),
    ("Provider.ServeHTTP", "Provider.endpoint", "decorates one handler, behind the middleware"),
    ("Provider.Middleware", "Provider.asgi", "for WSGI applications `Provider.wsgi`"),
    ("Provider.Wait", "Provider.wait", "blocking: `Provider.wait_sync`"),
    ("SetupOpts", "SetupOpts", ""),
    ("SetupOpts.Domain", "SetupOpts.domain", ""),
    ("SetupOpts.Optional", "SetupOpts.optional", ""),
]


def markdown() -> str:
    """The table of docs/migrating-from-go.md."""
    lines = ["| Go | Python | what differs |", "|---|---|---|"]
    lines += [f"| `{go}` | `{python}` | {note} |" for go, python, note in ROWS]
    return "\n".join(lines) + "\n"

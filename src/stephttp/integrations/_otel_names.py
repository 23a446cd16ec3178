"""Names of attributes: OpenTelemetry's semantic conventions for HTTP, and those by which
Inngest's TypeScript SDK ties spans to runs and steps.
"""

SCOPE = "stephttp"
"""The instrumentation scope."""

RUN_ID = "sdk.run.id"
STEP_ID = "inngest.step.id"
STEP_INDEX = "inngest.step.index"
STEP_HASH = "inngest.step.hash"
STEP_ATTEMPT = "inngest.step.attempt"

OP = "stephttp.step.op"
ENDPOINT = "stephttp.endpoint"
OUTCOME = "stephttp.outcome"
CALL_ATTEMPT = "stephttp.call.attempt"
CALL_KIND = "stephttp.call.kind"

METHOD = "http.request.method"
PATH = "url.path"
SCHEME = "url.scheme"
STATUS = "http.response.status_code"
ERROR_TYPE = "error.type"

USERLAND = "stephttp.userland"
"""Key in a context: the attributes that spans of the user's get."""

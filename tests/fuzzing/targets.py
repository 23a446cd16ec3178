"""All targets of the fuzzer, by name."""

from __future__ import annotations

from tests.fuzzing import engine_requests, hostile_application, readers, sdk_calls
from tests.fuzzing.cases import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *engine_requests.TARGETS,
        *hostile_application.TARGETS,
        *sdk_calls.TARGETS,
        *readers.TARGETS,
    )
}

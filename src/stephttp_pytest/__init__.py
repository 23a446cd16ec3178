"""The pytest plugin of stephttp, beside its package.

pytest imports a plugin at each start, in every project that has it installed, with tests of
durable endpoints or not. So nothing here imports `stephttp` before a test uses a fixture, and under
a pytest older than 8, which has no such hooks, nothing is defined.
"""

import pytest

if tuple(getattr(pytest, "version_tuple", ())) >= (8,):
    from stephttp_pytest.plugin import (
        async_durable_client,
        durable_app,
        durable_client,
        durable_options,
        pytest_addoption,
        pytest_runtest_call,
        pytest_runtest_makereport,
    )

    __all__ = [
        "async_durable_client",
        "durable_app",
        "durable_client",
        "durable_options",
        "pytest_addoption",
        "pytest_runtest_call",
        "pytest_runtest_makereport",
    ]

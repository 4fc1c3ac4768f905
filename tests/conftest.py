"""What all tests share: the build of the data plane they run on; skips that are errors on CI."""

import os
import sys
from collections.abc import Generator

import pytest

# scripts/test builds the C a second time with sanitizers, next to the ordinary one.
if build := os.environ.get("DATAPLANE_DIR"):
    sys.path.insert(0, build)


def pytest_report_header() -> str:
    import _dataplane  # noqa: PLC0415 - only once the path above is in force

    return f"data plane: {os.path.relpath(_dataplane.__file__)}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """On CI nothing skips unless the test is marked as not in the main path."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's, untyped here
    if report.skipped and os.environ.get("CI") and not item.get_closest_marker("may_skip"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where everything must run: {reason}"

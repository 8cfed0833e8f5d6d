"""pytest's view of the suite: the same first and last lines as the root runner."""

import pytest

from ao.sparsity.testing import preflight

if preflight.problem() is not None:
    pytest.exit(preflight.problem(), returncode=preflight.CANNOT_VALIDATE)

from ao.sparsity.testing import build, session  # noqa: E402  (torch is there from here on)


def pytest_report_header():
    """The build under validation, in pytest's header."""
    return f"validating {build.describe()}"


def pytest_terminal_summary(terminalreporter):
    """The grouped skips and the known defects that did not show, after pytest's own summary."""
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())]
    for line in session.closing_lines(reasons):
        terminalreporter.write_line(line)

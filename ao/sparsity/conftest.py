"""pytest's view of the suite: the same first and last lines as the root runner, and the same refusals."""

import pytest

from ao.sparsity.testing import filters, preflight


def pytest_configure(config):
    """Leave with exit status 3 and one line where there is nothing to validate; read ``-k`` as the root runner does."""
    problem = preflight.problem()
    if problem is not None:
        pytest.exit(problem, returncode=preflight.CANNOT_VALIDATE)
    config.option.keyword = filters.as_here(config.option.keyword)


def pytest_report_header():
    """The suite and the build under validation, in pytest's header."""
    from ao.sparsity.testing import build, session

    return [session.suite(), f"validating {build.describe()}"]


def pytest_collection_modifyitems(config, items):
    """Where the root runner is collected beside the files whose classes it imports, each test runs once.

    A class of tests with ``slow = True`` has the mark of that name, and needs no pytest to be run.
    """

    def name(item):
        return item.path.name == "test_ao_sparsity.py", getattr(item.cls, "__qualname__", None), item.name

    in_files = {name(item)[1:] for item in items if not name(item)[0]}
    twice = [item for item in items if name(item)[0] and name(item)[1:] in in_files]
    if twice:
        config.hook.pytest_deselected(items=twice)
        items[:] = [item for item in items if item not in set(twice)]
    for item in items:
        if getattr(item.cls, "slow", False):
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter):
    """The grouped skips and the known defects that did not show, after pytest's own summary."""
    from ao.sparsity.testing import session

    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())]
    for line in session.closing_lines(reasons):
        terminalreporter.write_line(line)

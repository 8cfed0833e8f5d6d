"""pytest's view of the suite: the root runner's first and last lines, and its refusals; workers of pytest-xdist are evenly busy."""

import itertools
import os

import pytest

from ao.sparsity.testing import filters, preflight


def hands_out(config):
    """Whether this process runs no test itself, but hands them to workers of pytest-xdist; it does without torch."""
    return bool(getattr(config.option, "numprocesses", None))


def pytest_configure(config):
    """Leave with exit status 3 and one line where there is nothing to validate; read ``-k`` as the root runner does."""
    problem = None if hands_out(config) else preflight.problem()
    if problem is not None:
        pytest.exit(problem, returncode=preflight.CANNOT_VALIDATE)
    config.option.keyword = filters.as_here(config.option.keyword)


def pytest_report_header(config):
    """The suite and the build under validation, in pytest's header."""
    if hands_out(config):
        return []
    from ao.sparsity.testing import build, session

    return [session.suite(), f"validating {build.describe()}"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """``-n 2`` alone lets a worker that has nothing left take tests from the other, where pytest-xdist can (from 3.2 on)."""
    if config.getvalue("dist") != "load":
        return None
    try:
        from xdist.scheduler import WorkStealingScheduling
    except ImportError:
        return None
    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """Where the root runner is collected beside the files whose classes it imports, each test runs once.

    A class of tests with ``slow``, the seconds that it takes, has the mark of that name, and needs no pytest to be run.
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
    items[:] = evenly(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def evenly(items, workers):
    """The tests in an order of which each worker gets a part of the same length: slow classes first, evenly shared, then the others."""
    if workers < 2:
        return items
    slow = {}
    for item in items:
        if item.get_closest_marker("slow"):
            slow.setdefault(item.cls, []).append(item)
    parts, seconds = [[] for _ in range(workers)], [0.0] * workers
    for holder, tests in sorted(slow.items(), key=lambda pair: -getattr(pair[0], "slow", 0)):
        least = seconds.index(min(seconds))
        parts[least] += tests
        seconds[least] += getattr(holder, "slow", len(tests))
    quick = iter([item for item in items if not item.get_closest_marker("slow")])
    for part in parts:
        part += itertools.islice(quick, max(0, len(items) // workers - len(part)))
    return [*(item for part in parts for item in part), *quick]


def pytest_terminal_summary(terminalreporter):
    """The grouped skips and the known defects that did not show, after pytest's own summary."""
    if hands_out(terminalreporter.config):
        return
    from ao.sparsity.testing import session

    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())]
    for line in session.closing_lines(reasons):
        terminalreporter.write_line(line)

"""Load the runner's tests, run some of them, and say what became of each; as a script, of all of them.

``python suite.py TESTS_FOLDER RUNNER OUT.json [pattern ...]`` runs in the process's environment and writes the
outcomes, so that two installations can be compared test by test. With ``-`` for OUT.json it stops at the first test that
is not as it should be and says so by exit status 1.
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import time
import unittest
from collections.abc import Callable, Iterable
from pathlib import Path

#: Called with the id of a test.
Note = Callable[[str], object]


def load(folder: Path, runner: str, patterns: list[str] | tuple[str, ...] = ()) -> dict[str, unittest.TestCase]:
    """Tests of ``folder/runner`` by their ids; ``patterns`` select as ``unittest -k`` does."""
    sys.path.insert(0, str(folder))
    name = Path(runner).stem
    spec = importlib.util.spec_from_file_location(name, folder / runner)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    loader = unittest.TestLoader()
    loader.testNamePatterns = [p if "*" in p else f"*{p}*" for p in patterns] or None
    return {test.id(): test for test in _flatten(loader.loadTestsFromModule(module))}


def _flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flatten(item)
        else:
            yield item


class Outcomes(unittest.TestResult):
    """Outcome and seconds of every test, by id: passed, failed, error, skipped: <reason>, expected failure, unexpected
    success."""

    def __init__(self, on_stop: Note | None = None, failfast: bool = False, on_start: Note | None = None):
        super().__init__(io.StringIO(), descriptions=False, verbosity=0)
        self.failfast = failfast
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self._on_start = on_start
        self._on_stop = on_stop
        self._started = 0.0

    def startTest(self, test):
        super().startTest(test)
        if self._on_start:
            self._on_start(test.id())
        self._started = time.perf_counter()
        self.outcomes[test.id()] = "passed"

    def stopTest(self, test):
        super().stopTest(test)
        self.seconds[test.id()] = time.perf_counter() - self._started
        if self._on_stop:
            self._on_stop(test.id())

    def _note(self, test, outcome):
        self.outcomes[name(test)] = outcome

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, "error")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "failed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed" if issubclass(err[0], test.failureException) else "error")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, f"skipped: {reason}")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._note(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._note(test, "unexpected success")


def run(tests: Iterable[unittest.TestCase], on_stop: Note | None = None, failfast: bool = False, on_start: Note | None = None) -> Outcomes:
    """Run ``tests`` in the order given; ``on_start(id)`` is called before each, ``on_stop(id)`` after it."""
    result = Outcomes(on_stop, failfast, on_start)
    unittest.TestSuite(tests).run(result)
    return result


def name(test: unittest.TestCase) -> str:
    """Id of a test, also of one of its subtests."""
    return getattr(test, "test_case", test).id()


def known_defect(test: unittest.TestCase) -> str | None:
    """The known defect that a test is marked with, ``""`` where it merely must fail, None for a plain test."""
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    if known := getattr(method, "known_defect", None):
        return known
    return "" if getattr(method, "__unittest_expecting_failure__", False) else None


def said(trace: str) -> str:
    """The line of a traceback that names the exception."""
    lines = trace.rpartition('\n  File "')[2].splitlines()[1:]
    return next((line for line in lines if line[:1].strip()), trace)


def main(arguments: list[str]) -> int:
    folder, runner, out, *patterns = arguments
    tests = load(Path(folder), runner, patterns).values()
    if out == "-":
        return 0 if run(tests, failfast=True).wasSuccessful() else 1
    result = run(tests)
    details = {name(test): said(text) for test, text in [*result.failures, *result.errors]}
    Path(out).write_text(json.dumps({"outcomes": result.outcomes, "seconds": result.seconds, "details": details}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

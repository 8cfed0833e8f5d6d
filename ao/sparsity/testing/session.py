"""What a person sees around a run: what is validated before it, what could not be asked and what does not show after it."""

from __future__ import annotations

import argparse
import atexit
import collections
import fnmatch
import functools
import logging
import os
import pathlib
import subprocess
import sys
import types
import unittest
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

from ao.sparsity.testing import preflight

preflight.require()

from torch.testing._internal import common_utils

import ao.sparsity
from ao.sparsity.testing import build, companion, filters, index

ROOT = pathlib.Path(__file__).resolve().parents[3]

STRICT = "AO_SPARSITY_STRICT"  # environment variable

_skips: dict[str, str] = {}  # str(test) -> reason; a dict, so that --repeat counts a test once
_absent: dict[str, str | None] = {}  # symptom id -> what a maintainer of this suite does about it, or None
_announced = False
_closing_registered = False


class _Main(types.ModuleType):
    """The module ``__main__`` that a program is, whose names are the ``names`` of its namespace, also those that it gets later."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__("__main__")
        self._names = names

    def __dir__(self) -> list[str]:
        return list(self._names)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(name) from None


def _be_main() -> None:
    """Let ``__main__`` be the root runner where it is started by cProfile or trace: before Python 3.12 they run a script in a namespace
    of no module, unittest would look for tests among their own names, and zero tests are no failure."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        names = frame.f_globals
        if names.get("__name__") == "__main__" and os.path.realpath(names.get("__file__") or "") == str(ROOT / "test_ao_sparsity.py"):
            if vars(sys.modules["__main__"]) is not names:
                sys.modules["__main__"] = _Main(names)
            return
        frame = frame.f_back


_be_main()


def suite() -> str:
    """Name, version and commit of this suite: ``"ao-sparsity suite 2.1 (6e026cc5b1ad)"``; without a checkout no commit."""
    try:
        command = ["git", "rev-parse", "--show-toplevel", "--short=12", "HEAD"]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=10).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        answer = []
    # The suite may lie in a checkout of another project, whose commit says nothing of it.
    commit = f" ({answer[1]})" if len(answer) == 2 and pathlib.Path(answer[0]).resolve() == ROOT else ""
    return f"ao-sparsity suite {ao.sparsity.__version__}{commit}"


def announce() -> None:
    """Log, once per process, what validates and what is validated, and that tests are compiled where the environment asks for it."""
    global _announced
    if not _announced:
        _announced = True
        log = logging.getLogger("ao.sparsity").info
        log("%s", suite())
        log("validating %s", build.describe())
        if getattr(common_utils, "TEST_WITH_TORCHDYNAMO", False):  # INDUCTOR and AOT_EAGER imply it
            log("PYTORCH_TEST_WITH_DYNAMO, or _INDUCTOR or _AOT_EAGER: torch compiles every test; what is red may be its compiler's fault")


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """unittest's load_tests protocol: where the root runner is the program, announce the build, and end a run without a test.

    Any other program that loads the root runner gets its tests and nothing else happens; one that looks for files (``pattern``)
    gets them from the files below, once.
    """
    main = sys.modules["__main__"]
    if getattr(main, "load_tests", None) is not load_tests:
        sought = pattern or _pattern_of_discover()
        finds_the_files = sought is not None and fnmatch.fnmatch("test_scheduler.py", sought)
        return unittest.TestSuite() if finds_the_files else tests
    announce()
    asked = loader.testNamePatterns or []
    here = [filters.as_here(pattern) for pattern in asked]
    if here != asked:
        loader.testNamePatterns = here
        return loader.loadTestsFromModule(main)  # comes back here
    if tests.countTestCases() == 0 and loader.testNamePatterns:
        typed = _typed(loader)
        present = [entry for entry in index.entries() if hasattr(main, entry.holder)]
        near = ", ".join(f"{entry.holder}.{entry.test}" for entry in index.nearest(typed.replace("-k ", "").replace("*", " "), present))
        _end_without_a_test(f"matches {typed}", f"nearest: {near}" if near else "")
    if _hardware() is not None and not any(_is_named(test) and _fits_hardware(test) for test in companion.flat(tests)):
        asked_for = " ".join([*_asked().names, _typed(loader)]).strip() or "the suite"
        kinds = " or ".join(sorted(kind.name for kind in _hardware()))
        _end_without_a_test(f"of {asked_for} has the hardware classification {kinds}")
    if _in_own_processes():
        return _for_own_processes(loader, tests)
    if _asked().names and loader is not unittest.defaultTestLoader:
        _ask_by_name(tests)
    if loader is unittest.defaultTestLoader:  # unittest.main; torch loads all tests once more, to look at their classes
        return companion.start(tests)
    return tests


def _ask_by_name(tests: unittest.TestSuite) -> None:
    """Let unittest.main, which takes names without a call of load_tests, have them and the words of ``-k`` as they are here."""
    names, patterns = _asked().names, _asked().patterns
    if patterns and not any(_is_named(test) and _fits_words(test) for test in companion.flat(tests)):
        _end_without_a_test(f"of {', '.join(names)} matches {_words(patterns)}")
    common_utils.UNITTEST_ARGS[1:] = [*_asked().options, *(f"-k{pattern}" for pattern in patterns), *names]


def _fits_words(test: Any) -> bool:
    """Whether a test has the words of ``-k`` in its full name, as unittest has it."""
    name = f"{type(test).__module__}.{type(test).__qualname__}.{test._testMethodName}"
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _asked().patterns)


def _end_without_a_test(what: str, advice: str = "") -> NoReturn:
    print(f"no test {what}: nothing was validated" + (advice and f"\n{advice}"), file=sys.stderr)
    sys.exit(preflight.NOTHING_MATCHED)


def _pattern_of_discover() -> str | None:
    """The files that a caller's method ``discover`` looks for; green, for one, does not hand the pattern on."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name != "discover":
        frame = frame.f_back
    return frame.f_locals.get("file_pattern")


def _typed(loader: unittest.TestLoader) -> str:
    return _words(loader.testNamePatterns or ())


def _words(patterns: Iterable[str]) -> str:
    """The words of ``-k`` as they were typed: unittest has wrapped plain ones into ``*word*``."""
    return " ".join(f"-k {name[1:-1] if name[:1] + name[-1:] == '**' else name}" for name in patterns)


def _hardware() -> Any:
    """What ``--hw-classification`` asks for, on releases of torch that have it; None for all."""
    return getattr(common_utils, "HW_CLASSIFICATION", None)


def _fits_hardware(test: Any) -> bool:
    return _hardware() is None or type(test).hw_classification in _hardware()


def _is_named(test: Any) -> bool:
    """Whether the test is one of those whose names, or whose class's, the command line gives; true of all where it gives none."""
    return not _asked().names or not _names(test).isdisjoint(_asked().names)


def _names(test: Any) -> set[str]:
    return {type(test).__name__, f"{type(test).__name__}.{test._testMethodName}"}


def _in_own_processes() -> bool:
    return getattr(common_utils, "TEST_IN_SUBPROCESS", False) or getattr(common_utils, "RUN_PARALLEL", 1) > 1


class _Asked(NamedTuple):
    """What the command line asked of unittest: patterns of ``-k``, names of classes and of tests, and options."""

    patterns: list[str]
    names: list[str]
    options: list[str]


@functools.cache
def _asked() -> _Asked:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-k", action="append", default=[])
    found, others = parser.parse_known_args(common_utils.UNITTEST_ARGS[1:])
    names = [word for word in others if not word.startswith("-") and not word.isdigit()]
    patterns = [filters.as_here(pattern if "*" in pattern else f"*{pattern}*") for pattern in found.k]
    return _Asked(patterns, [filters.as_here(name) for name in names], [word for word in others if word not in names])


def _for_own_processes(loader: unittest.TestLoader, tests: unittest.TestSuite) -> unittest.TestSuite:
    """The tests as torch's ``--subprocess`` wants them, which starts a process for each, and ``--run-parallel N``, which shares them out.

    Both pay no heed to ``-k`` and hand names of tests on to each of the processes; from torch 2.14 on they load the tests twice. The one
    cuts off the first word of a test's id to get what the runner is to be asked for; of the other, a process that gets no test would
    run all.
    """
    if _asked().patterns and not loader.testNamePatterns:
        loader.testNamePatterns = _asked().patterns
        return loader.loadTestsFromModule(sys.modules["__main__"])  # comes back here
    named = [test for test in companion.flat(tests) if _is_named(test)]
    missing = sorted(set(_asked().names).difference(*map(_names, named)))
    if missing:
        _end_without_a_test(f"is called {', '.join(missing)}")
    chosen = unittest.TestSuite(filter(_fits_hardware, named))
    for test in chosen:
        test.id = functools.partial(str, f"__main__.{type(test).__name__}.{test._testMethodName}")  # type: ignore[method-assign, union-attr]
    common_utils.RUN_PARALLEL = min(getattr(common_utils, "RUN_PARALLEL", 1), chosen.countTestCases())
    if _in_own_processes():
        # Each process has these files by variables of the environment; --subprocess hands on the bare options, which would take the name
        # of the test for a file.
        common_utils.DISABLED_TESTS_FILE = common_utils.SLOW_TESTS_FILE = ""
        # --subprocess hands --hw-classification on, which takes any number of words, and then comes the name of the test.
        between = ["--"] if getattr(common_utils, "TEST_IN_SUBPROCESS", False) and _hardware() is not None else []
        common_utils.UNITTEST_ARGS[1:] = [*_asked().options, *between]
    return chosen


def note_skip(test: unittest.TestCase, reason: str) -> None:
    """Remember a skip for the closing line; ``reason`` reads ``what was not asked (what is missing)``."""
    _close_at_exit()
    _skips[str(test)] = reason


def strict() -> bool:
    """Whether a known defect that is certain to show here, and does not, is red: in the project's own runs."""
    return os.environ.get(STRICT) == "1"


def note_absent(symptom_id: str, advice: str | None = None) -> None:
    """Remember that a known defect does not show; ``advice`` says what a maintainer of this suite does about it."""
    if companion.pass_on(note_absent, symptom_id, advice):
        return
    _close_at_exit()
    _absent[symptom_id] = advice


def closing_lines(reasons: Iterable[str] | None = None) -> list[str]:
    """The lines at the end of a run; ``reasons`` (default: the skips noted) may come from another runner."""
    counts = collections.Counter(_skips.values() if reasons is None else reasons)
    lines = [f"known defect {symptom_id!r} did not show: {advice}" for symptom_id, advice in sorted(_absent.items()) if advice]
    absent = sorted(symptom_id for symptom_id, advice in _absent.items() if not advice)
    if absent:
        number = f"{len(absent)} known defects do" if len(absent) > 1 else "1 known defect does"
        lines.append(f"{number} not show on this build: {', '.join(absent)}")
    if counts:
        lines.append("skipped: " + ", ".join(f"{number} {reason}" for reason, number in counts.most_common()))
    return lines


def _close_at_exit() -> None:
    global _closing_registered
    if not _closing_registered:
        _closing_registered = True
        atexit.register(lambda: print("\n".join(closing_lines()), file=sys.stderr))

"""The companion: a process beside the run that takes the tests that bring in torch._dynamo, which costs seconds and 100 MiB.

It is forked when the selected tests are known, before the suite has grown, and ends with its last test. Where there is none (another
program runs the tests, no fork, one core, a test that was not announced) such a test runs where all others run.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import multiprocessing
import os
import unittest
from collections.abc import Callable, Iterable
from typing import Any

from ao.sparsity.testing import build, guards
from ao.sparsity.testing.child import METHOD, ProcessDied, cause_of_death, quieten, started

ONE_PROCESS = "AO_SPARSITY_ONE_PROCESS"  # environment variable: no companion, for a debugger

Question = tuple[str, str, str]  # module, class and name of a test
Problem = tuple[str, str]  # name of an exception's class, and its text

_companion: _Companion | None = None
_told: list[Problem] | None = None  # in the companion: what went wrong in the body of the test that it runs


def in_companion(method: Callable) -> Callable:
    """Decorate a test method, below every mark, so that the test, from setUp to its cleanups, runs in the companion.

    There it is a test of its own, of the same class and name; the first thing that goes wrong comes back as an exception of the
    same name and text, a skip as a skip.
    """

    @functools.wraps(method)
    def ask(self: Any, *args: Any, **kwargs: Any) -> None:
        question = _question(self)
        if _told is None and _companion is not None and _companion.has(question):
            problem = _companion.take(question)
            if problem is not None:
                raise _exception(*problem)
            return
        try:
            method(self, *args, **kwargs)
        except BaseException as error:
            if _told is not None:
                _told.append((type(error).__name__, str(error)))
            raise

    ask.in_companion = True  # type: ignore[attr-defined]
    return ask


def start(tests: Iterable) -> None:
    """Let a companion begin with those of ``tests`` (a unittest.TestSuite) that are for it, if there are any and it is a gain."""
    global _companion
    questions = [_question(test) for test in flat(tests) if _is_marked(test)]
    # A process that may have begun to use a GPU cannot hand it to a fork.
    if questions and METHOD == "fork" and _cores() > 1 and build.accelerator() is None and not os.environ.get(ONE_PROCESS):
        _companion = _Companion(questions)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _question(test: unittest.TestCase) -> Question:
    return type(test).__module__, type(test).__name__, test._testMethodName


def flat(tests: Iterable) -> Iterable[unittest.TestCase]:
    """The cases of a unittest.TestSuite, whatever suites it holds."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def _is_marked(test: unittest.TestCase) -> bool:
    """Whether the test's method is marked with in_companion, below other decorators."""
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    while method is not None and not hasattr(method, "in_companion"):
        method = getattr(method, "__wrapped__", None)
    return method is not None


class _Companion:
    """A child that runs the tests ``questions`` in their order, and the parent's view of it."""

    def __init__(self, questions: list[Question]) -> None:
        self.parent = os.getpid()
        self._waiting = list(questions)
        self._answers: dict[Question, Problem | None] = {}
        guards.private_folder()  # made here: who makes it removes it
        context: Any = multiprocessing.get_context(METHOD)
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = started(context.Process(target=_run_all, args=(theirs, questions), daemon=True))
        theirs.close()

    def has(self, question: Question, timeout: float = 300) -> bool:
        """Wait until it has run that test; False where it does not: it was not asked, or died before."""
        while self.parent == os.getpid() and question in self._waiting:
            asked = self._waiting.pop(0)
            try:
                self._answers[asked] = self._receive(timeout)
            except ProcessDied as death:
                self._answers[asked] = type(death).__name__, str(death)
                self._waiting = []
        return question in self._answers

    def take(self, question: Question) -> Problem | None:
        """What went wrong in a test that it has run, or None; once."""
        return self._answers.pop(question)

    def _receive(self, timeout: float) -> Problem | None:
        if not self._pipe.poll(timeout):
            self._process.kill()
            raise ProcessDied(f"timeout after {timeout} s")
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise ProcessDied(cause_of_death(self._process.exitcode)) from None


def _run_all(pipe: Any, questions: list[Question]) -> None:
    """The life of the companion."""
    quieten()
    for question in questions:
        with contextlib.suppress(ConnectionError):  # of a parent that has ended
            pipe.send(_run_test(*question))


def _run_test(module: str, holder: str, name: str) -> Problem | None:
    """In the companion: run a test, and say what went wrong first."""
    global _told
    _told = []
    result = _FirstProblem()
    getattr(importlib.import_module(module), holder)(name).run(result)
    # A known defect makes of a problem in the body what it is to count as; that is the business of the parent, too.
    return _told[0] if _told else result.problem


class _FirstProblem(unittest.TestResult):
    problem: Problem | None = None

    def addError(self, test: Any, err: Any) -> None:
        kind, error, _ = err
        self.problem = self.problem or (kind.__name__, str(error))

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            kind, error, _ = err
            self.problem = self.problem or (kind.__name__, f"{subtest._subDescription()}: {error}")

    def addSkip(self, test: Any, reason: str) -> None:
        self.problem = self.problem or ("SkipTest", reason)


def _exception(name: str, text: str) -> BaseException:
    kinds = {"SkipTest": unittest.SkipTest, "ProcessDied": ProcessDied, **vars(builtins)}
    return kinds.get(name, type(name, (Exception,), {}))(text)

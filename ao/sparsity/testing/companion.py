"""The companion: a process beside the run that takes a part of the tests, so that two cores share them.

It takes a class of tests, or a test, with ``in_companion = True``: what needs torch._dynamo, which costs a second and 90 MiB, and as much
of the rest as makes both processes end together. It is forked when the selected tests are known: before the suite has grown, and before
autograd has started threads for the devices of the build, after which no fork can compute a gradient. Its tests come last in the run.
Where there is no companion (another program runs the tests, no fork, one core) they run in the main process.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import multiprocessing
import os
import signal
import traceback
import unittest
from collections.abc import Callable, Iterable
from multiprocessing.util import Finalize
from typing import Any

from ao.sparsity.testing import build
from ao.sparsity.testing.child import METHOD, ProcessDied, cause_of_death, quieten, started

ONE_PROCESS = "AO_SPARSITY_ONE_PROCESS"  # environment variable: no companion, for a debugger

Question = tuple[str, str, str]  # module, class and name of a test
Told = list[tuple[Any, tuple]]  # methods of a TestResult by name, functions as they are, each with arguments but the test itself

_companion: _Companion | None = None
_recorder: _Recorder | None = None  # in the companion


def start(tests: unittest.TestSuite) -> unittest.TestSuite:
    """Let a companion begin with those of ``tests`` that are for it, if there are any and it is a gain.

    Returns:
        The tests in the order in which they are to be run: those for a companion last, whether there is one or not. Those that are to be
        first there come first in the process that runs them.
    """
    global _companion
    # A process that may have begun to use an accelerator cannot hand it to a fork.
    possible = METHOD == "fork" and _cores() > 1 and build.accelerator() is None and not os.environ.get(ONE_PROCESS)
    ordered = sorted(flat(tests), key=lambda test: (_is_for_it(test) and (possible or not _is_first(test)), not _is_first(test)))
    marked = [test for test in ordered if _is_for_it(test)]
    if marked and possible:
        _companion = _Companion([_question(test) for test in marked])
    return unittest.TestSuite(ordered)


def beside(first: bool = False) -> Callable[[Callable], Callable]:
    """Mark a test for the companion, to be run before the others of its process if it is to be ``first``."""

    def mark(test: Callable) -> Callable:
        test.in_companion, test.first_there = True, first  # type: ignore[attr-defined]
        return test

    return mark


def told(test: unittest.TestCase) -> Told | None:
    """What the companion tells of a test, when it has run it; None where it does not run it."""
    if _companion is None or _companion.parent != os.getpid():
        return None
    _companion.listen()
    question = _question(test)
    return _companion.take(question) if _companion.has(question) else None


def replay(test: unittest.TestCase, result: Any, calls: Told) -> unittest.TestResult:
    """Tell ``result`` what the companion told of ``test``, as if it had run here."""
    result.startTest(test)
    for name, arguments in calls:
        if callable(name):
            name(*arguments)
        else:
            getattr(result, name)(test, *(_exc_info(*argument) if isinstance(argument, tuple) else argument for argument in arguments))
    result.stopTest(test)
    return result


def repeat_hint(holder: str, test: str) -> str:
    """How a person repeats one test, for the end of a failure's text."""
    return f"\n\nTo repeat it, from the project's root: python test_ao_sparsity.py {holder}.{test}"


def pass_on(function: Callable, *arguments: Any) -> bool:
    """In the companion: let the main process call a function of a module for the test that runs; elsewhere False."""
    if _recorder is None:
        return False
    _recorder.calls.append((function, arguments))
    return True


def flat(tests: Iterable) -> Iterable[Any]:
    """The cases of a unittest.TestSuite, whatever suites it holds."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_for_it(test: Any) -> bool:
    """Whether the companion runs the test: its method says so, or its class."""
    return getattr(_method(test), "in_companion", False) or getattr(test, "in_companion", False)


def _is_first(test: Any) -> bool:
    return getattr(_method(test), "first_there", False)


def _method(test: Any) -> Any:
    return getattr(test, getattr(test, "_testMethodName", ""), None)


def _question(test: Any) -> Question:
    return type(test).__module__, type(test).__name__, test._testMethodName


class _Companion:
    """A child that runs the tests ``questions`` in their order, and the parent's view of it."""

    def __init__(self, questions: list[Question]) -> None:
        self.parent = os.getpid()
        self._waiting = list(questions)
        self._answers: dict[Question, Told] = {}
        context: Any = multiprocessing.get_context(METHOD)
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = started(context.Process(target=_run_all, args=(theirs, self._pipe, questions)))
        theirs.close()
        Finalize(self, self._pipe.close, exitpriority=1)  # so that a run that has ended early does not wait for it

    def listen(self) -> None:
        """Hear what it has said by now, so that it need not wait for a pipe that is full."""
        while self._waiting and self._pipe.poll():
            self._hear(0)

    def has(self, question: Question, timeout: float = 300) -> bool:
        """Wait until it has run that test; False where it does not: it was not asked, or died before."""
        while question in self._waiting:
            self._hear(timeout)
        return question in self._answers

    def _hear(self, timeout: float) -> None:
        asked = self._waiting.pop(0)
        try:
            self._answers[asked] = self._receive(timeout)
        except ProcessDied as death:
            self._answers[asked] = [("addError", (("ProcessDied", f"{death}{repeat_hint(*asked[1:])}", ""),))]
            self._waiting = []

    def take(self, question: Question) -> Told:
        """What it told of a test that it has run, once."""
        return self._answers.pop(question)

    def _receive(self, timeout: float) -> Told:
        if not self._pipe.poll(timeout):
            self._process.kill()
            raise ProcessDied(f"timeout after {timeout} s")
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise ProcessDied(cause_of_death(self._process.exitcode)) from None


def _run_all(pipe: Any, others_end: Any, questions: list[Question]) -> None:
    """The life of the companion, which ends early where the parent has ended."""
    global _companion, _recorder
    others_end.close()
    _companion = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process by its own end
    quieten()
    with contextlib.suppress(ConnectionError):
        for module, holder, name in questions:
            _recorder = _Recorder()
            getattr(importlib.import_module(module), holder)(name).run(_recorder)
            pipe.send(_recorder.calls)


class _Recorder(unittest.TestResult):
    """Keeps what a test tells of itself, in a form that travels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Told = []

    def addSuccess(self, test: Any) -> None:
        self.calls.append(("addSuccess", ()))

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.calls.append(("addUnexpectedSuccess", ()))

    def addSkip(self, test: Any, reason: str) -> None:
        self.calls.append(("addSkip", (reason,)))

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self.calls.append(("addExpectedFailure", ((err[0].__name__, _text(err[1]), ""),)))

    def addError(self, test: Any, err: Any, kind: str = "addError", case: str = "") -> None:
        self.calls.append((kind, ((err[0].__name__, case + _text(err[1]), "".join(traceback.format_tb(err[2]))),)))

    def addFailure(self, test: Any, err: Any) -> None:
        self.addError(test, err, "addFailure")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self.addError(test, err, "addFailure" if failed else "addError", f"{subtest._subDescription()}: ")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:
        return f"{error.args} (its text raises {type(another).__name__})"


class _InCompanion(Exception):
    """Carries the traceback of the companion."""


def _exc_info(name: str, text: str, trace: str) -> tuple:
    kinds = {"ProcessDied": ProcessDied, **vars(builtins)}
    error = kinds.get(name, type(name, (Exception,), {}))(text)
    error.__cause__ = _InCompanion(f"\n{trace}") if trace else None
    return type(error), error, None

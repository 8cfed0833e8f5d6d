"""Child processes: one for a function that may crash, so that it costs one test, and one that many tests share, the companion.

The companion is for tests that bring in torch._dynamo, sympy and torch.distributed, which take seconds to import and, left in the
process of all other tests, add 100 MiB to its peak. It starts before the suite has grown, and runs beside it.
"""

import atexit
import builtins
import contextlib
import faulthandler
import functools
import importlib
import multiprocessing
import os
import signal
import sys
import unittest
import warnings

import torch

from ao.sparsity.testing import guards

ONE_PROCESS = "AO_SPARSITY_ONE_PROCESS"  # environment variable
_WINDOWS_FAULTS = {0xC0000005: "SIGSEGV", 0xC0000094: "SIGFPE", 0xC0000374: "SIGABRT"}
# macOS has fork, but its system libraries, the BLAS among them, do not survive it.
_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else "spawn"


class ProcessDied(Exception):
    """The child ended without an answer; the message names the signal (``SIGSEGV``), the exit status or the timeout."""


def run_in_child(function, *args, timeout=60):
    """Call ``function(*args)`` in a child process and return its result or raise its exception.

    The child is forked where the platform allows (a fresh interpreter costs a second), prints nothing and dumps no core.

    Args:
        function: a module-level function; its result or exception must be picklable.
        timeout: seconds after which the child is killed.

    Raises:
        ProcessDied: if the child ended by a signal, or without an answer, or did not end.
    """
    context = multiprocessing.get_context(_METHOD)
    answer, sender = context.Pipe(duplex=False)
    process = _started(context.Process(target=_answer, args=(sender, function, args), daemon=True))
    sender.close()
    try:
        if not answer.poll(timeout):
            process.kill()
            raise ProcessDied(f"timeout after {timeout} s")
        try:
            succeeded, value = answer.recv()
        except EOFError:
            process.join()
            raise ProcessDied(_cause(process.exitcode)) from None
        process.join()
    finally:
        answer.close()
    if succeeded:
        return value
    raise value


def _started(process):
    """Start it; that torch has threads is known, Python 3.12 and newer warn of it at a fork."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def in_companion(method):
    """Decorate a test method, one without parameters, so that the test, from setUp to its cleanups, runs in the companion.

    There it is a test of its own, of the same class and name; the first thing that goes wrong comes back as an exception of the
    same name and text, a skip as a skip. With the variable AO_SPARSITY_ONE_PROCESS set it runs where all others run, for a debugger.
    """

    @functools.wraps(method)
    def ask(self):
        if os.environ.get(ONE_PROCESS):
            return method(self)
        wrong = _the_companion().ask(_question(self))
        if wrong is not None:
            raise _exception(*wrong)

    ask.in_companion = method
    return ask


def start_companion(tests):
    """Let the companion begin with those of ``tests`` (a unittest.TestSuite) that are for it, while this process is small."""
    questions = [_question(test) for test in _flat(tests) if _in_companion(test)]
    if questions and not os.environ.get(ONE_PROCESS):
        _the_companion().begin(questions)


def _question(test):
    """Module, class and name of a test."""
    return type(test).__module__, type(test).__name__, test._testMethodName


def _flat(tests):
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _in_companion(test):
    """The method that runs in the companion, found below other decorators, or None."""
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    while method is not None and not hasattr(method, "in_companion"):
        method = getattr(method, "__wrapped__", None)
    return getattr(method, "in_companion", None)


class _Companion:
    """A child that answers questions, each the _question of a test, in their order, until its parent ends."""

    def __init__(self):
        self.parent = os.getpid()
        self._waiting, self._answers = [], {}
        self._start()
        atexit.register(self.end)

    def _start(self):
        # A process that may have begun to use a GPU cannot hand it to a fork.
        context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else _METHOD)
        self._pipe, theirs = context.Pipe()
        self._process = _started(context.Process(target=_serve, args=(theirs, self._pipe)))
        theirs.close()

    def begin(self, questions):
        """Ask what has not been asked yet, without waiting for the answers."""
        for question in questions:
            if question not in self._waiting and question not in self._answers:
                self._waiting.append(question)
                with contextlib.suppress(ConnectionError):  # of a child that has died; ask() finds it out
                    self._pipe.send(question)

    def ask(self, question, timeout=300):
        """The answer of _run_test; a child that does not answer is replaced, and that is the answer."""
        self.begin([question])
        while question not in self._answers:
            try:
                if not self._pipe.poll(timeout):
                    self._process.kill()
                    raise ProcessDied(f"timeout after {timeout} s")
                answer = self._receive()
            except ProcessDied as death:
                answer = type(death).__name__, str(death)
                left, self._waiting = self._waiting, self._waiting[:1]
                self._start()
                self.begin(left[1:])
            self._answers[self._waiting.pop(0)] = answer
        return self._answers.pop(question)

    def _receive(self):
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise ProcessDied(_cause(self._process.exitcode)) from None

    def end(self):
        """Let the child leave by itself unless it is busy; atexit runs it before multiprocessing waits for the child."""
        if self.parent == os.getpid():
            self._pipe.close()
            self._process.join(0 if self._waiting else 10)
            self._process.kill()


_companion = None


def _the_companion():
    global _companion
    if _companion is None or _companion.parent != os.getpid():
        _companion = _Companion()
    return _companion


def _serve(pipe, parents_end):
    """The life of the companion."""
    parents_end.close()
    _quieten()
    # What appears in the working directory now may be the runner's, which writes its reports beside this process.
    guards.GUARDS[:] = [guard for guard in guards.GUARDS if guard.name != guards.FILES]
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(_run_test(*question))


def _run_test(module, holder, name):
    """In the companion: run a test; ``(name of the exception's class, text)`` of the first thing that went wrong, or None."""
    case = getattr(importlib.import_module(module), holder)(name)
    setattr(case, name, functools.partial(_in_companion(case), case))
    result = _FirstProblem()
    case.run(result)
    return result.problem


class _FirstProblem(unittest.TestResult):
    """What went wrong first in a test, as _run_test tells it."""

    problem = None

    def addError(self, test, err):
        kind, error, _ = err
        self.problem = self.problem or (kind.__name__, str(error))

    addFailure = addError

    def addSubTest(self, test, subtest, err):
        if err is not None:
            kind, error, _ = err
            self.problem = self.problem or (kind.__name__, f"{subtest._subDescription()}: {error}")

    def addSkip(self, test, reason):
        self.problem = self.problem or ("SkipTest", reason)


def _exception(name, text):
    kinds = {"SkipTest": unittest.SkipTest, "ProcessDied": ProcessDied, **vars(builtins)}
    return kinds.get(name, type(name, (Exception,), {}))(text)


def _answer(sender, function, args):
    """In the child: quiet, without a core dump, send back ``(succeeded, value)``."""
    _quieten()
    try:
        sender.send((True, function(*args)))
    except Exception as error:
        sender.send((False, error))


def _quieten():
    """Print nothing and dump no core."""
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        import resource
    except ImportError:  # not on Windows
        resource = None
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _cause(exitcode):
    if exitcode < 0:
        return signal.Signals(-exitcode).name
    return _WINDOWS_FAULTS.get(exitcode & 0xFFFFFFFF, f"exit status {exitcode} without an answer")

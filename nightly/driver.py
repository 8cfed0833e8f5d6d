"""Runs a unittest program as ``__main__`` and reports each test on a pipe the moment something happens to it.

    python driver.py PIPE RUNNER [ARGUMENT ...]

A file of its own, for the interpreter under validation: standard library only, any Python from 3.10 on. The first line of
standard input holds the settings as JSON: ``skip`` (names not to run again) and ``only`` (names to run, or null for all).
Each line written to the file descriptor PIPE is a JSON object with an ``event``: ``environment``, ``plan`` (every test the
runner has, with its module), ``start``, ``stop`` (outcome, seconds, message), ``fixture`` (of a class or module) and ``end``.
"""

import ctypes
import faulthandler
import json
import os
import platform
import re
import runpy
import signal
import sys
import threading
import time
import traceback
import unittest
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

MESSAGE_LIMIT = 4000
PR_SET_PDEATHSIG = 1


class Journal:
    """Writes events to a pipe, each with one system call, so that nothing is lost when the process dies."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self.descriptor = descriptor
        self.process = os.getpid()

    def write(self, event: str, **fields: object) -> None:
        if os.getpid() != self.process:  # a forked child has the descriptor, but no say
            return
        line = memoryview((json.dumps({"event": event, **fields}) + "\n").encode())
        while line:
            line = line[os.write(self.descriptor, line) :]


def text_of(value: object) -> str:
    """Anything as text that every encoding and every record can hold, as it will be recorded; what cannot be shown says so."""
    try:
        found = value if isinstance(value, str) else str(value)
    except Exception:
        found = f"<{type(value).__name__} that cannot be shown>"
    return found.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def test_name(test: unittest.TestCase) -> str:
    """The name under which the runner's command line knows the test: ``Class.method``."""
    try:
        name = text_of(test.id())
    except Exception:
        name = f"{type(test).__name__}.{text_of(getattr(test, '_testMethodName', 'without a name'))}"
    return name.removeprefix(type(test).__module__ + ".")


def defect_id(test: object) -> str:
    """The id and the page of the known defect that the test's mark carries (``known_defect``, ``known_defect_page``), as the
    beginning of a message; empty for a test that has no such mark."""
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    found, page = getattr(method, "known_defect", ""), getattr(method, "known_defect_page", "")
    return f"{text_of(found)}{f' ({text_of(page)})' if page else ''}: " if found else ""


def raised(err: tuple) -> str:
    """What was raised, as the last lines of its traceback say it."""
    try:
        return "".join(traceback.format_exception_only(*err[:2]))
    except Exception:
        return f"{getattr(err[0], '__name__', 'something')} that cannot be shown"


def shorten(message: object) -> str:
    """The message, cut in its middle if it is long: the end of a traceback tells most, then its beginning."""
    message = text_of(message).strip()
    if len(message) <= MESSAGE_LIMIT:
        return message
    return message[: MESSAGE_LIMIT // 4] + "\n[...]\n" + message[-3 * MESSAGE_LIMIT // 4 :]


def flatten(suite: Iterable) -> Iterator[unittest.TestCase]:
    """The single tests of a suite, in the order in which they run."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def _accelerators(torch: Any) -> list[str]:
    """The accelerator that torch itself names, where it has one; before torch.accelerator, of 2.6, a GPU."""
    asked = getattr(torch, "accelerator", None)
    if asked is not None:
        return [str(asked.current_accelerator().type)] if asked.is_available() else []
    return ["cuda"] if torch.cuda.is_available() else []


def describe_torch() -> dict:
    """What the torch that the runner imported says of itself; a part that this torch cannot tell is left out."""
    torch: Any = sys.modules.get("torch")
    asked = {
        "torch": lambda: str(torch.__version__),
        "torch_commit": lambda: torch.version.git_version,
        "engines": lambda: [engine for engine in torch.backends.quantized.supported_engines if engine != "none"],
        "devices": lambda: ["cpu", *_accelerators(torch)],
        "cpu_capability": lambda: torch.backends.cpu.get_cpu_capability(),
        "threads": lambda: torch.get_num_threads(),
    }
    told = {}
    for key, ask in asked.items():
        try:
            told[key] = ask()
        except Exception:
            continue
    return told


def describe_machine() -> dict:
    """The interpreter and the machine it runs on."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "processor_model": processor_model(),
        "cores": os.cpu_count(),
        "strict": os.environ.get("AO_SPARSITY_STRICT") == "1",
    }


def processor_model() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as told:
            return next((line.partition(":")[2].strip() for line in told if line.startswith(("model name", "Model", "cpu model"))), "")
    except OSError:
        return platform.processor()


class Verdict:
    """What has been seen of the test in flight: the outcomes of its parts, and their texts."""

    ORDER = ("error", "fail", "unexpected success", "defect gone", "expected failure", "pass", "skip")

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.parts: list[tuple[str, str]] = []

    def add(self, outcome: str, message: object = "") -> None:
        self.parts.append((outcome, text_of(message)))

    def fold(self) -> tuple[str, str]:
        """One outcome and one message for the test and all its subtests, the worst first."""
        seen = {outcome for outcome, _ in self.parts}
        outcome = next((outcome for outcome in self.ORDER if outcome in seen), "pass")
        if outcome == "pass":
            reasons = sorted({message for part, message in self.parts if part == "skip"})
            return "pass", "partly skipped: " + "; ".join(reasons) if reasons else ""
        wanted = ("error", "fail") if outcome in ("error", "fail") else (outcome,)
        return outcome, "\n".join(dict.fromkeys(message for part, message in self.parts if part in wanted and message))


def journalling_result(journal: Journal) -> type:
    """A result class for ``unittest.TextTestRunner`` that writes to the journal whatever it is told."""

    class JournallingResult(unittest.TextTestResult):
        verdict = None

        def startTest(self, test):
            self.verdict = Verdict()
            journal.write("start", test=test_name(test))
            super().startTest(test)

        def stopTest(self, test):
            super().stopTest(test)
            if self.verdict is None:  # Python 3.12.1 stops a test that it skips without having started it
                return
            outcome, message = self.verdict.fold()
            seconds = time.perf_counter() - self.verdict.started
            self.verdict = None
            journal.write("stop", test=test_name(test), outcome=outcome, seconds=seconds, message=shorten(message))

        def _exc_info_to_string(self, err, test):
            try:
                return super()._exc_info_to_string(err, test)
            except Exception:
                return raised(err)

        def getDescription(self, test):
            try:
                return super().getDescription(test)
            except Exception:
                return test_name(test)

        def note(self, test, outcome, message):
            if self.verdict is not None:
                self.verdict.add(outcome, message)
                return
            if isinstance(test, unittest.TestCase):  # the same Python
                journal.write("start", test=test_name(test))
                journal.write("stop", test=test_name(test), outcome=outcome, seconds=0.0, message=shorten(message))
                return
            # No test is in flight: a fixture of a class or a module, told by a description such as "setUpClass (a.B)".
            described = re.fullmatch(r"(\w+) \((.*)\)", text_of(test))
            kind, place = described.groups() if described else (text_of(test), "")
            journal.write("fixture", kind=kind, place=place, outcome=outcome, message=shorten(message))

        def addSuccess(self, test):
            super().addSuccess(test)
            if defect_id(test):  # the run is not strict: that a known defect does not show is news, and no failure
                self.note(test, "defect gone", defect_id(test) + "the known defect does not show")
            else:
                self.note(test, "pass", "")

        def addError(self, test, err):
            super().addError(test, err)
            self.note(test, "error", self.errors[-1][1] if self.errors else raised(err))

        def addFailure(self, test, err):
            super().addFailure(test, err)
            self.note(test, "fail", self.failures[-1][1] if self.failures else raised(err))

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self.note(test, "skip", reason)

        def addExpectedFailure(self, test, err):
            super().addExpectedFailure(test, err)
            self.note(test, "expected failure", defect_id(test) + raised(err))

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            self.note(test, "unexpected success", defect_id(test) + "the test passed although it is marked as an expected failure")

        def addSubTest(self, test, subtest, err):
            super().addSubTest(test, subtest, err)
            if err is None:
                self.note(test, "pass", "")
                return
            outcome = "fail" if issubclass(err[0], test.failureException) else "error"
            try:
                params = text_of(subtest._subDescription())
            except Exception:
                params = "(a case that cannot be shown)"
            self.note(test, outcome, params + " " + self._exc_info_to_string(err, test))

        def stopTestRun(self):
            super().stopTestRun()
            journal.write("end")

    return JournallingResult


def install(journal: Journal, settings: dict) -> None:
    """Make every ``unittest.main`` of this process write to the journal and run the wanted tests alone."""
    unittest.TextTestRunner.resultclass = journalling_result(journal)
    run_all = unittest.TestProgram.runTests

    def run_wanted(program):
        tests = list(flatten(program.test))
        journal.write("environment", **describe_machine(), **describe_torch())
        journal.write("plan", tests=[[test_name(test), text_of(type(test).__module__)] for test in tests])
        skip, only = set(settings["skip"]), settings["only"]
        if tests and (skip or only is not None):
            kept = [test for test in tests if test_name(test) not in skip and (only is None or test_name(test) in only)]
            program.test = program.testLoader.suiteClass(kept)
        run_all(program)

    unittest.TestProgram.runTests = run_wanted  # type: ignore[method-assign]


def die_with_parent(lifeline: BinaryIO) -> None:
    """End this process when the one that started it is gone, even if it was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return

    def wait():
        while lifeline.read(1):
            continue
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def be_first_out_of_memory() -> None:
    """Ask the kernel to end this process, and not its neighbours, when memory runs out (Linux only)."""
    try:
        with open("/proc/self/oom_score_adj", "w") as adjustment:
            adjustment.write("1000")
    except OSError:
        return


def main(pipe: str, runner: str, *arguments: str) -> None:
    lifeline = os.fdopen(os.dup(0), "rb")
    settings = json.loads(lifeline.readline())
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    die_with_parent(lifeline)
    be_first_out_of_memory()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    journal = Journal(int(pipe))
    journal.write("environment", **describe_machine())
    install(journal, settings)
    sys.argv = [runner, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(runner))
    runpy.run_path(runner, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])

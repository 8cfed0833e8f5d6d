"""Tests of the child process in which crashes are shown, and of the companion."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from ao.sparsity.testing.child import ProcessDied, run_in_child

ROOT = pathlib.Path(__file__).resolve().parents[3]

# Letters keep the order; what waits while the companion dies must still be answered.
SHARED = """
import os
import unittest
from ao.sparsity.testing.session import load_tests
from torch.testing._internal.common_utils import run_tests
from ao.sparsity.testing.base import TestCase
from ao.sparsity.testing.child import in_companion


RUNNER = int(os.environ.setdefault("RUNNER", str(os.getpid())))  # also where the companion is no fork


class OwnError(Exception):
    pass


class TestShared(TestCase):
    def setUp(self):
        super().setUp()
        self.process = os.getpid()

    @in_companion
    def test_a_elsewhere(self):
        self.assertEqual(self.process, os.getpid())
        self.assertNotEqual(os.getpid(), RUNNER)

    @in_companion
    def test_b_subtest(self):
        for number in (1, 2, 3):
            with self.subTest(number=number):
                self.assertEqual(number, 1)

    @in_companion
    def test_c_death(self):
        os.abort()

    @in_companion
    def test_d_leak(self):
        os.environ["LEFT"] = "1"

    @in_companion
    def test_e_skip(self):
        self.skipTest("this (no that)")

    @in_companion
    def test_f_error(self):
        raise OwnError("as asked")

    @in_companion
    def test_g_builtin(self):
        [][1]


if __name__ == "__main__":
    run_tests()
"""


def _double(number):
    return 2 * number


def _fail():
    raise ValueError("as asked")


def _die(name):
    os.kill(os.getpid(), getattr(signal, name))


def _leave():
    os._exit(7)


def _hang():
    time.sleep(60)


class TestRunInChild(unittest.TestCase):
    """``run_in_child``: an answer, an exception, or the way it died."""

    def test_result_comes_back(self):
        """Docstring: returns the function's result."""
        self.assertEqual(run_in_child(_double, 21), 42)

    def test_exception_comes_back(self):
        """Docstring: raises the function's exception."""
        with self.assertRaisesRegex(ValueError, "as asked"):
            run_in_child(_fail)

    @unittest.skipUnless(hasattr(signal, "SIGKILL"), "signals of POSIX (another platform)")
    def test_signal_is_named(self):
        """Docstring: the message names the signal."""
        for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGKILL"):
            with self.subTest(signal=name), self.assertRaisesRegex(ProcessDied, f"^{name}$"):
                run_in_child(_die, name)

    def test_exit_without_an_answer_is_a_death(self):
        """Docstring: so does an exit without an answer."""
        with self.assertRaisesRegex(ProcessDied, "exit status 7"):
            run_in_child(_leave)

    def test_timeout_ends_the_child(self):
        """Docstring: the child is killed after ``timeout`` seconds."""
        started = time.monotonic()
        with self.assertRaisesRegex(ProcessDied, "timeout after 0.2 s"):
            run_in_child(_hang, timeout=0.2)
        self.assertLess(time.monotonic() - started, 30)


@unittest.skipUnless(hasattr(os, "fork"), "companion of a script (no fork)")
class TestCompanion(unittest.TestCase):
    """Tests marked with ``in_companion``: in a process that they share, and told as if they had run here."""

    def run_shared(self, *arguments, **environment):
        """A run of SHARED: each test's outcome, what is said of those that went wrong, and the finished process."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "test_shared.py")
            path.write_text(SHARED, encoding="utf-8")
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "CI": "", **environment}
            command = [sys.executable, str(path), "-v", *arguments]
            process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        outcomes = dict(re.findall(r"^(test_\w+) \(.*\.\.\. ?(\w+)", process.stderr, re.MULTILINE))
        details = re.findall(r"^(?:FAIL|ERROR): (test_\w+) .*?^-+$(.*?)^=+$", process.stderr + "=" * 70, re.MULTILINE | re.DOTALL)
        return outcomes, dict(details), process

    def test_outcomes_come_back(self):
        """A pass, a failed case, a death, a leak, a skip and errors, each told of its own test, whatever died before it."""
        outcomes, details, process = self.run_shared()
        self.assertEqual(
            outcomes,
            {
                "test_a_elsewhere": "ok",
                "test_b_subtest": "FAIL",
                "test_c_death": "ERROR",
                "test_d_leak": "FAIL",
                "test_e_skip": "skipped",
                "test_f_error": "ERROR",
                "test_g_builtin": "ERROR",
            },
            process.stderr,
        )
        for name, words in (
            ("test_b_subtest", "AssertionError: (number=2): Scalars are not equal!"),
            ("test_c_death", "ProcessDied: SIGABRT"),
            ("test_d_leak", "TestShared.test_d_leak leaves behind: environment variables: LEFT None -> '1'"),
            ("test_f_error", "OwnError: as asked"),
            ("test_g_builtin", "IndexError: list index out of range"),
        ):
            self.assertIn(words, details[name])
            self.assertEqual(process.stderr.count(f"test_ao_sparsity.py TestShared.{name}"), 1, details[name])
        self.assertEqual(process.stderr.splitlines()[-1], "skipped: 1 this (no that)")

    def test_one_process_on_demand(self):
        """With AO_SPARSITY_ONE_PROCESS set nothing runs elsewhere."""
        outcomes, _, process = self.run_shared("TestShared.test_a_elsewhere", AO_SPARSITY_ONE_PROCESS="1")
        self.assertEqual(outcomes, {"test_a_elsewhere": "FAIL"}, process.stderr)


if __name__ == "__main__":
    unittest.main()

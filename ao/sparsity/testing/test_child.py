"""Tests of the child process in which crashes are shown."""

import os
import signal
import time
import unittest

from ao.sparsity.testing.child import ProcessDied, run_in_child


def _double(number):
    return 2 * number


def _ask_a_child():
    return run_in_child(_double, 21)


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

    def test_a_child_has_children(self):
        """Docstring: a child process; so it is where the caller is one that multiprocessing lets have none, like a Pool's."""
        self.assertEqual(run_in_child(_ask_a_child), 42)

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


if __name__ == "__main__":
    unittest.main()

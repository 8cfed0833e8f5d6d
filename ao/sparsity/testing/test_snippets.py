"""Tests of how reproductions are run."""

import unittest

from ao.sparsity.testing.snippets import printed


class TestPrinted(unittest.TestCase):
    def test_output_exception_and_signal_are_lines(self):
        """What is printed comes first; an exception is its name and first line; a signal is named; addresses are left out."""
        for source, expected in (
            ("print(1 + 1)\nprint('two')", "2\ntwo"),
            ("print(1)\nraise ValueError('first\\nsecond')", "1\nValueError: first"),
            ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "killed: SIGSEGV"),
            ("print(object())", "<object object at 0x...>"),
            ("def f(): return g()\ndef g(): return 3\nprint(f())", "3"),
        ):
            with self.subTest(source=source):
                self.assertEqual(printed(source), expected)


if __name__ == "__main__":
    unittest.main()

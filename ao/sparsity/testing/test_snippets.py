"""Tests of how reproductions are run."""

import unittest
from unittest import mock

from ao.sparsity.testing import snippets
from ao.sparsity.testing.snippets import printed, printed_in_turn


class TestPrinted(unittest.TestCase):
    slow = 4

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

    def test_each_in_turn_has_its_text(self):
        """Each as if it were alone, in the order given, with its exception or the signal that ended its process; no names are shared."""
        sources = [
            "x = 1\nprint(x)",
            "print(x)",
            "import os\nos.kill(os.getpid(), 11)",
            "print(object())",
            "print('two\\nlines')",
            "import os\nos.abort()",
        ]
        expected = [
            "1",
            "NameError: name 'x' is not defined",
            "killed: SIGSEGV",
            "<object object at 0x...>",
            "two\nlines",
            "killed: SIGABRT",
        ]
        self.assertEqual(printed_in_turn(sources), expected)
        self.assertEqual(printed_in_turn([]), [])

    def test_a_fresh_process_knows_nothing_of_this_one(self):
        """A child has what this process did before; a new interpreter has not, and says as well how it was ended."""
        with mock.patch.object(snippets, "START_WAS_SEEN", True, create=True):
            source = "from ao.sparsity.testing import snippets\nprint('START_WAS_SEEN' in vars(snippets))"
            self.assertEqual([printed(source), printed(source, fresh=True)], ["True", "False"])
        self.assertEqual(printed("import os\nos.kill(os.getpid(), 11)", fresh=True), "killed: SIGSEGV")

    def test_what_does_not_end_is_killed(self):
        """``timeout``: after so many seconds the process is killed, in a child and in a new interpreter, and the line says so."""
        for fresh in (False, True):
            with self.subTest(fresh=fresh):
                self.assertEqual(printed("while True: pass", fresh=fresh, timeout=0.1), "killed: timeout after 0.1 s")


if __name__ == "__main__":
    unittest.main()

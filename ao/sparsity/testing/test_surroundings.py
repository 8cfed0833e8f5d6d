"""The suite gives the same answer in other surroundings, and the player says so."""

import contextlib
import io
import os
import pathlib
import re
import unittest
from unittest import mock

from ao.sparsity.testing import known_defects, play, surroundings, tried
from ao.sparsity.testing.surroundings import SURROUNDINGS, CannotPlay, Surrounding, together
from ao.sparsity.testing.test_runs import COUNTS_ALL

# All that bear being together, in one run; each alone: python -m ao.sparsity.testing.play --conditions.
TOGETHER = (
    "python -OO",
    "python -W error",
    "CI=1",
    "LANG=C",
    "loads of weights only",
    "slow tests alone",
    "torch tells much",
    "PYTHONHASHSEED=4242",
    "a path with spaces and umlauts",
    "a busy working directory",
    "ulimit -n 64",
    "kernels of torch: default",
    "kernels of FBGEMM: AVX2",
    "oneDNN off",
    "allocator: freed memory is filled",
    "4 threads",
    "torch is set otherwise for all programs",
    "no standard input or output",
)
MAPPED = "allocator: every block is mapped"  # the suite takes twice as long
# Before Python 3.11 the class stands last between the parentheses, not the test.
NEEDS_DOCSTRINGS = re.compile(r"^ *(test_\w+) \([\w.]*?(\w+)(?:\.\1)?\) \.\.\. skip\w*:? '?what docstrings say", re.MULTILINE)


class TestSurroundings(unittest.TestCase):
    """The whole suite, in many surroundings at a time."""

    slow = 20

    def test_a_sound_build_is_sound_everywhere(self):
        """Exit status: 0 for a sound build, whatever surrounds the run, and the same tests.

        What -OO leaves out, and the kernels, are asked again: without it, with broken extras, and with every block mapped.
        """
        outcome = surroundings.run(together(TOGETHER), ["-v"])
        self.assertEqual((outcome.status, outcome.wrong), (0, 0), outcome.output[-4000:])
        if COUNTS_ALL:
            self.assertEqual(outcome.ran, unittest.defaultTestLoader.loadTestsFromName("test_ao_sparsity").countTestCases())
        left_out = [f"{holder}.{test}" for test, holder in NEEDS_DOCSTRINGS.findall(outcome.output)]
        self.assertGreater(len(left_out), 0, outcome.output[-4000:])
        others = ["optional packages that cannot be imported", MAPPED, *(name for name in TOGETHER if name != "python -OO")]
        asked = [word for name in (*left_out, "TestQuantizedSparseKernels") for word in ("-k", name)]
        outcome = surroundings.run(together(others), asked)
        self.assertEqual((outcome.status, outcome.wrong), (0, 0), outcome.output[-4000:])
        self.assertGreaterEqual(outcome.ran, len(left_out))


class TestPlayer(unittest.TestCase):
    """The table and what it is made of."""

    slow = 3

    def test_ends_of_children_are_told(self):
        """Where SIGCHLD is ignored when a run starts, what a child dies of is told all the same."""
        outcome = surroundings.run(SURROUNDINGS["ends of children are not told"], ["-k", "test_qnnpack_prepack_refuses_huge_blocks"])
        self.assertEqual((outcome.status, outcome.ran, outcome.wrong), (0, 1, 0), outcome.output)

    def test_table_has_a_line_for_each(self):
        """Status, numbers and seconds of each, what cannot be played with its reason, and what a run that failed has said."""
        sound = surroundings.Outcome(0, 5, 3, 1, 0, 2.25, "said by a sound run")
        red = surroundings.Outcome(1, 5, 0, 0, 2, 1.5, "said by a red run")
        with mock.patch.object(surroundings, "run", side_effect=[sound, CannotPlay("no such thing here"), red]):
            lines = list(surroundings.table(["LANG=C", "1 core", "another working directory"]))
        self.assertEqual([status for _, status in lines], [0, 0, 0, 1, 0])
        head, *rows, said = [line for line, _ in lines]
        self.assertEqual(head.split(), ["status", "ran", "known", "skipped", "wrong", "seconds"])
        self.assertEqual([row[:25].strip() for row in rows], ["LANG=C", "1 core", "another working directory"])
        self.assertEqual([row[25:].split() for row in rows[::2]], [["0", "5", "3", "1", "0", "2.2"], ["1", "5", "0", "0", "2", "1.5"]])
        self.assertIn("not played: no such thing here", rows[1])
        self.assertEqual(said, "said by a red run")

    def test_worst_status_is_the_tables(self):
        """``--conditions NAMES``: the runner's own status, and what it said below the line."""
        with contextlib.redirect_stdout(io.StringIO()) as said, self.assertRaises(SystemExit) as left:
            play.main(["--conditions", "another working directory", "--", "-k", "nothing_matches"])
        self.assertEqual(left.exception.code, 5, said.getvalue())
        self.assertRegex(said.getvalue(), r"(?m)^another working directory +5 +0 +0 +0 +0 +[\d.]+$")
        self.assertIn("nothing was validated", said.getvalue())

    def test_what_cannot_be_played_is_said(self):
        """A surrounding that this machine does not allow is told with its reason."""
        with self.assertRaisesRegex(CannotPlay, "no-such-program is not there or not allowed"):
            surroundings.run(Surrounding(front=("no-such-program",)))

    def test_unknown_names_are_refused(self):
        """The command line knows the names of the table, and tells them."""
        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit):
            play.main(["--conditions", "on the moon"])
        self.assertIn("unknown: on the moon; there are: as it is, ", said.getvalue())

    def test_surroundings_go_together(self):
        """together(): variables and options add up; of what only one can be, the last one counts."""
        both = together(["python -O", "python -W error", "LANG=C", "TZ=Pacific/Kiritimati", "another working directory", "CI=1"])
        self.assertEqual(both.python, ("-O", "-W", "error"))
        self.assertEqual(both.environment, {"LANG": "C", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "CI": "1"})
        self.assertIs(both.folder, SURROUNDINGS["CI=1"].folder)

    def test_numbers_are_read_from_the_summary(self):
        """Outcome: unittest's numbers; failures, errors and unexpected successes are wrong."""
        text = "Ran 12 tests in 1.0s\n\nFAILED (failures=1, errors=2, skipped=3, expected failures=4, unexpected successes=5)\n"
        outcome = surroundings._outcome(1, text, 0.5)
        self.assertEqual((outcome.ran, outcome.known, outcome.skipped, outcome.wrong), (12, 4, 3, 8))

    def test_runs_that_are_read_have_no_colours(self):
        """Python 3.14 colours unittest's summary under FORCE_COLOR; a program that reads it asks for none."""
        starts = (play.play, tried.record, lambda: surroundings.run(SURROUNDINGS["as it is"]), known_defects.check)
        for start in starts:
            with mock.patch.dict(os.environ, FORCE_COLOR="1", CI="1"), mock.patch("subprocess.run", side_effect=InterruptedError) as run:
                self.assertRaises(InterruptedError, start)
                given = {name: run.call_args.kwargs["env"].get(name) for name in ("PYTHON_COLORS", "CI")}
                self.assertEqual(given, {"PYTHON_COLORS": "0", "CI": ""})

    def test_copies_hold_the_suite(self):
        """A copy has the runner and its tests, under the folder's name, and is gone afterwards."""
        with SURROUNDINGS["a path with spaces and umlauts"].checkout() as root:
            self.assertEqual(root.name, "ein Ördner für Tests")
            self.assertTrue((root / "test_ao_sparsity.py").exists() and (root / "ao" / "sparsity" / "test_scheduler.py").exists())
        self.assertFalse(pathlib.Path(root).exists())


if __name__ == "__main__":
    unittest.main()

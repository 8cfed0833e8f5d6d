"""Tests of the companion: what runs in it is told as if it had run here."""

import os
import pathlib
import re
import tempfile
import unittest

from ao.sparsity.testing.test_runs import job, together

# Letters keep the order; what waits while the companion dies must still be answered.
SHARED = """
import os
import signal
import unittest
from ao.sparsity.testing.session import load_tests
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize, run_tests
from ao.sparsity.testing.base import TestCase
from ao.sparsity.testing.companion import beside


RUNNER = os.getpid()
RAN_HERE = []


class OwnError(Exception):
    pass


class MuteError(Exception):
    def __str__(self):
        raise ValueError("no text")


class TestShared(TestCase):
    in_companion = True

    def setUp(self):
        super().setUp()
        self.process = os.getpid()

    def test_a_elsewhere(self):
        self.assertEqual(self.process, os.getpid())
        self.assertNotEqual(os.getpid(), RUNNER)

    def test_b_subtest(self):
        for number in (1, 2, 3):
            with self.subTest(number=number):
                self.assertEqual(number, 1)

    def test_c_leak(self):
        os.environ["LEFT"] = "1"

    def test_d_skip(self):
        self.skipTest("this (no that)")

    def test_e_error(self):
        raise OwnError("as asked" + " " * 1_000_000)  # more than a pipe holds

    def test_e_error_without_a_text(self):
        raise MuteError("unsaid")

    def test_e_interrupt(self):
        os.kill(os.getpid(), signal.SIGINT)

    @parametrize("number", [1, 2])
    def test_f_parameter(self, number):
        self.assertNotEqual(os.getpid(), RUNNER)
        self.assertEqual(number, 1)

    @unittest.expectedFailure
    def test_g_builtin(self):
        [][1]

    def test_h_death(self):
        os.abort()

    def test_i_here(self):
        self.assertEqual(os.getpid(), RUNNER)


class TestUnmarked(TestCase):
    @beside(first=True)
    def test_x_first(self):
        self.assertNotEqual(os.getpid(), RUNNER)
        self.assertEqual(RAN_HERE, [])

    def test_z_others(self):
        self.assertEqual(os.getpid(), RUNNER)
        RAN_HERE.append("test_z_others")


instantiate_parametrized_tests(TestShared)


if __name__ == "__main__":
    run_tests()
"""


@unittest.skipUnless(hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1, "companion (no fork or one core)")
class TestCompanion(unittest.TestCase):
    """Tests with ``in_companion``: in a process that they share, and told as if they had run here."""

    slow = 5

    @classmethod
    def setUpClass(cls):
        """Runs of SHARED, each in a folder of its own."""
        one, variable = "TestShared.test_a_elsewhere", {"AO_SPARSITY_ONE_PROCESS": "1"}
        runs = {"all": ([], {}), "first failure": (["-f"], {}), "one process": (["-k", "elsewhere"], variable), "by name": ([one], {})}
        with tempfile.TemporaryDirectory() as folder:
            jobs = []
            for name, (words, environment) in runs.items():
                place = pathlib.Path(folder, name)
                place.mkdir()
                (place / "test_shared.py").write_text(SHARED, encoding="utf-8")
                jobs.append(job("test_shared.py", "-v", *words, cwd=place, **environment))
            cls.processes = dict(zip(runs, together(*jobs)))

    def run_of_shared(self, name):
        """Of that run: each test's outcome, what is said of those that went wrong, and the finished process."""
        process = self.processes[name]
        outcomes = dict(re.findall(r"^(test_\w+) \(.*\.\.\. ?(\w+)", process.stderr, re.MULTILINE))
        details = re.findall(r"^(?:FAIL|ERROR): (test_\w+) .*?^-+$(.*?)^=+$", process.stderr + "=" * 70, re.MULTILINE | re.DOTALL)
        return outcomes, dict(details), process

    def test_outcomes_come_back(self):
        """A pass, a failed case, a leak, a skip, errors, parameters and a death; what waits when it dies runs here; Ctrl-C is not for it.

        It knows nothing of what has run here: it was forked before, when no test had used autograd.
        """
        outcomes, details, process = self.run_of_shared("all")
        self.assertEqual(
            outcomes,
            {
                "test_a_elsewhere": "ok",
                "test_b_subtest": "FAIL",
                "test_c_leak": "FAIL",
                "test_d_skip": "skipped",
                "test_e_error": "ERROR",
                "test_e_error_without_a_text": "ERROR",
                "test_e_interrupt": "ok",
                "test_f_parameter_number_1": "ok",
                "test_f_parameter_number_2": "FAIL",
                "test_g_builtin": "expected",
                "test_h_death": "ERROR",
                "test_i_here": "ok",
                "test_x_first": "ok",
                "test_z_others": "ok",
            },
            process.stderr,
        )
        order = [list(outcomes)[place] for place in (0, 1, 3, -1)]
        self.assertEqual(order, ["test_z_others", "test_x_first", "test_b_subtest", "test_i_here"], "the companion's tests come last")
        for name, words in (
            ("test_b_subtest", "AssertionError: (number=3): Scalars are not equal!"),
            ("test_c_leak", "TestShared.test_c_leak leaves behind: environment variables: LEFT None -> '1'"),
            ("test_e_error", "OwnError: as asked"),
            ("test_e_error_without_a_text", "(its text raises ValueError)"),
            ("test_h_death", "ProcessDied: SIGABRT"),
        ):
            self.assertIn(words, details[name])
            self.assertEqual(details[name].count(f"test_ao_sparsity.py TestShared.{name}"), 1, details[name])
        self.assertEqual(process.stderr.splitlines()[-1], "skipped: 1 this (no that)")

    def test_companion_ends_with_a_run_that_stops_early(self):
        """``-f``: after the first failure the run ends, though the companion still has something to say."""
        outcomes, _, process = self.run_of_shared("first failure")
        self.assertEqual((process.returncode, list(outcomes.values()).count("FAIL")), (1, 1), process.stderr)
        self.assertNotIn("test_e_error", outcomes)

    def test_no_companion_where_none_is_wanted(self):
        """A test that is given by its name, or in a run with AO_SPARSITY_ONE_PROCESS, runs where all others run."""
        for name in ("one process", "by name"):
            with self.subTest(run=name):
                outcomes, _, process = self.run_of_shared(name)
                self.assertEqual(outcomes, {"test_a_elsewhere": "FAIL"}, process.stderr)


if __name__ == "__main__":
    unittest.main()

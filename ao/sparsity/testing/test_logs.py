"""Readers of logs and reports that others have written find names and numbers in what a run of the suite prints."""

import importlib.util
import pathlib
import re
import tempfile
import unittest

from ao.sparsity.testing.test_runs import ROOT, job, run, together

# A suite in which every kind of outcome occurs, each known by its name.
SUITE = '''
import unittest
from torch.testing._internal.common_utils import run_tests
from ao.sparsity.testing.base import TestCase


class TestSmall(TestCase):
    def test_cases(self):
        """Paper: every number is 1."""
        for number in (1, 2, 3):
            with self.subTest(number=number):
                self.assertEqual(number, 1)

    def test_error(self):
        """Signature: there is such a key."""
        {}["key"]

    def test_failure(self):
        """Docstring: 1 is 2."""
        self.assertEqual(1, 2)

    def test_leak(self):
        """House rule: nothing is left behind."""
        open("left.txt", "w").close()

    @unittest.expectedFailure
    def test_known(self):
        """Docstring: 1 is 3."""
        self.assertEqual(1, 3)

    def test_skip(self):
        """Docstring: nothing."""
        self.skipTest("this (no that)")

    def test_success(self):
        """Docstring: 1 is 1."""
        for number in (1, 1):
            with self.subTest(number=number):
                self.assertEqual(number, 1)


if __name__ == "__main__":
    run_tests()
'''
WRONG = {"test_cases", "test_error", "test_failure", "test_leak"}

# How EasyBuild's PyTorch installation reads a log of unittest: the numbers stand in the line after the dashes and in the
# summary, and a failed test is a line with its name directly between a ruler of "=" and one of "-".
NUMBERS = re.compile(r"^Ran (?P<tests>[0-9]+) tests? in.*$\n\n^(?P<summary>(?:OK|FAILED)(?: \(.*\))?)$", re.MULTILINE)
NAMES = re.compile(r"^={70}$\n^(?P<kind>FAIL|ERROR): (?P<test>\S+) \((?P<where>[^)]+)\)(?: \(.*\))?$\n^-{70}$", re.MULTILINE)


class TestReaders(unittest.TestCase):
    """What programs read from a run: EasyBuild's expressions, junitparser, pytest's summary."""

    slow = 5

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as log, tempfile.TemporaryDirectory() as xml:
            for folder in (log, xml):
                pathlib.Path(folder, "test_small.py").write_text(SUITE, encoding="utf-8")
            jobs = [job("test_small.py", cwd=log)]
            if importlib.util.find_spec("xmlrunner"):
                jobs.append(job("test_small.py", "--save-xml=reports", cwd=xml))
            cls.log, *cls.others = together(*jobs)
            cls.reports = [path.read_bytes() for path in pathlib.Path(xml).rglob("*.xml")]

    def test_names_and_numbers_in_a_log(self):
        """EasyBuild: the number of tests, the summary, and the name of every test that went wrong."""
        numbers = NUMBERS.search(self.log.stderr)
        self.assertEqual(numbers["tests"], "7", self.log.stderr)
        self.assertEqual(numbers["summary"], "FAILED (failures=4, errors=1, skipped=1, expected failures=1)")
        found = [(match["kind"], match["test"]) for match in NAMES.finditer(self.log.stderr)]
        self.assertEqual({test for _, test in found}, WRONG, self.log.stderr)
        self.assertEqual(len(found), 5, "two cases of one test and three other tests went wrong")

    def test_names_and_numbers_in_xml(self):
        """junitparser: each test once, with its outcome; of a test's cases those that failed."""
        for extra in ("junitparser", "xmlrunner"):
            if importlib.util.find_spec(extra) is None:
                self.skipTest(f"JUnit XML ({extra} not installed)")
        import junitparser

        (process,) = self.others
        cases = [
            (case.name, {type(result).__name__ for result in case.result})
            for file in self.reports
            for suite in junitparser.JUnitXml.fromstring(file)
            for case in suite
        ]
        wrong = {name.partition(" ")[0] for name, results in cases if results & {"Failure", "Error"}}
        self.assertEqual(wrong, WRONG, process.stderr)
        passed = sorted(name for name, results in cases if not results)
        self.assertEqual([name for name in passed if "success" in name], ["test_success"])
        self.assertEqual([name for name, results in cases if results == {"Skipped"} and "skip" in name], ["test_skip"])

    def test_numbers_under_pytest(self):
        """pytest: a test is one test, whatever cases it has."""
        if importlib.util.find_spec("pytest") is None:
            self.skipTest("summary of pytest (pytest not installed)")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "test_small.py")
            path.write_text(SUITE, encoding="utf-8")
            words = ("-m", "pytest", "-q", "-p", "no:randomly", "-k", "success or skip or known", str(path))
            process = run(*words, cwd=folder, PYTHONPATH=str(ROOT))
        summary = process.stdout.splitlines()[-1]
        self.assertRegex(summary, r"^1 passed, 1 skipped, 4 deselected, 1 xfailed in ", process.stdout)


if __name__ == "__main__":
    unittest.main()

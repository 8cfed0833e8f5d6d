"""Coverage of the toy package, and how gaps are told."""

import importlib.util
import tempfile
import unittest
from pathlib import Path

from audit import lines, toy


class TestMeasure(unittest.TestCase):
    def setUp(self):
        if importlib.util.find_spec("coverage") is None:
            self.skipTest("coverage of the packages under test (no coverage)")

    def measure(self, cases=toy.CASES, only=()):
        with tempfile.TemporaryDirectory() as folder, toy.installed(Path(folder)):
            extra = {**toy.SOURCES, "lonely.py": "x = 1\n"}
            return lines.measure(toy.write(Path(folder), cases, extra), [], list(only))

    def test_gaps_are_what_no_test_reaches(self):
        """Lines, branches and modules that never run, by function and source line; forked children count."""
        cases = (
            toy.CASES
            + """
        def test_forked(self):
            child = os.fork()
            if not child:
                Guard().check(None)
            os.waitpid(child, 0)
        """
        )
        modules, gaps, green = self.measure(cases)
        self.assertTrue(green)
        self.assertEqual(
            [gap.key for gap in gaps],
            [
                ("toykit.guard", "Guard.check", "if x is None:", "os.abort()"),  # an aborted child writes no data
                ("toykit.guard", "Guard.check", "os.abort()", None),
                ("toykit.lonely", "<module>", "the module is never imported", None),
                ("toykit.sums", "never_called", "return x + 1", None),
            ],
        )
        sums = next(module for module in modules if module.name == "toykit.sums")
        self.assertEqual(sums, lines.Module("toykit.sums", 6, 5, 2, 2))
        self.assertRegex(lines.table(modules), r"87\.5 % +5/6 +lines +2/2 +branches  toykit\.sums")

    def test_red_suite_is_told_and_modules_are_selected(self):
        """Figures come all the same, with the news that the suite is red."""
        modules, gaps, green = self.measure(toy.CASES.replace("clamp(-1, 0), 0)", "clamp(-1, 0), 7)"), ["*.guard"])
        self.assertFalse(green)
        self.assertEqual([module.name for module in modules], ["toykit.guard"])


if __name__ == "__main__":
    unittest.main()

"""Reading mutmut's verdicts: names, changes, selection."""

import unittest

from audit import mutants


class TestVerdict(unittest.TestCase):
    def test_verdict_follows_the_exit_status(self):
        """Signals other than the timeout's are crashes; an interrupted mutant is not checked."""
        cases = {
            None: "not checked",
            2: "not checked",
            0: "survived",
            1: "killed",
            3: "known only",
            5: "no tests",
            33: "no tests",
            -24: "timeout",
            36: "timeout",
            152: "timeout",
            -11: "crash",
            -6: "crash",
            -9: "crash",
        }
        self.assertEqual({code: mutants.verdict(code) for code in cases}, cases)


class TestChangedLines(unittest.TestCase):
    def test_change_is_the_stripped_lines_that_differ(self):
        """One line, several lines, a deleted one, and changes at both ends of a block."""
        cases = [
            ("a\n  b\nc", "a\n  x\nc", ("b", "x", 1)),
            ("a\n  b,\n  c\nd", "a\n  None\nd", ("b,\nc", "None", 1)),
            ("a\n  b\n", "a\n", ("b", "", 1)),
            ("f(\n  a,\n  b\n)", "f(\n  b,\n  a\n)", ("a,\nb", "b,\na", 1)),
            ("same", "same", ("", "", 0)),
        ]
        for original, mutated, expected in cases:
            with self.subTest(original=original, mutated=mutated):
                self.assertEqual(mutants.changed_lines(original, mutated), expected)


class TestSelection(unittest.TestCase):
    NAME = "a.b.xǁThingǁstep__mutmut_3"

    def test_patterns_match_module_function_or_name(self):
        """Globs on the module or on module.Class.method; no pattern selects everything."""
        cases = {
            (): True,
            ("a.b",): True,
            ("a.*",): True,
            ("a.b.Thing.step",): True,
            ("a.b.Thing.*",): True,
            (self.NAME,): True,
            ("a",): False,
            ("*.Other.*",): False,
            ("x", "a.b*"): True,
        }
        self.assertEqual({patterns: mutants.matches(self.NAME, patterns) for patterns in cases}, cases)

    def test_shards_are_a_partition(self):
        """Every mutant is in exactly one part, whatever order the names come in; sizes differ by one at most."""
        names = [f"m.x_f__mutmut_{i}" for i in range(23)]
        for parts in (1, 2, 5, 23, 40):
            with self.subTest(parts=parts):
                shards = [mutants.shard_of(reversed(names), (i, parts)) for i in range(1, parts + 1)]
                self.assertEqual(sorted(name for shard in shards for name in shard), sorted(names))
                self.assertLessEqual(max(map(len, shards)) - min(map(len, shards)), 1)

    def test_summary_counts_verdicts(self):
        """Every verdict that occurs, with its number."""
        found = [mutants.Mutant(str(i), "m", "f", "a", "b", i, 0, v) for i, v in enumerate(["killed", "killed", "survived"])]
        self.assertEqual(mutants.summary(found), "3 mutants: 2 killed, 1 survived")


if __name__ == "__main__":
    unittest.main()

"""SCORE.md and the merging of results."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

from audit import merge, mutants, mutate, report
from audit.project import AuditError

HEADER = {
    "product": "torch 2.13.0",
    "python": "3.11.7",
    "mutmut": "3.8.1",
    "scope": ["a.b"],
    "only": [],
    "patterns": [],
    "runner": "test_ao_sparsity.py",
    "kept": False,
    "deselected": {"g": ["t.TestX.test_scripted"]},
    "shards": [[1, 1]],
}
FOUND = [
    mutants.Mutant(f"a.b.x_f__mutmut_{i}", "a.b", "f", "x", str(i), 1, i, verdict)
    for i, verdict in enumerate(["killed"] * 3 + ["known only"] * 2 + ["timeout", "crash", "survived", "survived", "no tests"])
]
REASONS = {FOUND[7].name: "equivalent"}


class TestRender(unittest.TestCase):
    def test_score_counts_what_was_noticed_with_and_without_the_accepted(self):
        """7 of 10 noticed, one accepted: 70.0 % and 77.7 % (rounded down), two open."""
        text = report.render([report.Part("mutmut", HEADER, FOUND, REASONS)])
        for line in (
            "- mutmut's operators: **70.0 %** of 10 mutants are noticed, **77.7 %** without the 1 that",
            "; 20.0 % by tests of known defects only.",
            "| timeout | 1 |",
            "| no tests | 1 |",
            "| `a.b` | 10 | 7 | 2 | 1 | 2 | 77.7 % |",
            "`TestX.test_scripted`",
            "torch 2.13.0 on Python 3.11.7",
        ):
            self.assertIn(line, text)
        self.assertNotIn("A part only", text)
        self.assertNotIn("--survivors", text)
        self.assertIn("--survivors", report.render([report.Part("mutmut", {**HEADER, "kept": True}, FOUND, REASONS)]))
        self.assertEqual([m.name for m in report.unlisted(FOUND, REASONS)], [FOUND[8].name, FOUND[9].name])

    def test_score_of_a_part_says_so(self):
        """A run with --only or -k is no whole run; all noticed is 100.0 %, all but one of many is not."""
        text = report.render([report.Part("own", {**HEADER, "only": ["a.*"]}, FOUND[:5], {})])
        self.assertIn("A part only", text)
        self.assertIn("100.0 %", text)
        many = [replace(FOUND[0], name=str(i)) for i in range(1999)] + FOUND[8:9]
        self.assertIn("99.9 %", report.render([report.Part("own", HEADER, many, {})]))

    def test_score_of_a_sample_says_so(self):
        """Shards that do not make the whole are named, and how many mutants were left out."""
        text = report.render([report.Part("own", {**HEADER, "shards": [[3, 16]]}, FOUND, REASONS, 150)])
        self.assertIn("**A sample**: 10 mutants, evenly over their names (shard 3 of 16); 150 others were not asked.", text)

    def test_score_tells_of_the_mends(self):
        """A sentence a line, where they were asked."""
        text = report.render([report.Part("own", HEADER, FOUND, REASONS)], ["All of them."])
        self.assertIn("\n## Mends\n\n- All of them.\n\n## To repeat it\n", text)

    def test_score_keeps_what_was_not_run(self):
        """Sections of sets without results stay as they were; those with results are written anew."""
        first = report.render([report.Part("mutmut", HEADER, FOUND, REASONS), report.Part("own", HEADER, FOUND[:5], {})])
        second = report.render([report.Part("own", HEADER, FOUND, REASONS)], (), first)
        self.assertEqual(second, report.render([report.Part("mutmut", HEADER, FOUND, REASONS), report.Part("own", HEADER, FOUND, REASONS)]))
        self.assertEqual(second, report.render([report.Part("own", HEADER, FOUND, REASONS)], (), second))


class TestMerge(unittest.TestCase):
    def merge(self, *parts):
        with tempfile.TemporaryDirectory() as folder:
            for number, (header, found) in enumerate(parts):
                file = mutate.results_file(Path(folder, str(number)), "own")
                file.parent.mkdir(parents=True)
                mutants.write(file, header, found)
            result = merge.merge([Path(folder, str(n)) for n in range(len(parts))], Path(folder, "all"), "own")
            header, written = mutants.load(mutate.results_file(Path(folder, "all"), "own"))
            self.assertEqual(written, result)
            return header, result

    def test_merged_parts_are_the_whole(self):
        """Each mutant has the verdict of the part that asked it; one that no part asked is not checked."""
        unasked = [replace(m, verdict="not checked") for m in FOUND]
        first = (HEADER | {"shards": [[1, 3]]}, unasked[:0] + [m if i % 3 == 0 else unasked[i] for i, m in enumerate(FOUND)])
        second = (HEADER | {"shards": [[2, 3]]}, [m if i % 3 == 1 else unasked[i] for i, m in enumerate(FOUND)])
        header, result = self.merge(first, second)
        self.assertEqual(header["shards"], [[1, 3], [2, 3]])
        self.assertEqual(result, [m if i % 3 < 2 else unasked[i] for i, m in enumerate(FOUND)])

    def test_parts_of_different_runs_are_refused(self):
        """Another torch, contradicting verdicts, a folder without results."""
        with self.assertRaisesRegex(AuditError, "product 'torch 2.14', not 'torch 2.13.0'"):
            self.merge((HEADER, FOUND), (HEADER | {"product": "torch 2.14"}, FOUND))
        with self.assertRaisesRegex(AuditError, "says survived, another part killed"):
            self.merge((HEADER, FOUND), (HEADER, [replace(FOUND[0], verdict="survived")]))
        with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(AuditError, "no results in"):
            merge.merge([Path(folder)], Path(folder), "mutmut")


if __name__ == "__main__":
    unittest.main()

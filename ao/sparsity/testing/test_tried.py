"""Tests of the record of tried builds."""

import pathlib
import tempfile
import unittest

from ao.sparsity.testing import tried

SUMMARY = """...
----------------------------------------------------------------------
Ran 12 tests in 0.1s

FAILED (failures=1, errors=2, skipped=3, expected failures=4, unexpected successes=1)
skipped: 3 on cuda (no such device)
"""


def run(**changes):
    """A recorded run with these changes."""
    values = {
        "torch": "2.9.1",
        "commit": "abc",
        "python": "3.12.1",
        "platform": "Linux x86_64",
        "engines": "fbgemm",
        "note": "",
        "day": "2026-01-02",
        "ran": 5,
        "skipped": 1,
        "known": 2,
        "wrong": 0,
    }
    return tried.Run(**{**values, **changes})


class TestTried(unittest.TestCase):
    """What is recorded, and how it is shown."""

    def test_summary_is_parsed(self):
        """parse() counts every kind of outcome; a run that was cut short is an error, not a green one."""
        self.assertEqual(tried.parse(SUMMARY), {"ran": 12, "skipped": 3, "known": 4, "wrong": 4})
        self.assertEqual(tried.parse("Ran 1 test in 0.0s\n\nOK\n"), {"ran": 1, "skipped": 0, "known": 0, "wrong": 0})
        for cut in ("", "Segmentation fault", "Ran 3 tests in 1s\n"):
            with self.subTest(output=cut), self.assertRaisesRegex(ValueError, "no summary"):
                tried.parse(cut)

    def test_later_run_replaces_the_same_build(self):
        """save() keeps one run for each build, and load() gives them newest torch first."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "runs.json")
            self.assertEqual(tried.load(path), [])
            tried.save([run(), run(torch="2.13.0"), run(note="emulated"), run(ran=6)], path)
            kept = tried.load(path)
        self.assertEqual([(r.torch, r.note, r.ran) for r in kept], [("2.13.0", "", 5), ("2.9.1", "", 6), ("2.9.1", "emulated", 5)])

    def test_table_is_put_between_the_marks(self):
        """renewed() replaces what stands between the marks and nothing else; without marks it says so."""
        text = tried.renewed(f"before\n{tried.BEGIN}\nold\n{tried.END}\nafter\n", [run(engines="")])
        self.assertTrue(text.startswith(f"before\n{tried.BEGIN}\n| torch |"), text)
        self.assertIn("\n| 2.9.1 | 3.12.1 | Linux x86_64 | none | 5 |", text)
        self.assertTrue(text.endswith(f"|\n{tried.END}\nafter\n"), text)
        self.assertNotIn("old", text)
        with self.assertRaisesRegex(ValueError, "tried builds"):
            tried.renewed("no marks", [])

    def test_committed_records_are_green(self):
        """Every recorded build was validated without a wrong test, and the record is as save() writes it."""
        runs = tried.load()
        self.assertEqual([r for r in runs if r.wrong or r.ran < 100], [])
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "runs.json")
            tried.save(runs, path)
            self.assertEqual(path.read_text(encoding="utf-8"), tried.RECORDS.read_text(encoding="utf-8"))


class TestReadme(unittest.TestCase):
    """README.md's table."""

    def test_table_is_current(self):
        """The table is the one that the recorded runs give."""
        text = (tried.ROOT / "README.md").read_text(encoding="utf-8")
        self.assertEqual(text, tried.renewed(text, tried.load()), "python -m ao.sparsity.testing.tried --write renews it")

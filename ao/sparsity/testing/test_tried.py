"""Tests of the record of tried builds."""

import contextlib
import io
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
from unittest import mock

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
        "capability": "AVX2",
        "numpy": "2.0.1",
        "engines": "fbgemm",
        "shapes": "1 x 4",
        "strict": True,
        "suite": "0123456789",
        "note": "",
        "day": "2026-01-02",
        "ran": 5,
        "skipped": 1,
        "known": 2,
        "wrong": 0,
    }
    return tried.Run(**{**values, **changes})


def git(folder, *arguments):
    """Output of git in a folder."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def committed(folder, name):
    """Commit a file of this name; the commit."""
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name, encoding="utf-8")
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", name)
    return git(folder, "rev-parse", "--short=10", "HEAD")


class TestTried(unittest.TestCase):
    """What is recorded, and how it is shown."""

    def test_summary_is_parsed(self):
        """parse() counts every kind of outcome; a run that was cut short is an error, not a green one."""
        self.assertEqual(tried.parse(SUMMARY), {"ran": 12, "skipped": 3, "known": 4, "wrong": 4})
        self.assertEqual(tried.parse("Ran 1 test in 0.0s\n\nOK\n"), {"ran": 1, "skipped": 0, "known": 0, "wrong": 0})
        for cut in ("", "Segmentation fault", "Ran 3 tests in 1s\n"):
            with self.subTest(output=cut), self.assertRaisesRegex(ValueError, "no summary"):
                tried.parse(cut)

    def test_recorded_run_is_strict(self):
        """record() asks for a strict run, in which a known defect that should show and does not is red, and says that it did."""
        process = subprocess.CompletedProcess([], 0, "", SUMMARY)
        with mock.patch.object(subprocess, "run", return_value=process) as asked:
            found = tried.record(suite="0123456789")
        self.assertEqual((asked.call_args.kwargs["env"]["AO_SPARSITY_STRICT"], found.strict, found.ran), ("1", True, 12))

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
        runs = [run(engines="", shapes="", strict=False)]
        text = tried.renewed(f"before\n{tried.BEGIN}\nold\n{tried.END}\nafter\n", runs, lambda run: ", aged")
        self.assertTrue(text.startswith(f"before\n{tried.BEGIN}\n| torch |"), text)
        row = "| 2.9.1 | 3.12.1 | 2.0.1 | Linux x86_64 | AVX2 | none | none | 5 | 2 | 1 | 0 | not strict | 0123456789, aged | 2026-01-02 |"
        self.assertIn(f"\n{row}\n", text)
        self.assertTrue(text.endswith(f"|\n{tried.END}\nafter\n"), text)
        self.assertNotIn("old", text)
        with self.assertRaisesRegex(ValueError, "tried builds"):
            tried.renewed("no marks", [])

    @unittest.skipIf(shutil.which("git") is None, "the age of a recorded run (no git)")
    def test_age_counts_commits_that_changed_the_tests(self):
        """A run says how many commits changed the tests after its suite, and where git does not know that suite, that too."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(tried, "ROOT", pathlib.Path(folder)):
            self.assertEqual(tried.age(run()), ", of unknown age")
            self.assertEqual(tried.commit(), "")
            git(folder, "init", "-q")
            suites = [committed(folder, name) for name in ("test_ao_sparsity.py", "README.md", "ao/sparsity/test_kernels.py")]
            suites.append(committed(folder, "ao/sparsity/testing/tried_builds.json"))
            suites.append(committed(folder, "ao/sparsity/testing/BUILDS.md"))
            ages = [tried.age(run(suite=suite)) for suite in [*suites, "0123456789", ""]]
            pathlib.Path(folder, "ao/sparsity/testing/tried_builds.json").write_text("another run", encoding="utf-8")
            self.assertEqual(tried.commit(), suites[-1], "with a run that was recorded just now")
            pathlib.Path(folder, "README.md").write_text("changed", encoding="utf-8")
            self.assertEqual(tried.commit(), suites[-1] + "+")
            self.assertEqual(tried.age(run(suite=tried.commit())), "")
        older = ", older than the tests by 1 commit"
        self.assertEqual(ages, [older, older, "", "", "", ", of unknown age", ", of unknown age"])

    def test_runs_from_elsewhere_are_taken(self):
        """--take enters the runs of another file; a later run of a build that is there replaces it."""
        with tempfile.TemporaryDirectory() as folder:
            records, other = pathlib.Path(folder, "runs.json"), pathlib.Path(folder, "other.json")
            tried.save([run(), run(torch="2.13.0")], records)
            tried.save([run(ran=6), run(note="emulated")], other)
            command = ["--take", str(other)]
            with mock.patch.object(tried, "RECORDS", records), contextlib.redirect_stdout(io.StringIO()) as output:
                self.assertEqual(tried.main(command), 0)
            kept = [(r.torch, r.note, r.ran) for r in tried.load(records)]
        self.assertEqual(kept, [("2.13.0", "", 5), ("2.9.1", "", 6), ("2.9.1", "emulated", 5)])
        self.assertIn("(emulated)", output.getvalue())

    def test_committed_records_are_green(self):
        """Every recorded build was validated without a wrong test, and the record is as save() writes it."""
        runs = tried.load()
        self.assertEqual([r for r in runs if r.wrong or r.ran < 100], [])
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "runs.json")
            tried.save(runs, path)
            self.assertEqual(path.read_text(encoding="utf-8"), tried.RECORDS.read_text(encoding="utf-8"))


class TestPage(unittest.TestCase):
    """BUILDS.md."""

    def test_table_is_current(self):
        """The table is the one that the recorded runs give."""
        text = tried.PAGE.read_text(encoding="utf-8")
        # How old a run is changes with every commit; the table says how old it was when it was written.
        text = re.sub(r", (of unknown age|older than the tests by \d+ commits?)(?= \|)", "", text)
        self.assertEqual(text, tried.renewed(text, tried.load(), lambda run: ""), "python -m ao.sparsity.testing.tried --write renews it")

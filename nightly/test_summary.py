"""Tests of what a person is told of a night."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from nightly import summary
from nightly.compare import KINDS, Change, Judgement
from nightly.made_up import make_row, make_run
from nightly.outcomes import ALL_WELL, COULD_NOT_RUN, KNOWN_ONLY, WORSE

GOOD, BAD = make_run(night=1, nights=3), make_run(night=2, nights=3)
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 3\nAssertionError: 3 != 4 : level=0.5\n\nTo execute this test ...'


def judgement(*changes, target="stable", results=("S.test_a",)):
    """A judgement with these changes."""
    return Judgement(make_run(target), make_run(target), {name: make_row(name) for name in results}, list(changes))


def failure(name, kind="new failure"):
    return Change(kind, name, "fail", TRACEBACK, GOOD, BAD)


class TestText(unittest.TestCase):
    """The plain text."""

    def test_nothing_is_said_when_nothing_changed(self):
        """A night without changes has no summary; one with good news alone has, and is all well."""
        self.assertEqual(summary.text([judgement(), judgement(target="other")]), "")
        news = summary.text([judgement(Change("fixed", "A.x", "pass", "fail before"))])
        self.assertIn("all well: 1 fixed", news)
        self.assertIn("A.x  fail before", news)

    def test_failure_is_told_with_commits_and_the_line_that_matters(self):
        """A failure has its test, the commits between which it broke, and the exception's line."""
        text = summary.text([judgement(failure("A.x"))])
        for wanted in (
            "worse: 1 new failure",
            "  A.x  fail",
            f"last good torch {GOOD.torch_label} on {GOOD.day}",
            f"first bad torch {BAD.torch_label} on {BAD.day}",
            "      AssertionError: 3 != 4 : level=0.5",
        ):
            with self.subTest(wanted=wanted):
                self.assertIn(wanted, text)
        self.assertNotIn("To execute", text)

    def test_summary_fits_on_one_screen_worst_first(self):
        """However much changed, the text has 24 lines of 100 columns at most, tells every kind, and the worst first."""
        many = [Change(kind, f"Test{'Long' * 30}.test_{number}", "fail", TRACEBACK, GOOD, BAD) for kind in KINDS for number in range(40)]
        text = summary.text([judgement(*many, target=f"target {number}") for number in range(9)], ["a target file is broken " * 9])
        lines = text.splitlines()
        self.assertLessEqual(len(lines), 24)
        self.assertLessEqual(max(map(len, lines)), 100)
        places = [text.lower().index(f"\n{summary.PLURALS.get(kind, kind)[:20]}") for kind in list(KINDS)[:4]]
        self.assertEqual(places, sorted(places))
        self.assertIn("and 3 other targets", text)

    def test_same_change_of_several_targets_is_told_once(self):
        """A test that broke on two targets is one item with both their names."""
        text = summary.text([judgement(failure("A.x"), target="one"), judgement(failure("A.x"), target="two")])
        self.assertIn("New failures (1)", text)
        self.assertIn("A.x  fail  [one, two]", text)

    def test_what_to_do_is_never_cut(self):
        """The line of a target that could not run is wrapped, not cut."""
        reason = "pip install torch==99: no such version: " + "check it " * 20
        text = summary.text([judgement(Change("could not run", text=reason), results=())])
        self.assertEqual(" ".join(text.split("Could not run (1)")[1].split()), reason.strip())

    def test_status_follows_the_changes(self):
        """The exit status is that of the worst change, and a problem before any target is could not run."""
        cases = [
            ([failure("A.x")], [], WORSE),
            ([failure("A.x", "still failing")], [], KNOWN_ONLY),
            ([], [], ALL_WELL),
            ([], ["broken file"], COULD_NOT_RUN),
            ([failure("A.x")], ["broken file"], WORSE),
        ]
        for changes, problems, status in cases:
            with self.subTest(changes=changes, problems=problems):
                self.assertEqual(summary.headline([judgement(*changes)], problems)[0], status)


class TestMarkdown(unittest.TestCase):
    """The step summary of GitHub Actions."""

    def test_step_summary_is_appended_where_actions_wants_it(self):
        """The Markdown goes to the named file, after what is there, with targets and changes; without a name nowhere."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "summary.md"
            place.write_text("before\n")
            with mock.patch.dict(os.environ, {"GITHUB_STEP_SUMMARY": str(place)}):
                summary.write_step_summary([judgement(failure("A.test_x"))], [])
            text = place.read_text()
        self.assertTrue(text.startswith("before\n### nightly"))
        self.assertIn("| stable | worse |", text)
        self.assertIn("A.test\\_x", text)
        with mock.patch.dict(os.environ):
            os.environ.pop("GITHUB_STEP_SUMMARY", None)
            self.assertIsNone(summary.write_step_summary([judgement()], []))


if __name__ == "__main__":
    unittest.main()

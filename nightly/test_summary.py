"""Tests of what a person is told of a night."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from nightly import summary
from nightly.compare import KINDS, STILL, Change, Judgement, plural
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
        """A failure has its test, the exception's line, and once for all with the same, the commits between which they broke."""
        text = summary.text([judgement(failure("A.x"), failure("A.y"))])
        good, bad = f"last good torch {GOOD.torch_label} on {GOOD.day}", f"first bad torch {BAD.torch_label} on {BAD.day}"
        wanted = ["worse: 2 new failures", "1 test, ", f"New failures (2)\n  {bad}\n  {good}\n"]
        wanted += [words for name in "xy" for words in (f"    A.{name}  fail\n", "      AssertionError: 3 != 4 : level=0.5")]
        place = 0
        for words in wanted:
            with self.subTest(words=words):
                self.assertIn(words, text[place:])
                place = text.index(words, place)
        self.assertEqual(text.count(good), 1)
        self.assertNotIn("To execute", text)

    def test_summary_fits_on_one_screen_worst_first(self):
        """However much changed, the text keeps to the screen, tells every kind of news, and the worst first."""
        many = [Change(kind, f"Test{'Long' * 30}.test_{number}", "fail", TRACEBACK, GOOD, BAD) for kind in KINDS for number in range(40)]
        judgements = [judgement(*many, target=f"target {number}") for number in range(9)]
        for height, width in ((24, 80), (40, 100), (200, 120)):
            with self.subTest(height=height):
                text = summary.text(judgements, ["a target file is broken " * 3], height, width)
                lines = text.splitlines()
                self.assertLessEqual(len(lines), height)
                self.assertLessEqual(max(map(len, lines)), width)
                kinds = [kind for kind in KINDS if kind not in STILL]
                places = [text.lower().index(f"\n{plural(kind, 40)}") for kind in kinds]
                self.assertEqual(places, sorted(places))
                self.assertIn("Still: 40 failing, 40 flaky, 40 known defects gone", lines[-1])
        self.assertIn("and 3 other targets", text)

    def test_first_night_says_so_with_its_counts(self):
        """The line of a target begins with how many tests ran, and names a night that had nothing to be compared with."""
        first = Judgement(make_run("stable"), None, {name: make_row(name) for name in "ab"}, [failure("a")])
        self.assertRegex(summary.text([first]), r"\n  stable: worse; 2 tests, 0\.0 s; torch .*first night, nothing to\s+compare with\n")

    def test_long_lists_of_one_kind_are_cut_but_failures_are_not(self):
        """New failures are all shown where there is room, of other kinds the first ones, and all of them when it is to unfold."""
        night = judgement(*(Change(kind, f"A.{n}", "x", "y") for kind in ("new failure", "new test") for n in range(20)))
        text, unfolded = summary.text([night]), summary.text([night], unfold=True)
        self.assertIn("New failures (20)\n", text)
        self.assertIn("New tests (20, not all shown)\n", text)
        self.assertIn("New tests (20)\n", unfolded)
        self.assertEqual(len(unfolded.splitlines()) - len(text.splitlines()), 20 - summary.MOST_ITEMS)

    def test_headline_says_what_befell_a_whole_night(self):
        """No tests, far fewer, an interruption: the first line names it without a count."""
        night = judgement(Change("no tests ran", text="x"), failure("A.x", "still failing"), results=())
        self.assertRegex(summary.text([night]), "^nightly [-0-9]+: worse: no tests ran\n")
        night = judgement(Change("could not run", text="x"), results=())
        self.assertRegex(summary.text([night]), "^nightly [-0-9]+: could not run\n")

    def test_what_was_told_is_counted_and_no_more(self):
        """What an earlier night has told is one line; a night with nothing else but defects that are gone says nothing."""
        old = judgement(failure("A.x", "still failing"), Change("still flaky", "A.y", "flaky"))
        text = summary.text([old])
        self.assertIn("known or flaky only: nothing new", text)
        self.assertIn("Still: 1 failing, 1 flaky", text)
        self.assertNotIn("A.x", text)
        self.assertIn("A.x", summary.text([old], unfold=True))
        self.assertEqual(summary.text([judgement(Change("known defect still gone", "A.z", "defect gone"))]), "")

    def test_no_text_reaches_a_terminal_as_more_than_text(self):
        """Escape sequences, line breaks and marks of direction in names, messages and versions are shown, and forge no line."""
        bad = "x\x1b[31m\r\nnightly 2026-01-01: all well\u202e\x9b\x07"
        run = make_run(bad, torch=bad, python=bad)
        item = Judgement(
            run, run, {"A.x": make_row("A.x")}, [Change(kind, bad, bad, bad, run, run) for kind in KINDS] + [Change("note", text=bad)]
        )
        for text in (summary.text([item, item], [bad], unfold=True), summary.markdown([item], [bad])):
            self.assertNotRegex(text.replace("\n", ""), "[\x00-\x1f\x7f-\x9f\u2028-\u202e]")
            self.assertFalse([line for line in text.splitlines() if line.startswith("nightly 2026-01-01")])
            self.assertIn("x1b", text)

    def test_same_change_of_several_targets_is_told_once(self):
        """A test that broke on two targets is one item with both their names."""
        text = summary.text([judgement(failure("A.x"), target="one"), judgement(failure("A.x"), target="two"), judgement(target="three")])
        self.assertIn("worse: 1 new failure on 2 of 3 targets", text)
        self.assertIn("New failure (1)", text)
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
        self.assertIn("AssertionError: 3 \\!= 4", text)
        with mock.patch.dict(os.environ):
            os.environ.pop("GITHUB_STEP_SUMMARY", None)
            self.assertEqual(summary.write_step_summary([judgement()], []), "")
        with mock.patch.dict(os.environ, {"GITHUB_STEP_SUMMARY": "/no/such/place"}):
            self.assertRegex(summary.write_step_summary([judgement()], []), "^GITHUB_STEP_SUMMARY /no/such/place: No such file")


if __name__ == "__main__":
    unittest.main()

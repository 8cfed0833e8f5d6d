"""Tests of two runs side by side."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

from nightly import diff, junit, lookup
from nightly.cli import main
from nightly.extras import given, needs, settings, st
from nightly.history import COULD_NOT_RUN, History
from nightly.made_up import make_row, make_run, put
from nightly.outcomes import OUTCOMES, NightlyError

ROWS = st.dictionaries(
    st.sampled_from(["S.a", "S.b", "S.c"]),
    st.tuples(st.sampled_from(OUTCOMES), st.sampled_from(["", "AssertionError: 1", "partly skipped: x"])),
)


def rows(outcomes):
    """Name -> `Row` from name -> outcome or (outcome, message)."""
    pairs = {name: (found, "") if isinstance(found, str) else found for name, found in outcomes.items()}
    return {name: make_row(name, *pair) for name, pair in pairs.items()}


def compared(before, after, **fields):
    return diff.compare_runs(make_run(night=0, nights=2), make_run(night=1, nights=2, **fields), rows(before), rows(after))


class TestKinds(unittest.TestCase):
    """What kind a difference is of."""

    def test_kind_says_what_became_of_a_test(self):
        """Every pair of outcomes that means something to a person has its kind; equal ones have none."""
        cases = {
            ("pass", "fail"): "broke",
            ("expected failure", "error"): "broke",
            ("skip", "crash"): "broke",
            (None, "fail"): "broke",
            ("fail", "timeout"): "fails otherwise",
            (("fail", "AssertionError: 1"), ("fail", "AssertionError: 2")): "fails otherwise",
            ("fail", "pass"): "mended",
            ("fail", "defect gone"): "mended",
            ("pass", None): "gone",
            ("fail", None): "gone",
            (None, "skip"): "new in B",
            ("pass", "skip"): "skipped in B only",
            ("fail", "skip"): "skipped in B only",
            ("skip", "pass"): "skipped in A only",
            ("pass", "flaky"): "flaky in B only",
            ("flaky", "pass"): "otherwise",
            ("pass", "expected failure"): "known defect in B only",
            ("expected failure", "pass"): "known defect gone in B",
            ("expected failure", "defect gone"): "known defect gone in B",
            (("expected failure", "AssertionError: 1"), ("expected failure", "AssertionError: 2")): "known defect shows otherwise",
            (("pass", ""), ("pass", "partly skipped: x")): "asked less in B",
            (("pass", "partly skipped: x; y"), ("pass", "partly skipped: y; z")): "asked less in B",
            (("pass", "partly skipped: x; y"), ("pass", "partly skipped: y")): "",
            (("skip", "no fbgemm"), ("skip", "no torch")): "otherwise",
            (("pass", "partly skipped: x"), ("pass", "")): "",
            (("fail", "AssertionError: at 0x7f0000000000"), ("fail", "AssertionError: at 0x7f1111111111")): "",
            ("pass", "pass"): "",
        }
        for (before, after), wanted in cases.items():
            with self.subTest(before=before, after=after):
                one, other = (rows({} if found is None else {"S.a": found}).get("S.a") for found in (before, after))
                self.assertEqual(diff.kind_of(one, other), wanted)

    def test_mended_tear_down_is_no_lost_test(self):
        """What is recorded only where it goes wrong is mended when nothing of it is left."""
        found = compared({"S.a": "pass", "S.tearDownClass": "error", "runner.exit": "crash"}, {"S.a": "pass"})
        self.assertEqual((list(found.differences), found.count, found.worse), (["mended"], 2, False))
        self.assertIn("S.tearDownClass", diff.text(found))

    @given(ROWS, ROWS)
    def test_every_test_is_counted_once(self, before, after):
        """Whatever two runs hold, each test is either the same or in one kind, and the forms are made of the same."""
        found = compared(before, after)
        self.assertEqual(found.count + sum(found.same.values()), len({*before, *after}))
        self.assertLessEqual(set(found.differences), set(diff.KINDS))
        self.assertEqual(len(diff.as_json(found)["differences"]), found.count)
        self.assertIn(found.headline, diff.text(found))

    @given(ROWS)
    def test_a_run_does_not_differ_from_itself(self, outcomes):
        """Nothing differs, and nothing is worse."""
        found = compared(outcomes, outcomes)
        self.assertEqual((found.count, found.worse), (0, False))


class TestForms(unittest.TestCase):
    """How a comparison is told."""

    def setUp(self):
        before = {"S.a": "pass", "S.b": "fail", "S.c": "pass", "S.d": ("skip", "no fbgemm")}
        after = {"S.a": ("fail", "AssertionError: <3> != 4"), "S.b": "pass", "S.c": "pass", "S.d": ("skip", "no fbgemm")}
        self.found = compared(before, after, suite_commit="6" * 40)

    def test_text_says_what_differs_and_why(self):
        """Builds, what changed between them, the commits, each test with its outcomes and the line that says why."""
        told = diff.text(self.found)
        for wanted in (
            "2 of 4 tests differ: 1 broke, 1 mended\nA: stable on box, 2026-03-30: torch 2.14.0.dev20260330 (0000000ab), Python 3.12.1",
            "the suite: 555555555 to 666666666",
            "Broke (1)\n  S.a  pass -> fail\n      AssertionError: <3> != 4",
            "Mended (1)\n  S.b  fail -> pass",
            "The same on both: 1 pass, 1 skip",
        ):
            with self.subTest(wanted=wanted):
                self.assertIn(wanted, told)

    def test_equal_reasons_are_told_once(self):
        """Tests that are skipped for the same reason share it; lines that part far in are shown from there."""
        skipped = {f"S.{letter}": ("skip", "callbacks (no lightning)") for letter in "abc"}
        told = diff.text(compared(dict.fromkeys(skipped, "pass"), skipped))
        self.assertIn("  S.a  pass -> skip\n  S.b  pass -> skip\n  S.c  pass -> skip\n      callbacks (no lightning)\n", told)
        long = "AssertionError: " + "the same beginning " * 20
        told = diff.text(compared({"S.a": ("fail", long + "one end")}, {"S.a": ("fail", long + "another end")}))
        self.assertRegex(told, r"\n      A: \.\.\. .{20,60} one end\n      B: \.\.\. .{20,60} another end\n")

    @needs("jinja2", "the page of a comparison")
    def test_page_stands_alone(self):
        """The page escapes what it shows and refers to nothing outside but the commits."""
        page = diff.page(self.found)
        self.assertIn("AssertionError: &lt;3&gt; != 4", page)
        self.assertIn("<h1>2 of 4 tests differ: 1 broke, 1 mended</h1>", page)
        self.assertNotIn("<3>", page)
        self.assertNotIn("src=", page)

    @needs("jinja2", "the page of a comparison")
    @settings(max_examples=40)
    @given(st.text(st.characters()), st.text(st.characters()))
    def test_any_text_is_shown_safely(self, name, message):
        """Names and messages of any kind reach neither a terminal nor a page as anything but text."""
        found = compared({name: "pass"}, {name: ("fail", message)}, torch=message)
        self.assertNotRegex(diff.text(found).replace("\n", ""), "[\x00-\x1f\x7f\u202e]")
        self.assertEqual(diff.page(found).count("<script>"), 1)
        json.dumps(diff.as_json(found))


class TestLookup(unittest.TestCase):
    """Runs as a person names them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.history = History(self.folder / "h.sqlite", create=True)
        self.addCleanup(self.history.close)
        for night in range(3):
            put(self.history, make_run("a@b", night, 3, uid=f"0123456789-{night}"), {"S.a": "pass" if night < 2 else "fail"})
        put(self.history, make_run("a@b", state=COULD_NOT_RUN, started="2026-04-01T02:30:00Z", uid="stopped"), {})

    def test_run_is_found_by_any_of_its_names(self):
        """Target, day, hour, torch, commit, nights back and uid; a target's name may hold an @; a run that could not run counts not."""
        cases = {
            "a@b": 2,
            "a@b@-1": 1,
            "a@b@2026-03-29": 0,
            "a@b@2026-03-30T02": 1,
            "a@b@2.14.0.dev20260329": 0,
            "a@b@0000001ab": 1,
            "0123456789-1": 1,
        }
        for name, night in cases.items():
            with self.subTest(name=name):
                self.assertEqual(lookup.find_run(self.history, name).uid, f"0123456789-{night}")

    def test_run_of_one_test_is_found_by_its_uid_alone(self):
        """A target's latest runs are those of all its tests."""
        put(self.history, make_run("a@b", 3, 4, uid="single-test", selection="-k S.a"), {"S.a": "pass"})
        found = {name: lookup.find_run(self.history, name).uid for name in ("a@b", "a@b@-1", "single-test")}
        self.assertEqual(found, {"a@b": "0123456789-2", "a@b@-1": "0123456789-1", "single-test": "single-test"})

    def test_name_that_means_nothing_is_said(self):
        """What is not there, and a beginning that several share, are one line each."""
        cases = {"c": "targets: a@b", "a@b@-9": "its last 3: 2026-03-31", "a@b@2.13": "no complete run 2.13", "0123456789": "3 runs"}
        for name, wanted in cases.items():
            with self.subTest(name=name), self.assertRaises(NightlyError) as caught:
                lookup.find_run(self.history, name)
            self.assertIn(wanted, str(caught.exception))

    def call(self, *arguments):
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            status = main(["diff", *arguments, "--history", str(self.folder / "h.sqlite")])
        return status, told.getvalue()

    @needs("jinja2", "the page of a comparison")
    def test_command_compares_nights(self):
        """The status is 1 if B is worse, 0 if it is not; JSON and page are forms of the same."""
        self.assertEqual(self.call("a@b@-1", "a@b")[0], 1)
        self.assertEqual(self.call("a@b@-2", "a@b@-1")[0], 0)
        status, told = self.call("a@b@-1", "a@b", "--format", "json")
        self.assertEqual([item["kind"] for item in json.loads(told)["differences"]], ["broke"])
        self.assertTrue(self.call("a@b@-1", "a@b", "--format", "html")[1].startswith("<!DOCTYPE html>"))

    def test_command_compares_files_without_a_history(self):
        """Two JUnit files of builds that were validated elsewhere."""
        for letter, outcome in {"x": "pass", "y": "fail"}.items():
            junit.write(self.folder / letter, make_run(letter), [make_row("S.a", outcome)])
        files = [str(next((self.folder / letter).glob("*.xml"))) for letter in "xy"]
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            self.assertEqual(main(["diff", *files, "--history", str(self.folder / "none.sqlite")]), 1)
        self.assertIn("S.a  pass -> fail", told.getvalue())


if __name__ == "__main__":
    unittest.main()

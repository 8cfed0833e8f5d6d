"""Tests of the changes of all targets together."""

import unittest

from nightly import findings
from nightly.compare import KINDS, Change, Judgement
from nightly.extras import given, st
from nightly.made_up import make_row, make_run


def judgement(*changes, baseline=True, tests=10, **fields):
    """A night with these changes."""
    results = {f"S.test_{number}": make_row(f"S.test_{number}") for number in range(tests)}
    return Judgement(make_run(**fields), make_run(night=0, nights=2) if baseline else None, results, list(changes))


def failure(test="S.test_a", text="AssertionError: 3 != 4", good=None, bad=None, kind="new failure"):
    good = make_run(night=0, nights=2) if good is None else good
    return Change(kind, test, "fail", text, good or None, bad or make_run(night=1, nights=2))


class TestMerged(unittest.TestCase):
    """Which changes are one."""

    def test_equal_failures_of_targets_are_one(self):
        """The same test with the same telling line is one finding; another line is another."""
        named = [("a", judgement(failure())), ("b", judgement(failure())), ("c", judgement(failure(text="AssertionError: 5 != 4")))]
        (kind, items), *others = findings.merged(named).items()
        self.assertEqual((kind, others), ("new failure", []))
        self.assertEqual(
            [(item.line, item.targets) for item in items], [("AssertionError: 3 != 4", ["a", "b"]), ("AssertionError: 5 != 4", ["c"])]
        )

    def test_equal_turning_points_are_one(self):
        """Targets that broke between the same builds share a line; others have one of their own."""
        late = make_run(night=1, nights=2, torch="9.9")
        named = [("a", judgement(failure())), ("b", judgement(failure(bad=late))), ("c", judgement(failure()))]
        (finding,) = findings.merged(named)["new failure"]
        self.assertEqual([turn.targets for turn in finding.turns], [["a", "c"], ["b"]])

    def test_new_failures_come_first(self):
        """Before every other kind of change; what still fails is the first of the folded."""
        named = [("a", judgement(*(failure(kind=kind) for kind in reversed(KINDS))))]
        kinds = list(findings.merged(named))
        self.assertEqual(kinds[0], "new failure")
        self.assertEqual(kinds[len(findings.LOUD)], "still failing")
        self.assertEqual(set(kinds), set(KINDS))

    def test_place_is_the_same_every_night(self):
        """An entry's address depends on its test and line alone, is fit for a link, and differs from others'."""
        one, again = (findings.merged([(name, judgement(failure()))])["new failure"][0].id for name in "ab")
        self.assertEqual(one, again)
        self.assertRegex(one, r"^f-new-failure-S\.test_a-[\w.-]+$")
        self.assertNotEqual(findings.place_of("t", "a b"), findings.place_of("t", "a_b"))

    @given(st.text())
    def test_place_of_any_text_is_fit_for_a_link(self, text):
        """Letters, digits, point, dash and underscore alone."""
        self.assertRegex(findings.place_of("t", text), r"^t-[A-Za-z0-9_.-]*$")


class TestCause(unittest.TestCase):
    """Whose change it can be."""

    def test_cause_names_what_changed(self):
        """Between the good and the bad run torch, the suite, Python, the engines, the machine, several or nothing."""
        same = {"night": 0, "nights": 1}
        good = make_run(**same)
        cases = [
            (make_run(**same, torch="9"), "Only torch changed between them."),
            (make_run(**same, torch_commit="c" * 40), "Only torch changed between them."),
            (make_run(**same, suite_commit="6" * 40), "Only the suite changed between them."),
            (make_run(**same, torch="9", suite_commit="6" * 40), "Between them changed torch and the suite."),
            (make_run(**same, torch="9", suite_commit="6" * 40, python="3"), "Between them changed torch, the suite and Python."),
            (make_run(**same, environment={"engines": [], "processor": "x86_64"}), "Only quantized engines changed between them."),
            (make_run(**same, environment={**good.environment, "processor": "arm"}), "Only the machine changed between them."),
            (make_run(**same), "Nothing that is recorded changed between them: chance, or something else on the machine."),
        ]
        for bad, wanted in cases:
            with self.subTest(wanted=wanted):
                self.assertEqual(findings.Turn(good, bad).cause, wanted)
        self.assertEqual(findings.Turn(None, good).cause, "It was never good here.")


class TestHeadline(unittest.TestCase):
    """The first line."""

    def check(self, named, wanted, silent=()):
        self.assertEqual(findings.headline(named, findings.merged(named), silent), wanted)

    def test_headline_says_what_changed(self):
        """How many of what, on how many targets, since which build."""
        good, bad = judgement(), judgement(failure(), failure("S.test_b"))
        day, torch = "2026-03-30", "torch 2.14.0.dev20260330 (0000000ab)"
        self.check([("a", bad), ("b", good), ("c", good)], [f"2 new failures on 1 of 3 targets since {torch} of {day}"])
        self.check([("a", bad), ("b", bad)], [f"2 new failures on 2 of 2 targets since {torch} of {day}"])
        self.check([("a", bad)], [f"2 new failures since {torch} of {day}"])

    def test_first_night_has_nothing_to_compare_with(self):
        """It says so instead of naming a build."""
        self.check([("a", judgement(failure(), baseline=False))], ["1 new failure; first night, nothing to compare with"])
        self.check([("a", judgement(baseline=False))], ["All well: 10 tests on 1 target; first night, nothing to compare with"])

    def test_headline_without_news_is_calm(self):
        """What still fails is counted as such; a night without anything says how much ran."""
        still = judgement(failure(kind="still failing"), Change("flaky", "S.test_c", "flaky"))
        self.check([("a", still), ("b", judgement())], ["Nothing new broke; 1 test still failing on 1 of 2 targets", "1 flaky"])
        self.check([("a", judgement()), ("b", judgement())], ["All well: 20 tests on 2 targets, nothing broke"])
        self.check([], ["No run is recorded"])

    def test_headline_counts_what_did_not_run(self):
        """Targets that could not run, and those that have been silent."""
        stopped = Judgement(make_run(), changes=[Change("could not run", text="no torch")])
        self.check([("a", stopped), ("b", judgement())], ["1 of 2 targets could not run"])
        self.check([("a", judgement())], ["1 target silent for too long"], silent=["a: long ago"])


if __name__ == "__main__":
    unittest.main()

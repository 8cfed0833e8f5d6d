"""Tests of what counts as a change between two nights, and of the exit status it means."""

import tempfile
import unittest
from pathlib import Path

from nightly import outcomes
from nightly.compare import KINDS, STILL, judge, mark_short, was_told
from nightly.history import COULD_NOT_RUN, INTERRUPTED, History
from nightly.made_up import make_row, make_run, put

#: The days of the last three nights.
DAYS = ("2026-03-29", "2026-03-30", "2026-03-31")
STEADY = {f"S.test_{number}": "pass" for number in range(10)}


class TestJudge(unittest.TestCase):
    """Nights put into a history one after the other, the last of which is judged."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.history = History(Path(folder.name) / "history.sqlite", create=True)
        self.addCleanup(self.history.close)
        self.count = 0

    def judge(self, *nights, heard=lambda run: True, **fields):
        """The judgement of the last of some nights of a target, each of them outcomes or a (run fields, outcomes) pair."""
        self.count += 1
        with self.history.writing():
            for number, night in enumerate(nights):
                changed, results = night if isinstance(night, tuple) else ({}, night)
                run = put(self.history, make_run(f"target {self.count}", number, len(nights), **{**fields, **changed}), results)
                mark_short(self.history, run, self.history.results(run).values())
                self.history.update(run)
            return judge(self.history, run, heard)

    def kinds(self, judgement):
        return [(change.kind, change.test) for change in judgement.changes]

    def test_every_pair_of_outcomes_is_the_change_it_should_be(self):
        """What a test came to on two nights decides the kind of change and the exit status."""
        cases = [
            ("pass", "pass", None, 0),
            ("pass", "fail", "new failure", 1),
            ("pass", "crash", "new failure", 1),
            ("pass", "not run", "new failure", 1),
            ("expected failure", "error", "new failure", 1),
            ("flaky", "timeout", "new failure", 1),
            ("unexpected success", "fail", "new failure", 1),
            (None, "fail", "new failure", 1),
            ("fail", "fail", "still failing", 4),
            ("timeout", "crash", "still failing", 4),
            ("fail", "pass", "fixed", 0),
            ("error", "expected failure", "fixed", 0),
            ("fail", "skip", "new skip", 1),
            ("pass", "skip", "new skip", 1),
            ("skip", "skip", None, 0),
            ("skip", "pass", None, 0),
            ("skip", "fail", "new failure", 1),
            ("pass", "flaky", "flaky", 4),
            ("flaky", "flaky", "still flaky", 4),
            ("flaky", "pass", None, 0),
            ("expected failure", "unexpected success", "known defect vanished", 4),
            ("expected failure", "defect gone", "known defect vanished", 4),
            ("expected failure", "pass", "known defect vanished", 4),
            (None, "defect gone", "known defect vanished", 4),
            ("defect gone", "defect gone", "known defect still gone", 0),
            ("unexpected success", "defect gone", "known defect still gone", 0),
            ("defect gone", "expected failure", "known defect back", 4),
            ("defect gone", "pass", None, 0),
            ("defect gone", "fail", "new failure", 1),
            ("pass", None, "vanished test", 1),
            (None, "pass", "new test", 0),
            ("expected failure", "expected failure", None, 0),
        ]
        for was, is_now, kind, status in cases:
            with self.subTest(was=was, now=is_now):
                nights = [{**STEADY, **({"T.test_x": outcome} if outcome else {})} for outcome in (was, is_now)]
                judgement = self.judge(*nights)
                self.assertEqual(self.kinds(judgement), [(kind, "T.test_x")] if kind else [])
                self.assertEqual(judgement.status, status)

    def test_first_night_has_failures_but_no_new_tests(self):
        """Without a night before, failures are new and everything else is as it is."""
        judgement = self.judge({**STEADY, "T.test_x": "fail", "T.test_y": "skip"})
        self.assertEqual(self.kinds(judgement), [("new failure", "T.test_x")])
        self.assertIsNone(judgement.baseline)

    def test_skip_between_failures_does_not_make_them_new(self):
        """A failure after a skip is held against the last night that said something."""
        for was, kind in {"fail": "still failing", "pass": "new failure"}.items():
            with self.subTest(was=was):
                judgement = self.judge(*({**STEADY, "T.test_x": outcome} for outcome in (was, "skip", "skip", "fail")))
                self.assertEqual(self.kinds(judgement), [(kind, "T.test_x")])

    def test_new_failure_names_the_last_good_and_first_bad_torch(self):
        """The commits between which a test broke are part of the change."""
        judgement = self.judge(*({**STEADY, "T.test_x": outcome} for outcome in ("pass", "pass", "fail", "fail")))
        (change,) = judgement.changes
        self.assertEqual((change.last_good.torch_commit[:7], change.first_bad.torch_commit[:7]), ("0000001", "0000002"))

    def test_night_without_tests_is_red_and_no_baseline(self):
        """Nothing ran: worse; and the night after is held against the last one with tests."""
        empty = self.judge(STEADY, {})
        self.assertEqual((self.kinds(empty), empty.status), ([("no tests ran", "")], outcomes.WORSE))
        after = self.judge(STEADY, {}, STEADY)
        self.assertEqual((after.changes, after.baseline.day), ([], "2026-03-29"))

    def test_far_fewer_tests_stay_red_while_the_suite_is_the_same(self):
        """A night with far fewer tests is red, and so is the next one, unless the suite itself has changed."""
        few = dict(list(STEADY.items())[:5])
        for nights in ([STEADY, few], [STEADY, few, few]):
            judgement = self.judge(*nights)
            texts = [change.text for change in judgement.changes if change.kind == "far fewer tests"]
            self.assertEqual(texts, ["5 tests, 10 on " + judgement.baseline.day])
            vanished = sum(change.kind == "vanished test" for change in judgement.changes)
            self.assertEqual((vanished, judgement.status), (5, outcomes.WORSE))
        shrunk = ({"suite_commit": "6" * 40}, few)
        self.assertEqual(self.judge(STEADY, shrunk).status, outcomes.WORSE)
        self.assertEqual(self.judge(STEADY, shrunk, shrunk).changes, [])

    def test_other_selection_is_not_compared(self):
        """A night of a part of the suite is held against nights of the same part."""
        judgement = self.judge(STEADY, ({"selection": "-k T"}, {"T.test_x": "pass"}))
        self.assertEqual((judgement.changes, judgement.baseline), ([], None))

    def test_interrupted_night_is_no_verdict(self):
        """What an interrupted run has seen is mentioned, but it is no failure, and no night's first bad is one."""
        nights = [STEADY, ({"state": INTERRUPTED, "reason": "asked to end"}, {**STEADY, "S.test_0": "fail"})]
        judgement = self.judge(*nights)
        self.assertEqual(self.kinds(judgement), [("interrupted", ""), ("note", "S.test_0")])
        self.assertEqual((judgement.status, len(judgement.results)), (outcomes.COULD_NOT_RUN, 10))
        (_, change) = self.judge(*nights, {**STEADY, "S.test_0": "fail"}).changes[::-1]
        self.assertEqual((change.kind, change.first_bad.day, change.last_good.day), ("new failure", "2026-03-31", "2026-03-29"))

    def test_night_that_could_not_run_or_was_interrupted_is_told(self):
        """A run that did not get through is no baseline; that it did not is told, and the next night mentions an interruption."""
        judgement = self.judge(STEADY, ({"state": COULD_NOT_RUN, "reason": "no torch"}, {}))
        self.assertEqual((judgement.changes[0].text, judgement.status), ("no torch", outcomes.COULD_NOT_RUN))
        after = self.judge(STEADY, ({"state": INTERRUPTED}, {"S.test_0": "fail"}), STEADY)
        self.assertEqual((self.kinds(after), after.status), ([("note", "")], outcomes.ALL_WELL))
        self.assertIn("interrupted", after.changes[0].text)

    def test_night_of_a_wrong_clock_is_mentioned(self):
        """A night whose start cannot be says so."""
        for started in ("2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z"):
            with self.subTest(started=started):
                judgement = self.judge(({"started": started, "uid": started}, STEADY))
                self.assertIn(f"its start, {started}, cannot be", judgement.changes[0].text)

    def test_change_of_the_suite_is_mentioned_where_tests_come_and_go(self):
        """Where tests vanished or are new, a change of the suite itself is named beside them."""
        newer = {"suite_commit": "6" * 40, "suite_version": "2.1"}
        judgement = self.judge(STEADY, (newer, {**STEADY, "T.test_x": "pass"}))
        self.assertIn("the suite itself changed since 2026-03-30, from 555555555 to 2.1 666666666", judgement.changes[-1].text)
        self.assertEqual(self.judge(STEADY, (newer, STEADY)).changes, [])

    def test_lost_engines_are_mentioned(self):
        """An engine that the build had the night before is named."""
        judgement = self.judge(STEADY, ({"environment": {"engines": ["fbgemm"]}}, STEADY))
        self.assertIn("engines gone since 2026-03-30: qnnpack", judgement.changes[0].text)

    def test_skip_of_a_part_is_a_new_skip(self):
        """A test that passes but now skips some of its cases counts as a new skip."""
        part = make_row("T.test_x", message="partly skipped: dynamic kernels (no qnnpack)")
        self.assertEqual(self.kinds(self.judge({**STEADY, "T.test_x": "pass"}, {**STEADY, "T.test_x": part})), [("new skip", "T.test_x")])
        self.assertEqual(self.judge({"T.test_x": part}, {"T.test_x": part}).changes, [])

    def test_fewer_skipped_parts_are_no_new_skip(self):
        """Only a reason that was not there before alarms, wherever it stands among the others."""
        for before, after, told in [("a; b", "b", False), ("a; b", "b; a", False), ("a; b", "b; c", True), ("b", "a; b", True)]:
            with self.subTest(before=before, after=after):
                nights = [{"T.test_x": make_row("T.test_x", message=f"partly skipped: {reasons}")} for reasons in (before, after)]
                self.assertEqual(self.kinds(self.judge(*nights)), [("new skip", "T.test_x")] * told)

    def test_what_goes_wrong_around_tests_is_no_test(self):
        """A tearDownClass, or an end of the runner, that goes wrong is a new failure; mended it is fixed, and neither counts."""
        suite = {"T.a": "pass", "T.b": "pass"}
        for name in ("T.setUpClass", "T.tearDownClass", "m.setUpModule", "m.tearDownModule", "runner.exit"):
            odd = {**suite, name: "error"}
            with self.subTest(name=name):
                (change,) = self.judge(suite, odd).changes
                self.assertEqual((change.kind, change.test, change.last_good.day, change.first_bad.day), ("new failure", name, *DAYS[1:]))
                for nights in ([suite, odd, suite], [suite, {**odd, "runner.exit": "crash"}, suite]):
                    mended = self.judge(*nights)
                    self.assertEqual(({kind for kind, _ in self.kinds(mended)}, mended.status), ({"fixed"}, outcomes.ALL_WELL))
                self.assertEqual(self.judge(suite, odd, suite, suite).changes, [])
                (change,) = self.judge(suite, odd, suite, odd).changes
                self.assertEqual((change.kind, change.last_good.day, change.first_bad.day), ("new failure", *DAYS[1:]))

    def test_slower_by_far_is_told_after_enough_nights(self):
        """Far above the slowest of at least five nights is told; noise, few nights and quick tests are not."""
        usual, quick = [0.4, 0.2, 0.3, 0.5, 0.2, 0.3], [0.01] * 6
        cases = [(usual, 1.9, True), (usual, 1.4, False), (usual, 0.9, False), (quick, 0.4, False), (quick, 0.6, True)]
        for before, seconds, told in cases:
            with self.subTest(before=before, seconds=seconds):
                nights = [{**STEADY, "T.test_x": make_row("T.test_x", seconds=s)} for s in [*before, seconds]]
                self.assertEqual(self.kinds(self.judge(*nights)), [("slower by far", "T.test_x")] * told)
        self.assertEqual(self.judge(*({"T.test_x": make_row("T.test_x", seconds=s)} for s in (0.1, 0.1, 9.0))).changes, [])

    def test_changes_come_worst_first(self):
        """The order of the changes is that of their kinds."""
        before = {**STEADY, "T.a": "pass", "T.b": "fail", "T.c": "fail"}
        judgement = self.judge(before, {**before, "T.a": "fail", "T.c": "pass", "T.d": "flaky"})
        self.assertEqual([kind for kind, _ in self.kinds(judgement)], ["new failure", "flaky", "fixed", "still failing"])
        self.assertEqual(set(list(KINDS)[-len(STILL) :]), STILL)

    def test_news_is_told_once(self):
        """A defect that went, or a flaky test, that a night before last has told is no news, though it was otherwise in between."""
        for outcome, kind in {"defect gone": "known defect still gone", "flaky": "still flaky"}.items():
            with self.subTest(outcome=outcome):
                judgement = self.judge(*({**STEADY, "T.test_x": each} for each in (outcome, "pass", outcome)))
                self.assertEqual((self.kinds(judgement), judgement.is_news), ([(kind, "T.test_x")], False))

    def test_note_is_told_once(self):
        """A note that the night before had is no news; one that failures were not run again is none where none of them is new."""
        for before, after, news in [("x", "x", False), ("x", "y", True), ("31 run again alone", "30 run again alone", False)]:
            with self.subTest(before=before, after=after):
                nights = [({"notes": [note]}, {**STEADY, "T.a": "fail"}) for note in (before, after)]
                judgement = self.judge(*nights)
                kinds = [("note", "")] * news + [("still failing", "T.a")] + [("still noted", "")] * (not news)
                self.assertEqual((self.kinds(judgement), judgement.is_news), (kinds, news))
        judgement = self.judge(STEADY, ({"notes": ["31 run again alone"]}, {**STEADY, "S.test_0": "fail"}))
        self.assertEqual(self.kinds(judgement), [("new failure", "S.test_0"), ("note", "")])

    def test_news_is_what_changed_since_the_last_told_night(self):
        """What a night has seen that told nobody is news the next night; where none was told, every failure is."""
        for outcome, kind in {
            "fail": "new failure",
            "defect gone": "known defect vanished",
            "flaky": "flaky",
            None: "vanished test",
        }.items():
            good, odd = {**STEADY, "T.test_x": "pass"}, {**STEADY, **({"T.test_x": outcome} if outcome else {})}
            with self.subTest(outcome=outcome):
                judgement = self.judge(({"told": 1}, good), odd, odd, heard=was_told)
                self.assertEqual((self.kinds(judgement), judgement.baseline.day), ([(kind, "T.test_x")], "2026-03-29"))
                self.assertEqual(self.judge(({"told": 1}, good), ({"told": 1}, odd), odd, heard=was_told).is_news, False)
        never = self.judge({**STEADY, "T.test_x": "fail"}, {**STEADY, "T.test_x": "fail"}, heard=was_told)
        self.assertEqual(self.kinds(never), [("new failure", "T.test_x")])

    def test_slower_kernel_is_told_once_whatever_night_has_no_speeds(self):
        """A night on which the speeds could not be measured does not make it news again."""
        nights = [({"environment": {"speed": [f"a = {ratio}"] if ratio else []}}, STEADY) for ratio in (1.0, 1.0, 1.5, 1.5, None, 1.5)]
        self.assertEqual(self.kinds(self.judge(*nights[:4])), [("slower by far", "")])
        self.assertEqual(self.kinds(self.judge(*nights)), [])

    def test_status_of_several_targets_is_the_most_telling(self):
        """Worse goes before could not run, that before known failures, and these before all well."""
        for statuses, wanted in {(0, 4, 3, 1): 1, (0, 4, 3): 3, (4, 0): 4, (0,): 0, (): 0}.items():
            with self.subTest(statuses=statuses):
                self.assertEqual(outcomes.worst_status(statuses), wanted)


if __name__ == "__main__":
    unittest.main()

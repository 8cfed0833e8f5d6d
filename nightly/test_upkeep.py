"""Tests of the commands that keep a history in order: ack, export, forget, check."""

import contextlib
import csv
import io
import json
import tempfile
import unittest
from datetime import date, timedelta
from pathlib import Path

from nightly import acknowledge, check, export, findings
from nightly.cli import main
from nightly.compare import STILL, judge
from nightly.extras import given, needs, st
from nightly.history import COULD_NOT_RUN, History
from nightly.made_up import make_row, make_run, put
from nightly.outcomes import ALL_WELL, KNOWN_ONLY


class UpkeepCase(unittest.TestCase):
    """A history in a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "h.sqlite"
        self.history = History(self.path, create=True)
        self.addCleanup(self.history.close)

    def call(self, *arguments):
        """(status, standard output, standard error) of a command on the history."""
        told, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
            status = main([*arguments, "--history", str(self.path)])
        return status, told.getvalue(), said.getvalue()


class TestAcknowledge(UpkeepCase):
    """Failures that somebody knows of."""

    def judged(self, *nights, target="stable"):
        """The judgement of the last of these nights (name -> outcome)."""
        for number, outcomes in enumerate(nights):
            run = put(self.history, make_run(target, number, len(nights)), outcomes)
        return judge(self.history, run)

    def kinds(self, judgement):
        return [(change.kind, change.test) for change in judgement.changes]

    def test_acknowledged_failure_does_not_alarm_until_its_day(self):
        """Up to and including the day it is shown as known, with the reason; other tests and other targets alarm as before."""
        acknowledge.add(self.history, "T.a", "", "issue 123", "2026-03-31")
        acknowledge.add(self.history, "T.b", "other", "issue 124", "2026-03-31")
        judgement = self.judged({"T.a": "pass", "T.b": "pass"}, {"T.a": make_row("T.a", "fail", "AssertionError: 3"), "T.b": "fail"})
        self.assertEqual(self.kinds(judgement), [("new failure", "T.b"), ("acknowledged", "T.a")])
        self.assertEqual(judgement.changes[1].text, "known until 2026-03-31: issue 123\nAssertionError: 3")
        acknowledge.add(self.history, "T.b", "", "issue 124", "2026-03-31")
        judgement = judge(self.history, judgement.run)
        self.assertEqual((judgement.status, judgement.is_news), (ALL_WELL, False))
        self.assertIn("acknowledged", STILL)

    def test_acknowledgement_that_has_run_out_alarms_once(self):
        """On the first night after its day the failure is new again, on the next it is still failing."""
        acknowledge.add(self.history, "T.a", "", "issue 123", "2026-03-29")
        bad, good = {"T.a": "fail"}, {"T.a": "pass"}
        self.judged(good, bad, bad, bad)
        told = [self.kinds(judge(self.history, run)) for run in reversed(self.history.runs(1))]
        self.assertEqual(told, [[], [("acknowledged", "T.a")], [("new failure", "T.a")], [("still failing", "T.a")]])

    def test_pattern_covers_tests(self):
        """A pattern with * stands for every test that fits, of which each outcome that would alarm is known."""
        acknowledge.add(self.history, "T.*", "", "being mended", "2026-12-31")
        before = {"T.a": "pass", "T.b": "pass", "T.c": "pass", "T.d": "pass", "U.e": "pass"}
        judgement = self.judged(before, {"T.a": "fail", "T.b": "skip", "T.c": "flaky", "U.e": "flaky"})
        self.assertEqual({kind for kind, test in self.kinds(judgement) if test.startswith("T.")}, {"acknowledged"})
        self.assertEqual([kind for kind, test in self.kinds(judgement) if test == "U.e"], ["flaky"])
        self.assertEqual(judgement.status, KNOWN_ONLY)

    def test_brackets_are_part_of_a_name(self):
        """A parametrized test is covered by its own name, and by a pattern with its brackets; another case of it is not."""
        for pattern in ("p.T.a[cpu-float32]", "p.T.a[cpu*]", "*[*32]"):
            known = acknowledge.Acknowledgement(pattern, "", "issue 123", "2026-12-31", "")
            covered = [test for test in ("p.T.a[cpu-float32]", "p.T.a[cuda-half]", "p.T.ac") if known.covers(test, "stable")]
            with self.subTest(pattern=pattern):
                self.assertEqual(covered, ["p.T.a[cpu-float32]"])

    def test_command_takes_a_parametrized_name(self):
        """A name with brackets is that of a test that is there."""
        put(self.history, make_run(), {"p.T.a[cpu-float32]": "fail"})
        self.assertEqual(self.call("ack", "p.T.a[cpu-float32]", "--reason", "issue 123", "--until", "14d"), (0, "", ""))

    def test_command_records_lists_and_takes_back(self):
        """It wants a reason and a day within a year, and a test that is there."""
        put(self.history, make_run(), {"T.a": "fail"})
        day = (date.today() + timedelta(days=14)).isoformat()
        self.assertEqual(self.call("ack", "T.a", "--reason", "issue\x1b 123", "--until", "14d")[0], 0)
        self.assertEqual(self.call("ack")[1], f"T.a until {day}: issue\\x1b 123\n")
        self.assertEqual(self.call("ack", "T.a", "--remove")[0], 0)
        self.assertEqual(self.call("ack")[1], "")
        cases = {("T.a", "--remove"): 3, ("T.b", "--reason", "x", "--until", "14d"): 3, ("T.a", "--reason", "x"): 2, ("--remove",): 2}
        for words, wanted in cases.items():
            with self.subTest(words=words):
                self.assertEqual(self.call("ack", *words)[0], wanted)

    def test_day_lies_within_a_year(self):
        """A day that is past, too far ahead, or none, is refused."""
        today = date.today()
        for text in ("", "soon", "2020-01-01", "999d", (today + timedelta(days=400)).isoformat()):
            with self.subTest(text=text), self.assertRaises(ValueError):
                acknowledge.parse_day(text)
        self.assertEqual(acknowledge.parse_day(today.isoformat()), today.isoformat())

    def test_page_shows_what_is_acknowledged_folded(self):
        """It is among the folded kinds, with its turning point."""
        self.assertIn("acknowledged", findings.QUIET)
        self.assertIn("acknowledged", findings.FAILURES)


class TestExport(UpkeepCase):
    """The history for other programs."""

    def put_nights(self):
        for night in range(3):
            put(self.history, make_run("a", night, 3), {"S.x": make_row("S.x", "fail", '=1+1\n"quoted", and more'), "S.y": "pass"})
        put(self.history, make_run("b", state=COULD_NOT_RUN, reason="no torch"), {})

    def test_csv_has_a_line_for_each_result(self):
        """Line breaks and quotes come back, what a spreadsheet would take for a formula has an apostrophe, a run without results a line."""
        self.put_nights()
        lines = list(csv.DictReader(io.StringIO(self.call("export")[1])))
        self.assertEqual(len(lines), 7)
        self.assertEqual(lines[0]["message"], '\'=1+1\n"quoted", and more')
        self.assertEqual([(line["target"], line["reason"], line["test"]) for line in lines[6:]], [("b", "no torch", "")])

    def test_json_has_all_of_a_run(self):
        """Its environment and its results, exactly."""
        self.put_nights()
        told = json.loads(self.call("export", "--format", "json", "--target", "a")[1])
        self.assertEqual(len(told["runs"]), 3)
        self.assertEqual(told["runs"][0]["environment"], make_run().environment)
        self.assertEqual(told["runs"][0]["results"][0]["message"], '=1+1\n"quoted", and more')

    def test_runs_can_be_chosen(self):
        """By target, by day and by number."""
        self.put_nights()
        cases = {
            ("--target", "a", "--nights", "1"): 1,
            ("--target", "a", "--since", "2026-03-30"): 2,
            ("--nights", "2"): 3,
        }
        for words, wanted in cases.items():
            with self.subTest(words=words):
                self.assertEqual(len(json.loads(self.call("export", "--format", "json", *words)[1])["runs"]), wanted)
        self.assertEqual(self.call("export", "--target", "c")[0], 3)

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
    def test_any_text_comes_back_from_csv(self, text):
        """But for the apostrophe a cell is what was written; NUL, which csv does not take before Python 3.11, the history does not hold."""
        file = io.StringIO(newline="")
        csv.writer(file).writerow([export.plain(text), "end"])
        (cells,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
        self.assertEqual(cells[0].removeprefix("'") if text.startswith(export.FORMULA) else cells[0], text)


@needs("filelock", "forgetting")
class TestForget(UpkeepCase):
    """Runs that are taken out."""

    def test_forget_lists_before_it_forgets(self):
        """Without --yes nothing is gone; with it the run is, and what it was judged by is the night before."""
        for night in range(3):
            put(self.history, make_run("a", night, 3), {"S.x": "pass" if night != 1 else "fail"})
        status, told, said = self.call("forget", "a@2026-03-30")
        self.assertEqual((status, told.count("\n"), len(self.history.runs(1))), (0, 1, 3))
        self.assertIn("--yes", said)
        self.assertEqual(self.call("forget", "a@2026-03-30", "--yes")[0], 0)
        self.assertEqual([run.day for run in self.history.runs(1)], ["2026-03-31", "2026-03-29"])
        self.assertEqual(judge(self.history, self.history.runs(1)[0]).changes, [])
        self.assertEqual(check.faults(self.history), [])

    def test_forget_takes_a_target_of_one_machine(self):
        """Runs of the same name on another machine stay."""
        put(self.history, make_run("a", machine="one", uid="one-run"), {"S.x": "pass"})
        put(self.history, make_run("a", machine="two", uid="two-runs"), {"S.x": "pass"})
        self.assertEqual(self.call("forget", "--target", "a", "--machine", "one", "--yes")[0], 0)
        self.assertEqual([target.machine for target in self.history.targets()], ["two"])

    def test_forget_takes_runs_of_the_future(self):
        """What a wrong clock left behind goes, and nothing else."""
        put(self.history, make_run("a", uid="good-run"), {"S.x": "pass"})
        put(self.history, make_run("a", started="2099-01-01T00:00:00Z", uid="from-2099"), {"S.x": "pass"})
        self.assertIn("from-2099", self.call("check")[1])
        self.assertEqual(self.call("forget", "--misdated", "--yes")[0], 0)
        self.assertEqual(self.call("check"), (0, "", ""))
        self.assertEqual([run.uid for run in self.history.runs(1)], ["good-run"])

    def test_forget_names_what_is_not_there(self):
        """An unknown run or target, and nothing named at all, forget nothing."""
        put(self.history, make_run("a"), {"S.x": "pass"})
        for words, wanted in {("b",): 3, ("--target", "b"): 3, (): 2}.items():
            with self.subTest(words=words):
                self.assertEqual(self.call("forget", "--yes", *words)[0], wanted)
        self.assertEqual(len(self.history.runs(1)), 1)


class TestCheck(UpkeepCase):
    """Whether a history is sound."""

    def test_sound_history_says_nothing(self):
        """Nights that change, a run that could not run, a target twice."""
        for night in range(4):
            put(self.history, make_run("a", night, 4), {"S.x": "pass" if night % 2 else "fail", **({"S.y": "pass"} if night else {})})
        put(self.history, make_run("b", state=COULD_NOT_RUN), {})
        acknowledge.add(self.history, "S.x", "", "x", "2026-12-31")
        self.assertEqual(check.faults(self.history), [])

    def test_each_fault_is_named(self):
        """What was changed behind the history's back is found, one line for each."""
        cases = {
            "UPDATE span SET last = 1 WHERE first = 2": "goes from 2 to 1",
            "UPDATE span SET last = 99 WHERE first = 1": "overlap",
            "UPDATE run SET tests = 9": "says that it has 9 results",
            "UPDATE run SET place = 1": "have the place 1",
            "UPDATE run SET place = NULL": "was not packed",
            "UPDATE run SET started = '2099-01-01T00:00:00Z'": "claims to have started",
            "UPDATE verdict SET outcome = 'odd' WHERE id = 1": "none that is known",
            "UPDATE text SET content = x'00'": "cannot be read",
            "UPDATE run SET notes = '{'": "cannot be read",
            "UPDATE run SET notes = '5'": "its notes are no list",
            "PRAGMA foreign_keys = OFF; DELETE FROM test": "refers to what is not in test",
        }
        for number, (sql, wanted) in enumerate(cases.items()):
            with self.subTest(sql=sql), History(self.path.with_name(f"{number}.sqlite"), create=True) as history:
                for night, outcome in enumerate(["pass", "fail"]):
                    put(history, make_run("a", night, 2), {"S.x": outcome})
                history.db.executescript(sql)
                self.assertIn(wanted, "\n".join(check.faults(history)))

    def test_command_ends_with_what_it_found(self):
        """Status 3 and the lines; 0 and silence for a sound history."""
        put(self.history, make_run("a"), {"S.x": "pass"})
        self.assertEqual(self.call("check"), (0, "", ""))
        self.history.db.execute("UPDATE run SET tests = 9")
        self.assertEqual(self.call("check")[0], 3)


if __name__ == "__main__":
    unittest.main()

"""Tests of the history file."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from unittest import mock

from nightly.history import CLOCK_DAYS, COMPLETE, DAMAGED_TEXT, INTERRUPTED, RUNNING, History, Past, now, parse_time, recorded
from nightly.made_up import make_row, make_run, put
from nightly.outcomes import NightlyError

FORM_1 = """
CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT NOT NULL, machine TEXT NOT NULL, UNIQUE (name, machine));
CREATE TABLE run (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, target INTEGER NOT NULL REFERENCES target,
    started TEXT NOT NULL, finished TEXT, state TEXT NOT NULL, reason TEXT NOT NULL, short INTEGER NOT NULL DEFAULT 0,
    torch TEXT NOT NULL, torch_commit TEXT NOT NULL, python TEXT NOT NULL, suite_commit TEXT NOT NULL,
    selection TEXT NOT NULL, environment TEXT NOT NULL, notes TEXT NOT NULL);
CREATE INDEX run_of_target ON run (target, started);
CREATE TABLE test (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, area TEXT NOT NULL);
CREATE TABLE result (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, test INTEGER NOT NULL REFERENCES test,
    outcome TEXT NOT NULL, seconds REAL NOT NULL, message TEXT NOT NULL, PRIMARY KEY (run, test)) WITHOUT ROWID;
CREATE INDEX result_of_test ON result (test, run);
PRAGMA application_id = 1095716436;
PRAGMA user_version = 1;
"""
CHECKOUT = Path(__file__).resolve().parent.parent


class TestHistory(unittest.TestCase):
    """One file, used as a night uses it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "deep" / "history.sqlite"

    def open(self, **options):
        history = History(self.path, **{"create": True, **options})
        self.addCleanup(history.close)
        return history

    def test_run_comes_back_as_it_was_recorded(self):
        """A run and its results are read as they were written."""
        run = put(self.open(), make_run(notes=["a note"]), {"A.x": make_row("A.x", "fail", "why", 0.25, "scheduler"), "A.y": "pass"})
        history = self.open(create=False)
        (target,) = history.targets()
        (read,) = history.runs(target.id)
        self.assertEqual(read, run)
        self.assertEqual(history.results(read), {"A.x": make_row("A.x", "fail", "why", 0.25, "scheduler"), "A.y": make_row("A.y")})

    def test_later_result_replaces_the_earlier(self):
        """A test that is run again has one result, the last."""
        history = self.open()
        run = make_run(state=RUNNING, finished=None)
        history.begin(run)
        for outcome in ("fail", "flaky"):
            history.add(run, [make_row("A.x", outcome)])
        self.assertEqual({name: row.outcome for name, row in history.results(run).items()}, {"A.x": "flaky"})

    def test_same_name_on_two_machines_is_two_targets(self):
        """Nights of different machines are never compared."""
        history = self.open()
        first, second = put(history, make_run(uid="a"), {"A.x": "pass"}), put(history, make_run(uid="b", machine="other"), {"A.x": "fail"})
        self.assertNotEqual(first.target_id, second.target_id)
        self.assertEqual(len(history.runs(first.target_id)), 1)

    def test_turning_point_finds_the_last_good_and_first_bad_night(self):
        """Skips and missing nights do not count between the last good and the first bad."""
        history = self.open()
        outcomes = ["pass", "fail", "expected failure", "skip", "error", None, "skip", "crash"]
        nights = [{"A.x": outcome} if outcome else {} for outcome in outcomes]
        runs = [put(history, make_run(night=number, nights=8), night) for number, night in enumerate(nights)]
        past = history.past(runs[-1], ["A.x"])["A.x"]
        self.assertEqual((past.last_good, past.first_bad, past.outcome), (runs[2], runs[4], "error"))
        self.assertEqual(past.recent, {"pass", "fail", "expected failure", "skip", "error"})
        never = [put(history, make_run("other", number, 3), {"A.x": "fail"}) for number in range(3)]
        self.assertEqual(history.past(never[-1], ["A.x"])["A.x"], Past(None, never[0], "fail", frozenset({"fail"})))
        self.assertEqual(history.past(never[0], ["A.x", "A.unknown"]), {"A.x": Past(), "A.unknown": Past()})

    def test_prune_keeps_the_last_complete_run_of_each_target(self):
        """Old nights go, with tests that nothing refers to any more, but no target loses its last record."""
        history = self.open()
        old = [put(history, make_run(night=night, nights=3), {"A.x": "pass", f"A.only_{night}": "pass"}) for night in range(3)]
        fresh = put(history, make_run("fresh", started=now()), {"A.x": "pass"})
        with mock.patch("nightly.history.CLOCK_DAYS", 1):
            self.assertEqual(history.prune(1), 2)
        self.assertEqual([run.uid for run in history.runs(old[0].target_id)], [old[2].uid])
        self.assertEqual([run.uid for run in history.runs(fresh.target_id)], [fresh.uid])
        self.assertEqual(history.query("SELECT name FROM test ORDER BY name"), [("A.only_2",), ("A.x",)])
        self.assertEqual(history.query("PRAGMA foreign_key_check"), [])

    def test_prune_goes_in_steps_that_can_be_stopped(self):
        """Many old nights go in steps, each told; a call to stop leaves the rest to the next time."""
        history = self.open()
        for night in range(10):
            put(history, make_run(night=night, nights=10), {"A.x": "pass"})
        said = []
        with mock.patch.multiple("nightly.history", PRUNE_STEP=2, CLOCK_DAYS=1):
            self.assertEqual(history.prune(1, said.append, lambda: len(said) == 3), 6)
            self.assertEqual(said[-1], "old nights forgotten: 6 of 8")
            self.assertEqual(history.prune(1), 2)

    def test_prune_believes_no_clock_that_is_far_ahead(self):
        """A few nights with a clock that is years ahead forget no night that is young beside the others."""
        history = self.open()
        for night in range(20):
            put(history, make_run(night=night, nights=20), {"A.x": "pass"})
        for day in range(1, CLOCK_DAYS):
            put(history, make_run(uid=f"odd {day}", started=f"2029-01-0{day}T00:00:00Z"), {"A.x": "pass"})
            with mock.patch("nightly.history.latest_start", lambda: "2029-02-01T00:00:00Z"):
                self.assertEqual(history.prune(40), 0)
        self.assertEqual(history.prune(8), 20 - CLOCK_DAYS - 8)

    def test_damage_hides_nothing_else(self):
        """What of a history can no longer be read stands as damaged, and all else is read; the same text, recorded anew, is whole again."""
        history = self.open()
        rows = {"A.x": make_row("A.x", "fail", "why " * 99), "A.y": "pass"}
        runs = [put(history, make_run(night=night, nights=2, notes=["n"]), rows) for night in range(2)]
        before = {name: (row.outcome, row.message) for name, row in history.results(runs[1]).items()}
        self.assertEqual((history.query("SELECT count(*) FROM run WHERE notes = '[\"n\"]'"), history.damaged), ([(2,)], False))
        with history.writing() as db:
            db.execute("UPDATE text SET content = x'789c00' WHERE length(content) > 9")
            db.execute("UPDATE run SET notes = '[', seconds = x'789c00'")
        history = self.open()
        (latest, _) = history.runs(runs[0].target_id)
        found = {name: (row.outcome, row.message) for name, row in history.results(latest).items()}
        self.assertEqual(found, {"A.x": ("fail", DAMAGED_TEXT), "A.y": ("pass", "")})
        self.assertEqual((latest.notes, latest.environment, history.seconds(latest), history.damaged), ([], {}, {"A.y": 0.0}, True))
        self.assertEqual(history.timelines(latest.target_id, [latest])["A.x"][0].message, DAMAGED_TEXT)
        history = self.open()
        last = put(history, make_run(uid="last"), rows)
        self.assertTrue(history.damaged)
        self.assertEqual({name: (row.outcome, row.message) for name, row in history.results(last).items()}, before)

    def test_copy_in_memory_has_all_of_the_file(self):
        """A copy reads as the file does and may be written; a file with damaged pages, or one that is none, has no copy."""
        run = put(self.open(), make_run(told=1), {"A.x": "fail"})
        with History.copy_of(self.path) as copy:
            self.assertEqual((copy.runs(run.target_id), copy.results(run)), ([run], {"A.x": make_row("A.x", "fail")}))
            put(copy, make_run(uid="more"), {"A.x": "pass"})
        self.assertEqual(len(self.open().runs(run.target_id)), 1)
        content = self.path.read_bytes()
        for damaged in (content[:8192] + b"\xff" * (len(content) - 8192), b"no data base " * 99, b""):
            with self.subTest(damaged=damaged[:9]):
                self.path.write_bytes(damaged)
                with self.assertRaises(NightlyError):
                    History.copy_of(self.path)

    def test_merge_takes_a_run_once(self):
        """The same run from elsewhere twice is once."""
        history = self.open()
        self.assertTrue(history.merge(make_run(), [make_row("A.x")]))
        self.assertFalse(history.merge(make_run(), [make_row("A.x", "fail")]))
        (run,) = history.runs(history.targets()[0].id)
        self.assertEqual(history.results(run), {"A.x": make_row("A.x")})

    def test_what_fails_half_way_is_not_recorded(self):
        """Of a transaction that fails nothing stays, and the next one works."""
        history = self.open()
        run = make_run(state=RUNNING)
        history.begin(run)
        history.add(run, [make_row("A.x")])
        with self.assertRaises(ZeroDivisionError), history.writing():
            history.add(run, [make_row("A.y")])
            raise ZeroDivisionError
        history.add(run, [make_row("A.z")])
        self.assertEqual(list(history.results(run)), ["A.x", "A.z"])

    def test_kill_in_the_middle_leaves_what_was_recorded(self):
        """After kill -9 within a transaction the file is sound, earlier results are there and the run counts as interrupted."""
        script = """
            import os, signal, sys
            from nightly.history import History
            from nightly.made_up import make_row, make_run, put
            history = History(sys.argv[1], create=True)
            run = put(history, make_run(state="running", finished=None), {"A.x": "pass"})
            with history.writing():
                history.add(run, [make_row(f"A.y{n}", message="m" * 900) for n in range(5000)])
                history.db.execute("PRAGMA cache_spill = ON")
                os.kill(os.getpid(), signal.SIGKILL)
        """
        killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(self.path)], cwd=CHECKOUT)
        self.assertEqual(killed.returncode, -signal.SIGKILL)
        history = self.open()
        self.assertEqual(history.query("PRAGMA integrity_check"), [("ok",)])
        self.assertEqual(history.close_interrupted(), 1)
        (run,) = history.runs(history.targets()[0].id)
        self.assertEqual((run.state, list(history.results(run))), (INTERRUPTED, ["A.x"]))
        self.assertEqual(history.close_interrupted(), 0)

    def test_full_disk_is_one_line_and_leaves_what_was_recorded(self):
        """Where the file cannot grow, writing fails with advice, and the file still reads."""
        script = """
            import resource, signal, sys
            from nightly.history import History
            from nightly.made_up import make_row, make_run, put
            from nightly.outcomes import NightlyError
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            history = History(sys.argv[1], create=True)
            run = make_run(state="running")
            history.begin(run)
            history.add(run, [make_row("A.x")])
            limit = int(sys.argv[2])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                history.add(run, [make_row(f"A.y{n}", message="m" * 900) for n in range(500)])
            except NightlyError as error:
                print(error)
        """
        command = [sys.executable, "-c", textwrap.dedent(script), str(self.path), "65536"]
        done = subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True)
        self.assertIn("make room on the disk", done.stdout, done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        history = self.open()
        self.assertEqual(history.query("PRAGMA integrity_check"), [("ok",)])
        self.assertEqual(history.query("SELECT count(*) FROM loose"), [(1,)])

    def test_what_is_no_history_is_refused_and_left_alone(self):
        """A foreign, damaged or newer file, or none, is a line that names it; its bytes stay."""
        self.path.parent.mkdir()
        foreign = self.path.with_name("foreign")
        with sqlite3.connect(foreign) as db:
            db.execute("CREATE TABLE mine (x)")
        db.close()
        newer = self.path.with_name("newer")
        History(newer, create=True).close()
        with sqlite3.connect(newer) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        text = self.path.with_name("text")
        text.write_text("hello, I am no data base\n" * 100)
        damaged = self.path.with_name("damaged")
        damaged.write_bytes(newer.read_bytes()[:100] + b"\xff" * 5000)
        for file, wanted in {foreign: "not a history", newer: "newer nightly", text: "not a database", damaged: "damaged"}.items():
            before = file.read_bytes()
            for create in (True, False):
                with self.subTest(file=file.name, create=create):
                    with self.assertRaisesRegex(NightlyError, wanted):
                        History(file, create=create)
                    self.assertEqual(file.read_bytes(), before)
        with self.assertRaisesRegex(NightlyError, "no history at .*missing: run"):
            History(self.path.with_name("missing"))
        with self.assertRaisesRegex(NightlyError, "--history"):
            History(text / "below a file", create=True)

    def test_file_is_private_to_nothing_but_sqlite(self):
        """The history stays one file: no write-ahead log is left beside it."""
        history = self.open()
        put(history, make_run(), {"A.x": "pass"})
        self.assertEqual(os.listdir(self.path.parent), [self.path.name])
        self.assertEqual(history.query("PRAGMA journal_mode"), [("delete",)])

    def test_newest_tells_complete_runs_from_others(self):
        """The newest complete run and the newest run of any kind are told apart."""
        history = self.open()
        complete = put(history, make_run(night=0, nights=2), {"A.x": "pass"})
        running = put(history, make_run(night=1, nights=2, state=RUNNING), {})
        (starts,) = history.newest().values()
        self.assertEqual(starts, (complete.started, running.started))
        self.assertEqual(complete.state, COMPLETE)

    def test_run_of_a_selection_is_no_night_of_its_target(self):
        """Where a target is run whole, its nights are those runs alone, and the newest complete one is the last of them."""
        history = self.open()
        whole = put(history, make_run(night=0, nights=3), {"A.x": "fail", "A.y": "pass"})
        single = put(history, make_run(night=1, nights=3, selection="-k A.y"), {"A.y": "pass"})
        self.assertEqual(history.nights(whole.target_id), [whole])
        self.assertEqual(list(history.newest().values()), [(whole.started, single.started)])

    def test_nights_of_a_target_never_run_whole_have_its_latest_selection(self):
        """A job that always runs with -k has nights, too: those with the selection of its latest run."""
        history = self.open()
        runs = [put(history, make_run(night=night, nights=3, selection=f"-k A.{name}"), {}) for night, name in enumerate("xyx")]
        self.assertEqual(history.nights(runs[0].target_id), [runs[2], runs[0]])
        self.assertEqual(list(history.newest().values()), [(runs[2].started, runs[2].started)])

    def test_pruning_keeps_the_last_complete_run_of_each_selection(self):
        """A run of one test leaves the last night of all tests there to be held against."""
        history = self.open()
        runs = [put(history, make_run(night=night, nights=3, selection="-k A.x" * (night == 2)), {"A.x": "pass"}) for night in range(3)]
        with mock.patch("nightly.history.CLOCK_DAYS", 1):
            self.assertEqual(history.prune(1), 1)
        self.assertEqual(history.runs(runs[0].target_id), [runs[2], runs[1]])

    def test_run_of_the_future_is_never_the_latest(self):
        """A night whose start is still to come is kept apart: it is no latest run, no newest, and is told by its name."""
        history = self.open()
        sound = put(history, make_run(), {"A.x": "pass"})
        odd = put(history, make_run(uid="odd", started="2099-01-01T00:00:00Z"), {"A.x": "fail"})
        self.assertEqual(history.runs(sound.target_id), [sound])
        self.assertEqual(history.misdated_runs(), [odd])
        self.assertEqual(list(history.newest().values()), [(sound.started, sound.started)])
        history.prune(1)
        self.assertEqual(history.runs(sound.target_id), [sound])

    def test_run_whose_start_is_no_time_is_kept_apart(self):
        """A start that a failing disk has changed is that of no night: it is told with those of wrong clocks, and ends nothing."""
        history = self.open()
        first, last = (put(history, make_run(night=night, nights=2), {"A.x": "pass"}) for night in range(2))
        for number, start in enumerate(("2026-03-3q", "2026-02-31T02:30:00Z", "2026-03-30T02:30:0", "2026-03-30T02:30:00\x7f")):
            with self.subTest(start=start):
                odd = put(history, make_run(uid=f"odd {number}", started=start), {"A.x": "pass"})
                self.assertEqual(history.runs(first.target_id), [last, first])
                self.assertEqual([run.uid for run in history.misdated_runs()], [odd.uid])
                self.assertEqual(list(history.newest().values()), [(last.started, last.started)])
                history.forget([odd.id])

    def test_history_of_the_older_form_is_brought_up_to_date(self):
        """A file in which every result was a row reads as before, smaller; read-only, or half way killed, it stays as it was."""
        self.path.parent.mkdir()
        runs = [make_run(night=night, nights=40, notes=["n"], told=1) for night in range(40)]
        texts = ["Traceback " * 50, "AssertionError: 3 != 4"]
        with sqlite3.connect(self.path) as db:
            db.executescript(FORM_1)
            db.execute("INSERT INTO target VALUES (1, 'stable', 'box')")
            db.executemany("INSERT INTO test VALUES (?, ?, 'kernels')", [(number, f"A.test_{number}") for number in range(50)])
            for number, run in enumerate(runs):
                values = (number, run.uid, run.started, run.finished, run.state, run.torch, run.torch_commit, run.python, run.suite_commit)
                environment = json.dumps(run.environment)
                db.execute("INSERT INTO run VALUES (?, ?, 1, ?, ?, ?, '', 0, ?, ?, ?, ?, '', ?, '[\"n\"]')", (*values, environment))
                rows = [(number, test, "fail" if test == number else "pass", 0.25, texts[test % 2]) for test in range(50)]
                db.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?)", rows)
        db.close()
        before = self.path.read_bytes()
        with self.assertRaisesRegex(NightlyError, "older form.*: bring it up to date"):
            History(self.path, read_only=True)
        with mock.patch("nightly.history.History.pack", side_effect=ZeroDivisionError), self.assertRaises(ZeroDivisionError):
            self.open()
        self.assertEqual(self.path.read_bytes(), before)
        said = []
        with mock.patch("nightly.older.SAY_EVERY", 20):
            history = self.open(create=False, say=said.append)
        self.assertEqual(len(said), 2)
        read = history.runs(1)
        self.assertEqual([run.uid for run in read], [run.uid for run in reversed(runs)])
        wanted = make_row("A.test_3", "fail", texts[1], 0.25)
        self.assertEqual(history.results(read[-4])["A.test_3"], wanted)
        self.assertEqual((len(history.results(read[0])), read[0].environment, read[0].notes), (50, runs[0].environment, ["n"]))
        self.assertLess(self.path.stat().st_size, len(before) / 3)


class TestTime(unittest.TestCase):
    """Times as they are recorded."""

    def test_times_are_utc_whatever_form_they_have(self):
        """Z, an offset and no zone at all are read as the same moment."""
        for text in ("2026-03-31T02:30:00Z", "2026-03-31T04:30:00+02:00", "2026-03-31T02:30:00"):
            with self.subTest(text=text):
                self.assertEqual(recorded(parse_time(text)), "2026-03-31T02:30:00Z")
        with self.assertRaises(ValueError):
            parse_time("last night")


if __name__ == "__main__":
    unittest.main()

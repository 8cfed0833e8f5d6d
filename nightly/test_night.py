"""Tests of whole nights, as cron, a person and other machines call them: ``python -m nightly``."""

import io
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from nightly import acknowledge, junit
from nightly.compare import judge
from nightly.execute import Result
from nightly.extras import needs, slow
from nightly.history import CLOCK_DAYS, COMPLETE, INTERRUPTED, RUNNING, History
from nightly.made_up import fill, make_row, make_run, make_suite, put, set_mode
from nightly.night import Night, Options, Progress, Recorder, suite_commit, unchanged
from nightly.outcomes import NightlyError
from nightly.targets import Target

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE_LIMIT = 5_000_000
#: Far above what a run's own work and a page take on a history of 1,000 nights (measured: about half a second each).
SECONDS_LIMIT = 10.0


@needs("filelock", "nights")
class TestNight(unittest.TestCase):
    """Nights of a made-up suite in a folder of their own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "history.sqlite"
        self.runner = make_suite(self.folder)

    def command(self, *arguments):
        places = ["--history", str(self.path)] if arguments[0] != "install" else []
        if arguments[0] == "run":
            places += ["--runner", str(self.runner), "--cache", str(self.folder / "cache")]
        return [sys.executable, "-m", "nightly", arguments[0], *places, *map(str, arguments[1:])]

    def nightly(self, *arguments, **environment):
        """The finished process of a command."""
        clean = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
        given = {**clean, **environment}
        return subprocess.run(self.command(*arguments), cwd=CHECKOUT, env=given, capture_output=True, text=True, timeout=120)

    def start(self, *arguments):
        """A command that is left running."""
        process = subprocess.Popen(self.command(*arguments), cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def run_night(self, *mode, arguments=()):
        set_mode(self.runner, *mode)
        return self.nightly("run", *arguments)

    def states(self):
        with History(self.path) as history:
            return [state for (state,) in history.query("SELECT state FROM run ORDER BY id")]

    @unittest.skipUnless(hasattr(signal, "SIGCHLD"), "ends of children that nobody is told (no SIGCHLD)")
    def test_night_is_told_how_its_runs_end(self):
        """Where the caller has SIGCHLD ignored, a run that crashes is told by its signal, and is no run that ended well."""
        set_mode(self.runner, "crash")

        def ignore():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

        done = subprocess.run(self.command("run"), cwd=CHECKOUT, preexec_fn=ignore, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("killed by signal 11 (SIGSEGV)", done.stdout)

    @slow
    def test_nights_are_silent_until_something_changes(self):
        """All well prints nothing and exits 0, what got worse 1, what is known 4, and what is mended is told with 0."""
        told = [self.run_night(*mode) for mode in ([], [], ["fail"], ["fail"], [], ["gone"], ["gone"])]
        self.assertEqual([night.returncode for night in told], [0, 0, 1, 4, 0, 1, 0], [night.stderr for night in told])
        self.assertEqual([told[number].stdout + told[number].stderr for number in (0, 1, 6)], [""] * 3)
        headings = {2: "New failure (1)\n  first bad ", 3: "nothing new", 4: "Fixed (1)", 5: "Vanished tests (2)"}
        for number, wanted in headings.items():
            with self.subTest(night=number):
                self.assertIn(wanted, told[number].stdout)
        self.assertRegex(told[2].stdout, r"\n    TestFirst.test_b_fails  fail\n      AssertionError: ")
        self.assertRegex(told[3].stdout, r"\nStill: 1 failing\n$")

    @slow
    def test_news_that_did_not_get_through_is_told_the_next_night(self):
        """A failure is news until --notify has handed it on: neither a command that fails nor a job that is killed swallows it."""
        self.run_night()
        missed = self.run_night("fail", arguments=["--notify", "exit 7"])
        self.assertEqual((missed.returncode, "exit status 7" in missed.stdout), (1, True), missed.stdout)
        process = self.start("run", "--notify", "kill -9 $PPID")
        self.assertEqual((process.wait(), process.stdout.read()), (-signal.SIGKILL, ""))
        night = self.run_night("fail", arguments=["--notify", f"cat > {self.folder}/told"])
        self.assertEqual((night.returncode, "New failure (1)" in night.stdout), (1, True), night.stdout)
        (target,) = json.loads((self.folder / "told").read_text())["targets"]
        self.assertEqual([(change["kind"], change["test"]) for change in target["changes"]], [("new failure", "TestFirst.test_b_fails")])
        self.assertEqual(self.run_night("fail").returncode, 4)

    @slow
    def test_import_tells_again_what_did_not_get_through(self):
        """What import --compare could not hand on is judged by the next import, and by none after that."""
        junit.write(self.folder / "junit", make_run(), [make_row("A.x", "fail", "AssertionError: 3")])
        told = [self.nightly("import", self.folder / "junit", "--compare", *extra) for extra in (["--notify", "exit 7"], [], [])]
        self.assertEqual([(night.returncode, "New failure (1)" in night.stdout) for night in told], [(1, True), (1, True), (0, False)])

    @slow
    def test_known_defect_that_vanishes_and_flaky_tests_are_known(self):
        """An unexpected success and a flaky test are told, and exit with 4."""
        self.run_night()
        night = self.run_night("mended", "flaky")
        self.assertEqual(night.returncode, 4)
        self.assertIn("TestFirst.test_i_is_known", night.stdout)
        self.assertRegex(night.stdout, r"Flaky \(1\)\n  TestFirst.test_f_is_flaky")

    def test_night_in_which_nothing_ran_is_red(self):
        """A runner that cannot start is 'could not run' (3); a filter that matches nothing is 'no tests ran' (1)."""
        night = self.run_night("nothing")
        self.assertEqual(night.returncode, 3)
        self.assertIn("torch is not installed: install one", night.stdout)
        night = self.run_night(arguments=["-k", "no_such_test"])
        self.assertEqual(night.returncode, 1)
        self.assertIn("worse: no tests ran", night.stdout)

    def test_targets_stand_in_a_file_and_spoil_no_other(self):
        """A sound target runs beside a broken one, a missing interpreter and a file that cannot be read."""
        file = self.folder / "targets.toml"
        file.write_text(
            f"[[target]]\nname = 'sound'\npython = '{sys.executable}'\n[[target]]\nname = 'odd'\ntroch = 'x'\n"
            "[[target]]\nname = 'missing'\npython = '/no/python'\n"
        )
        night = self.run_night(arguments=["--targets", file])
        self.assertEqual(night.returncode, 3)
        for wanted in ("sound: all well", "unknown key 'troch'", "/no/python is not there"):
            with self.subTest(wanted=wanted):
                self.assertIn(wanted, night.stdout)
        night = self.run_night(arguments=["--targets", "/no/file", "--python", sys.executable])
        self.assertEqual((night.returncode, "all well; 14 tests" in night.stdout), (3, True))
        with History(self.path) as history:
            self.assertEqual([target.name for target in history.targets()], sorted(["missing", "odd", "sound", sys.executable]))

    def test_old_nights_are_forgotten(self):
        """A night forgets what is older than it is told to keep, but of each target the last complete run."""
        with History(self.path, create=True) as history:
            for night in range(CLOCK_DAYS + 10):
                put(history, make_run("gone" if night < 5 else "kept", night, CLOCK_DAYS + 10), {"A.x": "pass"})
        self.run_night(arguments=["--keep", "1"])
        with History(self.path) as history:
            kept = {target.name: len(history.runs(target.id)) for target in history.targets()}
        self.assertEqual(kept, {"gone": 1, "kept": CLOCK_DAYS + 1, sys.executable: 1})

    def test_environments_are_forgotten_with_the_nights(self):
        """What lies in the cache and was not used for as long as nights are kept is removed, and what a killed bisection left."""
        code = "import os, sys; from nightly.files import scratch_folder\nwith scratch_folder(sys.argv[1], 'bisect-'): os._exit(0)"
        old = self.folder / "environments" / ("a" * 16)
        old.mkdir(parents=True)
        os.utime(old, (0, 0))
        subprocess.run([sys.executable, "-c", code, str(self.folder)], cwd=CHECKOUT, check=True)
        Night(Options(self.path, self.folder, self.runner, []), Progress(False)).run()
        self.assertEqual((old.exists(), list(self.folder.glob("bisect-*"))), (False, []))

    def test_build_that_stays_the_same_is_a_note_where_the_index_decides(self):
        """Two weeks without another build are told where torch is not pinned, from the first night of the build, and not elsewhere."""
        (self.folder / "torch.py").write_text("__version__ = '2.9'\n")
        self.runner.write_text("import torch, unittest\nclass TestX(unittest.TestCase):\n    def test_a(self): pass\nunittest.main()\n")
        names = {"newest": "torch", "pinned": "torch==2.9", "mine": ""}
        with History(self.path, create=True) as history:
            for night in range(3):
                for name in names:
                    put(history, make_run(name, night, 3, torch=f"2.{max(8, 7 + night)}", torch_commit=""), {"TestX.test_a": "pass"})
        wanted = [Target(name, sys.executable, torch) for name, torch in names.items()]
        options = Options(self.path, self.folder / "cache", self.runner, wanted, machine="box")
        with mock.patch("nightly.targets.prepare", return_value=sys.executable):
            told = {judgement.run.target: judgement.run.notes for judgement in Night(options, Progress(False)).run()}
        line = "pip has found no other torch since 2026-03-31: see whether the index still has new ones for this Python"
        self.assertEqual(told, {"newest": [line], "pinned": [], "mine": []})

    def test_note_on_a_build_that_stays_the_same_does_not_change(self):
        """Before two weeks there is none; it tells the first night of the build, also when that night has been forgotten."""
        with History(self.path, create=True) as history:
            nights = [make_run("stable", night, 20, torch="2.9", torch_commit="a" * 40) for night in range(20)]
            nights[0].torch_commit = "b" * 40
            nights[3].notes = ["another"]
            told = []
            for run in nights:
                put(history, run, {"A.x": "pass"})
                told.append(unchanged(history, run))
                run.notes = [*run.notes, *told[-1]]
                with history.writing():
                    history.update(run)
                if told[-1]:
                    history.forget([night.id for night in nights[:5] if night.id is not None])
        self.assertEqual(told[:15], [[]] * 15)
        self.assertEqual([line[:45] for lines in told[15:] for line in lines], ["pip has found no other torch since 2026-03-13"] * 5)

    @slow
    def test_kill_in_the_middle_is_survived(self):
        """After kill -9 the runner is gone too, the history reads, the lock is free and the next night goes on and says so."""
        self.run_night()
        set_mode(self.runner, "slow")
        process = self.start("run", "--verbose")
        self.assertIn("tests", process.stderr.readline())
        runner = next(iter(children(process.pid)), None)
        process.kill()
        process.wait()
        self.assertEqual(self.states(), [COMPLETE, "running"])
        if runner is not None:
            self.assertTrue(wait_until(lambda: not alive(runner)), "the runner outlived nightly")
        night = self.run_night()
        self.assertEqual(night.returncode, 0, night.stdout)
        self.assertIn("was interrupted", night.stdout)
        self.assertEqual(self.states(), [COMPLETE, INTERRUPTED, COMPLETE])

    @slow
    def test_signal_ends_the_night_in_order(self):
        """On SIGTERM or SIGHUP the runner is ended and the run recorded as interrupted, with what it had seen and no crash; the exit
        status is 130. A failure of a later night was not there before, and the interrupted night is no first bad."""
        self.run_night()
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_DFL))  # under nohup the night would ignore it
            with self.subTest(signal=number.name):
                set_mode(self.runner, "slow", "fail")
                process = self.start("run", "--verbose")
                while "test_b_fails" not in process.stderr.readline():
                    continue
                time.sleep(0.3)
                process.send_signal(number)
                printed, _ = process.communicate(timeout=30)
                self.assertEqual((process.returncode, self.states()[-1]), (130, INTERRUPTED))
                self.assertRegex(printed, r"11 tests, 1 fail, 1 skip")
                self.assertIn("what it had seen is no verdict", printed)
                self.assertNotRegex(printed, "crash|nothing ran|new failure")
        night = self.run_night("fail")
        with History(self.path) as history:
            runs = history.runs(1)
            past = history.past(runs[0], ["TestFirst.test_b_fails"])["TestFirst.test_b_fails"]
        self.assertEqual((past.last_good, past.first_bad), (runs[-1], None))
        self.assertEqual((night.returncode, night.stdout.count("worse: 1 new failure")), (1, 1))

    def test_signal_that_is_ignored_stays_ignored(self):
        """What nohup has switched off does not end the night; the other signals do."""
        work = Night(Options(self.path, self.folder, self.runner, []), Progress(False))
        for number, handler in {signal.SIGHUP: signal.SIG_IGN, signal.SIGTERM: signal.SIG_DFL}.items():
            self.addCleanup(signal.signal, number, signal.signal(number, handler))
        with work.stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            self.assertFalse(work.stopping.is_set(), "SIGHUP was ignored before")
            os.kill(os.getpid(), signal.SIGTERM)
            self.assertTrue(work.stopping.is_set())

    def test_second_run_at_once_waits_or_leaves(self):
        """While one run holds the history, another says so and leaves, or waits and runs after it."""
        set_mode(self.runner, "slow")
        first = self.start("run", "--verbose")
        self.assertIn("tests", first.stderr.readline())
        second = self.nightly("run")
        self.assertEqual((second.returncode, second.stderr), (3, ""))
        self.assertRegex(second.stdout, r"(?s)^nightly .*: could not run\n  another run is at work on .*--wait.*\n$")
        third = self.start("run", "--wait", "60")
        (self.folder / "go on").touch()
        first.communicate(timeout=60)
        third.communicate(timeout=60)
        self.assertEqual((first.returncode, third.returncode, self.states()), (0, 0, [COMPLETE, COMPLETE]))

    @slow
    def test_disk_without_room_is_told_and_the_night_goes_on(self):
        """Where the history cannot be written at all, the night runs, is held against the nights that can be read, and says so."""
        self.run_night()
        limited = (
            "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); from nightly.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        set_mode(self.runner, "fail")
        done = subprocess.run([sys.executable, "-c", limited, *self.command("run")[3:]], cwd=CHECKOUT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(" ".join(done.stdout.split()), "recorded: .* make room on the disk")
        self.assertRegex(done.stdout, r"New failure \(1\)\n  first bad .*\n  last good ")
        self.assertEqual(self.states(), [COMPLETE])

    def test_place_that_cannot_hold_a_history_is_told_and_the_night_goes_on(self):
        """Without any history the targets run, --junit is written, failures are told, and a line says that nothing is recorded."""
        (self.folder / "file").write_text("no data base " * 99)
        for path in (self.folder / "file", self.folder / "file" / "below"):
            with self.subTest(path=path):
                self.path = path
                night = self.run_night("fail", arguments=["--junit", self.folder / f"junit {path.name}"])
                self.assertEqual((night.returncode, night.stderr), (1, ""))
                self.assertRegex(" ".join(night.stdout.split()), "nothing of this night is recorded: history .* another .*--history")
                self.assertRegex(night.stdout, r"the first\s+night, nothing to compare with")
                self.assertIn("TestFirst.test_b_fails", night.stdout)
                (file,) = (self.folder / f"junit {path.name}").glob("*.xml")
                self.assertEqual(len(junit.read(file)[1]), 14)

    def test_mistake_of_nightly_itself_has_a_status_of_its_own(self):
        """What nobody thought of is one line with its place, and spoils neither the other target nor its record."""
        broken = (
            "import sys; from nightly import junit; from nightly.cli import main; write = junit.write\n"
            "def odd(folder, run, rows): return write(folder, run, rows) if run.target != 'odd' else {}['nobody thought of it']\n"
            "junit.write = odd; sys.exit(main(sys.argv[1:]))"
        )
        file = self.folder / "targets.toml"
        file.write_text("".join(f"[[target]]\nname = '{name}'\npython = '{sys.executable}'\n" for name in ("odd", "sound")))
        command = [sys.executable, "-c", broken, *self.command("run", "--targets", file, "--junit", self.folder / "junit")[3:]]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env={**os.environ, "NIGHTLY_TRACEBACK": "1"})
        self.assertEqual(done.returncode, 5)
        self.assertRegex(done.stderr, r"^Traceback [^\0]*\nKeyError: 'nobody thought of it'\n$", "all of it, as it was asked for")
        self.assertRegex(
            " ".join(done.stdout.split()), r"KeyError: 'nobody thought of it' \(night.py:\d+ .*, <string>:2 odd\): please report"
        )
        self.assertIn("sound: all well; 14 tests", done.stdout)
        self.assertEqual(len(list((self.folder / "junit").glob("*.xml"))), 1)

    @slow
    def test_damage_to_the_history_hides_no_failure(self):
        """Where texts of earlier nights can no longer be read, what fails is new, one line says so, and the next night is quiet again."""
        self.run_night()
        with History(self.path) as history, history.writing() as db:
            db.execute("UPDATE text SET content = x'789c00'")
        night = self.run_night("fail")
        self.assertEqual((night.returncode, night.stderr), (1, ""))
        self.assertIn("New failure (1)", night.stdout)
        self.assertEqual(night.stdout.count("is damaged in part"), 1, night.stdout)
        self.assertEqual((self.run_night("fail").returncode, self.states()), (4, [COMPLETE] * 3))

    def test_run_that_cannot_be_compared_is_judged_alone(self):
        """A mistake in the comparison is told beside the failures of the run, and leaves what is recorded of it."""

        def judge_alone(history, *arguments):
            return judge(history, *arguments) if history.path != self.path else 1 // 0

        set_mode(self.runner, "fail")
        options = Options(self.path, self.folder / "cache", self.runner, [Target("x", sys.executable)])
        with mock.patch("nightly.night.judge", judge_alone):
            (judgement,) = Night(options, Progress(False)).run()
        self.assertEqual([change.kind for change in judgement.changes], ["new failure", "nightly failed"])
        self.assertEqual((self.states(), judgement.status), ([COMPLETE], 5))

    def test_night_that_is_not_recorded_is_held_against_the_whole_history(self):
        """Where nothing can be written, the last good night, however long ago, and acknowledgements are those of the file."""
        name = "TestFirst.test_b_fails"
        with History(self.path, create=True) as history:
            for night in range(25):
                put(history, make_run("x", night, 25, told=1), {name: "fail" if night else "pass"})
            acknowledge.add(history, name, "", "issue 123", "2099-01-01")
        set_mode(self.runner, "fail")
        options = Options(self.path, self.folder / "cache", self.runner, [Target("x", sys.executable)], machine="box")
        with mock.patch("nightly.history.History.prune", side_effect=NightlyError("it cannot be written")):
            night = Night(options, Progress(False))
            (judgement,) = night.run()
        (change,) = [change for change in judgement.changes if change.test == name]
        self.assertEqual((change.kind, change.last_good.day, change.first_bad.day), ("acknowledged", "2026-03-07", "2026-03-08"))
        self.assertEqual(night.problems, ["nothing of this night is recorded: it cannot be written"])
        self.assertEqual(len(self.states()), 25)

    @slow
    def test_odd_texts_take_no_night_down(self):
        """Failures with any text, lone surrogates and escapes among them, are failures; both targets are recorded and told safely."""
        chance = random.Random(1)
        alphabet = ["\ud800", "\udce9", "\x1b[31m", "\0", "\r", "\n", "\u202e", "\x9b", "<b>", "|", "`", "ß", "\U0001f600", " ", "a"]
        texts = [
            *("".join(alphabet[place : place + 3]) for place in range(0, 15, 3)),
            "".join(chance.choices(alphabet, k=9)),
        ]
        (self.folder / "texts.json").write_text(json.dumps(texts))
        self.runner.write_text(
            "import json, unittest\nclass TestTexts(unittest.TestCase): pass\n"
            "for number, text in enumerate(json.load(open('texts.json'))):\n"
            "    setattr(TestTexts, f'test_{number}_{text}', lambda self, text=text: self.fail(text))\n"
            "unittest.main()\n"
        )
        (self.folder / "other").symlink_to(sys.executable)
        step = self.folder / "step.md"
        arguments = ["--python", sys.executable, "--python", self.folder / "other", "--junit", self.folder / "junit"]
        night = self.nightly("run", *arguments, GITHUB_STEP_SUMMARY=str(step), LC_ALL="C", PYTHONIOENCODING="ascii")
        self.assertEqual((night.returncode, night.stderr), (1, ""))
        self.assertIn("6 new failures on 2 of 2 targets", night.stdout)
        self.assertEqual(self.states(), [COMPLETE, COMPLETE])
        for text in (night.stdout, step.read_text()):
            self.assertNotRegex(text.replace("\n", ""), "[\x00-\x1f\x7f-\x9f\u2028-\u202e]")
        with History(self.path) as history:
            (rows, _) = (history.results(run) for target in history.targets() for run in history.runs(target.id))
        self.assertEqual([row.outcome for row in rows.values()], ["fail"] * 6)

    @slow
    def test_reader_that_leaves_and_summary_that_cannot_be_written_are_no_error(self):
        """A closed standard output and an unwritable GITHUB_STEP_SUMMARY change neither the status nor the record."""
        set_mode(self.runner, "fail")
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as closed:
            process = subprocess.run(self.command("run"), cwd=CHECKOUT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120)
        self.assertEqual((process.returncode, process.stderr), (1, ""))
        night = self.nightly("run", GITHUB_STEP_SUMMARY="/no/such/place")
        self.assertEqual(night.returncode, 4)
        self.assertRegex(night.stderr, "^nightly: GITHUB_STEP_SUMMARY /no/such/place: No such file[^\n]*\n$")

    def test_suite_is_named_by_version_and_commit_whoever_owns_it(self):
        """The version is read as text, the commit from a checkout that may be somebody else's; where there is none, why not."""
        (self.folder / "ao" / "sparsity").mkdir(parents=True)
        (self.folder / "ao" / "sparsity" / "__init__.py").write_text('"""Words."""\n\n__version__ = "9.8"\n')
        with mock.patch.dict(os.environ, {"AO_SPARSITY_STRICT": "0"}):  # whatever this project's own runs set
            self.run_night()
        with History(self.path) as history:
            (run,) = history.runs(1)
        self.assertEqual((run.suite_version, run.suite_commit, run.strict), ("9.8", "", 0))
        self.assertIn("not a git repository", run.environment["suite_commit_unknown"])
        for words in (["init", "-q"], ["add", "ao"], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", str(self.folder), *words], check=True)
        if os.getuid() == 0:
            for place in (self.folder, self.folder / ".git"):
                os.chown(place, 12345, 12345)
        commit, why_not = suite_commit(self.folder)
        self.assertRegex(commit, "^[0-9a-f]{40}$", why_not)
        self.assertEqual(suite_commit(self.folder / "ao"), ("", "the suite is no checkout of its own"))

    def test_disk_that_fills_in_the_middle_leaves_the_results_told(self):
        """Where the history fills up while tests run, what failed is told, the JUnit file has it all, and the next night goes on."""
        begin = History.begin

        def begin_and_fill_the_disk(history, run):
            begin(history, run)
            if run.state == RUNNING:
                history.db.execute("PRAGMA query_only = ON")

        set_mode(self.runner, "fail")
        options = Options(self.path, self.folder / "cache", self.runner, [Target("x", sys.executable)], junit=self.folder / "junit")
        with mock.patch.object(History, "begin", begin_and_fill_the_disk):
            (judgement,) = Night(options, Progress(False)).run()
        told = {change.kind: change for change in judgement.changes}
        self.assertEqual((set(told), judgement.status), ({"new failure", "could not run"}, 1))
        self.assertRegex(told["could not run"].text, "not recorded: .*check that the file")
        self.assertEqual(told["new failure"].test, "TestFirst.test_b_fails")
        (file,) = (self.folder / "junit").glob("*.xml")
        self.assertEqual(len(junit.read(file)[1]), 14)
        self.assertEqual(self.run_night().returncode, 0)
        self.assertEqual(self.states(), [INTERRUPTED, COMPLETE])

    @slow
    def test_junit_and_import_bring_a_night_to_another_machine(self):
        """What run --junit writes is taken in by import on another machine, once, and judged there."""
        self.run_night(arguments=["--junit", self.folder / "junit", "--name", "there", "--machine", "m1"])
        self.path = self.folder / "central.sqlite"
        first = self.nightly("import", self.folder / "junit", "--compare")
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "", ""))
        self.path = self.folder / "history.sqlite"
        self.run_night("fail", arguments=["--junit", self.folder / "junit", "--name", "there", "--machine", "m1"])
        self.path = self.folder / "central.sqlite"
        second = self.nightly("import", self.folder / "junit", "--compare")
        self.assertEqual(second.returncode, 1)
        self.assertIn("TestFirst.test_b_fails", second.stdout)
        self.assertEqual(self.nightly("import", self.folder / "junit", self.folder / "history.sqlite").returncode, 0)
        self.assertEqual(self.states(), [COMPLETE, COMPLETE])
        set_mode(self.runner, "fail", "flaky")
        self.path = self.folder / "history.sqlite"
        self.nightly("run", "--junit", self.folder / "junit", "--name", "there", "--machine", "m1")
        self.path = self.folder / "central.sqlite"
        (self.folder / "junit" / "bad.xml").write_text("<testsuite name='x'><testcase/></testsuite>")
        (self.folder / "junit" / "bad.json").write_text('{"target": "x", "started": "2026-03-31"}')
        self.assertEqual(self.nightly("import", self.folder / "junit").returncode, 3)
        late = self.nightly("import", self.folder / "junit", "--compare")
        self.assertEqual((late.returncode, "TestFirst.test_f_is_flaky" in late.stdout, "bad.xml" in late.stdout), (3, True, True))
        (self.folder / "junit" / "bad.xml").unlink()
        self.assertEqual(self.nightly("import", self.folder / "junit", "--compare").stdout, "")
        bad = self.nightly("import", self.folder / "nothing.xml")
        self.assertEqual((bad.returncode, bad.stderr), (3, f"nightly: {self.folder / 'nothing.xml'}: no such file\n"))

    def test_targets_side_by_side_each_have_their_verdict(self):
        """Two targets at a time are recorded apart, and step summary and verbose lines name both."""
        names = [self.folder / "one", self.folder / "two"]
        for name in names:
            name.symlink_to(sys.executable)
        night = self.nightly(
            "run", "--python", names[0], "--python", names[1], "--jobs", "2", "--verbose", GITHUB_STEP_SUMMARY=str(self.folder / "step.md")
        )
        self.assertEqual(night.returncode, 0, night.stderr)
        self.assertEqual(self.states(), [COMPLETE, COMPLETE])
        for name in names:
            self.assertIn(f"{name}: 14 tests", night.stderr)
            self.assertIn(f"{name}: all well", night.stdout)
            self.assertIn(str(name).replace("_", "\\_"), (self.folder / "step.md").read_text())

    @slow
    def test_wrong_use_is_exit_2_and_bad_places_one_line(self):
        """The command line's errors are argparse's; places that cannot be used are one line and 3."""
        self.assertEqual(self.nightly("run", "--time-limit", "-1").returncode, 2)
        self.assertEqual(self.nightly("run", "--memory-limit", "lots").returncode, 2)
        (self.folder / "text").write_text("no data base " * 99)
        self.path = self.folder / "text"
        for arguments in (["report"], ["watch"], ["import", self.folder]):
            with self.subTest(arguments=arguments):
                done = self.nightly(*arguments)
                self.assertEqual((done.returncode, done.stdout), (3, ""))
                self.assertRegex(done.stderr, r"^nightly: history .*\n$")
        self.path = self.folder / "fine.sqlite"
        self.assertRegex(self.nightly("report").stderr, "no history at .*run `python -m nightly run` first")
        self.assertRegex(self.nightly("run", "--name", "x", "--targets", "y").stderr, "--name goes with exactly one")

    def test_missing_package_is_one_line(self):
        """A command whose package is not installed names it, without a traceback, and exits with 3."""
        without = "import sys; sys.modules[sys.argv[1]] = None; from nightly.cli import main; sys.exit(main(sys.argv[2:]))"
        self.run_night()
        for package, arguments in {"jinja2": ["report"], "filelock": ["run"]}.items():
            with self.subTest(package=package):
                command = [sys.executable, "-c", without, package, *self.command(*arguments)[3:]]
                done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
                self.assertEqual(done.returncode, 3)
                line = rf"^( |nightly:) +{arguments[0]} needs {package}: pip install -r requirements-dev.txt\n$"
                self.assertRegex((done.stdout + done.stderr).lower().splitlines(True)[-1], line)

    @needs("jinja2", "a page of a thousand nights")
    @slow
    def test_thousand_nights_stay_quick_and_small(self):
        """With 1,000 nights of 250 tests a run and a page take little time, and the page has less than 5 MB."""
        with History(self.path, create=True) as history:
            fill(history, ["stable"], 1000, 250)
        started = time.perf_counter()
        night = self.nightly("run", "--python", sys.executable, "--name", "stable", "--machine", "box", "--keep", "99999")
        ran = time.perf_counter()
        page = self.nightly("report", "--output", "-")
        finished = time.perf_counter()
        self.assertIn("worse: far fewer tests", night.stdout)
        self.assertLess(len(page.stdout.encode()), PAGE_LIMIT)
        self.assertIn("30 nights", page.stdout)
        self.assertLess(max(ran - started, finished - ran), SECONDS_LIMIT)


class TestRecorder(unittest.TestCase):
    """What of a run reaches the history while it goes on."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "history.sqlite"
        self.history = History(self.path, create=True)
        self.addCleanup(self.history.close)
        self.recorder = Recorder(self.history, make_run(state=RUNNING))
        self.waits = []
        for name in ("add", "update"):
            method = getattr(self.history, name)
            patched = mock.patch.object(self.history, name, lambda *given, method=method: (self.note_wait(), method(*given)))
            patched.start()
            self.addCleanup(patched.stop)

    def note_wait(self):
        self.waits += self.history.query("PRAGMA busy_timeout")

    def finish(self):
        """The end of the run, after which all is recorded."""
        self.recorder.run.state = COMPLETE
        self.assertTrue(self.recorder.finish([Result("A.x", "a", "pass")]), self.recorder.problem)
        self.assertEqual(list(self.history.results(self.recorder.run)), ["A.x"])

    @mock.patch("nightly.night.FLUSH_SECONDS", 0.0)
    def test_reader_that_holds_the_history_holds_up_no_test(self):
        """While tests run nothing waits for another program: results are kept, and recorded at the end, for which it does wait."""
        reader = sqlite3.connect(self.path)
        self.addCleanup(reader.close)
        reader.executescript("BEGIN; SELECT * FROM run;")
        self.recorder.plan({"torch": "2.13.0"})
        self.recorder.result(Result("A.x", "a", "pass"))
        self.assertIn("locked", self.recorder.problem)
        self.assertEqual((self.waits, list(self.recorder.waiting)), ([(0,), (0,)], ["A.x"]))
        reader.rollback()
        self.finish()
        self.assertEqual(self.waits[2:], [(30_000,), (30_000,)])
        self.assertEqual(self.history.runs(1)[0].torch, "2.13.0")

    @mock.patch("nightly.night.FLUSH_SECONDS", 0.0)
    def test_other_target_that_holds_the_history_holds_up_no_test(self):
        """While tests run nothing waits for the end of another target to be recorded."""
        held, done = threading.Event(), threading.Event()

        def hold():
            with self.history.lock:
                held.set()
                done.wait(10)

        other = threading.Thread(target=hold)
        other.start()
        held.wait(10)
        self.recorder.result(Result("A.x", "a", "pass"))
        waiting = list(self.recorder.waiting)
        done.set()
        other.join()
        self.assertEqual((waiting, self.waits), (["A.x"], []))
        self.finish()


class TestProgress(unittest.TestCase):
    """What a person sees while a night runs."""

    def shown(self, terminal, verbose=True):
        stream = io.StringIO()
        stream.isatty = lambda: terminal
        progress = Progress(verbose, stream)
        progress.plan("x", 2)
        progress.result("x", Result("A.test_a", "a", "pass"))
        progress.result("x", Result("A.test_b", "a", "fail"))
        progress.close()
        return stream.getvalue()

    def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(self):
        """A terminal shows a bar that goes away, anything else the lines that matter, and without --verbose there is nothing."""
        self.assertEqual(self.shown(terminal=False), "x: 2 tests\nx: fail: A.test_b\n")
        self.assertEqual(self.shown(terminal=True, verbose=False), "")
        bar = self.shown(terminal=True)
        self.assertIn("] 1/2 A.test_a", bar)
        self.assertIn("[##############################] 2/2 A.test_b", bar)
        self.assertTrue(bar.endswith("\r\x1b[K"))


@needs("filelock", "a night of the real suite")
class TestRealSuite(unittest.TestCase):
    """The real runner on the installed torch."""

    @slow
    def test_real_runner_is_validated_and_its_build_named(self):
        """One class of the real suite runs through, and torch's version and commit, Python and engines are recorded."""
        probe = "import torch; print(torch.__version__, torch.version.git_version)"
        asked = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
        if asked.returncode:
            self.skipTest("the real suite (no torch in this interpreter)")
        version, commit = asked.stdout.split()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "history.sqlite"
            command = [sys.executable, "-m", "nightly", "run", "--history", str(path), "-k", "TestScheduler", "--python", sys.executable]
            command += ["--cache", folder]
            done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
            with History(path) as history:
                (run,) = history.runs(history.targets()[0].id)
                rows = history.results(run)
        self.assertEqual((run.torch, run.torch_commit, run.state), (version, commit, COMPLETE), done.stdout + done.stderr)
        self.assertIn("TestScheduler.test_order_of_steps", rows)
        self.assertEqual({row.area for row in rows.values()}, {"scheduler"})
        self.assertIn("engines", run.environment)
        self.assertEqual(run.selection, "-k TestScheduler")
        self.assertRegex(run.suite_commit, r"^([0-9a-f]{40}(-dirty)?)?$")


def children(pid):
    """The processes that a process has started, where the system tells (/proc)."""
    file = Path(f"/proc/{pid}/task")
    found = []
    for task in file.iterdir() if file.is_dir() else ():
        found += (task / "children").read_text().split() if (task / "children").exists() else []
    return [int(child) for child in found]


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    status = Path(f"/proc/{pid}/status")
    try:
        return not re.search(r"^State:\s+[ZX]", status.read_text(), re.MULTILINE)
    except OSError:
        return False


def wait_until(condition, seconds=10):
    """Whether a condition comes true in time."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < until:
        if condition():
            return True
        pause.wait(0.05)
    return False


if __name__ == "__main__":
    unittest.main()

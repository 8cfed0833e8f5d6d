"""Tests of the line for cron, the timer for systemd, and the watch over a history."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from unittest import mock

from nightly import schedule
from nightly.extras import needs
from nightly.history import COMPLETE, COULD_NOT_RUN, History, recorded
from nightly.made_up import make_run, make_suite, put
from nightly.outcomes import CommandLineError, NightlyError

CHECKOUT = Path(__file__).resolve().parent.parent
CRON_SECONDS = 30

#: Runs a cron daemon whose tables, other jobs and process file are its own: mounts are seen in this namespace alone.
PRIVATE_CRON = """
set -e
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
chgrp crontab /var/spool/cron/crontabs 2>/dev/null || true
mount -t tmpfs tmpfs /run
[ ! -d /etc/cron.d ] || mount -t tmpfs tmpfs /etc/cron.d
[ ! -f /etc/crontab ] || mount --bind /dev/null /etc/crontab
echo "0 0 1 1 * a line of somebody else" | crontab -
"$PYTHON" -m nightly install --write -- "$@"
"$PYTHON" -m nightly install --write -- "$@"
crontab -l > "$LISTED"
sed 's/^30 2 \\* \\* \\*/@reboot/' "$LISTED" | crontab -
exec cron -f
"""


class TestLines(unittest.TestCase):
    """What install prints."""

    def test_crontab_line_runs_under_a_bare_environment(self):
        """The command of the line, run by sh with an environment like cron's, gets to nightly with all its arguments."""
        line = schedule.crontab_line(CHECKOUT, ["--name", "a 100% 'odd' name", "--help"], (4, 5))
        self.assertTrue(line.startswith("5 4 * * * "), line)
        self.assertNotRegex(line, r"(?<!\\)%")
        self.assertIn(f" PATH={os.environ['PATH']} ", line)
        command = line.removeprefix("5 4 * * * ").replace("\\%", "%")
        bare = {"HOME": "/", "LOGNAME": "x", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(["/bin/sh", "-c", command], cwd="/", env=bare, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("exit statuses of run", done.stdout)

    def test_command_finds_what_is_found_now(self):
        """Packages and libraries that only variables lead to, as in an HPC centre, are found by the night; what is not set stays so."""
        line = "import os; print(os.environ.get('PYTHONPATH'), os.environ.get('LD_LIBRARY_PATH'))"
        for variables in ({"PYTHONPATH": "/opt/a b:/opt/c"}, {"PYTHONPATH": "/opt/d", "LD_LIBRARY_PATH": "/opt/lib"}):
            with self.subTest(**variables), mock.patch.dict(os.environ, variables):
                for name in {"PYTHONPATH", "LD_LIBRARY_PATH"} - set(variables):
                    os.environ.pop(name, None)
                command = schedule.night_command(CHECKOUT, []).replace("-m nightly run", f"-c {shlex.quote(line)}")
                done = subprocess.run(["/bin/sh", "-c", command], cwd="/", env={}, capture_output=True, text=True)
                expected = " ".join(variables.get(name, "None") for name in ("PYTHONPATH", "LD_LIBRARY_PATH"))
                self.assertEqual((done.stdout, done.stderr), (f"{expected}\n", ""))

    def test_systemd_units_hold_the_same_command(self):
        """The service runs the night through sh, the timer names the time, and systemd-analyze finds no fault where it is there."""
        units = schedule.systemd_units(CHECKOUT, ["--name", '50% of "all" $x'], (3, 5))
        self.assertIn("OnCalendar=*-*-* 03:05:00", units["ao-sparsity-nightly.timer"])
        self.assertIn('50%% of \\"all\\" $$x', units["ao-sparsity-nightly.service"])
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd's own check of the units (no systemd-analyze)")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in units.items():
                (Path(folder) / name).write_text(content)
            command = ["systemd-analyze", "verify", "--user", *map(str, Path(folder).iterdir())]
            done = subprocess.run(command, capture_output=True, text=True)
        self.assertNotIn("ao-sparsity-nightly", done.stderr)

    def test_line_break_is_refused(self):
        """Neither a crontab nor a unit holds a command of several lines: it is to be a script."""
        for make in (schedule.crontab_line, schedule.systemd_units):
            for word in ("first\nsecond", "first\rsecond", "first\u2028second", "first\n"):
                with self.subTest(make=make.__name__, word=word), self.assertRaisesRegex(CommandLineError, "a script"):
                    make(CHECKOUT, ["--notify", word], (2, 30))

    def test_times_and_ages_are_checked(self):
        """A time of day or an age is parsed, and everything else refused."""
        self.assertEqual(schedule.parse_time_of_day("7:05"), (7, 5))
        self.assertEqual([schedule.parse_age(text) for text in ("90s", "2m", "1.5h", "2d")], [90, 120, 5400, 172800])
        for parse, wrong in {schedule.parse_time_of_day: ("24:00", "noon", "7:5"), schedule.parse_age: ("2", "h", "-1h")}.items():
            for text in wrong:
                with self.subTest(text=text), self.assertRaises(ValueError):
                    parse(text)

    def test_missing_tool_is_one_line(self):
        """Without crontab or systemctl --write says what to do."""
        line = schedule.crontab_line(CHECKOUT, [], (2, 30))
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"PATH": folder, "XDG_CONFIG_HOME": folder}):
            for write, what in {schedule.write_crontab: line, schedule.write_systemd: {"x.timer": ""}}.items():
                with self.subTest(write=write), self.assertRaisesRegex(NightlyError, "not installed here"):
                    write(what)


@needs("filelock", "a night that cron starts")
class TestCron(unittest.TestCase):
    """A real cron daemon."""

    def test_cron_daemon_runs_the_installed_line(self):
        """The line that install --write puts into the crontab, once beside other lines, is run by cron and records a night."""
        if shutil.which("cron") is None or shutil.which("crontab") is None:
            self.skipTest("a real cron daemon (cron is not installed)")
        if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
            self.skipTest("a real cron daemon (no right to a mount namespace)")
        with tempfile.TemporaryDirectory() as folder:
            runner, history, listed = make_suite(Path(folder)), Path(folder) / "history.sqlite", Path(folder) / "listed"
            script = ["sh", "-c", PRIVATE_CRON, "sh", "--runner", str(runner), "--history", str(history), "--python", sys.executable]
            script += ["--cache", folder]
            environment = {**os.environ, "PYTHON": sys.executable, "LISTED": str(listed)}
            with open(Path(folder) / "said", "w+") as said:
                daemon = subprocess.Popen(["unshare", "--mount", *script], cwd=CHECKOUT, env=environment, stdout=said, stderr=said)
                try:
                    states = self.wait_for_record(history, daemon)
                finally:
                    daemon.kill()
                    daemon.wait()
                said.seek(0)
                self.assertEqual(states, [COMPLETE], said.read())
            lines = listed.read_text().splitlines()
            self.assertEqual([line.split()[0] for line in lines], ["0", "30"])

    def wait_for_record(self, path, daemon):
        """The states of the runs in a history once one of them has finished, or after a while."""
        until, pause, states = time.monotonic() + CRON_SECONDS, threading.Event(), []
        while time.monotonic() < until and daemon.poll() is None:
            if path.exists() and path.stat().st_size:
                with History(path) as history:
                    states = [state for (state,) in history.query("SELECT state FROM run WHERE finished IS NOT NULL")]
                if states:
                    break
            pause.wait(0.1)
        return states


class TestWatch(unittest.TestCase):
    """The watch over when targets last reported."""

    def silent(self, *runs, limit=26 * 3600, names=()):
        """What the watch says of runs, each (target, hours ago, state), or with a selection behind it."""
        with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "history.sqlite", create=True) as history:
            for number, (target, hours, state, *selection) in enumerate(runs):
                started = recorded_hours_ago(hours)
                put(history, make_run(target, uid=str(number), state=state, started=started, selection="".join(selection)), {})
            return schedule.silent_targets(history, limit, names)

    def test_watch_complains_of_what_did_not_report(self):
        """Each silent target is a line; runs that were no complete record do not count as one."""
        fresh, old, failed = ("a", 2, COMPLETE), ("b", 50, COMPLETE), ("c", 2, COULD_NOT_RUN)
        self.assertEqual(self.silent(fresh), [])
        self.assertRegex(self.silent(fresh, old)[0], "^b on box: .* older than 26 h$")
        self.assertRegex(self.silent(fresh, failed)[0], "^c on box: there is no complete record")
        self.assertEqual(len(self.silent(old, failed)), 2)
        self.assertRegex(self.silent()[0], "no target .* has ever reported")

    def test_run_of_one_test_is_no_report(self):
        """A target that is run whole has not reported while only one of its tests was run; one that never is has."""
        single = ("a", 2, COMPLETE, "-k S.test_a")
        self.assertRegex(self.silent(("a", 120, COMPLETE), single)[0], "^a on box: .* older than 26 h$")
        self.assertEqual(self.silent(single), [])

    def test_given_up_targets_are_watched_only_by_name(self):
        """A target without a run for a month is left alone while others report, unless it is named; and never if all are silent."""
        fresh, gone = ("a", 2, COMPLETE), ("b", 900, COMPLETE)
        self.assertEqual(self.silent(fresh, gone), [])
        self.assertEqual(len(self.silent(fresh, gone, names=["b"])), 1)
        self.assertEqual(len(self.silent(gone)), 1)
        self.assertRegex(self.silent(fresh, names=["x"])[0], "^x: no such target")


def recorded_hours_ago(hours):
    return recorded(datetime.now(timezone.utc) - timedelta(hours=hours))


if __name__ == "__main__":
    unittest.main()

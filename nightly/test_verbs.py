"""Tests of how the package is put together: its modules, its command line, its README."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from nightly import digest, night, notify, speed
from nightly.cli import history_path, main, make_parser
from nightly.compare import Change, Judgement
from nightly.extras import needs
from nightly.history import History
from nightly.made_up import make_row, make_run, make_suite, put, set_mode
from nightly.outcomes import NightlyError

README = Path(__file__).with_name("README.md")


class TestModules(unittest.TestCase):
    """The modules' names."""

    def test_no_module_hides_one_of_the_standard_library(self):
        """The driver and the stopwatch run as scripts from this folder, which then comes first where modules are looked for."""
        names = {file.stem for file in Path(__file__).parent.glob("*.py")} - {"__init__", "__main__"}
        self.assertEqual(names & set(sys.stdlib_module_names), set())


class TestReadme(unittest.TestCase):
    """The README's examples."""

    def commands(self):
        """The command lines of the README's shell blocks, each in one line."""
        blocks = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        for block in blocks:
            for line in re.split(r"\n(?=python -m nightly)", block.replace("\\\n", "")):
                yield line.strip()

    def test_every_command_of_the_readme_is_one(self):
        """The command line takes each of them, and every command is there."""
        names = set()
        for line in self.commands():
            with self.subTest(line=line):
                words = shlex.split(line, comments=True)
                self.assertEqual(words[:3], ["python", "-m", "nightly"])
                names.add(make_parser().parse_args(words[3:]).command)
        told = names | set(re.findall(r"`(?:python -m nightly )?(\w+)[^`]*`", README.read_text(encoding="utf-8")))
        listed = re.search(r"\{([\w,]+)\}", make_parser().format_usage())[1].split(",")
        self.assertLessEqual(set(listed), told)

    def test_notify_examples_work(self):
        """Each hands the news to the program that sends it."""
        if shutil.which("jq") is None:
            self.skipTest("the examples of --notify (no jq)")
        change = Change("new failure", "S.a", "fail", "AssertionError: 3 `x`", make_run(night=0, nights=2), make_run(night=1, nights=2))
        told = digest.digest([Judgement(make_run(), make_run(night=0, nights=2), {}, [change])])
        wanted = {"mail": "AssertionError: 3", "curl": "AssertionError: 3", "gh": "- `S.a` on stable: AssertionError: 3 `x` https://"}
        with tempfile.TemporaryDirectory() as folder:
            for name in wanted:
                program = Path(folder) / name
                program.write_text(f'#!/bin/sh\n{{ printf "%s\\n" "$@"; [ {name} = gh ] || cat; }} > "{folder}/{name}.told"\n')
                program.chmod(0o755)
            hooks = [shlex.split(line, comments=True) for line in self.commands() if "--notify" in line]
            self.assertEqual(len(hooks), len(wanted))
            with mock.patch.dict("os.environ", PATH=f"{folder}:/usr/local/bin:/usr/bin:/bin"):
                for words in hooks:
                    self.assertEqual(notify.notify(words[words.index("--notify") + 1], told), "")
            for name, line in wanted.items():
                with self.subTest(name=name):
                    self.assertIn(line, (Path(folder) / f"{name}.told").read_text())


class TestCommandLine(unittest.TestCase):
    """Arguments that cannot be meant."""

    def test_argument_that_cannot_be_is_refused(self):
        """Numbers, days and times are checked before anything is done; the status is 2."""
        for line in (
            "report --nights 0",
            "report --nights -3",
            "export --nights -1",
            "export --since yesterday",
            "export --since 2026-2-3",
            "run --wait nan",
            "run --wait -1",
            "run --jobs 0",
            "run --keep nan",
            f"report --nights 1{'0' * 30}",
            "watch --age 0h",
            f"watch --age {'9' * 400}d",
            "bisect TestX.test_y --torch https://bob:S3CRET@x/torchvision",
            'bisect TestX.test_y --torch "\'torch"',
        ):
            said = io.StringIO()
            with self.subTest(line=line), contextlib.redirect_stderr(said):
                with self.assertRaises(SystemExit) as caught:
                    make_parser().parse_args(shlex.split(line))
                self.assertEqual(caught.exception.code, 2)
                self.assertNotIn("S3CRET", said.getvalue())

    def test_command_line_that_fits_nothing_is_told(self):
        """What only the command itself can tell has the status of a wrong command line, too, and is one line."""
        for line in (
            "run --name x --python a --python b",
            "run --python ''",
            "run --torch ' '",
            "run --torch=",
            "run -k ''",
            "run --notify ''",
            "watch --history ''",
            "report --output ''",
            "install -- --targets ''",
            "forget --yes --history x",
            "forget --misdated --machine box --history x",
            "ack TestX.test_y",
            "install -- --notify 'a\nb'",
        ):
            said = io.StringIO()
            with self.subTest(line=line), contextlib.redirect_stderr(said):
                self.assertEqual((main(shlex.split(line)), said.getvalue().count("\n")), (2, 1), said.getvalue())


class TestOutput(unittest.TestCase):
    """Where the output goes."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "h.sqlite"
        with History(self.path, create=True) as history:
            put(history, make_run(), {"S.a": make_row("S.a", "fail", "x" * 20_000)})

    @needs("jinja2", "the page")
    def test_output_that_cannot_be_written_is_one_line(self):
        """Little text and much, of any command, has status 3 and says what is wrong; nothing is left to fail at the end."""
        for line in ("report -o -", "diff stable stable", "export", "export --format json", "watch"):
            said = io.StringIO()
            with self.subTest(line=line), os.fdopen(os.open(os.devnull, os.O_RDONLY), "w") as unwritable:
                with contextlib.redirect_stdout(unwritable), contextlib.redirect_stderr(said):
                    status = main([*line.split(), "--history", str(self.path)])
                wanted = (3, "nightly: standard output cannot be written: Bad file descriptor\n")
                self.assertEqual((status, said.getvalue()[-len(wanted[1]) :]), wanted)

    def test_closed_output_is_missed_only_by_what_prints(self):
        """A command that has nothing to say ends well without a standard output, and one that has with the same line."""
        for words, wanted in {
            ("check",): (0, ""),
            ("export",): (3, "nightly: standard output cannot be written: Bad file descriptor\n"),
        }.items():
            command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "nightly", *words, "--history", str(self.path)]
            done = subprocess.run(command, cwd=README.parent.parent, stderr=subprocess.PIPE, text=True)
            with self.subTest(words=words):
                self.assertEqual((done.returncode, done.stderr), wanted)

    def test_line_that_nobody_can_read_changes_no_status(self):
        """Where standard error cannot be written, the status is what it would be."""
        with os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", buffering=1) as unwritable, contextlib.redirect_stderr(unwritable):
            self.assertEqual(main(["diff", "none", "none", "--history", str(self.path)]), 3)
            os.dup2(os.open(os.devnull, os.O_WRONLY), unwritable.fileno())  # for what is still to be written

    @needs("platformdirs", "the user's own folders")
    def test_user_without_a_home_is_told(self):
        """What lies in the home by default has to be named; also where platformdirs is older than 4.12, and returns a path with ~."""
        homeless = mock.patch("pwd.getpwuid", side_effect=KeyError("uid not found"))
        older = mock.patch("platformdirs.user_state_path", return_value=Path("~/.local/state/ao-sparsity"))
        for case in (homeless, older):
            with mock.patch.dict(os.environ), case:
                for name in ("HOME", "XDG_STATE_HOME"):
                    os.environ.pop(name, None)
                with self.assertRaisesRegex(NightlyError, "no home folder: set HOME, or name another place with --history"):
                    history_path(make_parser().parse_args(["check"]))


@needs("filelock", "nights")
class TestRun(unittest.TestCase):
    """The options of ``run`` that hand a night on."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.runner = make_suite(self.folder)

    def run_night(self, *words):
        """(status, standard output) of a night of the made-up suite."""
        told = io.StringIO()
        places = ["--history", self.folder / "h.sqlite", "--cache", self.folder / "cache", "--runner", self.runner, "--name", "stable"]
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(io.StringIO()):
            status = main(["run", "-k", "TestSecond", *map(str, places), *map(str, words)])
        return status, told.getvalue()

    def test_news_is_handed_on_in_every_form(self):
        """The command gets what is printed as JSON, the figures are there, and a night without news calls nobody."""
        told, figures = self.folder / "told.json", self.folder / "n.prom"
        options = ["--format", "json", "--notify", f"cat > {told}", "--prometheus", figures]
        self.assertEqual(self.run_night(*options)[0], 0)
        self.assertFalse(told.exists())
        set_mode(self.runner, "setup")
        status, printed = self.run_night(*options)
        self.assertEqual((status, json.loads(printed)["status"]), (1, 1))
        self.assertEqual({**json.loads(told.read_text()), "made": ""}, {**json.loads(printed), "made": ""})
        self.assertIn('status{target="stable"', figures.read_text())

    def told_everywhere(self, command, *words):
        """(status, JSON that is printed, JSON that the command got, figures) of a command that hands on in every form."""
        told, figures, printed = self.folder / "told.json", self.folder / "n.prom", io.StringIO()
        words = [*words, "--format", "json", "--notify", f"cat > {told}", "--prometheus", figures, "--history", self.folder / "h.sqlite"]
        with contextlib.redirect_stdout(printed):
            status = main([command, *map(str, words)])
        return status, json.loads(printed.getvalue()), json.loads(told.read_text()), figures.read_text()

    def test_night_that_cannot_begin_is_handed_on(self):
        """Where another run holds the history, command, JSON and figures tell it; those of an import as well."""
        with night.only_one(self.folder / "h.sqlite", 0):
            for words in (["run"], ["import", "--compare", "x"]):
                with self.subTest(words=words):
                    status, printed, told, figures = self.told_everywhere(*words)
                    self.assertEqual((status, printed["status"], told["status"]), (3, 3, 3))
                    self.assertIn("another run is at work", told["problems"][0])
                    self.assertIn("night_status 3\n", figures)

    def test_mistake_of_nightly_itself_is_handed_on(self):
        """What is raised where nobody thought of it is told in every form, with a status of its own."""
        with mock.patch.object(night.Night, "run", side_effect=ZeroDivisionError("nobody thought of it")):
            status, printed, told, figures = self.told_everywhere("run")
        self.assertEqual((status, printed["status"], told["verdict"]), (5, 5, "nightly itself failed"))
        self.assertIn("ZeroDivisionError: nobody thought of it", told["text"])
        self.assertIn("night_status 5\n", figures)

    def test_figures_tell_of_a_command_that_fails(self):
        """A broken hook is in the exit status that the figures have."""
        set_mode(self.runner, "setup")
        self.run_night()
        set_mode(self.runner)
        self.assertEqual(self.run_night("--notify", "exit 7", "--prometheus", self.folder / "n.prom")[0], 3)
        self.assertIn("night_status 3\n", (self.folder / "n.prom").read_text())

    def test_night_that_cannot_be_printed_is_news_again(self):
        """Where standard output is full, the status says so unless the night was worse, and the next night tells it all."""
        cases = {"": ("json", 3), "setup": ("text", 1)}
        for mode, (form, wanted) in cases.items():
            set_mode(self.runner, mode)
            said = io.StringIO()
            words = ["run", "--history", self.folder / "h.sqlite", "--runner", self.runner, "--format", form, "--name", "stable"]
            with self.subTest(form=form), os.fdopen(os.open(os.devnull, os.O_RDONLY), "w") as unwritable:
                with contextlib.redirect_stdout(unwritable), contextlib.redirect_stderr(said):
                    status = main([*map(str, words), "-k", "TestSecond"])
                self.assertEqual((status, said.getvalue().count("\n")), (wanted, 1), said.getvalue())
        self.assertIn("2 new failures", self.run_night()[1])

    def test_command_that_fails_is_in_the_summary(self):
        """A broken hook is no silent one: its line is told, and the night could not do all it should."""
        self.run_night()
        set_mode(self.runner, "setup")
        status, printed = self.run_night("--notify", "echo no route; exit 7", "--prometheus", self.folder / "none" / "n.prom")
        self.assertEqual(status, 1)
        self.assertIn("exit status 7: no route", printed)
        self.assertIn("--prometheus", printed)

    def test_speeds_are_recorded_with_the_night(self):
        """What the stopwatch finds stands in the run; what it does not is a note, and the night goes on."""
        found = [{"what": "fbgemm", "zeros": 0.5, "sparse": 1.0, "dense": 2.0, "ratio": 0.5}]
        with mock.patch.object(speed, "measure", return_value=(found, ["speed: no step"])):
            self.assertEqual(self.run_night("--speed")[0], 0)
        with mock.patch.object(speed, "measure", side_effect=NightlyError("speed: no torch")):
            self.assertEqual(self.run_night("--speed")[0], 0)
        with History(self.folder / "h.sqlite") as history:
            latest, first = history.runs(1)
        self.assertEqual((speed.recorded_in(first), first.notes), ({"fbgemm 50 %": 0.5}, ["speed: no step"]))
        self.assertEqual((speed.recorded_in(latest), latest.notes), ({}, ["speed: no torch"]))

    def test_speed_that_is_lost_is_told_once(self):
        """A ratio that is worse by a quarter is told on the second such night, and not again on the third."""
        told = []
        for ratio in (0.4, 0.4, 0.4, 0.6, 0.6, 0.6):
            found = [{"what": "fbgemm", "zeros": 0.5, "sparse": ratio, "dense": 1.0, "ratio": ratio}]
            with mock.patch.object(speed, "measure", return_value=(found, [])):
                told.append(self.run_night("--speed")[1])
        self.assertEqual([bool(text) for text in told], [False] * 4 + [True, False], told)
        self.assertIn("fbgemm 50 %: sparse takes 0.60 of the dense time for 2 nights, 0.40 before", told[4])


if __name__ == "__main__":
    unittest.main()

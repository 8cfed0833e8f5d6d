"""Tests of the search for the first bad build, over an index of made-up wheels."""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from nightly import bisection, night
from nightly.cli import main
from nightly.compare import Judgement
from nightly.extras import given, needs, slow, st
from nightly.history import History
from nightly.links import compare_address
from nightly.made_up import make_row, make_run, make_wheel, put
from nightly.outcomes import NightlyError

RUNNER = """
import unittest, torch

class TestX(unittest.TestCase):
    def test_a(self):
        self.assertLess(torch.AGE, 12, "the bias is gone")

unittest.main()
"""
TEST = "TestX.test_a"


class TestHalving(unittest.TestCase):
    """Which version is tried next."""

    @given(st.integers(2, 60), st.data())
    def test_halving_finds_the_first_bad(self, count, data):
        """Wherever it broke and whatever says nothing, the ends are tight, and each step halves what is left."""
        versions = [str(number) for number in range(count)]
        broken = data.draw(st.integers(1, count - 1))
        silent = data.draw(st.sets(st.integers(1, count - 1), max_size=count // 2))
        verdicts, steps = {}, 0
        while True:
            low, high, middle = bisection.halve(versions, verdicts)
            if middle is None:
                break
            self.assertNotIn(versions[middle], verdicts)
            verdicts[versions[middle]] = None if middle in silent else middle < broken
            steps += 1
        self.assertLess(low, broken)
        self.assertGreaterEqual(high, broken)
        self.assertLessEqual(set(range(low + 1, high)), silent)
        self.assertLessEqual(steps, count.bit_length() + len(silent))

    def test_halving_goes_on_from_what_is_known(self):
        """The same verdicts lead to the same next version, in whatever order they were found."""
        versions = [str(number) for number in range(9)]
        self.assertEqual(bisection.halve(versions, {}), (0, 8, 4))
        self.assertEqual(bisection.halve(versions, {"6": False, "4": True}), (4, 6, 5))
        self.assertEqual(bisection.halve(versions, {"4": None}), (0, 8, 3))


class TestVersions(unittest.TestCase):
    """What the index has."""

    def test_between_keeps_the_order_of_the_index(self):
        """Nightly builds alone between two of them; a build with a local part is the same build."""
        versions = ["2.13.0", "2.14.0.dev1", "2.14.0.dev2+cpu", "2.14.0", "2.15.0.dev3", "2.15.0.dev4"]
        cases = {
            ("2.14.0.dev1", "2.15.0.dev3"): ["2.14.0.dev1", "2.14.0.dev2+cpu", "2.15.0.dev3"],
            ("2.13.0", "2.14.0.dev2"): ["2.13.0", "2.14.0.dev1", "2.14.0.dev2+cpu"],
            ("2.13.0+cu130", "2.14.0.dev1"): ["2.13.0", "2.14.0.dev1"],
        }
        for ends, wanted in cases.items():
            with self.subTest(ends=ends):
                self.assertEqual(bisection.between(versions, *ends), wanted)

    def test_between_refuses_what_is_not_there(self):
        """A build that the index no longer has, or ends the wrong way round, say which option to change."""
        for ends, wanted in {("1", "3"): "--good", ("2", "9"): "--bad", ("", "3"): "of unknown version", ("3", "2"): "not older"}.items():
            with self.subTest(ends=ends), self.assertRaises(NightlyError) as caught:
                bisection.between(["2", "3"], *ends)
            self.assertIn(wanted, str(caught.exception))

    def test_requirements_pin_torch_alone(self):
        """The other words stay."""
        words = ["--pre", "torch>=2", "--index-url", "https://x/torch", "torchvision"]
        self.assertEqual(bisection.requirements_of(words, "2.9"), ["--pre", "torch==2.9", "--index-url", "https://x/torch", "torchvision"])

    def test_compare_address_needs_two_commits(self):
        """Only what looks like two different commits becomes an address."""
        one, other = make_run(torch_commit="a" * 40), make_run(torch_commit="b" * 40)
        self.assertEqual(compare_address(one, other), f"https://github.com/pytorch/pytorch/compare/{'a' * 40}...{'b' * 40}")
        for commit in ("", "Unknown", "a" * 40, "b" * 41, 'b" onclick="', "b" * 7 + "\n"):
            with self.subTest(commit=commit):
                self.assertEqual(compare_address(one, make_run(torch_commit=commit)), "")
        self.assertEqual(compare_address(None, one), "")


class TestBisection(unittest.TestCase):
    """Whole searches."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.said = []

    def make_bisection(self, broken, silent=(), **fields):
        """A search over versions 0 to 16 whose runs are recorded without running anything."""
        options = night.Options(self.folder / "h.sqlite", self.folder / "cache", self.folder / "runner.py", [], machine="box")

        class Recorded(bisection.Bisection):
            def try_version(self, version):
                number = int(version)
                outcome = "skip" if number in silent else "pass" if number < broken else "fail"
                with History(options.history, create=True) as history:
                    run = make_run(self.target(version).name, torch=version)
                    put(history, run, {TEST: make_row(TEST, outcome)})
                self.take(version, run, {TEST: make_row(TEST, outcome)})
                return self.verdicts.setdefault(version, None)

        return Recorded(TEST, sys.executable, ["torch"], options, self.said.append, **fields)

    def test_bisection_goes_on_where_it_was(self):
        """A second search runs nothing that the first has recorded."""
        versions = [str(number) for number in range(17)]
        first = self.make_bisection(11)
        self.assertEqual(first.search(versions, check_ends=True), (10, 11))
        self.assertEqual(set(first.verdicts), {"0", "16", "8", "12", "10", "11"})
        second = self.make_bisection(11)
        second.recall(versions)
        self.assertEqual(second.verdicts, first.verdicts)
        second.try_version = None
        self.assertEqual(second.search(versions, check_ends=True), (10, 11))

    def test_bisection_checks_the_ends_that_it_is_given(self):
        """A good build that is bad, or a bad one that is good, is said before anything else is run."""
        versions = [str(number) for number in range(17)]
        for broken, wanted in {0: "torch 0 is bad", 99: "torch 16 is good"}.items():
            (self.folder / "h.sqlite").unlink(missing_ok=True)
            with self.subTest(broken=broken), self.assertRaises(NightlyError) as caught:
                self.make_bisection(broken).search(versions, check_ends=True)
            self.assertIn(wanted, str(caught.exception))

    def test_bisection_tells_what_says_nothing(self):
        """Builds on which the test is skipped are named between the ends."""
        versions = [str(number) for number in range(17)]
        search = self.make_bisection(8, silent={8})
        low, high = search.search(versions, check_ends=False)
        self.assertEqual((low, high), (7, 9))
        self.assertIn("1 between them that say nothing: 8", bisection.lines_of_end(search, versions, low, high, {}))

    def test_ends_come_from_the_nights(self):
        """The last good and first bad run of the target that has the failure; without one the options are named."""
        with History(self.folder / "h.sqlite", create=True) as history:
            for number, outcome in enumerate(["pass", "pass", "fail", "fail"]):
                put(history, make_run("newest", number, 4), {TEST: outcome})
                put(history, make_run("stable", number, 4), {TEST: "pass"})
            good, bad = bisection.ends_in_history(history, TEST, "")
            self.assertEqual((good.day, bad.day), ("2026-03-29", "2026-03-30"))
            for test, target in ((TEST, "stable"), ("TestX.test_b", "")):
                with self.subTest(test=test), self.assertRaises(NightlyError) as caught:
                    bisection.ends_in_history(history, test, target)
                self.assertIn("--good", str(caught.exception))

    def test_run_of_another_test_hides_no_ends(self):
        """The ends come from the last night of all tests, not from a run with -k since."""
        with History(":memory:") as history:
            for number, outcome in enumerate(["pass", "fail"]):
                put(history, make_run("newest", number, 3), {TEST: outcome})
            put(history, make_run("newest", 2, 3, selection="-k test_b"), {"TestX.test_b": "pass"})
            good, bad = bisection.ends_in_history(history, TEST, "")
        self.assertEqual((good.day, bad.day), ("2026-03-29", "2026-03-30"))

    def test_step_removes_its_own_environment_alone(self):
        """An environment is gone after its step; what else lies in the cache stays, the environment of another bisection, too."""
        options = night.Options(self.folder / "h.sqlite", self.folder / "cache", self.folder / "runner.py", [], machine="box")
        notes = self.folder / "cache" / "bisect" / "notes.txt"
        notes.parent.mkdir(parents=True)
        notes.touch()
        made = []

        def run(work):
            (work.options.cache / "environment").mkdir(parents=True)
            made.append(work.options.cache)
            if len(made) == 1:  # another bisection begins and ends meanwhile
                bisection.Bisection(TEST, sys.executable, ["torch"], options, self.said.append).try_version("2.10")
            self.assertTrue((work.options.cache / "environment").exists(), self.said)
            run = make_run(work.options.targets[0].name)
            return [Judgement(run, results={TEST: make_row(TEST, "pass")})]

        with mock.patch.object(night.Night, "run", run):
            found = bisection.Bisection(TEST, sys.executable, ["torch"], options, self.said.append).try_version("2.10")
        self.assertEqual((found, [place.exists() for place in made], notes.exists()), (True, [False, False], True))

    def test_cache_that_cannot_be_written_is_one_line(self):
        """The line names the option."""
        (self.folder / "file").touch()
        options = night.Options(self.folder / "h.sqlite", self.folder / "file", self.folder / "runner.py", [], machine="box")
        with self.assertRaisesRegex(NightlyError, "--cache"):
            bisection.Bisection(TEST, sys.executable, ["torch"], options, self.said.append).try_version("2.10")

    @needs("filelock", "a whole bisection")
    @slow
    def test_command_bisects_a_made_up_index(self):
        """Over wheels that pip finds, installs and runs, the first bad one is found, and a second call runs nothing."""
        index = self.folder / "index"
        index.mkdir()
        for day in range(10, 13):
            code = f"AGE = {day}\nfrom types import SimpleNamespace\nversion = SimpleNamespace(git_version='{day:040x}')"
            make_wheel(index, f"2.14.0.dev202603{day}", code=code)
        runner = self.folder / "test_ao_sparsity.py"
        runner.write_text(RUNNER)
        with History(self.folder / "h.sqlite", create=True) as history:
            put(history, make_run("newest", 0, 2, torch="2.14.0.dev20260310"), {TEST: "pass"})
            put(history, make_run("newest", 1, 2, torch="2.14.0.dev20260312", torch_commit=f"{12:040x}"), {TEST: "fail"})
        command = ["bisect", TEST, "--torch", f"torch --pre --no-index --find-links {index}", "--history", str(self.folder / "h.sqlite")]
        command += ["--cache", str(self.folder / "cache"), "--runner", str(runner)]
        for call in range(2):
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                self.assertEqual(main(command), 0, told.getvalue())
            self.assertIn("last good torch 2.14.0.dev20260311", told.getvalue())
            self.assertIn("first bad torch 2.14.0.dev20260312", told.getvalue())
            self.assertIn(f"{11:040x}...{12:040x}", told.getvalue())
            with History(self.folder / "h-bisect.sqlite") as history:
                steps = [run for target in history.targets() for run in history.runs(target.id)]
            self.assertEqual(len(steps), 1, f"{call}: {told.getvalue()}")
        self.assertEqual(list(self.folder.glob("cache/*")), [], "an environment is removed after its step")

    def test_index_that_tells_nothing_is_one_line(self):
        """Pip's own error is the line, and a password is not in it."""
        alone = mock.patch.dict(os.environ, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
        words = ["torch", "--no-index", "--find-links", str(self.folder), "--extra-index-url", "https://bob:S3CRET@127.0.0.1:9/simple"]
        with alone, self.assertRaises(NightlyError) as caught:
            bisection.versions_in_index(sys.executable, words)
        self.assertRegex(str(caught.exception), re.compile(r"^pip index versions torch .*bob:\*\*\*\*@127.*ERROR"))

    def test_index_that_gives_no_answer_is_one_line(self):
        """The line tells what was asked, without the password."""
        late = subprocess.TimeoutExpired(["pip", "https://bob:S3CRET@x/simple"], 1)
        with mock.patch("subprocess.run", side_effect=late), mock.patch("nightly.targets.Tool.run", side_effect=late):
            with self.assertRaisesRegex(NightlyError, r"^pip index versions torch .*bob:\*\*\*\*@x") as caught:
                bisection.versions_in_index(sys.executable, ["torch", "--index-url", "https://bob:S3CRET@x/simple"])
        self.assertNotIn("S3CRET", str(caught.exception))


if __name__ == "__main__":
    unittest.main()

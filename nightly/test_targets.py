"""Tests of what is validated: target files, interpreters and environments."""

import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from nightly import targets
from nightly.extras import needs, slow
from nightly.made_up import make_wheel
from nightly.outcomes import NightlyError
from nightly.targets import Target
from nightly.texts import masked

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLE = """
[[target]]
name = "installed"
python = "/opt/build/bin/python"

[[target]]
torch = ["torch==2.9.1", "--pre torch --index-url https://x"]
python = ["3.12", "3.13"]

[[target]]
name = "newest"
torch = "torch"

[[target]]
name = "mine"
python = ["a", "b"]
"""


class TestTargetFile(unittest.TestCase):
    """Targets named in a file or on the command line."""

    def read(self, text):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "nightly.toml"
            file.write_text(text)
            return targets.check_names(targets.from_file(file))

    def test_file_names_single_targets_and_matrices(self):
        """An entry with lists stands for each combination, named after it."""
        self.assertEqual(
            self.read(EXAMPLE),
            [
                Target("installed", "/opt/build/bin/python"),
                Target("torch==2.9.1 on 3.12", "3.12", "torch==2.9.1"),
                Target("--pre torch --index-url https://x on 3.12", "3.12", "--pre torch --index-url https://x"),
                Target("torch==2.9.1 on 3.13", "3.13", "torch==2.9.1"),
                Target("--pre torch --index-url https://x on 3.13", "3.13", "--pre torch --index-url https://x"),
                Target("newest", "", "torch"),
                Target("mine a", "a"),
                Target("mine b", "b"),
            ],
        )

    def test_example_of_the_readme_is_a_target_file(self):
        """The README's example is read without a problem, its lists as combinations."""
        example = (CHECKOUT / "nightly" / "README.md").read_text().split("```toml\n")[1].split("```")[0]
        found = self.read(example)
        self.assertEqual([target.problem for target in found], [""] * 6)
        self.assertEqual((found[0].name, found[-1].name), ("installed", "pytorch-nightly"))

    def test_broken_file_is_one_line(self):
        """A file that is no TOML, names nothing or has unknown parts is one line with its name."""
        for text in ("[[target", "", "targets = 3", "[target]\nname = 'x'", "[[target]]\ntorch='x'\n[other]", "\xff"):
            with self.subTest(text=text), self.assertRaisesRegex(NightlyError, r"^target file .*nightly\.toml: [^\n]+$"):
                self.read(text) if text != "\xff" else self.read_bytes(b"\xff\xfe")
        with self.assertRaisesRegex(NightlyError, "No such file"):
            targets.from_file("/nowhere/nightly.toml")

    def read_bytes(self, data):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "nightly.toml"
            file.write_bytes(data)
            return targets.from_file(file)

    def test_wrong_entry_spoils_no_other(self):
        """A wrong entry becomes a target with a problem; the others are as they were."""
        for wrong, wanted in {
            "name = 'x'": "neither python",
            "pyhton = 'y'": "unknown key 'pyhton'",
            "torch = 3": "strings",
            "torch = [1]": "strings",
            "name = 1\ntorch = 'x'": "strings",
            "name = 'good'\ntorch = 'x'": "used twice",
            "torch = []": "neither python",
        }.items():
            with self.subTest(wrong=wrong):
                good, bad = self.read(f"[[target]]\nname = 'good'\ntorch = 'torch'\n[[target]]\n{wrong}\n")
                self.assertEqual(good, Target("good", torch="torch"))
                self.assertIn(wanted, bad.problem)
                self.assertNotEqual(bad.name, "good")

    def test_index_has_a_say_where_torch_is_not_pinned(self):
        """Only one exact version, or one wheel, leaves nothing to the index."""
        cases = {
            "torch": True,
            "--pre torch --index-url https://x/torch==2": True,
            "'torch >= 2.9'": True,
            "torch==2.9.*": True,
            "torch==2.9.1": False,
            "torchvision 'torch == 2.9.1+cpu'": False,
            "torch===2.9": False,
            "/x/torch-2.9-cp312-linux_x86_64.whl": False,
            "'torch @ https://x/y.whl'": False,
            "": False,
        }
        for words, wanted in cases.items():
            with self.subTest(words=words):
                self.assertEqual(targets.floats(Target("x", torch=words)), wanted)

    def test_target_of_nothing_is_refused(self):
        """A target that names neither an interpreter nor what to install is not this interpreter."""
        with self.assertRaisesRegex(NightlyError, "neither python"):
            targets.prepare(Target("x"), "/nowhere", None, str)

    def test_python_is_found_by_path_command_or_version(self):
        """An interpreter is named as a user would; links are kept, for an environment is found through them."""
        with tempfile.TemporaryDirectory() as folder:
            for name in ("python3.99", "mine"):
                os.symlink(sys.executable, Path(folder) / name)
            Path(folder, "plain").touch()
            with mock.patch.dict(os.environ, {"PATH": folder}):
                mine = f"{folder}/mine"
                for wanted, found in {"3.99": f"{folder}/python3.99", "mine": mine, mine: mine}.items():
                    with self.subTest(wanted=wanted):
                        self.assertEqual(targets.find_python(wanted), found)
                for wanted, words in {"3.98": "is not there", f"{folder}/plain": "not executable", " ": "no interpreter is named"}.items():
                    with self.subTest(wanted=wanted), self.assertRaisesRegex(NightlyError, words):
                        targets.find_python(wanted)

    def test_what_is_no_python_is_told_so(self):
        """A program that is no Python, one that fails, and a Python too old are each one line that says what they said."""
        with tempfile.TemporaryDirectory() as folder:
            cases = {
                "echo usage: give a version; exit 1": "it says: usage: give a version",
                "exit 0": "it says: nothing",
                "echo python 3 8": "is Python 3.8: the suite needs 3.10",
                "printf '\\033[31mred\\n' >&2; exit 3": r"it says: \\x1b\[31mred",
            }
            for number, (script, wanted) in enumerate(cases.items()):
                with self.subTest(script=script):
                    python = Path(folder) / f"python{number}"
                    python.write_text(f"#!/bin/sh\n{script}\n")
                    python.chmod(0o755)
                    with self.assertRaisesRegex(NightlyError, wanted):
                        targets.prepare(Target("x", str(python)), folder, None, str)


class TestSecrets(unittest.TestCase):
    """Passwords in the address of an index, which pip gets and nobody is shown."""

    INDEX = "https://bob:S3CRET@127.0.0.1:9/simple"

    def test_password_of_an_address_is_masked(self):
        """What stands before the host is masked as pip does it, and nothing else is."""
        cases = {
            self.INDEX: "https://bob:****@127.0.0.1:9/simple",
            "a 'git+https://S3CRET@x/y@v1' b": "a 'git+https://****@x/y@v1' b",
            "http://:p@ss:w@x": "http://:****@x",
            "ssh://bob:S3CRET@x ssh://git@x:22/y": "ssh://bob:****@x ssh://git@x:22/y",
            "https://bob:****@x": "https://bob:****@x",
            "https://x:80/y@z?a@b torch @ file:///a@b a:b@c": "https://x:80/y@z?a@b torch @ file:///a@b a:b@c",
        }
        for text, wanted in cases.items():
            with self.subTest(text=text):
                self.assertEqual(masked(text), wanted)

    def test_name_of_a_target_holds_no_password(self):
        """Targets of the command line and of a file are named without it, and pip gets it all the same."""
        words = f"torch --index-url {self.INDEX}"
        entry = {"torch": words, "python": ["a", "b"]}
        found = targets.check_names([*targets.from_options([], [words]), *targets.from_entry(entry, "x", 1)])
        shown = "torch --index-url https://bob:****@127.0.0.1:9/simple"
        self.assertEqual([target.name for target in found], [shown, f"{shown} on a", f"{shown} on b"])
        self.assertEqual({target.torch for target in found}, {words})

    def test_failure_of_pip_tells_no_password(self):
        """Neither what pip was to do nor what it printed shows it."""
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder) / "python"
            python.write_text('#!/bin/sh\necho "ERROR: $*"; exit 1\n')
            python.chmod(0o755)
            with self.assertRaises(NightlyError) as caught:
                targets.install(targets.Tool(), python, ["torch", "--index-url", self.INDEX], None)
        self.assertEqual(str(caught.exception).count("bob:****@127.0.0.1:9"), 2, caught.exception)
        self.assertNotIn("S3CRET", str(caught.exception))

    def test_words_that_cannot_be_taken_apart_tell_no_password(self):
        """The line on a quotation that does not end masks it."""
        with self.assertRaisesRegex(NightlyError, "No closing quotation") as caught:
            targets.prepare(Target("x", torch=f"torch 'x --index-url {self.INDEX}"), "/nowhere", None, str)
        self.assertNotIn("S3CRET", str(caught.exception))


@needs("filelock", "environments")
class TestEnvironment(unittest.TestCase):
    """Environments made of wheels that lie in a folder."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.wheels = self.folder / "wheels"
        self.wheels.mkdir()
        self.said = []
        # pip as a fresh user has it: no settings of this machine's
        self.use(mock.patch.dict(os.environ, {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}))

    def use(self, context):
        context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def prepare(self, suite=None):
        """The torch version that `targets.prepare` provides for any torch, and what it said that it did."""
        self.said = []
        wanted = f"--no-index --find-links {self.wheels} torch"
        python = targets.prepare(Target("x", torch=wanted), self.folder / "cache", suite, self.said.append)
        return self.version(python), self.said

    def version(self, python):
        return subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True).stdout.strip()

    @slow
    def test_environment_is_made_updated_and_mended(self):
        """An environment left half made is made anew, then brought up to date, and made anew when its torch cannot be imported."""
        make_wheel(self.wheels, "2.9.0")
        wanted = ["--no-index", "--find-links", str(self.wheels), "torch"]
        place = targets.environment_place(self.folder / "cache", sys.executable, wanted)
        (place / "bin").mkdir(parents=True)
        (place / targets.MARK).touch()
        (place / "rubbish").touch()
        self.assertEqual(self.prepare(), ("2.9.0", ["broken: building it anew", "building the environment"]))
        self.assertFalse((place / "rubbish").exists())
        make_wheel(self.wheels, "2.10.0")
        make_wheel(self.wheels, "1.0", "helper")
        suite = self.folder / "requirements.txt"
        suite.write_text(f"--no-index\n--find-links {self.wheels}\ntorch>=2.1\nhelper\n")
        os.utime(place / targets.MARK, (0, 0))
        self.assertEqual(self.prepare(suite), ("2.10.0", ["updating"]))
        self.assertGreater((place / targets.MARK).stat().st_mtime, 0, "that it was used is not seen")
        (installed,) = place.glob("lib/python*/site-packages")
        self.assertTrue((installed / "helper").is_dir())
        torch = installed / "torch" / "__init__.py"
        sound = torch.read_text()
        torch.write_text("raise ImportError('half an update')")
        with mock.patch.object(targets, "build", lambda *_: torch.write_text(sound)):
            self.assertEqual(self.prepare(), ("2.10.0", ["updating", "broken: building it anew"]))

    def test_environments_that_nobody_uses_are_forgotten(self):
        """An environment goes when no run has used it for so many days, whether it was completed or not, and no other folder does."""
        import filelock

        ages = {"a" * 16: 9, "b" * 16: 4, "c" * 16: 9, "d" * 16: 9, "notes": 9}
        now = time.time()
        for name, days in ages.items():
            place = self.folder / "environments" / name
            place.mkdir(parents=True)
            if name != "d" * 16:
                (place / targets.MARK).touch()
            for path in (place / targets.MARK, place):
                if path.exists():
                    os.utime(path, (now - days * 86400,) * 2)
        with filelock.FileLock(self.folder / "environments" / f"{'c' * 16}.lock"):
            targets.forget_unused(self.folder, 5.0, self.said.append)
        left = sorted(path.name for path in (self.folder / "environments").iterdir() if path.is_dir())
        self.assertEqual(left, ["b" * 16, "c" * 16, "notes"], "the one that is young, the one that a run holds, and none of ours")
        self.assertEqual(len(self.said), 2, self.said)

    def test_environment_that_a_run_of_today_uses_is_kept(self):
        """However short the time is for which nights are kept, an environment may be in use for a day."""
        place = self.folder / "environments" / ("a" * 16)
        place.mkdir(parents=True)
        targets.forget_unused(self.folder, 0.0001, self.said.append)
        self.assertTrue(place.exists())

    def test_what_cannot_be_installed_is_one_line_with_advice(self):
        """An unknown version, a missing index and wrong requirements are told apart."""
        empty = self.folder / "cache" / "environments"
        failing = {
            "No matching distribution found for torch==99": "no such version",
            "Failed to establish a new connection\nERROR: No matching distribution found for torch": "check the network",
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device": "make room",
            "ERROR: something else": "something else",
        }
        for printed, wanted in failing.items():
            with self.subTest(printed=printed):
                with self.assertRaisesRegex(NightlyError, wanted):
                    targets.Tool().output([sys.executable, "-c", f"print({printed!r}); raise SystemExit(1)"], "pip install torch")
        with self.assertRaisesRegex(NightlyError, "No closing quotation"):
            targets.prepare(Target("x", torch="torch 'x"), self.folder, None, self.said.append)
        with self.assertRaisesRegex(NightlyError, "used twice"):
            targets.prepare(Target("x", torch="torch", problem="used twice"), self.folder, None, self.said.append)
        (self.folder / "file").touch()
        with self.assertRaisesRegex(NightlyError, "--cache"):
            targets.prepare(Target("x", torch="torch"), self.folder / "file", None, self.said.append)
        self.assertFalse(empty.exists())

    def test_tool_leaves_no_temporary_files(self):
        """What pip unpacks, gigabytes, is gone although it could not tidy up."""
        place = self.folder / "tmp"
        place.mkdir()
        self.use(mock.patch.dict(os.environ, TMPDIR=str(place)))
        with mock.patch.object(tempfile, "tempdir", str(place)), self.assertRaisesRegex(NightlyError, "^pip: part$"):
            targets.Tool().output(["sh", "-c", "cd $TMPDIR && mkdir part && ls && kill -9 $$"], "pip")
        self.assertEqual(list(place.iterdir()), [])

    def test_call_to_end_ends_whatever_is_in_flight(self):
        """What installs, an interpreter that is asked for its version, and one that imports torch, are ended and not waited for."""
        idle = self.folder / "python"
        idle.write_text("#!/bin/sh\nsleep 3\n")
        idle.chmod(0o755)
        tool = targets.Tool()
        tool.stopping.set()
        calls = {
            "pip": lambda: tool.output([str(idle)], "pip"),
            "a version": lambda: targets.prepare(Target("x", str(idle)), self.folder, None, str, tool.stopping),
            "torch": lambda: targets.works(tool, idle),
        }
        for what, call in calls.items():
            with self.subTest(what=what), self.assertRaisesRegex(NightlyError, ": asked to end before it was done$"):
                call()

    def test_call_to_end_is_heeded_while_another_run_holds_the_environment(self):
        """Who waits for an environment that another run makes ready says so, and leaves when the night is asked to end."""
        import filelock

        stopping, said = threading.Event(), []

        def say(text):
            said.append(text)
            stopping.set()

        place = targets.environment_place(self.folder, sys.executable, ["torch"])
        place.parent.mkdir(parents=True)
        with filelock.FileLock(f"{place}.lock"), self.assertRaisesRegex(NightlyError, "^environment .*: asked to end"):
            targets.prepare(Target("x", torch="torch"), self.folder, None, say, stopping)
        self.assertEqual(said, ["waiting for another run that makes the same environment ready"])

    def test_real_pip_tells_an_unknown_version(self):
        """pip's own words for a version that the index lacks are understood."""
        make_wheel(self.wheels, "2.9.0")
        with self.assertRaisesRegex(NightlyError, r"no such version for this Python and machine"):
            targets.install(targets.Tool(), sys.executable, ["--no-index", "--find-links", str(self.wheels), "torch==99.1"], None)


if __name__ == "__main__":
    unittest.main()

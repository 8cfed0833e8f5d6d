"""Tests of whole runs, each a process: what a person sees, the options, and that every runner gives the same verdicts."""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from unittest import mock

from ao.sparsity.testing import build, preflight, session
from ao.sparsity.testing.child import TO_BE_READ
from ao.sparsity.testing.surroundings import EXTRAS

ROOT = pathlib.Path(__file__).resolve().parents[3]
COUNTS_ALL = sys.version_info[:3] != (3, 12, 1)  # that Python leaves skipped tests out of those that it ran
QUICK = "TestFakeSparsity"  # a class of a few quick tests
TEST = "TestFakeSparsity.test_masking_logic"

# What requirements-dev.txt installs and what that brings along, but for what torch needs, by the names under which files import it.
OPTIONAL = (
    *("check_jsonschema", "coverage", "green", "hypothesis", "jsonschema", "junitparser", "libcst", "lxml", "mutmut"),
    *("mypy", "ninja", "platformdirs", "pytest", "pytest_randomly", "pytorch_lightning", "ruff", "stestr", "tomli", "xdist", "xmlrunner"),
)

SMALL = """
from torch.testing._internal.common_utils import run_tests
from ao.sparsity.testing.base import TestCase


class TestSmall(TestCase):
    def test_a(self):
        telling_name = 41
        self.assertEqual(telling_name, 42)

    def test_b(self):
        self.assertTrue(True)


if __name__ == "__main__":
    run_tests()
"""

# What torch 2.14 does for --subprocess: it loads the tests to look at their classes, and then to run them. Arguments: a line each with
# what --hw-classification asks for, which older releases do not have, or "all", and the words of the command line.
LOADED_TWICE = """
import enum, sys, unittest
from torch.testing._internal import common_utils

if not hasattr(common_utils, "HardwareClassification"):
    common_utils.HardwareClassification = enum.Enum("HardwareClassification", "GENERIC ACCELERATOR")

import test_ao_sparsity
from ao.sparsity.testing import companion, session

sys.modules["__main__"] = test_ao_sparsity
common_utils.TEST_IN_SUBPROCESS = True
for line in sys.argv[1:]:
    kind, *words = line.split()
    session._asked.cache_clear()
    unittest.defaultTestLoader.testNamePatterns = None
    common_utils.UNITTEST_ARGS = ["x", *words]
    common_utils.DISABLED_TESTS_FILE = "a file"
    common_utils.HW_CLASSIFICATION = None if kind == "all" else {common_utils.HardwareClassification[kind]}
    try:
        loaded = [loader.loadTestsFromModule(test_ao_sparsity) for loader in (unittest.TestLoader(), unittest.defaultTestLoader)]
    except SystemExit as end:
        print(end.code, file=sys.stderr)
    else:
        first, second = ([test.id() for test in companion.flat(tests)] for tests in loaded)
        said = ["twice" if first == second else second, *filter(None, [common_utils.DISABLED_TESTS_FILE])]
        print(*first, *common_utils.UNITTEST_ARGS[1:], *said, file=sys.stderr)
"""


def run(*arguments, cwd=ROOT, input=None, **environment):
    """Run ``python ARGUMENTS``, by default in the project's root, with ``input`` to read; returns the finished process, its output as text.

    Of the environment, what measures or drives the tests around it is left out, and what makes the output differ.
    PYTHONPATH comes before that of this process, through which an installation may find its packages. What a torch for CUDA says at its
    import on a machine with CUDA's compiler but no GPU is left out of what was printed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))} | TO_BE_READ
    if "PYTHONPATH" in environment and "PYTHONPATH" in inherited:
        environment["PYTHONPATH"] += os.pathsep + inherited["PYTHONPATH"]
    process = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, input=input, capture_output=True, text=True, env={**inherited, **environment}, timeout=300
    )
    process.stderr = re.sub(r"^.*No CUDA runtime is found, using CUDA_HOME=.*\n", "", process.stderr, flags=re.MULTILINE)
    return process


def runner(*arguments, **environment):
    """Run the root runner with these arguments."""
    return run("test_ao_sparsity.py", *arguments, **environment)


# Runs programs one after the other in forks of a process that has imported torch, and what its test tools import, and prints how each
# ended. The tools themselves read variables of the environment when they are imported.
FORKS = """
import contextlib, importlib, json, os, sys
import torch
from ao.sparsity.testing.play import run_in_fork

for name in ("expecttest", "hypothesis", "pytest", "torch.utils.cpp_extension"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

def prepared(cwd, environment):
    os.chdir(cwd)
    os.environ.update(environment)

ends = [run_in_fork(words, lambda: prepared(cwd, environment), program) for (program, *words), cwd, environment in json.load(sys.stdin)]
print(json.dumps([(end.returncode, end.stdout, end.stderr) for end in ends]))
"""


def job(program, *arguments, cwd=ROOT, **environment):
    """A program that may import this project, with its arguments, working directory and environment, for ``together``."""
    return [program, *arguments], str(cwd), environment


def together(*jobs):
    """Run these jobs one after the other; where processes are forked, with one import of torch for all. Returns the finished processes."""
    if not hasattr(os, "fork"):
        return [run(*words, cwd=cwd, PYTHONPATH=str(ROOT), **environment) for words, cwd, environment in jobs]
    # A GPU is hidden: a fork cannot use it, and where there is one there is no companion.
    process = run("-c", FORKS, input=json.dumps(jobs), PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="")
    if process.returncode:
        raise AssertionError(process.stderr)
    return [subprocess.CompletedProcess(words, *end) for (words, _, _), end in zip(jobs, json.loads(process.stdout))]


def counts(process):
    """``(tests run, summary)`` of unittest's last lines."""
    ran = re.search(r"^Ran (\d+) tests? in", process.stderr, re.MULTILINE)
    summary = re.search(r"^(OK|FAILED|NO TESTS RAN)[^\n]*$", process.stderr, re.MULTILINE)
    return int(ran.group(1)), summary.group(0)


def verdicts(folder):
    """Outcome of each test in the JUnit XML below ``folder``: ``{"Class.test": worst of passed, skipped, failed}``."""
    order = ["passed", "skipped", "failed"]
    found = {}
    for path in pathlib.Path(folder).rglob("*.xml"):
        for case in ElementTree.parse(path).iter("testcase"):
            name = f"{case.get('classname').rsplit('.', 1)[-1]}.{case.get('name').split(' ')[0]}"
            kinds = {child.tag for child in case}
            outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            found[name] = max(found.get(name, "passed"), outcome, key=order.index)
    return found


class TestWholeRun(unittest.TestCase):
    """``python test_ao_sparsity.py``, once, with JUnit XML where that can be written, and the other ways to start the same tests."""

    slow = 22

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.reports = os.path.join(folder.name, "runner")
        cls.process = runner(*(["--save-xml", cls.reports] if importlib.util.find_spec("xmlrunner") else []))

    def test_installed_torch_passes(self):
        """The suite is green on the torch that is installed."""
        self.assertEqual(self.process.returncode, 0, self.process.stderr[-4000:])
        number, summary = counts(self.process)
        self.assertGreater(number, 88, "fewer tests than PyTorch's own suite has")
        self.assertTrue(summary.startswith("OK"), summary)

    def test_green_run_is_short(self):
        """A person sees what is validated, the dots, the summary, what could not be asked: at most 15 lines, of XML five more."""
        lines = (self.process.stdout + self.process.stderr).splitlines()
        self.assertLessEqual(len(lines), 20 if os.path.exists(self.reports) else 15, "\n".join(lines))
        self.assertRegex(lines[0], r"^[\d-]+ [\d:,]+ - ao\.sparsity - INFO - ao-sparsity suite 2\.1( \(\w+\))?$")
        self.assertRegex(lines[1], r"^[\d-]+ [\d:,]+ - ao\.sparsity - INFO - validating torch \S+ \(git \w+\), Python [\d.]+\S*, \w+ \w+, ")
        self.assertIn("quantized engines: ", lines[1])
        self.assertIn("devices: cpu", lines[1])

    def test_closing_line_groups_the_skips(self):
        """The last line says what this build could not be asked, and why."""
        summary = counts(self.process)[1]
        if "skipped=" not in summary:
            self.skipTest("closing line (this build skips nothing)")
        self.assertRegex(self.process.stderr.splitlines()[-1], r"^skipped: \d+ [^,]+ \([^)]+\)(, \d+ .+ \(.+\))*$")

    def test_every_runner_gives_the_same_verdicts(self):
        """Root runner, and pytest in random order, on two processes unless it runs these tests so: the same tests, the same outcomes.

        Areas that have many tests or long imports, and no outcome that others have not, are left out.
        """
        for extra in ("pytest", "xmlrunner", "xdist", "pytest_randomly"):
            if importlib.util.find_spec(extra) is None:
                self.skipTest(f"verdicts side by side ({extra} not installed)")
        with tempfile.TemporaryDirectory() as folder:
            expected = verdicts(self.reports)
            if COUNTS_ALL:
                self.assertEqual(len(expected), counts(self.process)[0])
            areas = ("composability", "lightning_callbacks", "sparsifier", "structured_sparsifier")
            left_out = [f"ao.sparsity.test_{area}" for area in areas]
            holders = {test.split(".")[0] for test in expected}
            theirs = {name for module in left_out for name in holders & set(vars(importlib.import_module(module)))}
            expected = {test: outcome for test, outcome in expected.items() if test.split(".")[0] not in theirs}
            self.assertGreater(len(expected), 400)
            path = os.path.join(folder, "pytest")
            files = [str(file) for file in (ROOT / "ao" / "sparsity").glob("test_*.py") if f"ao.sparsity.{file.stem}" not in left_out]
            workers = [] if "PYTEST_XDIST_WORKER" in os.environ else ["-n", "2"]
            process = run("-m", "pytest", "-q", f"--junitxml={path}/report.xml", *workers, "-p", "randomly", *sorted(files))
            self.assertEqual(process.returncode, 0, process.stdout[-4000:])
            self.assertEqual(verdicts(path), expected)

    def test_unittest_runs_one_area(self):
        """``python -m unittest ao.sparsity.test_parametrization`` needs no runner."""
        process = run("-m", "unittest", "ao.sparsity.test_parametrization")
        self.assertEqual(process.returncode, 0, process.stderr)
        if not COUNTS_ALL:
            self.skipTest("the number of tests (Python 3.12.1 leaves out some that are skipped)")
        self.assertEqual(
            counts(process)[0], unittest.defaultTestLoader.loadTestsFromName("ao.sparsity.test_parametrization").countTestCases()
        )


class TestOptions(unittest.TestCase):
    """Options of torch's runner that the README offers."""

    slow = 24

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            small, disabled = pathlib.Path(folder, "test_small.py"), pathlib.Path(folder, "disabled.json")
            small.write_text(SMALL, encoding="utf-8")
            disabled.write_text('{"test_masking_logic (__main__.TestFakeSparsity)": ["https://example.org/1", []]}', encoding="utf-8")
            jobs = cls.jobs(str(small), str(disabled))
            cls.processes = dict(zip(jobs, together(*jobs.values())))
            cls.reports = [path.name for path in pathlib.Path(folder, "test-reports").rglob("*.xml")]

    @staticmethod
    def jobs(small, disabled):
        """The runs of the suite and of ``small``, by what they are for; ``disabled`` is a file of disabled tests."""
        commands = {
            "no filter": ["-k", "xyzzy"],
            "a near filter": ["-k", "2:4", "--repeat", "2"],
            "by device": ["-v", "-k", f"{QUICK}DeviceCPU.test_masking_logic_cpu", "-k", f"{QUICK}Device.test_weights_parametrized"],
            "a name and no filter": [QUICK, "-k", "xyzzy"],
            "a name by device": [f"{QUICK}DeviceCPU", "-k", f"__main__.{QUICK}DeviceCPU.test_weights_parametrized_cpu"],
            "no name": ["TestFakeSparsity.test_that_is_not_there"],
            "again": ["--repeat", "2", TEST],
            "parallel": ["--run-parallel", "3", "-k", "refuses_another_shape_flat", "-k", "refuses_another_shape_scalar"],
            "discover": ["--discover-tests"],
            "disabled": ["--import-disabled-tests", disabled, "-v", TEST, f"{QUICK}.test_weights_parametrized"],
        }
        return {
            **{name: job("test_ao_sparsity.py", *words) for name, words in commands.items()},
            "failure": job(small, "--showlocals", "-f"),
            "continuous integration": job(small, "TestSmall.test_b", cwd=os.path.dirname(small), CI="true"),
        }

    def test_filter_that_matches_nothing_ends_with_status_5(self):
        """One line says that nothing was validated, on every Python, also with the options that change how tests are run.

        A second line names the tests that come nearest, if there are any.
        """
        process = self.processes["no filter"]
        self.assertEqual(process.returncode, 5, process.stderr)
        self.assertEqual(process.stderr.splitlines()[2:], ["no test matches -k xyzzy: nothing was validated"])
        process = self.processes["a near filter"]
        self.assertEqual(process.returncode, 5, process.stderr)
        line, nearest = process.stderr.splitlines()[2:]
        self.assertEqual(line, "no test matches -k 2:4: nothing was validated")
        self.assertRegex(nearest, r"^nearest: .*\bTestWeightNormSparsifier\.test_step_2_of_4\b")

    def test_name_and_filter_that_leave_nothing_end_with_status_5(self):
        """A name with a filter: nothing is validated where the filter leaves none of its tests."""
        process = self.processes["a name and no filter"]
        self.assertEqual(process.returncode, 5, process.stderr)
        self.assertEqual(process.stderr.splitlines()[2:], [f"no test of {QUICK} matches -k xyzzy: nothing was validated"])

    def test_filter_for_classes_by_device_finds_the_tests(self):
        """PyTorch's own tests have classes by device, ``TestFPGMPrunerDeviceCPU``: a filter, or a name, written for them finds the tests.

        With ``-v`` there is a line for each of them, its name and outcome.
        """
        process = self.processes["by device"]
        self.assertEqual((process.returncode, counts(process)[0]), (0, 6), process.stderr)
        self.assertRegex(process.stderr, r"(?m)^test_masking_logic\w* .*\.\.\. ok$")
        process = self.processes["a name by device"]
        self.assertEqual((process.returncode, counts(process)), (0, (1, "OK")), process.stderr)

    def test_name_of_no_test_is_an_error(self):
        """``Class.test`` of a test that does not exist is no success."""
        self.assertNotEqual(self.processes["no name"].returncode, 0)

    def test_one_test_by_name_runs_again(self):
        """``Class.test`` runs exactly that test, and ``--repeat N`` does so N times, each with its summary."""
        process = self.processes["again"]
        self.assertEqual((process.returncode, process.stderr.count("Ran 1 test in")), (0, 2), process.stderr)
        self.assertEqual((process.stderr.count("Ran "), counts(process)), (2, (1, "OK")), process.stderr)

    def test_continuous_integration_gets_xml(self):
        """Where CI is set, torch's runner writes JUnit XML below the folder test-reports, unasked."""
        if importlib.util.find_spec("xmlrunner") is None:
            self.skipTest("JUnit XML (xmlrunner not installed)")
        process = self.processes["continuous integration"]
        self.assertEqual((process.returncode, counts(process)), (0, (1, "OK")), process.stderr)
        self.assertTrue(self.reports, process.stderr)

    def test_subprocess_of_the_suite_survives_a_crash(self):
        """``--subprocess -k`` on the suite itself: a process for each test that is left, and a crash costs one test."""
        if build.TORCH_VERSION < (2, 11):
            self.skipTest("a test after one that failed, each in its process (torch's runner ends at the first before torch 2.11)")
        crash = """
import os, unittest
run = unittest.TestCase.run
unittest.TestCase.run = lambda test, result=None: os.abort() if test.id().endswith("_flat") else run(test, result)
"""
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "sitecustomize.py").write_text(crash, encoding="utf-8")
            words = ("-k", "refuses_another_shape_flat", "-k", "refuses_another_shape_scalar")
            process = runner("--subprocess", *words, PYTHONPATH=folder, TMPDIR=folder)  # what crashes leaves its own folder there
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual((process.stderr.count("Ran 1 test in"), process.stderr.count("\nOK\n")), (1, 1), process.stderr)
        self.assertIn(f"1 unit test(s) failed:\n\t{TEST}_refuses_another_shape_flat", process.stderr)

    def test_parallel_runs_share_what_is_asked_for(self):
        """``--run-parallel N -k``: no more processes than tests, and each of the tests in one of them."""
        process = self.processes["parallel"]
        ran = process.stderr.count("Ran 1 test in"), process.stderr.count("Ran ")
        self.assertEqual((process.returncode, *ran), (0, 2, 2), process.stderr)

    def test_processes_get_what_is_asked_for(self):
        """``--subprocess``, ``--run-parallel``: the tests of ``-k`` or of names, however often torch loads them; a name of none ends it."""
        flat, nothing = f"{TEST}_refuses_another_shape_flat", "nothing was validated\n5"
        by_device = f"has the hardware classification GENERIC: {nothing}"
        cases = {
            "all -v -k shape_flat": f"__main__.{flat} -v twice",
            f"all {TEST}": f"__main__.{TEST} twice",
            f"all {TEST} NoSuch.test": f"no test is called NoSuch.test: {nothing}",
            f"ACCELERATOR {TEST}": f"__main__.{TEST} -- twice",
            f"GENERIC {TEST}": f"no test of {TEST} {by_device}",
            "GENERIC -k shape_flat": f"no test of -k shape_flat {by_device}",
        }
        process = run("-c", LOADED_TWICE, *cases)
        said = [line for line in process.stderr.splitlines() if "INFO" not in line]
        self.assertEqual(said, "\n".join(cases.values()).splitlines(), process.stderr)

    def test_discover_prints_names(self):
        """``--discover-tests``: the names, and nothing is run."""
        process = self.processes["discover"]
        self.assertIn(TEST, process.stdout)
        self.assertNotIn("Ran", process.stderr)

    def test_failure_shows_locals_and_stops(self):
        """``--showlocals`` and ``-f``: the values at the failure, and nothing after it."""
        process = self.processes["failure"]
        if build.TORCH_VERSION < (2, 9) and "unrecognized arguments: --showlocals" in process.stderr:
            self.skipTest("local variables at a failure (torch's runner of this release has no --showlocals)")
        self.assertEqual(process.returncode, 1)
        self.assertIn("telling_name = 41", process.stderr)
        self.assertEqual(counts(process)[0], 1)

    def test_disabled_tests_are_skipped_by_name(self):
        """``--import-disabled-tests FILE``: a test in the file is skipped with its address, the others run."""
        process = self.processes["disabled"]
        self.assertEqual(process.returncode, 0, process.stderr)
        self.assertIn("https://example.org/1", process.stderr)
        self.assertEqual(counts(process), (2, "OK (skipped=1)"))


class TestNothingToValidate(unittest.TestCase):
    """No torch, an old one, or one without the packages: one line, exit status 3, no traceback."""

    slow = 3

    def refusal(self, *options, files=None, **environment):
        """The only line of a run in which the fake packages ``files`` come first on the path."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (files or {}).items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            process = run(*options, PYTHONPATH=folder, **environment)
        self.assertEqual(process.returncode, 3, process.stdout + process.stderr)
        self.assertNotIn("Traceback", process.stdout + process.stderr)
        lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, lines)
        return lines[0]

    def test_no_torch(self):
        """Without torch (an interpreter that sees no packages) the line says how to install it."""
        self.assertIn("torch is not installed: install the build to validate", self.refusal("-I", "-S", "test_ao_sparsity.py"))

    def test_old_python(self):
        """Older than 3.10: said with both versions, whichever part of the project is started, before anything that it cannot read."""
        old = "import sys; sys.version_info, sys.version = (3, 9, 18, 'final', 0), '3.9.18 (main)'; import "
        for part, status in (("test_ao_sparsity", 3), ("ao.sparsity.testing.tried", 3), ("nightly.cli", 3), ("audit.project", 2)):
            with self.subTest(part=part):
                process = run("-c", old + part)
                self.assertEqual((process.returncode, process.stdout), (status, ""), process.stderr)
                self.assertRegex(process.stderr, r"^(\w+: )?Python 3\.9\.18 is too old: [\w ]+ needs Python 3\.10 or newer\n\Z")

    def test_torch_and_numpy_that_do_not_fit(self):
        """A torch that cannot exchange arrays with NumPy: both are named, and what NumPy says in many lines is not printed."""
        fake = """
import sys, types
__version__ = "2.2.2"
print("A module that was compiled using NumPy 1.x cannot be run\\nin NumPy 2\\n" * 9, file=sys.stderr)
def from_numpy(array):
    raise RuntimeError("Numpy is not available")
"""
        line = self.refusal("test_ao_sparsity.py", files={"torch/__init__.py": fake, "torch/ao/__init__.py": "", "torch/ao/pruning.py": ""})
        self.assertRegex(
            line, r"^torch 2\.2\.2 cannot exchange arrays with numpy \S+ \(RuntimeError: Numpy is not available\): pip install "
        )

    def test_no_folder_for_temporary_files(self):
        """Where nothing can be written, the line says what to set."""
        fake = """
import tempfile
def gettempdir():
    raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir = gettempdir
"""
        line = self.refusal("test_ao_sparsity.py", files={"sitecustomize.py": fake})
        self.assertRegex(
            line, r"^no folder for temporary files can be written to \(FileNotFoundError: .*\): set TMPDIR to one, then run again$"
        )

    def test_unknown_processor(self):
        """A torch that cannot tell what the processor is cannot quantize; the line says what it needs to find out."""
        fake = """
__version__ = "2.13.0"
class Number:
    def numpy(self): pass
    def half(self): raise RuntimeError("Failed to initialize cpuinfo!")
def from_numpy(array): return Number()
def zeros(size): return Number()
"""
        line = self.refusal("test_ao_sparsity.py", files={"torch/__init__.py": fake, "torch/ao/__init__.py": "", "torch/ao/pruning.py": ""})
        self.assertEqual(
            line,
            "torch cannot tell what the processor is (RuntimeError: Failed to initialize cpuinfo!): on Linux mount /proc, then run again",
        )

    def test_test_tools_that_lack_a_package(self):
        """What torch's test tools import may lack a package, setuptools in newer releases: it is named."""
        missing = "raise ModuleNotFoundError(\"No module named 'setuptools'\", name='setuptools')"
        line = self.refusal("test_ao_sparsity.py", files={"expecttest/__init__.py": missing})  # every release imports it
        self.assertEqual(line, "torch's test tools need setuptools, which is not installed: pip install setuptools, then run again")

    def test_broken_torch(self):
        """A torch that cannot be imported is named with its error."""
        line = self.refusal("test_ao_sparsity.py", files={"torch/__init__.py": "raise ImportError('libcudart.so.12: not found')"})
        self.assertIn("torch cannot be imported (ImportError: libcudart.so.12: not found)", line)

    def test_old_torch(self):
        """Older than 2.1: said with both versions; every entry point asks."""
        files = {"torch/__init__.py": "__version__ = '2.0.1+cu117'"}
        for entry in (
            ["test_ao_sparsity.py"],
            ["-m", "unittest", "ao.sparsity.test_scheduler"],
            ["-m", "ao.sparsity.testing.known_defects"],
        ):
            with self.subTest(entry=entry):
                self.assertIn("torch 2.0.1+cu117 is too old: this suite validates torch 2.1 or newer", self.refusal(*entry, files=files))

    def test_every_file_of_tests_asks_first(self):
        """``python -m unittest ao.sparsity.test_x``: without torch each of these ends with the line and status 3."""
        start = "import sys, unittest; sys.path.insert(0, '.'); unittest.main(None, argv=['unittest', sys.argv[1]])"
        for path in sorted((ROOT / "ao/sparsity").glob("test_*.py")):
            with self.subTest(file=path.name):
                self.assertIn("torch is not installed", self.refusal("-I", "-S", "-c", start, f"ao.sparsity.{path.stem}"))

    def test_old_torch_under_pytest(self):
        """pytest ends with the same line and the same status."""
        if importlib.util.find_spec("pytest") is None:
            self.skipTest("pytest's entry (pytest not installed)")
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "torch"))
            pathlib.Path(folder, "torch", "__init__.py").write_text("__version__ = '2.0.1'", encoding="utf-8")
            process = run("-m", "pytest", "-q", "ao/sparsity", PYTHONPATH=folder)
        self.assertEqual(process.returncode, 3, process.stdout + process.stderr)
        self.assertIn("torch 2.0.1 is too old", process.stdout + process.stderr)
        self.assertNotIn("Traceback", process.stdout + process.stderr)

    def test_torch_without_pruning(self):
        """No torch.ao.pruning: there is nothing to validate, and the line says so."""
        for files in (
            {"torch/__init__.py": "__version__ = '2.20.0'"},
            {"torch/__init__.py": "__version__ = '2.20.0'", "torch/ao/__init__.py": ""},
        ):
            self.assertIn("torch 2.20.0 has no torch.ao.pruning", self.refusal("test_ao_sparsity.py", files=files))


class TestOtherWaysToStart(unittest.TestCase):
    """Options of Python, files that are no program, and programs that find tests by themselves."""

    slow = 15

    def test_isolated_python_finds_the_suite(self):
        """``python -I`` and PYTHONSAFEPATH leave the script's folder out of the path; the runner puts it back."""
        for options, environment in ((["-I"], {}), ([], {"PYTHONSAFEPATH": "1"})):
            with self.subTest(options=options, **environment):
                looking = "import importlib.util as util; raise SystemExit(not all(map(util.find_spec, ('torch', 'expecttest'))))"
                if run(*options, "-c", looking, **environment).returncode:
                    self.skipTest(f"python {' '.join(options)} (torch is not among this interpreter's own packages)")
                process = run(*options, "test_ao_sparsity.py", TEST, **environment)
                self.assertEqual((process.returncode, counts(process)), (0, (1, "OK")), process.stderr)

    def test_profiler_runs_the_tests(self):
        """``python -m cProfile test_ao_sparsity.py``: the tests are run, though before Python 3.12 the module __main__ is the profiler."""
        with tempfile.TemporaryDirectory() as folder:
            checkout = os.path.join(folder, "checkout")
            os.symlink(ROOT, checkout)  # also where the project is reached by another path
            process = run("-m", "cProfile", "-o", os.path.join(folder, "profile"), os.path.join(checkout, "test_ao_sparsity.py"), TEST)
            self.assertEqual((process.returncode, counts(process)), (0, (1, "OK")), process.stderr)
            self.assertGreater(os.path.getsize(os.path.join(folder, "profile")), 0)

    def test_a_file_of_tests_says_how_it_is_run(self):
        """A file of tests that is started as a script, or as a module, would run nothing: one line, a status that is not 0."""
        for command in (["ao/sparsity/test_scheduler.py"], ["-m", "ao.sparsity.test_kernels"]):
            with self.subTest(command=command):
                process = run(*command)
                self.assertEqual((process.returncode, process.stdout), (1, ""), process.stderr)
                line = "A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME"
                self.assertEqual(process.stderr.splitlines(), [line])

    def test_discovery_runs_each_test_once_and_lives_on(self):
        """``python -m unittest discover`` from the root, with a filter that matches one test, or none.

        The one is found where the requirements alone are installed: every file of tests is imported without the optional packages.
        """
        without = "from ao.sparsity.testing import play; play.play_without({}); import unittest; unittest.main(None, argv={})"
        discover = ["discover", "-v", "-k", f"{TEST}_refuses_another_shape_flat"]
        for command, number in (
            (["-c", without.format(OPTIONAL, ["python -m unittest", *discover])], 1),
            (["-m", "unittest", *discover[:-1], "nothing_matches"], 0),
        ):
            with self.subTest(command=command):
                process = run(*command)
                if number:  # from Python 3.12 on unittest's status is another where no test is run
                    self.assertEqual(process.returncode, 0, process.stderr)
                self.assertNotIn("Traceback", process.stderr)
                self.assertNotIn("nothing was validated", process.stderr)
                # A file that lacks an optional package is a skipped test of its own, whatever the filter.
                self.assertEqual(counts(process)[0] - process.stderr.count("unittest.loader.ModuleSkipped"), number, process.stderr)
                self.assertEqual(process.stderr.count("... ok"), number, process.stderr)

    def test_pytest_runs_each_test_once(self):
        """pytest that is given the runner and a file whose classes it imports."""
        if importlib.util.find_spec("pytest") is None:
            self.skipTest("tests under pytest (pytest not installed)")
        paths = ["test_ao_sparsity.py", "ao/sparsity/test_parametrization.py"]
        process = run("-m", "pytest", "-q", "-k", "TestFakeSparsity and test_weights_parametrized", *paths)
        self.assertRegex(process.stdout, r"(?m)^1 passed\b", process.stdout + process.stderr)


class TestForeignPrograms(unittest.TestCase):
    """What programs that load tests by themselves get from the root runner."""

    slow = 7

    def test_runner_gives_nothing_to_who_finds_the_files(self):
        """The pattern is handed on, as unittest does, or stands in the caller's method discover; who asks for the runner gets it all."""
        tests, loader = unittest.TestSuite([unittest.FunctionTestCase(print)]), unittest.TestLoader()

        def discover(file_pattern):
            return session.load_tests(loader, tests, None)

        for what, found, number in (
            ("unittest, all files", session.load_tests(loader, tests, "test*.py"), 0),
            ("unittest, the runner", session.load_tests(loader, tests, "test_ao*.py"), 1),
            ("green, all files", discover("test*.py"), 0),
            ("green, the runner", discover("test_ao*.py"), 1),
            ("by name", session.load_tests(loader, tests, None), 1),
        ):
            with self.subTest(what=what):
                self.assertEqual(found.countTestCases(), number)

    def test_green_finds_each_test_once(self):
        """green from the root: no test twice, and of the suite those that the runner has."""
        if importlib.util.find_spec("green") is None:
            self.skipTest("tests under green (green not installed)")
        program = """
from green.loader import GreenTestLoader, flattenTestSuite
found, runner = ([test.id() for test in flattenTestSuite(GreenTestLoader().loadTargets(name))] for name in (".", "test_ao_sparsity"))
print(len(found) - len(set(found)), len(set(runner) - set(found)), len(runner) > 88)
"""
        process = run("-c", program)
        self.assertEqual(process.stdout, "0 0 True\n", process.stderr)

    def test_stestr_finds_each_test_once(self):
        """stestr from the root: no test twice, and of one class those that it has."""
        try:
            importlib.import_module("stestr.cli")
        except ImportError as error:
            self.skipTest(f"tests under stestr ({error})")
        stestr = ("-m", "stestr.cli", "--top-dir", str(ROOT), "--test-path", str(ROOT))
        with tempfile.TemporaryDirectory() as folder:
            run(*stestr, "init", cwd=folder)
            process = run(*stestr, "list", cwd=folder)
        self.assertEqual(process.returncode, 0, process.stderr)
        found = process.stdout.split()
        self.assertEqual(len(found), len(set(found)), process.stderr)
        module = "ao.sparsity.test_parametrization"
        expected = unittest.defaultTestLoader.getTestCaseNames(getattr(importlib.import_module(module), QUICK))
        self.assertEqual(sorted(name.rsplit(".", 1)[1] for name in found if name.startswith(f"{module}.{QUICK}.")), expected)


class TestWithoutOptionalPackages(unittest.TestCase):
    """What an option of torch's runner needs and is not there: one line, no traceback."""

    slow = 4

    def setUp(self):
        present = preflight._has
        patch = mock.patch.object(preflight, "_has", lambda module: module != "xmlrunner" and present(module))
        patch.start()
        self.addCleanup(patch.stop)

    def test_option_names_its_package(self):
        """``--save-xml`` says what to install."""
        for arguments in (["--save-xml"], ["-v", "--save-xml=reports"]):
            with self.subTest(arguments=arguments), mock.patch.object(sys, "argv", ["test_ao_sparsity.py", *arguments]):
                line = "--save-xml needs unittest-xml-reporting, which is not installed: pip install unittest-xml-reporting, or leave"
                self.assertEqual(preflight.problem(), f"{line} the option out")
        with mock.patch.object(sys, "argv", ["test_ao_sparsity.py", "-v", "-k", "save"]):
            self.assertIsNone(preflight.problem())

    def test_rerun_of_disabled_tests_needs_a_list(self):
        """``--rerun-disabled-tests`` would skip every test, and be green, where no test is disabled."""
        with mock.patch.object(sys, "argv", ["test_ao_sparsity.py", "--rerun-disabled-tests"]):
            self.assertRegex(
                preflight.problem(), "^--rerun-disabled-tests skips all tests but those of a list: add --import-disabled-tests"
            )
        with mock.patch.object(sys, "argv", ["test_ao_sparsity.py", "--rerun-disabled-tests", "--import-disabled-tests=x"]):
            self.assertIsNone(preflight.problem())

    def test_option_that_needs_the_folder_of_pytorch(self):
        """``--use-pytest`` of torch's runner is for a plugin in PyTorch's own folder of tests: the line says what does the same here."""
        with mock.patch.object(sys, "argv", ["test_ao_sparsity.py", "--use-pytest"]):
            self.assertIn("python -m pytest ao/sparsity", preflight.problem())

    def test_continuous_integration_goes_on_without_xml(self):
        """Where CI is set the run goes on, one line says that there is no XML, and torch's runner is not told of CI."""
        process = run("-m", "ao.sparsity.testing.play", "--without", "xmlrunner", "--", TEST, CI="true")
        self.assertEqual((process.returncode, counts(process)), (0, (1, "OK")), process.stderr)
        line = "CI is set, but no JUnit XML is written: unittest-xml-reporting is not installed"
        self.assertEqual(process.stderr.splitlines()[0], line)

    def test_packages_that_cannot_be_imported_are_as_good_as_missing(self):
        """Optional packages that are installed and broken are told, and what needs them is skipped; the build is not blamed for them."""
        asked = ("-k", "TestPostTrainingDataSparsity", "-k", TEST)
        process = run("-m", "ao.sparsity.testing.play", "--broken", ",".join(EXTRAS), "--", *asked, CI="true")
        self.assertEqual(process.returncode, 0, process.stderr)
        fault = "ImportError: xmlrunner was built for another release"
        line = f"CI is set, but no JUnit XML is written: unittest-xml-reporting cannot be imported ({fault})"
        self.assertEqual(process.stderr.splitlines()[0], line)
        reason = r"skipped: \d+ callbacks of pytorch-lightning \(cannot be imported: ImportError: pytorch_lightning was built for another"
        self.assertRegex(process.stderr.splitlines()[-1], reason)


if __name__ == "__main__":
    unittest.main()

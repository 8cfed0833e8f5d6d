"""Tests of the base case: what a test leaves behind is found, named and put back; failures say how to repeat them."""

import contextlib
import io
import logging
import os
import pathlib
import random
import runpy
import sys
import tempfile
import unittest
import warnings
from unittest import mock

from ao.sparsity.testing import build, guards, session  # first: torch's test tools are to find what it has set
from ao.sparsity.testing.base import TestCase, on_every_device
from ao.sparsity.testing.guards import GUARDS

import expecttest
import numpy as np
import torch
from torch import nn
from torch.ao.nn.sparse.quantized.utils import LinearBlockSparsePattern
from torch.nn.modules import module as nn_module
from torch.testing._internal import common_utils
from torch.testing._internal.common_utils import instantiate_parametrized_tests

SHARED_MODEL = nn.Linear(2, 2)


def run_case(case):
    """Run one test case and return its result; the run's closing line says nothing of it."""
    result = unittest.TestResult()
    with mock.patch.dict(session._skips):
        case.run(result)
    return result


def case_of(body, name="test_subject"):
    """A base case whose only test is ``body(self)``."""
    return type("TestSubject", (TestCase,), {name: body, "__module__": __name__})(name)


def _change_engine(case):
    others = [name for name in build.engines() if name != torch.backends.quantized.engine]
    if not others:
        case.skipTest("change of engine (fewer than two quantized engines)")
    torch.backends.quantized.engine = others[0]


def _register_global_hook(case):
    nn_module.register_module_forward_hook(lambda module, args, output: None)


LEAKS = {
    "quantized engine": _change_engine,
    "default dtype": lambda case: torch.set_default_dtype(torch.float64),
    "number of threads": lambda case: torch.set_num_threads(torch.get_num_threads() + 1),
    "LinearBlockSparsePattern": lambda case: setattr(LinearBlockSparsePattern, "row_block_size", 8),
    "LinearBlockSparsePattern's lock is held": lambda case: LinearBlockSparsePattern.rlock.acquire(),
    "warnings filters": lambda case: warnings.simplefilter("ignore"),
    "gradient mode": lambda case: torch.set_grad_enabled(False),
    "global module hooks": _register_global_hook,
    "environment variables": lambda case: os.environ.__setitem__("AO_SPARSITY_LEAK", "1"),
    "working directory": lambda case: os.chdir(".."),
    "sys.path": lambda case: __import__("sys").path.append("/nowhere"),
    "root logger": lambda case: logging.getLogger().addHandler(logging.NullHandler()),
    "hooks on the shared model": lambda case: SHARED_MODEL.register_forward_hook(lambda module, args, output: None),
}


class TestGuards(unittest.TestCase):
    """Every guard fires, says what it found, and restores it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        inner = os.path.join(folder.name, "inner")
        os.mkdir(inner)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(inner)

    def test_compiled_code_is_of_this_run(self):
        """guards: what torch compiles is kept in a folder that ends with this process, whatever the environment says."""
        folder = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        self.assertEqual(folder.parent, pathlib.Path(guards.private_folder()).parent)

    def test_each_leak_fails_its_test_by_name_and_is_undone(self):
        """Base case: a test that leaks fails, by name, and the state is restored for its neighbours."""
        for name, leak in LEAKS.items():
            with self.subTest(leak=name):
                before = [guard.read() for guard in GUARDS]
                result = run_case(case_of(leak))
                if result.skipped:
                    self.skipTest(result.skipped[0][1])
                problems = result.failures + result.errors
                self.assertEqual(len(problems), 1, problems)
                self.assertIn("TestSubject.test_subject leaves behind", problems[0][1])
                self.assertIn(name, problems[0][1])
                self.assertEqual([guard.read() for guard in GUARDS], before)
                self.assertEqual(len(SHARED_MODEL._forward_hooks), 0)

    def test_a_file_left_behind_fails_its_test(self):
        """Base case: a file that a test leaves in its working directory is a leak, and is removed."""

        def leak(case):
            with open("left.txt", "w", encoding="utf-8") as file:
                file.write("x")

        result = run_case(case_of(leak))
        self.assertIn("files in the working directory: added ['left.txt']", result.failures[0][1])
        self.assertEqual(os.listdir(guards.private_folder()), [])
        self.assertTrue(run_case(case_of(lambda case: None)).wasSuccessful())

    def test_words_on_standard_output_fail_their_test(self):
        """Base case: what PyTorch prints, a test reads; what nobody reads fails the test, and is printed all the same."""

        def prints(case):
            with contextlib.redirect_stdout(io.StringIO()) as read:
                print("a reader has this")
            case.assertEqual(read.getvalue(), "a reader has this\n")
            print("left over")

        def replaces(case):
            sys.stdout = io.StringIO()

        for body, found in ((prints, r"words on standard output: 'left over\\n'"), (replaces, "another sys.stdout: <_io.StringIO")):
            with self.subTest(body=body.__name__), contextlib.redirect_stdout(io.StringIO()) as printed:
                ((_, text),) = run_case(case_of(body)).failures
                self.assertRegex(text, f"TestSubject.test_subject leaves behind: {found}")
                self.assertIs(sys.stdout, printed)
                self.assertEqual(printed.getvalue(), "left over\n" if body is prints else "")

    def test_a_test_runs_where_there_is_no_standard_output(self):
        """Base case: sys.stdout is None in a program without a console; print says nothing there."""
        with contextlib.redirect_stdout(None):
            self.assertTrue(run_case(case_of(lambda case: None)).wasSuccessful())

    def test_files_of_others_are_not_blamed_on_a_test(self):
        """Base case: a test runs in a folder of its own; what appears where the run was started is somebody else's."""
        started = os.getcwd()

        def someone_writes(case):
            case.assertEqual(os.getcwd(), os.path.realpath(guards.private_folder()))
            with open(os.path.join(started, "foreign.txt"), "w", encoding="utf-8") as file:
                file.write("x")

        result = run_case(case_of(someone_writes))
        self.assertTrue(result.wasSuccessful(), result.failures + result.errors)
        self.assertEqual(os.getcwd(), started)

    def test_a_warning_is_no_error(self):
        """Base case: under ``python -W error`` a warning in a test is a warning; the filters of the run are as they were."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "mind the step")
            warnings.simplefilter("error")
            before = list(warnings.filters)
            result = run_case(case_of(lambda case: warnings.warn("mind the step")))
            self.assertEqual(list(warnings.filters), before)
        self.assertTrue(result.wasSuccessful(), result.failures + result.errors)

    def test_a_first_import_may_change_filters_and_threads(self):
        """Base case: what a module does when it is imported for the first time is not the test's doing; the filters are put back."""
        pathlib.Path("adds_a_filter.py").write_text("import warnings\nwarnings.simplefilter('error', ImportWarning)\n", encoding="utf-8")

        def import_it(case):
            with mock.patch.object(sys, "path", [folder, *sys.path]):
                import adds_a_filter  # noqa: F401

        folder, before = os.getcwd(), list(warnings.filters)
        self.addCleanup(sys.modules.pop, "adds_a_filter", None)
        result = run_case(case_of(import_it))
        self.assertTrue(result.wasSuccessful(), result.failures + result.errors)
        self.assertEqual(warnings.filters, before)

    def test_every_guard_is_tested(self):
        """This file: a guard without a leak that sets it off might never fire."""
        untested = {guard.name for guard in GUARDS} - set(LEAKS)
        self.assertEqual(untested, {"files in the working directory", "running threads"})

    def test_random_state_is_seeded_before_and_put_back_after(self):
        """Base case: drawing numbers neither depends on the neighbours nor reaches them."""
        drawn = []

        def draw(case):
            drawn.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))

        torch.manual_seed(7)
        before, numpys, pythons = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
        for _ in range(2):
            self.assertTrue(run_case(case_of(draw)).wasSuccessful())
        self.assertTrue(torch.equal(torch.get_rng_state(), before))
        self.assertEqual((str(np.random.get_state()), random.getstate()), (numpys, pythons))
        self.assertEqual(drawn[0], drawn[1])

    def test_a_clean_test_passes(self):
        """Base case: the guards are silent when nothing is left behind."""

        def clean(case):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()

        result = run_case(case_of(clean))
        self.assertTrue(result.wasSuccessful(), result.failures + result.errors)


class TestFailures(unittest.TestCase):
    """What a person sees of a failure and of a skip."""

    def test_failure_ends_with_a_command_that_repeats_it(self):
        """Base case: the command works from the project's root; torch's own hint is not printed."""

        def fail(case):
            case.assertEqual(torch.ones(1), torch.zeros(1))

        def fail_in_cases(case):
            for size in (1, 2):
                with case.subTest(size=size):
                    case.assertEqual(size, 0)

        def error(case):
            raise KeyError("x")

        for body, count in ((fail, 1), (fail_in_cases, 2), (error, 1)):
            with self.subTest(body=body.__name__):
                problems = run_case(case_of(body)).failures + run_case(case_of(body)).errors
                self.assertEqual(len(problems), count, problems)
                for _, text in problems:
                    self.assertEqual(text.count("python test_ao_sparsity.py TestSubject.test_subject"), 1, text)
                    self.assertNotIn("To execute this test", text)

    def test_failure_names_its_contract_below_its_name(self):
        """Base case: the docstring's first line stands in the failure's text, and not between the name and the dashes."""

        def fail(case):
            """Paper: one is two.

            More of it.
            """
            case.assertEqual(1, 2)

        case = case_of(fail)
        self.assertIsNone(case.shortDescription())
        ((_, text),) = run_case(case).failures
        self.assertEqual(text.count("Contract: Paper: one is two.\n"), 0 if sys.flags.optimize >= 2 else 1, text)

    def test_cases_that_pass_are_told_to_nobody(self):
        """subTest: other programs count what is told; a case that fails is, one that passes is not."""
        told = []

        class Result(unittest.TestResult):
            def addSubTest(self, test, subtest, error):
                told.append((subtest.params["size"], error is None))

        def cases(case):
            for size in (1, 2):
                with case.subTest(size=size):
                    case.assertEqual(size, 1)

        result = Result()
        case_of(cases).run(result)
        self.assertEqual(told, [(2, False)])
        self.assertNotIn("addSubTest", vars(result))

    def test_hardware_is_classified_where_torch_asks_for_it(self):
        """hw_classification: ACCELERATOR for a class with a test by device, GENERIC for every other, nothing on a torch without."""

        def classes():
            plain = type("TestPlain", (TestCase,), {"test_a": lambda self: None})
            by_device = type("TestByDevice", (TestCase,), {"test_a": on_every_device(lambda self, device: None)})
            return [getattr(case, "hw_classification", None) for case in (plain, by_device, type("TestHeir", (by_device,), {}))]

        kinds = mock.Mock(GENERIC="generic", ACCELERATOR="accelerator")
        with mock.patch.object(common_utils, "HardwareClassification", kinds, create=True):
            self.assertEqual(classes(), ["generic", "accelerator", "accelerator"])
        if not hasattr(common_utils, "HardwareClassification"):
            self.assertEqual(classes(), [None] * 3)

    def test_tensors_without_values_equal_none_that_have_some(self):
        """assertEqual: a tensor on meta has no values to compare, so it equals no tensor elsewhere; two on meta compare by shape."""
        case = TestCase()
        for x, y in ((torch.ones(2, device="meta"), torch.ones(2)), ([1.0], torch.ones(1, device="meta"))):
            with self.assertRaisesRegex(AssertionError, "has no values"):
                case.assertEqual(x, y)
        case.assertEqual(torch.ones(2, device="meta"), torch.zeros(2, device="meta"))
        with self.assertRaises(AssertionError):
            case.assertEqual(torch.ones(2, device="meta"), torch.zeros(3, device="meta"))

    def test_nothing_accepts_what_the_build_does(self):
        """assertExpectedInline compares whatever EXPECTTEST_ACCEPT and --accept say, and its failure does not offer them."""
        wanted = [mock.patch.dict(os.environ, EXPECTTEST_ACCEPT="1"), mock.patch.object(expecttest, "ACCEPT", True)]
        for accepting in wanted:
            with accepting, tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, "accepting.py")
                path.write_text('def body(case):\n    case.assertExpectedInline("found", """right""")\n', encoding="utf-8")
                body = runpy.run_path(str(path))["body"]
                result = run_case(case_of(body))
                self.assertEqual(len(result.failures), 1)
                self.assertNotIn("ACCEPT", result.failures[0][1])
                self.assertIn('"""right"""', path.read_text(encoding="utf-8"))

    def test_skips_are_grouped_in_the_closing_line(self):
        """Session: ``skipped: N what (why)``, the most frequent first, a repeated test counted once."""
        with mock.patch.dict(session._skips, clear=True):
            for name in ("test_a", "test_b", "test_a"):
                case_of(lambda case: case.skip_unless_device("abacus"), name).run(unittest.TestResult())
            case_of(lambda case: case.skip_unless_engine("abacus", "dynamic kernels")).run(unittest.TestResult())
            self.assertEqual(session.closing_lines()[-1], "skipped: 2 on abacus (no such device), 1 dynamic kernels (no abacus)")

    def test_compiled_tests_are_announced(self):
        """Session: where the environment asks torch to compile every test, the announcement says so, and nowhere else."""
        for asked, lines in ((False, 2), (True, 3)):
            with (
                self.subTest(asked=asked),
                mock.patch.object(session, "_announced", False),
                mock.patch.object(common_utils, "TEST_WITH_TORCHDYNAMO", asked, create=True),
                self.assertLogs("ao.sparsity", "INFO") as caught,
            ):
                session.announce()
                session.announce()
                self.assertEqual(len(caught.output), lines, caught.output)
                self.assertEqual("PYTORCH_TEST_WITH_DYNAMO" in caught.output[-1], asked)

    def test_refusals_by_assert_are_skipped_where_there_are_none(self):
        """assertRaises, assertRaisesRegex: what ``python -O`` removes from a torch that asserts is no failure; all else is asked."""

        def check(case):
            for expected in (AssertionError, (ValueError, AssertionError), ValueError):
                with case.subTest(expected=expected):
                    case.assertRaises(expected, int)
                with case.subTest(expected=expected), case.assertRaisesRegex(expected, "a text"):
                    str(case)

        for removed, failed, skipped in ((False, 6, 0), (True, 2, 4)):
            with self.subTest(removed=removed), mock.patch.object(build, "NO_ASSERTS", removed):
                result = run_case(case_of(check))
                self.assertEqual((len(result.failures), len(result.skipped), result.errors), (failed, skipped, []))

    def test_on_every_device_runs_once_per_device(self):
        """Base case: one parameter names the devices; those of this machine run, the others are skipped by name."""
        seen = []

        class TestSubject(TestCase):
            @on_every_device
            def test_subject(self, device):
                seen.append(device)

        instantiate_parametrized_tests(TestSubject)
        names = unittest.TestLoader().getTestCaseNames(TestSubject)
        self.assertEqual(sorted(names), ["test_subject_device_accelerator", "test_subject_device_cpu"])
        results = [run_case(TestSubject(name)) for name in names]
        self.assertEqual(sorted(seen), sorted(build.devices()))
        skipped = [reason for result in results for _, reason in result.skipped]
        self.assertEqual(skipped, [] if len(build.devices()) == 2 else ["on an accelerator (none here)"])


if __name__ == "__main__":
    unittest.main()

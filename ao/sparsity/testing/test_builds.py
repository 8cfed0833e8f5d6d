"""The suite on builds that are played: subsets of the quantized engines, and ARM64."""

import os
import re
import subprocess
import sys
import unittest
import unittest.mock
import warnings

from ao.sparsity.testing import build
from ao.sparsity.testing.child import run_in_child
from ao.sparsity.testing.play import ROOT, play, play_engines, subsets

import torch

ENGINE_DEPENDENT = (
    "TestQuantizedSparseKernels",
    "TestQuantizedSparseLayers",
    "TestQlinearPackedParams",
    "TestComposability",
    "TestFxComposability",
    "TestQuantizationUtils",
)
NEED_AN_ENGINE = ENGINE_DEPENDENT[:-1]  # the quantized embeddings need none
# Of composability one order of preparation, and convolutions: the other orders ask for an engine in the same way.
FILTERS = (
    *(name for name in ENGINE_DEPENDENT if "Composability" not in name),
    "*Composability.test_s_prep*",
    "*Composability.test_*_conv",
)
ONLY_ENGINE_DEPENDENT = [word for pattern in FILTERS for word in ("-k", pattern)]


def skips(output):
    """The closing line of skips as ``{reason: number}``."""
    line = re.search(r"^skipped: (.*)$", output, re.MULTILINE)
    return {reason: int(number) for number, reason in re.findall(r"(\d+) ([^()]+ \([^()]*\))", line.group(1))} if line else {}


def answers(names):
    """In a child: what a build played with the engines ``names`` says of itself and answers to a question for an engine it lacks."""
    play_engines(names)
    lacking = next(name for name in build.SPARSE_ENGINES if name not in names)
    said = [build.engines(), torch.backends.quantized.engine]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        weight = torch.quantize_per_tensor(torch.ones(4, 4), 1.0, 0, torch.qint8)
    for question in (
        lambda: setattr(torch.backends.quantized, "engine", lacking),
        lambda: torch.ops.sparse.qlinear_prepack(weight, None, 1, 4),
        lambda: torch.ops.quantized.linear_prepack(weight, None),
    ):
        try:
            said.append(type(question()).__name__)
        except RuntimeError as error:
            said.append(str(error).splitlines()[0])
    return said


UNPLAYABLE = """
from ao.sparsity.testing.play import run_in_fork

try:
    end = run_in_fork([], lambda: 1 / 0)
except ZeroDivisionError:
    raise SystemExit("the fork goes on as its parent")
print(end.returncode, end.stderr.splitlines()[-1])
"""


class TestPlayedEngines(unittest.TestCase):
    """An engine that is taken away is missing everywhere, and what is left answers as before."""

    @unittest.skipUnless(hasattr(os, "fork"), "a build that cannot be played in a fork (no fork)")
    def test_a_fork_that_cannot_be_prepared_ends(self):
        """run_in_fork: where ``prepare`` raises, the fork ends with status 1 and says why; it does not go on as its parent."""
        process = subprocess.run([sys.executable, "-c", UNPLAYABLE], cwd=ROOT, capture_output=True, text=True, timeout=300)
        self.assertEqual((process.stdout, process.stderr), ("1 ZeroDivisionError: division by zero\n", ""))

    def test_subsets_of_the_engines(self):
        """``every`` of them, or a ``few``: each engine alone, and all without one that has sparse kernels."""
        with unittest.mock.patch.object(torch._C, "_supported_qengines", lambda: [0, 1, 2, 3]):
            alone, pairs = [("fbgemm",), ("qnnpack",), ("onednn",)], [("fbgemm", "qnnpack"), ("fbgemm", "onednn"), ("qnnpack", "onednn")]
            self.assertEqual(subsets("every"), [(), *alone, *pairs, ("fbgemm", "qnnpack", "onednn")])
            self.assertEqual(subsets("few"), [*alone, ("qnnpack", "onednn"), ("fbgemm", "onednn")])
        for numbers, few in (([0], []), ([2], [("qnnpack",)]), ([1, 2], [("fbgemm",), ("qnnpack",)])):
            with unittest.mock.patch.object(torch._C, "_supported_qengines", lambda numbers=numbers: numbers):
                self.assertEqual(subsets("few"), few)

    def test_no_engine_is_left(self):
        """Without engines, the list is empty, none is selected, and packing is refused in PyTorch's words."""
        self.assertEqual(
            run_in_child(answers, ()),
            [
                [],
                "none",
                "quantized engine FBGEMM is not supported",
                "Didn't find engine for operation ao::sparse::qlinear_prepack NoQEngine",
                "Didn't find engine for operation quantized::linear_prepack NoQEngine",
            ],
        )

    def test_one_engine_is_left(self):
        """With one engine, only that one is listed, and PyTorch's default for such a build is selected."""
        for name, default in (("x86", "x86"), ("onednn", "onednn")):
            if name in build.engines():
                with self.subTest(engine=name):
                    engines, engine, selecting, *_ = run_in_child(answers, (name,))
                    self.assertEqual((engines, engine), ([name], default))
                    self.assertRegex(selecting, "is not supported")

    def test_unknown_engine_is_refused(self):
        """What this build lacks cannot be played with."""
        with self.assertRaisesRegex(ValueError, "no engine abacus"):
            play_engines(("abacus",))


class TestPlayedBuilds(unittest.TestCase):
    """The suite gives a right answer on each build: green, and what could not be asked is named."""

    slow = 25

    def check_green(self, status, output, engines):
        """The run passed, said what it validated, and skipped for no engine that is there."""
        self.assertEqual(status, 0, output)
        self.assertRegex(output, rf"quantized engines: {' '.join(engines) or 'none'},", "another build was validated")
        for reason, number in skips(output).items():
            missing = reason.partition("(no ")[2]
            for name in engines:
                self.assertNotRegex(missing, rf"\b{name}\b", f"{number} tests skipped for an engine that is there: {reason}")

    def test_engine_dependent_tests_on_subsets(self):
        """Kernels, packed parameters and composability with each engine of this build alone, and without a sparse one."""
        process = play("few", arguments=ONLY_ENGINE_DEPENDENT)
        runs = re.findall(r"(.*?)^played ([\w,]+): exit status (\d+)\n", process.stderr, re.MULTILINE | re.DOTALL)
        played = {name: (int(status), output) for output, name, status in runs}
        self.assertEqual(list(played), [",".join(names) for names in subsets("few")])
        for engines in subsets("few"):
            with self.subTest(engines=engines):
                self.check_green(*played[",".join(engines)], [name for name in build.engines() if name in engines])
        self.assertEqual(process.returncode, 0)

    def test_whole_suite_without_engines(self):
        """A build without quantized engines passes, and its skips name the engines."""
        process = play((), arguments=["-v"])
        self.check_green(process.returncode, process.stdout + process.stderr, ())
        for name in NEED_AN_ENGINE:
            # Before Python 3.11 the class stands last between the parentheses.
            self.assertRegex(process.stderr, rf"{name}(\.[^\n]*)?\) \.\.\. skipped '[^\n]*\(no ", f"no test of {name} was skipped")

    def test_nearest_is_a_test_that_the_build_has(self):
        """A filter whose tests ARM64 lacks ends with status 5, and none of them is named as the nearest."""
        process = play(machine="arm64", arguments=["-k", "TestComposability"])
        self.assertEqual(process.returncode, 5, process.stderr)
        self.assertNotIn("TestComposability.", process.stderr)

    def test_engine_dependent_tests_on_arm64(self):
        """On ARM64 composability is absent; kernels, and two classes that need no engine, are there, with the engines of such a build."""
        engines = [name for name in build.engines() if name in ("qnnpack", "onednn")]
        there = ("TestQuantizedSparseKernels", "TestQlinearPackedParams", "TestWeightNormSparsifier", "TestFPGMPruner")
        arguments = [word for name in ("Composability", *there) for word in ("-k", name)]
        process = play(engines, "arm64", ["-v", *arguments])
        self.check_green(process.returncode, process.stdout + process.stderr, engines)
        self.assertIn("arm64", process.stderr)
        self.assertNotIn("Composability", process.stderr)
        for name in there:
            self.assertIn(name, process.stderr)

"""Tests of the stand-in accelerator, and of the suite on it."""

import copy
import io
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import unittest

import torch

from ao.sparsity.testing import stand_in
from ao.sparsity.testing.play import ROOT, play
from ao.sparsity.testing.test_runs import run


def asked(question):
    """What ``question(device)`` returns, where ``device`` is the stand-in."""
    return question(stand_in.load())


def refusals(device):
    """What the device says to operations on tensors of two devices."""
    x, y = torch.ones(3, device=device), torch.ones(3)
    said = []
    for mixed in (
        lambda: x + y,
        lambda: y.mul_(x),
        lambda: torch.where(y > 0, x, x),
        lambda: x[torch.tensor([0])],
        lambda: torch.cat([x, y]),
        lambda: x.to_sparse() * y,
        lambda: torch.nn.functional.linear(y, x[None]),
    ):
        try:
            said.append(str(mixed()))
        except RuntimeError as error:
            said.append(str(error).splitlines()[0])
    return said


def values(device):
    """Results of each way into the device and out of it, as lists."""
    x = torch.arange(6.0, device=device).reshape(2, 3)
    x[0] = 5
    part = x[:, 1:]
    part.mul_(2)
    layer = torch.nn.Conv2d(1, 1, 2, bias=False, device=device)
    torch.nn.init.ones_(layer.weight)
    convolved = layer(torch.ones(1, 1, 3, 3, device=device))
    convolved.sum().backward()
    sparse = torch.sparse_coo_tensor(torch.tensor([[1], [0]], device=device), torch.ones(1, device=device), (2, 3), check_invariants=True)
    grown = torch.empty(0, device=device)
    torch.add(x, torch.tensor(1.0), out=grown)
    saved = io.BytesIO()
    torch.save(x, saved)
    saved.seek(0)
    results = x, x.sum(), convolved, layer.weight.grad, sparse * x, sparse.to_dense() + 1, grown, torch.load(saved)
    return [(str(result.device), result.layout == torch.strided, result.detach().cpu().to_dense().tolist()) for result in results]


def recurrent(device):
    """How far outputs and gradients of recurrent layers on the device are from those on cpu, at most."""
    worst = 0.0
    for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
        for bias in (True, False):
            layer, x = kind(3, 4, 2, bias=bias), torch.linspace(-1, 1, 30).reshape(5, 2, 3)
            results = []
            for place in ("cpu", device):
                there, input = copy.deepcopy(layer).to(place), x.to(place, copy=True).requires_grad_()
                output = there(input)[0]
                output.sin().sum().backward()
                results.append([output, input.grad, *(parameter.grad for parameter in there.parameters())])
            worst = max(worst, *(float((one - other.cpu()).detach().abs().max()) for one, other in zip(*results)))
    return worst


@unittest.skipIf(stand_in.missing(), f"the stand-in accelerator (no {stand_in.missing()})")
class TestStandIn(unittest.TestCase):
    """A second device with the CPU's values, that does not mix with the first; a child has it, this process stays as it is."""

    slow = 10

    @classmethod
    def setUpClass(cls):
        cls.process = multiprocessing.get_context("spawn").Pool(1)
        cls.addClassCleanup(cls.process.terminate)

    def answers(self, question):
        """What ``question(device)`` returns in a process of its own, as autograd counts the devices at its first use."""
        return self.process.apply(asked, (question,))

    def test_values_are_those_of_the_cpu(self):
        """Views, convolutions and their gradients, sparse tensors, resized and loaded ones lie on the device with the right values."""
        self.assertEqual(
            self.answers(values),
            [
                ("stand_in:0", True, [[5, 10, 10], [3, 8, 10]]),
                ("stand_in:0", True, 46),
                ("stand_in:0", True, [[[[4, 4], [4, 4]]]]),
                ("stand_in:0", True, [[[[4, 4], [4, 4]]]]),
                ("stand_in:0", False, [[0, 0, 0], [3, 0, 0]]),
                ("stand_in:0", True, [[1, 1, 1], [2, 1, 1]]),
                ("stand_in:0", True, [[6, 11, 11], [4, 9, 11]]),
                ("stand_in:0", True, [[5, 10, 10], [3, 8, 10]]),
            ],
        )

    def test_recurrent_layers_are_those_of_the_cpu(self):
        """LSTM, GRU and RNN, with and without biases, have the CPU's outputs and gradients."""
        self.assertLess(self.answers(recurrent), 1e-5)

    def test_tensors_of_two_devices_are_refused(self):
        """As on a GPU, an operation on tensors of two devices raises, and names them."""
        for said in self.answers(refusals):
            self.assertRegex(said, r"^Expected all tensors to be on the same device, .*(stand_in:0 and cpu|cpu and stand_in:0)")

    def test_every_test_of_every_device_runs_on_it(self):
        """Every test that is for every device runs on the stand-in, right, without a word on standard error, and none is skipped."""
        process = play(device="stand-in", arguments=["-v", "-k", "accelerator"], timeout=600)
        self.assertEqual(process.returncode, 0, process.stderr)
        outcomes = re.findall(r"\.\.\. (ok|expected failure|.*)$", process.stderr, re.MULTILINE)
        self.assertGreater(len(outcomes), 30, process.stderr)
        self.assertLessEqual(set(outcomes), {"ok", "expected failure"}, process.stderr)
        self.assertIn("devices: cpu stand_in", process.stderr)
        self.assertNotIn("Warning", process.stderr)

    def test_what_is_missing_is_said(self):
        """Without a compiler the stand-in names it, in one line and with the exit status for nothing to validate."""
        with tempfile.TemporaryDirectory() as empty:
            command = ("-m", "ao.sparsity.testing.play", "--device", "stand-in", "--", "-k", "device")
            process = run(*command, CXX="no-such-compiler", XDG_CACHE_HOME=empty)
        self.assertEqual(process.returncode, 3)
        self.assertEqual(process.stderr, "the stand-in accelerator cannot be built without a C++ compiler\n")


# Plays a mistake in each module, and then a change that does the same as what it replaces.
DROPPED = """
import sys
from ao.sparsity.testing.stand_in import dropped

status = dropped.main(dropped.first_of_each_module())
same = dropped.Mistake(dropped.PRUNING + ".sparsifier.weight_norm_sparsifier", "device=data.device", "device=(data.device)")
if not dropped.applies(same):
    sys.exit("the change without effect finds no place")
print("without effect:", dropped.noticed_by(same, near=True))
sys.exit(status)
"""


@unittest.skipIf(stand_in.missing(), f"the stand-in accelerator (no {stand_in.missing()})")
@unittest.skipUnless(hasattr(os, "fork"), "dropped devices (no fork)")
class TestDroppedDevices(unittest.TestCase):
    """A device that is dropped in a copy of the packages turns a test red on the stand-in."""

    slow = 6

    @classmethod
    def setUpClass(cls):
        cls.process = subprocess.run([sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, text=True, timeout=1200)

    def test_each_is_noticed(self):
        """A mistake in each module is noticed, ten at least; ``python -m ao.sparsity.testing.stand_in.dropped`` plays them all."""
        self.assertEqual(self.process.returncode, 0, self.process.stdout + self.process.stderr)
        self.assertGreaterEqual(self.process.stdout.count("\nnoticed "), 10, self.process.stdout)

    def test_a_change_without_effect_is_not_noticed(self):
        """The tests are green on a copy that does the same: what turns them red is the mistake."""
        self.assertEqual(self.process.stdout.splitlines()[-1:], ["without effect: None"], self.process.stdout + self.process.stderr)


if __name__ == "__main__":
    unittest.main()

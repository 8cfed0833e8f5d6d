"""Tests of the tricks that make the suite quicker: does each still work, does it still gain anything, is it as right without it?"""

import copy
import json
import unittest

import torch
from torch import nn

from ao.sparsity.testing import speedups
from ao.sparsity.testing.test_runs import run

# Runs one test that trains and compares tensors, and prints what each trick is about.
PROBE = """
import atexit, gc, json, sys, traceback, unittest
from unittest import mock

found = {}

@atexit.register  # before all others, so it is called after them
def tell():
    found["left to the last collection"] = len(gc.get_objects()) > 10_000
    print(json.dumps(found))

import torch
from ao.sparsity.testing.base import TestCase

class TestProbe(TestCase):
    def test_probe(self):
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([weight], lr=0.5)
        weight.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        self.assertEqual(weight.detach(), torch.full((2,), 0.5))
        self.assertEqual(weight.detach(), torch.full((2,), 0.5 + 1e-7))
        with self.assertRaisesRegex(AssertionError, "not close"):
            self.assertEqual(weight.detach(), torch.full((2,), 0.6))

common_utils = torch.testing._internal.common_utils
kept = [[] for _ in range(20_000)]
result = unittest.TestResult()
with (
    mock.patch.object(traceback, "format_stack", side_effect=traceback.format_stack) as format_stack,
    mock.patch.object(common_utils, "not_close_error_metas", side_effect=common_utils.not_close_error_metas) as compare,
):
    TestProbe("test_probe").run(result)
heavy = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy")
found.update({
    "right": result.wasSuccessful() and result.testsRun == 1,
    "modules": [name for name in heavy if name in sys.modules],
    "frozen": gc.get_freeze_count() > 0,
    "stacks": format_stack.call_count,
    "comparisons": compare.call_count,
})
"""


def probe(without):
    """What PROBE prints where the tricks ``without`` are left out."""
    process = run("-c", PROBE, **{speedups.WITHOUT: ",".join(without)})
    return json.loads(process.stdout) if process.returncode == 0 else process.stderr


class TestSpeedups(unittest.TestCase):
    """Each trick, by what a run without it does that a run with it does not."""

    slow = 18

    @classmethod
    def setUpClass(cls):
        cls.with_all = probe([])

    def test_all_of_them_work(self):
        """With all of them nothing heavy is imported, no stack is kept, what is the same is not compared, collections are seldom."""
        expected = {"right": True, "modules": [], "frozen": True, "stacks": 0, "comparisons": 2, "left to the last collection": False}
        self.assertEqual(self.with_all, expected)

    def test_each_gains_something(self):
        """Without one of them: as right, and slower; one that gains nothing on this torch is to be deleted."""
        self.assertEqual(set(speedups.TRICKS), {"gc", "exit", "suffixes", "dtensor", "seed", "optimizers", "equal", "run"})
        for trick in speedups.TRICKS:
            with self.subTest(trick=trick):
                found = probe([trick])
                self.assertTrue(found["right"], found)
                self.assertNotEqual(found, self.with_all, f"the trick {trick!r} gains nothing on this torch")

    def test_the_suite_is_right_without_any(self):
        """Without all of them a test's verdict is the same."""
        self.assertTrue(probe(["all"])["right"])

    def test_only_the_same_is_equal(self):
        """The trick ``equal``: of another kind, dtype, shape, layout or value, or NaN, and torch's own comparison is asked."""
        one, nan = torch.ones(2), float("nan")
        for x in (1, "1", None, [1, {"a": (one,)}], one, torch.ones(2, dtype=torch.bool), torch.ones(0), torch.tensor(1 + 2j)):
            self.assertTrue(speedups.equal(x, copy.deepcopy(x)), x)
        different = [
            *((1, 1.0), (1, True), (nan, nan), ("1", 1), ([1], (1,)), ([1], [1, 1]), ({"a": 1}, {"b": 1}), ({1}, {1}), (None, 0)),
            *((one, one.double()), (one, one[:1]), (one, one + 1e-7), (one, nn.Parameter(one)), (one, [1.0, 1.0]), (one[0], 1.0)),
            *((one, one.to_sparse()), (one.to("meta"), one.to("meta")), (one, one.to("meta")), (one * nan, one * nan)),
            (torch.quantize_per_tensor(one, 0.5, 0, torch.qint8), torch.quantize_per_tensor(one, 1.0, 0, torch.qint8)),
        ]
        for x, y in different:
            self.assertFalse(speedups.equal(x, y) or speedups.equal(y, x), (x, y))


if __name__ == "__main__":
    unittest.main()

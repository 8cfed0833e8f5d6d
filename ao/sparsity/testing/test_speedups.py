"""Tests of the tricks that make the suite quicker: does each still work, does it still gain anything, is it as right without it?"""

import json
import unittest

from ao.sparsity.testing import speedups
from ao.sparsity.testing.test_runs import run

# Runs one test that compares tensors, and prints what each trick is about.
PROBE = """
import gc, json, sys, traceback, unittest
from unittest import mock
import torch
from ao.sparsity.testing.base import TestCase

class TestProbe(TestCase):
    def test_probe(self):
        self.assertEqual(torch.ones(2), torch.ones(2))

result = unittest.TestResult()
with mock.patch.object(traceback, "format_stack", side_effect=traceback.format_stack) as format_stack:
    TestProbe("test_probe").run(result)
print(json.dumps({
    "right": result.wasSuccessful() and result.testsRun == 1,
    "modules": [name for name in ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy") if name in sys.modules],
    "frozen": gc.get_freeze_count() > 0,
    "stacks": format_stack.call_count,
}))
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
        """With all of them nothing heavy is imported, a seed keeps no stack for a device that is not there, and collections are seldom."""
        self.assertEqual(self.with_all, {"right": True, "modules": [], "frozen": True, "stacks": 0})

    def test_each_gains_something(self):
        """Without one of them: as right, and slower; one that gains nothing on this torch is to be deleted."""
        self.assertEqual(set(speedups.TRICKS), {"gc", "suffixes", "dtensor", "seed", "run"})
        for trick in speedups.TRICKS:
            with self.subTest(trick=trick):
                found = probe([trick])
                self.assertTrue(found["right"], found)
                self.assertNotEqual(found, self.with_all, f"the trick {trick!r} gains nothing on this torch")

    def test_the_suite_is_right_without_any(self):
        """Without all of them a test's verdict is the same."""
        self.assertTrue(probe(["all"])["right"])


if __name__ == "__main__":
    unittest.main()

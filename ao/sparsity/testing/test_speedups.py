"""Tests of the tricks that make the suite quicker: does each still work, does it still gain anything, is it as right without it?"""

import copy
import dataclasses
import inspect
import json
import os
import unittest
import warnings
from unittest import mock

import torch
from torch import nn

from ao.sparsity.testing import build, speedups
from ao.sparsity.testing.test_runs import run

# Runs one test that trains and compares tensors, and prints what each trick is about: once for each argument, the tricks that are left
# out, in a process of its own. Where processes are forked, what all of them import is imported before.
PROBE = """
import atexit, gc, json, os, sys, traceback, unittest
from unittest import mock

import torch.testing._internal.common_utils

for without in sys.argv[1:-1] if hasattr(os, "fork") else []:
    child = os.fork()
    if child == 0:
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        print(f"without {without}: exit status {status}", file=sys.stderr, flush=True)
else:
    without = sys.argv[-1]
os.environ["AO_SPARSITY_WITHOUT"] = without
heavy = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy")
brought = [name for name in heavy if name in sys.modules]
found = {"without": without, "brought by torch's test tools": brought}

@atexit.register  # before all others of the suite, so it is called after them
def tell():
    found["left to the last collection"] = len(gc.get_objects()) > 10_000
    print(json.dumps(found), flush=True)
    os._exit(0)  # to take the interpreter apart takes longer than the probe

import torch
import torch.fx
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
        traced = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.ReLU()))
        self.assertEqual([node.op for node in traced.graph.nodes], ["placeholder", "call_module", "output"])

common_utils = torch.testing._internal.common_utils
kept = [[] for _ in range(20_000)]
result = unittest.TestResult()
wrap = torch.fx._symbolic_trace._create_wrapped_func
with (
    mock.patch.object(torch.fx._symbolic_trace, "_create_wrapped_func", side_effect=wrap) as wrapped,
    mock.patch.object(traceback, "format_stack", side_effect=traceback.format_stack) as format_stack,
    mock.patch.object(common_utils, "not_close_error_metas", side_effect=common_utils.not_close_error_metas) as compare,
):
    TestProbe("test_probe").run(result)
found.update({
    "right": result.wasSuccessful() and result.testsRun == 1,
    "modules": [name for name in heavy if name in sys.modules and name not in brought],
    "frozen": gc.get_freeze_count() > 0,
    "stacks": format_stack.call_count,
    "comparisons": compare.call_count,
    "math": [call.args[0].__name__ for call in wrapped.call_args_list if call.args[0].__module__ == "math"][:1],
})
"""
# Imports torch's compiler and compiles a model twice, with the tricks "dynamo" and "modules" and without what they change.
COMPILER = """
import gc, inspect, json, sys
from unittest import mock

ask = inspect.getmodule

from ao.sparsity.testing import base

collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
import torch

brought = "torch._dynamo" in sys.modules
collections.clear()
import torch._dynamo
import torch._functorch.aot_autograd
from torch._dynamo import funcname_cache, guards, symbolic_convert

found = {"brought": brought, "collections": len(collections), "paths": len(inspect.modulesbyfile), "networkx": "networkx" in sys.modules}
from torch._functorch._activation_checkpointing import graph_info_provider

found["its class"] = graph_info_provider.nx.DiGraph.__module__
here = sys._getframe(), json.loads, json
found["modules"] = [getattr(inspect.getmodule(each), "__name__", None) for each in here]
ask(sys._getframe())
found["paths without"] = len(inspect.modulesbyfile)
operators = [entry.fake_impl.kernel for entry in torch._library.simple_registry.singleton._data.values()]
found["operators"] = sum(kernel is not None and kernel.source == "torch" for kernel in operators)

def compiled():
    torch._dynamo.reset()
    torch.compile(lambda x: torch.nn.functional.relu(x), backend="eager", fullgraph=True)(torch.ones(2))

compiled()
found["parsed"] = len(funcname_cache.cache)
timed = mock.Mock(return_value=0.0)
guards.profile_guard_manager, symbolic_convert.get_funcname = timed, funcname_cache.get_funcname
compiled()
found.update({"parsed without": len(funcname_cache.cache), "timed without": timed.call_count})
print(json.dumps(found))
"""
# What PROBE shows; COMPILER shows the others.
PROBED = ("gc", "exit", "suffixes", "dtensor", "seed", "optimizers", "autowrap", "equal", "run")
BROUGHT = "brought by torch's test tools"
MADE_FOR = (2, 13)
AGAINST_IMPORTS = ("suffixes", "dtensor", "optimizers", "run")


def probes(*without):
    """What PROBE prints where the tricks ``without``, names with commas between them, are left out: by that text."""
    answers, said = {}, ""

    def ask(*share):
        nonlocal said
        process = run("-c", PROBE, *share, CUDA_VISIBLE_DEVICES="")  # the tricks are for machines without an accelerator
        said += process.stderr
        for line in process.stdout.splitlines():
            answer = json.loads(line)
            answers[answer.pop("without")] = answer

    if hasattr(os, "fork"):
        ask(*without)
    for each in without:
        if each not in answers:  # a fork can die of what torch's test tools ask a GPU's driver, or a program for GPUs such as numba
            ask(each)
    if len(answers) < len(without):
        raise AssertionError(f"the probes without {sorted(set(without) - set(answers))} gave no answer:\n{said}")
    return answers


class TestSpeedups(unittest.TestCase):
    """Each trick, by what a run without it does that a run with it does not."""

    slow = 9

    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)  # as in every run of the suite: threads would be missing in what other tests fork from this process
        cls.found = probes("", "all", *PROBED)

    def test_all_of_them_work(self):
        """With all of them nothing heavy is imported, no stack is kept, what is the same is not compared, collections are seldom, a trace
        wraps no function of math."""
        expected = {"right": True, "modules": [], "frozen": True, "stacks": 0, "comparisons": 2, "left to the last collection": False}
        expected["math"] = []
        self.assertEqual(self.found[""], {BROUGHT: self.found[""][BROUGHT], **expected})

    def test_each_gains_something(self):
        """Without one of them: as right, and slower; one that gains nothing on this torch is to be deleted."""
        self.assertEqual(set(speedups.TRICKS), {*PROBED, "dynamo", "modules"})
        if build.TORCH_VERSION < MADE_FOR:
            self.skipTest("what the tricks gain (they were made for torch 2.13)")
        for trick in PROBED:
            with self.subTest(trick=trick):
                self.assertTrue(self.found[trick]["right"], self.found[trick])
                if trick in AGAINST_IMPORTS and "torch._dynamo" in self.found[trick][BROUGHT]:
                    self.skipTest("what is gained by not importing torch._dynamo (torch's test tools import it, as where triton is)")
                self.assertNotEqual(self.found[trick], self.found[""], f"the trick {trick!r} gains nothing on this torch")

    def test_the_suite_is_right_without_any(self):
        """Without all of them a test's verdict is the same."""
        self.assertTrue(self.found["all"]["right"], self.found["all"])

    def test_the_compiler_does_what_it_is_asked_for_and_no_more(self):
        """Tricks ``dynamo`` and ``modules``: of collections, sources of operators, timed guards, parsed files, paths of modules and the
        import of networkx none is left, and all were there."""
        if build.TORCH_VERSION < MADE_FOR:
            self.skipTest("what the tricks dynamo and modules gain (they were made for torch 2.13)")
        process = run("-c", COMPILER)
        self.assertEqual(process.returncode, 0, process.stderr)
        found = json.loads(process.stdout)
        if found.pop("brought"):
            self.skipTest("the trick dynamo (torch's test tools import torch._dynamo, as where triton is)")
        self.assertGreater(found.pop("paths without"), 100, "modules whose paths were not read")
        self.assertGreater(found.pop("operators"), 0, "operators whose source was not looked up")
        self.assertGreater(found.pop("parsed without"), 0, "files that torch._dynamo parses")
        self.assertEqual(found.pop("modules"), ["__main__", "json", "json"], "modules of a frame, a function and a module")
        self.assertEqual(found.pop("its class"), "networkx.classes.digraph", "what stands in for networkx asks it")
        self.assertEqual(found, {"collections": 0, "paths": 0, "parsed": 0, "timed without": 1, "networkx": False})

    def test_methods_that_are_compiled_late_are_the_same(self):
        """The trick ``dynamo``: a dataclass whose methods are compiled when they are called is like any other; only __init__ is made at
        once."""

        def make():
            return dataclasses.make_dataclass("Point", [("x", int), ("y", int, 2)], frozen=True, order=True)

        def answers(cls):
            one, other = cls(1), cls(1, 3)
            found = [repr(one), one == cls(1, 2), one == other, one == 1, one < other, hash(one), str(inspect.signature(cls)), cls.__doc__]
            for change in (lambda: setattr(one, "x", 0), lambda: delattr(one, "y")):
                with self.assertRaises(dataclasses.FrozenInstanceError) as caught:
                    change()
                found.append(str(caught.exception))
            return found, [getattr(cls, name).__qualname__.split(".")[-1] for name in ("__repr__", "__eq__", "__hash__", "__setattr__")]

        usual = make()
        with speedups._lazy_methods():
            late = make()
        self.assertEqual(answers(late), answers(usual))
        if not hasattr(dataclasses, "_create_fn"):
            self.skipTest("how many methods are compiled at once (Python 3.13 and newer compile them together)")
        with mock.patch.object(dataclasses, "_create_fn", side_effect=dataclasses._create_fn) as create:
            with speedups._lazy_methods():
                late = make()
            self.assertEqual([call.args[0] for call in create.call_args_list], ["__init__"], "methods that are compiled at once")
            late(1) == late(1) == late(1)  # noqa: B015
            self.assertEqual([call.args[0] for call in create.call_args_list], ["__init__", "__eq__"], "then one that is called, once")

    def test_only_the_same_is_equal(self):
        """The trick ``equal``: of another kind, dtype, shape, layout or value, or NaN, and torch's own comparison is asked."""
        one, nan = torch.ones(2), float("nan")
        tensors = (one, nn.Parameter(one), torch.ones(2, dtype=torch.bool), torch.ones(0), torch.tensor(1 + 2j))
        for x in (1, "1", None, [1, {"a": (one,)}], {1, "a"}, one.shape, one.dtype, one.layout, nn.Linear, copy.copy, *tensors):
            self.assertTrue(speedups.equal(x, copy.deepcopy(x)), x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated
            quantized = [torch.quantize_per_tensor(one, scale, 0, torch.qint8) for scale in (0.5, 1.0)]
        different = [
            *((1, 1.0), (1, True), (nan, nan), ("1", 1), ([1], (1,)), ([1], [1, 1]), ({"a": 1}, {"b": 1}), ({1}, {2}), (None, 0)),
            *((one.dtype, torch.bool), (one.shape, torch.Size([1])), (one.shape, (2,)), (nn.Linear, nn.Module), (nn.ReLU(), nn.ReLU())),
            *((one, one.double()), (one, one[:1]), (one, one + 1e-7), (one, nn.Parameter(one)), (one, [1.0, 1.0]), (one[0], 1.0)),
            *((one, one.to_sparse()), (one.to("meta"), one.to("meta")), (one, one.to("meta")), (one * nan, one * nan)),
            tuple(quantized),
        ]
        for x, y in different:
            self.assertFalse(speedups.equal(x, y) or speedups.equal(y, x), (x, y))


if __name__ == "__main__":
    unittest.main()

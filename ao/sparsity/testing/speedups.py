"""Tricks that make the suite quicker, most of them with torch's private test code; without them it is slower and nothing else.

    AO_SPARSITY_WITHOUT=run,seed python test_ao_sparsity.py      # without these two
    AO_SPARSITY_WITHOUT=all python test_ao_sparsity.py           # without any

A trick that torch's code no longer allows is not played. test_speedups.py says of each whether it works and what it gains.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import importlib.util
import inspect
import math
import os
import random
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from typing import Any

COMPILER = ("torch._dynamo", "torch._functorch.aot_autograd")  # around whose imports the trick "dynamo" is played
SOURCE = "torch"  # where operators are defined, for all that the trick "dynamo" looks up

WITHOUT = "AO_SPARSITY_WITHOUT"  # environment variable: names of TRICKS, separated by commas, or "all"

# Modes of torch's own runner that need its heavy per-test machinery (it imports torch._dynamo).
TORCH_MODES = ("TEST_WITH_TORCHDYNAMO", "TEST_WITH_AOT_EAGER", "TEST_WITH_TORCHINDUCTOR", "TEST_WITH_CROSSREF")


def wanted(trick: str) -> bool:
    """Whether the environment lets the suite play ``trick``, one of TRICKS."""
    left_out = os.environ.get(WITHOUT, "").split(",")
    return "all" not in left_out and trick not in left_out


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import in the block without collections of garbage, then or later: what it makes stays, and to look through it costs a tenth.
    The trick ``modules`` begins here."""
    collect = gc.isenabled() and wanted("gc")
    if collect:
        gc.disable()
    if wanted("modules"):
        inspect.getmodule = _module  # type: ignore[assignment]
    try:
        yield
    finally:
        if collect:
            gc.freeze()
            gc.enable()


_getmodule = inspect.getmodule


def _module(thing: Any, _filename: str | None = None) -> types.ModuleType | None:
    """The trick ``modules``: inspect.getmodule, which torch asks who registers an operator, reads the paths of all modules to find that
    of a frame (0.1 s); the frame's globals have its name."""
    return sys.modules.get(thing.f_globals.get("__name__", "")) if inspect.isframe(thing) else _getmodule(thing, _filename)


def _gc() -> None:
    """Collections leave alone what the imports have made, come more seldom (torch's functions keep thousands of objects), and look at
    what has outlived two of them no more: it is what torch._dynamo has made, which stays."""
    gc.freeze()
    gc.set_threshold(5_000, 10, 1_000)


def _exit() -> None:
    """The collection at the end of a process leaves all objects alone; it costs half a second where torch._dynamo is among them."""
    atexit.register(gc.freeze)


def _suffixes() -> None:
    """Names of tests here carry no device or dtype suffix of torch's device tests; stripping one imports torch._inductor (1.5 s)."""
    from torch.testing._internal import common_utils

    if hasattr(common_utils, "remove_device_and_dtype_suffixes"):
        common_utils.remove_device_and_dtype_suffixes = lambda test_name: test_name


def _dtensor() -> None:
    """No test compares distributed tensors; asking whether it does imports torch.distributed.tensor and sympy (1 s)."""
    import torch

    if hasattr(torch.testing._comparison, "_HAS_DTENSOR"):
        torch.testing._comparison._HAS_DTENSOR = False


def _seed() -> None:
    """torch.manual_seed also tells the devices that this build lacks, each of which keeps a stack trace of every call."""
    import numpy as np
    import torch
    from torch.testing._internal import common_utils

    from ao.sparsity.testing import build

    seed_torch: Callable = torch.default_generator.manual_seed if build.devices() == ["cpu"] else torch.manual_seed

    def set_rng_seed(seed: int = common_utils.SEED) -> None:
        for seed_one in (seed_torch, np.random.seed, random.seed):
            seed_one(seed)

    common_utils.set_rng_seed = set_rng_seed


def _optimizers() -> None:
    """No test compiles an optimizer; keeping torch.compile out of its methods imports torch._dynamo (1 s, 75 MiB)."""
    import torch
    from torch.optim import SGD, Optimizer

    for name, member in list(vars(Optimizer).items()):
        if getattr(member, "__globals__", {}).get("__name__") == "torch._compile":
            setattr(Optimizer, name, member.__wrapped__)
    step: Any = SGD.step
    if "_dynamo" in step.__code__.co_names:
        setattr(SGD, "step", torch.no_grad()(step.__wrapped__))  # noqa: B010  (as for differentiable=False, the default)


def _autowrap() -> None:
    """No model here calls math's functions on what is traced; to record such calls wraps all of them, a fifth of the time of a trace."""
    import torch.fx

    begin: Any = torch.fx.Tracer.__init__
    if begin.__defaults__ and begin.__defaults__[0] == (math,):
        begin.__defaults__ = ((), *begin.__defaults__[1:])


def _dynamo() -> None:
    """torch._dynamo is imported without collections of garbage, without looking up where operators are defined, without the methods of
    dataclasses that nobody calls and without networkx, and does for its logs alone neither time the guards of what it compiles (20 ms
    and 32 MiB each) nor parse the files that it comes from."""
    for name in COMPILER:
        if name not in sys.modules:
            sys.meta_path.insert(0, _Finder(name))


class _Finder:
    """Finds a module of torch's compiler as the others do, once, and plays the trick ``dynamo`` around its import."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            with importing(), _replaced("torch._library.utils", "get_source", SOURCE), _lazy_methods(), _lazy_networkx():
                execute(module)
            for log, holder, value in (("profile_guard_manager", "guards", 0.0), ("get_funcname", "symbolic_convert", None)):
                _replace(f"torch._dynamo.{holder}", log, value)

        spec.loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _replaced(module: str, name: str, answer: Any) -> Iterator[None]:
    """In the block the function ``name`` of a module, if there is one, only gives ``answer``."""
    before = _replace(module, name, answer)
    try:
        yield
    finally:
        if before is not None:
            setattr(sys.modules[module], name, before)


def _replace(module: str, name: str, answer: Any) -> Any:
    before = getattr(sys.modules.get(module), name, None)
    if before is not None:
        setattr(sys.modules[module], name, lambda *_: answer)
    return before


@contextlib.contextmanager
def _lazy_methods() -> Iterator[None]:
    """What the block's dataclasses are given besides __init__ is compiled when it is first called: most of it never is."""
    create: Any = getattr(dataclasses, "_create_fn", None)  # Python 3.13 has none, and compiles the methods of a class together

    def lazily(name: str, *source: Any, **namespaces: Any) -> Callable:
        if name == "__init__":  # its signature is asked for
            return create(name, *source, **namespaces)
        made: list[Callable] = []

        def method(*values: Any) -> Any:
            if not made:
                made.append(create(name, *source, **namespaces))
            return made[0](*values)

        method.__name__ = name
        return method

    if create:
        dataclasses._create_fn = lazily  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if create:
            dataclasses._create_fn = create  # type: ignore[attr-defined]


class _Later(types.ModuleType):
    """Stands in for networkx while torch is imported, which asks for a class to annotate with; for all else it asks networkx."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get("networkx") is self:
            if name == "DiGraph":
                return object
            del sys.modules["networkx"]
        return getattr(importlib.import_module("networkx"), name)


@contextlib.contextmanager
def _lazy_networkx() -> Iterator[None]:
    """In the block networkx (60 ms), which torch asks when it draws or cuts graphs, is imported in name alone."""
    spec = None if "networkx" in sys.modules else importlib.util.find_spec("networkx")
    later = _Later("networkx")
    if spec is not None:
        later.__spec__, later.__file__ = spec, spec.origin
        sys.modules["networkx"] = later
    try:
        yield
    finally:
        if sys.modules.get("networkx") is later:
            del sys.modules["networkx"]


TRICKS: dict[str, Callable[[], None]] = {
    "gc": _gc,
    "modules": lambda: None,
    "exit": _exit,
    "suffixes": _suffixes,
    "dtensor": _dtensor,
    "seed": _seed,
    "optimizers": _optimizers,
    "autowrap": _autowrap,
    "dynamo": _dynamo,
    "equal": lambda: None,
    "run": lambda: None,
}


def apply() -> None:
    """Play every trick that is wanted; once, after the imports of torch."""
    for name, play in TRICKS.items():
        if wanted(name):
            play()


def run(case: unittest.TestCase, result: unittest.TestResult | None) -> unittest.TestResult | None:
    """The trick ``run``: run one of torch's cases without the import of torch._dynamo (2 s) that torch's TestCase.run costs."""
    from torch.testing._internal import common_utils

    torch_is_asked = any(getattr(common_utils, mode, False) for mode in TORCH_MODES)
    holder = unittest.TestCase if wanted("run") and not torch_is_asked else common_utils.TestCase
    return holder.run(case, result)  # type: ignore[arg-type]


def equal(x: Any, y: Any) -> bool:
    """The trick ``equal``: whether two values are of one kind and the same, so that torch's slow comparison need not be asked.

    False says nothing: then it is to be asked. Kinds are numbers, texts, None, what has but itself for an equal (dtypes, classes,
    functions), sets, plain tensors and parameters, and lists, tuples and dicts of these.
    """
    return _EQUAL and _same(x, y)


def _same(x: Any, y: Any) -> bool:
    import torch

    kind = type(x)
    if kind is not type(y):
        return False
    if kind in (bool, int, float, str, type(None), set):
        return x == y
    if kind in (list, tuple, torch.Size):
        return len(x) == len(y) and all(map(_same, x, y))
    if kind is dict:
        return x.keys() == y.keys() and all(_same(value, y[key]) for key, value in x.items())
    if kind in (torch.dtype, torch.layout, type, types.FunctionType):
        return x is y
    if kind not in (torch.Tensor, torch.nn.Parameter) or x.dtype != y.dtype or x.device != y.device:
        return False
    plain = x.layout == y.layout == torch.strided and not (x.is_quantized or x.is_meta)
    return plain and torch.equal(x, y)


_EQUAL = wanted("equal")

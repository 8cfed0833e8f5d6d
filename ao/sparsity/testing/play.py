"""Play a build of PyTorch that is not at hand: other engines, another machine, an accelerator, fewer packages; and other surroundings.

    python -m ao.sparsity.testing.play --engines qnnpack,onednn -- -k TestQuantizedSparseKernels
    python -m ao.sparsity.testing.play --engines none
    python -m ao.sparsity.testing.play --engines every -- -k TestQuantizedSparseKernels
    python -m ao.sparsity.testing.play --machine arm64
    python -m ao.sparsity.testing.play --device stand-in -- -k accelerator
    python -m ao.sparsity.testing.play --without hypothesis,xmlrunner
    python -m ao.sparsity.testing.play --broken pytorch_lightning
    python -m ao.sparsity.testing.play --conditions
    python -m ao.sparsity.testing.play --conditions "python -OO,LANG=C" -- -k TestFPGMPruner

``--engines every`` plays each subset of this build's engines in turn, ``--engines few`` each engine alone, and all without fbgemm or
qnnpack: what a test asks for wrongly is missing there, too. What follows ``--`` goes to the root runner, which runs in this process.
An engine that is taken away is missing from the list of engines, is refused when it is selected, and leaves the default that PyTorch
would choose; where none is left the operators that pack weights refuse as they do in a build without engines. ``--device stand-in``
gives the machine an accelerator, see ao.sparsity.testing.stand_in. ``--conditions`` prints a table of how runs end with other
processors, allocators, options of Python, folders and users, see ao.sparsity.testing.surroundings. Nothing is written to the
installed package.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import itertools
import os
import pathlib
import platform
import runpy
import subprocess
import sys
import tempfile
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, NoReturn

from ao.sparsity.testing.child import TO_BE_READ
from ao.sparsity.testing.surroundings import SURROUNDINGS, table

ROOT = pathlib.Path(__file__).resolve().parents[3]
RUNNER = ROOT / "test_ao_sparsity.py"
ENGINES = {"none": 0, "fbgemm": 1, "qnnpack": 2, "onednn": 3, "x86": 4}  # c10/core/QEngine.h
SPELLED = {0: "NoQEngine", 1: "FBGEMM", 2: "QNNPACK", 3: "ONEDNN", 4: "X86"}

# Every operator that packs a weight for the selected engine; without a packed weight no other quantized operator runs.
PACKERS = {
    "sparse": ("qlinear_prepack",),
    "quantized": ("linear_prepack", "conv1d_prepack", "conv2d_prepack", "conv3d_prepack"),
}

_libraries: list = []  # a torch.library.Library takes its operators along when it is collected


def play_machine(name: str) -> None:
    """Let ``platform.machine()`` answer ``name``; before torch is imported, which asks at once."""
    platform.machine = lambda: name


class _Without(PathFinder):
    """What finds modules on sys.path, but none of these packages."""

    packages: Sequence[str] = ()

    @classmethod
    def find_spec(cls, fullname: str, *where: Any) -> Any:
        return None if fullname.partition(".")[0] in cls.packages else super().find_spec(fullname, *where)


def play_without(packages: Sequence[str]) -> None:
    """Let these packages be missing in this process; before torch is imported, which looks for some."""
    _Without.packages = packages
    sys.meta_path[sys.meta_path.index(PathFinder)] = _Without


class _Broken(Loader):
    """Finds these packages, and fails to import them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in self._packages else None

    def exec_module(self, module: types.ModuleType) -> NoReturn:
        raise ImportError(f"{module.__name__} was built for another release")


def play_broken(packages: Sequence[str]) -> None:
    """Let these packages be installed in this process, and not be importable; before torch is imported, which looks for some."""
    sys.meta_path.insert(0, _Broken(packages))


def play_without_onednn() -> None:
    """Let torch do without oneDNN, as builds for other processors do."""
    import torch

    torch._C._set_mkldnn_enabled(False)


def play_engines(names: Sequence[str]) -> None:
    """Leave of the quantized engines of this build only ``names``.

    Args:
        names: names of engines, none or several of ``fbgemm``, ``x86``, ``qnnpack``, ``onednn``.

    Raises:
        ValueError: if this build lacks one of them, or knows no such engine.
    """
    import torch

    real, select = torch._C._supported_qengines(), torch._C._set_qengine
    unknown = [name for name in names if ENGINES.get(name, -1) not in real]
    if unknown:
        raise ValueError(f"this build has no engine {', '.join(unknown)}: it cannot be played with it")
    kept = [engine for engine in real if engine == ENGINES["none"] or engine in [ENGINES[name] for name in names]]
    # The order of at::Context::qEngine: x86, then onednn, then none; qnnpack and fbgemm have to be selected.
    current = next((ENGINES[name] for name in ("x86", "onednn") if name in names), ENGINES["none"])
    if current:
        select(current)

    def set_engine(engine):
        nonlocal current
        if engine not in kept:
            raise RuntimeError(f"quantized engine {SPELLED.get(engine, engine)} is not supported")
        select(engine)
        current = engine

    torch._C._supported_qengines = lambda: list(kept)
    torch._C._get_qengine = lambda: current
    torch._C._set_qengine = set_engine
    if not names:
        _refuse_to_pack()


def _refuse_to_pack():
    """Let the packing operators answer as in a build without engines, also when TorchScript or C++ calls them."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an operator is overridden is the purpose
        for namespace, operators in PACKERS.items():
            library = torch.library.Library(namespace, "IMPL")
            for operator in operators:
                library.impl(operator, _refusal(namespace, operator), "QuantizedCPU")
            _libraries.append(library)


def _refusal(namespace, operator):
    prefix = "ao::" if namespace == "sparse" else ""

    def refuse(*args):
        raise RuntimeError(f"Didn't find engine for operation {prefix}{namespace}::{operator} NoQEngine")

    return refuse


def subsets(which: str) -> list[tuple[str, ...]]:
    """Subsets of this build's engines as tuples of names, the smallest first.

    "every" one, or a "few": each engine alone, and all without one of the two that have sparse kernels of their own.
    """
    import torch

    names = [name for name, number in ENGINES.items() if number and number in torch._C._supported_qengines()]
    if which == "every":
        return [chosen for size in range(len(names) + 1) for chosen in itertools.combinations(names, size)]
    others = [tuple(name for name in names if name != absent) for absent in ("fbgemm", "qnnpack") if absent in names]
    return [(name,) for name in names] + [chosen for chosen in others if len(chosen) > 1]


def play_device() -> None:
    """Give this machine the stand-in accelerator, before the suite asks which devices there are; leave with status 3 without it."""
    from ao.sparsity.testing import preflight, stand_in

    try:
        stand_in.load()
    except stand_in.CannotBuild as error:
        print(error, file=sys.stderr)
        sys.exit(preflight.CANNOT_VALIDATE)


def play(
    engines: str | Sequence[str] | None = None,
    machine: str | None = None,
    arguments: Sequence[str] = (),
    timeout: float = 600,
    device: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the root runner in a build that is played in a process of its own, with output that can be read.

    Args:
        engines: names of the engines that are left, ``"every"``, ``"few"``, or None for all.
        machine: what ``platform.machine()`` answers, or None for the truth.
        arguments: arguments of the root runner.
        timeout: seconds after which the process is killed.
        device: ``"stand-in"`` for a machine with that accelerator, or None for the truth.

    Returns:
        subprocess.CompletedProcess: with the text of both streams.
    """
    command = [sys.executable, "-m", "ao.sparsity.testing.play"]
    if engines is not None:
        command += ["--engines", engines if isinstance(engines, str) else ",".join(engines) or "none"]
    if machine is not None:
        command += ["--machine", machine]
    if device is not None:
        command += ["--device", device]
    command += ["--", *arguments]
    environment = {**os.environ, **TO_BE_READ}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def run_and_leave(prepare: Callable[[], None] = lambda: None) -> NoReturn:
    """In a forked process: call ``prepare``, be the program of sys.argv with its arguments, and end with its status.

    What it asked to be called at its end is called, but the interpreter is not taken apart, which takes longer than a few tests.
    """
    status: Any = 0
    try:
        prepare()
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def run_in_fork(
    arguments: Sequence[str], prepare: Callable[[], None] = lambda: None, program: str = str(RUNNER)
) -> subprocess.CompletedProcess[str]:
    """Run the root runner, or another ``program``, with ``arguments`` in a fork of this process; its end and output.

    In the fork ``prepare`` is called before. Torch's test tools keep the program that imports them: what asks them for it
    (--discover-tests, --run-parallel) needs a process that has not imported them yet.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv = [program, *arguments]
            run_and_leave(prepare)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), errors.read())


def _play_subsets(which: str, arguments: Sequence[str]) -> NoReturn:
    """Play each of these subsets, and leave with the worst exit status.

    What all of them import, quantization by FX with torch._dynamo too, is imported once, before the forks; elsewhere than on Linux each
    starts anew.
    """
    import ao.sparsity.testing.guards  # noqa: F401  (first: it says where what torch compiles is kept)
    import torch._inductor
    import torch.ao.quantization.quantize_fx
    import torch.testing._internal.common_utils  # noqa: F401

    worst = 0
    for chosen in subsets(which):
        name = ",".join(chosen) or "none"
        if sys.platform == "linux":
            child = os.fork()
            if child == 0:
                os.environ["AO_SPARSITY_ONE_PROCESS"] = "1"
                run_and_leave(functools.partial(play_engines, chosen))
            status = abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        else:
            status = subprocess.call([sys.executable, "-m", "ao.sparsity.testing.play", "--engines", name, "--", *arguments], cwd=ROOT)
        print(f"played {name}: exit status {status}", file=sys.stderr, flush=True)
        worst = max(worst, status)
    sys.exit(worst)


def main(argv: list[str] | None = None) -> None:
    """Command line: play a build in this process, then be the root runner."""
    parser = argparse.ArgumentParser(prog="python -m ao.sparsity.testing.play", description="Run the suite in a build that is played.")
    parser.add_argument("--engines", help="engines that are left, separated by commas; none; every or few (subsets in turn)")
    parser.add_argument("--machine", help="what platform.machine() answers, arm64 for one")
    parser.add_argument("--device", choices=["stand-in"], help="an accelerator that the machine is to have; it is built on first use")
    parser.add_argument("arguments", nargs="*", metavar="-- argument", help="for the root runner")
    parser.add_argument("--without", metavar="PACKAGES", help="packages that are not installed, separated by commas")
    parser.add_argument("--broken", metavar="PACKAGES", help="packages that are installed and cannot be imported, separated by commas")
    parser.add_argument("--without-onednn", action="store_true", help="torch does without oneDNN")
    parser.add_argument(
        "--conditions",
        nargs="?",
        const="all",
        metavar="NAMES",
        help="a table of runs in other surroundings, all or these, separated by commas",
    )
    options = parser.parse_args(argv)
    if options.conditions is not None:
        names = list(SURROUNDINGS) if options.conditions == "all" else options.conditions.split(",")
        unknown = [name for name in names if name not in SURROUNDINGS]
        if unknown:
            parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(SURROUNDINGS)}")
        worst = 0
        for line, status in table(names, options.arguments):
            print(line, flush=True)
            worst = max(worst, abs(status))
        sys.exit(worst)
    if options.without is not None:
        play_without(options.without.split(","))
    if options.broken is not None:
        play_broken(options.broken.split(","))
    if options.without_onednn:
        play_without_onednn()
    if options.machine is not None:
        play_machine(options.machine)
    if options.device is not None:
        play_device()
    sys.argv = [str(RUNNER), *options.arguments]
    sys.path[0] = str(ROOT)
    if options.engines in ("every", "few"):
        _play_subsets(options.engines, options.arguments)
    if options.engines is not None:
        names = [name for name in options.engines.split(",") if name not in ("", "none")]
        try:
            play_engines(names)
        except ValueError as error:
            parser.error(str(error))
    runpy.run_path(str(RUNNER), run_name="__main__")


if __name__ == "__main__":
    main()

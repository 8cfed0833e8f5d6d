"""Is there anything to validate, and what all tests need? Asked before the first torch name is imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from ao.sparsity.testing import speedups

OLDEST_TORCH = (2, 1)
CANNOT_VALIDATE = 3  # exit status
NOTHING_MATCHED = 5  # exit status, as pytest and Python 3.12's unittest have it
XML = ("xmlrunner", "unittest-xml-reporting")  # module and its package
# Variables that override how a test says that it loads a file, and the one that would skip every test: no test here is slow.
OVERRIDES = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "PYTORCH_TEST_SKIP_FAST")


def version_tuple(version: str) -> tuple[int, ...]:
    """``"2.13.0a0+gitcf3"`` -> ``(2, 13, 0)``: the leading numbers of a version, at least two."""
    numbers = [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]
    return tuple(numbers + [0] * (2 - len(numbers)))


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a parent package is missing
        return False


def import_fault(module: str) -> str | None:
    """Why an optional package cannot be imported, as by first_line; empty where it is not installed, None where it can be imported."""
    if not _has(module):
        return ""
    try:
        with _warnings_are_no_errors():
            importlib.import_module(module)
    except Exception as error:  # of a package that it needs, or for another release of one
        return first_line(error)
    return None


def _fault(module: str) -> str | None:
    """What is wrong with an optional package, ``"is not installed"`` for one; None where it can be imported."""
    fault = import_fault(module)
    return f"cannot be imported ({fault})" if fault else None if fault is None else "is not installed"


class _HeldBack:
    """A text stream that keeps what is written until it is let go; whoever holds on to it writes through it then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._open = stream, False
        self._kept: list[str] = []

    def write(self, text: str) -> int:
        if self._open:
            return self._stream.write(text)
        self._kept.append(text)
        return len(text)

    def let_go(self, speak: bool) -> None:
        """Pass on from now on; what was kept, too, if it is to ``speak``."""
        self._open = True
        if speak:
            self._stream.write("".join(self._kept))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _held_back_errors() -> Iterator[_HeldBack]:
    """Standard error is kept for the block: a torch that cannot be used may say so in many lines (NumPy's are thirty)."""
    stream, held = sys.stderr, _HeldBack(sys.stderr)
    sys.stderr = held  # type: ignore[assignment]
    try:
        yield held
    finally:
        sys.stderr = stream


@contextlib.contextmanager
def _warnings_are_no_errors() -> Iterator[None]:
    """Under ``-W error`` a warning of torch at its import (hypothesis is not there, for one) would be a torch that cannot be imported."""
    with warnings.catch_warnings():
        if any(action == "error" for action, *_ in warnings.filters):
            warnings.simplefilter("ignore")
        yield


def problem() -> str | None:
    """One line saying why this interpreter has nothing to validate, or cannot, and what to do; None where it can."""
    with _held_back_errors() as errors, _warnings_are_no_errors(), speedups.importing():
        line = None
        try:
            line = _no_folder() or _no_torch() or _no_requirements() or _no_processor() or _no_tools() or _no_option()
        finally:
            errors.let_go(speak=line is None)
    return line


def first_line(error: Exception) -> str:
    """``"ImportError: the first line of its text"``; the kind alone where it has none."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def _no_folder() -> str | None:
    try:
        tempfile.gettempdir()
    except OSError as error:
        return f"no folder for temporary files can be written to ({first_line(error)}): set TMPDIR to one, then run again"
    return None


def _no_torch() -> str | None:
    if not _has("torch"):
        return "torch is not installed: install the build to validate (pip install torch==2.13.0), then run again"
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build may raise anything
        return f"torch cannot be imported ({first_line(error)}): repair or reinstall it, then run again"
    version = getattr(torch, "__version__", None)
    if version is None:
        return "the torch found is not PyTorch (it has no version): install the build to validate, then run again"
    if version_tuple(version)[:2] < OLDEST_TORCH:
        return f"torch {version} is too old: this suite validates torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer"
    if not _has("torch.ao.pruning"):
        return f"torch {version} has no torch.ao.pruning: this build ships no sparsity stack, there is nothing to validate"
    return None


def _no_requirements() -> str | None:
    """What requirements.txt asks for, a NumPy that this torch can speak to among it."""
    for package in ("numpy", "expecttest"):
        if not _has(package):
            return f"{package} is not installed: pip install -r requirements.txt, then run again"
    torch, numpy = importlib.import_module("torch"), importlib.import_module("numpy")
    try:
        torch.from_numpy(numpy.zeros(1)).numpy()
    except Exception as error:
        other = '"numpy<2"' if version_tuple(numpy.__version__)[0] >= 2 else "another numpy"
        return (
            f"torch {torch.__version__} cannot exchange arrays with numpy {numpy.__version__} ({first_line(error)}): "
            f"pip install {other}, then run again"
        )
    return None


def _no_processor() -> str | None:
    """Torch's library for quantized numbers and those of half precision ask what the processor is, on Linux by files below /proc."""
    torch = importlib.import_module("torch")
    try:
        torch.zeros(1).half()
    except RuntimeError as error:
        return f"torch cannot tell what the processor is ({first_line(error)}): on Linux mount /proc, then run again"
    return None


def _no_tools() -> str | None:
    # Torch's hint to a failure names a file relative to a folder called "test"; the suite's own is right in this project.
    os.environ.setdefault("PYTORCH_PRINT_REPRO_ON_FAILURE", "0")
    try:
        importlib.import_module("torch.testing._internal.common_utils")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        return f"torch's test tools need {package}, which is not installed: pip install {package}, then run again"
    except Exception as error:
        return f"torch's test tools cannot be imported ({first_line(error)}): repair or reinstall torch, then run again"
    return None


def _no_option() -> str | None:
    """An option of torch's runner that would end in a traceback, in an error of a program that nobody has called, or without a test."""
    options = {argument.partition("=")[0] for argument in sys.argv[1:]}
    module, package = XML
    fault = _fault(module) if "--save-xml" in options else None
    if fault:
        return f"--save-xml needs {package}, which {fault}: pip install {package}, or leave the option out"
    listed = "--import-disabled-tests" in options or os.environ.get("DISABLED_TESTS_FILE")
    if "--rerun-disabled-tests" in options and not listed:
        return "--rerun-disabled-tests skips all tests but those of a list: add --import-disabled-tests=FILE"
    if "--use-pytest" in options:
        return "--use-pytest works in PyTorch's own folder of tests alone; here it is: python -m pytest ao/sparsity"
    return None


def _open_streams() -> None:
    """Where a standard stream is closed, the next file would take its number, and what is printed or silenced there would be that file."""
    number = -1
    while number < 2:
        number = os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(number, True)
    if number > 2:
        os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def require() -> None:
    """Leave with one line on standard error and exit status 3 unless the suite can run here.

    Where the variable CI is set torch's runner writes JUnit XML unasked; without the package for it that would be a traceback
    before the first test, so the variable is taken away from this process, and a line says so.
    """
    _open_streams()
    for name in OVERRIDES:
        os.environ.pop(name, None)
    module, package = XML
    without_xml = _fault(module) if os.environ.get("CI") else None
    if without_xml:
        del os.environ["CI"]  # before torch's test tools are imported, which keep its value
    line = problem()
    if line is not None:
        print(line, file=sys.stderr)
        sys.exit(CANNOT_VALIDATE)
    if without_xml:
        print(f"CI is set, but no JUnit XML is written: {package} {without_xml}", file=sys.stderr)

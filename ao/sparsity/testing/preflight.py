"""Is there anything to validate? Asked before the first torch name is imported."""

import importlib
import importlib.util
import os
import re
import sys

OLDEST_TORCH = (2, 1)
CANNOT_VALIDATE = 3  # exit status
XML = ("xmlrunner", "unittest-xml-reporting")  # module and its package
NEEDS = {"--save-xml": XML, "--use-pytest": ("pytest", "pytest")}  # options of torch's runner


def version_tuple(version):
    """``"2.13.0a0+gitcf3"`` -> ``(2, 13, 0)``: the leading numbers of a version, at least two."""
    numbers = [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]
    return tuple(numbers + [0] * (2 - len(numbers)))


def _has(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a parent package is missing
        return False


def problem():
    """One line saying why this interpreter has nothing to validate and what to do, or None."""
    if not _has("torch"):
        return "torch is not installed: install the build to validate (pip install torch==2.13.0), then run again"
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build may raise anything
        first_line = (str(error).splitlines() or [""])[0]
        return f"torch cannot be imported ({type(error).__name__}: {first_line}): repair or reinstall it, then run again"
    version = getattr(torch, "__version__", None)
    if version is None:
        return "the torch found is not PyTorch (it has no version): install the build to validate, then run again"
    if version_tuple(version)[:2] < OLDEST_TORCH:
        return f"torch {version} is too old: this suite validates torch {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer"
    if not _has("torch.ao.pruning"):
        return f"torch {version} has no torch.ao.pruning: this build ships no sparsity stack, there is nothing to validate"
    for package in ("numpy", "expecttest"):
        if not _has(package):
            return f"{package} is not installed: pip install -r requirements.txt, then run again"
    for option in (argument.partition("=")[0] for argument in sys.argv[1:]):
        module, package = NEEDS.get(option, ("sys", "Python"))
        if not _has(module):
            return f"{option} needs {package}: pip install {package}, or leave the option out"
    return None


def require():
    """Leave with exit status 3 and one line on standard error unless the suite can run here.

    Where the variable CI is set torch's runner writes JUnit XML unasked; without the package for it that would be a traceback
    before the first test, so the variable is taken away from this process, and a line says so.
    """
    line = problem()
    if line is not None:
        print(line, file=sys.stderr)
        sys.exit(CANNOT_VALIDATE)
    module, package = XML
    if os.environ.get("CI") and not _has(module):
        del os.environ["CI"]
        print(f"CI is set, but no JUnit XML is written: {package} is not installed", file=sys.stderr)

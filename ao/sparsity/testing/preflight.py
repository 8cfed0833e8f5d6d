"""Is there anything to validate? Asked before the first torch name is imported."""

import importlib
import importlib.util
import re
import sys

OLDEST_TORCH = (2, 1)
CANNOT_VALIDATE = 3  # exit status


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
    return None


def require():
    """Leave with exit status 3 and one line on standard error unless the suite can run here."""
    line = problem()
    if line is not None:
        print(line, file=sys.stderr)
        sys.exit(CANNOT_VALIDATE)

"""When a known defect is certain to show: conditions in a line of text, asked of the build and the machine.

A condition reads ``fact operator value``; several are joined by `` and ``::

    fbgemm = avx512 and python < 3.14

The facts are FACTS below. Versions are compared number by number, everything else as text; a fact that nobody knows here
(the instruction set of FBGEMM on Windows, say) meets no condition.
"""

import dataclasses
import functools
import importlib.util
import operator
import os
import pathlib
import platform
import re
import sys

import torch

from ao.sparsity.testing import build
from ao.sparsity.testing.preflight import version_tuple

_OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}  # what FBGEMM asks for before it uses AVX-512


@functools.lru_cache(maxsize=1)
def _processor_flags() -> frozenset | None:
    """The instruction sets that Linux lists for the first processor, or None where nothing lists them."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else None


def _fbgemm() -> str | None:
    """The instruction set that FBGEMM uses, ``avx512`` or ``avx2``; None where there is no FBGEMM or nobody knows.

    FBGEMM asks the processor, whatever ATEN_CPU_CAPABILITY says; only its own variable lowers the answer.
    """
    flags = _processor_flags()
    if "fbgemm" not in build.engines() or flags is None:
        return None
    lowered = "AVX2" in os.environ.get("FBGEMM_ENABLE_INSTRUCTIONS", "").upper()
    return "avx512" if flags >= _AVX512 and not lowered else "avx2"


def _packages() -> str:
    """``installed`` where the packages under test lie in torch's own folder, else ``elsewhere``, as a copy of them does."""
    package = importlib.util.find_spec("torch.ao.pruning")
    origin = (package.origin if package else None) or torch.__file__
    return "installed" if pathlib.Path(torch.__file__).resolve().parent in pathlib.Path(origin).resolve().parents else "elsewhere"


FACTS: dict = {
    "torch": lambda: build.torch_release(),
    "python": lambda: f"{sys.version_info.major}.{sys.version_info.minor}",
    "platform": lambda: sys.platform,
    "machine": lambda: platform.machine().lower(),
    "capability": lambda: build.cpu_capability().lower(),
    "fbgemm": _fbgemm,
    "onednn": lambda: "on" if torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled() else "off",
    "packages": _packages,
    "asserts": lambda: "removed" if build.NO_ASSERTS else "kept",
    "accelerator": lambda: "present" if len(build.devices()) > 1 else "absent",
}
_VERSIONS = ("torch", "python")


@dataclasses.dataclass(frozen=True)
class Condition:
    """One comparison of a fact with a value.

    Args:
        fact: a key of FACTS.
        compare: ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``.
        value: what the fact is compared with, lower case.
    """

    fact: str
    compare: str
    value: str

    def holds(self) -> bool:
        """Whether it is met by this build, on this machine, now."""
        current = FACTS[self.fact]()
        if current is None:
            return False
        known, value = (version_tuple(text) if self.fact in _VERSIONS else text for text in (current, self.value))
        return _OPERATORS[self.compare](known, value)


def parse(text: str) -> tuple:
    """The conditions in ``text``, none where it is empty.

    Returns:
        tuple[Condition, ...]

    Raises:
        ValueError: for a fact that is not in FACTS, or anything that is no comparison.
    """
    conditions = []
    for part in re.split(r"\s+and\s+", text.strip()) if text.strip() else ():
        found = re.fullmatch(r"(\w+)\s*(=|!=|<=|>=|<|>)\s*(\S+)", part)
        if found is None or found.group(1) not in FACTS:
            raise ValueError(f"{part!r} is no condition: fact, operator, value; the facts are {', '.join(FACTS)}")
        conditions.append(Condition(*found.groups()))
    return tuple(conditions)

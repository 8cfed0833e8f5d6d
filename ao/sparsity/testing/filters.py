"""Filters that were written for PyTorch's own tests, where classes are split by device; here one class has the tests of all devices.

Torch's instantiate_device_type_tests makes classes like ``TestFPGMPrunerDeviceCPU`` and tests like ``test_update_mask_cpu_float32``.
"""

from __future__ import annotations

import re

_TYPES = ("CPU", "CUDA", "MPS", "XPU", "HPU", "MTIA", "META", "LAZY", "PRIVATEUSE1")
_BY_DEVICE = re.compile(
    rf"\b(?P<holder>[A-Z]\w*?[a-z])(?:Device(?:Type)?[A-Z0-9]*|{'|'.join(_TYPES)})(?!\w)"
    rf"(?:(?P<test>\.\w+?)_(?:{'|'.join(_TYPES).lower()})(?:_[a-z]+\d+)?(?!\w))?"
)


def as_here(pattern: str) -> str:
    """What a filter asks for, in this suite's names: ``"*TestFPGMPrunerDeviceCPU.test_x_cpu*"`` -> ``"*TestFPGMPruner.test_x*"``.

    pattern: words with unittest's wildcards, or an expression of pytest's; without a class by device it stays as it is, apart from the
    module ``__main__``, which upstream's classes have.
    """
    return _BY_DEVICE.sub(lambda match: match["holder"] + (match["test"] or ""), pattern.replace("__main__.", ""))

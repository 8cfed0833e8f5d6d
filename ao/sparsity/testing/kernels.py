"""Quantized tensors given by their integers, and the base of the tests that run sparse quantized kernels."""

import platform
import warnings

from ao.sparsity.testing.base import TestCase  # first: it asks whether there is a torch to validate

import numpy as np
import torch

from ao.sparsity.testing import build

BLOCK = (1, 4)  # the block shape that every engine with sparse kernels has
COLUMN_BLOCK = (8, 1)  # packed by qnnpack everywhere, run only where it has a kernel for it (ARM)

# Which blocks of a weight are kept, by row and column of blocks.
KEPT = {
    "every block": lambda i, j: i >= 0,
    "a chessboard of blocks": lambda i, j: (i + j) % 2 == 0,
    "every third row": lambda i, j: i % 3 == 0,
    "one column of blocks": lambda i, j: j == 0,
    "no block": lambda i, j: i < 0,
}
SCALES = {False: 0.25, True: [0.5, 0.25, 2.0]}  # powers of two: every step of the arithmetic is exact

# What to call what was not asked, and the engine that has it where a build has it.
_NAMES = {
    "static": ("static kernels", "fbgemm"),
    "dynamic": ("dynamic kernels", "qnnpack"),
    "pack": ("packed weights", "fbgemm, no qnnpack"),
}


def scales_of(per_channel, out_features):
    return [SCALES[True][i % 3] for i in range(out_features)] if per_channel else SCALES[False]


def stored_input(leading, features, high):
    """Integers 0 .. high, both ends among them where there is room."""
    numbers = (np.arange(np.prod(leading, dtype=int) * features) * 29) % (high + 1)
    numbers[-1:], numbers[:1] = high, 0
    return numbers.reshape(*leading, features)


def real_input(leading, features, scale=0.5, zero_point=100):
    """Real numbers that lie on the 256 steps into which a dynamic kernel divides their range."""
    return (stored_input(leading, features, 255) - zero_point).astype(np.float64) * scale


def bias_of(out_features):
    return (np.arange(out_features) % 7 - 3.0) * 8


def float_tensor(numbers):
    return torch.as_tensor(np.asarray(numbers), dtype=torch.float32)


def quantized_input(integers, scale=1.0, zero_point=0):
    """A quint8 tensor with these stored integers."""
    return torch._make_per_tensor_quantized_tensor(torch.as_tensor(integers, dtype=torch.uint8), scale, zero_point)


def quantized_weight(integers, scale=1.0, zero_point=0):
    """A qint8 tensor with these stored integers; per channel (axis 0) where ``scale`` is a sequence.

    Args:
        integers: (out_features, in_features).
        scale, zero_point: numbers, or for a weight per channel ``scale`` a sequence and ``zero_point`` a sequence or 0.
    """
    integers = torch.as_tensor(integers, dtype=torch.int8)
    if not isinstance(scale, (list, tuple)):
        return torch._make_per_tensor_quantized_tensor(integers, scale, zero_point)
    zero_points = torch.as_tensor(zero_point).expand(len(scale)).to(torch.int64)
    return torch._make_per_channel_quantized_tensor(integers, torch.tensor(scale, dtype=torch.float64), zero_points, 0)


class KernelCase(TestCase):
    """A test case of quantized kernels: without torch's notes that quantized tensors or eager quantization are deprecated."""

    def setUp(self):
        super().setUp()
        quiet = warnings.catch_warnings()
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)
        warnings.simplefilter("ignore")

    def engines(self, mode, block=BLOCK, relu=False):
        """Engines on which the kernel works, see build.engines_with; without any the test is skipped."""
        found = build.engines_with(mode, block, relu)
        if not found:
            name, engine = _NAMES[mode]
            if block == BLOCK:
                self.skipTest(f"{name} (no {engine})")
            self.skipTest(f"{name} with {block[0]} x {block[1]} blocks (none on {platform.machine()})")
        return found

    def a_packing_engine(self):
        """One engine that packs weights, for what is written in Python and so the same on each; without any the test is skipped."""
        return self.engines("pack")[0]

    def skip_unless_runs(self, engine, mode):
        """Skip, naming what is missing, unless the engine runs the kernel here."""
        if build.sparse_qlinear_refusal(engine, mode) is not None:
            self.skipTest(f"{_NAMES[mode][0]} (no {engine})")

    def assertExact(self, found, expected, what=""):
        """Fail, showing both, unless a tensor has the dtype, shape, quantization and numbers of another.

        The comparison of torch's assertEqual, to the last bit and without its price (0.3 ms a call).
        """
        if found.dtype != expected.dtype or found.shape != expected.shape or not torch.equal(found, expected):
            self.fail(f"{what or 'tensor'} is {found} ({found.dtype}), expected {expected} ({expected.dtype})")

    def skip_unless_packs(self, *engines):
        """Skip, naming what is missing, unless each of the engines packs weights here."""
        missing = [engine for engine in engines if build.sparse_qlinear_refusal(engine, "pack") is not None]
        if missing:
            self.skipTest(f"packed weights (no {', no '.join(missing)})")

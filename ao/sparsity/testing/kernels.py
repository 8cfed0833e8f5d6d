"""Quantized tensors given by their integers, and the base of the tests that run sparse quantized kernels."""

import platform
import warnings

import torch

from ao.sparsity.testing import build
from ao.sparsity.testing.base import TestCase

BLOCK = (1, 4)  # the block shape that every engine with sparse kernels has
COLUMN_BLOCK = (8, 1)  # packed by qnnpack everywhere, run only where it has a kernel for it (ARM)

# The engine to name where a build has no such kernel.
_USUAL_ENGINE = {"static": "fbgemm", "dynamic": "qnnpack", "pack": "fbgemm, no qnnpack"}


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
            missing = f"no {_USUAL_ENGINE[mode]}" if block == BLOCK and not relu else f"none on {platform.machine()}"
            detail = f" with {block[0]} x {block[1]} blocks" if block != BLOCK else ""
            self.skipTest(f"{mode} {'ReLU ' if relu else ''}kernels{detail} ({missing})")
        return found

    def assert_exact(self, found, expected, what=""):
        """Fail, showing both, unless a tensor has the dtype, shape, quantization and numbers of another.

        The comparison of torch's assertEqual, to the last bit and without its price (0.3 ms a call).
        """
        if found.dtype != expected.dtype or found.shape != expected.shape or not torch.equal(found, expected):
            self.fail(f"{what or 'tensor'} is {found} ({found.dtype}), expected {expected} ({expected.dtype})")

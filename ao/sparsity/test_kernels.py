# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestQuantizedSparseKernels(TestCase):
    """placeholder"""


class TestQuantizedSparseLayers(TestCase):
    """placeholder"""

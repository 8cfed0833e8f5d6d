# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestBaseSparsifier(TestCase):
    """placeholder"""


class TestWeightNormSparsifier(TestCase):
    """placeholder"""


class TestNearlyDiagonalSparsifier(TestCase):
    """placeholder"""

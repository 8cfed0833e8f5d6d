# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestSaliencyPruner(TestCase):
    """placeholder"""


class TestBaseStructuredSparsifier(TestCase):
    """placeholder"""


class TestFPGMPruner(TestCase):
    """placeholder"""

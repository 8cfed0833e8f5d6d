# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestComposability(TestCase):
    """placeholder"""


class TestFxComposability(TestCase):
    """placeholder"""

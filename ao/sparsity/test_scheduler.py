# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestScheduler(TestCase):
    """placeholder"""


class TestCubicScheduler(TestCase):
    """placeholder"""

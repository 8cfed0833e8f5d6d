# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestActivationSparsifier(TestCase):
    """placeholder"""

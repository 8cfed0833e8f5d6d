# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestBaseDataSparsifier(TestCase):
    """placeholder"""


class TestNormDataSparsifiers(TestCase):
    """placeholder"""


class TestQuantizationUtils(TestCase):
    """placeholder"""

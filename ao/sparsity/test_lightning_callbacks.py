# Owner(s): ["module: sparse"]
"""placeholder"""
from ao.sparsity.testing.base import TestCase


class TestPostTrainingDataSparsity(TestCase):
    """placeholder"""


class TestTrainingAwareDataSparsity(TestCase):
    """placeholder"""

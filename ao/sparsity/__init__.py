"""Conformance tests of PyTorch's sparsity stack, one file per area, named as in PyTorch's own ``test/ao/sparsity``."""

__version__ = "2.1"

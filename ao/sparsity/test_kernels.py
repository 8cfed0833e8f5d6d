# Owner(s): ["module: sparse"]
"""Sparse quantized linear: the kernels, the layers made of them, and the context that chooses their block shape."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

from ao.sparsity.kernels.layers import (  # noqa: F401
    SparseQuantizedModel,
    TestQuantizedSparseLayers,
    _sparse_layer_test_helper,
)
from ao.sparsity.kernels.operators import TestQuantizedSparseKernels  # noqa: F401

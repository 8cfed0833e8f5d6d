# Owner(s): ["module: sparse"]
"""Data sparsifiers, which own the masks of raw tensors, parameters and embeddings, and the quantization of embeddings."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

from ao.sparsity.data_sparsifier.base import TestBaseDataSparsifier  # noqa: F401
from ao.sparsity.data_sparsifier.embeddings import TestQuantizationUtils  # noqa: F401
from ao.sparsity.data_sparsifier.histories import TestDataSparsifierHistories  # noqa: F401
from ao.sparsity.data_sparsifier.norm import TestNormDataSparsifiers  # noqa: F401

# Owner(s): ["module: sparse"]
"""Data sparsifiers, which own the masks of raw tensors, parameters and embeddings, and the quantization of embeddings."""

from ao.sparsity.data_sparsifier.base import TestBaseDataSparsifier  # noqa: F401
from ao.sparsity.data_sparsifier.embeddings import TestQuantizationUtils  # noqa: F401
from ao.sparsity.data_sparsifier.histories import TestDataSparsifierHistories  # noqa: F401
from ao.sparsity.data_sparsifier.norm import TestNormDataSparsifiers  # noqa: F401

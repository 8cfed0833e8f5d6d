# Owner(s): ["module: sparse"]
"""Sparsifiers that mask single elements: the base class, by the norm of blocks, by distance from the diagonal."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

from ao.sparsity.sparsifier.base import TestBaseSparsifier  # noqa: F401
from ao.sparsity.sparsifier.histories import TestSparsifierHistories  # noqa: F401
from ao.sparsity.sparsifier.nearly_diagonal import TestNearlyDiagonalSparsifier  # noqa: F401
from ao.sparsity.sparsifier.weight_norm import TestWeightNormSparsifier  # noqa: F401

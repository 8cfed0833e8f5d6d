# Owner(s): ["module: sparse"]
"""Sparsifiers that mask single elements: the base class, by the norm of blocks, by distance from the diagonal."""

from ao.sparsity.sparsifier.base import TestBaseSparsifier  # noqa: F401
from ao.sparsity.sparsifier.histories import TestSparsifierHistories  # noqa: F401
from ao.sparsity.sparsifier.nearly_diagonal import TestNearlyDiagonalSparsifier  # noqa: F401
from ao.sparsity.sparsifier.weight_norm import TestWeightNormSparsifier  # noqa: F401

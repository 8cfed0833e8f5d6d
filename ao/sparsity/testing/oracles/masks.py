"""Masks that the sparsifiers promise, computed with NumPy from their docstrings."""

import numpy as np

NORMS = {1: np.abs, 2: np.square}


def blocks(shape, block_shape):
    """Slices of the blocks that tile a matrix from its zero index, row by row; blocks at the edges may be smaller.

    Args:
        shape: (rows, columns) of the matrix.
        block_shape: (rows, columns) of a block.

    Returns:
        list[tuple[slice, slice]]: one (rows, columns) pair a block.
    """
    return [
        (slice(top, min(top + block_shape[0], shape[0])), slice(left, min(left + block_shape[1], shape[1])))
        for top in range(0, shape[0], block_shape[0])
        for left in range(0, shape[1], block_shape[1])
    ]


def block_norms(weight, block_shape, norm=2):
    """Mean of the elements' norms in each block, in the order of ``blocks``.

    The mean, not the sum, so that a block cut off by the edge competes on equal terms with a whole one.

    Args:
        weight: matrix, float.
        block_shape: (rows, columns) of a block.
        norm: 1 (absolute values), 2 (squares) or a callable from a matrix to the matrix of its elements' norms.
    """
    values = NORMS.get(norm, norm)(np.asarray(weight, dtype=np.float64))
    return np.array([values[block].mean() for block in blocks(values.shape, block_shape)])


def blocks_to_prune(level, count):
    """How many of ``count`` blocks the level asks for: all from 1 on, none up to 0, else the nearest number below all."""
    if level >= 1:
        return count
    return max(0, min(count - 1, round(level * count)))


def weight_norm_mask(weight, level, block_shape=(1, 4), zeros_per_block=None, norm=2):
    """Mask of WeightNormSparsifier: zero in the blocks of lowest norm, there in the ``zeros_per_block`` smallest elements.

    Args:
        weight: matrix, float.
        level: share of the blocks that are pruned.
        block_shape: (rows, columns) of a block.
        zeros_per_block: number of zeros in a pruned block; all of it if None.
        norm: see block_norms.

    Returns:
        numpy.ndarray: 0 where pruned, else 1; float, shape of ``weight``.

    Raises:
        ValueError: if equal norms leave it open which block or element goes.

    Source: class docstring of torch.ao.pruning.WeightNormSparsifier.
    """
    weight = np.asarray(weight, dtype=np.float64)
    values = NORMS.get(norm, norm)(weight)
    tiling = blocks(weight.shape, block_shape)
    mask = np.ones(weight.shape)
    for index in _lowest(block_norms(weight, block_shape, norm), blocks_to_prune(level, len(tiling))):
        part = values[tiling[index]]
        kept = np.ones(part.size)
        kept[_lowest(part.ravel(), part.size if zeros_per_block is None else zeros_per_block)] = 0
        mask[tiling[index]] = kept.reshape(part.shape)
    return mask


def _lowest(values, count):
    """Indices of the ``count`` lowest values; ValueError if more than ``count`` have a claim."""
    order = np.argsort(values, kind="stable")
    if 0 < count < len(values) and values[order[count - 1]] == values[order[count]]:
        raise ValueError(f"{values[order[count]]} is among the {count} lowest and among the others: the mask is not determined")
    return order[:count]


def nearly_diagonal_mask(shape, nearliness):
    """Mask of NearlyDiagonalSparsifier: ones on the ``nearliness`` (odd) diagonals closest to the main one; none if <= 0.

    Source: class docstring of torch.ao.pruning.NearlyDiagonalSparsifier.
    """
    rows, columns = np.indices(shape)
    return (np.abs(rows - columns) <= (nearliness - 1) / 2).astype(np.float64) if nearliness > 0 else np.zeros(shape)

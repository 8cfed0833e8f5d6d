"""References for masks over raw data and for row-wise quantized embeddings."""

import numpy as np

FLOAT32_EPS = float(np.finfo(np.float32).eps)


def data_norm_mask(data, level, block_shape, zeros_per_block=None, norm="L1"):
    """Mask of DataNormSparsifier for two-dimensional data, from its class docstring.

    Blocks start at the zero index; those at the edges may be cut off. A block is rated by the mean of the absolute values (L1)
    or squares (L2) of the elements that it has, so that a cut-off block competes by magnitude and not by size. In the
    ``round(level * blocks)`` lowest blocks (half to even) the ``zeros_per_block`` smallest elements become zero. Of
    equals the first in row-major order goes first.

    Args:
        data: array of shape (rows, columns).
        level: share of blocks; 0 and less prunes none of them, 1 and more all.
        block_shape: (rows, columns) of a block.
        zeros_per_block: zeros in each of those blocks, default all of its elements.
        norm: ``"L1"`` or ``"L2"``.

    Returns:
        numpy.ndarray: int8 of the shape of ``data``: 0 pruned, 1 kept.
    """
    data = np.asarray(data, dtype=np.float64)
    magnitude = np.abs(data) if norm == "L1" else data * data
    block_rows, block_columns = block_shape
    zeros = block_rows * block_columns if zeros_per_block is None else zeros_per_block
    blocks = [
        (slice(row, row + block_rows), slice(column, column + block_columns))
        for row in range(0, data.shape[0], block_rows)
        for column in range(0, data.shape[1], block_columns)
    ]
    ratings = np.array([magnitude[block].mean() for block in blocks])
    number = min(max(round(level * len(blocks)), 0), len(blocks))
    mask = np.ones(data.shape, dtype=np.int8)
    for index in np.argsort(ratings, kind="stable")[:number]:
        part = magnitude[blocks[index]]
        keep = np.ones(part.size, dtype=np.int8)
        keep[np.argsort(part.ravel(), kind="stable")[:zeros]] = 0
        mask[blocks[index]] = keep.reshape(part.shape)
    return mask


def row_qparams(weight, levels=256, eps=FLOAT32_EPS):
    """Scales and floating point zero points of a weight quantized row by row over its whole range.

    ``scale = (max - min) / (levels - 1)``, or 1 for a row whose range is no larger than ``eps`` levels;
    ``zero_point = -min / scale`` (torch.per_channel_affine_float_qparams).

    Args:
        weight: array of shape (rows, columns).
        levels: number of representable values, 256 for quint8.

    Returns:
        tuple[numpy.ndarray, numpy.ndarray]: scales and zero points, float64 of shape (rows,).
    """
    weight = np.asarray(weight, dtype=np.float64)
    low = weight.min(axis=1)
    scales = (weight.max(axis=1) - low) / (levels - 1)
    scales = np.where(scales > eps, scales, 1.0)
    return scales, -low / scales


def quantize_rows(weight, scales, zero_points, levels=256):
    """Integers that represent ``weight``: ``clip(round(weight / scale + zero_point), 0, levels - 1)``, half to even."""
    exact = np.asarray(weight, dtype=np.float64) / scales[:, None] + zero_points[:, None]
    return np.clip(np.round(exact), 0, levels - 1).astype(np.int64)


def dequantize_rows(integers, scales, zero_points):
    """Values that the integers stand for: ``(integer - zero_point) * scale``, row by row."""
    return (integers - zero_points[:, None]) * scales[:, None]


def bags(weight, indices, offsets, mode="sum"):
    """Reduced rows of nn.EmbeddingBag.

    Args:
        weight: array of shape (rows, columns).
        indices: row of each entry.
        offsets: index of the first entry of each bag.
        mode: ``"sum"``, ``"mean"`` or ``"max"``; an empty bag gives zeros.

    Returns:
        numpy.ndarray: shape (bags, columns).
    """
    ends = [*offsets[1:], len(indices)]
    reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode]
    rows = [weight[indices[start:end]] for start, end in zip(offsets, ends)]
    return np.stack([reduce(part, axis=0) if len(part) else np.zeros(weight.shape[1]) for part in rows])

"""Integer model of the quantized linear layer, and of the block-compressed form in which its weight is packed.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018),
sections 2.1 to 2.4, for the arithmetic; block compressed sparse rows (BCSR) for the packed weight.
A scale here may be one number or one per output feature; with powers of two every step is exact.
"""

import numpy as np


def accumulate(x, x_zero_point, w, w_zero_point=0):
    """Integer products of a quantized linear, before they are scaled.

    Args:
        x: (..., in_features) stored integers of the input.
        w: (out_features, in_features) stored integers of the weight.
        x_zero_point: integer that stands for zero in ``x``.
        w_zero_point: the same for ``w``, one number or one per output feature.

    Returns:
        numpy.ndarray: (..., out_features), int64. The kernels accumulate in int32, so the operands must keep the sums there.
    """
    x = np.asarray(x, dtype=np.int64) - x_zero_point
    w = np.asarray(w, dtype=np.int64) - np.reshape(w_zero_point, (-1, 1))
    sums = x @ w.T
    if sums.size and np.abs(sums).max() >= 2**31:
        raise OverflowError(f"the sums reach {np.abs(sums).max()}, beyond int32")
    return sums


def requantize(real, scale, zero_point, lowest=0, highest=255):
    """Stored integers of real numbers: divide by the scale, round halves to even, add the zero point, clamp.

    Args:
        real: numbers, any shape.
        scale, zero_point: of the result.
        lowest, highest: range of the stored integers, quint8's by default.

    Returns:
        numpy.ndarray: as ``real``, int64.
    """
    return np.clip(np.rint(np.asarray(real, dtype=np.float64) / scale) + zero_point, lowest, highest).astype(np.int64)


def static_linear(x, x_scale, x_zero_point, w, w_scale, bias, y_scale, y_zero_point, relu=False):
    """Stored integers (quint8) of a quantized linear with quantized input and output; the weight's zero point is 0.

    Args:
        x, w, x_zero_point: see accumulate.
        w_scale: one number or one per output feature.
        bias: (out_features,) real numbers, or None.
        relu: clamp at zero, that is at the output's zero point.
    """
    real = accumulate(x, x_zero_point, w) * (x_scale * np.asarray(w_scale, dtype=np.float64)) + (0 if bias is None else bias)
    return requantize(real, y_scale, y_zero_point, lowest=max(0, y_zero_point) if relu else 0)


def input_qparams(x):
    """Scale and zero point by which a dynamic kernel quantizes its input to 0 .. 255: the range of ``x`` and 0.

    Args:
        x: real numbers, at least one; their range must be exact in steps of the scale (the zero point is not nudged here).
    """
    low, high = min(0.0, float(np.min(x))), max(0.0, float(np.max(x)))
    scale = (high - low) / 255 if high > low else 0.1
    return scale, int(np.rint(-low / scale))


def dynamic_linear(x, w, w_scale, w_zero_point=0, bias=None):
    """Real numbers of a dynamically quantized linear: the input is quantized over its own range, the output is real.

    Args:
        x: (..., in_features) real numbers.
        w, w_zero_point: see accumulate.
        w_scale: one number or one per output feature.
        bias: (out_features,) real numbers, or None.
    """
    scale, zero_point = input_qparams(x)
    stored = requantize(x, scale, zero_point)
    sums = accumulate(stored, zero_point, w, w_zero_point)
    return sums * (scale * np.asarray(w_scale, dtype=np.float64)) + (0 if bias is None else bias)


def pack_blocks(w, rows, columns, zero_point=0):
    """Block-compressed rows of a weight: only blocks with a number other than the zero point are stored.

    Args:
        w: (out_features, in_features) stored integers; a ragged edge is filled up with the zero point.
        rows, columns: shape of a block.
        zero_point: one number, or one per output feature.

    Returns:
        (row_starts, column_indices, values): ``row_starts`` has one entry per row of blocks and the total; ``values`` has
        ``rows * columns`` integers a block, row by row.
    """
    w = np.asarray(w, dtype=np.int64)
    zero = np.broadcast_to(np.reshape(zero_point, (-1, 1)), w.shape)
    row_starts, column_indices, values = [0], [], []
    for top in range(0, w.shape[0], rows):
        for left in range(0, w.shape[1], columns):
            block, zeros = (part[top : top + rows, left : left + columns] for part in (w, zero))
            if (block != zeros).any():
                full = np.full((rows, columns), zeros[0, 0])
                full[: block.shape[0], : block.shape[1]] = block
                column_indices.append(left // columns)
                values.extend(full.ravel().tolist())
        row_starts.append(len(column_indices))
    return row_starts, column_indices, values


def block_sparse(rows, columns, block, kept, low=-128, high=127):
    """A weight of small integers in which every block but those kept is zero; nothing about it is random.

    Args:
        rows, columns: shape of the weight.
        block: shape of a block.
        kept: ``kept(i, j)``, called with arrays, says whether the block in row ``i`` and column ``j`` of blocks is kept.
        low, high: range of the integers, which run through it in steps of 37.
    """
    row, column = np.indices((rows, columns))
    numbers = ((row * columns + column) * 37) % (high - low + 1) + low
    numbers[numbers == 0] = 1
    return np.where(kept(row // block[0], column // block[1]), numbers, 0)

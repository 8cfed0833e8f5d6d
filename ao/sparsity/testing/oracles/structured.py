"""References for structured pruning: what is supported, and which rows each criterion keeps."""

import fractions

import numpy as np

# Elementwise activations that may stand between two prunable layers, by their names in torch.nn.functional and torch.nn.
ACTIVATION_FUNCTIONS = (
    *("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish"),
    *("prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh", "tanhshrink"),
)
ACTIVATION_MODULES = (
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish"),
    *("PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink"),
)
POOLS = ("nn.AvgPool2d", "F.avg_pool2d", "nn.MaxPool2d", "F.max_pool2d")


def supported_patterns():
    """The chains of operations that structured pruning supports.

    Returns:
        dict[tuple[str, ...], str]: for each chain of dotted names (``"nn.Linear"``, ``"F.relu"``, ``"torch.flatten"``,
        ``"operator.getitem"``; ``"output"`` for the output of the model) the name of the function that prunes it.
    """
    linear, conv, lstm = "nn.Linear", "nn.Conv2d", "nn.LSTM"
    table = {
        (linear, "output"): "prune_linear",
        (linear, linear): "prune_linear_linear",
        (conv, "output"): "prune_conv2d",
        (conv, conv): "prune_conv2d_conv2d",
        (lstm, "operator.getitem", linear): "prune_lstm_output_linear",
        (lstm, "operator.getitem", "nn.LayerNorm", linear): "prune_lstm_output_layernorm_linear",
    }
    for pool in ("nn.AdaptiveAvgPool2d", "nn.AdaptiveMaxPool2d"):
        for flatten in ("nn.Flatten", "torch.flatten"):
            table[conv, pool, flatten, linear] = "prune_conv2d_pool_flatten_linear"
    activations = [f"F.{name}" for name in ACTIVATION_FUNCTIONS] + [f"nn.{name}" for name in ACTIVATION_MODULES]
    for activation in activations:
        table[linear, activation, linear] = "prune_linear_activation_linear"
        table[conv, activation, conv] = "prune_conv2d_activation_conv2d"
        for pool in POOLS:
            table[conv, activation, pool, conv] = "prune_conv2d_activation_pool_conv2d"
            table[conv, pool, activation, conv] = "prune_conv2d_pool_activation_conv2d"
    return table


def _without_smallest(scores, count):
    """Boolean mask over ``scores`` without the ``count`` smallest."""
    kept = np.ones(len(scores), dtype=bool)
    kept[np.argsort(scores, kind="stable")[:count]] = False
    return kept


def saliency_mask(weight, level):
    """Rows that pruning by saliency keeps: all but the ``level`` part with the smallest L1 norms, rounded down.

    Args:
        weight: array (rows, ...).
        level: part of the rows to prune, 0 to 1.

    Returns:
        array of bool, (rows,).
    """
    weight = np.asarray(weight)
    count = int(len(weight) * fractions.Fraction(str(level)))  # 0.29 of 100 rows are 29
    return _without_smallest(np.abs(weight).reshape(len(weight), -1).sum(axis=1), count)


def lstm_saliency_mask(weight, level):
    """As saliency_mask, for each of the four gates that are packed into the rows of an LSTM's weight on its own.

    Args:
        weight: array (4 * hidden, columns).
        level: part of each gate's rows to prune, 0 to 1.

    Returns:
        array of bool, (4 * hidden,).
    """
    return np.concatenate([saliency_mask(gate, level) for gate in np.split(np.asarray(weight), 4)])


def total_distances(weight, order):
    """Sum of the distances of each filter to all others; the smallest is nearest to the geometric median.

    Args:
        weight: array (filters, ...).
        order: 1 (sum of absolute differences) or 2 (Euclidean).

    Returns:
        array of float64, (filters,). Source: He et al., Filter Pruning via Geometric Median, arXiv 1811.00250, equation 6.
    """
    flat = np.asarray(weight, dtype=np.float64).reshape(len(weight), -1)
    difference = np.abs(flat[:, None, :] - flat[None, :, :])
    return ((difference**order).sum(axis=2) ** (1 / order)).sum(axis=1)


def fpgm_mask(weight, level, order=2):
    """Filters that FPGM keeps: all but the ``level`` part nearest to the others, to the nearest number, ties to even.

    Args:
        weight: array (filters, ...).
        level: part of the filters to prune; below 0 is 0, above 1 is 1.
        order: as in total_distances.

    Returns:
        array of bool, (filters,).
    """
    count = round(min(max(level, 0), 1) * len(weight))
    return _without_smallest(total_distances(weight, order), count)

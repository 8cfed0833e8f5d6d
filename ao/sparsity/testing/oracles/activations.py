"""Masks over activations, in NumPy."""

import functools

import numpy as np


def select(activation, feature=None, dim=None):
    """The slice of ``activation`` at index ``feature`` of dimension ``dim``, which keeps its size-1 dimension.

    ``feature=None`` selects everything; a list selects several indices.
    """
    if feature is None:
        return activation
    return np.take(activation, np.atleast_1d(feature), axis=dim)


def aggregate(activations, combine, feature=None, dim=None):
    """Fold ``activations`` (arrays, one a forward pass) from the left with ``combine(so_far, next)``."""
    return functools.reduce(combine, [select(activation, feature, dim) for activation in activations])


def masks(activations, combine, reduce, mask, features=None, dim=None):
    """mask(reduce(aggregate(activations))), for everything or for each feature.

    Args:
        activations: arrays, one a forward pass.
        combine: function of two arrays.
        reduce, mask: functions of one array.
        features: indices along ``dim``, or None.
        dim: dimension of the features.

    Returns:
        one array if ``features`` is None, else a list of arrays, one a feature.
    """
    if features is None:
        return mask(reduce(aggregate(activations, combine)))
    return [mask(reduce(aggregate(activations, combine, feature, dim))) for feature in features]


def sparsified(activation, mask, features=None, dim=None):
    """``activation`` times its mask, or with each selected feature times its own mask; a new array."""
    if features is None:
        return activation * mask
    result = activation.copy()
    for feature, feature_mask in zip(features, mask):
        index = [slice(None)] * activation.ndim
        index[dim] = np.atleast_1d(feature)
        result[tuple(index)] = select(activation, feature, dim) * feature_mask
    return result

"""Small models of linear layers, and weights whose norms are all different."""

import functools

import numpy as np
import torch
from torch import nn


def distinct_weight(rows, columns, seed=0, dtype=torch.float32):
    """A matrix of the integers 1 .. rows * columns, shuffled, with mixed signs: no two elements have the same absolute value.

    Drawn from NumPy's own generator, so that torch's is untouched.
    """
    return torch.from_numpy(_distinct(rows, columns, seed)).to(dtype, copy=True)


@functools.cache
def _distinct(rows, columns, seed):
    generator = np.random.default_rng(seed)
    values = generator.permutation(rows * columns) + 1.0
    values *= generator.choice([-1.0, 1.0], size=values.shape)
    return values.reshape(rows, columns)


def linear(weight, bias=False):
    """An nn.Linear that holds a copy of ``weight``, and a bias of ones if asked for."""
    weight = torch.as_tensor(weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias:
            layer.bias.fill_(1)
    return layer


def chain(*weights):
    """nn.Sequential of linear layers with these weights: tensors "0.weight", "1.weight", ..."""
    return nn.Sequential(*(linear(weight) for weight in weights))


class Nested(nn.Module):
    """Linear layers at three depths: ``first`` (6 x 4), ``body.inner.0`` (8 x 6, then ReLU), ``body.last`` (4 x 8)."""

    def __init__(self):
        super().__init__()
        self.first = linear(distinct_weight(6, 4, 1))
        self.body = nn.Module()
        self.body.inner = nn.Sequential(linear(distinct_weight(8, 6, 2), bias=True), nn.ReLU())
        self.body.last = linear(distinct_weight(4, 8, 3))

    def forward(self, x):
        return self.body.last(self.body.inner(self.first(x)))


NESTED_TENSORS = ("first.weight", "body.inner.0.weight", "body.last.weight")

"""Small sparsifiers, and what tests of any sparsifier of model tensors ask and do."""

import io

import torch
from torch import nn

from ao.sparsity.testing.models.linear import chain, distinct_weight

from torch.ao.pruning import BaseSparsifier, FakeSparsity


class FirstRows(BaseSparsifier):
    """Smallest sparsifier: masks the first ``rows`` rows, and notes the gradient mode it is called in."""

    def __init__(self, **defaults):
        super().__init__(defaults=defaults)
        self.gradient_modes = []

    def update_mask(self, module, tensor_name, rows=1, **kwargs):
        self.gradient_modes.append(torch.is_grad_enabled())
        mask_of(module, tensor_name)[:rows] = 0


class Converted(nn.Module):
    """Target of a conversion; remembers the module that it was made from."""

    def __init__(self, dense):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.made_from = [dense]

    def forward(self, x):
        return x * self.scale

    @classmethod
    def from_dense(cls, dense):
        return cls(dense)


class Negate(nn.Module):
    """A parametrization of somebody else's."""

    def forward(self, x):
        return -x


def mask_of(module, tensor_name="weight"):
    """Mask of the last FakeSparsity on a tensor."""
    return [p.mask for p in module.parametrizations[tensor_name] if isinstance(p, FakeSparsity)][-1]


def masks_on(module, tensor_name="weight"):
    """How many FakeSparsity a tensor has."""
    return sum(isinstance(p, FakeSparsity) for p in module.parametrizations[tensor_name])


def prepared(sparsifier, *weights, **config):
    """A chain of linear layers with ``weights`` (one of 2 x 3 unless given), prepared by ``sparsifier``, which comes back too."""
    model = chain(*(weights or [distinct_weight(2, 3)]))
    sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight", **config} for index in range(len(model))])
    return model, sparsifier


def on_disk(state):
    """``state`` after torch.save and a torch.load that trusts the file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=False)

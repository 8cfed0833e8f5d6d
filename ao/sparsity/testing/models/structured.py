"""Models, and a pruner of given rows, for the tests of structured pruning."""

import contextlib

import torch
from torch import nn
from torch.ao.pruning._experimental.pruner import BaseStructuredSparsifier, FakeStructuredSparsity


class Chain(nn.Module):
    """Applies its steps, modules or functions of one argument, one after the other; a module is called by its place: ``"0"``."""

    def __init__(self, *steps):
        super().__init__()
        self.functions = {}
        for place, step in enumerate(steps):
            if isinstance(step, nn.Module):
                self.add_module(str(place), step)
            else:
                self.functions[str(place)] = step
        self.places = [str(place) for place in range(len(steps))]

    def forward(self, x):
        for place in self.places:
            x = self.functions[place](x) if place in self.functions else getattr(self, place)(x)
        return x


class Branches(nn.Module):
    """Applies every one of its chains to the same input and returns all outputs; chain 3 is called ``"3"``."""

    def __init__(self, *chains):
        super().__init__()
        for place, chain in enumerate(chains):
            self.add_module(str(place), chain)

    def forward(self, x):
        return tuple(chain(x) for chain in self.children())


class RowPruner(BaseStructuredSparsifier):
    """Prunes just the ``rows`` that the configuration of a tensor names."""

    def __init__(self, rows=(), patterns=None):
        super().__init__({"rows": rows}, patterns)

    def update_mask(self, module, tensor_name, rows, **kwargs):
        for parametrization in module.parametrizations[tensor_name]:
            if isinstance(parametrization, FakeStructuredSparsity):
                parametrization.mask[list(rows)] = False


@contextlib.contextmanager
def zeroed(model, config):
    """For the block, the plain ``model`` with the ``rows`` of each entry of ``config`` set to zero by hand.

    An entry's bias rows are zero too, unless it says ``prune_bias=False``; biases of layers that are neither linear nor
    convolutional stay.
    """
    saved = []
    with torch.no_grad():
        for entry in config:
            path, _, name = entry["tensor_fqn"].rpartition(".")
            module = model.get_submodule(path)
            tensors = [getattr(module, name)]
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None and entry.get("prune_bias", True):
                tensors.append(module.bias)
            for tensor in tensors:
                saved.append((tensor, tensor.clone()))
                tensor[list(entry["rows"])] = 0
    try:
        yield model
    finally:
        with torch.no_grad():
            for tensor, values in reversed(saved):
                tensor.copy_(values)

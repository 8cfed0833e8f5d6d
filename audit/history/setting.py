"""What every probe starts with: imports and small objects. It is put before the probe's code and run with it."""

import copy
import warnings

import torch
from torch import nn
from torch.ao.pruning import BaseSparsifier, WeightNormSparsifier

warnings.simplefilter("ignore")
torch.manual_seed(0)


def linears(*sizes, bias=True):
    """Linear layers of these widths, one after the other."""
    return nn.Sequential(*(nn.Linear(a, b, bias=bias) for a, b in zip(sizes, sizes[1:])))


def prepared(model=None, config=None, kind=WeightNormSparsifier, **settings):
    """A model (default: two linear layers) and its sparsifier, prepared."""
    model = linears(8, 4, 4) if model is None else model
    sparsifier = kind(**settings)
    sparsifier.prepare(model, config)
    return model, sparsifier


def masks(sparsifier):
    """The masks of a sparsifier, as nested lists of numbers."""
    return [state["mask"].int().tolist() for state in sparsifier.state.values()]


class Halves(BaseSparsifier):
    """Sparsifies the first half of the rows, and counts its calls."""

    calls = 0

    def update_mask(self, module, tensor_name, **kwargs):
        self.calls += 1
        mask = getattr(module.parametrizations, tensor_name)[0].mask
        mask.data[: len(mask) // 2] = 0


def said(call, *arguments, **settings):
    """What a call returns or raises."""
    try:
        return call(*arguments, **settings)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def copied(value):
    """A deep copy."""
    return copy.deepcopy(value)

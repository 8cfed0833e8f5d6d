"""What the tests of data sparsifiers share: data of every type, a sparsifier of known masks, and the base case."""

import contextlib
import warnings

from ao.sparsity.testing.base import TestCase  # first: it asks whether there is a torch to validate

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ao.sparsity.testing import build

with warnings.catch_warnings():
    from torch.ao.pruning._experimental.data_sparsifier import (
        BaseDataSparsifier,
    )


class RowSparsifier(BaseDataSparsifier):
    """Zeroes the first ``rows`` rows of every mask, and notes what update_mask was given."""

    def __init__(self, data_list=None, **defaults):
        self.calls = []
        super().__init__(data_list=data_list, **defaults)

    def update_mask(self, name, data, rows=1, **config):
        self.calls.append((name, data, {"rows": rows, **config}, torch.is_grad_enabled()))
        self.get_mask(name)[:rows] = 0


class Doubling(nn.Module):
    """A parametrization other than FakeSparsity: masks and doubles."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return 2 * self.mask * x


def counting(*shape, start=1, **options):
    """Tensor of ``shape`` with the values start, start + 1, ..."""
    count = int(np.prod(shape))
    return torch.arange(start, start + count, dtype=options.pop("dtype", torch.float32), **options).reshape(shape)


def scattered(*shape, seed=0):
    """Array of ``shape`` with distinct integers of both signs, whose sums are exact in every dtype."""
    count = int(np.prod(shape))
    generator = np.random.RandomState(seed)
    values = generator.permutation(count) + 1
    return (values * generator.choice([-1, 1], count)).reshape(shape)


def as_tensor(shape=(4, 4)):
    """(data, its weight) for a plain tensor."""
    data = counting(*shape)
    return data, data


def as_parameter(shape=(4, 4)):
    """(data, its weight) for a parameter."""
    data = nn.Parameter(counting(*shape))
    return data, data


def as_embedding(shape=(4, 4), kind=nn.Embedding):
    """(data, its weight) for an embedding."""
    data = kind(*shape)
    with torch.no_grad():
        data.weight.copy_(counting(*shape))
    return data, data.weight


def as_embedding_bag(shape=(4, 4)):
    """(data, its weight) for an embedding bag."""
    return as_embedding(shape, nn.EmbeddingBag)


EMBEDDINGS = (as_embedding, as_embedding_bag)


EVERY_TYPE = (as_tensor, as_parameter, *EMBEDDINGS)


@contextlib.contextmanager
def silenced():
    """Replacing data warns, and that is checked in one place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def elsewhere():
    """Other defaults than the data's device and dtype: what takes them from the defaults ends on the wrong device."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def refusal(words):
    """Regular expression for the message of an AssertionError: ``words``, or anything where it may be a bare assert."""
    return words if build.TORCH_VERSION >= (2, 13) else ""


def pools(dtype):
    """Whether this build can average tensors of ``dtype`` on the CPU, as data-norm masks need it."""
    try:
        nn.functional.avg_pool2d(torch.ones(1, 1, 2, 2, dtype=dtype), 2)
    except RuntimeError:
        return False
    return True


def parametrizations(sparsifier, name):
    """Modules that turn the data of ``name`` into its sparse form."""
    return list(sparsifier._container.parametrizations[name])


class DataSparsifierTestCase(TestCase):
    """Comparisons that every data sparsifier needs; holds no test."""

    def assertMask(self, sparsifier, name, expected, case=""):
        """The mask of ``name`` equals the array ``expected``, and is the one that is applied."""
        mask = sparsifier.get_mask(name)
        if not np.array_equal(mask.detach().cpu().double().numpy(), expected):
            self.fail(f"{case}: the mask of {name!r} is\n{mask}\nexpected\n{expected}")
        if is_parametrized(sparsifier._container, name):
            self.assertIs(parametrizations(sparsifier, name)[0].mask, mask, f"{case}: get_mask() is not the mask applied to {name!r}")

    def assertValues(self, actual, expected, case=""):
        """The tensor ``actual`` has exactly the shape and the values of ``expected``."""
        expected = np.asarray(expected.detach().double() if isinstance(expected, torch.Tensor) else expected)
        if not np.array_equal(actual.detach().cpu().double().numpy(), expected):
            self.fail(f"{case}: values are\n{actual}\nexpected\n{expected}")

    def assertConfig(self, group, expected):
        """The configuration ``group`` has ``expected`` in it; a sparsifier may carry more."""
        self.assertEqual({key: group.get(key) for key in expected}, expected)

    def check_life(self, build, make, expected_mask, defaults):
        """Construct, step, add data, save and load, squash: what is promised for every type of data.

        Args:
            build: called with a list of (name, data), returns the sparsifier.
            make: returns data and the tensor that is its weight.
            expected_mask: called with a weight's array, returns the mask after step().
            defaults: the configuration that data gets which brings none.
        """
        (first, first_weight), (second, second_weight), (third, third_weight) = make(), make((8, 4)), make((2, 4))
        values = {name: w.detach().clone() for name, w in (("first", first_weight), ("second", second_weight), ("third", third_weight))}
        sparsifier = build([("first", first), ("second", second)])

        self.assertEqual(list(sparsifier.data_groups), ["first", "second"])
        self.assertConfig(sparsifier.data_groups["second"], defaults)
        self.assertIs(sparsifier.get_data("first"), first_weight, "the data is copied, not attached")
        self.assertMask(sparsifier, "second", np.ones((8, 4)), "before step()")

        added = sparsifier.add_data("third", third, extra=5)
        self.assertConfig(sparsifier.data_groups["third"], {**defaults, "extra": 5})
        self.assertValues(added, values["third"], "data that add_data() returns")

        masks = {name: expected_mask(value.double().numpy()) for name, value in values.items()}
        for repetition in ("step()", "step() twice"):
            sparsifier.step()
            for name, mask in masks.items():
                self.assertMask(sparsifier, name, mask, repetition)
                self.assertValues(sparsifier.get_data(name), values[name], f"{repetition} changed the data")
                self.assertValues(sparsifier.get_data(name, return_original=False), values[name].numpy() * mask, repetition)

        loaded = build([])
        loaded.load_state_dict(sparsifier.state_dict())
        for name, mask in masks.items():
            self.assertMask(loaded, name, mask, "loaded")
            self.assertEqual(loaded.data_groups[name], sparsifier.data_groups[name])
            self.assertValues(loaded.get_data(name), values[name], "loaded")

        sparsifier.squash_mask()
        for name, weight in (("first", first_weight), ("second", second_weight), ("third", third_weight)):
            self.assertIs(sparsifier.get_data(name, return_original=False), weight, "squashing puts another tensor in place")
            self.assertValues(weight, values[name].numpy() * masks[name], "squashed")
            self.assertFalse(is_parametrized(sparsifier._container, name), "squashing leaves the parametrization")


def first_row_zero(weight):
    """Mask that RowSparsifier makes by default."""
    mask = np.ones(weight.shape)
    mask[0] = 0
    return mask

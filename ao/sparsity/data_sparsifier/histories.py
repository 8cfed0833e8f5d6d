"""Long histories of a data sparsifier, against a small model of the state."""

import copy
import warnings

from ao.sparsity.testing.base import TestCase  # first: it asks whether there is a torch to validate

import torch
from torch import nn

from ao.sparsity.testing.histories import hold
from ao.sparsity.testing.oracles import data as oracle
from ao.sparsity.testing.sparsifiers import on_disk

with warnings.catch_warnings():
    from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier

NAMES = ("a", "b_a", "weight")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHAPE = (4, 8)


def values(seed):
    """Random values, all of them other than 0 and of other norms."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) + 1e-3


class _Data:
    """A sparsifier of up to three pieces of data; ``dense``, ``masks`` and ``levels`` by name, and ``on``, are what must be so."""

    def __init__(self):
        self.case = TestCase()
        self.sparsifier = DataNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4))
        self.dense, self.masks, self.levels, self.on = {}, {}, {}, True

    def draw(self, generator):
        verb = generator.choice(["step", "add", "set", "train", "switch", "save_and_load", "squash_a_copy"])
        if verb == "add" or not self.dense:
            return "add", generator.choice(NAMES), generator.randrange(1000), generator.random() < 0.5
        if verb == "set":
            return verb, generator.choice(sorted(self.dense)), generator.choice(LEVELS)
        if verb in ("train", "squash_a_copy"):
            return verb, generator.choice(sorted(self.dense)), generator.randrange(1000)
        return (verb,)

    def add(self, name, seed, reuse_mask):
        """New data has a full mask; data that replaces other takes its level, and its mask if asked."""
        data = nn.Parameter(values(seed)) if seed % 2 else values(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it replaces other data
            self.sparsifier.add_data(name, data, reuse_mask=reuse_mask)
        if name not in self.dense or not reuse_mask:
            self.masks[name] = torch.ones(SHAPE)
        self.dense[name] = values(seed)
        self.levels.setdefault(name, 0.5)
        self.check()

    def step(self):
        """Each mask is that of the data and the level of now, unless updates are off."""
        self.sparsifier.step()
        if self.on:
            for name, weight in self.dense.items():
                self.masks[name] = torch.from_numpy(oracle.data_norm_mask(weight.numpy(), self.levels[name], (1, 4))).float()
        self.check()

    def set(self, name, level):
        """A new level changes nothing before the next step."""
        self.sparsifier.data_groups[name]["sparsity_level"] = self.levels[name] = level
        self.check()

    def train(self, name, seed):
        """New values change no mask."""
        with torch.no_grad():
            self.sparsifier.get_data(name).copy_(values(seed))
        self.dense[name] = values(seed)
        self.check()

    def switch(self):
        """enable_mask_update."""
        self.on = self.sparsifier.enable_mask_update = not self.on
        self.check()

    def save_and_load(self):
        """A new sparsifier that loads the state goes on as the saved one would have."""
        state = on_disk(self.sparsifier.state_dict())
        self.sparsifier = DataNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4))
        self.sparsifier.load_state_dict(state)
        self.sparsifier.enable_mask_update = self.on
        self.check()

    def squash_a_copy(self, name, seed):
        """Squashed data holds the masked values, the rest is as it was; the sparsifier that the state came from knows nothing of it."""
        other = DataNormSparsifier()
        other.load_state_dict(copy.deepcopy(self.sparsifier.state_dict()))
        other.squash_mask(names=[name], leave_parametrized=bool(seed % 2))
        left = self.dense[name] * self.masks[name] if seed % 2 else self.dense[name]
        self.case.assertEqual(other.get_data(name, return_original=False).detach(), left)
        for others in self.dense.keys() - {name}:
            self.case.assertEqual(other.get_data(others).detach(), self.dense[others])
        self.check()

    def check(self):
        """What the model of the state says, whatever was called."""
        groups = {name: group["sparsity_level"] for name, group in self.sparsifier.data_groups.items()}
        self.case.assertEqual((groups, self.sparsifier.enable_mask_update), (self.levels, self.on))
        for name, dense in self.dense.items():
            for what, found, expected in (
                ("mask", self.sparsifier.get_mask(name).float(), self.masks[name]),
                ("data", self.sparsifier.get_data(name), dense),
                ("masked data", self.sparsifier.get_data(name, return_original=False), dense * self.masks[name]),
            ):
                if not torch.equal(found, expected):
                    self.case.fail(f"{what} of {name} is {found}, expected {expected}")


class TestDataSparsifierHistories(TestCase):
    """Add, replace, step, train, change levels, save and load, squash, in any order."""

    def test_any_order_of_calls_leaves_what_was_asked_for(self):
        """Docstrings of the verbs: after each call masks, data and levels are what a model of the state says."""
        hold(_Data, histories=4, length=30)

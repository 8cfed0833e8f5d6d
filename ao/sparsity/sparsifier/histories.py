"""Long histories of a sparsifier and its scheduler, against a small model of the state."""

import copy

from ao.sparsity.testing.base import TestCase  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.nn.utils import parametrize

from ao.sparsity.testing.histories import hold
from ao.sparsity.testing.models.linear import chain
from ao.sparsity.testing.oracles.masks import blocks_to_prune, nearly_diagonal_mask
from ao.sparsity.testing.sparsifiers import mask_of, on_disk

from torch.ao.pruning import BaseSparsifier, LambdaSL, NearlyDiagonalSparsifier, WeightNormSparsifier

SHAPES = ((4, 8), (8, 4))
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


class _FirstRows(BaseSparsifier):
    """Masks the first rows, as many as the level says, whatever the mask was."""

    def __init__(self):
        super().__init__({"sparsity_level": 0.5})

    def update_mask(self, module, tensor_name, sparsity_level, **kwargs):
        mask = mask_of(module, tensor_name)
        mask.fill_(1)
        mask[: round(sparsity_level * len(mask))] = 0


class _Pruning:
    """Two prepared layers under one sparsifier; ``dense``, ``masks``, ``arguments`` and ``on`` are what must be so.

    ``exact`` says whether ``expected_mask`` knows the mask; otherwise it knows how many zeros there are.
    """

    argument, values, exact = "sparsity_level", LEVELS, True

    def __init__(self):
        self.case = TestCase()
        self.dense = [self.weight(seed) for seed in range(len(SHAPES))]
        self.masks = [torch.ones(shape) for shape in SHAPES]
        self.on, self.loaded, self.squashed = True, False, False
        self.model, self.sparsifier = self.fresh()
        self.arguments = [group[self.argument] for group in self.sparsifier.groups]

    def weight(self, seed):
        """Random values without a 0, of the first or second layer by the parity of the seed."""
        return torch.randn(SHAPES[seed % 2], generator=torch.Generator().manual_seed(seed)) + 1e-3

    def fresh(self):
        """A prepared model with the dense weights of now, and its sparsifier."""
        model, sparsifier = chain(*self.dense), self.make()
        sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight"} for index in range(len(SHAPES))])
        return model, sparsifier

    def draw(self, generator):
        verbs = ["step", "set", "train", "switch"] * 3 + ["copy"] + ["save_and_load"] * 3 * (not self.loaded)
        if self.squashed:
            verbs = ["prepare_again"]
        elif generator.random() < 0.03:
            verbs = ["squash"]
        verb = generator.choice(verbs)
        if verb == "set":
            return verb, generator.randrange(2), generator.choice(self.values)
        if verb == "train":
            return verb, generator.randrange(1000)
        return (verb,)

    def step(self):
        """The masks are computed anew, from the arguments of now, unless updates are off."""
        self.sparsifier.step()
        if self.on:
            self.masks = [self.expected_mask(index) for index in range(len(SHAPES))]
        self.check()

    def set(self, index, value):
        """A new argument changes nothing before the next step."""
        self.sparsifier.groups[index][self.argument] = self.arguments[index] = value
        self.check()

    def train(self, seed):
        """New weights change no mask."""
        with torch.no_grad():
            self.model[seed % 2].parametrizations.weight.original.copy_(self.weight(seed))
        self.dense[seed % 2] = self.weight(seed)
        self.check()

    def switch(self):
        """enable_mask_update."""
        self.on = self.sparsifier.enable_mask_update = not self.on
        self.check()

    def copy(self):
        """A copy of the model keeps what it is, whatever happens to the original."""
        twin = copy.deepcopy(self.model)
        for layer in self.model:
            mask_of(layer).zero_()
        self.case.assertEqual([layer.weight.detach() for layer in twin], [d * m for d, m in zip(self.dense, self.masks)])
        for layer, mask in zip(self.model, self.masks):
            mask_of(layer).copy_(mask)
        self.check()

    def save_and_load(self):
        """A fresh pair that loads the weights and the state goes on as the saved one would have."""
        state = on_disk(self.sparsifier.state_dict())
        self.model, self.sparsifier = self.fresh()
        self.sparsifier.load_state_dict(state)
        self.sparsifier.enable_mask_update = self.on
        self.loaded = True
        self.check()

    def squash(self):
        """The weights are what the masks left, and no mask is there any more."""
        self.sparsifier.squash_mask()
        for layer, dense, mask in zip(self.model, self.dense, self.masks):
            self.case.assertFalse(parametrize.is_parametrized(layer))
            self.case.assertEqual(layer.weight.detach(), dense * mask)
        self.dense = [layer.weight.detach().clone() for layer in self.model]
        self.squashed = True

    def prepare_again(self):
        """A new sparsifier on the squashed model starts with full masks and its own defaults."""
        self.masks = [torch.ones(shape) for shape in SHAPES]
        self.sparsifier = self.make()
        self.sparsifier.prepare(self.model, [{"tensor_fqn": f"{index}.weight"} for index in range(len(SHAPES))])
        self.arguments = [group[self.argument] for group in self.sparsifier.groups]
        self.on, self.loaded, self.squashed = True, False, False
        self.check()

    def check(self):
        """What the model of the state says, whatever was called."""
        self.case.assertEqual([group[self.argument] for group in self.sparsifier.groups], self.arguments)
        self.case.assertEqual(self.sparsifier.enable_mask_update, self.on)
        for layer, dense, mask in zip(self.model, self.dense, self.masks):
            self.case.assertEqual(len(layer.parametrizations.weight), 1)
            for found, expected in (
                (layer.parametrizations.weight.original, dense),
                (mask_of(layer).float(), mask),
                (layer.weight, dense * mask),
            ):
                if not torch.equal(found, expected):  # to show tensors takes most of the time
                    self.case.fail(f"{found}, expected {expected}")


class _Rows(_Pruning):
    make = _FirstRows

    def expected_mask(self, index):
        """The first rows are zero."""
        mask = torch.ones(SHAPES[index])
        mask[: round(self.arguments[index] * len(mask))] = 0
        return mask


class _Diagonals(_Pruning):
    make, argument, values = NearlyDiagonalSparsifier, "nearliness", (-1, 0, 1, 3, 5, 7)

    def expected_mask(self, index):
        """By the oracle."""
        return torch.from_numpy(nearly_diagonal_mask(SHAPES[index], self.arguments[index])).float()


class _Blocks(_Pruning):
    make, zeros = WeightNormSparsifier, 4

    def expected_mask(self, index):
        """Whole blocks, as many as the level asks for: the mask that is there, once that has been looked at."""
        mask = mask_of(self.model[index]).float().clone()
        pruned = [zeros for zeros in (mask == 0).reshape(-1, 4).sum(1).tolist() if zeros]
        self.case.assertEqual(
            pruned, [self.zeros] * blocks_to_prune(self.arguments[index], mask.numel() // 4), msg="zeros in pruned blocks"
        )
        return mask


class _TwoOfFour(_Blocks):
    zeros = 2

    @staticmethod
    def make():
        """With two zeros in each pruned block."""
        return WeightNormSparsifier(zeros_per_block=2)


class TestSparsifierHistories(TestCase):
    """Prepare, step, train, change arguments, save and load, copy and squash, in any order."""

    def test_any_order_of_calls_leaves_what_was_asked_for(self):
        """Docstrings of the verbs: after each call masks, weights and arguments are what a model of the state says."""
        for machine in (_Rows, _Diagonals, _Blocks, _TwoOfFour):
            with self.subTest(machine.__name__):
                hold(machine, histories=4, length=30)

    def test_scheduled_levels_rise_fall_and_rise(self):
        """Scheduler, sparsifier and optimizer in turn: at each of 48 epochs the zeros are those of the level of that epoch."""
        levels = [round(abs((epoch % 16) / 8 - 1), 3) for epoch in range(49)]
        model, sparsifier = chain(torch.ones(8, 8)), WeightNormSparsifier(1.0, (1, 4))
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        scheduler = LambdaSL(sparsifier, lambda epoch: levels[epoch])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(0)
        for epoch in range(48):
            x = torch.randn(4, 8, generator=generator)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), x).backward()
            optimizer.step()
            sparsifier.step()
            zeros = int((mask_of(model[0]) == 0).sum())
            self.assertEqual((epoch, zeros), (epoch, 4 * blocks_to_prune(levels[epoch], 16)))
            scheduler.step()
            self.assertEqual((scheduler.last_epoch, scheduler.get_last_sl()), (epoch + 1, [levels[epoch + 1]]))

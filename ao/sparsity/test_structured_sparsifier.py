# Owner(s): ["module: sparse"]
"""Structured pruning: criteria, what prepare() adds, which chains match, and that pruned models compute what masked ones do."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

from ao.sparsity.structured_sparsifier.cases import StructuredTestCase, resolve  # first: it asks whether there is a torch to validate

import torch.nn.functional as F
from torch import nn
from torch.ao.pruning._experimental.pruner import BaseStructuredSparsifier, base_structured_sparsifier, prune_functions

from ao.sparsity.structured_sparsifier.biases import TestStructuredBiases  # noqa: F401
from ao.sparsity.structured_sparsifier.criteria import TestFPGMPruner, TestSaliencyPruner  # noqa: F401
from ao.sparsity.structured_sparsifier.functions import TestStructuredPruneFunctions  # noqa: F401
from ao.sparsity.structured_sparsifier.lstm import LSTMPruningTests
from ao.sparsity.structured_sparsifier.matching import TestStructuredChains, TestStructuredMatching  # noqa: F401
from ao.sparsity.structured_sparsifier.models import TestStructuredModels  # noqa: F401
from ao.sparsity.structured_sparsifier.preparation import PreparationTests, TestStructuredParametrizations  # noqa: F401
from ao.sparsity.structured_sparsifier.pruning import PruningTests
from ao.sparsity.testing.models.structured import RowPruner
from ao.sparsity.testing.oracles import structured


class TestBaseStructuredSparsifier(PreparationTests, PruningTests, LSTMPruningTests, StructuredTestCase):
    """The base class of structured pruners: what it supports; its parts stand in the folder beside."""

    in_companion = True

    def test_constructor(self):
        """The base class is abstract; defaults and patterns are kept, and without patterns the supported ones are used."""
        with self.assertRaises(TypeError):
            BaseStructuredSparsifier({})
        table = {(nn.Linear, "output"): prune_functions.prune_linear}
        for patterns in (table, {}):
            self.assertIs(RowPruner(patterns=patterns).patterns, patterns)
        pruner = RowPruner(rows=(1,))
        self.assertEqual(pruner.defaults, {"rows": (1,)})
        self.assertEqual((pruner.groups, pruner.enable_mask_update), ([], True))
        self.assertEqual(set(pruner.patterns), {tuple(map(resolve, names)) for names in structured.supported_patterns()})

    def test_supported_patterns_are_exactly_the_documented_ones(self):
        """Each supported chain of operations has its pruning function, and no other chain is claimed."""
        table = base_structured_sparsifier._get_default_structured_pruning_patterns()
        for names, function in structured.supported_patterns().items():
            pattern = tuple(map(resolve, names))
            with self.subTest(pattern=names):
                self.assertIs(table.pop(pattern), getattr(prune_functions, function))
        self.assertFalse(table, msg="patterns that are not documented")

    def test_supported_modules_are_exactly_the_documented_ones(self):
        """The tables of layers and activations, made anew at each call so that a caller's change stays with the caller."""
        for read, expected in (
            (base_structured_sparsifier._get_supported_structured_pruning_modules, {nn.Linear, nn.Conv2d, nn.LSTM}),
            (
                base_structured_sparsifier._get_supported_activation_functions,
                {getattr(F, name) for name in structured.ACTIVATION_FUNCTIONS},
            ),
            (base_structured_sparsifier._get_supported_activation_modules, {getattr(nn, name) for name in structured.ACTIVATION_MODULES}),
        ):
            with self.subTest(table=read.__name__):
                self.assertSetEqual(read(), expected)
                read().clear()
                self.assertSetEqual(read(), expected)

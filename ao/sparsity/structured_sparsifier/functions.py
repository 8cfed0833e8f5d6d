"""The functions that cut layers, one at a time."""

import itertools
import operator

from ao.sparsity.testing.base import TestCase

import torch
from torch import nn
from torch.ao.pruning._experimental.pruner import BiasHook, FakeStructuredSparsity, prune_functions
from torch.nn.utils import parametrize

from ao.sparsity.structured_sparsifier.cases import UNIT_1, Scaled, counted, entry, lstm_entries, prepared_with, silence
from ao.sparsity.testing import build
from ao.sparsity.testing.models.structured import Chain


class TestStructuredPruneFunctions(TestCase):
    MASK = torch.tensor([True, False, True, False])

    def biased(self, layer, bias=None, original=None):
        """The layer with these biases: ``bias`` as its own, ``original`` as the one that prepare() put aside."""
        layer.bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        if original is not None:
            layer._bias = nn.Parameter(torch.tensor(original))
        return layer

    def assertBias(self, layer, expected):
        """The layer's bias must be a parameter of these numbers, in the type of its weight, that can be trained; or None."""
        self.assertEqual(None if layer.bias is None else layer.bias.tolist(), expected)
        if expected is not None:
            self.assertIsInstance(layer.bias, nn.Parameter)
            self.assertEqual((layer.bias.dtype, layer.bias.requires_grad), (layer.weight.dtype, True))

    def test_remove_bias_handles_removes_just_the_bias_hooks(self):
        """All BiasHooks of a module go, other hooks stay in order; something without hooks is no error."""
        linear = nn.Linear(2, 2)
        parametrization = FakeStructuredSparsity(torch.ones(2, dtype=torch.bool))
        others = [lambda *args: None, lambda *args: None]
        for hook in (BiasHook(parametrization, True), others[0], BiasHook(parametrization, False), others[1]):
            linear.register_forward_hook(hook)
        linear.register_forward_pre_hook(others[0])
        prune_functions._remove_bias_handles(linear)
        self.assertListEqual(list(linear._forward_hooks.values()), others)
        self.assertListEqual(list(linear._forward_pre_hooks.values()), others[:1])
        prune_functions._remove_bias_handles(torch.flatten)

    def test_prune_module_bias_keeps_the_rows_of_the_mask(self):
        """The bias put aside, or else the layer's own, is cut to the kept rows and becomes the layer's; none stays none."""
        for bias, original, expected in (
            (None, [1.0, 2, 3, 4], [1.0, 3]),
            ([5.0, 6, 7, 8], None, [5.0, 7]),
            (None, None, None),
        ):
            with self.subTest(bias=bias, original=original):
                layer = self.biased(nn.Linear(2, 4), bias, original).double()
                prune_functions._prune_module_bias(layer, self.MASK)
                self.assertBias(layer, expected)
                self.assertFalse(hasattr(layer, "_bias"))

    def test_propagate_module_bias_returns_the_pruned_rows(self):
        """Kept rows become the layer's bias, pruned rows of the bias put aside are returned; none gives None."""
        name = "_propagate_module_bias" if build.TORCH_VERSION >= (2, 4) else "_propogate_module_bias"  # so it was spelled
        propagate = getattr(prune_functions, name)
        for bias, original, expected, returned in (
            (None, [1.0, 2, 3, 4], [1.0, 3], [2.0, 4]),
            ([5.0, 6, 7, 8], [1.0, 2, 3, 4], [5.0, 7], [2.0, 4]),
            ([5.0, 6, 7, 8], None, [5.0, 7], None),
            (None, None, None, None),
        ):
            with self.subTest(bias=bias, original=original):
                layer = self.biased(nn.Linear(2, 4), bias, original).double()
                pruned = propagate(layer, self.MASK)
                self.assertBias(layer, expected)
                self.assertEqual(None if pruned is None else pruned.tolist(), returned)
                self.assertFalse(hasattr(layer, "_bias"))

    def test_prune_conv2d_padded_without_bias_takes_the_mask_away(self):
        """A convolution that has no bias to keep keeps its masked weight, and gets none."""
        conv = nn.Conv2d(1, 2, 1, bias=False)
        prepared_with(Chain(conv), [entry("0.weight", 1)])
        masked = conv.weight.detach().clone()
        prune_functions.prune_conv2d_padded(conv)
        self.assertEqual((conv.weight, conv.bias), (masked, None))
        self.assertFalse(parametrize.is_parametrized(conv))

    def test_prune_conv2d_padded_finds_its_mask_behind_another(self):
        """The rows of the bias follow the structured mask also where the weight has another parametrization before it."""
        conv = counted(nn.Conv2d(1, 2, 1))
        parametrize.register_parametrization(conv, "weight", Scaled())
        conv.bias, bias = None, conv.bias
        parametrize.register_parametrization(conv, "weight", FakeStructuredSparsity(torch.tensor([True, False])))
        self.biased(conv, [5.0, 6.0], bias.tolist())
        masked = conv.weight.detach().clone()
        prune_functions.prune_conv2d_padded(conv)
        self.assertEqual(conv.weight, masked)
        self.assertBias(conv, [5.0, bias[1].item()])

    def test_adjusted_bias_is_the_response_to_the_pruned_biases(self):
        """New bias = old bias + the layer's weight applied to a constant input that has the pruned biases in pruned channels."""
        pruned = torch.tensor([2.0, -3.0])
        constant = torch.tensor([0.0, 2.0, 0.0, -3.0])
        for kind, bias, is_prepared in itertools.product((nn.Linear, nn.Conv2d), (True, False), (True, False)):
            with self.subTest(layer=kind.__name__, bias=bias, prepared=is_prepared):
                layer = kind(4, 3, bias=bias) if kind is nn.Linear else kind(4, 3, (2, 3), bias=bias)
                x = constant if kind is nn.Linear else constant.reshape(1, 4, 1, 1).expand(1, 4, 2, 3)
                expected = layer(x).detach().flatten()
                if is_prepared:
                    prepared_with(Chain(layer), [entry("0.weight", 1)])
                adjusted = prune_functions._get_adjusted_next_layer_bias(layer, pruned, self.MASK)
                self.assertIsInstance(adjusted, nn.Parameter)
                self.assertTrue(adjusted.requires_grad)
                torch.testing.assert_close(adjusted.detach(), expected)

    def test_cut_layers_keep_dtype_and_can_be_trained(self):
        """Layers that lose rows or columns have parameters as before: of one dtype, trainable; the next layer may be prepared, too."""
        for is_prepared in (False, True):
            for cut, *steps in (
                (prune_functions.prune_linear_linear, nn.Linear(3, 4), nn.Linear(4, 2)),
                (prune_functions.prune_conv2d_conv2d, nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)),
                (prune_functions.prune_conv2d_conv2d, nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1)),
                (
                    prune_functions.prune_conv2d_pool_flatten_linear,
                    *(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
                ),
                (
                    prune_functions.prune_lstm_output_layernorm_linear,
                    *(nn.LSTM(3, 4), operator.getitem, nn.LayerNorm(4), nn.Linear(4, 2)),
                ),
            ):
                with self.subTest(cut=cut.__name__, padding=getattr(steps[-1], "padding", None), prepared=is_prepared):
                    chain, config = Chain(*steps).double().eval(), [entry("0.weight", 1, prune_bias=False)]
                    if isinstance(steps[0], nn.LSTM):
                        silence(chain)
                        config = lstm_entries(*UNIT_1)
                    if is_prepared:
                        config.append(entry(f"{len(steps) - 1}.weight", 1, prune_bias=False))
                    prepared_with(chain, config, patterns={})
                    cut(*steps)
                    found = {name: (parameter.dtype, parameter.requires_grad) for name, parameter in chain.named_parameters()}
                    self.assertDictEqual(found, dict.fromkeys(found, (torch.float64, True)))
                    self.assertListEqual([step for step in steps if getattr(step, "training", False)], [], msg="steps in training")

    def test_adjusted_next_layer_bias_refuses_other_layers(self):
        """Only linear layers and two-dimensional convolutions can take a bias over; the message names the type of another."""
        with self.assertRaisesRegex(NotImplementedError, r"Conv1d'>"):
            prune_functions._get_adjusted_next_layer_bias(nn.Conv1d(4, 2, 1), torch.zeros(2), self.MASK)

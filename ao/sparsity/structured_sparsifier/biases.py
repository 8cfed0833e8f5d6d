"""What becomes of the biases of pruned rows: dropped with their rows, or added to the next layer."""

import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from ao.sparsity.structured_sparsifier.cases import values, entry, Scaled, StructuredTestCase
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Chain


class TestStructuredBiases(StructuredTestCase):
    """prune() and biases: with ``prune_bias=False`` what a pruned bias contributes moves on to the next layer."""

    @known_defect("linear-at-the-output-loses-the-bias-that-is-not-pruned")
    def test_prune_linear_at_the_output_keeps_the_bias(self):
        """With prune_bias=False a layer whose rows are cut at the output keeps the bias of the rows that are left."""
        chain = Chain(nn.Linear(3, 4))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False)], values(5, 3), kept=[0, 2, 3])

    @known_defect("conv2d-at-the-output-loses-the-bias-that-is-not-pruned")
    def test_prune_conv2d_at_the_output_keeps_the_bias(self):
        """With prune_bias=False a layer whose filters are cut at the output keeps the bias of the filters that are left."""
        chain = Chain(nn.Conv2d(1, 4, 1))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False)], values(2, 1, 3, 3), kept=[0, 2, 3])

    @known_defect("linear-at-the-output-keeps-every-row-of-a-propagated-bias")
    def test_prune_linear_at_the_output_cuts_a_propagated_bias(self):
        """A layer without a bias of its own that gets one from its predecessor is cut at the output together with it."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 4, bias=False))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2)], values(5, 3), kept=[0, 1, 3])

    @known_defect("conv2d-at-the-output-keeps-every-row-of-a-propagated-bias")
    def test_prune_conv2d_at_the_output_cuts_a_propagated_bias(self):
        """A layer without a bias of its own that gets one from its predecessor is cut at the output together with it."""
        chain = Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, bias=False))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2)], values(2, 1, 3, 3), kept=[0, 1, 3])

    @known_defect("propagated-bias-is-lost-in-a-layer-whose-bias-is-pruned")
    def test_prune_keeps_a_propagated_bias_where_biases_are_pruned(self):
        """A bias that moves on (prune_bias=False) is still there when the next layer's pruned biases are dropped."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False), entry("1.weight", 0)], values(5, 3))

    @known_defect("bias-of-a-parametrized-next-layer-is-replaced")
    def test_prune_adds_a_propagated_bias_to_that_of_a_parametrized_layer(self):
        """A next layer with a parametrization of the user's keeps its own bias when it takes over another."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
        chain.get_submodule("0").bias.data.zero_()  # what is propagated is zero
        parametrize.register_parametrization(chain.get_submodule("1"), "weight", Scaled())
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("bias-is-propagated-through-the-original-of-a-parametrized-weight")
    def test_prune_propagates_a_bias_through_the_weight_that_is_used(self):
        """What a pruned bias contributes to a parametrized next layer goes by the weight that the layer computes with."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
        parametrize.register_parametrization(chain.get_submodule("1"), "weight", Scaled())
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("linear-rows-are-dropped-though-the-activation-of-zero-is-not-zero")
    def test_prune_linear_keeps_what_an_activation_makes_of_zero(self):
        """A masked row gives sigmoid(0) = 0.5 to the next layer; all activations with f(0) != 0 are supported ones."""
        for activation in (nn.Sigmoid(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Softplus(), F.softplus):
            self.check_chain(Chain(nn.Linear(3, 4), activation, nn.Linear(4, 2)), 1, test=self.assertPrunedOrRefused)

    @known_defect("conv2d-filters-are-dropped-though-the-activation-of-zero-is-not-zero")
    def test_prune_conv2d_keeps_what_an_activation_makes_of_zero(self):
        """A masked filter without bias gives sigmoid(0) = 0.5 to the next layer."""
        for activation in (nn.Sigmoid(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Softplus(), F.softplus):
            self.check_chain(Chain(nn.Conv2d(1, 4, 1, bias=False), activation, nn.Conv2d(4, 2, 1)), 1, test=self.assertPrunedOrRefused)

    @known_defect("bias-is-propagated-through-an-activation-without-its-arguments")
    def test_prune_propagates_a_bias_through_the_activation_as_it_is_called(self):
        """leaky_relu(x, 0.5) is applied to the pruned bias with that slope, not with the default one."""
        chain = Chain(nn.Linear(3, 4), functools.partial(F.leaky_relu, negative_slope=0.5), nn.Linear(4, 2))
        chain.get_submodule("0").bias.data[1] = -3
        self.check_chain(chain, 1, prune_bias=False)

    @known_defect("functional-prelu-crashes-where-a-bias-is-propagated")
    def test_prune_propagates_a_bias_through_functional_prelu(self):
        """F.prelu is a supported activation; it cannot be called without its weight."""
        self.check_chain(
            Chain(nn.Linear(3, 4), functools.partial(F.prelu, weight=torch.tensor([0.3])), nn.Linear(4, 2)), 1, prune_bias=False
        )

    @known_defect("bias-is-propagated-as-if-average-pools-had-no-padding")
    def test_prune_keeps_the_border_of_a_padded_average_pool(self):
        """Behind AvgPool2d(padding=1) a constant channel is smaller at the border, so its bias cannot simply move on."""
        self.check_chain(
            Chain(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 2, 1)),
            1,
            2,
            test=self.assertPrunedOrRefused,
            prune_bias=False,
        )

    @known_defect("bias-is-propagated-as-if-average-pools-kept-constants")
    def test_prune_propagates_a_bias_through_the_divisor_of_an_average_pool(self):
        """AvgPool2d(2, divisor_override=1) makes four of a constant one, and so of a pruned bias."""
        self.check_chain(
            Chain(nn.Conv2d(1, 4, 1), nn.Tanh(), nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(4, 2, 1)),
            1,
            2,
            test=self.assertPrunedOrRefused,
            prune_bias=False,
        )

    @known_defect("pruned-bias-survives-before-a-padded-conv2d")
    def test_prune_bias_before_a_padded_conv2d_drops_it(self):
        """With prune_bias=True the pruned bias is gone, whether or not the model has run between step() and prune()."""
        self.check_chain(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1)), 1, test=self.assertPrunedOrRefused)

    @known_defect("filters-before-a-padded-conv2d-stay-though-their-bias-is-pruned")
    def test_prune_bias_before_a_padded_conv2d_cuts_the_filters(self):
        """With prune_bias=True and f(0) = 0 a masked channel is zero, at the border too: its filter is removed."""
        chain = Chain(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
        pruned = self.prune(chain, [entry("0.weight", 1)])
        self.assertEqual(
            (pruned.get_submodule("0").out_channels, pruned.get_submodule("2").in_channels), (3, 3), msg="channels between the layers"
        )

    @known_defect("padded-conv2d-loses-dtype-of-a-propagated-bias")
    def test_prune_before_a_padded_conv2d_keeps_the_type_of_numbers(self):
        """A float64 model stays one where a layer before a padded one has a bias of its own and a propagated one."""
        chain = Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)).double()
        config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2, prune_bias=False)]
        self.assertPrunedAsMasked(chain, config, values(2, 1, 5, 5).double(), uncut=["1"], hooks_left=["1"])

    @known_defect("flatten-of-a-full-mask-loses-dtype")
    def test_prune_of_a_full_mask_before_flatten_keeps_the_type_of_numbers(self):
        """In a float64 model a chain with a linear layer behind flatten can be pruned by no filter, as by any."""
        self.check_chain(
            Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double(),
            x=values(2, 1, 5, 5).double(),
            prune_bias=False,
        )

    @known_defect("conv2d-without-bias-before-flatten-crashes")
    def test_prune_conv2d_without_bias_before_flatten(self):
        """conv2d -> adaptive pool -> flatten -> linear is supported with bias=False too."""
        self.check_chain(Chain(nn.Conv2d(1, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), 1)

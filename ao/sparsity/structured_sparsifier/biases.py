"""What becomes of the biases of pruned rows: dropped with their rows, or added to the next layer."""

import functools
import itertools

from ao.sparsity.structured_sparsifier.cases import (  # first: it asks whether there is a torch to validate
    NEXT_LAYERS,
    Scaled,
    StructuredTestCase,
    counted,
    entry,
    patterns_in,
    prepared_with,
)

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal import common_utils
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Chain, zeroed

# The supported activations of which f(0) is not 0.
RAISED = {"Sigmoid": nn.Sigmoid(), "Hardsigmoid": nn.Hardsigmoid(), "LogSigmoid": nn.LogSigmoid(), "Softplus": nn.Softplus()}


def by_place(kernel_size, stride=None, padding=0, divisor_override=None):
    """F.avg_pool2d as a step that is called without naming any option."""

    def pool(x):
        return F.avg_pool2d(x, kernel_size, stride, padding, False, True, divisor_override)

    pool.func = F.avg_pool2d
    return pool


# A pool with these options, as a module and as a function.
AVERAGE_POOLS = {
    "module": nn.AvgPool2d,
    "function": lambda kernel_size, **options: functools.partial(F.avg_pool2d, kernel_size=kernel_size, **options),
    "by_place": by_place,
}
ORDERS = ("pool_first", "activation_first")


def pooled(pool, order, **conv):
    """conv2d, the pool and ReLU in that order, conv2d."""
    middle = (pool, nn.ReLU()) if order == "pool_first" else (nn.ReLU(), pool)
    return counted(Chain(nn.Conv2d(1, 4, 1, **conv), *middle, nn.Conv2d(4, 2, 1)))


@instantiate_parametrized_tests
class TestStructuredBiases(StructuredTestCase):
    """prune() and biases: with ``prune_bias=False`` what a pruned bias contributes moves on to the next layer.

    Source of what is asked: the README of the package, by which masked rows and the columns that use them are removed and the
    output of the masked model is preserved; prune_bias is an option of each tensor and True by default.
    """

    # At the output

    @known_defect("linear-at-the-output-loses-the-bias-that-is-not-pruned")
    def test_prune_linear_at_the_output_keeps_the_bias(self):
        """With prune_bias=False a layer whose rows are cut at the output keeps the bias of the rows that are left."""
        chain = counted(Chain(nn.Linear(3, 4)))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False)], torch.ones(1, 3), kept=[0, 2, 3])

    @known_defect("conv2d-at-the-output-loses-the-bias-that-is-not-pruned")
    def test_prune_conv2d_at_the_output_keeps_the_bias(self):
        """With prune_bias=False a layer whose filters are cut at the output keeps the bias of the filters that are left."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1)))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False)], torch.ones(1, 1, 1, 1), kept=[0, 2, 3])

    def test_prune_moves_a_bias_to_a_layer_that_was_squashed_before(self):
        """A next layer whose masks another pruner has squashed adds its own bias once, beside the one that moves to it."""
        chain = counted(Chain(nn.Linear(3, 4), nn.Linear(4, 4)))
        prepared_with(chain, [entry("1.weight", 2)]).squash_mask()
        pruner = prepared_with(chain, [entry("0.weight", 1, prune_bias=False)], patterns=patterns_in(chain))
        x = torch.ones(1, 3)
        expected = chain(x)
        self.assertTensorsClose(pruner.prune()(x), expected, "pruned is not masked")

    @known_defect("linear-at-the-output-keeps-every-row-of-a-propagated-bias")
    def test_prune_linear_at_the_output_cuts_a_propagated_bias(self):
        """A layer without a bias of its own that gets one from its predecessor is cut at the output together with it."""
        chain = counted(Chain(nn.Linear(3, 4), nn.Linear(4, 4, bias=False)))
        config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2)]
        self.assertPrunedAsMasked(chain, config, torch.ones(1, 3), kept=[0, 1, 3])

    @known_defect("conv2d-at-the-output-keeps-every-row-of-a-propagated-bias")
    def test_prune_conv2d_at_the_output_cuts_a_propagated_bias(self):
        """A layer without a bias of its own that gets one from its predecessor is cut at the output together with it."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, bias=False)))
        config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2)]
        self.assertPrunedAsMasked(chain, config, torch.ones(1, 1, 1, 1), kept=[0, 1, 3])

    @common_utils.parametrize("kind", ("linear", "conv2d"))
    def test_prune_at_the_output_cuts_a_bias_that_is_pruned(self, kind):
        """With prune_bias=True the biases of pruned rows go with their rows, whether the layer before is cut or not."""
        x = torch.ones(1, 3) if kind == "linear" else torch.ones(1, 3, 1, 1)
        for rows in ((), (1,), (0, 3)):
            with self.subTest(rows=rows):
                config = [entry("0.weight", *rows), entry("1.weight", 2)]
                layers = (nn.Linear(3, 4), nn.Linear(4, 4)) if kind == "linear" else (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
                self.assertPrunedAsMasked(counted(Chain(*layers)), config, x, kept=[0, 1, 3])

    # Into the next layer

    @known_defect("propagated-bias-is-lost-in-a-layer-whose-bias-is-pruned")
    @common_utils.parametrize("kind", ("linear", "conv2d", "flatten"))
    def test_prune_keeps_a_propagated_bias_where_biases_are_pruned(self, kind):
        """A bias that moves on (prune_bias=False) is still there when the next layer's pruned biases are dropped."""
        steps = {
            "linear": (nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2)),
            "conv2d": (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1)),
            "flatten": (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
        }[kind]
        config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 0)]
        self.assertPrunedAsMasked(counted(Chain(*steps)), config, torch.ones(1, 3) if kind == "linear" else torch.ones(1, 3, 1, 1))

    @known_defect("bias-of-a-parametrized-next-layer-is-replaced")
    @common_utils.parametrize("place", ("linear", "conv2d", "flatten"))
    def test_prune_adds_a_bias_to_that_of_a_parametrized_layer(self, place):
        """A next layer with a parametrization of the user's keeps its own bias when it takes over another."""
        chain, last = NEXT_LAYERS[place]()
        chain.get_submodule("0").bias.data.zero_()  # what is propagated is zero
        parametrize.register_parametrization(chain.get_submodule(last), "weight", Scaled())
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("bias-is-propagated-through-the-original-of-a-parametrized-weight")
    @common_utils.parametrize("place", ("linear", "conv2d", "flatten"))
    def test_prune_propagates_a_bias_through_the_weight_that_is_used(self, place):
        """What a pruned bias contributes to a parametrized next layer goes by the weight that the layer computes with."""
        chain, last = NEXT_LAYERS[place](bias=False)
        parametrize.register_parametrization(chain.get_submodule(last), "weight", Scaled())
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @common_utils.parametrize("place", NEXT_LAYERS)
    def test_prune_before_a_parametrized_layer_cuts_its_columns(self, place):
        """Without a bias to propagate, a next layer whose weight has another parametrization loses just its columns, or is refused."""
        chain, last = NEXT_LAYERS[place]()
        parametrize.register_parametrization(chain.get_submodule(last), "weight", Scaled())
        self.check_next_layer(chain)

    @known_defect("linear-rows-are-dropped-though-the-activation-of-zero-is-not-zero")
    @common_utils.parametrize("activation", RAISED)
    def test_prune_linear_keeps_what_an_activation_makes_of_zero(self, activation):
        """A masked row gives sigmoid(0) = 0.5 to the next layer; all activations with f(0) != 0 are supported ones."""
        function = {"Sigmoid": torch.sigmoid, "LogSigmoid": F.logsigmoid}.get(activation, getattr(F, activation.lower(), None))
        for bias, step in itertools.product((True, False), (RAISED[activation], function)):
            chain = counted(Chain(nn.Linear(3, 4, bias=bias), step, nn.Linear(4, 2)))
            self.check_chain(chain, 1, test=self.assertPrunedOrRefused)

    @known_defect("conv2d-filters-are-dropped-though-the-activation-of-zero-is-not-zero")
    @common_utils.parametrize("activation", RAISED)
    @common_utils.parametrize("padding", (0, 1))
    def test_prune_conv2d_keeps_what_an_activation_makes_of_zero(self, activation, padding):
        """A masked filter without bias gives sigmoid(0) = 0.5 to the next layer, though not to the border of a padded one."""
        for bias in (False,) if padding else (False, True):  # a bias that is pruned before a padded one is another defect
            chain = counted(Chain(nn.Conv2d(1, 4, 1, bias=bias), RAISED[activation], nn.Conv2d(4, 2, 1, padding=padding)))
            self.check_chain(chain, 1, test=self.assertPrunedOrRefused)

    # Through what lies between

    @known_defect("bias-is-propagated-through-an-activation-without-its-arguments")
    @common_utils.parametrize("kind", ("linear", "conv2d"))
    def test_prune_propagates_a_bias_through_the_call_as_it_is(self, kind):
        """leaky_relu(x, 0.5) is applied to the pruned bias with that slope, not with the default one; so are arguments without name."""

        def curved(x):
            return F.softplus(x, 0.5)

        def straight(x):
            return F.softplus(x, 0.5, threshold=-2)

        curved.func = straight.func = F.softplus
        for step in (functools.partial(F.leaky_relu, negative_slope=0.5), curved, straight):
            layers = (nn.Linear(3, 4), nn.Linear(4, 2)) if kind == "linear" else (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
            chain = counted(Chain(layers[0], step, layers[1]))
            chain.get_submodule("0").bias.data[1] = -3
            self.check_chain(chain, 1, prune_bias=False)

    @known_defect("functional-prelu-crashes-where-a-bias-is-propagated")
    @common_utils.parametrize("kind", ("linear", "conv2d"))
    def test_prune_propagates_a_bias_through_functional_prelu(self, kind):
        """F.prelu is a supported activation; it cannot be called without its weight."""
        layers = (nn.Linear(3, 4), nn.Linear(4, 2)) if kind == "linear" else (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
        chain = counted(Chain(layers[0], functools.partial(F.prelu, weight=torch.tensor([0.5])), layers[1]))
        chain.get_submodule("0").bias.data[1] = -3
        self.check_chain(chain, 1, prune_bias=False)

    @known_defect("bias-is-propagated-through-a-random-rrelu")
    @common_utils.parametrize("kind", ("linear", "conv2d"))
    def test_prune_in_training_mode_propagates_through_mean_rrelu(self, kind):
        """RReLU draws its slope in training alone; pruned in training mode, a model evaluates to what the masked one does."""
        layers = (nn.Linear(3, 4), nn.Linear(4, 2)) if kind == "linear" else (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
        chain = counted(Chain(layers[0], nn.RReLU(), layers[1]))
        chain.get_submodule("0").bias.data[1] = -48
        config, x = [entry("0.weight", 1, prune_bias=False)], torch.ones(1, 3) if kind == "linear" else torch.ones(1, 3, 1, 1)
        with torch.no_grad(), zeroed(chain.eval(), config):
            expected = chain(x)
        actual = self.output_of(self.prune(chain.train(), config).eval(), x, "pruned")
        self.assertTensorsClose(actual, expected, "pruned is not masked")

    @known_defect("bias-is-propagated-as-if-average-pools-had-no-padding")
    @common_utils.parametrize("kind", AVERAGE_POOLS)
    @common_utils.parametrize("order", ORDERS)
    def test_prune_keeps_the_border_of_a_padded_average_pool(self, kind, order):
        """Behind AvgPool2d(padding=1) a constant channel is smaller at the border, so its bias cannot simply move on."""
        for padding in (1, (0, 1)):
            chain = pooled(AVERAGE_POOLS[kind](3, stride=1, padding=padding), order)
            self.check_chain(chain, 1, 2, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("bias-is-propagated-as-if-average-pools-kept-constants")
    @common_utils.parametrize("kind", AVERAGE_POOLS)
    @common_utils.parametrize("order", ORDERS)
    def test_prune_propagates_a_bias_through_the_divisor_of_a_pool(self, kind, order):
        """AvgPool2d(2, divisor_override=1) makes four of a constant one, and so of a pruned bias."""
        chain = pooled(AVERAGE_POOLS[kind](2, divisor_override=1), order)
        self.check_chain(chain, 1, 2, test=self.assertPrunedOrRefused, prune_bias=False)

    @common_utils.parametrize("order", ORDERS)
    def test_prune_moves_biases_through_pools_that_keep_constants(self, order):
        """A constant channel stays one behind a pool that leaves its padding out, and a channel of zeros behind any pool."""
        for pool, bias, prune_bias in (
            (nn.MaxPool2d(3, 1, padding=1), True, False),
            (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), True, False),
            (nn.AvgPool2d(2, ceil_mode=True), True, False),
            (nn.AvgPool2d(3, 1, padding=1), True, True),
            (nn.AvgPool2d(3, 1, padding=1), False, False),
            (nn.AvgPool2d(2, divisor_override=1), True, True),
        ):
            with self.subTest(pool=pool, bias=bias, prune_bias=prune_bias):
                self.check_chain(pooled(pool, order, bias=bias), 1, 2, prune_bias=prune_bias)

    # Before a padded convolution

    @known_defect("pruned-bias-survives-before-a-padded-conv2d")
    @common_utils.parametrize("activation", ("none", "Sigmoid"))
    def test_prune_bias_before_a_padded_conv2d_drops_it(self, activation):
        """With prune_bias=True the pruned bias is gone, whether or not the model has run between step() and prune()."""
        steps = [RAISED[activation]] if activation in RAISED else []
        chain = counted(Chain(nn.Conv2d(1, 4, 1), *steps, nn.Conv2d(4, 2, 1, padding=1)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused)
        if steps:  # without an activation a bias that comes from a layer before is lost, another defect
            chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), *steps, nn.Conv2d(4, 2, 1, padding=1)))
            config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2)]
            self.assertPrunedOrRefused(chain, config, torch.ones(1, 1, 1, 1), patterns_in(chain))

    @known_defect("filters-before-a-padded-conv2d-stay-though-their-bias-is-pruned")
    def test_prune_bias_before_a_padded_conv2d_cuts_the_filters(self):
        """With prune_bias=True and f(0) = 0 a masked channel is zero, at the border too: its filter is removed."""
        for activation in (nn.ReLU(), nn.PReLU(), functools.partial(F.prelu, weight=torch.tensor([0.5]))):
            chain = Chain(nn.Conv2d(1, 4, 1), activation, nn.Conv2d(4, 2, 3, padding=1))
            pruned = self.prune(chain, [entry("0.weight", 1)])
            left = (pruned.get_submodule("0").out_channels, pruned.get_submodule("2").in_channels)
            self.assertTupleEqual(left, (3, 3), msg="channels between the layers")

    @known_defect("padded-conv2d-loses-dtype-of-a-propagated-bias")
    def test_prune_before_a_padded_conv2d_keeps_the_type_of_numbers(self):
        """A float64 model stays one where a layer before a padded one has a bias of its own and a propagated one."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)).double())
        config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2, prune_bias=False)]
        self.assertPrunedAsMasked(chain, config, torch.ones(1, 1, 3, 3).double(), uncut=["1"], hooks_left=["1"])

    @known_defect("padded-conv2d-makes-a-propagated-bias-on-the-cpu")
    def test_prune_before_a_padded_conv2d_on_an_accelerator(self):
        """A model on an accelerator stays there where a layer before a padded one has a bias of its own and a propagated one."""
        device = self.accelerator()
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1))).to(device)
        config = [entry("0.weight", 1, prune_bias=False), entry("1.weight", 2, prune_bias=False)]
        self.assertPrunedAsMasked(chain, config, torch.ones(1, 1, 3, 3, device=device), uncut=["1"], hooks_left=["1"])

    # Before flatten

    @known_defect("flatten-of-a-full-mask-loses-dtype")
    def test_prune_of_a_full_mask_before_flatten_keeps_the_dtype(self):
        """In a float64 model a chain with a linear layer behind flatten can be pruned by no filter, as by any."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double())
        self.check_chain(chain, x=torch.ones(1, 1, 3, 3).double(), prune_bias=False)

    def test_prune_before_flatten_keeps_the_dtype(self):
        """A float64 model with a bias that moves on to a linear layer behind flatten stays one."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double())
        self.check_chain(chain, 1, x=torch.ones(1, 1, 3, 3).double(), prune_bias=False)

    @known_defect("conv2d-without-bias-before-flatten-crashes")
    def test_prune_conv2d_without_bias_before_flatten(self):
        """conv2d -> adaptive pool -> flatten -> linear is supported with bias=False too."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
        self.check_chain(chain, 1)

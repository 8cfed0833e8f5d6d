"""prune() of linear layers and convolutions: the pruned model computes what the masked one does, and is left as a model should be."""

import contextlib
import copy
import functools
import io
import itertools
import warnings

from ao.sparsity.testing.base import on_every_device

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.pruning import FakeSparsity
from torch.nn.utils import parametrize
from torch.testing._internal import common_utils
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.structured_sparsifier.cases import (
    NEXT_LAYERS,
    UNIT_1,
    counted,
    default_patterns,
    lstm_entries,
    activation_steps,
    pool_step,
    patterns_in,
    values,
    prepared_with,
    silence,
    entry,
    Scaled,
)
from ao.sparsity.testing.capture import recorded_warnings
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Chain, RowPruner, zeroed
from ao.sparsity.testing.oracles import structured


@instantiate_parametrized_tests
class PruningTests:
    """prune() of chains of linear layers and convolutions; part of TestBaseStructuredSparsifier."""

    def test_prune_linear_linear(self):
        """linear -> linear: pruned equals masked without biases, whichever of the layers is pruned."""
        first, second = entry("0.weight", 1, 2), entry("1.weight", 0)
        for config in ([first], [second], [first, second], [second, first]):
            with self.subTest(layers=[part["tensor_fqn"] for part in config]):
                model = Chain(nn.Linear(3, 5, bias=False), nn.Linear(5, 4, bias=False), nn.Linear(4, 2, bias=False))
                pruned = self.assertPrunedAsMasked(model, config, values(5, 3))
                self.assertEqual(pruned.get_submodule("2").out_features, 2)
        model = Chain(nn.Linear(3, 5, bias=False))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1, 2)], values(5, 3), kept=[0, 3, 4])

    def test_prune_linear_bias_linear(self):
        """linear -> linear with biases: pruned ones are dropped with their rows, or else added to the next layer's."""
        cases, config = [], []
        for biases in itertools.product((True, False), repeat=2):
            for prune_bias in ((True, True), (True, False), (False, False), (False, None)):
                place = len(cases)
                cases.append(Chain(nn.Linear(3, 5, bias=biases[0]), nn.Linear(5, 4, bias=biases[1]), nn.Linear(4, 2, bias=place % 2 == 0)))
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias[0]))
                if prune_bias[1] is not None:
                    config.append(entry(f"{place}.1.weight", 0, prune_bias=prune_bias[1]))
        self.assertBranchesPrunedAsMasked(cases, config, values(5, 3))
        model = Chain(nn.Linear(3, 5), nn.Linear(5, 4))
        pruned = self.assertPrunedAsMasked(model, [entry("0.weight", 1), entry("1.weight", 0, 2)], values(5, 3), kept=[1, 3])
        self.assertEqual(pruned.get_submodule("1").bias, model.get_submodule("1").bias)

    def test_prune_draws_prints_and_warns_of_nothing(self):
        """The masks alone decide: prune() draws no random number; as nothing is wrong, it prints nothing and does not warn."""
        model, pruner = Chain(nn.Linear(3, 5), nn.Linear(5, 4)), RowPruner()
        pruner.prepare(model, [entry("0.weight", 1)])
        state = torch.get_rng_state()
        with recorded_warnings() as caught, contextlib.redirect_stdout(io.StringIO()) as out:
            pruner.prune()
        self.assertTrue(torch.equal(torch.get_rng_state(), state), "random numbers were drawn")
        self.assertEqual(([str(warning.message) for warning in caught], out.getvalue()), ([], ""))

    def test_prune_linear_activation_linear(self):
        """linear -> activation -> linear: pruned equals masked for every supported activation, module or function."""
        cases, config = [], []
        for place, (_, step, _) in enumerate(activation_steps()):
            config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=False))
            cases.append(Chain(nn.Linear(3, 5), step, nn.Linear(5, 2)))
        self.assertBranchesPrunedAsMasked(cases, config, values(5, 3))
        cases, config = [], []
        zero_stays = (nn.Tanh(), nn.PReLU(), F.gelu, functools.partial(F.prelu, weight=torch.tensor([0.5])))
        for place, (step, bias) in enumerate(itertools.product(zero_stays, (True, False))):
            config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=True))
            cases.append(Chain(nn.Linear(3, 5, bias=bias), step, nn.Linear(5, 2)))
        self.assertBranchesPrunedAsMasked(cases, config, values(5, 3))
        model = Chain(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 4), F.tanhshrink, nn.Linear(4, 2))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1, 2), entry("2.weight", 3)], values(5, 3))

    def test_prune_conv2d_conv2d(self):
        """conv2d -> conv2d: pruned equals masked without biases, whatever the stride, dilation and padding."""
        cases, config = [], []
        for first, second in (
            ({}, {}),
            ({"stride": 2, "padding": 1, "dilation": 2}, {"stride": 2}),
            ({}, {"dilation": 2}),
            ({}, {"padding": 1}),
            ({"padding_mode": "circular", "padding": 1}, {"padding_mode": "reflect", "padding": 1}),
        ):
            config += [entry(f"{len(cases)}.0.weight", 1, 2), entry(f"{len(cases)}.1.weight", 0)]
            cases.append(Chain(nn.Conv2d(2, 4, 2, bias=False, **first), nn.Conv2d(4, 3, (2, 1), bias=False, **second), nn.Conv2d(3, 2, 1)))
        self.assertBranchesPrunedAsMasked(cases, config, values(2, 2, 6, 6))
        model = Chain(nn.Conv2d(2, 4, 2, bias=False))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1, 2)], values(2, 2, 6, 6), kept=[0, 3])

    def test_prune_conv2d_bias_conv2d(self):
        """conv2d -> conv2d with biases: pruned ones are dropped with their filters, or else added to the next layer's."""
        cases, config = [], []
        for biases in itertools.product((True, False), repeat=2):
            for prune_bias in ((True, True), (True, False), (False, False), (False, None)):
                place = len(cases)
                cases.append(
                    Chain(
                        nn.Conv2d(2, 4, 2, bias=biases[0]),
                        nn.Conv2d(4, 3, (2, 1), bias=biases[1]),
                        nn.Conv2d(3, 2, (1, 3), bias=place % 2 == 0),
                    )
                )
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias[0]))
                if prune_bias[1] is not None:
                    config.append(entry(f"{place}.1.weight", 0, prune_bias=prune_bias[1]))
        self.assertBranchesPrunedAsMasked(cases, config, values(2, 2, 4, 4))
        model = Chain(nn.Conv2d(2, 4, 2), nn.Conv2d(4, 3, 1))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1), entry("1.weight", 0, 2)], values(2, 2, 4, 4), kept=[1])

    def test_prune_conv2d_activation_conv2d(self):
        """conv2d -> activation -> conv2d: pruned equals masked for every supported activation, module or function."""
        x, table = values(2, 2, 3, 3), default_patterns()
        for place, (name, step, zero_stays) in enumerate(activation_steps()):
            prune_bias = zero_stays and place % 2 == 0
            with self.subTest(activation=name, prune_bias=prune_bias), torch.no_grad():
                chain = Chain(nn.Conv2d(2, 4, 2, bias=not prune_bias or place % 4 == 0), step, nn.Conv2d(4, 2, 1)).eval()
                first, second = chain.get_submodule("0"), chain.get_submodule("2")
                config = [entry("0.weight", 1, 3, prune_bias=prune_bias)]
                with zeroed(chain, config):
                    expected = chain(x)
                prepared_with(chain, config, patterns={})
                table[nn.Conv2d, type(step) if isinstance(step, nn.Module) else step, nn.Conv2d](first, step, second)
                self.assertTensorsClose(chain(x), expected, "pruned is not masked")
                self.assertTupleEqual((first.out_channels, second.in_channels), (2, 2))
        model = Chain(nn.Conv2d(2, 4, 2), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1), F.tanhshrink, nn.Conv2d(3, 2, 1))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1, 2), entry("2.weight", 1)], values(2, 2, 3, 3))

    def test_prune_conv2d_padding_conv2d(self):
        """Before a padded conv2d a bias that is not pruned needs its channel: the layer stays as large as it is."""
        cases, config, uncut, any_size = [], [], [], []
        for padding, prune_bias in itertools.product((1, (0, 1), (1, 0)), (True, False)):
            for biases in itertools.product((True, False), repeat=2):
                place = len(cases)
                chain = Chain(nn.Conv2d(2, 4, 2, padding=1, bias=biases[0]), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=padding, bias=biases[1]))
                if prune_bias and biases[0]:  # nothing to tell the two ways of pruning a bias apart
                    chain.get_submodule("0").bias.data[[1, 3]] = 0
                if biases[0]:
                    (any_size if prune_bias else uncut).append(f"{place}.0")
                cases.append(chain)
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias))
        # the layer before the padded one has got a bias from its own predecessor, or that and one of its own
        for bias in (True, False):
            place = len(cases)
            cases.append(Chain(nn.Conv2d(2, 4, 2), nn.Tanh(), nn.Conv2d(4, 4, 1, bias=bias), nn.Conv2d(4, 2, 3, padding=1)))
            config += [entry(f"{place}.0.weight", 1, prune_bias=False), entry(f"{place}.2.weight", 0, 2, prune_bias=False)]
            uncut.append(f"{place}.2")
        options = {"uncut": uncut, "any_size": any_size, "hooks_left": uncut + any_size}
        self.assertBranchesPrunedAsMasked(cases, config, values(2, 2, 4, 4), **options)

    def test_prune_conv2d_pool_conv2d(self):
        """conv2d, activation and pool in either order, conv2d: pruned equals masked for every pool, module or function."""
        cases, config, uncut = [], [], []
        steps = itertools.cycle(step for _, step, zero_stays in activation_steps() if zero_stays)
        options = itertools.cycle(((True, 0), (False, 1), (True, 1), (False, 0), (True, 0)))
        for pool, pool_first, _ in itertools.product(structured.POOLS, (True, False), range(2)):
            place, step, (bias, padding) = len(cases), next(steps), next(options)
            middle = (pool_step(pool), step) if pool_first else (step, pool_step(pool))
            cases.append(Chain(nn.Conv2d(2, 4, 2, bias=bias), *middle, nn.Conv2d(4, 2, 1, padding=padding)))
            config.append(entry(f"{place}.0.weight", 0, 2, prune_bias=False))
            if bias and padding:
                uncut.append(f"{place}.0")
        self.assertBranchesPrunedAsMasked(cases, config, values(2, 2, 4, 4), uncut=uncut, hooks_left=uncut)

    def test_prune_conv2d_pool_flatten_linear(self):
        """conv2d -> adaptive pool -> flatten -> linear: all columns of a pruned channel go, its bias moves on unless pruned."""
        cases, config = [], []
        flattens = (nn.Flatten(), functools.partial(torch.flatten, start_dim=1))
        kinds = itertools.cycle(itertools.product((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), flattens, ((1, 4), ((2, 3), 24))))
        for _ in range(2):
            for prune_bias, bias, prepare_linear in itertools.product((True, False), repeat=3):
                place = len(cases)
                pool, flatten, (size, features) = next(kinds)
                cases.append(Chain(nn.Conv2d(2, 4, 2, padding=1), pool(size), flatten, nn.Linear(features, 3, bias=bias), nn.Linear(3, 2)))
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias))
                if prepare_linear:  # without its bias being pruned: another test asks for that
                    config.append(entry(f"{place}.3.weight", 1, prune_bias=False))
        self.assertBranchesPrunedAsMasked(cases, config, values(2, 2, 4, 4))

    def test_prune_refuses_columns_that_channels_cannot_share(self):
        """Columns of the linear layer that cannot be shared out among the channels are an error."""
        model = Chain(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
        with self.assertRaisesRegex(AssertionError, "from dimensions 2 to 3 not"):
            self.prune(model, [entry("0.weight", 1)])

    def test_complex_conv2d(self):
        """A model of convolutions, pools, a skip connection, flatten and linear layers is pruned where chains match."""

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Sequential(nn.Conv2d(2, 4, 2, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.Hardtanh(), nn.MaxPool2d(2))
                self.second = nn.Conv2d(5, 3, 1)
                self.third = nn.Conv2d(3, 3, 3, padding=1)
                self.fourth = nn.Conv2d(3, 4, 1)
                self.pool = nn.AdaptiveAvgPool2d((2, 1))
                self.linear = nn.Linear(8, 3)
                self.last = nn.Linear(3, 2)

            def forward(self, x):
                x = self.second(self.first(x))
                x = x + self.third(x)
                x = torch.flatten(self.pool(self.fourth(x)), 1)
                return self.last(F.gelu(self.linear(x)))

        config = [
            entry("first.0.weight", 1),
            entry("first.2.weight", 2, prune_bias=False),
            entry("fourth.weight", 0, 2),
            entry("linear.weight", 1),
        ]
        pruned = self.assertPrunedAsMasked(Model(), config, values(2, 2, 7, 7))
        self.assertEqual((pruned.second.in_channels, pruned.third.in_channels, pruned.linear.in_features), (4, 3, 4))

    @on_every_device
    def test_pruned_model_stays_on_its_device(self, device):
        """On every device all of the pruned model lies there and computes what the masked model does."""
        model = Chain(
            nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 2)
        ).to(device)
        config = [entry("0.weight", 1, prune_bias=False), entry("2.weight", 2, prune_bias=False), entry("5.weight", 0, prune_bias=False)]
        with torch.no_grad(), zeroed(model, config):
            expected = model(values(2, 2, 4, 4).to(device))
        pruned = self.prune(model, config)
        self.assertEqual({tensor.device.type for tensor in pruned.state_dict().values()}, {device})
        torch.testing.assert_close(pruned(values(2, 2, 4, 4).to(device)).detach(), expected, atol=1e-4, rtol=1e-4)

    def test_prune_does_not_follow_the_default_device(self):
        """What prune() makes lies where the layers lie, whatever the default device is at the moment."""
        model = Chain(nn.Conv2d(2, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        config = [entry("0.weight", 1, prune_bias=False)]
        with torch.no_grad(), zeroed(model, config):
            expected = model(values(2, 2, 4, 4))
        pruner = prepared_with(model, config, patterns=patterns_in(model))
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruned = pruner.prune()
        torch.testing.assert_close(pruned(values(2, 2, 4, 4)).detach(), expected)

    def test_prune_keeps_dtype_mode_and_hooks(self):
        """Type of numbers, training mode, the user's hooks and what was not prepared survive prune(); parameters can be trained."""
        for dtype, training in ((torch.float64, True), (torch.bfloat16, False)):
            with self.subTest(dtype=dtype):
                model = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Linear(3, 2)).to(dtype).train(training)
                calls, hook = [], lambda module, *args: calls.append((module, len(args)))
                for path in ("0", "2"):  # the layer that is cut, and the next one
                    model.get_submodule(path).register_forward_pre_hook(hook)
                    model.get_submodule(path).register_forward_hook(hook)
                last = model.get_submodule("3").weight
                pruned = self.prune(model, [entry("0.weight", 1, prune_bias=False)])
                self.assertEqual({tensor.dtype for tensor in pruned.parameters()}, {dtype})
                self.assertEqual({module.training for module in pruned.modules()}, {training})
                self.assertTrue(all(parameter.requires_grad and parameter.is_leaf for parameter in pruned.parameters()))
                self.assertIs(pruned.get_submodule("3").weight, last)
                pruned(values(5, 3).to(dtype)).sum().backward()
                self.assertEqual(calls, [(pruned.get_submodule(path), arguments) for path in ("0", "2") for arguments in (1, 2)])
                self.assertTrue(all(parameter.grad is not None for parameter in pruned.parameters()))

    def test_prune_cuts_the_weight_that_a_parametrization_makes(self):
        """A layer whose weight has another parametrization besides the mask is cut to the rows of the weight it computes with."""
        for first, second in (
            (nn.Linear(3, 4), nn.Linear(4, 2)),
            (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)),
            (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3, padding=1)),
        ):
            for before in (True, False):
                chain = Chain(copy.deepcopy(first), nn.Tanh(), copy.deepcopy(second))
                if before:
                    parametrize.register_parametrization(chain.get_submodule("0"), "weight", Scaled())
                pruner = prepared_with(chain, [entry("0.weight", 1, prune_bias=False)], patterns=patterns_in(chain))
                if not before:
                    parametrize.register_parametrization(chain.get_submodule("0"), "weight", Scaled())
                x = values(5, 3) if isinstance(first, nn.Linear) else values(2, 3, 4, 4)
                with self.subTest(layer=type(first).__name__, padding=getattr(second, "padding", None), before=before), torch.no_grad():
                    expected = chain(x)
                    self.assertTensorsClose(pruner.prune()(x), expected, "pruned is not masked")

    def test_prune_passes_over_a_layer_that_was_not_prepared(self):
        """torch's own weight_norm does not make a layer one to be pruned: it stays as it is before a layer that is."""
        chain = counted(Chain(nn.Linear(3, 4), nn.Linear(4, 2)))
        nn.utils.parametrizations.weight_norm(chain.get_submodule("0"))
        weight = chain.get_submodule("0").weight.detach().clone()
        pruned = prepared_with(chain, [entry("1.weight", 0)]).prune()
        self.assertEqual(pruned.get_submodule("0").weight, weight)
        self.assertEqual(pruned.get_submodule("1").weight.shape, (1, 4))

    def test_prune_returns_a_trace_that_shares_the_model_s_layers(self):
        """The pruned graph module is kept as `traced`; the model itself is pruned in place, and pruning it again changes nothing."""
        model = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        pruner = prepared_with(model, [entry("0.weight", 1)])
        pruned = pruner.prune()
        self.assertIsInstance(pruned, torch.fx.GraphModule)
        self.assertIs(pruner.traced, pruned)
        self.assertIs(pruned.get_submodule("0"), model.get_submodule("0"))
        self.assertEqual(model(values(5, 3)), pruned(values(5, 3)))
        again = pruner.prune()
        self.assertIsNot(again, pruned)
        self.assertEqual(again(values(5, 3)), pruned(values(5, 3)))

    def test_prune_with_full_masks_changes_no_number(self):
        """Before any step all rows are kept: prune() gives the plain model back, biases included."""
        model = Chain(
            nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 1)
        )
        for prune_bias in (True, False):
            with self.subTest(prune_bias=prune_bias):
                config = [entry(f"{place}.weight", prune_bias=prune_bias) for place in (0, 2, 5)]
                self.assertPrunedAsMasked(copy.deepcopy(model), config, values(2, 2, 3, 3))

    def test_prune_in_rounds_with_training_between(self):
        """A pruned model is prepared, pruned and trained like any: round by round pruned equals masked, and rows go one by one."""
        chain = Chain(
            *(nn.Conv2d(2, 5, 2), nn.ReLU(), nn.Conv2d(5, 5, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(20, 5), nn.Tanh(), nn.Linear(5, 2)),
        )
        x, patterns = values(2, 2, 4, 4), patterns_in(chain)
        for left in (4, 3, 2):
            with self.subTest(left=left):
                config = [entry(f"{place}.weight", row, prune_bias=False) for place, row in ((0, 1), (2, left), (5, 0))]
                pruned = self.assertPrunedAsMasked(chain, config, x, patterns)
                self.assertListEqual([len(pruned.get_submodule(place).weight) for place in "025"], [left] * 3)
                optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)
                pruned(x).square().sum().backward()
                optimizer.step()
                self.assertTensorsClose(chain(x), pruned(x), "the model and its pruned trace, after training")

    def test_prune_goes_by_the_masks_as_they_are(self):
        """What is cut is what the layer masks at that moment, whoever has set or replaced the mask since the last step."""
        for replace in (True, False):
            with self.subTest(replaced=replace):
                chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
                pruner = prepared_with(chain, [entry("0.weight", 1)], patterns=patterns_in(chain))
                mask = torch.tensor([True, True, False, False])
                if replace:
                    chain.get_submodule("0").parametrizations.weight[0].mask = mask
                else:
                    chain.get_submodule("0").parametrizations.weight[0].mask.copy_(mask)
                kept = chain.get_submodule("0").parametrizations.weight.original[:2].clone()
                self.assertEqual(pruner.prune().get_submodule("0").weight, kept)

    def test_pruned_model_is_copied_and_loaded_like_any(self):
        """A deep copy of a pruned model computes the same, and its state loads into another model that was pruned alike."""
        x, models = values(5, 3), [Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2)]
        one, other = (self.prune(model, [entry("0.weight", row, prune_bias=False)]) for row, model in enumerate(models))
        self.assertEqual(copy.deepcopy(one)(x), one(x))
        self.assertEqual(tuple(other.load_state_dict(one.state_dict())), ([], []))
        self.assertEqual(other(x), one(x))

    # What is left behind

    @known_defect("pruned-layer-keeps-the-attribute-prune-bias")
    def test_prune_leaves_no_attribute_behind(self):
        """After prune() a layer has the attributes of a new one: parametrization, bias put aside and hook are taken away too."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
        before = set(vars(chain.get_submodule("0")))
        self.prune(chain, [entry("0.weight", 1)])
        self.assertListEqual(sorted(set(vars(chain.get_submodule("0"))) ^ before), [], msg="attributes more or less than before")

    @known_defect("padded-conv2d-keeps-its-bias-hook")
    def test_prune_before_a_padded_conv2d_leaves_no_hook(self):
        """A pruned model can be prepared again, also where the next convolution is padded, and computes the same."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1, padding=1)))
        x = torch.ones(1, 1, 1, 1)
        self.prune(chain, [entry("0.weight", 1, prune_bias=False)])
        expected = chain(x)
        RowPruner().prepare(chain, [entry("0.weight", prune_bias=False)])
        self.assertTensorsClose(chain(x), expected, "prepared again: output")

    @known_defect("prune-runs-the-hooks-of-activations")
    @common_utils.parametrize("kind", ("linear", "conv2d"))
    def test_prune_runs_no_hook_of_the_model(self, kind):
        """prune() changes weights: an observer, a forward hook on an activation, must not see a bias for an input."""
        layers = (nn.Linear(3, 4), nn.Linear(4, 2)) if kind == "linear" else (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
        chain, calls = counted(Chain(layers[0], nn.ReLU(), layers[1])), []
        chain.get_submodule("1").register_forward_hook(lambda module, args, output: calls.append(output.tolist()))
        self.prune(chain, [entry("0.weight", 1, prune_bias=False)])
        self.assertListEqual(calls, [], msg="numbers that a hook on the activation has seen")

    def test_prune_of_biases_runs_no_hook_of_the_model(self):
        """Where biases are pruned, none passes an activation: a forward hook on it is not called."""
        padded = (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, padding=1))
        for layers in ((nn.Linear(3, 4), nn.Linear(4, 2)), (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), padded):
            for step in (nn.ReLU(), nn.Sigmoid(), nn.PReLU()):
                with self.subTest(layers=layers, activation=type(step).__name__):
                    chain, calls = counted(Chain(copy.deepcopy(layers[0]), step, copy.deepcopy(layers[1]))), []
                    step.register_forward_hook(lambda module, args, output: calls.append(output.tolist()))
                    self.prune(chain, [entry("0.weight", 1)])
                    self.assertListEqual(calls, [], msg="numbers that a hook on the activation has seen")

    def test_prune_runs_no_hook_of_a_flatten(self):
        """Nor does prune() run the hooks on a pool or on what flattens it."""
        chain, calls = counted(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))), []
        for path in ("1", "2"):
            chain.get_submodule(path).register_forward_hook(lambda module, args, output: calls.append(module))
        self.prune(chain, [entry("0.weight", 1, prune_bias=False)])
        self.assertListEqual(calls, [])

    @known_defect("prune-makes-frozen-parameters-trainable")
    @common_utils.parametrize("place", (*NEXT_LAYERS, "padded"))
    def test_prune_leaves_frozen_parameters_frozen(self, place):
        """What does not require a gradient before prune() does not require one afterwards."""
        chain = NEXT_LAYERS[place]()[0] if place != "padded" else Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1))
        config = [entry("0.weight", 1, prune_bias=False)]
        if place == "lstm":
            silence(chain)
            config = lstm_entries(*UNIT_1)
        pruner = prepared_with(chain, config, patterns=patterns_in(chain))
        chain.requires_grad_(False)
        pruner.prune()
        trainable = sorted(name for name, parameter in chain.named_parameters() if parameter.requires_grad)
        self.assertListEqual(trainable, [], msg="parameters that can be trained now")

    def test_prune_leaves_the_rest_trainable(self):
        """Freezing one layer freezes no other: what required a gradient before prune() does afterwards."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        chain.get_submodule("0").requires_grad_(False)
        pruned = self.prune(chain, [entry("0.weight", 1), entry("1.weight", 2)])
        trainable = {name for name, parameter in pruned.named_parameters() if parameter.requires_grad}
        self.assertLessEqual({"1.bias", "1.weight", "2.bias", "2.weight"}, trainable)

    @known_defect("refused-prune-has-already-cut-layers")
    def test_refused_prune_leaves_the_model_as_it_is(self):
        """prune() raises if a masked layer is left over; what it cannot prune it must not have begun to prune."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2))
        pruner = prepared_with(chain, [entry("0.weight", 1), entry("1.weight", 2)], patterns=patterns_in(chain))
        with self.assertRaisesRegex(Exception, "still contains FakeStructuredSparsity"):
            pruner.prune()
        self.assertTupleEqual(tuple(chain.get_submodule("0").weight.shape), (4, 3), msg="first layer after a refused prune()")

    # Options of layers

    @known_defect("next-conv2d-with-padding-by-name-crashes")
    @common_utils.parametrize("padding", ("valid", "same"))
    @common_utils.parametrize("bias", (True, False))
    def test_prune_before_a_conv2d_whose_padding_is_a_name(self, padding, bias):
        """nn.Conv2d takes padding="same" and "valid", for kernels of which one side needs no padding, too."""
        for kernel in (3, (1, 3), (3, 1)):
            chain = counted(Chain(nn.Conv2d(1, 4, 1, bias=bias), nn.Conv2d(4, 2, kernel, padding=padding)))
            uncut = ["0"] if bias and padding == "same" else []
            config = [entry("0.weight", 1, prune_bias=False)]
            self.assertPrunedAsMasked(chain, config, torch.ones(1, 1, 3, 3), uncut=uncut, hooks_left=uncut)

    @known_defect("next-conv2d-with-groups-is-not-refused")
    def test_prune_before_a_grouped_conv2d(self):
        """Channels of a grouped convolution cannot be cut one by one: pruned right or refused, with the model intact."""
        chain = counted(Chain(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, groups=2)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused)

    @known_defect("depthwise-conv2d-is-not-refused")
    @common_utils.parametrize("last", ("conv2d", "flatten"))
    def test_prune_of_a_depthwise_conv2d(self, last):
        """Filters of a grouped convolution cannot be cut one by one: pruned right or refused, with the model intact."""
        steps = [nn.Conv2d(4, 2, 1)] if last == "conv2d" else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
        self.check_chain(counted(Chain(nn.Conv2d(4, 4, 1, groups=4), *steps)), 1, test=self.assertPrunedOrRefused)

    @known_defect("conv2d-without-any-filter-left-cannot-run")
    @common_utils.parametrize("last", ("conv2d", "flatten"))
    def test_prune_of_every_filter(self, last):
        """A level of 1 masks every filter, FPGMPruner says so: the model is pruned to one that runs, or refused."""
        steps = [nn.Conv2d(2, 2, 1)] if last == "conv2d" else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)]
        self.check_chain(counted(Chain(nn.Conv2d(1, 2, 1), *steps)), 0, 1, test=self.assertPrunedOrRefused)

    def test_prune_of_every_row(self):
        """A linear layer may lose every row: the next layer gives its bias."""
        self.check_chain(counted(Chain(nn.Linear(3, 2), nn.Linear(2, 2))), 0, 1)

    @known_defect("flatten-of-another-dimension-is-taken-for-that-of-channels")
    @common_utils.parametrize("kind", ("module", "function"))
    def test_prune_before_a_flatten_that_keeps_the_channels(self, kind):
        """Behind Flatten(2) the columns of the linear layer are places, not channels: pruned right or refused, model intact."""
        flatten = nn.Flatten(2) if kind == "module" else functools.partial(torch.flatten, start_dim=2)
        chain = counted(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(2), flatten, nn.Linear(4, 2)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused)

    def test_prune_before_a_flatten_of_named_dimensions(self):
        """The dimension of channels may be counted from the end, and flatten may be told its last dimension."""
        for flatten in (nn.Flatten(-3), nn.Flatten(1, 3), functools.partial(torch.flatten, start_dim=-3, end_dim=3)):
            with self.subTest(flatten=flatten):
                self.check_chain(counted(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(2), flatten, nn.Linear(16, 2))), 1)

    @known_defect("prelu-with-a-weight-per-channel-is-not-cut")
    @common_utils.parametrize("kind", ("linear", "conv2d"))
    def test_prune_before_a_prelu_with_a_weight_per_channel(self, kind):
        """nn.PReLU(channels) is a supported activation; its weights follow the channels, or prune() refuses, model intact."""
        layers = (nn.Linear(3, 4), nn.Linear(4, 2)) if kind == "linear" else (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
        self.check_chain(counted(Chain(layers[0], nn.PReLU(4), layers[1])), 1, test=self.assertPrunedOrRefused)

    # Parametrizations of the next layer

    @known_defect("mask-of-the-next-layer-is-not-cut")
    @common_utils.parametrize("place", NEXT_LAYERS)
    def test_prune_before_a_layer_with_an_elementwise_mask(self, place):
        """A next layer that a sparsifier of torch.ao.pruning has prepared is cut with its mask, or refused with the model intact."""
        for scaled in (False, True):
            chain, last = NEXT_LAYERS[place]()
            layer = chain.get_submodule(last)
            if scaled:
                parametrize.register_parametrization(layer, "weight", Scaled())
            parametrize.register_parametrization(layer, "weight", FakeSparsity(torch.ones_like(layer.weight)))
            self.check_next_layer(chain)

    @known_defect("weight-norm-of-the-next-layer-is-not-refused")
    @common_utils.parametrize("place", NEXT_LAYERS)
    def test_prune_before_a_layer_with_weight_norm(self, place):
        """A next layer with torch's own weight_norm is cut, or refused with the model intact."""
        chain, last = NEXT_LAYERS[place]()
        nn.utils.parametrizations.weight_norm(chain.get_submodule(last))
        self.check_next_layer(chain)

    @known_defect("parametrized-bias-of-the-next-layer-crashes")
    @common_utils.parametrize("place", NEXT_LAYERS)
    def test_prune_before_a_layer_with_a_parametrized_bias(self, place):
        """A next layer of which only the bias has a parametrization is cut, or refused with the model intact."""
        chain, last = NEXT_LAYERS[place]()
        parametrize.register_parametrization(chain.get_submodule(last), "bias", Scaled())
        self.check_next_layer(chain)

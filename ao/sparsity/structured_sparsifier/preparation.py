"""What prepare() adds to a model, what the prepared model computes, and how the preparation is taken back."""

import contextlib
import copy
import itertools
import os
import pickle
import warnings
from unittest import mock

from ao.sparsity.testing import build
from ao.sparsity.testing.companion import beside
from ao.sparsity.testing.base import TestCase

import torch
from torch import nn
from torch.ao.pruning import LambdaSL
from torch.ao.pruning._experimental.pruner import BiasHook, FakeStructuredSparsity
from torch.ao.pruning._experimental.pruner.parametrization import module_contains_param
from torch.nn.utils import parametrize

from ao.sparsity.structured_sparsifier.cases import patterns_in, row_mask_of, values, prepared_with, entry, Scaled
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Chain, RowPruner, zeroed


class TestStructuredParametrizations(TestCase):
    def test_fake_structured_sparsity_zeroes_rows(self):
        """The parametrization multiplies row i of a tensor of any rank by mask i, and follows changes of the mask."""
        for shape in ((3,), (3, 2), (3, 2, 1, 2)):
            with self.subTest(shape=shape):
                tensor = values(*shape)
                mask = torch.tensor([True, False, True])
                parametrization = FakeStructuredSparsity(mask)
                expected = tensor.numpy().copy()
                expected[1] = 0
                self.assertEqual(parametrization(tensor).numpy(), expected)
                mask[0] = False
                expected[0] = 0
                self.assertEqual(parametrization(tensor).numpy(), expected)
                self.assertEqual(tensor, values(*shape))

    def test_fake_structured_sparsity_masks_gradients(self):
        """Masked rows get the gradient zero, the others theirs."""
        weight = values(3, 2).requires_grad_()
        FakeStructuredSparsity(torch.tensor([True, False, True]))(weight).sum().backward()
        self.assertEqual(weight.grad, torch.tensor([[1.0, 1], [0, 0], [1, 1]]))

    def test_fake_structured_sparsity_refuses_masks_that_do_not_fit(self):
        """A mask of another length than the tensor, or that is no tensor, is an AssertionError."""
        masks = (torch.ones(2, dtype=torch.bool), torch.ones(4, dtype=torch.bool), None)
        for mask, shape in itertools.product(masks, ((3, 2), (3,))):
            message = "^(mask must be a torch.Tensor)?$" if mask is None else r"^(mask shape\[0\] \(\d\) must match x shape.*\(3\))?$"
            with self.subTest(mask=mask, shape=shape), self.assertRaisesRegex(AssertionError, message):  # before torch 2.9: no text
                FakeStructuredSparsity(mask)(values(*shape))

    def test_fake_structured_sparsity_keeps_its_mask_unsaved(self):
        """The mask is a buffer, so that it moves with the module, and not part of a state_dict, so that it is saved only once."""
        mask = torch.ones(2, dtype=torch.bool)
        parametrization = FakeStructuredSparsity(mask)
        self.assertIs(dict(parametrization.named_buffers())["mask"], mask)
        self.assertEqual(parametrization.state_dict(), {})
        self.assertEqual(parametrization.state_dict(prefix="x."), {})
        linear = nn.Linear(3, 2)
        parametrize.register_parametrization(linear, "weight", parametrization)
        self.assertSetEqual(set(linear.state_dict()), {"bias", "parametrizations.weight.original"})

    def test_module_contains_param_asks_every_parametrization(self):
        """True if any tensor of a module has the parametrization, be it one of several, or of a subclass; else False."""
        structured_sparsity = FakeStructuredSparsity(torch.ones(2, dtype=torch.bool))
        linear = nn.Linear(2, 2)
        self.assertIs(module_contains_param(linear, FakeStructuredSparsity), False)
        parametrize.register_parametrization(linear, "weight", nn.Identity())
        self.assertIs(module_contains_param(linear, FakeStructuredSparsity), False)
        parametrize.register_parametrization(linear, "bias", nn.Identity())
        parametrize.register_parametrization(linear, "bias", structured_sparsity)
        self.assertIs(module_contains_param(linear, FakeStructuredSparsity), True)
        self.assertIs(module_contains_param(linear, nn.Module), True)
        self.assertIs(module_contains_param(linear, nn.ReLU), False)

    def test_bias_hook_adds_the_bias(self):
        """The hook returns output plus `_bias` along the channels, without masked rows if biases are pruned."""
        mask = torch.tensor([True, False, True])
        layers = ((lambda: nn.Linear(4, 3, bias=False), (5, 3)), (lambda: nn.Conv2d(4, 3, 1, bias=False), (5, 3, 2, 2)))
        for (layer, shape), prune_bias in itertools.product(layers, (True, False)):
            with self.subTest(shape=shape, prune_bias=prune_bias):
                module = layer()
                module._bias = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
                hook = BiasHook(FakeStructuredSparsity(mask), prune_bias)
                bias = torch.tensor([1.0, 0.0, 3.0] if prune_bias else [1.0, 2.0, 3.0])
                expected = values(*shape) + bias.reshape(1, 3, *[1] * (len(shape) - 2))
                self.assertEqual(hook(module, (None,), values(*shape)), expected)

    def test_bias_hook_leaves_the_output_of_modules_without_bias(self):
        """Without `_bias`, or with None, the hook returns the very output."""
        hook = BiasHook(FakeStructuredSparsity(torch.zeros(3, dtype=torch.bool)), True)
        module, output = nn.Linear(3, 3), values(5, 3)
        self.assertIs(hook(module, (None,), output), output)
        module._bias = None
        self.assertIs(hook(module, (None,), output), output)
        self.assertEqual(output, values(5, 3))


class PreparationTests:
    """prepare(), step(), squash_mask() and the state of a structured pruner; part of TestBaseStructuredSparsifier."""

    def test_prepare_without_config_takes_every_supported_layer(self):
        """Without a configuration every Linear and Conv2d is prepared, nested ones too, and nothing else."""
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 2)), nn.Conv1d(1, 1, 1))
        pruner = RowPruner()
        pruner.prepare(model, None)
        self.assertSetEqual({group["tensor_fqn"] for group in pruner.groups}, {"0.weight", "1.1.weight"})
        pruner = RowPruner()
        pruner.make_config_from_model(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()), SUPPORTED_MODULES={nn.ReLU})
        self.assertEqual(pruner.config, [{"tensor_fqn": "1.weight"}])

    def check_prepared(self, model, x, bias_options):
        """What prepare() must do to the named layers of a model and to no other."""
        config = [{"tensor_fqn": f"{path}.weight", **options} for path, options in bias_options.items()]
        plain = copy.deepcopy(model)
        pruner = RowPruner()
        pruner.prepare(model, config)
        for path, layer in model.named_children():
            original = plain.get_submodule(path)
            if path not in bias_options:
                self.assertFalse(parametrize.is_parametrized(layer), msg=path)
                self.assertEqual(list(layer._forward_hooks.values()), [], msg=path)
                continue
            self.assertTrue(module_contains_param(layer, FakeStructuredSparsity), msg=path)
            self.assertEqual(len(layer.parametrizations.weight), 1, msg=path)
            mask = row_mask_of(layer)
            self.assertEqual((mask.dtype, mask.tolist()), (torch.bool, [True] * len(original.weight)), msg=path)
            self.assertIs(pruner.state[f"{path}.weight"]["mask"], mask, msg=path)
            self.assertEqual(layer.weight, original.weight, msg=path)
            hooks = list(layer._forward_hooks.values())
            self.assertEqual([type(hook) for hook in hooks], [BiasHook], msg=path)
            self.assertIs(hooks[0].param, layer.parametrizations.weight[0], msg=path)
            self.assertIs(hooks[0].prune_bias, bias_options[path].get("prune_bias", True), msg=path)
            self.assertIsNone(layer.bias, msg=path)
            if original.bias is not None:
                self.assertEqual(layer._bias, original.bias, msg=path)
                self.assertTrue(layer._bias.requires_grad, msg=f"{path}: the bias is trained on")
                self.assertIs(layer.prune_bias, bias_options[path].get("prune_bias", True), msg=path)
            else:
                self.assertFalse(hasattr(layer, "_bias"), msg=path)
        torch.testing.assert_close(model(x), plain(x))
        self.assertIs(pruner.model, model)
        return pruner

    def test_prepare_linear(self):
        """prepare() masks the rows of the named linear layers, moves their bias to a hook, and does not change the output."""

        class OwnLinear(nn.Linear):
            pass

        for kind in (nn.Linear, OwnLinear):
            model = Chain(kind(3, 4), nn.ReLU(), kind(4, 4, bias=False), kind(4, 3), kind(3, 2))
            self.check_prepared(model, values(5, 3), {"0": {}, "2": {"prune_bias": True}, "3": {"prune_bias": False}})

    def test_prepare_conv2d(self):
        """prepare() masks the filters of the named convolutions, moves their bias to a hook, and does not change the output."""
        model = Chain(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1))
        self.check_prepared(model, values(2, 2, 3, 3), {"0": {}, "2": {"prune_bias": False}, "3": {"prune_bias": False}})

    def test_prepare_keeps_what_the_configuration_gives(self):
        """A mask and a parametrization in the configuration are used; layers other than Linear and Conv2d get no hook."""

        class OtherSparsity(FakeStructuredSparsity):
            pass

        mask = torch.tensor([True, False])
        model = Chain(nn.Linear(2, 2), nn.LSTM(2, 2), nn.LayerNorm(2), nn.Conv1d(2, 2, 1))
        pruner = RowPruner()
        pruner.prepare(
            model,
            [
                {"tensor_fqn": "0.weight", "mask": mask, "parametrization": OtherSparsity},
                {"tensor_fqn": "1.weight_hh_l0"},
                {"tensor_fqn": "2.weight"},
                {"tensor_fqn": "3.weight"},
            ],
        )
        layer, lstm, norm, conv1d = model.children()
        self.assertIs(type(layer.parametrizations.weight[0]), OtherSparsity)
        self.assertEqual(row_mask_of(layer), mask)
        self.assertIs(pruner.state["0.weight"]["mask"], row_mask_of(layer))
        self.assertEqual(layer.weight[1].tolist(), [0, 0])
        for module, shape in ((lstm, (8,)), (norm, (2,)), (conv1d, (2,))):
            self.assertEqual(row_mask_of(module, "weight_hh_l0" if module is lstm else "weight").shape, shape)
            self.assertFalse(module._forward_hooks)
            self.assertFalse(hasattr(module, "_bias"))
        self.assertIsNotNone(norm.bias)
        self.assertIsNotNone(conv1d.bias)

    def test_prepare_makes_masks_on_the_device_of_the_weight(self):
        """The mask lies where the weight lies, be it a device without values."""

        class Unmasked(FakeStructuredSparsity):  # a product on this device imports sympy, which takes a second
            def forward(self, weight):
                return weight

        model = Chain(nn.Linear(2, 3, device="meta"), nn.Conv2d(1, 2, 1, device="meta"))
        RowPruner().prepare(model, [{"tensor_fqn": f"{place}.weight", "parametrization": Unmasked} for place in (0, 1)])
        for layer in model.children():
            self.assertEqual((row_mask_of(layer).device.type, row_mask_of(layer).shape), ("meta", layer.weight.shape[:1]))
            self.assertEqual(layer._bias.device.type, "meta")

    def check_step(self, model, config, x):
        """After step() the model computes what the plain one computes with the rows zeroed by hand."""
        with torch.no_grad(), zeroed(model, config):
            expected = model(x)
        prepared_with(model, config)
        for part in config:
            path = part["tensor_fqn"].rpartition(".")[0]
            mask = row_mask_of(model.get_submodule(path))
            self.assertListEqual((~mask).nonzero().flatten().tolist(), list(part["rows"]), msg=path)
        with torch.no_grad():
            torch.testing.assert_close(model(x), expected)
            torch.testing.assert_close(model(x), expected)

    def test_step_linear(self):
        """step() masks rows of linear layers, with and without their bias, in one layer and in several."""
        for bias, prune_bias in itertools.product((True, False), repeat=2):
            with self.subTest(bias=bias, prune_bias=prune_bias):
                model = Chain(nn.Linear(3, 4, bias=bias), nn.Tanh(), nn.Linear(4, 3, bias=bias), nn.Linear(3, 2))
                config = [entry("0.weight", 1, 2, prune_bias=prune_bias), entry("2.weight", 0, prune_bias=prune_bias)]
                self.check_step(model, config, values(5, 3))

    def test_step_conv2d(self):
        """step() masks filters of convolutions, with and without their bias, in one layer and in several."""
        for bias, prune_bias in itertools.product((True, False), repeat=2):
            with self.subTest(bias=bias, prune_bias=prune_bias):
                model = Chain(nn.Conv2d(2, 4, 2, bias=bias), nn.Tanh(), nn.Conv2d(4, 3, 1, padding=1, bias=bias), nn.Conv2d(3, 2, 1))
                config = [entry("0.weight", 1, 2, prune_bias=prune_bias), entry("2.weight", 0, prune_bias=prune_bias)]
                self.check_step(model, config, values(2, 2, 3, 3))

    def assertSameOutput(self, actual, expected, what):
        """Equal shapes and, up to rounding, numbers; the message counts the wrong ones."""
        self.assertEqual(actual.shape, expected.shape, what)
        wrong = ~torch.isclose(actual, expected, atol=1e-5, rtol=1e-4)
        if wrong.any():
            most = (actual - expected).abs().max()
            self.fail(f"{what}: {int(wrong.sum())} of {wrong.numel()} numbers are wrong, by up to {most:.3f}")

    def assertPreparedAsPlain(self, model, *inputs, fqn="0.weight"):
        """prepare() must not change the output, and masked rows must be those of the plain model that are zeroed by hand."""
        masked = copy.deepcopy(model)
        with torch.no_grad():
            expected = [model(x) for x in inputs]
            RowPruner().prepare(model, [entry(fqn)])
            for x, output in zip(inputs, expected):
                self.assertSameOutput(model(x), output, f"prepared, on {tuple(x.shape)}")
            for x in inputs:
                layer = copy.deepcopy(masked)
                with zeroed(layer, [entry(fqn, 1)]):
                    output = layer(x)
                prepared_with(layer, [entry(fqn, 1)])
                self.assertSameOutput(layer(x), output, f"a row masked, on {tuple(x.shape)}")

    @known_defect("prepared-conv2d-adds-bias-along-the-height")
    def test_prepared_conv2d_takes_unbatched_images(self):
        """nn.Conv2d documents the input (C, H, W), too; the prepared one adds its bias along the channels."""
        self.assertPreparedAsPlain(Chain(nn.Conv2d(1, 3, 1)), values(1, 3, 3), values(1, 2, 3))

    @known_defect("prepared-linear-adds-bias-along-the-sequence")
    def test_prepared_linear_takes_sequences(self):
        """nn.Linear documents the input (*, in_features); the prepared one adds its bias along the features."""
        self.assertPreparedAsPlain(Chain(nn.Linear(2, 3)), values(4, 3, 2), values(4, 5, 2), values(2, 1, 3, 2))

    @known_defect("prepared-linear-refuses-a-vector")
    def test_prepared_linear_takes_a_vector(self):
        """nn.Linear documents the input (*, in_features), where * may be no dimension at all."""
        self.assertPreparedAsPlain(Chain(nn.Linear(2, 3)), values(2))

    def test_prepared_layers_without_bias_take_inputs_of_any_rank(self):
        """Without a bias there is nothing to add: sequences, vectors and single images give what the plain layers give."""
        for layer, shapes in ((nn.Linear(2, 3, bias=False), ((2,), (4, 2), (4, 5, 2))), (nn.Conv2d(1, 3, 1, bias=False), ((1, 2, 3),))):
            self.assertPreparedAsPlain(Chain(layer), *(values(*shape) for shape in shapes))

    @known_defect("prepare-of-another-layer-adds-the-first-bias-twice")
    def test_prepare_of_another_layer_leaves_the_first_as_it_is(self):
        """prepare() appends to groups; a second one adds a mask where there is none, and does not change the output."""
        model = Chain(nn.Linear(2, 3), nn.Linear(3, 2))
        model.get_submodule("0").bias.data.fill_(1)
        model.get_submodule("1").weight.data.fill_(1)
        expected, masked = model(values(4, 2)), copy.deepcopy(model)
        pruner = RowPruner()
        for fqn in ("0.weight", "1.weight"):
            pruner.prepare(model, [entry(fqn, 1)])
        self.assertSameOutput(model(values(4, 2)), expected, "second prepare")
        with zeroed(masked, [entry("0.weight", 1), entry("1.weight", 1)]):
            expected = masked(values(4, 2))
        pruner.step()
        self.assertSameOutput(model(values(4, 2)), expected, "step after two prepares")
        model = Chain(nn.Linear(2, 3, bias=False), nn.Linear(3, 2))
        parametrize.register_parametrization(model.get_submodule("0"), "weight", Scaled())
        pruner = RowPruner()
        for fqn in ("0.weight", "1.weight"):
            pruner.prepare(model, [entry(fqn, 1)])
        steps = [type(step).__name__ for step in model.get_submodule("0").parametrizations.weight]
        self.assertListEqual(steps, ["Scaled", "FakeStructuredSparsity"])

    def test_prepare_of_another_layer_adds_a_group_that_is_stepped(self):
        """A second prepare() keeps the first group; the new layer has its mask, in the state too, and step() masks rows of both."""
        model = Chain(nn.Linear(2, 3), nn.Linear(3, 4))
        pruner = RowPruner()
        for fqn, row in (("0.weight", 1), ("1.weight", 2)):
            pruner.prepare(model, [entry(fqn, row)])
        self.assertListEqual([group["tensor_fqn"] for group in pruner.groups], ["0.weight", "1.weight"])
        self.assertIs(pruner.state["1.weight"]["mask"], row_mask_of(model.get_submodule("1")))
        pruner.step()
        for path, row in (("0", 1), ("1", 2)):
            zero = (model.get_submodule(path).weight == 0).all(dim=1)
            self.assertListEqual(zero.nonzero().flatten().tolist(), [row], msg=f"rows of layer {path} that are zero")

    @known_defect("prepare-of-a-shared-layer-adds-its-bias-twice")
    def test_prepare_of_a_shared_layer_prepares_it_once(self):
        """A layer that two containers share is one tensor: named twice it is prepared once, or the second name is refused."""
        shared = nn.Linear(2, 2)
        shared.weight.data.copy_(torch.eye(2))
        shared.bias.data.fill_(1)
        model = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
        expected = model(values(4, 2))
        pruner = RowPruner()
        with contextlib.suppress(ValueError):
            pruner.prepare(model, [entry("0.0.weight"), entry("1.0.weight")])
        self.assertSameOutput(model(values(4, 2)), expected, "prepared, on (4, 2)")
        for group in pruner.groups if parametrize.is_parametrized(shared) else ():
            self.assertIs(pruner.state[group["tensor_fqn"]]["mask"], row_mask_of(shared), msg=group["tensor_fqn"])

    @known_defect("prepare-adds-the-bias-after-the-users-hooks")
    def test_prepare_adds_the_bias_before_the_users_hooks(self):
        """Forward hooks get the whole output of their layer, and may replace it; prepare() only adds masks."""
        model = Chain(nn.Linear(2, 3))
        model.get_submodule("0").bias.data.fill_(-100)
        model.get_submodule("0").register_forward_hook(lambda module, args, output: output.relu())
        self.assertPreparedAsPlain(model, values(4, 2))

    def test_hooks_behind_prepare_get_the_output_with_its_bias(self):
        """A forward hook that is registered after prepare() gets the output of the plain layer."""
        model, seen = Chain(nn.Linear(2, 3)), []
        expected = model(values(4, 2))
        RowPruner().prepare(model, [entry("0.weight")])
        model.get_submodule("0").register_forward_hook(lambda module, args, output: seen.append(output.clone()))
        model(values(4, 2))
        self.assertSameOutput(seen[0], expected, "what the hook got")

    @known_defect("prepare-without-config-crashes-on-an-lstm")
    def test_prepare_without_config_takes_an_lstm(self):
        """nn.LSTM is in SUPPORTED_STRUCTURED_PRUNING_MODULES, "added to config if None given": the weights of all its layers are."""
        model = nn.Sequential(nn.LSTM(2, 3, 2), nn.Linear(3, 2))
        pruner = RowPruner()
        pruner.prepare(model, None)
        weights = {"1.weight", *(f"0.weight_{part}_l{layer}" for part in ("ih", "hh") for layer in (0, 1))}
        self.assertSetEqual(weights, {group["tensor_fqn"] for group in pruner.groups})  # no bias, as of other layers
        for name in ("weight_ih_l0", "weight_hh_l1"):
            self.assertListEqual(row_mask_of(model[0], name).tolist(), [True] * 12)

    @known_defect("prepare-of-a-bias-crashes")
    def test_prepare_masks_a_bias(self):
        """FakeStructuredSparsity: "should be attached to the 'weight' or any other parameter that requires a mask"."""
        for layer, x in ((nn.Linear(2, 3), values(4, 2)), (nn.Conv2d(1, 3, 1), values(2, 1, 2, 2))):
            model = Chain(layer)
            expected = model(x)
            expected[:, 1] -= layer.bias[1]
            prepared_with(model, [entry("0.bias", 1)])
            self.assertSameOutput(model(x), expected, "a row of the bias masked")

    def assertPreparedMasksRowOne(self, model, x, left=0, **options):
        """Preparing layer 0 changes no output, and a step then makes channel 1 what is ``left`` of it, and leaves the others."""
        expected = model(x)
        pruner = RowPruner()
        pruner.prepare(model, [entry("0.weight", 1, **options)])
        self.assertSameOutput(model(x), expected, "prepared")
        pruner.step()
        expected[:, 1] = left
        self.assertSameOutput(model(x), expected, "a row masked")

    @known_defect("prepare-crashes-on-a-parametrized-bias")
    def test_prepare_keeps_the_parametrization_of_a_bias(self):
        """Parametrizations of other tensors are no business of prepare(): such a layer can be prepared, and computes the same."""
        layers = ((lambda: nn.Linear(2, 3), values(4, 2)), (lambda: nn.Conv2d(2, 3, 1), values(4, 2, 3, 2)))
        for (make, x), prune_bias in itertools.product(layers, (True, False)):
            model = Chain(make())
            parametrize.register_parametrization(model.get_submodule("0"), "bias", Scaled())
            left = 0 if prune_bias else model.get_submodule("0").bias[1].item()
            self.assertPreparedMasksRowOne(model, x, left, prune_bias=prune_bias)

    @known_defect("prepare-takes-the-first-parametrization-for-the-mask")
    def test_prepare_takes_a_weight_that_has_another_parametrization(self):
        """Parametrizations chain, a weight may have several: the bias goes by the mask, wherever that stands in the list."""
        model = Chain(nn.Linear(2, 3))
        for _ in range(2):
            parametrize.register_parametrization(model.get_submodule("0"), "weight", Scaled())
        self.assertPreparedMasksRowOne(model, values(4, 2))

    def test_prepare_tells_layers_of_like_names_apart(self):
        """Rows of the layer that is named are masked, and of none whose name ends like it or repeats a part."""
        layers = {"0": nn.Linear(2, 2), "block": nn.Sequential(nn.Linear(2, 2)), "weight": nn.Linear(2, 2), "conv": nn.Linear(2, 2)}
        layers["deconv"] = nn.Linear(2, 2)
        for named in ("0", "block.0", "weight", "conv", "deconv"):
            model = nn.ModuleDict(copy.deepcopy(layers))
            pruner = prepared_with(model, [entry(f"{named}.weight", 1)])
            for path in ("0", "block.0", "weight", "conv", "deconv"):
                layer = model.get_submodule(path)
                self.assertEqual(bool((layer.weight[1] == 0).all()), path == named, msg=f"{named} named, row of {path}")
                self.assertEqual(parametrize.is_parametrized(layer), path == named, msg=f"{named} named, {path}")
            self.assertListEqual(list(pruner.state), [f"{named}.weight"])

    @known_defect("prepare-makes-a-frozen-bias-trainable")
    def test_prepare_leaves_frozen_parameters_frozen(self):
        """register_parametrization keeps requires_grad of the weight; prepare() only adds masks."""
        model = Chain(nn.Linear(2, 3)).requires_grad_(False)
        RowPruner().prepare(model, [entry("0.weight")])
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.assertListEqual(trained, [], msg=f"parameters that can be trained now: {trained}")

    @known_defect("prepare-takes-the-bias-away-from-the-optimizer")
    def test_prepare_keeps_the_parameters_that_an_optimizer_holds(self):
        """register_parametrization keeps the weight the same object, for the sake of optimizers; so is the bias to be."""
        model = Chain(nn.Linear(2, 3))
        before = {id(parameter) for parameter in model.parameters()}
        RowPruner().prepare(model, [entry("0.weight")])
        unknown = [name for name, parameter in model.named_parameters() if id(parameter) not in before]
        self.assertListEqual(unknown, [], msg=f"parameters that an optimizer does not know: {unknown}")

    def test_prepare_copies_no_parameter(self):
        """prepare() only adds masks: weight and bias stay where they are in memory."""
        model = Chain(nn.Linear(2, 3), nn.Conv2d(1, 2, 1))
        before = {parameter.data_ptr() for parameter in model.parameters()}
        RowPruner().prepare(model, [entry("0.weight"), entry("1.weight")])
        self.assertSetEqual({parameter.data_ptr() for parameter in model.parameters()}, before)

    def test_prepare_leaves_mode_and_gradients(self):
        """prepare() only adds masks: the model is in training or not as before, and the weight has the gradient that it had."""
        for training in (True, False):
            model = Chain(nn.Linear(2, 3)).train(training)
            model(values(4, 2)).sum().backward()
            gradient = model.get_submodule("0").weight.grad
            RowPruner().prepare(model, [entry("0.weight")])
            self.assertEqual((model.training, model.get_submodule("0").training), (training, training), "mode")
            self.assertIs(model.get_submodule("0").parametrizations.weight.original.grad, gradient)

    def test_prepared_layer_keeps_the_type_of_autocast(self):
        """torch.autocast has layers answer in its type of numbers; a prepared one does as the plain one does."""
        for layer, x in ((nn.Linear(2, 3), values(4, 2)), (nn.Conv2d(2, 3, 1), values(4, 2, 1, 1))):
            model = Chain(layer)
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                expected = model(x).dtype
                RowPruner().prepare(model, [entry("0.weight")])
                self.assertIs(model(x).dtype, expected, msg=f"type of what a prepared {type(layer).__name__} answers")

    @known_defect("prepared-bias-gets-no-gradient")
    def test_prepared_bias_is_trained(self):
        """README: prepare() makes the model behave as if pruned, it is then trained; a kept bias gets the plain model's gradient."""
        for prune_bias, expected in ((True, [4, 0, 4]), (False, [4, 4, 4])):
            model = Chain(nn.Linear(2, 3))
            prepared_with(model, [entry("0.weight", 1, prune_bias=prune_bias)])
            model(values(4, 2)).sum().backward()
            (bias,) = [parameter for name, parameter in model.named_parameters() if "bias" in name]
            self.assertIsNotNone(bias.grad, msg=f"gradient of the bias: {bias.grad}")
            self.assertListEqual(bias.grad.tolist(), expected)

    @known_defect("prepared-bias-is-overwritten-by-a-forward")
    def test_prepared_bias_comes_back_with_its_row(self):
        """Masking is a parametrization: the original is kept, and with the row back the output is the plain model's again."""
        model = Chain(nn.Linear(2, 3))
        model.get_submodule("0").bias.data.copy_(torch.tensor([1.0, 2, 3]))
        expected = model(values(4, 2))
        prepared_with(model, [entry("0.weight", 1)])
        model(values(4, 2))
        (bias,) = [parameter.tolist() for name, parameter in model.named_parameters() if "bias" in name]
        self.assertListEqual(bias, [1, 2, 3], msg=f"bias after a forward: {bias}")
        row_mask_of(model.get_submodule("0"))[1] = True
        self.assertSameOutput(model(values(4, 2)), expected, "output with a full mask again")

    def test_forward_writes_to_no_bias_that_is_kept(self):
        """Rows that are kept, and all rows where biases are not pruned, have the bias that they had, whatever was computed."""
        for prune_bias, rows in ((True, [0, 2]), (False, [0, 1, 2])):
            model = Chain(nn.Linear(2, 3))
            before = model.get_submodule("0").bias[rows].tolist()
            prepared_with(model, [entry("0.weight", 1, prune_bias=prune_bias)])
            model(values(4, 2))
            (bias,) = [parameter for name, parameter in model.named_parameters() if "bias" in name]
            self.assertListEqual(bias[rows].tolist(), before, msg=f"prune_bias={prune_bias}")

    @beside()  # it imports torch._dynamo
    @known_defect("structured-model-cannot-be-exported")
    def test_export_of_a_structured_model(self):
        """Preparing makes a model behave as if pruned; torch.export takes it, as it takes one with a bias of nn.Linear's own."""
        if build.TORCH_VERSION < (2, 2):
            self.skipTest("torch.export (no strict=False)")
        model, x = Chain(nn.Linear(2, 3)), values(4, 2)
        prepared_with(model, [entry("0.weight", 1)])
        with mock.patch.dict(os.environ), warnings.catch_warnings():  # torch._dynamo changes both when it is imported
            try:
                program = torch.export.export(model, (x,), strict=False)
            except Exception as error:  # each release refuses in its own way
                self.fail(f"the export fails: {type(error).__name__}: {error}")
        self.assertEqual(program.module()(x), model(x), msg="the exported model answers otherwise")

    @known_defect("prepared-structured-model-cannot-load-its-state-dict")
    def test_prepared_model_loads_its_own_state_dict(self):
        """load_state_dict(state_dict()) with strict=True is the round trip of nn.Module."""
        model, other = Chain(nn.Linear(2, 3)), Chain(nn.Linear(2, 3))
        prepared_with(model, [entry("0.weight", 1)])
        prepared_with(other, [entry("0.weight", 2)])
        missing, unexpected = other.load_state_dict(model.state_dict())
        self.assertEqual((missing, unexpected), ([], []), "keys missing and unexpected")
        row_mask_of(other.get_submodule("0"))[:] = row_mask_of(model.get_submodule("0"))
        self.assertSameOutput(other(values(4, 2)), model(values(4, 2)), "loaded into another model")

    def test_prepared_model_loads_its_weights_if_not_strict(self):
        """load_state_dict(strict=False) loads weight and bias under the names that state_dict() gives them; the mask stays."""
        model, other = Chain(nn.Linear(2, 3)), Chain(nn.Linear(2, 3))
        prepared_with(model, [entry("0.weight", 1)])
        prepared_with(other, [entry("0.weight", 2)])
        self.assertListEqual(other.load_state_dict(model.state_dict(), strict=False).unexpected_keys, [])
        for mine, theirs in zip(other.parameters(), model.parameters()):
            self.assertEqual(mine, theirs)
        self.assertListEqual(row_mask_of(other.get_submodule("0")).tolist(), [True, True, False])

    @known_defect("structured-load-state-dict-adds-a-mask-of-another-kind")
    def test_load_state_dict_restores_the_mask(self):
        """state_dict() and load_state_dict() are a round trip: the model runs, with the saved mask and no other."""
        model, other = (Chain(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, (1, 2), bias=False)) for _ in range(2))
        for chain in (model, other):
            parametrize.register_parametrization(chain.get_submodule("1"), "weight", Scaled())
        saved, pruner = prepared_with(model, [entry("0.weight", 1), entry("1.weight", 0)]), prepared_with(other, [entry("0.weight", 2)])
        other.load_state_dict(model.state_dict(), strict=False)
        pruner.load_state_dict(copy.deepcopy(saved.state_dict()))
        for path, kinds, mask in (
            ("0", ["FakeStructuredSparsity"], [True, False, True]),
            ("1", ["Scaled", "FakeStructuredSparsity"], [False, True, True, True]),
        ):
            steps = [type(step).__name__ for step in other.get_submodule(path).parametrizations.weight]
            self.assertListEqual(steps, kinds, msg=f"masks on the weight after load_state_dict: {steps}")
            self.assertListEqual(row_mask_of(other.get_submodule(path)).tolist(), mask)
        self.assertSameOutput(other(values(4, 2, 1, 2)), model(values(4, 2, 1, 2)), "output after load_state_dict")

    def test_load_state_dict_restores_arguments_and_layers(self):
        """The groups have the saved arguments, and the layers of the pruner's own model."""
        model, other = Chain(nn.Linear(2, 3), nn.Linear(3, 2)), Chain(nn.Linear(2, 3), nn.Linear(3, 2))
        saved = prepared_with(model, [entry("0.weight", 1, prune_bias=False), entry("1.weight", 0)])
        pruner = prepared_with(other, [entry("0.weight", 2), entry("1.weight", 1)])
        pruner.load_state_dict(copy.deepcopy(saved.state_dict()))
        self.assertListEqual([group["rows"] for group in pruner.groups], [(1,), (0,)])
        self.assertIs(pruner.groups[0]["prune_bias"], False)
        for path, group in zip(("0", "1"), pruner.groups):
            self.assertIs(group["module"], other.get_submodule(path))
            self.assertEqual((group["tensor_fqn"], group["tensor_name"]), (f"{path}.weight", "weight"))

    @known_defect("structured-squash-leaves-the-bias-aside")
    def test_squash_mask_gives_the_plain_layer_back(self):
        """squash_mask() removes what prepare() has added and leaves the masked values: names, parameters, no hook."""
        for prune_bias in (True, False):
            model = Chain(nn.Linear(2, 3))
            weight, bias = (parameter.detach().clone() for parameter in model.parameters())
            layer, hook = model.get_submodule("0"), lambda *args: None
            layer.register_forward_hook(hook)
            attributes = set(vars(layer))
            prepared_with(model, [entry("0.weight", 1, prune_bias=prune_bias)]).squash_mask()
            names = sorted(model.state_dict())
            self.assertListEqual(names, ["0.bias", "0.weight"], msg=f"parameters after squash_mask: {names}")
            self.assertListEqual(list(layer._forward_hooks.values()), [hook])
            self.assertSetEqual(set(vars(layer)), attributes)
            weight[1] = 0
            bias[1] *= not prune_bias
            self.assertEqual((layer.weight, layer.bias), (weight, bias))
            self.assertIsInstance(layer.bias, nn.Parameter)
        model = Chain(nn.Linear(2, 3), nn.Linear(3, 2))
        prepared_with(model, [entry("0.weight", 1), entry("1.weight", 0)]).squash_mask()
        self.assertListEqual(sorted(model.state_dict()), ["0.bias", "0.weight", "1.bias", "1.weight"])

    def test_squash_mask_changes_no_output(self):
        """The squashed model computes what the prepared one did, with and without a pruned bias, and has the arguments to be kept."""
        for prune_bias, forward in itertools.product((True, False), repeat=2):
            model = Chain(nn.Linear(2, 3), nn.Linear(3, 2, bias=False), nn.Linear(2, 2))
            config = [entry("0.weight", 1, prune_bias=prune_bias), entry("1.weight", 0)]
            with zeroed(model, config):
                expected = model(values(4, 2))
            pruner = prepared_with(model, config)
            if forward:
                model(values(4, 2))
            pruner.squash_mask(("rows",), params_to_keep_per_layer={"0": ("prune_bias",)})
            self.assertEqual(model.get_submodule("0").sparse_params, {"rows": (1,), "prune_bias": prune_bias})
            self.assertSameOutput(model(values(4, 2)), expected, f"prune_bias={prune_bias}, forward={forward}")
            self.assertFalse(any(map(parametrize.is_parametrized, model.modules())))

    @known_defect("structured-copy-loses-model-and-patterns")
    def test_copy_of_a_pruner_prunes_its_copy_of_the_model(self):
        """The class implements __getstate__ and __setstate__ for copies: one behaves as the original does."""
        model = Chain(nn.Linear(2, 3), nn.Linear(3, 2))
        original = prepared_with(model, [entry("0.weight", 1)], patterns=patterns_in(model))
        original.enable_mask_update = False
        pruner = copy.deepcopy(original)
        expected = model(values(4, 2))
        self.assertSameOutput(pruner.prune()(values(4, 2)), expected, "pruned by the copy")
        self.assertIs(pruner.enable_mask_update, False)
        self.assertEqual(model.get_submodule("0").parametrizations.weight.original.shape, (3, 2), msg="the original's model")
        self.assertSetEqual(set(pruner.patterns), set(original.patterns))
        unpickled = pickle.loads(pickle.dumps(RowPruner(rows=(1,))))  # a module with parametrizations cannot be pickled
        self.assertEqual((unpickled.defaults, unpickled.enable_mask_update), ({"rows": (1,)}, True))
        self.assertSetEqual(set(unpickled.patterns), set(RowPruner().patterns))
        model = Chain(nn.Linear(2, 3))
        scheduled = RowPruner()
        scheduled.prepare(model, [entry("0.weight", 1, sparsity_level=0.5)])
        LambdaSL(scheduled, lambda epoch: 1.0)  # from then on it counts the steps of this pruner
        pruner = copy.deepcopy(scheduled)
        pruner.step()
        self.assertListEqual(row_mask_of(pruner.groups[0]["module"]).tolist(), [True, False, True])
        self.assertListEqual(row_mask_of(model.get_submodule("0")).tolist(), [True, True, True])

    def test_shallow_copy_of_a_pruner_shares_its_groups(self):
        """copy.copy copies the pruner alone, and nothing that it has."""
        pruner = prepared_with(Chain(nn.Linear(2, 3)), [entry("0.weight", 1)])
        self.assertIs(copy.copy(pruner).groups, pruner.groups)

    def test_copy_of_a_pruner_has_layers_and_masks_of_its_own(self):
        """A deep copy has the groups and defaults of the original; its layers and masks are copies, and belong together."""
        model = Chain(nn.Linear(2, 3))
        original = prepared_with(model, [entry("0.weight", 1)], rows=(7,))
        pruner = copy.deepcopy(original)
        (group,) = pruner.groups
        self.assertEqual((pruner.defaults, group["rows"], group["tensor_fqn"]), ({"rows": (7,)}, (1,), "0.weight"))
        self.assertIsNot(group["module"], model.get_submodule("0"))
        self.assertIs(pruner.state["0.weight"]["mask"], row_mask_of(group["module"]))
        row_mask_of(group["module"])[2] = False
        self.assertListEqual(row_mask_of(model.get_submodule("0")).tolist(), [True, False, True])

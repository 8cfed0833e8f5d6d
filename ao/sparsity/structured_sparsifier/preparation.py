"""What prepare() adds to a model, what the prepared model computes, and how the preparation is taken back."""

import copy
import itertools

from ao.sparsity.testing.base import TestCase

import torch
from torch import nn
from torch.ao.pruning._experimental.pruner import BiasHook, FakeStructuredSparsity
from torch.ao.pruning._experimental.pruner.parametrization import module_contains_param
from torch.nn.utils import parametrize

from ao.sparsity.structured_sparsifier.cases import patterns_in, mask_of, values, prepared, entry, Scaled
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

    def test_fake_structured_sparsity_keeps_its_mask_out_of_state_dicts(self):
        """The mask is a buffer, so that it moves with the module, and not part of a state_dict, so that it is saved only once."""
        mask = torch.ones(2, dtype=torch.bool)
        parametrization = FakeStructuredSparsity(mask)
        self.assertIs(dict(parametrization.named_buffers())["mask"], mask)
        self.assertEqual(parametrization.state_dict(), {})
        self.assertEqual(parametrization.state_dict(prefix="x."), {})
        linear = nn.Linear(3, 2)
        parametrize.register_parametrization(linear, "weight", parametrization)
        self.assertSetEqual(set(linear.state_dict()), {"bias", "parametrizations.weight.original"})

    def test_module_contains_param_asks_every_parametrization_of_every_tensor(self):
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
        for shape, prune_bias in itertools.product(((5, 3), (5, 3, 2, 2)), (True, False)):
            with self.subTest(shape=shape, prune_bias=prune_bias):
                module = nn.Module()
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
            mask = mask_of(layer)
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
                self.assertIs(layer.prune_bias, bias_options[path].get("prune_bias", True), msg=path)
            else:
                self.assertFalse(hasattr(layer, "_bias"), msg=path)
        torch.testing.assert_close(model(x), plain(x))
        self.assertIs(pruner.model, model)
        return pruner

    def test_prepare_linear(self):
        """prepare() masks the rows of the named linear layers, moves their bias to a hook, and does not change the output."""
        model = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.Linear(4, 3), nn.Linear(3, 2))
        self.check_prepared(model, values(5, 3), {"0": {}, "2": {"prune_bias": True}, "3": {"prune_bias": False}})

    def test_prepare_conv2d(self):
        """prepare() masks the filters of the named convolutions, moves their bias to a hook, and does not change the output."""
        model = Chain(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 1))
        self.check_prepared(model, values(2, 2, 3, 3), {"0": {}, "2": {"prune_bias": False}, "3": {"prune_bias": False}})

    def test_prepare_keeps_what_the_configuration_gives(self):
        """A mask and a parametrization in the configuration are used as they are; layers other than these two get no hook."""

        class OtherSparsity(FakeStructuredSparsity):
            pass

        mask = torch.tensor([True, False])
        model = Chain(nn.Linear(2, 2), nn.LSTM(2, 2), nn.LayerNorm(2))
        pruner = RowPruner()
        pruner.prepare(
            model,
            [
                {"tensor_fqn": "0.weight", "mask": mask, "parametrization": OtherSparsity},
                {"tensor_fqn": "1.weight_hh_l0"},
                {"tensor_fqn": "2.weight"},
            ],
        )
        layer, lstm, norm = model.children()
        self.assertIs(type(layer.parametrizations.weight[0]), OtherSparsity)
        self.assertIs(mask_of(layer), mask)
        self.assertIs(pruner.state["0.weight"]["mask"], mask)
        self.assertEqual(layer.weight[1].tolist(), [0, 0])
        for module, shape in ((lstm, (8,)), (norm, (2,))):
            self.assertEqual(mask_of(module, "weight" if module is norm else "weight_hh_l0").shape, shape)
            self.assertFalse(module._forward_hooks)
            self.assertFalse(hasattr(module, "_bias"))
        self.assertIsNotNone(norm.bias)

    def test_prepare_makes_masks_on_the_device_of_the_weight(self):
        """The mask lies where the weight lies, be it a device without values."""

        class Unmasked(FakeStructuredSparsity):  # a product on this device imports sympy, which takes a second
            def forward(self, weight):
                return weight

        model = Chain(nn.Linear(2, 3, device="meta"), nn.Conv2d(1, 2, 1, device="meta"))
        RowPruner().prepare(model, [{"tensor_fqn": f"{place}.weight", "parametrization": Unmasked} for place in (0, 1)])
        for layer in model.children():
            self.assertEqual((mask_of(layer).device.type, mask_of(layer).shape), ("meta", layer.weight.shape[:1]))
            self.assertEqual(layer._bias.device.type, "meta")

    def check_step(self, model, config, x):
        """After step() the model computes what the plain one computes with the rows zeroed by hand."""
        with torch.no_grad(), zeroed(model, config):
            expected = model(x)
        prepared(model, config)
        for part in config:
            path = part["tensor_fqn"].rpartition(".")[0]
            mask = mask_of(model.get_submodule(path))
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

    def assertPreparedAsPlain(self, model, x, config=None):
        """prepare() must not change the output."""
        with torch.no_grad():
            expected = model(x)
            pruner = RowPruner()
            pruner.prepare(model, config)
            self.assertTensorsClose(model(x), expected, "prepare() changed the output")
        return pruner

    @known_defect("prepared-conv2d-adds-bias-along-the-height")
    def test_prepared_conv2d_takes_unbatched_images(self):
        """nn.Conv2d takes (C, H, W) too, and so does the prepared one, with its bias along the channels."""
        self.assertPreparedAsPlain(Chain(nn.Conv2d(1, 3, 1)), values(1, 3, 3), [entry("0.weight")])

    @known_defect("prepared-linear-adds-bias-along-the-sequence")
    def test_prepared_linear_takes_sequences(self):
        """nn.Linear takes (batch, length, features) too, and so does the prepared one, with its bias along the features."""
        self.assertPreparedAsPlain(Chain(nn.Linear(2, 3)), values(4, 3, 2), [entry("0.weight")])

    @known_defect("prepared-linear-refuses-a-vector")
    def test_prepared_linear_takes_a_vector(self):
        """nn.Linear takes one vector of features too, and so does the prepared one."""
        self.assertPreparedAsPlain(Chain(nn.Linear(2, 3)), values(2), [entry("0.weight")])

    @known_defect("prepare-of-another-layer-adds-the-first-bias-twice")
    def test_prepare_of_another_layer_leaves_the_first_as_it_is(self):
        """A second prepare() appends groups and does not change what the model computes."""
        model = Chain(nn.Linear(2, 3), nn.Linear(3, 2))
        pruner = self.assertPreparedAsPlain(model, values(4, 2), [entry("0.weight")])
        before = model(values(4, 2))
        pruner.prepare(model, [entry("1.weight")])
        self.assertTensorsClose(model(values(4, 2)), before, "second prepare() changed the output")

    @known_defect("prepare-of-a-shared-layer-adds-its-bias-twice")
    def test_prepare_of_a_shared_layer_prepares_it_once(self):
        """A layer that two containers share is one tensor: prepare(model, None) must not change the output."""
        shared = nn.Linear(2, 2)
        self.assertPreparedAsPlain(nn.Sequential(nn.Sequential(shared), nn.Sequential(shared)), values(4, 2))

    @known_defect("prepare-adds-the-bias-after-the-users-hooks")
    def test_prepare_adds_the_bias_before_the_users_hooks(self):
        """A forward hook that was there before sees, and may replace, the whole output of its layer."""
        model = Chain(nn.Linear(2, 3))
        model.get_submodule("0").register_forward_hook(lambda module, args, output: output.relu())
        self.assertPreparedAsPlain(model, values(4, 2), [entry("0.weight")])

    @known_defect("prepare-without-config-crashes-on-an-lstm")
    def test_prepare_without_config_takes_an_lstm(self):
        """nn.LSTM is among the modules that are added to the configuration if there is none."""
        model = nn.Sequential(nn.LSTM(2, 3))
        RowPruner().prepare(model, None)
        self.assertTrue(module_contains_param(model[0], FakeStructuredSparsity))

    @known_defect("prepare-of-a-bias-crashes")
    def test_prepare_masks_a_bias(self):
        """FakeStructuredSparsity may be attached to the weight or any other parameter that requires a mask."""
        model = Chain(nn.Linear(2, 3))
        expected = model(values(4, 2))
        prepared(model, [entry("0.bias", 1)])
        expected[:, 1] -= model.get_submodule("0").parametrizations.bias.original[1]
        self.assertTensorsClose(model(values(4, 2)), expected, "output with a masked bias")

    @known_defect("prepare-crashes-on-a-parametrized-bias")
    def test_prepare_keeps_the_parametrization_of_a_bias(self):
        """A layer whose bias has a parametrization of the user's can be prepared, and computes the same."""
        model = Chain(nn.Linear(2, 3))
        parametrize.register_parametrization(model.get_submodule("0"), "bias", Scaled())
        self.assertPreparedAsPlain(model, values(4, 2), [entry("0.weight")])

    @known_defect("prepare-takes-the-first-parametrization-for-the-mask")
    def test_prepare_takes_a_weight_that_has_another_parametrization(self):
        """The bias goes by the mask of pruning, wherever that stands in the list of parametrizations."""
        model = Chain(nn.Linear(2, 3))
        parametrize.register_parametrization(model.get_submodule("0"), "weight", Scaled())
        self.assertPreparedAsPlain(model, values(4, 2), [entry("0.weight")])

    @known_defect("prepare-makes-a-frozen-bias-trainable")
    def test_prepare_leaves_frozen_parameters_frozen(self):
        """What does not require a gradient before prepare() does not require one afterwards."""
        model = Chain(nn.Linear(2, 3)).requires_grad_(False)
        RowPruner().prepare(model, [entry("0.weight")])
        self.assertListEqual(
            [name for name, parameter in model.named_parameters() if parameter.requires_grad], [], msg="parameters that can be trained now"
        )

    @known_defect("prepare-takes-the-bias-away-from-the-optimizer")
    def test_prepare_keeps_the_parameters_that_an_optimizer_holds(self):
        """Parameters stay the same objects, the bias as well as the weight, which register_parametrization keeps."""
        model = Chain(nn.Linear(2, 3))
        before = {id(parameter) for parameter in model.parameters()}
        RowPruner().prepare(model, [entry("0.weight")])
        self.assertListEqual(
            [name for name, parameter in model.named_parameters() if id(parameter) not in before],
            [],
            msg="parameters an optimizer does not know",
        )

    @known_defect("prepared-bias-gets-no-gradient")
    def test_prepared_bias_is_trained(self):
        """Masks are there for training: the bias of a kept row gets the gradient that it has in the plain model."""
        model = Chain(nn.Linear(2, 3))
        prepared(model, [entry("0.weight", 1)])
        model(values(4, 2)).sum().backward()
        (bias,) = [parameter for name, parameter in model.named_parameters() if "bias" in name]
        self.assertIsNotNone(bias.grad, msg="gradient of the bias")
        self.assertListEqual(bias.grad[[0, 2]].tolist(), [4, 4])

    @known_defect("prepared-bias-is-overwritten-by-a-forward")
    def test_prepared_bias_comes_back_with_its_row(self):
        """A mask hides: with the row back in the mask, the output is that of the plain model again."""
        model = Chain(nn.Linear(2, 3))
        expected = model(values(4, 2))
        prepared(model, [entry("0.weight", 1)])
        model(values(4, 2))
        mask_of(model.get_submodule("0"))[1] = True
        self.assertTensorsClose(model(values(4, 2)), expected, "output with a full mask again")

    @known_defect("prepared-structured-model-cannot-load-its-state-dict")
    def test_prepared_model_loads_its_own_state_dict(self):
        """load_state_dict(state_dict()) is the identity, strict as it is by default."""
        model = Chain(nn.Linear(2, 3))
        RowPruner().prepare(model, [entry("0.weight")])
        missing, unexpected = model.load_state_dict(model.state_dict())
        self.assertEqual((missing, unexpected), ([], []), "keys missing and unexpected")

    @known_defect("structured-load-state-dict-adds-a-mask-of-another-kind")
    def test_load_state_dict_restores_the_mask(self):
        """load_state_dict(state_dict()) leaves a model that runs, with one mask on the weight."""
        model = Chain(nn.Linear(2, 3))
        pruner = prepared(model, [entry("0.weight", 1)])
        expected = model(values(4, 2))
        pruner.load_state_dict(copy.deepcopy(pruner.state_dict()))
        self.assertEqual(len(model.get_submodule("0").parametrizations.weight), 1, msg="masks on the weight after load_state_dict")
        self.assertTensorsClose(model(values(4, 2)), expected, "output after load_state_dict")

    @known_defect("structured-squash-leaves-the-bias-aside")
    def test_squash_mask_gives_the_plain_layer_back(self):
        """squash_mask() takes away what prepare() added: the parameters have their names again and no hook is left."""
        model = Chain(nn.Linear(2, 3))
        names = set(model.state_dict())
        prepared(model, [entry("0.weight", 1)]).squash_mask()
        self.assertSetEqual(set(model.state_dict()), names, msg="names of the parameters after squash_mask")
        self.assertFalse(model.get_submodule("0")._forward_hooks)

    @known_defect("structured-copy-loses-model-and-patterns")
    def test_copy_of_a_pruner_prunes_its_copy_of_the_model(self):
        """A deep copy of a pruner is a pruner: prune() gives the masked model's output."""
        model = Chain(nn.Linear(2, 3), nn.Linear(3, 2))
        pruner = copy.deepcopy(prepared(model, [entry("0.weight", 1)], patterns=patterns_in(model)))
        expected = model(values(4, 2))
        self.assertTensorsClose(pruner.prune()(values(4, 2)), expected, "output of the copy")

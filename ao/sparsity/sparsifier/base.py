"""The base class of the sparsifiers: prepare, step, state, squash, convert."""

import contextlib
import copy
import io
import pickle
import re
import threading
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
import torch.ao.nn.qat as nnqat
import torch.ao.quantization as tq
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import NESTED_TENSORS, Nested, chain, linear
from ao.sparsity.testing.sparsifiers import Converted, FirstRows, Negate, mask_of, masks_on, on_disk, prepared

from torch.ao.pruning import BaseSparsifier, FakeSparsity, LambdaSL, NearlyDiagonalSparsifier, WeightNormSparsifier


@instantiate_parametrized_tests
class TestBaseSparsifier(TestCase):
    def test_constructor(self):
        """Class docstring: abstract; the defaults are those given, none unless given; nothing is prepared, updates are on."""
        with self.assertRaisesRegex(TypeError, "abstract.*update_mask"):
            BaseSparsifier()
        for given, expected in (({}, {}), ({"rows": 2, "x": [1]}, {"rows": 2, "x": [1]})):
            sparsifier = FirstRows(**given)
            self.assertEqual(sparsifier.defaults, expected)
        plain = type("Plain", (BaseSparsifier,), {"update_mask": lambda self, **kwargs: None})()
        self.assertEqual((plain.defaults, plain.groups, dict(plain.state)), ({}, [], {}))
        self.assertIs(plain.enable_mask_update, True)
        self.assertIsNot(plain.defaults, FirstRows().defaults)

    @known_defect("documented-constructor-call-is-refused")
    def test_constructor_accepts_what_its_documentation_names(self):
        """Class docstring, Args: what is named there is an argument of the constructor."""
        self.skip_without_docstrings()
        plain = type("Plain", (BaseSparsifier,), {"update_mask": lambda self, **kwargs: None})
        refused = []
        for name in re.findall(r"^ +- (\w+) \[", BaseSparsifier.__doc__, re.MULTILINE):
            try:
                plain(**{name: None})
            except TypeError:
                refused.append(name)
        self.assertEqual(f"{refused} are documented and refused", "[] are documented and refused")

    def test_constructor_keeps_base_update_mask_without_effect(self):
        """update_mask is abstract, and a subclass may call the one of the base, which changes nothing."""
        model, sparsifier = prepared(FirstRows())
        self.assertIsNone(BaseSparsifier.update_mask(sparsifier, **sparsifier.groups[0]))
        self.assertEqual(mask_of(model[0]), torch.ones(2, 3))

    def test_constructor_calls_the_next_class(self):
        """Multiple inheritance: the constructor hands on to the class that is next, so that a mixin behind it is set up."""

        class Mixin:
            def __init__(self):
                super().__init__()
                self.set_up = True

        kind = type("Both", (BaseSparsifier, Mixin), {"update_mask": lambda self, **kwargs: None})
        self.assertTrue(vars(kind()).get("set_up"))

    def test_prepare_config(self):
        """Class docstring: each element's arguments, completed by the defaults, become a group with the tensor's place."""
        model = Nested()
        sparsifier = FirstRows(rows=1, extra=[1])
        config = [{"tensor_fqn": "first.weight"}, {"tensor_fqn": "body.inner.0.weight", "rows": 3, "own": "x"}]
        sparsifier.prepare(model, config)
        self.assertIs(sparsifier.model, model)
        self.assertEqual(len(sparsifier.groups), 2)
        first, second = sparsifier.groups
        self.assertIs(first.pop("module"), model.first)
        self.assertIs(second.pop("module"), model.body.inner[0])
        self.assertEqual(first, {"tensor_fqn": "first.weight", "module_fqn": "first", "tensor_name": "weight", "rows": 1, "extra": [1]})
        self.assertEqual(
            second,
            {
                "tensor_fqn": "body.inner.0.weight",
                "module_fqn": "body.inner.0",
                "tensor_name": "weight",
                "rows": 3,
                "extra": [1],
                "own": "x",
            },
        )
        self.assertFalse(parametrize.is_parametrized(model.body.last))

    def test_prepare_adds_a_mask_of_ones(self):
        """Docstring of prepare: adds the parametrizations: until step() the model computes what it did, in the same dtype."""
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            with self.subTest(dtype=dtype):
                model = Nested().to(dtype)
                x = torch.ones(2, 4, dtype=dtype)
                before, parameter = model(x), model.first.weight
                sparsifier = FirstRows()
                sparsifier.prepare(model, [{"tensor_fqn": name} for name in NESTED_TENSORS])
                self.assertTrue(torch.equal(model(x), before))
                self.assertIs(model.first.parametrizations.weight.original, parameter)
                for name in NESTED_TENSORS:
                    layer = model.get_submodule(name.rpartition(".")[0])
                    mask = mask_of(layer)
                    self.assertEqual(mask, torch.ones_like(layer.parametrizations.weight.original))
                    self.assertFalse(mask.requires_grad)
                    self.assertIs(sparsifier.state[name]["mask"], mask)

    def test_prepare_reaches_any_tensor(self):
        """tensor_fqn names the tensor: a bias, a buffer, an embedding's or a root layer's weight."""
        model = nn.Sequential(linear(torch.ones(3, 2), bias=True), nn.BatchNorm1d(3), nn.Embedding(4, 2))
        sparsifier = FirstRows(rows=1)
        sparsifier.prepare(model, [{"tensor_fqn": "0.bias"}, {"tensor_fqn": "1.running_var"}, {"tensor_fqn": "2.weight"}])
        sparsifier.step()
        self.assertEqual(model[0].bias.detach(), torch.tensor([0.0, 1.0, 1.0]))
        self.assertEqual(model[1].running_var, torch.tensor([0.0, 1.0, 1.0]))
        self.assertEqual(model[2].weight[0].tolist(), [0.0, 0.0])
        root = linear(torch.ones(2, 2))
        sparsifier = FirstRows()
        sparsifier.prepare(root, [{"tensor_fqn": "weight"}])
        sparsifier.step()
        self.assertEqual(root.weight, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))

    def test_two_tensors_of_one_module_are_two_groups(self):
        """A group is a tensor: weight and bias of one layer have arguments and masks of their own, and are squashed both."""
        layer = linear(torch.ones(3, 2), bias=True)
        sparsifier = FirstRows(rows=1)
        sparsifier.prepare(layer, [{"tensor_fqn": "weight"}, {"tensor_fqn": "bias", "rows": 2}])
        sparsifier.step()
        self.assertEqual(layer.weight.detach(), torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
        self.assertEqual(layer.bias.detach(), torch.tensor([0.0, 0.0, 1.0]))
        self.assertEqual(sorted(sparsifier.state), ["bias", "weight"])
        sparsifier.squash_mask()
        self.assertFalse(parametrize.is_parametrized(layer))
        self.assertEqual((layer.weight.sum().item(), layer.bias.tolist()), (4, [0, 0, 1]))

    def test_names_that_end_alike_stay_apart(self):
        """tensor_fqn is the whole name: "0", "block.0" and "weight.0", "conv" and "deconv" are layers of their own."""
        names = ("block.0", "0", "weight.0", "weight", "deconv", "conv", "block.block")
        model = nn.Module()
        for name in names:
            parent, _, last = name.rpartition(".")
            if parent not in ("", *dict(model.named_children())):
                model.add_module(parent, nn.Module())
            model.get_submodule(parent).add_module(last, linear(torch.ones(4, 2)))
        model.weight.add_module("0", linear(torch.ones(4, 2)))
        sparsifier, fresh, twin = FirstRows(), FirstRows(), copy.deepcopy(model)
        sparsifier.prepare(model, [{"tensor_fqn": f"{name}.weight", "rows": index % 4} for index, name in enumerate(names)])
        fresh.prepare(twin, [{"tensor_fqn": f"{name}.weight"} for name in names])
        sparsifier.step()
        fresh.load_state_dict(on_disk(sparsifier.state_dict()))
        sparsifier.squash_mask(params_to_keep_per_layer={"0": ("rows",), "conv": ("rows",), "weight": ("rows",)})
        for index, name in enumerate(names):
            with self.subTest(name):
                layer, loaded = model.get_submodule(name), fresh.model.get_submodule(name)
                self.assertIs(fresh.groups[index]["module"], loaded)
                self.assertEqual(layer.weight.sum().item(), 8 - 2 * (index % 4))
                self.assertEqual(loaded.weight.sum().item(), 8 - 2 * (index % 4))
                kept = {"rows": index % 4} if name in ("0", "conv", "weight") else None
                self.assertEqual(getattr(layer, "sparse_params", None), kept)

    def test_prepare_takes_mask_and_parametrization_from_the_config(self):
        """The config may bring a mask to start from and the class of the parametrization."""

        class Double(FakeSparsity):
            def forward(self, x):
                return 2 * super().forward(x)

        mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3), mask=mask, parametrization=Double)
        self.assertIs(sparsifier.state["0.weight"]["mask"], model[0].parametrizations.weight[0].mask)
        self.assertEqual(model[0].weight, 2 * mask)
        model, sparsifier = prepared(FirstRows(mask=torch.zeros(2, 3)), torch.ones(2, 3))
        self.assertEqual(model[0].weight, torch.zeros(2, 3))

    @known_defect("prepare-adopts-the-callers-mask")
    def test_prepare_copies_a_mask_of_the_config(self):
        """A config is read, as defaults are copied: two layers that start from one mask do not write into each other's."""
        mask = torch.ones(1, 4)
        weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        model, sparsifier = chain(weight, torch.ones(1, 4)), WeightNormSparsifier(0.5, (1, 1))
        sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight", "mask": mask} for index in (0, 1)])
        sparsifier.groups[1]["sparsity_level"] = 0
        sparsifier.step()
        self.assertEqual(f"kept {model[0].weight.tolist()}", "kept [[0.0, 0.0, 3.0, 4.0]]")
        _, in_place = prepared(FirstRows(), torch.ones(1, 4), mask=mask)
        in_place.step()
        self.assertEqual(mask, torch.ones(1, 4))

    def test_prepare_accepts_arguments_that_agree_with_tensor_fqn(self):
        """Message of the refusal: given both a place and tensor_fqn, they are expected to agree."""
        model = Nested()
        FirstRows().prepare(
            model,
            [{"tensor_fqn": "body.last.weight", "module": model.body.last, "module_fqn": "body.last", "tensor_name": "weight"}],
        )
        self.assertEqual(masks_on(model.body.last), 1)

    @over(
        "element",
        [
            subtest({"tensor_fqn": "body.last.weight", "module": nn.Identity()}, name="module"),
            subtest({"tensor_fqn": "body.last.weight", "module_fqn": "last"}, name="module_fqn"),
            subtest({"tensor_fqn": "body.last.weight", "tensor_name": "bias"}, name="tensor_name"),
        ],
    )
    def test_prepare_refuses_arguments_that_disagree_with_tensor_fqn(self, element):
        """Message of the refusal: given both a place and tensor_fqn, they are expected to agree; it names the place."""
        (key,) = element.keys() - {"tensor_fqn"}
        model = Nested()
        with self.assertRaisesRegex(AssertionError, f"`{key}`.*agree"):
            FirstRows().prepare(model, [element])
        self.assertFalse(parametrize.is_parametrized(model.body.last))

    @over(
        "config, pattern",
        [
            subtest(([nn.Identity()], "dict"), name="a_module"),
            subtest((["first.weight"], "dict"), name="a_name"),
            subtest(([{}], "tensor_fqn is a required"), name="nothing"),
            subtest(([{"module_fqn": "first", "tensor_name": "weight"}], "tensor_fqn is a required"), name="the_former_arguments"),
            subtest(([{"tensor_fqn": None}], "tensor_fqn is a required"), name="none"),
        ],
    )
    def test_prepare_refuses_a_wrong_element(self, config, pattern):
        """Messages: elements should be dicts, and tensor_fqn is a required argument."""
        with self.assertRaisesRegex(AssertionError, pattern):
            FirstRows().prepare(Nested(), config)

    def test_prepare_refuses_defaults_that_are_no_dict(self):
        """Message: defaults must be a dict."""
        sparsifier = FirstRows()
        sparsifier.defaults = [("rows", 1)]
        with self.assertRaisesRegex(AssertionError, "defaults must be a dict"):
            sparsifier.prepare(Nested(), [{"tensor_fqn": "first.weight"}])

    def test_prepare_refuses_a_mask_of_another_shape(self):
        """A mask belongs to one tensor: a given one of another shape is refused."""
        with self.assertRaisesRegex(AssertionError, "mask shape"):
            prepared(FirstRows(), torch.ones(2, 3), mask=torch.ones(3, 2))

    def test_prepare_copies_the_defaults_and_leaves_the_config(self):
        """Defaults are attached to each group as copies; the caller's config and defaults stay as they were."""
        defaults = {"rows": 1, "options": {"deep": [1]}}
        config = [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight", "rows": 2}]
        given = copy.deepcopy(config)
        sparsifier = FirstRows(**defaults)
        sparsifier.prepare(chain(torch.ones(2, 3), torch.ones(2, 2)), config)
        sparsifier.groups[0]["options"]["deep"].append(2)
        sparsifier.groups[0]["rows"] = 5
        self.assertEqual(sparsifier.groups[1]["options"], {"deep": [1]})
        self.assertEqual(sparsifier.defaults, {"rows": 1, "options": {"deep": [1]}})
        self.assertEqual(defaults, {"rows": 1, "options": {"deep": [1]}})
        self.assertEqual(config, given)

    def test_prepare_without_config_takes_every_linear_layer(self):
        """Comment: without config all supported layers are used, nn.Linear at any depth, and nothing else."""
        model = nn.Sequential(Nested(), nn.Conv2d(1, 1, 1), nn.ModuleDict({"x": linear(torch.ones(2, 2))}))
        sparsifier = FirstRows()
        sparsifier.prepare(model, None)
        names = {f"0.{name}" for name in NESTED_TENSORS} | {"2.x.weight"}
        self.assertEqual({group["tensor_fqn"] for group in sparsifier.groups}, names)
        self.assertEqual(len(sparsifier.groups), len(names))
        masked = {name for name, module in model.named_modules() if isinstance(module, FakeSparsity)}
        self.assertEqual(masked, {f"{name.rpartition('.')[0]}.parametrizations.weight.0" for name in names})
        sparsifier = FirstRows()
        sparsifier.prepare(nn.Sequential(nn.ReLU()), None)
        self.assertEqual(sparsifier.groups, [])

    def test_make_config_from_model_looks_for_the_given_types(self):
        """The argument SUPPORTED_MODULES replaces the types looked for; a found module is not searched further."""
        model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Embedding(1, 1)))
        sparsifier = FirstRows()
        sparsifier.make_config_from_model(model, {nn.Conv2d, nn.Embedding})
        self.assertEqual(sorted(element["tensor_fqn"] for element in sparsifier.config), ["0.weight", "2.0.weight"])
        sparsifier.make_config_from_model(model)
        self.assertEqual(sparsifier.config, [{"tensor_fqn": "1.0.weight"}])
        sparsifier.make_config_from_model(nn.ModuleList([model]), {nn.Sequential})
        self.assertEqual(sparsifier.config, [{"tensor_fqn": "0.weight"}])

    def _found(self, model):
        """Names of the tensors that prepare(model, None) finds."""
        sparsifier = FirstRows()
        sparsifier.prepare(model, None)
        return [group["tensor_fqn"] for group in sparsifier.groups]

    @known_defect("prepare-without-config-skips-a-root-layer")
    def test_prepare_without_config_takes_a_root_layer(self):
        """Comment: without config all supported layers are used; tensor_fqn "weight" works for a root nn.Linear."""
        layer = linear(torch.ones(2, 2))
        self.assertEqual(f"prepared {self._found(layer)}", "prepared ['weight']")

    @known_defect("prepare-without-config-skips-a-parametrized-layer")
    def test_prepare_without_config_takes_a_parametrized_layer(self):
        """Comment: without config all supported layers are used; convert looks at the type before parametrizations."""
        model = nn.Sequential(linear(torch.ones(2, 2), bias=True))
        parametrize.register_parametrization(model[0], "bias", Negate())
        self.assertEqual(f"prepared {self._found(model)}", "prepared ['0.weight']")
        self.assertEqual(masks_on(model[0]), 1)

    @known_defect("prepare-without-config-misses-qat-layers")
    def test_prepare_without_config_takes_a_layer_of_qat(self):
        """Comment: all supported layers, a Linear for quantization-aware training among them, which is an nn.Linear and can be named."""
        layer = nnqat.Linear(2, 2, qconfig=tq.default_qat_qconfig)
        self.assertEqual(f"prepared {self._found(nn.Sequential(layer))}", "prepared ['0.weight']")

    @known_defect("prepare-without-config-prepares-a-shared-layer-twice")
    def test_prepare_without_config_prepares_a_shared_layer_once(self):
        """The state holds one mask a tensor: a layer that two parents share gets one, and state_dict has the mask in use."""
        layer = linear(torch.ones(2, 2))
        model, sparsifier = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer)), FirstRows()
        sparsifier.prepare(model, None)
        self.assertEqual(f"{len(sparsifier.groups)} groups, {masks_on(layer)} masks", "1 groups, 1 masks")

    @known_defect("tensor-listed-twice-gets-two-masks")
    def test_prepare_of_a_tensor_listed_twice_gives_it_one_mask(self):
        """The state has one mask a tensor: a tensor that is listed twice is refused, as by an Optimizer, or masked once."""
        model, sparsifier = chain(torch.ones(2, 2)), FirstRows()
        try:
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "0.weight"}])
        except (ValueError, AssertionError):
            self.assertFalse(parametrize.is_parametrized(model[0]), msg="refused, and masked all the same")
        else:
            self.assertEqual(f"{len(sparsifier.groups)} groups, {masks_on(model[0])} masks", "1 groups, 1 masks")
            model, sparsifier = chain(torch.ones(2, 2), torch.ones(2, 2)), FirstRows()
            sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight"} for index in (0, 0, 1)])
            self.assertEqual([masks_on(layer) for layer in model], [1, 1])

    def test_prepare_of_tied_weights_masks_each_use(self):
        """Layers that share a Parameter keep sharing it, each under a mask of its own."""
        model = chain(torch.ones(2, 2), torch.ones(2, 2))
        model[1].weight = model[0].weight
        sparsifier = FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight", "rows": 2}])
        sparsifier.step()
        self.assertIs(model[0].parametrizations.weight.original, model[1].parametrizations.weight.original)
        self.assertEqual(model[0].weight, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        self.assertEqual(model[1].weight, torch.zeros(2, 2))

    @known_defect("prepare-does-not-chop-a-leading-dot")
    def test_prepare_chops_a_leading_dot(self):
        """Comment in prepare: the leading "." of a tensor_fqn is chopped off."""
        model, sparsifier = Nested(), FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": ".first.weight"}])
        self.assertTrue(parametrize.is_parametrized(model.first))

    @known_defect("second-prepare-masks-earlier-layers-again")
    def test_prepare_twice_appends(self):
        """prepare() appends to the groups: a second one masks the new layer, and leaves the first with its one mask."""
        model, sparsifier = chain(torch.ones(2, 2), torch.ones(2, 2)), FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.prepare(model, [{"tensor_fqn": "1.weight"}])
        self.assertEqual([group["tensor_fqn"] for group in sparsifier.groups], ["0.weight", "1.weight"])
        self.assertEqual(f"masks {[masks_on(layer) for layer in model]}", "masks [1, 1]")

    @known_defect("refused-prepare-leaves-groups-behind")
    def test_prepare_refused_can_be_repeated(self):
        """A refused prepare() prepared nothing: after mending the config each layer gets one mask."""
        model, sparsifier = chain(torch.ones(2, 2)), FirstRows()
        with self.assertRaises(AssertionError):
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {}])
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        self.assertEqual(f"{len(sparsifier.groups)} groups, {masks_on(model[0])} masks", "1 groups, 1 masks")

    @known_defect("refused-prepare-leaves-parametrizations-behind")
    def test_prepare_refused_leaves_the_model_alone(self):
        """A config that cannot be prepared, as it names a module that is not there, leaves the model as it was."""
        model = chain(torch.ones(2, 2))
        with self.assertRaises((AssertionError, AttributeError, ValueError, KeyError)):
            FirstRows().prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "nothing.weight"}])
        masked = [f"{name}.weight" for name, layer in model.named_children() if parametrize.is_parametrized(layer)]
        self.assertEqual(f"{masked} masked by the refused prepare()", "[] masked by the refused prepare()")

    def test_step(self):
        """step() lets update_mask change each mask, with the arguments of its group and without recording gradients."""
        model, sparsifier = prepared(FirstRows(rows=1), torch.ones(3, 2), torch.ones(2, 3))
        sparsifier.groups[1]["rows"] = 2
        masks = [mask_of(layer) for layer in model]
        self.assertIsNone(sparsifier.step())
        self.assertEqual(model[0].weight, torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
        self.assertEqual(model[1].weight, torch.zeros(2, 3))
        for layer, mask, name in zip(model, masks, ("0.weight", "1.weight")):
            self.assertIs(mask_of(layer), mask)
            self.assertIs(sparsifier.state[name]["mask"], mask)
            self.assertFalse(mask.requires_grad)
        self.assertEqual(sparsifier.gradient_modes, [False, False])
        self.assertTrue(torch.is_grad_enabled())

    def test_step_gives_update_mask_the_whole_group(self):
        """update_mask(**group): the module, the tensor's name and all arguments of the config."""
        seen = []
        spy = type("Spy", (BaseSparsifier,), {"update_mask": lambda self, **kwargs: seen.append(kwargs)})
        _, sparsifier = prepared(spy(defaults={"level": 3}), torch.ones(1, 1), own="x")
        sparsifier.step()
        sparsifier.step(use_path=False)
        self.assertEqual(len(seen), 2)
        for kwargs in seen:
            self.assertEqual(list(kwargs), list(sparsifier.groups[0]))
            self.assertIs(kwargs["module"], sparsifier.model[0])
            self.assertEqual((kwargs["tensor_name"], kwargs["level"], kwargs["own"]), ("weight", 3, "x"))

    def test_step_is_never_skipped(self):
        """Nothing changed is no reason to leave out an update: each step() calls update_mask for every group, in their order."""
        seen = []
        spy = type("Spy", (BaseSparsifier,), {"update_mask": lambda self, module, tensor_name, **kwargs: seen.append(module)})
        model, sparsifier = prepared(spy(), torch.ones(1, 1), torch.ones(1, 1))
        for _ in range(3):
            sparsifier.step()
        self.assertEqual([id(module) for module in seen], [id(layer) for layer in model] * 3)

    def test_step_leaves_gradient_mode_after_an_error(self):
        """An exception of update_mask passes through step(), and the gradient mode is back."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 2), rows="all")
        with self.assertRaises(TypeError):
            sparsifier.step()
        self.assertTrue(torch.is_grad_enabled())

    def test_enable_mask_update_switches_step_off_and_on(self):
        """The attribute enable_mask_update: while False step() does nothing, update_mask is not even called."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 2))
        sparsifier.enable_mask_update = False
        sparsifier.step()
        self.assertEqual((model[0].weight.tolist(), sparsifier.gradient_modes), ([[1, 1], [1, 1]], []))
        sparsifier.enable_mask_update = True
        sparsifier.step()
        self.assertEqual(model[0].weight.tolist(), [[0, 0], [1, 1]])

    def test_state_dict(self):
        """Docstring: the masks by tensor_fqn and the groups' configuration, without references to the model; it loads."""
        model, sparsifier = prepared(FirstRows(rows=1), torch.ones(3, 2), torch.ones(2, 3), own="x")
        sparsifier.step()
        state = sparsifier.state_dict()
        self.assertEqual(sorted(state), ["groups", "state"])
        self.assertEqual(sorted(state["state"]), ["0.weight", "1.weight"])
        for name, layer in zip(("0.weight", "1.weight"), model):
            self.assertIs(state["state"][name]["mask"], mask_of(layer))
        self.assertEqual(state["groups"], [{"tensor_fqn": f"{i}.weight", "rows": 1, "own": "x"} for i in (0, 1)])
        state["groups"][0]["rows"] = 7
        self.assertEqual(sparsifier.groups[0]["rows"], 1)

        saved = on_disk(sparsifier.state_dict())
        other, loaded = prepared(FirstRows(rows=2), torch.ones(3, 2), torch.ones(2, 3))
        loaded.load_state_dict(saved)
        for mine, theirs in zip(other, model):
            self.assertEqual(mask_of(mine), mask_of(theirs))
            self.assertEqual(masks_on(mine), 1)
        self.assertEqual(loaded.defaults, {"rows": 2})
        for group, layer in zip(loaded.groups, other):
            self.assertIs(group["module"], layer)
            place = group["tensor_fqn"][0], "weight"
            self.assertEqual((group["rows"], group["own"], group["module_fqn"], group["tensor_name"]), (1, "x", *place))
        loaded.step()
        self.assertEqual(other(torch.ones(1, 2)), model(torch.ones(1, 2)))

    def test_load_state_dict_takes_what_a_subclass_keeps(self):
        """state_dict(): "current state of the sparsification"; what a subclass keeps beside the masks comes back with them."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3), torch.ones(3, 2))
        for index in (0, 1):
            sparsifier.state[f"{index}.weight"]["steps"] = index + 3
        _, loaded = prepared(FirstRows(), torch.ones(2, 3), torch.ones(3, 2))
        loaded.load_state_dict(on_disk(sparsifier.state_dict()))
        self.assertEqual([loaded.state[f"{index}.weight"]["steps"] for index in (0, 1)], [3, 4])

    def test_load_state_dict_masks_a_tensor_parametrized_otherwise(self):
        """A tensor of the state that has no FakeSparsity yet gets one, behind the parametrizations it has."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        sparsifier.step()
        for mask in (torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), None):
            with self.subTest(mask=mask):
                state = {"state": {"0.weight": {} if mask is None else {"mask": mask}}, "groups": [{"tensor_fqn": "0.weight"}]}
                model, loaded = chain(torch.ones(2, 3)), FirstRows()
                parametrize.register_parametrization(model[0], "weight", Negate())
                loaded.model = model
                loaded.load_state_dict(state)
                self.assertEqual([type(p) for p in model[0].parametrizations.weight], [Negate, FakeSparsity])
                self.assertEqual(model[0].weight, -torch.ones(2, 3) if mask is None else -mask)
                self.assertIs(loaded.groups[0]["module"], model[0])

    def test_load_state_dict_leaves_the_given_groups(self):
        """Loading copies the groups: those of the given state get no references to this model, and do not follow its changes."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3), options={"deep": [1]})
        state = on_disk(sparsifier.state_dict())
        model, loaded = prepared(FirstRows(), torch.ones(2, 3))
        loaded.load_state_dict(state)
        loaded.groups[0]["options"]["deep"].append(2)
        loaded.groups[0]["rows"] = 2
        self.assertEqual(state["groups"], [{"tensor_fqn": "0.weight", "options": {"deep": [1]}}])

    def test_enable_mask_update_stays_as_it_is(self):
        """The attribute enable_mask_update is the caller's: neither loading, whose state does not hold it, nor squashing switches it."""
        for enabled in (True, False):
            _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
            sparsifier.enable_mask_update = enabled
            sparsifier.load_state_dict(copy.deepcopy(sparsifier).state_dict())
            self.assertIs(sparsifier.enable_mask_update, enabled, "after load_state_dict")
            sparsifier.squash_mask()
            self.assertIs(sparsifier.enable_mask_update, enabled, "after squash_mask")

    def test_load_state_dict_finds_the_mask_behind_another_one(self):
        """load_state_dict searches the tensor's parametrizations for the FakeSparsity, wherever it stands."""
        model, sparsifier = chain(torch.ones(2, 3)), FirstRows()
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.load_state_dict({"state": {"0.weight": {"mask": torch.zeros(2, 3)}}, "groups": []})
        self.assertEqual([type(p) for p in model[0].parametrizations.weight], [Negate, FakeSparsity, Negate])
        self.assertEqual(model[0].weight, torch.zeros(2, 3))

    def test_load_state_dict_sets_a_mask_of_a_derived_class(self):
        """load_state_dict searches for the FakeSparsity: one of a class derived from it takes the mask, and stays the only one."""
        own = type("Own", (FakeSparsity,), {})
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3), parametrization=own)
        sparsifier.load_state_dict({"state": {"0.weight": {"mask": torch.zeros(2, 3)}}, "groups": []})
        self.assertEqual([type(p) for p in model[0].parametrizations.weight], [own])
        self.assertEqual(model[0].weight.count_nonzero().item(), 0)

    def test_load_state_dict_refuses_a_layer_that_is_not_there(self):
        """Argument strict: by default, and if True, a tensor whose module the model lacks is an error that names it."""
        for options in ({}, {"strict": True}):
            with self.subTest(options):
                _, sparsifier = prepared(FirstRows(), torch.ones(2, 3), torch.ones(1, 2))
                _, smaller = prepared(FirstRows(), torch.ones(2, 3))
                with self.assertRaisesRegex(RuntimeError, "1.weight"):
                    smaller.load_state_dict(sparsifier.state_dict(), **options)

    @known_defect("load-not-strict-crashes-on-a-missing-layer")
    def test_load_state_dict_not_strict_skips_a_missing_layer(self):
        """Argument strict: if False, what the model lacks is left out, and the rest is loaded."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3), torch.ones(2, 2), torch.ones(1, 2))
        sparsifier.step()
        state = sparsifier.state_dict()
        state["state"] = {name: state["state"][name] for name in ("2.weight", "0.weight", "1.weight")}
        model, smaller = prepared(FirstRows(), torch.ones(2, 3), torch.ones(2, 2))
        smaller.load_state_dict(state, strict=False)
        self.assertEqual(mask_of(model[0]), torch.tensor([[0.0] * 3, [1.0] * 3]))
        self.assertEqual([group["tensor_fqn"] for group in smaller.groups], ["0.weight", "1.weight"])
        smaller.step()

    @known_defect("strict-load-forgets-a-prepared-layer")
    def test_load_state_dict_refuses_a_state_that_lacks_a_layer(self):
        """Argument strict, as in nn.Module: a layer that is prepared here and is not in the state is an error."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        _, larger = prepared(FirstRows(), torch.ones(2, 3), torch.ones(2, 2))
        with contextlib.suppress(RuntimeError, KeyError, ValueError):
            larger.load_state_dict(sparsifier.state_dict())
        self.assertEqual(f"groups {[group['tensor_fqn'] for group in larger.groups]}", "groups ['0.weight', '1.weight']")
        sparsifier.step()
        larger.load_state_dict(sparsifier.state_dict(), strict=False)
        self.assertEqual(mask_of(larger.model[0]), torch.tensor([[0.0] * 3, [1.0] * 3]))

    def test_load_state_dict_tells_names_that_end_alike_apart(self):
        """Each group gets the layer of its own name, whichever mask comes last: ``0.weight`` is no part of ``1.0.weight``."""
        names = ["1.0.weight", "0.weight"]
        for order in (names, names[::-1]):
            model, sparsifier = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3))), FirstRows()
            sparsifier.prepare(model, [{"tensor_fqn": name} for name in names])
            saved = sparsifier.state_dict()
            saved["state"] = {name: dict(saved["state"][name]) for name in order}
            sparsifier.load_state_dict(saved)
            with self.subTest(order=order):
                self.assertEqual([group["tensor_fqn"] for group in sparsifier.groups], names)
                self.assertEqual([group["module_fqn"] for group in sparsifier.groups], ["1.0", "0"])
                self.assertIs(sparsifier.groups[0]["module"], model[1][0])
                self.assertIs(sparsifier.groups[1]["module"], model[0])

    @known_defect("load-accepts-a-mask-of-another-shape")
    def test_load_state_dict_refuses_a_mask_of_another_shape(self):
        """As nn.Module.load_state_dict: a tensor of another size is an error when it is loaded."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        for shape in ((3, 2), (1, 3), (3,)):
            _, other = prepared(FirstRows(), torch.ones(shape).reshape(-1, shape[-1]))
            model, loaded = prepared(FirstRows(), torch.ones(2, 3))
            state = {"state": {"0.weight": {"mask": torch.ones(shape)}}, "groups": other.state_dict()["groups"]}
            refused = True
            with contextlib.suppress(RuntimeError, AssertionError, ValueError):
                loaded.load_state_dict(state)
                refused = False
            taken = tuple(mask_of(model[0]).shape)
            self.assertEqual(f"a mask of {taken} for a weight of (2, 3)", "a mask of (2, 3) for a weight of (2, 3)")
            self.assertEqual(model[0].weight, torch.ones(2, 3), msg="the mask that was there is kept")
            self.assertTrue(refused, msg=f"a mask of {shape} is loaded without an error")

    @known_defect("load-crashes-on-a-tensor-without-parametrization")
    def test_load_state_dict_masks_a_tensor_that_was_not_prepared(self):
        """load_state_dict registers a FakeSparsity where none is found: also on a tensor without any parametrization."""
        for other in ((), ("bias",)):
            _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
            sparsifier.step()
            model, loaded = nn.Sequential(linear(torch.ones(2, 3), bias=True)), FirstRows()
            for name in other:
                parametrize.register_parametrization(model[0], name, Negate())
            loaded.model = model
            loaded.load_state_dict(sparsifier.state_dict())
            self.assertEqual(mask_of(model[0]), torch.tensor([[0.0] * 3, [1.0] * 3]))

    @known_defect("load-adds-a-mask-of-the-default-dtype")
    def test_load_state_dict_masks_a_tensor_in_its_dtype(self):
        """A FakeSparsity that load_state_dict adds has the tensor's dtype, as that of prepare() has."""
        model, loaded = chain(torch.ones(2, 3, dtype=torch.bfloat16)), FirstRows()
        parametrize.register_parametrization(model[0], "weight", Negate())
        loaded.model = model
        mask = torch.zeros(2, 3, dtype=torch.bfloat16)
        loaded.load_state_dict({"state": {"0.weight": {"mask": mask}}, "groups": [{"tensor_fqn": "0.weight"}]})
        self.assertEqual(model[0].weight, mask)

    @known_defect("load-adds-a-mask-on-the-cpu")
    def test_load_state_dict_masks_a_tensor_on_an_accelerator(self):
        """A FakeSparsity that load_state_dict adds has its mask where the tensor is, as that of prepare() has."""
        device = self.accelerator()
        model, loaded = chain(torch.ones(2, 3, device=device)), FirstRows()
        parametrize.register_parametrization(model[0], "weight", Negate())
        loaded.model = model
        mask = torch.tensor([[1.0, 0, 0], [0, 1, 0]], device=device)
        loaded.load_state_dict({"state": {"0.weight": {"mask": mask}}, "groups": [{"tensor_fqn": "0.weight"}]})
        self.assertEqual(model[0].weight, -mask)

    @known_defect("loaded-mask-does-not-follow-dtype-and-device")
    def test_load_state_dict_moves_the_mask_to_its_tensor(self):
        """As nn.Module and Optimizer: what is loaded takes the dtype and device of the tensor it is loaded for."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        model, loaded = prepared(FirstRows(), torch.ones(2, 3, dtype=torch.bfloat16))
        loaded.load_state_dict(sparsifier.state_dict())
        weight, mask = model[0].parametrizations.weight.original, mask_of(model[0])
        self.assertEqual(f"mask {mask.dtype} {mask.device}", f"mask {weight.dtype} {weight.device}")
        loaded = FirstRows()
        loaded.model = chain(torch.ones(2, 3))
        parametrize.register_parametrization(loaded.model[0], "weight", Negate())
        loaded.load_state_dict({"state": {"0.weight": {"mask": torch.ones(2, 3, dtype=torch.float64)}}, "groups": []})
        self.assertEqual(mask_of(loaded.model[0]).dtype, torch.float32, msg="a mask that loading adds")

    @known_defect("load-takes-masks-out-of-the-given-dict")
    def test_load_state_dict_leaves_the_given_dict(self):
        """As nn.Module and Optimizer: loading only reads; the same state can be loaded again, or saved."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        _, loaded = prepared(FirstRows(), torch.ones(2, 3))
        state = on_disk(sparsifier.state_dict())
        loaded.load_state_dict(state)
        self.assertIn("mask", state["state"]["0.weight"])

    @known_defect("loaded-sparsifier-has-no-masks-in-its-state")
    def test_state_dict_after_loading_has_the_masks(self):
        """Docstring of state_dict: the current state of the sparsification, also in a sparsifier that was loaded."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        model, loaded = prepared(FirstRows(), torch.ones(2, 3))
        loaded.load_state_dict(on_disk(sparsifier.state_dict()))
        state = loaded.state_dict()["state"]["0.weight"]
        self.assertIn("mask", state)
        loaded.step()
        self.assertEqual(loaded.state_dict()["state"]["0.weight"]["mask"], mask_of(model[0]))

    @known_defect("loaded-sparsifiers-share-one-mask")
    def test_load_state_dict_copies_the_mask(self):
        """FakeSparsity's Note: the mask's reference does not change; loading copies its values, as nn.Module does."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        other, loaded = prepared(FirstRows(), torch.ones(2, 3))
        loaded.load_state_dict(sparsifier.state_dict())
        loaded.step()
        self.assertEqual(f"mask of {mask_of(model[0]).sum().item():.0f} ones", "mask of 6 ones", msg="stepping one model prunes the other")

    @known_defect("loaded-sparsifier-cannot-prepare-another-layer")
    def test_load_state_dict_leaves_a_sparsifier_that_can_prepare(self):
        """A state of plain dicts, as torch.load(weights_only=True) gives, is loaded; then another layer can be prepared."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        model.append(linear(torch.ones(2, 2)))
        sparsifier.load_state_dict({"state": {"0.weight": {"mask": torch.zeros(2, 3)}}, "groups": [{"tensor_fqn": "0.weight"}]})
        self.assertEqual(list(sparsifier.state), ["0.weight"])
        sparsifier.prepare(model, [{"tensor_fqn": "1.weight"}])
        self.assertIn("mask", sparsifier.state["1.weight"])

    @known_defect("state-dict-grows-after-it-was-taken")
    def test_state_dict_is_a_snapshot_of_the_keys(self):
        """As nn.Module and Optimizer: a state_dict is a dict of its own, to which later layers are not added."""
        sparsifier, model = FirstRows(), chain(torch.ones(2, 3))
        sparsifier.prepare(model, [])
        state = sparsifier.state_dict()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        self.assertEqual(f"groups {state['groups']}, layers {list(state['state'])}", "groups [], layers []")

    @known_defect("state-dict-needs-an-unsafe-load")
    def test_state_dict_loads_weights_only(self):
        """PyTorch's serialization: a state_dict of tensors and plain values passes torch.load(weights_only=True)."""
        _, sparsifier = prepared(FirstRows(rows=1), torch.ones(2, 3))
        file = io.BytesIO()
        torch.save(sparsifier.state_dict(), file)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(file, weights_only=True)
        self.assertEqual(loaded["state"]["0.weight"]["mask"], torch.ones(2, 3))

    def test_copies_are_independent(self):
        """copy.deepcopy: a copy together with its model has the same state, groups and defaults, and steps on its own masks."""
        model, sparsifier = prepared(FirstRows(rows=1), torch.ones(2, 3))
        twin, copied = copy.deepcopy((model, sparsifier))
        self.assertEqual(copied.defaults, {"rows": 1})
        self.assertIs(copied.groups[0]["module"], twin[0])
        self.assertIs(copied.state["0.weight"]["mask"], mask_of(twin[0]))
        mask_of(twin[0]).zero_()
        self.assertEqual(twin[0].weight, torch.zeros(2, 3))
        self.assertEqual(model[0].weight, torch.ones(2, 3))

    def test_pickle_of_what_is_not_prepared(self):
        """__getstate__ and __setstate__: defaults, state and groups survive pickle."""
        sparsifier = NearlyDiagonalSparsifier(3)
        sparsifier.state["x"]["mask"] = torch.zeros(2)
        sparsifier.groups.append({"tensor_fqn": "x"})
        loaded = pickle.loads(pickle.dumps(sparsifier))
        self.assertIs(type(loaded), NearlyDiagonalSparsifier)
        self.assertEqual((loaded.defaults, loaded.groups), ({"nearliness": 3}, [{"tensor_fqn": "x"}]))
        self.assertEqual(dict(loaded.state), {"x": {"mask": torch.zeros(2)}})

    @known_defect("copied-sparsifier-cannot-step")
    def test_copy_steps(self):
        """copy.deepcopy: a copy behaves as the original; step() works on its model, also where a scheduler counts the original's."""
        for scheduled in (False, True):
            sparsifier = NearlyDiagonalSparsifier()
            model, _ = prepared(sparsifier, torch.ones(2, 2), sparsity_level=0.5)
            if scheduled:
                LambdaSL(sparsifier, lambda epoch: 1)
            twin, copied = copy.deepcopy((model, sparsifier))
            copied.step()
            self.assertEqual(mask_of(twin[0]), torch.eye(2))
            self.assertEqual(mask_of(model[0]), torch.ones(2, 2))

    @known_defect("copied-sparsifier-has-no-model")
    def test_copy_loads(self):
        """copy.deepcopy: a copy behaves as the original; load_state_dict works on its model."""
        sparsifier = NearlyDiagonalSparsifier()
        model, _ = prepared(sparsifier, torch.ones(2, 2))
        twin, copied = copy.deepcopy((model, sparsifier))
        copied.load_state_dict({"state": {"0.weight": {"mask": torch.zeros(2, 2)}}, "groups": []})
        self.assertEqual(mask_of(twin[0]), torch.zeros(2, 2))

    def test_mask_squash(self):
        """squash_mask: the masked values become the weight, in the same Parameter; no parametrization and no extra is left."""
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            with self.subTest(dtype=dtype):
                model, sparsifier = prepared(FirstRows(), torch.ones(2, 3, dtype=dtype), torch.ones(2, 2, dtype=dtype))
                parameters = [layer.parametrizations.weight.original for layer in model]
                parameters[1].requires_grad_(False)
                sparsifier.step()
                x = torch.ones(1, 3, dtype=dtype)
                expected = model(x)
                self.assertIsNone(sparsifier.squash_mask())
                self.assertTrue(torch.equal(model(x), expected))
                for layer, parameter in zip(model, parameters):
                    self.assertIs(type(layer), nn.Linear)
                    self.assertIs(layer.weight, parameter)
                    self.assertFalse(parametrize.is_parametrized(layer))
                    self.assertFalse(hasattr(layer, "sparse_params"))
                    self.assertEqual(layer.weight[0].detach(), torch.zeros_like(layer.weight[0]))
                self.assertEqual([p.requires_grad for p in parameters], [True, False])
                self.assertEqual(sorted(model.state_dict()), ["0.weight", "1.weight"])

    def _squashed(self, *args, **kwargs):
        """sparse_params of three layers, by the docstring's example, after squash_mask with these arguments."""
        model = nn.Sequential()
        model.submodule1 = nn.Module()
        model.submodule1.linear1 = linear(torch.ones(2, 2))
        model.submodule2 = nn.Module()
        model.submodule2.linear42 = linear(torch.ones(2, 2))
        model.plain = linear(torch.ones(2, 2))
        sparsifier = FirstRows(foo=42, bar=24, baz=0.1)
        names = ("submodule1.linear1", "submodule2.linear42", "plain")
        sparsifier.prepare(model, [{"tensor_fqn": f"{name}.weight"} for name in names])
        sparsifier.squash_mask(*args, **kwargs)
        self.assertFalse(any(parametrize.is_parametrized(module) for module in model.modules()))
        return [getattr(model.get_submodule(name), "sparse_params", None) for name in names]

    def test_mask_squash_with_params1(self):
        """Docstring example: params_to_keep_per_layer keeps the named parameters of the named layers, and no others."""
        per_layer = {"submodule1.linear1": ("foo", "bar"), "submodule2.linear42": ("baz",)}
        self.assertEqual(self._squashed(params_to_keep_per_layer=per_layer), [{"foo": 42, "bar": 24}, {"baz": 0.1}, None])
        self.assertEqual(per_layer, {"submodule1.linear1": ("foo", "bar"), "submodule2.linear42": ("baz",)})

    def test_mask_squash_with_params2(self):
        """Docstring example: params_to_keep keeps the named parameters of all layers."""
        for keep in (("foo", "bar"), ["foo", "bar"]):
            self.assertEqual(self._squashed(params_to_keep=keep), [{"foo": 42, "bar": 24}] * 3)
        self.assertEqual(self._squashed(("baz",)), [{"baz": 0.1}] * 3)

    def test_mask_squash_with_params3(self):
        """Docstring example: both together keep the union for a layer that is named."""
        kept = self._squashed(params_to_keep=("foo", "bar"), params_to_keep_per_layer={"submodule2.linear42": ("baz",)})
        self.assertEqual(kept, [{"foo": 42, "bar": 24}, {"foo": 42, "bar": 24, "baz": 0.1}, {"foo": 42, "bar": 24}])

    def test_mask_squash_keeps_the_parameters_themselves(self):
        """Docstring: the module has the parameters attached: they may be objects that cannot be copied, as a lock or a file."""
        lock = threading.Lock()
        model, sparsifier = prepared(FirstRows(), guard=lock)
        sparsifier.squash_mask(params_to_keep=("guard",))
        self.assertIs(model[0].sparse_params["guard"], lock)

    def test_mask_squash_reaches_a_layer_that_left_the_model(self):
        """What was prepared is squashed, though the model does not have it any more."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3), torch.ones(2, 2))
        layer = model[1]
        del model[1]
        sparsifier.squash_mask()
        self.assertFalse(parametrize.is_parametrized(layer), msg="the layer keeps its mask")

    def test_second_mask_squash_keeps_its_own_parameters(self):
        """Docstring: sparse_params holds what this call keeps, not what an earlier sparsifier's kept of the same layer."""
        model, sparsifier = prepared(FirstRows(foo=42))
        sparsifier.squash_mask(params_to_keep=("foo",))
        later = FirstRows(baz=0.1)
        later.prepare(model, [{"tensor_fqn": "0.weight"}])
        later.squash_mask(params_to_keep=("baz",))
        self.assertEqual(model[0].sparse_params, {"baz": 0.1})

    def test_mask_squash_takes_and_ignores_further_arguments(self):
        """Signature: further arguments, by position and by name, are accepted and change nothing."""
        self.assertEqual(self._squashed(("baz",), None, 1, "x", inplace=True, names=["plain"]), [{"baz": 0.1}] * 3)

    def test_mask_squash_with_nothing_to_keep(self):
        """Empty tuples and dicts, and layers that are not there, attach nothing."""
        per_layer = ({}, {"plain": ()}, {"nothing": ("foo",)})
        for arguments in ({"params_to_keep": ()}, *({"params_to_keep_per_layer": each} for each in per_layer)):
            with self.subTest(arguments):
                self.assertEqual(self._squashed(**arguments), [None] * 3)

    def test_mask_squash_with_params_that_are_not_there(self):
        """A parameter to keep that the group lacks is a KeyError that names it."""
        for arguments in ({"params_to_keep": ("nothing",)}, {"params_to_keep_per_layer": {"plain": ("nothing",)}}):
            with self.subTest(arguments), self.assertRaisesRegex(KeyError, "nothing"):
                self._squashed(**arguments)

    @known_defect("squash-rejects-the-documented-dict")
    def test_mask_squash_with_a_dict_as_params_to_keep(self):
        """Docstring: params_to_keep may be a dict representing the modules and keys that will be saved."""
        self.skip_without_docstrings()
        if "or a dict" in " ".join(BaseSparsifier.squash_mask.__doc__.split()):
            try:
                kept = self._squashed(params_to_keep={"plain": ("foo",)})
            except KeyError as error:
                self.fail(f"the documented dict raises {error!r}")
            self.assertEqual(kept, [None, None, {"foo": 42}])
            both = self._squashed({"plain": ("foo",)}, params_to_keep_per_layer={"submodule2.linear42": ("baz",)})
            self.assertEqual(both, [None, {"baz": 0.1}, {"foo": 42}])

    @known_defect("refused-squash-has-already-squashed")
    def test_mask_squash_refused_leaves_the_model_alone(self):
        """A squash_mask() that raises, as a parameter to keep is not there, leaves the parametrizations for another try."""
        for arguments in ({"params_to_keep": ("rows", "nothing")}, {"params_to_keep_per_layer": {"1": ("nothing",)}}):
            model, sparsifier = prepared(FirstRows(rows=1), torch.ones(2, 3), torch.ones(2, 2))
            with self.assertRaises(KeyError):
                sparsifier.squash_mask(**arguments)
            self.assertEqual(f"type {type(model[0]).__name__}", "type ParametrizedLinear", msg="after a refused squash_mask()")

    def test_mask_squash_after_a_load_keeps_the_weight_that_is_used(self):
        """The weight is what the model used, also where the mask was loaded and somebody else parametrized the tensor."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        sparsifier.step()
        state = copy.deepcopy(sparsifier.state_dict())
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.load_state_dict(state)
        expected = model[0].weight.detach().clone()
        sparsifier.squash_mask()
        self.assertEqual(model[0].weight.detach(), expected)

    @known_defect("squash-removes-foreign-parametrizations")
    def test_mask_squash_leaves_the_parametrizations_of_others(self):
        """Docstring: squashes the sparse masks; what somebody else registered on the tensor stays."""
        for others in (("before",), ("after",), ("before", "after")):
            model = chain(torch.ones(2, 3))
            sparsifier = FirstRows()
            for place in ("before", "mask", "after"):
                if place == "mask":
                    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
                elif place in others:
                    parametrize.register_parametrization(model[0], "weight", Negate())
            sparsifier.step()
            expected = model[0].weight.detach().clone()
            sparsifier.squash_mask()
            left = [type(p).__name__ for p in model[0].parametrizations.weight] if parametrize.is_parametrized(model[0]) else []
            self.assertEqual(f"left {left}", f"left {['Negate'] * len(others)}")
            self.assertEqual(model[0].weight.detach(), expected)
        model, first = prepared(FirstRows(), torch.ones(3, 2))
        second = FirstRows(rows=2)
        kept = mask_of(model[0])
        second.prepare(model, [{"tensor_fqn": "0.weight"}])
        second.step()
        second.squash_mask()
        self.assertEqual(masks_on(model[0]), 1)
        self.assertIs(mask_of(model[0]), kept)
        self.assertEqual(model[0].parametrizations.weight.original.detach(), torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))

    def test_mask_squash_of_a_tensor_kept_in_parts(self):
        """squash_mask: the model computes what it did, also where a parametrization keeps the tensor as several ones."""

        class Sum(nn.Module):
            def forward(self, first, second):
                return first + second

            def right_inverse(self, tensor):
                return tensor / 4, tensor * 3 / 4

        model, sparsifier = chain(torch.ones(2, 3)), FirstRows()
        parametrize.register_parametrization(model[0], "weight", Sum())
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.step()
        sparsifier.squash_mask()
        self.assertEqual(model[0].weight.detach(), torch.tensor([[0.0] * 3, [1.0] * 3]))

    @known_defect("squash-prunes-a-tied-weight-too")
    def test_mask_squash_leaves_a_tied_tensor_that_was_not_prepared(self):
        """squash_mask: the model computes what it did under the masks, also if an embedding shares the pruned weight."""
        embedding, head = nn.Embedding(4, 3), linear(torch.ones(4, 3))
        head.weight = embedding.weight
        sparsifier = FirstRows()
        sparsifier.prepare(nn.Sequential(embedding, head), [{"tensor_fqn": "1.weight"}])
        sparsifier.step()
        before = embedding.weight.detach().clone()
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            sparsifier.squash_mask()
        zeros = (embedding.weight == 0).sum().item()
        self.assertEqual(f"{zeros} zeros in the embedding", f"{(before == 0).sum().item()} zeros in the embedding")
        self.assertTrue(torch.equal(embedding.weight, before))
        if not parametrize.is_parametrized(head):
            self.assertTrue(torch.equal(head.weight, before * torch.tensor([[0.0], [1.0], [1.0], [1.0]])))
            self.assertIs(type(head.weight), nn.Parameter)

    @known_defect("squash-prunes-a-tied-bias-too")
    def test_mask_squash_leaves_a_tied_bias_that_was_not_prepared(self):
        """squash_mask: of two layers that share a bias, the one that was not prepared keeps it."""
        layers = nn.Sequential(linear(torch.ones(2, 2), bias=True), linear(torch.ones(2, 2), bias=True))
        layers[1].bias = layers[0].bias
        before = layers[0].bias.detach().clone()
        sparsifier = FirstRows()
        sparsifier.prepare(layers, [{"tensor_fqn": "1.bias"}])
        sparsifier.step()
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            sparsifier.squash_mask()
        zeros = (layers[0].bias == 0).sum().item()
        self.assertEqual(f"{zeros} zeros in the bias", f"{(before == 0).sum().item()} zeros in the bias")
        self.assertTrue(torch.equal(layers[0].bias, before))

    @known_defect("squash-gives-tied-weights-the-mask-of-both")
    def test_mask_squash_of_tied_weights_keeps_the_values_of_each(self):
        """squash_mask: the model computes what it did under the masks, also if two prepared layers share a weight under two masks."""
        for rows in ((1, 2), (2, 1)):
            model = chain(torch.ones(2, 2), torch.ones(2, 2))
            model[1].weight = model[0].weight
            sparsifier = FirstRows()
            sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight", "rows": rows[index]} for index in range(2)])
            sparsifier.step()
            before = [layer.weight.detach().clone() for layer in model]
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                sparsifier.squash_mask()
            kept = [int(layer.weight.sum()) for layer in model]
            self.assertEqual(f"ones kept {kept}", f"ones kept {[int(weight.sum()) for weight in before]}")
            for layer, weight in zip(model, before):
                self.assertEqual(layer.weight.detach(), weight)

    @known_defect("squashed-sparsifier-cannot-be-used-again")
    def test_mask_squash_allows_to_prepare_again(self):
        """Pruning in rounds: prepare, step and squash, then the same with the same sparsifier."""
        model, sparsifier = chain(torch.ones(2, 3)), FirstRows()
        for turn in ("first", "second"):
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            self.assertEqual(f"{turn} round: {masks_on(model[0])} masks", f"{turn} round: 1 masks")
            sparsifier.step()
            sparsifier.squash_mask()
        self.assertEqual(model[0].weight.detach(), torch.tensor([[0.0] * 3, [1.0] * 3]))

    def test_life_leaves_modes_gradients_and_requires_grad(self):
        """Masks are added, set, and squashed: modes, gradients and requires_grad stay, those of a copy as well; nothing is random."""

        def found(module):
            trained = {name.replace("parametrizations.weight.original", "weight"): p.requires_grad for name, p in module.named_parameters()}
            return {"training": [each.training for each in (module, *module)], **trained}

        def gradients():
            return [None if p.grad is None else p.grad.tolist() for p in parameters]

        model = nn.Sequential(linear(torch.ones(2, 2), bias=True), linear(torch.ones(2, 2), bias=True).eval())
        model[1].weight.requires_grad_(False)
        model(torch.ones(1, 2)).sum().backward()
        parameters, sparsifier = list(model.parameters()), FirstRows()
        expected, random = (found(model), gradients()), torch.get_rng_state()
        for stage, call in (
            ("prepare", lambda: sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight"} for index in (0, 1)])),
            ("step", sparsifier.step),
            ("convert", lambda: sparsifier.convert(model, {})),
            ("squash_mask", sparsifier.squash_mask),
        ):
            converted = call()
            self.assertTupleEqual((found(model), gradients()), expected, msg=f"after {stage}()")
            self.assertTrue(torch.equal(torch.get_rng_state(), random), msg=f"{stage}() drew random numbers")
            if converted is not None:
                self.assertDictEqual(found(converted), expected[0], msg=f"the copy of {stage}()")

    def test_convert(self):
        """Docstring: submodules with a mask and of a type in mapping become that type's from_dense; the rest stays."""
        for inplace in (False, True):
            with self.subTest(inplace=inplace):
                model, sparsifier = Nested(), FirstRows()
                sparsifier.prepare(model, [{"tensor_fqn": "first.weight"}, {"tensor_fqn": "body.inner.0.weight"}])
                first, inner, last, relu = model.first, model.body.inner[0], model.body.last, model.body.inner[1]
                converted = sparsifier.convert(model, mapping={nn.Linear: Converted}, inplace=inplace)
                self.assertEqual(converted is model, inplace)
                self.assertIs(type(converted.first), Converted)
                self.assertIs(type(converted.body.inner[0]), Converted)
                self.assertIs(type(converted.body.last), nn.Linear)
                self.assertIs(type(converted.body.inner[1]), nn.ReLU)
                self.assertEqual(list(converted._modules), ["first", "body"])
                self.assertEqual((converted.body.last is last, converted.body.inner[1] is relu), (inplace, inplace))
                self.assertEqual((converted.first.made_from[0] is first, converted.body.inner[0].made_from[0] is inner), (inplace, inplace))
                if not inplace:
                    self.assertIs(model.first, first)
                    self.assertIs(model.body.inner[0], inner)

    def test_convert_copies_by_default(self):
        """Argument inplace is False by default: the given module is left as it was."""
        model, sparsifier = prepared(FirstRows())
        self.assertIsNot(sparsifier.convert(model, {nn.Linear: Converted}), model)
        self.assertTrue(parametrize.is_parametrized(model[0]))

    def test_convert_needs_a_mapping(self):
        """Without mapping it is refused as not implemented, before anything is copied or changed."""
        model, sparsifier = prepared(FirstRows())
        for arguments in ((), (None,)):
            with self.assertRaisesRegex(NotImplementedError, "mapping"):
                sparsifier.convert(model, *arguments, inplace=True)
        self.assertTrue(parametrize.is_parametrized(model[0]))

    def test_convert_looks_for_the_given_parametrization(self):
        """Argument parameterization: only modules that have one of that class are converted, at every depth."""
        model = nn.Sequential(linear(torch.ones(2, 2)), nn.Sequential(linear(torch.ones(2, 2)), linear(torch.ones(2, 2))))
        FirstRows().prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.0.weight"}])
        parametrize.register_parametrization(model[1][1], "weight", Negate())
        converted = FirstRows().convert(model, {nn.Linear: Converted}, parameterization=Negate)
        self.assertEqual([isinstance(m, Converted) for m in (converted[0], converted[1][0], converted[1][1])], [False, False, True])
        converted = FirstRows().convert(model, {nn.Linear: Converted})
        self.assertEqual([isinstance(m, Converted) for m in (converted[0], converted[1][0], converted[1][1])], [True, True, False])

    def test_convert_leaves_types_that_are_not_mapped(self):
        """Docstring: mapping is from source to target type: a masked module of another type stays, its hooks with it."""
        model = nn.Sequential(nn.Embedding(2, 2), linear(torch.ones(2, 2)))
        sparsifier = FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight"}])
        converted = sparsifier.convert(model, {nn.Embedding: Converted})
        self.assertIs(type(converted[0]), Converted)
        self.assertTrue(parametrize.is_parametrized(converted[1]))

    def test_convert_looks_into_masked_types_that_are_not_mapped(self):
        """Docstring: submodules are converted according to mapping: those of a module that has a mask of its own, too."""
        block = nn.Sequential(linear(torch.ones(2, 2)))
        block.gain = nn.Parameter(torch.ones(2))
        model, sparsifier = nn.Sequential(block), FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.gain"}, {"tensor_fqn": "0.0.weight"}])
        converted = sparsifier.convert(model, {nn.Linear: Converted})
        self.assertIs(type(converted[0][0]), Converted)
        self.assertEqual(masks_on(converted[0], "gain"), 1)

    def test_convert_leaves_the_module_itself(self):
        """Docstring: "Converts submodules in input module": the module itself stays, though it has a mask and mapping names its type."""
        model, sparsifier = linear(torch.ones(2, 2)), FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "weight"}])
        self.assertIs(sparsifier.convert(model, {nn.Linear: Converted}, inplace=True), model)
        self.assertEqual(masks_on(model), 1)

    def test_places_without_a_module_are_passed_over(self):
        """nn.Module.register_module takes None: prepare() without config and convert() find the layers beside such a place."""
        model, sparsifier = chain(torch.ones(2, 2)), FirstRows()
        model.register_module("empty", None)
        model.add_module("last", linear(torch.ones(2, 2)))
        sparsifier.prepare(model, None)
        self.assertEqual(sorted(group["tensor_fqn"] for group in sparsifier.groups), ["0.weight", "last.weight"])
        converted = sparsifier.convert(model, {nn.Linear: Converted})
        self.assertEqual(
            {name: type(m) for name, m in converted._modules.items()}, {"0": Converted, "empty": type(None), "last": Converted}
        )

    @on_every_device
    def test_convert_keeps_hooks_and_device(self, device):
        """Comments: a converted module has the forward hooks of the one it replaces, and lies where that did."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 2))
        model.to(device)
        model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        model[0].register_forward_hook(lambda module, args, output: output * 10)
        converted = sparsifier.convert(model, {nn.Linear: Converted})
        self.assertEqual(converted[0].scale.device.type, device)
        self.assertEqual(converted(torch.tensor([[2.0]], device=device)).tolist(), [[30.0]])

    @known_defect("convert-misses-the-second-use-of-a-layer")
    def test_convert_replaces_every_use_of_a_shared_layer(self):
        """Docstring: converts submodules according to mapping: also where a layer stands twice in one parent."""
        for between in ([], ["nothing"]):
            layer = linear(torch.ones(2, 2))
            model = nn.Sequential(layer)
            for name in between:
                model.register_module(name, None)
            model.register_module("again", layer)
            sparsifier = FirstRows()
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            converted = sparsifier.convert(model, {nn.Linear: Converted})
            kinds = [type(module).__name__ for module in converted._modules.values() if module is not None]
            self.assertEqual(f"{kinds} after convert()", "['Converted', 'Converted'] after convert()")
            self.assertEqual(list(converted._modules), ["0", *between, "again"])

    @known_defect("convert-splits-a-shared-layer")
    def test_convert_keeps_a_shared_layer_shared(self):
        """A layer that two parents share is one module, before and after convert()."""
        layer = linear(torch.ones(2, 2))
        model = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer))
        sparsifier = FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.0.weight"}])
        converted = sparsifier.convert(model, {nn.Linear: Converted})
        made = len({id(part[0]) for part in converted})
        self.assertEqual(f"{made} modules made of one", "1 modules made of one")

    def test_convert_keeps_shared_what_it_does_not_convert(self):
        """A module that two parents share and that mapping does not name is one module, before and after convert()."""
        shared, sparsifier = nn.ReLU(), FirstRows()
        model = nn.Sequential(nn.Sequential(linear(torch.ones(2, 2)), shared), nn.Sequential(shared))
        sparsifier.prepare(model, [{"tensor_fqn": "0.0.weight"}])
        for inplace in (False, True):
            converted = sparsifier.convert(model, {nn.Linear: Converted}, inplace=inplace)
            self.assertIs(converted[0][1], converted[1][0], msg=f"inplace={inplace}")

    def test_repr(self):
        """__repr__ shows each group: its module first, then its arguments in alphabetical order."""
        _, sparsifier = prepared(FirstRows(rows=1, also="x"), torch.ones(2, 3), torch.ones(1, 2))
        self.assertExpectedInline(repr(FirstRows()), """FirstRows ()""")
        self.assertExpectedInline(
            repr(sparsifier).expandtabs(4),
            """\
FirstRows (
    Group 0
        module: ParametrizedLinear(
  in_features=3, out_features=2, bias=False
  (parametrizations): ModuleDict(
    (weight): ParametrizationList(
      (0): FakeSparsity()
    )
  )
)
        also: x
        module_fqn: 0
        rows: 1
        tensor_fqn: 0.weight
        tensor_name: weight

    Group 1
        module: ParametrizedLinear(
  in_features=2, out_features=1, bias=False
  (parametrizations): ModuleDict(
    (weight): ParametrizationList(
      (0): FakeSparsity()
    )
  )
)
        also: x
        module_fqn: 1
        rows: 1
        tensor_fqn: 1.weight
        tensor_name: weight
)""",
        )

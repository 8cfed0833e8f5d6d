# Owner(s): ["module: sparse"]
"""Sparsifiers that mask single elements: the base class, by the norm of blocks, by distance from the diagonal."""

import contextlib
import copy
import inspect
import io
import itertools
import pickle
import re
import warnings

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing import contracts
from ao.sparsity.testing.base import TestCase, on_every_device
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import NESTED_TENSORS, Nested, chain, distinct_weight, linear
from ao.sparsity.testing.oracles.masks import blocks_to_prune, nearly_diagonal_mask, weight_norm_mask

from torch.ao.pruning import BaseSparsifier, FakeSparsity, NearlyDiagonalSparsifier, WeightNormSparsifier


def counts_in(dtype):
    """Whether this build averages and sorts ``dtype`` on the CPU, as pruning by norms needs."""
    try:
        torch.nn.functional.avg_pool2d(torch.ones(1, 1, 2, 2, dtype=dtype), 2).flatten().topk(1)
    except RuntimeError:
        return False
    return True


class FirstRows(BaseSparsifier):
    """Smallest sparsifier: masks the first ``rows`` rows, and notes the gradient mode it is called in."""

    def __init__(self, **defaults):
        super().__init__(defaults=defaults)
        self.gradient_modes = []

    def update_mask(self, module, tensor_name, rows=1, **kwargs):
        self.gradient_modes.append(torch.is_grad_enabled())
        mask_of(module, tensor_name)[:rows] = 0


class Converted(nn.Module):
    """Target of a conversion; remembers the module that it was made from."""

    def __init__(self, dense):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.made_from = [dense]

    def forward(self, x):
        return x * self.scale

    @classmethod
    def from_dense(cls, dense):
        return cls(dense)


class Negate(nn.Module):
    """A parametrization of somebody else's."""

    def forward(self, x):
        return -x


def mask_of(module, tensor_name="weight"):
    """Mask of the last FakeSparsity on a tensor."""
    return [p.mask for p in module.parametrizations[tensor_name] if isinstance(p, FakeSparsity)][-1]


def masks_on(module, tensor_name="weight"):
    """How many FakeSparsity a tensor has."""
    return sum(isinstance(p, FakeSparsity) for p in module.parametrizations[tensor_name])


def prepared(sparsifier, *weights, **config):
    """A chain of linear layers with ``weights`` (one of 2 x 3 unless given), prepared by ``sparsifier``, which comes back too."""
    model = chain(*(weights or [distinct_weight(2, 3)]))
    sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight", **config} for index in range(len(model))])
    return model, sparsifier


def on_disk(state):
    """``state`` after torch.save and a torch.load that trusts the file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


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
        documented = re.findall(r"^ +- (\w+) \[", BaseSparsifier.__doc__, re.MULTILINE)
        accepted = inspect.signature(BaseSparsifier).parameters
        self.assertListEqual([name for name in documented if name not in accepted], [], msg="documented and not accepted")

    def test_constructor_keeps_the_base_of_update_mask_without_effect(self):
        """update_mask is abstract, and a subclass may call the one of the base, which changes nothing."""
        model, sparsifier = prepared(FirstRows())
        self.assertIsNone(BaseSparsifier.update_mask(sparsifier, **sparsifier.groups[0]))
        self.assertEqual(mask_of(model[0]), torch.ones(2, 3))

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
        sparsifier.make_config_from_model(nn.Sequential(model), {nn.Sequential})
        self.assertEqual(sparsifier.config, [{"tensor_fqn": "0.weight"}])

    @known_defect("prepare-without-config-skips-a-root-layer")
    def test_prepare_without_config_takes_a_root_layer(self):
        """Comment: without config all supported layers are used; tensor_fqn "weight" works for a root nn.Linear."""
        layer = linear(torch.ones(2, 2))
        FirstRows().prepare(layer, None)
        self.assertTrue(parametrize.is_parametrized(layer), msg="the root layer was not prepared")

    @known_defect("prepare-without-config-skips-a-parametrized-layer")
    def test_prepare_without_config_takes_a_layer_with_another_parametrization(self):
        """Comment: without config all supported layers are used; convert looks at the type before parametrizations."""
        model = nn.Sequential(linear(torch.ones(2, 2), bias=True))
        parametrize.register_parametrization(model[0], "bias", Negate())
        FirstRows().prepare(model, None)
        self.assertTrue(parametrize.is_parametrized(model[0], "weight"), msg="the parametrized layer was not prepared")

    @known_defect("prepare-without-config-prepares-a-shared-layer-twice")
    def test_prepare_without_config_prepares_a_shared_layer_once(self):
        """The state holds one mask a tensor: a layer that two parents share gets one, and state_dict has the mask in use."""
        layer = linear(torch.ones(2, 2))
        model, sparsifier = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer)), FirstRows()
        sparsifier.prepare(model, None)
        self.assertEqual(f"{masks_on(layer)} masks on the shared layer", "1 masks on the shared layer")

    @known_defect("tensor-listed-twice-gets-two-masks")
    def test_prepare_of_a_tensor_listed_twice_gives_it_one_mask(self):
        """The state has one mask a tensor: a tensor that is listed twice is refused, as by an Optimizer, or masked once."""
        model, sparsifier = chain(torch.ones(2, 2)), FirstRows()
        with contextlib.suppress(ValueError, AssertionError):
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "0.weight"}])
        masks = masks_on(model[0]) if parametrize.is_parametrized(model[0]) else 0
        self.assertLessEqual(masks, 1, msg="masks on a tensor listed twice")

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
        sparsifier.squash_mask()
        self.assertIs(model[0].weight, model[1].weight)

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
        self.assertEqual([masks_on(layer) for layer in model], [1, 1], msg="masks on the two layers")

    @known_defect("refused-prepare-leaves-groups-behind")
    def test_prepare_refused_can_be_repeated(self):
        """A refused prepare() prepared nothing: after mending the config each layer gets one mask."""
        model, sparsifier = chain(torch.ones(2, 2)), FirstRows()
        with self.assertRaises(AssertionError):
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {}])
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        self.assertEqual(f"{masks_on(model[0])} masks on the layer", "1 masks on the layer")

    @known_defect("refused-prepare-leaves-parametrizations-behind")
    def test_prepare_refused_leaves_the_model_alone(self):
        """A config that cannot be prepared, as it names a module that is not there, leaves the model as it was."""
        model = chain(torch.ones(2, 2))
        with self.assertRaises((AssertionError, AttributeError, ValueError, KeyError)):
            FirstRows().prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "nothing.weight"}])
        self.assertFalse(parametrize.is_parametrized(model[0]), msg="the refused prepare() has masked the first layer")

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

    def test_load_state_dict_masks_a_tensor_that_has_another_parametrization(self):
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

    def test_load_state_dict_finds_the_mask_behind_another_parametrization(self):
        """load_state_dict searches the tensor's parametrizations for the FakeSparsity, wherever it stands."""
        model, sparsifier = chain(torch.ones(2, 3)), FirstRows()
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.load_state_dict({"state": {"0.weight": {"mask": torch.zeros(2, 3)}}, "groups": []})
        self.assertEqual([type(p) for p in model[0].parametrizations.weight], [Negate, FakeSparsity, Negate])
        self.assertEqual(model[0].weight, torch.zeros(2, 3))

    def test_load_state_dict_refuses_a_layer_that_is_not_there(self):
        """Argument strict: by default, and if True, a tensor whose module the model lacks is an error that names it."""
        for options in ({}, {"strict": True}):
            with self.subTest(options):
                _, sparsifier = prepared(FirstRows(), torch.ones(2, 3), torch.ones(1, 2))
                _, smaller = prepared(FirstRows(), torch.ones(2, 3))
                with self.assertRaisesRegex(RuntimeError, "1.weight"):
                    smaller.load_state_dict(sparsifier.state_dict(), **options)

    @known_defect("load-not-strict-crashes-on-a-missing-layer")
    def test_load_state_dict_not_strict_skips_a_layer_that_is_not_there(self):
        """Argument strict: if False, what the model lacks is left out, and the rest is loaded."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3), torch.ones(1, 2))
        sparsifier.step()
        model, smaller = prepared(FirstRows(), torch.ones(2, 3))
        smaller.load_state_dict(sparsifier.state_dict(), strict=False)
        self.assertEqual(mask_of(model[0]), torch.tensor([[0.0] * 3, [1.0] * 3]))

    @known_defect("strict-load-forgets-a-prepared-layer")
    def test_load_state_dict_refuses_a_state_that_lacks_a_layer(self):
        """Argument strict, as in nn.Module: a layer that is prepared here and is not in the state is an error."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        _, larger = prepared(FirstRows(), torch.ones(2, 3), torch.ones(2, 2))
        with self.assertRaises((RuntimeError, KeyError, ValueError)):
            larger.load_state_dict(sparsifier.state_dict())

    @known_defect("load-accepts-a-mask-of-another-shape")
    def test_load_state_dict_refuses_a_mask_of_another_shape(self):
        """As nn.Module.load_state_dict: a tensor of another size is an error when it is loaded."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        _, other = prepared(FirstRows(), torch.ones(3, 2))
        with self.assertRaises((RuntimeError, AssertionError, ValueError)):
            other.load_state_dict(sparsifier.state_dict())

    @known_defect("load-crashes-on-a-tensor-without-parametrization")
    def test_load_state_dict_masks_a_tensor_that_was_not_prepared(self):
        """load_state_dict registers a FakeSparsity where none is found: also on a tensor without any parametrization."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        sparsifier.step()
        model, loaded = chain(torch.ones(2, 3)), FirstRows()
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

    @known_defect("loaded-mask-does-not-follow-dtype-and-device")
    def test_load_state_dict_moves_the_mask_to_its_tensor(self):
        """As nn.Module and Optimizer: what is loaded takes the dtype and device of the tensor it is loaded for."""
        _, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        model, loaded = prepared(FirstRows(), torch.ones(2, 3, dtype=torch.bfloat16))
        loaded.load_state_dict(sparsifier.state_dict())
        weight, mask = model[0].parametrizations.weight.original, mask_of(model[0])
        self.assertEqual(f"mask {mask.dtype} {mask.device}", f"mask {weight.dtype} {weight.device}")

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
        self.assertIn("mask", state, msg="the loaded sparsifier's own state lacks the mask")
        self.assertEqual(state["mask"], mask_of(model[0]))

    @known_defect("loaded-sparsifiers-share-one-mask")
    def test_load_state_dict_copies_the_mask(self):
        """FakeSparsity's Note: the mask's reference does not change; loading copies its values, as nn.Module does."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        other, loaded = prepared(FirstRows(), torch.ones(2, 3))
        loaded.load_state_dict(sparsifier.state_dict())
        loaded.step()
        self.assertEqual(mask_of(model[0]).sum().item(), 6, msg="stepping one model has pruned the other")

    @known_defect("loaded-sparsifier-cannot-prepare-another-layer")
    def test_load_state_dict_leaves_a_sparsifier_that_can_prepare(self):
        """A state of plain dicts, as torch.load(weights_only=True) gives, is loaded; then another layer can be prepared."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        model.append(linear(torch.ones(2, 2)))
        sparsifier.load_state_dict({"state": {"0.weight": {"mask": torch.zeros(2, 3)}}, "groups": [{"tensor_fqn": "0.weight"}]})
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
        """copy.deepcopy: a copy behaves as the original; step() works on its model."""
        sparsifier = NearlyDiagonalSparsifier()
        model, _ = prepared(sparsifier, torch.ones(2, 2))
        twin, copied = copy.deepcopy((model, sparsifier))
        copied.step()
        self.assertEqual(mask_of(twin[0]), torch.eye(2))

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
        self.assertEqual(self._squashed(params_to_keep={"plain": ("foo",)}), [None, None, {"foo": 42}])

    @known_defect("refused-squash-has-already-squashed")
    def test_mask_squash_refused_leaves_the_model_alone(self):
        """A squash_mask() that raises, as a parameter to keep is not there, leaves the parametrizations for another try."""
        model, sparsifier = prepared(FirstRows(), torch.ones(2, 3))
        with self.assertRaises(KeyError):
            sparsifier.squash_mask(params_to_keep=("nothing",))
        self.assertTrue(parametrize.is_parametrized(model[0]), msg="the refused squash_mask() has removed the mask")

    @known_defect("squash-removes-foreign-parametrizations")
    def test_mask_squash_leaves_the_parametrizations_of_others(self):
        """Docstring: squashes the sparse masks; what somebody else registered on the tensor stays."""
        model = chain(torch.ones(2, 3))
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier = FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.squash_mask()
        self.assertTrue(parametrize.is_parametrized(model[0]), msg="the parametrization of somebody else is gone")

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
        self.assertTrue(torch.equal(embedding.weight, before), msg="the embedding that was not prepared is pruned")

    @known_defect("squashed-sparsifier-cannot-be-used-again")
    def test_mask_squash_allows_to_prepare_again(self):
        """Pruning in rounds: prepare, step and squash, then the same with the same sparsifier."""
        model, sparsifier = chain(torch.ones(2, 3)), FirstRows()
        for _ in range(2):
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            sparsifier.step()
            sparsifier.squash_mask()
        self.assertEqual(model[0].weight.detach(), torch.tensor([[0.0] * 3, [1.0] * 3]))

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
        layer = linear(torch.ones(2, 2))
        model = nn.Sequential(layer, layer)
        sparsifier = FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        converted = sparsifier.convert(model, {nn.Linear: Converted})
        self.assertEqual([type(m).__name__ for m in converted._modules.values()], ["Converted", "Converted"], msg="types after convert()")

    @known_defect("convert-splits-a-shared-layer")
    def test_convert_keeps_a_shared_layer_shared(self):
        """A layer that two parents share is one module, before and after convert()."""
        layer = linear(torch.ones(2, 2))
        model = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer))
        sparsifier = FirstRows()
        sparsifier.prepare(model, [{"tensor_fqn": "0.0.weight"}])
        converted = sparsifier.convert(model, {nn.Linear: Converted})
        self.assertIs(converted[0][0], converted[1][0], msg="convert() made two modules of one")

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


@instantiate_parametrized_tests
@contracts.hold_for("weight_norm_1_x_4", "weight_norm_4_x_3_l1", "weight_norm_2_of_4")
class TestWeightNormSparsifier(TestCase):
    def _mask(self, weight, *arguments, **keywords):
        """Mask that WeightNormSparsifier(*arguments, **keywords) gives ``weight`` in one step."""
        model, sparsifier = prepared(WeightNormSparsifier(*arguments, **keywords), torch.as_tensor(weight))
        sparsifier.step()
        self.assertTrue(mask_of(model[0]).is_contiguous())
        return mask_of(model[0])

    def test_constructor(self):
        """Signature and class docstring: level 0.5, blocks 1 x 4, all elements of a block, each of them overridable."""
        for arguments, level, block, zeros in (
            ((), 0.5, (1, 4), {4, None}),
            ((0.8,), 0.8, (1, 4), {4, None}),
            ((0.8, (2, 3)), 0.8, (2, 3), {6, None}),
            ((0.8, (2, 3), 1), 0.8, (2, 3), {1}),
            ((0.8, (2, 3), 0), 0.8, (2, 3), {0}),
        ):
            with self.subTest(arguments):
                defaults = WeightNormSparsifier(*arguments).defaults
                self.assertEqual((defaults["sparsity_level"], defaults["sparse_block_shape"]), (level, block))
                self.assertIn(defaults["zeros_per_block"], zeros)
        sparsifier = WeightNormSparsifier(norm=1)
        self.assertIs(sparsifier.enable_mask_update, True)
        self.assertEqual(sparsifier.groups, [])

    def test_constructor_refuses_other_norms(self):
        """Class docstring: the norm is a callable, or an int of which only L1 and L2 are implemented."""
        for norm in (0, 3, -1, 1.5, "2", float("inf")):
            with self.subTest(norm=norm), self.assertRaisesRegex(NotImplementedError, f"L-{norm}"):
                WeightNormSparsifier(norm=norm)

    @over("norm", [None, 1, 2, subtest(lambda t: -t.abs(), name="callable")])
    def test_norm(self, norm):
        """Class docstring: L1, L2 (the default) or any callable decides which blocks have the lowest norm."""
        oracle_norm = (lambda values: -abs(values)) if callable(norm) else norm or 2
        for weight in ([[0.0, 5.0, 3.0, 3.0]], [[0.0, -5.0, -3.0, -3.0]], [[-4.0, 1.0, 2.0, 1.0]]):
            with self.subTest(weight=weight):
                mask = self._mask(weight, 0.5, (1, 2), norm=norm)
                self.assertEqual(mask, torch.from_numpy(weight_norm_mask(weight, 0.5, (1, 2), norm=oracle_norm)).float())

    @over("zeros", [None, 1, 2])
    def test_step(self, zeros):
        """Class docstring: the blocks with the lowest norm lose all, or the zeros_per_block smallest, of their elements."""
        shapes = [(4, 8), (12, 1)] if zeros else [(4, 8), (3, 5), (7, 2), (1, 6), (1, 1)]
        for shape in shapes:
            weight = distinct_weight(*shape)
            model, sparsifier = prepared(WeightNormSparsifier(), weight)
            for block, level in itertools.product([(1, 1), (1, 4), (4, 1), (2, 3), (2, 2)], (0.3, 0.5)):
                size = block[0] * block[1]
                if zeros is not None and (zeros > size or shape[0] % block[0] or shape[1] % block[1]):
                    continue
                arguments = {"sparsity_level": level, "sparse_block_shape": block, "zeros_per_block": zeros or size}
                with self.subTest(shape=shape, **arguments):
                    mask = mask_of(model[0])
                    mask.data = torch.ones(shape)
                    sparsifier.groups[0].update(arguments)
                    sparsifier.step()
                    expected = torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros))
                    self.assertTrue(torch.equal(mask.double(), expected), msg=f"{mask}, expected {expected}")

    @over("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_step_in_every_dtype(self, dtype):
        """The mask depends on the values alone: the same for the same weight in any floating point dtype."""
        if not counts_in(dtype):
            self.skipTest(f"norms in {dtype} (no such CPU kernels)")
        weight = distinct_weight(3, 5)
        for block, zeros in (((1, 1), None), ((1, 5), 2), ((3, 1), None)):
            with self.subTest(block=block):
                expected = weight_norm_mask(weight.numpy(), 0.5, block, zeros)
                self.assertEqual(self._mask(weight.to(dtype), 0.5, block, zeros).float(), torch.from_numpy(expected).float())

    def test_step_in_double_precision(self):
        """The mask depends on the values alone: also on differences that only float64 holds."""
        weight = 1 + torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64) * 2**-40
        for each, expected in ((weight, [0, 0, 1, 1]), (weight.flip(1), [1, 1, 0, 0])):
            for arguments in ((0.5, (1, 1)), (1.0, (1, 4), 2)):
                for norm in (1, 2):
                    with self.subTest(arguments, norm=norm, expected=expected):
                        self.assertEqual(self._mask(each, *arguments, norm=norm).int().tolist(), [expected])

    def test_step_on_weights_that_are_not_contiguous(self):
        """The mask depends on the values alone: the same for a transposed or strided weight."""
        weight = distinct_weight(4, 6)
        strided = torch.zeros(8, 12)[::2, ::2].copy_(weight)
        for name, same in (("transposed", weight.T.contiguous().T), ("strided", strided)):
            with self.subTest(name):
                model = chain(weight)
                model[0].weight = nn.Parameter(same)
                self.assertFalse(model[0].weight.is_contiguous())
                sparsifier = WeightNormSparsifier(0.5, (2, 2))
                sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
                sparsifier.step()
                self.assertEqual(mask_of(model[0]), torch.from_numpy(weight_norm_mask(weight.numpy(), 0.5, (2, 2))).float())

    def test_step_accepts_a_list_as_block_shape(self):
        """A block shape read from JSON, a list, means the same as a tuple."""
        weight = distinct_weight(4, 4)
        for zeros in (None, 1):
            self.assertEqual(self._mask(weight, 0.5, [2, 2], zeros), self._mask(weight, 0.5, (2, 2), zeros))

    def test_step_on_equal_norms_prunes_whole_blocks(self):
        """Among blocks of equal norm any may go, but as many as the level asks for, and each as a whole."""
        for block, level in itertools.product(((1, 1), (1, 4), (2, 2), (4, 1)), (0.25, 0.5, 0.75)):
            with self.subTest(block=block, level=level):
                mask = self._mask(torch.ones(4, 8), level, block)
                tiles = mask.unfold(0, block[0], block[0]).unfold(1, block[1], block[1]).flatten(0, 1).flatten(1)
                self.assertEqual(sorted({tuple(tile) for tile in tiles.tolist()}), [(0.0,) * tiles.shape[1], (1.0,) * tiles.shape[1]])
                self.assertEqual((tiles[:, 0] == 0).sum().item(), round(level * len(tiles)))

    def test_step_on_equal_elements_of_a_block_zeroes_the_right_number(self):
        """Among equal elements of a block any may go, but zeros_per_block of them in each pruned block."""
        for zeros in (1, 2, 3):
            self.assertEqual((self._mask(torch.ones(4, 8), 1.0, (1, 4), zeros) == 0).reshape(-1, 4).sum(1).tolist(), [zeros] * 8)

    def test_step_2_of_4(self):
        """Class docstring: zeros_per_block=2 with blocks 1 x 4 and level 1: the two smallest absolute values of each four go."""
        weight = [[1.0, -8.0, 3.0, -4.0, 8.0, 7.0, -6.0, 5.0], [-2.0, 2.5, 0.0, 1.0, 4.0, -3.0, 2.0, -1.0]]
        expected = [[0, 1, 0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1, 0, 0]]
        for norm in (1, 2, None):
            with self.subTest(norm=norm):
                model, sparsifier = prepared(WeightNormSparsifier(1.0, (1, 4), 2, norm), torch.tensor(weight))
                for _ in range(2):
                    sparsifier.step()
                    self.assertEqual(mask_of(model[0]).int().tolist(), expected)
                    self.assertEqual(model[0].weight, torch.tensor(weight) * torch.tensor(expected))

    @over("zeros", [None, 0, 1, 4])
    def test_sparsity_levels(self, zeros):
        """Class docstring: the level is the share of blocks that are zeroed out: none up to 0, all from 1, else the nearest number."""
        weight = distinct_weight(4, 8)
        for level in (-1, 0, 0.01, 0.0625, 0.1, 0.5, 0.56, 0.9, 0.99, 0.9999, 1, 1.0, 1.5):
            with self.subTest(level=level):
                mask = self._mask(weight, level, (1, 4), zeros)
                self.assertEqual((mask == 0).sum().item(), blocks_to_prune(level, 8) * (4 if zeros is None else zeros))

    def test_level_may_change_between_steps(self):
        """The groups' sparsity_level counts at each step: raised, the zeros grow and contain the former ones; 0 frees all."""
        weight = distinct_weight(4, 8)
        for zeros in (None, 2):
            with self.subTest(zeros=zeros):
                model, sparsifier = prepared(WeightNormSparsifier(0.25, (1, 4), zeros), weight)
                for level in (0.25, 0.5, 0.75, 1.0, 0.0, 0.5):
                    sparsifier.groups[0]["sparsity_level"] = level
                    sparsifier.step()
                    expected = torch.from_numpy(weight_norm_mask(weight.numpy(), level, (1, 4), zeros)).float()
                    self.assertEqual(mask_of(model[0]).float(), expected)

    @known_defect("weight-norm-frees-the-wrong-blocks")
    def test_level_may_be_lowered_between_steps(self):
        """Class docstring: the blocks with the lowest norm are zeroed out: at a lower level the smallest stay pruned."""
        for weight, expected in (([8.0, 7, 6, 5, 4, 3, 2, 1], [8.0, 7, 6, 5, 4, 3, 0, 0]), ([1.0, 2, 3, 4], [0.0, 2, 3, 4])):
            with self.subTest(weight=weight):
                model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([weight]))
                sparsifier.step()
                sparsifier.groups[0]["sparsity_level"] = 0.25
                sparsifier.step()
                kept = model[0].weight[0]
                self.assertTrue(torch.equal(kept, torch.tensor(expected)), msg=f"kept {kept.tolist()}, expected {expected}")

    def test_step_follows_the_weight(self):
        """The mask is computed anew from the weight at each step: what has become the smallest goes."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        sparsifier.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[0, 0, 1, 1]])
        sparsifier.groups[0]["sparsity_level"] = 0
        sparsifier.step()
        with torch.no_grad():
            model[0].parametrizations.weight.original.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
        sparsifier.groups[0]["sparsity_level"] = 0.5
        sparsifier.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[1, 1, 0, 0]])

    def test_step_refuses_impossible_numbers_of_zeros(self):
        """Messages: zeros_per_block is at most the number of elements of a block, and not negative; the mask stays."""
        cases = (((1, 4), 5, "more than"), ((2, 2), 5, "more than"), ((1, 1), 2, "more than"), ((1, 4), -1, "positive"))
        for block, zeros, pattern in cases:
            with self.subTest(block=block, zeros=zeros):
                model, sparsifier = prepared(WeightNormSparsifier(0.5, block, zeros), torch.ones(4, 4))
                with self.assertRaisesRegex(ValueError, pattern):
                    sparsifier.step()
                self.assertEqual(mask_of(model[0]), torch.ones(4, 4))

    def test_prepare(self):
        """Class docstring Note: level, block shape and zeros per block can be overridden by the config of a layer."""
        weights = [distinct_weight(4, 8, 1), distinct_weight(4, 4, 2), distinct_weight(6, 4, 3)]
        model, sparsifier = chain(*weights), WeightNormSparsifier(0.5, (1, 4))
        sparsifier.prepare(
            model,
            [
                {"tensor_fqn": "0.weight"},
                {"tensor_fqn": "1.weight", "sparsity_level": 0.25, "sparse_block_shape": (2, 2)},
                {"tensor_fqn": "2.weight", "sparsity_level": 1.0, "zeros_per_block": 1},
            ],
        )
        for layer, weight in zip(model, weights):
            self.assertEqual(masks_on(layer), 1)
            self.assertEqual(layer.weight, weight)
        sparsifier.step()
        for layer, weight, (level, block, zeros) in zip(model, weights, [(0.5, (1, 4), None), (0.25, (2, 2), None), (1, (1, 4), 1)]):
            self.assertEqual(mask_of(layer).float(), torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros)).float())

    @known_defect("weight-norm-ignores-the-norm-of-the-config")
    def test_prepare_overrides_the_norm(self):
        """Class docstring Note: all arguments to the constructor could be overridden by the configuration."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 2), norm=2), torch.tensor([[0.0, 5.0, 3.0, 3.0]]), norm=1)
        sparsifier.step()
        self.assertEqual(f"mask {mask_of(model[0]).tolist()}", "mask [[0.0, 0.0, 1.0, 1.0]]")

    @known_defect("larger-block-of-the-config-keeps-the-former-zeros")
    def test_prepare_overrides_with_a_larger_block(self):
        """Class docstring: by default all elements within a block are zeroed out, also where the config gives the block shape."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5), distinct_weight(4, 8), sparse_block_shape=(4, 4))
        sparsifier.step()
        self.assertEqual(f"{(mask_of(model[0]) == 0).sum().item()} zeros", "16 zeros")

    @known_defect("smaller-block-of-the-config-is-refused")
    def test_prepare_overrides_with_a_smaller_block(self):
        """Class docstring: by default all elements within a block are zeroed out, also where the config gives the block shape."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5), distinct_weight(4, 8), sparse_block_shape=(1, 2))
        sparsifier.step()
        self.assertEqual((mask_of(model[0]) == 0).sum().item(), 16)

    def test_mask_squash(self):
        """squash_mask: the pruned elements are zero in the weight, the others as they were; the settings can be kept."""
        weight = distinct_weight(4, 8)
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (2, 2), 4), weight)
        sparsifier.step()
        sparsifier.squash_mask(params_to_keep=("sparse_block_shape", "sparsity_level", "zeros_per_block"))
        self.assertFalse(parametrize.is_parametrized(model[0]))
        self.assertEqual(model[0].weight.detach(), weight * torch.from_numpy(weight_norm_mask(weight.numpy(), 0.5, (2, 2))).float())
        self.assertEqual(model[0].sparse_params, {"sparse_block_shape": (2, 2), "sparsity_level": 0.5, "zeros_per_block": 4})

    def test_training_keeps_the_zeros(self):
        """Training under the mask: gradients of pruned elements are zero, so the model keeps learning with the others."""
        weight = distinct_weight(2, 4)
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 2)), weight)
        sparsifier.step()
        mask, original = mask_of(model[0]), model[0].parametrizations.weight.original
        model(torch.ones(1, 4)).sum().backward()
        self.assertEqual(original.grad, mask)
        with torch.no_grad():
            original -= 0.1 * original.grad
        sparsifier.step()
        self.assertEqual(mask_of(model[0]), mask)
        self.assertEqual(model[0].weight.detach(), (weight - 0.1) * mask)

    @known_defect("step-in-inference-mode-breaks-training")
    def test_step_in_inference_mode_allows_training(self):
        """FakeSparsity's Note: the mask's contents change; so step() may be called in torch.inference_mode between trainings."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        with torch.inference_mode():
            sparsifier.step()
        model(torch.ones(1, 4)).sum().backward()
        self.assertEqual(model[0].parametrizations.weight.original.grad.tolist(), [[0, 0, 1, 1]])

    @known_defect("step-takes-the-mask-out-of-shared-memory")
    def test_step_writes_into_shared_memory(self):
        """FakeSparsity's Note: the mask's contents change; a model in shared memory (Module.share_memory) stays there."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.ones(1, 4))
        model.share_memory()
        sparsifier.step()
        self.assertTrue(mask_of(model[0]).is_shared(), msg="the mask is no longer in shared memory")

    @known_defect("weight-norm-l2-leaves-the-range-of-half")
    def test_step_on_small_weights_in_half_precision(self):
        """Class docstring: the blocks with the lowest norm go, whichever norm: squares of float16 below 2.4e-4 are 0 in float16."""
        if not counts_in(torch.float16):
            self.skipTest("norms in torch.float16 (no such CPU kernels)")
        weight = torch.tensor([[1e-5, 2e-5, 3e-5, 4e-5]], dtype=torch.float16)
        for each, expected in ((weight, [0, 0, 1, 1]), (weight.flip(1), [1, 1, 0, 0])):
            self.assertEqual(self._mask(each, 0.5, (1, 1), norm=1).int().tolist(), [expected])
            self.assertEqual(f"L2 {self._mask(each, 0.5, (1, 1), norm=2).int().tolist()}", f"L2 {[expected]}")

    @known_defect("weight-norm-mask-loses-its-dtype")
    def test_mask_keeps_its_dtype(self):
        """prepare() makes the mask in the weight's dtype: a bfloat16 model still runs after step()."""
        for zeros in (None, 2):
            for dtype in (torch.bfloat16, torch.float64):
                with self.subTest(dtype=dtype, zeros=zeros):
                    mask = self._mask(torch.ones(2, 4, dtype=dtype), 0.5, (1, 4), zeros)
                    self.assertEqual(f"mask {mask.dtype}", f"mask {dtype}")

    @known_defect("ragged-zeros-per-block-crashes")
    def test_step_with_zeros_per_block_on_ragged_shapes(self):
        """Comment: the data is padded to match the block shape, as for whole blocks; the mask has the weight's shape."""
        for shape, block in (((2, 6), (1, 4)), ((3, 4), (2, 2)), ((5, 7), (2, 3))):
            with self.subTest(shape=shape, block=block):
                weight = distinct_weight(*shape)
                mask = self._mask(weight, 0.9, block, 1)
                self.assertEqual(mask.shape, weight.shape)
                rows, columns = shape[0] // block[0] * block[0], shape[1] // block[1] * block[1]
                everywhere = weight_norm_mask(weight[:rows, :columns].numpy(), 1.0, block, 1)
                self.assertEqual(((mask[:rows, :columns] == 0) & torch.from_numpy(everywhere == 1)).sum().item(), 0)

    @known_defect("full-tensor-mask-has-the-padded-shape")
    def test_tensor_mask_of_ragged_data_has_its_shape(self):
        """_make_tensor_mask: at levels 0 and 1 the mask has the data's shape, as at those between."""
        for level, value in ((0.5, None), (1.0, 0.0), (0.0, 1.0)):
            mask = WeightNormSparsifier()._make_tensor_mask(torch.ones(3, 5), (3, 5), level, (2, 4))
            self.assertEqual(f"shape {tuple(mask.shape)}", "shape (3, 5)")
            if value is not None:
                self.assertEqual(mask, torch.full((3, 5), value))

    @known_defect("weight-norm-crashes-on-an-empty-weight")
    def test_step_on_an_empty_weight(self):
        """nn.Linear allows no inputs or no outputs: such a weight has nothing to prune, and the others are pruned."""
        for shape in ((0, 4), (4, 0)):
            with self.subTest(shape=shape):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    mask = self._mask(torch.ones(shape), 0.5, (1, 4))
                self.assertEqual(mask.shape, shape)

    @known_defect("second-sparsifier-overwrites-the-first-ones-mask")
    def test_step_leaves_the_mask_of_another_sparsifier(self):
        """Each sparsifier registers a FakeSparsity of its own, and parametrizations chain: step() changes only its own mask."""
        model, first = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        first.step()
        second = WeightNormSparsifier(0.0, (1, 1))
        second.prepare(model, [{"tensor_fqn": "0.weight"}])
        second.step()
        self.assertEqual(f"weight {model[0].weight.tolist()}", "weight [[0.0, 0.0, 3.0, 4.0]]")

    @known_defect("weight-norm-crashes-behind-another-parametrization")
    def test_step_behind_another_parametrization(self):
        """load_state_dict searches the FakeSparsity among the tensor's parametrizations; so does step()."""
        model = chain(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier = WeightNormSparsifier(0.5, (1, 1))
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.step()
        self.assertEqual(model[0].weight.tolist(), [[0, 0, -3, -4]])

    @known_defect("copied-weight-norm-has-no-norm")
    def test_copy_keeps_the_norm(self):
        """copy.deepcopy: a copy behaves as the original; it computes masks by the same norm."""
        sparsifier = WeightNormSparsifier(0.5, (1, 2), norm=1)
        copied = copy.deepcopy(sparsifier)
        copied.enable_mask_update = True
        model, _ = prepared(copied, torch.tensor([[0.0, 5.0, 3.0, 3.0]]))
        copied.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[0, 0, 1, 1]])

    @on_every_device
    def test_mask_stays_on_its_device(self, device):
        """The mask lies where the weight does, whatever the default device is; its values are those of the CPU."""
        weight = distinct_weight(4, 8)
        for block, zeros, level in (((1, 1), None, 0.5), ((2, 2), None, 0.5), ((1, 4), 2, 1.0), ((1, 4), 2, 0.5)):
            with self.subTest(block=block, zeros=zeros, level=level):
                model, sparsifier = prepared(WeightNormSparsifier(level, block, zeros), weight.to(device))
                with torch.device("meta"):
                    sparsifier.step()
                mask = mask_of(model[0])
                self.assertEqual(mask.device.type, device)
                self.assertEqual(mask.float().cpu(), torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros)).float())

    def test_tensor_mask_fills_a_given_mask(self):
        """_make_tensor_mask: a given mask is filled and returned, a new one is made unless given; float of the data's device."""
        data = distinct_weight(4, 6, seed=1).abs()
        make = WeightNormSparsifier()._make_tensor_mask
        for level, expected in ((-1, torch.ones(4, 6)), (0, torch.ones(4, 6)), (1, torch.zeros(4, 6)), (2, torch.zeros(4, 6)), (0.4, None)):
            with self.subTest(level=level):
                expected = torch.from_numpy(weight_norm_mask(data.numpy(), level, (2, 3), norm=1)).float() if expected is None else expected
                given = torch.ones(4, 6)
                self.assertEqual(make(data, data.shape, level, (2, 3), mask=given), expected)
                self.assertEqual(given, expected)
                with torch.device("meta"):
                    made = make(data=data, input_shape=data.shape, sparsity_level=level, sparse_block_shape=(2, 3))
                self.assertEqual(made, expected)
                self.assertTrue(made.is_contiguous())

    def test_block_mask_fills_a_given_mask(self):
        """_make_block_mask: the smallest elements of every block; a given mask is filled and returned, else one is made."""
        data = distinct_weight(4, 6).abs()
        make = WeightNormSparsifier()._make_block_mask
        for zeros in (1, 3, 6):
            with self.subTest(zeros=zeros):
                expected = torch.from_numpy(weight_norm_mask(data.numpy(), 1, (2, 3), zeros)).float()
                given = torch.ones(4, 6)
                self.assertEqual(make(data, (2, 3), zeros, mask=given), expected)
                self.assertEqual(given, expected)
                with torch.device("meta"):
                    made = make(data=data.double(), sparse_block_shape=(2, 3), zeros_per_block=zeros)
                self.assertEqual(made, expected)
                self.assertTrue(made.is_contiguous())

    def test_block_mask_of_ragged_data_prunes_data_before_padding(self):
        """_make_block_mask: the padding is no data: in a block that the edge cuts off, elements of the data are zeroed."""
        data = torch.tensor([[4.0, 1.0, 3.0, 2.0, 9.0, 8.0, 7.0], [5.0, 6.0, 7.0, 8.0, 1.0, 3.0, 2.0]])
        for columns, last in ((5, [[0], [0]]), (6, [[0, 0], [0, 0]]), (7, [[1, 0, 0], [0, 1, 0]])):
            with self.subTest(columns=columns):
                kept = torch.cat([torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]]), torch.tensor(last)], dim=1)
                mask = WeightNormSparsifier()._make_block_mask(data[:, :columns], (1, 4), 2)
                self.assertEqual(mask[:, :columns], kept)
                mask = WeightNormSparsifier()._make_block_mask(data[:, :columns].T, (4, 1), 2)
                self.assertEqual(mask[:columns], kept.T)

    def test_scatter_fold_makes_patches(self):
        """_scatter_fold_block_mask: indices are scattered as zeros, columns of the unfolded mask become patches of block_shape."""
        fold = WeightNormSparsifier()._scatter_fold_block_mask
        blocks = torch.tensor([[[1]] * 4])
        expected = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]])
        given = torch.ones(1, 4, 2)
        self.assertIs(fold((2, 4), 2, blocks, (2, 2), mask=given), given)
        self.assertEqual(given.squeeze(), expected)
        with torch.device("meta"):
            made = fold(output_shape=(2, 4), dim=2, indices=blocks, block_shape=(2, 2), input_shape=(1, 4, 2), device="cpu")
        self.assertEqual(made.squeeze(), expected)
        with self.assertRaisesRegex(AssertionError, "input_shape"):
            fold((2, 4), 2, blocks, (2, 2))

    def test_flat_indices_become_rows_and_columns(self):
        """_flat_idx_to_2d: the row and the column of an index into a flattened matrix."""
        from torch.ao.pruning.sparsifier.weight_norm_sparsifier import _flat_idx_to_2d

        self.assertEqual([_flat_idx_to_2d(index, (2, 3)) for index in range(6)], [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)])


@instantiate_parametrized_tests
@contracts.hold_for("nearly_diagonal")
class TestNearlyDiagonalSparsifier(TestCase):
    def test_constructor(self):
        """Signature: the degree of nearliness is 1 unless given."""
        self.assertEqual(NearlyDiagonalSparsifier().defaults, {"nearliness": 1})
        self.assertEqual(NearlyDiagonalSparsifier(5).defaults, {"nearliness": 5})
        sparsifier = NearlyDiagonalSparsifier(nearliness=3)
        self.assertEqual((sparsifier.defaults, sparsifier.groups, sparsifier.enable_mask_update), ({"nearliness": 3}, [], True))

    def test_step(self):
        """Class docstring: the matrices drawn there for degrees 3 and 5, and the main diagonal for degree 1."""
        for nearliness, expected in (
            (1, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            (3, [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]),
            (5, [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]),
        ):
            with self.subTest(nearliness=nearliness):
                weight = distinct_weight(4, 4)
                model, sparsifier = prepared(NearlyDiagonalSparsifier(nearliness), weight)
                mask = mask_of(model[0])
                for _ in range(2):
                    sparsifier.step()
                    self.assertIs(mask_of(model[0]), mask)
                    self.assertEqual(mask, torch.tensor(expected).float())
                    self.assertEqual(model[0].weight, weight * torch.tensor(expected))

    @over("shape", [(4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1), (2, 2)])
    def test_sparsity_levels(self, shape):
        """Class docstring and messages: odd degrees keep that many diagonals; none if <= 0; even and too large ones are refused."""
        dtype = torch.bfloat16 if shape[0] > shape[1] else torch.float32
        model, sparsifier = prepared(NearlyDiagonalSparsifier(), distinct_weight(*shape, dtype=dtype))
        for nearliness in range(-2, 12):
            with self.subTest(nearliness=nearliness):
                sparsifier.groups[0]["nearliness"] = nearliness
                if nearliness > 0 and nearliness % 2 == 0:
                    with self.assertRaisesRegex(ValueError, "odd"):
                        sparsifier.step()
                elif nearliness > 0 and nearliness // 2 >= min(shape):
                    with self.assertRaisesRegex(ValueError, "larger than the dimensions"):
                        sparsifier.step()
                else:
                    sparsifier.step()
                    mask, expected = mask_of(model[0]), torch.from_numpy(nearly_diagonal_mask(shape, nearliness)).to(dtype)
                    self.assertTrue(torch.equal(mask, expected), msg=f"{mask}, expected {expected}")

    def test_nearliness_may_change_between_steps(self):
        """The groups' nearliness counts at each step, in both directions."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(), torch.ones(4, 5))
        for nearliness in (3, 1, 5, 0, 7):
            sparsifier.groups[0]["nearliness"] = nearliness
            sparsifier.step()
            self.assertEqual(mask_of(model[0]), torch.from_numpy(nearly_diagonal_mask((4, 5), nearliness)).float())

    @known_defect("refused-nearliness-zeroes-the-mask")
    def test_refused_nearliness_leaves_the_mask(self):
        """A step() that raises ValueError has not changed the mask."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(2), torch.ones(4, 4))
        with self.assertRaises(ValueError):
            sparsifier.step()
        self.assertEqual(f"mask of {mask_of(model[0]).sum().item():.0f} ones", "mask of 16 ones")

    def test_prepare(self):
        """A layer's config overrides the constructor's degree; until step() nothing is masked."""
        model, sparsifier = chain(torch.ones(4, 5), torch.ones(3, 4)), NearlyDiagonalSparsifier(1)
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight", "nearliness": 3}])
        for layer in model:
            self.assertEqual(masks_on(layer), 1)
            self.assertEqual(layer.weight, torch.ones(layer.weight.shape))
        sparsifier.step()
        self.assertEqual(mask_of(model[0]), torch.from_numpy(nearly_diagonal_mask((4, 5), 1)).float())
        self.assertEqual(mask_of(model[1]), torch.from_numpy(nearly_diagonal_mask((3, 4), 3)).float())

    def test_mask_squash(self):
        """squash_mask: what is off the diagonals is zero in the weight, the rest as it was; the degree can be kept."""
        weight = distinct_weight(4, 4)
        model, sparsifier = prepared(NearlyDiagonalSparsifier(3), weight)
        sparsifier.step()
        sparsifier.squash_mask(params_to_keep=("nearliness",))
        self.assertFalse(parametrize.is_parametrized(model[0]))
        self.assertEqual(model[0].weight.detach(), weight * torch.from_numpy(nearly_diagonal_mask((4, 4), 3)).float())
        self.assertEqual(model[0].sparse_params, {"nearliness": 3})

    @on_every_device
    def test_mask_stays_on_its_device(self, device):
        """The mask lies where the weight does, whatever the default device is."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(3), torch.ones(3, 3, device=device))
        with torch.device("meta"):
            sparsifier.step()
        self.assertEqual(mask_of(model[0]).device.type, device)
        self.assertEqual(mask_of(model[0]).cpu(), torch.from_numpy(nearly_diagonal_mask((3, 3), 3)).float())

    @known_defect("second-nearly-diagonal-overwrites-the-first-ones-mask")
    def test_step_leaves_the_mask_of_another_sparsifier(self):
        """Each sparsifier registers a FakeSparsity of its own, and parametrizations chain: step() changes only its own mask."""
        model, first = prepared(NearlyDiagonalSparsifier(1), torch.ones(3, 3))
        first.step()
        second = NearlyDiagonalSparsifier(3)
        second.prepare(model, [{"tensor_fqn": "0.weight"}])
        second.step()
        self.assertEqual(f"weight {model[0].weight.tolist()}", f"weight {torch.eye(3).tolist()}")

    @known_defect("nearly-diagonal-crashes-behind-another-parametrization")
    def test_step_behind_another_parametrization(self):
        """load_state_dict searches the FakeSparsity among the tensor's parametrizations; so does step()."""
        model, sparsifier = chain(torch.ones(2, 2)), NearlyDiagonalSparsifier()
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.step()
        self.assertEqual(model[0].weight, -torch.eye(2))

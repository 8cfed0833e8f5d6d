# Owner(s): ["module: sparse"]
"""ActivationSparsifier: masks over the inputs of registered layers."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import contextlib
import copy
import doctest
import io
import pickle
import re
import threading
import weakref

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier import ActivationSparsifier
from torch.overrides import TorchFunctionMode
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing.capture import WarnsCaller, recorded_warnings, without_gc
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.oracles import activations

# A layer's features: none, or indices along a dimension.
FEATURES = (
    {},
    {"features": [0, 2], "feature_dim": 1},
    {"features": [1], "feature_dim": -1},
    {"features": (1, 0), "feature_dim": 0},
    {"features": torch.tensor([2, 0]), "feature_dim": -2},
    {"features": range(3), "feature_dim": 1},
)
# Every kind of features, and other dtypes without and with them.
CASES = (
    *((settings, torch.float32) for settings in FEATURES),
    *((settings, dtype) for settings in FEATURES[:2] for dtype in (torch.float64, torch.int64)),
)
FLOATING_CASES = tuple((settings, dtype) for settings, dtype in CASES if dtype.is_floating_point)


def _add(x, y):
    return x + y


def _mean(x):
    return x.mean(0)


def _above(data, threshold):
    """1 where the data is above ``threshold``; for tensors and arrays."""
    return (data > threshold) * 1.0


def _scale(data, factor=1.0):
    """A mask that is proportional to the data, so that every number in it counts."""
    return data * factor


def _sparsifier(model=None, *, layers=("0",), mask_fn=_scale, **settings):
    """A sparsifier over two identities (or ``model``), with ``layers`` registered."""
    model = nn.Sequential(nn.Identity(), nn.Identity()) if model is None else model
    sparsifier = ActivationSparsifier(model, aggregate_fn=_add, reduce_fn=_mean, mask_fn=mask_fn)
    for name in layers:
        sparsifier.register_layer(model.get_submodule(name), **settings)
    return sparsifier


def _inputs(number=3, shape=(2, 3, 4), dtype=torch.float32):
    """Different activations of one shape, negative ones among them."""
    size = int(torch.Size(shape).numel())
    return [(torch.arange(size).reshape(shape) * (i + 1) - size // 2).to(dtype) for i in range(number)]


def _indices(features):
    return None if features is None else [int(feature) for feature in features]


def _arrays(value):
    return [tensor.detach().cpu().numpy() for tensor in value] if isinstance(value, list) else value.detach().cpu().numpy()


@contextlib.contextmanager
def _default_dtype(dtype):
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def _hooks(module):
    return len(module._forward_pre_hooks)


def _functions():
    """Module-level functions, which pickle takes by name."""
    return {"aggregate_fn": _add, "reduce_fn": _mean, "mask_fn": _scale}


def _plain(config):
    """A config without its functions and without what ties it to a model."""
    return {key: value for key, value in config.items() if key not in ("hook", "layer", *_functions())}


class _WithLock:
    """An aggregate_fn with a lock, as an object that other threads use has one; it cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, so_far, new):
        with self.lock:
            return so_far + new


class _FirstPair(TorchFunctionMode):
    """Ends the first operation that combines two tensors with Seen and notes their devices."""

    class Seen(Exception):
        pass

    def __torch_function__(self, function, types, args=(), kwargs=None):
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        if len(tensors) > 1 and function is not torch.Tensor.to:
            self.devices = [tensor.device.type for tensor in tensors]
            raise self.Seen
        return function(*args, **(kwargs or {}))


@instantiate_parametrized_tests
class TestActivationSparsifier(WarnsCaller, TestCase):
    """The whole life of the sparsifier, and each method."""

    def assertMasks(self, found, expected):
        """A mask, or a list of them, equals arrays of the oracle in values and shape."""
        if isinstance(expected, list):
            self.assertIsInstance(found, list)
            self.assertEqual(len(found), len(expected), "number of masks")
            for mask, array in zip(found, expected):
                self.assertEqual(mask, torch.as_tensor(array).to(mask.dtype))
        else:
            self.assertEqual(found, torch.as_tensor(expected).to(found.dtype))

    def test_activation_sparsifier(self):
        """The whole life: construct, register with and without features, aggregate, step, squash, save and load."""
        model = nn.Sequential(nn.Flatten(1), nn.Linear(4, 3), nn.ReLU())
        sparsifier = ActivationSparsifier(model, aggregate_fn=_add, reduce_fn=_mean, mask_fn=_above, threshold=-1.0)
        self.assertIs(sparsifier.model, model)
        sparsifier.register_layer(model[0], threshold=2.5)
        sparsifier.register_layer(model[2], features=[0, 2], feature_dim=1)
        self.assertEqual(list(sparsifier.data_groups), ["0", "2"])
        inputs = _inputs(3, (2, 4))
        with torch.no_grad():
            hidden = [model[1](x) for x in inputs]
            for x in inputs:
                model(x)
        self.assertEqual(sparsifier.data_groups["0"]["data"], sum(inputs))
        self.assertEqual(sparsifier.data_groups["2"]["data"], [sum(h[:, i : i + 1] for h in hidden) for i in (0, 2)])
        sparsifier.step()
        expected = activations.masks(_arrays(inputs), _add, _mean, lambda data: _above(data, 2.5))
        self.assertMasks(sparsifier.get_mask("0"), expected)
        features = activations.masks(_arrays(hidden), _add, _mean, lambda data: _above(data, -1.0), [0, 2], 1)
        self.assertMasks(sparsifier.get_mask(layer=model[2]), features)
        sparsifier.squash_mask()
        with torch.no_grad():
            masked = model[1](inputs[0] * torch.as_tensor(expected, dtype=torch.float32))
            masked = torch.relu(torch.as_tensor(activations.sparsified(_arrays(masked), features, [0, 2], 1)))
            self.assertEqual(model(inputs[0]), masked)

        state = sparsifier.state_dict()
        self.assertEqual(sorted(state), ["data_groups", "defaults", "state"])
        copied = nn.Sequential(nn.Flatten(1), nn.Linear(4, 3), nn.ReLU())
        copied.load_state_dict(model.state_dict())
        restored = ActivationSparsifier(copied)
        restored.load_state_dict(state)
        self.assertEqual(restored.defaults["sparse_config"], {"threshold": -1.0})
        self.assertEqual(restored.get_mask("0"), sparsifier.get_mask("0"))
        self.assertEqual(restored.get_mask("2"), sparsifier.get_mask("2"))
        with torch.no_grad():
            self.assertEqual(copied(inputs[0]), masked)

    def test_constructor_keeps_the_defaults(self):
        """The defaults are what was given, in the documented order, and None otherwise; nothing is registered."""
        model = nn.Identity()
        names = ("aggregate_fn", "reduce_fn", "mask_fn", "features", "feature_dim")
        sparsifier = ActivationSparsifier(model, _add, _mean, _above, [1], 2, threshold=3, other=4)
        expected = dict(zip(names, (_add, _mean, _above, [1], 2)), sparse_config={"threshold": 3, "other": 4})
        self.assertEqual(dict(sparsifier.defaults), expected)
        self.assertEqual((dict(sparsifier.data_groups), dict(sparsifier.state)), ({}, {}))
        self.assertEqual(_hooks(model), 0)
        sparsifier = ActivationSparsifier(model)
        self.assertEqual(dict(sparsifier.defaults), {**dict.fromkeys(names), "sparse_config": {}})

    def test_constructor_keeps_the_defaults_themselves(self):
        """Functions that are objects, the list of features and the values of the config are the ones given, not copies."""

        class Function:
            def __call__(self, *args):
                return args[0]

        given = {"aggregate_fn": Function(), "reduce_fn": Function(), "mask_fn": Function(), "features": [1]}
        config = {"table": [2]}
        defaults = ActivationSparsifier(nn.Identity(), **given, feature_dim=0, **config).defaults
        self.assertEqual([name for name, value in given.items() if defaults[name] is not value], [])
        self.assertIs(defaults["sparse_config"]["table"], config["table"])

    def test_register_layer_takes_defaults_for_what_is_not_given(self):
        """Each setting of a layer is its own or the default; its sparse_config adds to the default one."""
        model = nn.Sequential(nn.Identity())
        defaults = {"aggregate_fn": _add, "reduce_fn": _mean, "mask_fn": _above, "features": [1, 2], "feature_dim": 1}
        own = {"aggregate_fn": torch.maximum, "reduce_fn": torch.sum, "mask_fn": _scale, "features": [3], "feature_dim": 0}
        for name, value in own.items():
            with self.subTest(own=name):
                sparsifier = ActivationSparsifier(model, **defaults, threshold=1, other=2)
                sparsifier.register_layer(model[0], **{name: value}, threshold=5, third=6)
                config = dict(sparsifier.data_groups["0"])
                config.pop("hook").remove()
                expected = {**defaults, name: value, "sparse_config": {"threshold": 5, "other": 2, "third": 6}}
                self.assertEqual(config, {**expected, "layer": model[0], "hook_state": "aggregate"})
                self.assertEqual(dict(sparsifier.defaults), {**defaults, "sparse_config": {"threshold": 1, "other": 2}})
        sparsifier = ActivationSparsifier(model, **defaults, threshold=[1])
        sparsifier.register_layer(model[0])
        config = sparsifier.data_groups["0"]
        for name, value in defaults.items():
            self.assertEqual(config[name], value)
        config["features"].append(7)
        config["sparse_config"]["threshold"].append(8)
        self.assertEqual(sparsifier.defaults["features"], [1, 2], "the layer's features are the default's")
        self.assertEqual(sparsifier.defaults["sparse_config"], {"threshold": [1]}, "the layer's config is the default's")

    def test_register_layer_takes_arguments_in_documented_order(self):
        """layer, aggregate_fn, reduce_fn, mask_fn, features, feature_dim."""
        model = nn.Sequential(nn.Identity())
        sparsifier = ActivationSparsifier(model)
        sparsifier.register_layer(model[0], _add, _mean, _above, [1], 2)
        config = sparsifier.data_groups["0"]
        names = ("aggregate_fn", "reduce_fn", "mask_fn", "features", "feature_dim", "sparse_config")
        self.assertEqual([config[name] for name in names], [_add, _mean, _above, [1], 2, {}])

    def test_register_layer_refuses_bad_settings(self):
        """The layer is part of the model, functions are callable, features need a feature_dim; a refusal leaves nothing."""
        functions = {"aggregate_fn": _add, "reduce_fn": _mean, "mask_fn": _above}
        cases = []
        for name in functions:
            cases += [({**functions, name: value}, f"^({value} must|function should) be callable$") for value in (None, "sum", 3)]
        cases += [({**functions, "features": features}, "^need feature dim to select features$") for features in ([0], [])]
        for settings, message in cases:
            with self.subTest(**settings):
                model = nn.Sequential(nn.Identity())
                sparsifier = ActivationSparsifier(model)
                with self.assertRaisesRegex(AssertionError, message):
                    sparsifier.register_layer(model[0], **settings)
                self.assertEqual((dict(sparsifier.data_groups), _hooks(model[0])), ({}, 0))
        stranger = nn.Identity()
        sparsifier = ActivationSparsifier(nn.Sequential(nn.Identity()), **functions)
        with self.assertRaisesRegex(AssertionError, "^layer not found in the model$"):
            sparsifier.register_layer(stranger)
        self.assertEqual((dict(sparsifier.data_groups), _hooks(stranger)), ({}, 0))

    def test_register_layer_again_replaces_the_registration(self):
        """A layer registered twice warns, keeps one hook, and starts afresh with the new settings."""
        sparsifier = _sparsifier(factor=1)
        model = sparsifier.model
        model(torch.ones(2, 3))
        with recorded_warnings() as caught:
            sparsifier.register_layer(model[0], factor=2)
        self.assertWarned(caught, "layer already attached to the sparsifier, deregistering the layer and registering with new config")
        self.assertEqual(_hooks(model[0]), 1)
        self.assertEqual(sparsifier.data_groups["0"]["sparse_config"], {"factor": 2})
        self.assertNotIn("data", sparsifier.data_groups["0"])
        with self.assertRaises(ValueError):
            sparsifier.get_mask("0")
        model(torch.ones(2, 3))
        sparsifier.step()
        self.assertEqual(sparsifier.get_mask("0"), torch.full((3,), 2.0))

    def test_register_layer_names_layers_by_their_path(self):
        """A layer's name is its fully qualified name in the model, that of the model itself is empty."""
        model = nn.ModuleDict({"block": nn.Sequential(nn.Identity(), nn.Identity()), "head": nn.Identity()})
        sparsifier = _sparsifier(model, layers=("block.1", "head", "block", ""))
        self.assertEqual(list(sparsifier.data_groups), ["block.1", "head", "block", ""])
        registered = [config["layer"] for config in sparsifier.data_groups.values()]
        self.assertEqual(registered, [model["block"][1], model["head"], model["block"], model])
        model["block"](torch.ones(2, 3))
        for name in ("block.1", "block"):
            self.assertEqual(sparsifier.get_mask(name).expand(2, 3), torch.ones(2, 3))
        self.assertEqual(_hooks(model["block"][0]), 0)

    def test_aggregation_leaves_model_and_input_alone(self):
        """While activations are aggregated, outputs and the caller's tensors are what they are without a sparsifier."""
        for settings in FEATURES:
            with self.subTest(**settings):
                model = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
                x = _inputs(1)[0]
                before, expected = x.clone(), model(x)
                _sparsifier(model, layers=("0", "1"), **settings)
                self.assertEqual(model(x), expected)
                self.assertEqual(x, before)

    def test_mode_of_the_model_changes_nothing(self):
        """The hooks see "model.forward()", in training, in evaluation and without gradients alike; and they leave the mode."""
        x = _inputs(1)[0]
        for training, grad in ((True, True), (False, True), (False, False)):
            with self.subTest(training=training, grad=grad), torch.set_grad_enabled(grad):
                sparsifier = _sparsifier(nn.Sequential(nn.Identity(), nn.Identity()).train(training))
                sparsifier.model(x)
                self.assertEqual(sparsifier.data_groups["0"]["data"], x)
                sparsifier.step()
                sparsifier.squash_mask()
                mask = sparsifier.get_mask("0")
                self.assertEqual(sparsifier.model[0](x), x * mask)
                self.assertLess(int(mask.count_nonzero()), mask.numel(), msg="the mask hides nothing")
                self.assertEqual([module.training for module in sparsifier.model.modules()], [training] * 3)

    def test_aggregation_equals_oracle(self):
        """Data are the activations of all forwards since the last step, for each feature; the mask is ones until a step."""
        for (settings, dtype), number in zip(CASES, (3, 1, 2, 3, 2, 1, 2, 3, 2, 3)):
            with self.subTest(**settings, dtype=dtype, forwards=number):
                sparsifier = _sparsifier(layers=("0", "1"), **settings)
                features, dim = _indices(settings.get("features")), settings.get("feature_dim")
                inputs = _inputs(number, (3, 3, 4), dtype)
                for x in inputs:
                    sparsifier.model(x)
                for name in ("0", "1"):
                    data, mask = sparsifier.data_groups[name]["data"], sparsifier.get_mask(name)
                    if features is None:
                        expected = activations.aggregate(_arrays(inputs), _add)
                    else:
                        expected = [activations.aggregate(_arrays(inputs), _add, feature, dim) for feature in features]
                    self.assertMasks(data, expected)
                    for ones, array in zip(mask, expected) if features else [(mask, expected)]:
                        self.assertEqual(ones.expand(array.shape), torch.ones(array.shape, dtype=dtype))
                    self.assertEqual({tensor.dtype for tensor in (data if features else [data])}, {dtype})

    def test_aggregation_of_unusual_inputs(self):
        """Strided, one-element and empty activations are aggregated as any others."""
        strided = torch.arange(24.0).reshape(4, 3, 2).permute(1, 2, 0)[:, :, ::2]
        for x in (strided, torch.tensor([[5.0]]), torch.zeros(0, 3)):
            with self.subTest(shape=tuple(x.shape)):
                sparsifier = _sparsifier()
                sparsifier.model(x)
                self.assertEqual(sparsifier.data_groups["0"]["data"], x)
                sparsifier = _sparsifier(features=[0], feature_dim=1)
                sparsifier.model(x)
                self.assertEqual(sparsifier.data_groups["0"]["data"], [x[:, :1]])

    def test_aggregation_takes_the_input_of_an_inplace_layer(self):
        """What is aggregated is a layer's input, before the layer overwrites it."""
        sparsifier = _sparsifier(nn.Sequential(nn.ReLU(inplace=True)))
        sparsifier.model(torch.tensor([[-1.0, 2.0]]))
        self.assertEqual(sparsifier.data_groups["0"]["data"], torch.tensor([[-1.0, 2.0]]))

    def test_aggregation_adds_the_inputs_of_a_layer_that_runs_twice(self):
        """A layer that a forward calls twice has two inputs, which are aggregated in their order."""
        shared = nn.Identity()
        sparsifier = _sparsifier(nn.Sequential(shared, nn.Softplus(), shared))
        x = torch.tensor([[0.0, 1.0]])
        sparsifier.model(x)
        self.assertEqual(sparsifier.data_groups["0"]["data"], x + nn.functional.softplus(x))

    def test_only_the_first_input_is_aggregated_and_masked(self):
        """A layer with several inputs is sparsified in its first one."""

        class First(nn.Module):
            def forward(self, first, second=None):
                return first

        for settings in ({}, {"features": [0, 1], "feature_dim": 1}):
            sparsifier = _sparsifier(First(), layers=("",), mask_fn=_above, threshold=1.0, **settings)
            first, second = torch.tensor([[1.0, 2.0]]), torch.full((1, 2), 7.0)
            sparsifier.model(first, second)
            data = sparsifier.data_groups[""]["data"]
            self.assertEqual(torch.cat(data, 1) if settings else data, first)
            sparsifier.step()
            sparsifier.squash_mask()
            self.assertEqual(sparsifier.model(first.clone(), second), torch.tensor([[0.0, 2.0]]))

    def test_aggregation_calls_the_function_with_data_and_activation(self):
        """aggregate_fn gets what is aggregated so far first and the new activation second."""
        seen = []

        def latest(so_far, new):
            seen.append((so_far, new))
            return new

        for settings, view in (({}, lambda x: x), ({"features": [1], "feature_dim": 1}, lambda x: x[:, 1:2])):
            seen.clear()
            sparsifier = _sparsifier(aggregate_fn=latest, **settings)
            first, second = torch.ones(2, 3), torch.full((2, 3), 7.0)
            sparsifier.model(first)
            sparsifier.model(second)
            self.assertEqual(seen[-1], (view(first), view(second)))

    def test_step_equals_oracle(self):
        """The mask is mask_fn(reduce_fn(aggregate)), for each feature, of the forwards since the last step."""
        for settings, dtype in FLOATING_CASES:
            with self.subTest(**settings, dtype=dtype):
                sparsifier = _sparsifier(layers=("0", "1"), factor=0.5, **settings)
                features, dim = _indices(settings.get("features")), settings.get("feature_dim")
                for inputs in (_inputs(2, (3, 3, 4), dtype), _inputs(3, (3, 3, 4), dtype)[1:]):
                    for x in inputs:
                        sparsifier.model(x)
                    self.assertIsNone(sparsifier.step())
                    expected = activations.masks(_arrays(inputs), _add, _mean, lambda data: data * 0.5, features, dim)
                    for name in ("0", "1"):
                        self.assertMasks(sparsifier.get_mask(name), expected)
                        self.assertNotIn("data", sparsifier.data_groups[name], "aggregated data are kept after step()")

    def test_step_calls_functions_once_a_mask_without_gradients(self):
        """reduce_fn and mask_fn run once a feature, without gradients, on data by position, mask_fn with the layer's sparse_config."""
        calls = []

        def reduce(data, /):
            calls.append(("reduce", tuple(data.shape), torch.is_grad_enabled()))
            return data.sum(0)

        def mask(data, /, **config):
            calls.append(("mask", tuple(data.shape), torch.is_grad_enabled(), config))
            return torch.ones_like(data)

        for settings, shape, number in (({}, (2, 3), 1), ({"features": [2, 0], "feature_dim": 1}, (2, 1), 2)):
            calls.clear()
            sparsifier = _sparsifier(reduce_fn=reduce, mask_fn=mask, level=3, **settings)
            sparsifier.model(torch.ones(2, 3, requires_grad=True))
            self.assertEqual(calls, [])
            sparsifier.step()
            expected = [("reduce", shape, False), ("mask", shape[1:], False, {"level": 3})] * number
            self.assertEqual(calls, expected)
            masks = sparsifier.get_mask("0")
            self.assertFalse(any(m.requires_grad for m in (masks if settings else [masks])))
        self.assertTrue(torch.is_grad_enabled())

    def test_step_leaves_the_gradient_mode(self):
        """The mode is the caller's: after step(), and after one that failed, gradients are on or off as before."""

        def broken(data):
            raise ZeroDivisionError

        for mode in (True, False):
            for mask_fn, errors in ((_scale, ()), (broken, ZeroDivisionError)):
                with self.subTest(mode=mode, broken=mask_fn is broken), torch.set_grad_enabled(mode):
                    sparsifier = _sparsifier(mask_fn=mask_fn)
                    sparsifier.model(torch.ones(2, 3))
                    with contextlib.suppress(errors):
                        sparsifier.step()
                    self.assertIs(torch.is_grad_enabled(), mode)

    def test_whole_life_draws_prints_and_warns_of_nothing(self):
        """The given functions decide the mask alone: no random number is drawn; as nothing is verbose, nothing is printed or warned of."""
        state = torch.get_rng_state()
        with recorded_warnings() as caught, contextlib.redirect_stdout(io.StringIO()) as out:
            sparsifier = _sparsifier()
            sparsifier.model(torch.ones(2, 3))
            sparsifier.step()
            sparsifier.squash_mask()
            sparsifier.model(torch.ones(2, 3))
        self.assertTrue(torch.equal(torch.get_rng_state(), state), "random numbers were drawn")
        self.assertEqual(([str(warning.message) for warning in caught], out.getvalue()), ([], ""))

    def test_hooks_run_after_those_that_were_there(self):
        """Class docstring: the mask is of the input before it goes through the layer: what a pre-hook from before made of it."""
        model = nn.Sequential(nn.Identity())
        model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        sparsifier = _sparsifier(model)
        model(torch.ones(2, 3))
        self.assertEqual(sparsifier.data_groups["0"]["data"], torch.full((2, 3), 2.0), "aggregated")
        sparsifier.get_mask("0").data.zero_()
        sparsifier.squash_mask()
        self.assertEqual(model(torch.ones(2, 3)), torch.zeros(2, 3), "sparsified")

    def test_step_follows_each_layer_s_own_settings(self):
        """Functions, features and config of one layer do not reach another."""
        sparsifier = _sparsifier(layers=())
        model = sparsifier.model
        sparsifier.register_layer(model[0], aggregate_fn=torch.mul, reduce_fn=lambda x: x.sum(1), factor=10)
        sparsifier.register_layer(model[1], features=[1], feature_dim=0, mask_fn=_above, threshold=1.0)
        x = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]])
        model(x)
        model(x)
        self.assertEqual(sparsifier.data_groups["1"]["data"], [x[1:] * 2])
        sparsifier.step()
        self.assertEqual(sparsifier.get_mask("1"), [torch.tensor([1.0, 1.0, 0.0])])
        self.assertEqual(sparsifier.get_mask("0").shape, (2,))

    def test_squash_mask_equals_oracle(self):
        """After squash_mask() the layer sees its input times the mask, at another batch size too."""
        for settings, dtype in FLOATING_CASES:
            if settings.get("feature_dim") == 0:
                continue
            with self.subTest(**settings, dtype=dtype):
                sparsifier = _sparsifier(**settings)
                features, dim = _indices(settings.get("features")), settings.get("feature_dim")
                inputs = _inputs(2, (2, 3, 4), dtype)
                for x in inputs:
                    sparsifier.model(x)
                sparsifier.step()
                mask = activations.masks(_arrays(inputs), _add, _mean, lambda data: data, features, dim)
                self.assertIsNone(sparsifier.squash_mask())
                for batch in (2, 5, 1):
                    x = _inputs(1, (batch, 3, 4), dtype)[0]
                    expected = torch.as_tensor(activations.sparsified(_arrays(x), mask, features, dim))
                    self.assertEqual(sparsifier.model(x.clone()), expected)

    def test_squash_mask_of_features_along_the_first_dimension(self):
        """feature_dim=0 selects rows, each with a mask of its own."""
        sparsifier = _sparsifier(features=[1, 0], feature_dim=0, mask_fn=_above, threshold=2.0)
        x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 2.5], [1.0, 1.0, 1.0]])
        sparsifier.model(x)
        sparsifier.step()
        self.assertEqual(sparsifier.get_mask("0"), [torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0])])
        sparsifier.squash_mask()
        self.assertEqual(sparsifier.model(x.clone()), torch.tensor([[0.0, 0.0, 3.0], [4.0, 0.0, 2.5], [1.0, 1.0, 1.0]]))

    def test_squash_mask_leaves_the_input_and_passes_gradients(self):
        """Without features the caller's tensor is not written to, and its gradient is the mask."""
        sparsifier = _sparsifier(mask_fn=_above, threshold=1.0)
        x = torch.tensor([[1.0, 2.0], [0.0, 3.0]], requires_grad=True)
        sparsifier.model(x)
        sparsifier.step()
        sparsifier.squash_mask()
        sparsifier.model(x).sum().backward()
        self.assertEqual(x, torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        self.assertEqual(x.grad, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    def test_squash_mask_without_hook_leaves_the_model_dense(self):
        """attach_sparsify_hook=False only ends the aggregation: no hook, no sparsified activation, the mask is kept."""
        for arguments, named in (((False,), {}), ((), {"attach_sparsify_hook": False, "unknown": 1})):
            sparsifier = _sparsifier(mask_fn=_above, threshold=1e9)
            x = torch.ones(2, 3)
            sparsifier.model(x)
            sparsifier.step()
            sparsifier.squash_mask(*arguments, **named)
            self.assertEqual(_hooks(sparsifier.model[0]), 0)
            self.assertEqual(sparsifier.model(x), x)
            self.assertEqual(sparsifier.get_mask("0"), torch.zeros(3))
            self.assertIsNone(sparsifier.data_groups["0"].get("hook"))
        sparsifier = _sparsifier()
        sparsifier.squash_mask(attach_sparsify_hook=False)
        self.assertEqual(_hooks(sparsifier.model[0]), 0, "hooks of a layer that has not run and needs no mask")

    def test_hooks_at_every_stage(self):
        """A registered layer has one hook of the sparsifier's, whatever its stage; the user's hooks stay, in order."""
        order = []
        model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())
        model[0].register_forward_pre_hook(lambda module, args: order.append("before"))
        sparsifier = _sparsifier(model, layers=("0", "1"), mask_fn=lambda data: order.append("mask") or torch.zeros_like(data))
        model[0].register_forward_pre_hook(lambda module, args: order.append("after"))

        def hooks_and_states():
            states = [config["hook_state"] for config in sparsifier.data_groups.values()]
            return [_hooks(module) for module in model], states

        self.assertEqual(hooks_and_states(), ([3, 1, 0], ["aggregate"] * 2))
        model(torch.ones(2, 3))
        sparsifier.step()
        self.assertEqual(hooks_and_states(), ([3, 1, 0], ["aggregate"] * 2))
        sparsifier.squash_mask()
        self.assertEqual(hooks_and_states(), ([3, 1, 0], ["sparsify"] * 2))
        sparsifier.squash_mask()
        self.assertEqual(hooks_and_states(), ([3, 1, 0], ["sparsify"] * 2))
        settings = {"aggregate_fn", "reduce_fn", "mask_fn", "features", "feature_dim", "sparse_config"}
        self.assertEqual(set(sparsifier.data_groups["0"]), {*settings, "layer", "hook", "hook_state"})
        order.clear()
        self.assertEqual(model(torch.ones(2, 3)), torch.zeros(2, 3))
        self.assertEqual(order, ["before", "after"])
        sparsifier.unregister_layer("0")
        self.assertEqual(hooks_and_states(), ([2, 1, 0], ["sparsify"]))
        sparsifier.unregister_layer(name="1")
        self.assertEqual(hooks_and_states(), ([2, 0, 0], []))
        self.assertEqual(model(torch.ones(2, 3)), torch.ones(2, 3))

    def test_unregister_layer_forgets_the_layer(self):
        """An unregistered layer has neither hook nor mask nor config; the others keep theirs."""
        sparsifier = _sparsifier(layers=("0", "1"))
        model = sparsifier.model
        model(torch.ones(2, 3))
        sparsifier.unregister_layer("0")
        self.assertEqual((list(sparsifier.data_groups), list(sparsifier.state)), (["1"], ["1"]))
        self.assertEqual((_hooks(model[0]), _hooks(model[1])), (0, 1))
        with self.assertRaisesRegex(ValueError, "not found"):
            sparsifier.get_mask("0")
        model(torch.full((2, 3), 2.0))
        sparsifier.step()
        self.assertEqual(sparsifier.get_mask("1"), torch.full((3,), 3.0))
        sparsifier.register_layer(model[0])
        self.assertEqual(_hooks(model[0]), 1)

    def test_get_mask_by_name_or_layer(self):
        """Name and layer find the same tensor; a name given with a layer decides."""
        for settings in ({}, {"features": [0], "feature_dim": 1}):
            sparsifier = _sparsifier(layers=("0", "1"), **settings)
            first, second = sparsifier.model
            sparsifier.model(torch.ones(2, 3))
            self.assertIs(sparsifier.get_mask("0"), sparsifier.get_mask(layer=first))
            self.assertIs(sparsifier.get_mask(name="1"), sparsifier.get_mask(layer=second))
            self.assertIs(sparsifier.get_mask("0", second), sparsifier.get_mask(layer=first))
            self.assertIsNot(sparsifier.get_mask("0"), sparsifier.get_mask("1"))

    def test_get_mask_of_the_model_and_of_an_empty_layer(self):
        """A layer is found by itself where its name is empty, as that of the model is, and where it is false, having no modules."""
        for model, name in ((nn.Identity(), ""), (nn.Sequential(nn.Sequential()), "0")):
            with self.subTest(name=name):
                sparsifier = _sparsifier(model, layers=(name,))
                model(torch.ones(2, 3))
                self.assertIs(sparsifier.get_mask(layer=model.get_submodule(name)), sparsifier.get_mask(name))

    def test_get_mask_errors(self):
        """Nothing given, a layer or name that is not there, a layer that is not registered, one that has not run."""
        sparsifier = _sparsifier()
        cases = (
            ({}, AssertionError, "Need at least name or layer obj to retrieve mask"),
            ({"layer": nn.Identity()}, AssertionError, "layer not found in the specified model"),
            ({"name": "nowhere"}, ValueError, "Error: layer with the given name not found"),
            ({"layer": sparsifier.model[1]}, ValueError, "Error: layer with the given name not found"),
            ({"name": "0"}, ValueError, "Error: shape unknown, call layer() routine at least once to infer mask"),
            ({"layer": sparsifier.model[0]}, ValueError, "Error: shape unknown, call layer() routine at least once to infer mask"),
        )
        for arguments, error, message in cases:
            with self.subTest(**arguments), self.assertRaisesRegex(error, f"^{re.escape(message)}$"):
                sparsifier.get_mask(**arguments)
        self.assertEqual((list(sparsifier.state), list(sparsifier.data_groups)), (["0"], ["0"]))

    def _at(self, stage, model, **settings):
        """A sparsifier over both layers of ``model``, taken to ``stage``."""
        sparsifier = _sparsifier(model, layers=("0", "1"), **settings)
        if stage != "registered":
            model(torch.arange(6.0).reshape(2, 3))
        if stage in ("stepped", "squashed"):
            sparsifier.step()
        if stage == "squashed":
            sparsifier.squash_mask()
        return sparsifier

    def test_state_dict_holds_masks_groups_and_defaults(self):
        """At each stage: sparse masks, each layer's config without hook and layer, the defaults; the sparsifier is as before."""
        for stage in ("registered", "aggregated", "stepped", "squashed"):
            for settings in ({}, {"features": [2, 0], "feature_dim": 1}):
                with self.subTest(stage=stage, **settings):
                    sparsifier = self._at(stage, nn.Sequential(nn.Identity(), nn.Identity()), **settings)
                    state = sparsifier.state_dict()
                    self.assertEqual(list(state), ["state", "data_groups", "defaults"])
                    self.assertEqual(_plain(state["defaults"]), _plain(sparsifier.defaults))
                    for name in ("0", "1"):
                        self.assertEqual(_plain(state["data_groups"][name]), _plain(sparsifier.data_groups[name]))
                        self.assertNotIn("hook", state["data_groups"][name])
                        self.assertNotIn("layer", state["data_groups"][name])
                        saved = state["state"][name]["mask"]
                        if stage == "registered":
                            self.assertIsNone(saved)
                            continue
                        own = sparsifier.get_mask(name)
                        pairs = list(zip(saved, own)) if settings else [(saved, own)]
                        self.assertEqual(len(pairs), 2 if settings else 1)
                        for sparse, dense in pairs:
                            self.assertEqual((sparse.layout, dense.layout), (torch.sparse_coo, torch.strided))
                            self.assertEqual(sparse.to_dense(), dense)
                    serialized = getattr(sparsifier, "__get_state__", sparsifier.state_dict)()
                    self.assertEqual(sorted(serialized), ["data_groups", "defaults", "state"])
                    for name, saved in serialized["state"].items():
                        again = state["state"][name]["mask"]
                        for one, other in zip(saved["mask"], again) if settings and again else [(saved["mask"], again)]:
                            self.assertEqual(one, other)
                    for name, config in serialized["data_groups"].items():
                        self.assertEqual(_plain(config), _plain(state["data_groups"][name]))
                    self.assertEqual(_plain(serialized["defaults"]), _plain(state["defaults"]))

    def test_load_state_dict_continues_at_every_stage(self):
        """A sparsifier restored at any stage ends with the masks and outputs of the original; each layer has one hook."""
        for stage in ("registered", "aggregated", "stepped", "squashed"):
            for settings in ({}, {"features": [2, 0], "feature_dim": 1}):
                with self.subTest(stage=stage, **settings):
                    original = self._at(stage, nn.Sequential(nn.Identity(), nn.Identity()), factor=3.0, **settings)
                    state = original.state_dict()
                    if settings:
                        file = io.BytesIO()
                        torch.save(state, file)
                        file.seek(0)
                        state = torch.load(file, weights_only=False)
                    restored = ActivationSparsifier(nn.Sequential(nn.Identity(), nn.Identity()), **_functions())
                    restored.load_state_dict(copy.deepcopy(state))
                    self.assertEqual([_hooks(module) for module in restored.model], [1, 1])
                    self.assertEqual(_plain(restored.defaults), _plain(original.defaults))
                    for name in ("0", "1"):
                        functions = {key: restored.data_groups[name].get(key, restored.defaults[key]) for key in _functions()}
                        self.assertEqual(functions, {key: original.data_groups[name][key] for key in functions})
                    x = torch.tensor([[1.0, -2.0, 3.0]] * 2)
                    for sparsifier in (original, restored):
                        if stage != "squashed":
                            sparsifier.model(x)
                            sparsifier.step()
                            sparsifier.squash_mask()
                    for name in ("0", "1"):
                        self.assertEqual(restored.get_mask(name), original.get_mask(name))
                        self.assertIs(restored.data_groups[name]["layer"], restored.model.get_submodule(name))
                    self.assertEqual(restored.model(x.clone()), original.model(x.clone()))
                    for name in ("0", "1"):
                        restored.unregister_layer(name)
                    self.assertEqual([_hooks(module) for module in restored.model], [0, 0])

    def test_load_state_dict_keeps_masks_dense(self):
        """The masks of a restored sparsifier are dense, those in the given state stay sparse."""
        for settings in ({}, {"features": [2, 0], "feature_dim": 1}):
            state = self._at("stepped", nn.Sequential(nn.Identity(), nn.Identity()), **settings).state_dict()
            restored = ActivationSparsifier(nn.Sequential(nn.Identity(), nn.Identity()))
            self.assertIsNone(restored.load_state_dict(state))
            mask, given = restored.get_mask("0"), state["state"]["0"]["mask"]
            for dense, sparse in zip(mask, given) if settings else [(mask, given)]:
                self.assertEqual((dense.layout, sparse.layout), (torch.strided, torch.sparse_coo))

    def test_load_state_dict_refuses_a_layer_that_the_model_lacks(self):
        """Loading is strict: each layer of the state is in the model."""
        state = self._at("stepped", nn.Sequential(nn.Identity(), nn.Identity())).state_dict()
        with self.assertRaisesRegex(AssertionError, "^layer 1 not found in the model$"):
            ActivationSparsifier(nn.Sequential(nn.Identity())).load_state_dict(state)

    def test_repr_shows_each_layer_s_settings(self):
        """repr names the class and, for each layer, name and settings, without functions, data and hook."""
        sparsifier = _sparsifier(layers=("1",), features=[0], feature_dim=1, factor=2)
        sparsifier.register_layer(sparsifier.model[0])
        sparsifier.model(torch.ones(2, 3))
        self.assertExpectedInline(
            repr(sparsifier).replace("\t", "|"),
            """\
ActivationSparsifier (
|Data Group
|    name: 1
|    feature_dim: 1
|    features: [0]
|    hook_state: aggregate
|    layer: Identity()
|    sparse_config: {'factor': 2}

|Data Group
|    name: 0
|    feature_dim: None
|    features: None
|    hook_state: aggregate
|    layer: Identity()
|    sparse_config: {}
)""",
        )

    def test_sparsifier_is_freed_without_gc(self):
        """Once its masks are squashed or its layers unregistered, the model does not keep the sparsifier."""
        for finish in (lambda s: s.squash_mask(), lambda s: s.squash_mask(False), lambda s: s.unregister_layer("0")):
            with without_gc():
                sparsifier = _sparsifier()
                model = sparsifier.model
                model(torch.ones(2, 3))
                sparsifier.step()
                finish(sparsifier)
                ref = weakref.ref(sparsifier)
                del sparsifier
                self.assertIsNone(ref())
            model(torch.ones(2, 3))

    def test_features_are_selected_on_the_device_of_the_activation(self):
        """Aggregating and sparsifying, the index of a feature is on the activation's device, seen without values on meta."""
        aggregating = _sparsifier(features=[1], feature_dim=1)
        sparsifying = _sparsifier(features=[1], feature_dim=1)
        sparsifying.model(torch.ones(2, 3))
        sparsifying.step()
        sparsifying.squash_mask()
        for sparsifier in (aggregating, sparsifying):
            with _FirstPair() as pair, self.assertRaises(_FirstPair.Seen):
                sparsifier.model(torch.ones(2, 3, device="meta"))
            self.assertEqual(pair.devices, ["meta", "meta"], "devices of the activation and of the index")

    @known_defect("activation-aggregate-starts-from-zeros")
    def test_aggregation_starts_from_the_first_activation(self):
        """aggregate_fn combines activations, and nothing else: the maximum of negative activations is negative."""
        found = []
        for settings in ({}, {"features": [0], "feature_dim": 1}):
            sparsifier = _sparsifier(aggregate_fn=torch.maximum, **settings)
            for value in (-2.0, -3.0):
                sparsifier.model(torch.full((2, 1), value))
            data = sparsifier.data_groups["0"]["data"]
            found.append((data[0] if settings else data).flatten().tolist())
        self.assertEqual(f"maxima {found}", "maxima [[-2.0, -2.0], [-2.0, -2.0]]")

    @known_defect("activation-feature-lists-crash")
    def test_aggregation_takes_a_list_as_a_feature(self):
        """A feature is a scalar or a list of indices, whose slices are aggregated, and masked, together."""
        sparsifier = _sparsifier(features=[[0, 2], [1]], feature_dim=1)
        x = torch.tensor([[1.0, 2.0, 3.0]])
        sparsifier.model(x)
        self.assertEqual(sparsifier.data_groups["0"]["data"], [x[:, ::2], x[:, 1:2]], "aggregated slices")
        sparsifier.step()
        sparsifier.squash_mask()
        self.assertEqual(sparsifier.model(x.clone()), x * x, "masked by the values themselves")

    @known_defect("activation-aggregate-keeps-the-autograd-graph")
    def test_aggregation_keeps_no_graph(self):
        """Data that step() reads without gradients hold no autograd graph, which would grow with every forward."""
        layer = nn.Linear(3, 3)
        sparsifier = _sparsifier(nn.Sequential(layer, nn.Identity()), layers=("1",))
        for _ in range(2):
            sparsifier.model(torch.ones(2, 3)).sum().backward()
        self.assertEqual(f"graph: {type(sparsifier.data_groups['1']['data'].grad_fn).__name__}", "graph: NoneType")

    @known_defect("activation-feature-index-rounded-when-aggregating")
    def test_aggregation_selects_any_index_in_any_default_dtype(self):
        """A feature is an integer index, whatever the default dtype of new tensors is."""
        sparsifier = _sparsifier(features=[257], feature_dim=0)
        with _default_dtype(torch.bfloat16):
            sparsifier.model(torch.arange(300.0, dtype=torch.float32))
        self.assertEqual(f"aggregated {[data.tolist() for data in sparsifier.data_groups['0']['data']]}", "aggregated [[257.0]]")

    @known_defect("activation-feature-index-rounded-when-sparsifying")
    def test_squash_mask_writes_to_any_index_in_any_default_dtype(self):
        """A feature is an integer index, whatever the default dtype of new tensors is."""
        sparsifier = _sparsifier(features=[257], feature_dim=0, mask_fn=_above, threshold=1e9)
        sparsifier.model(torch.ones(300))
        sparsifier.step()
        sparsifier.squash_mask()
        with _default_dtype(torch.bfloat16):
            masked = sparsifier.model(torch.ones(300))
        self.assertEqual(f"sparsified {(masked == 0).nonzero().flatten().tolist()}", "sparsified [257]")

    @known_defect("activation-inference-mode-mask-cannot-be-updated")
    def test_aggregation_under_inference_mode(self):
        """Activations may be collected in inference mode; the mask is updated and used outside of it."""
        for settings in ({}, {"features": [0, 1], "feature_dim": 1}):
            sparsifier = _sparsifier(mask_fn=_above, threshold=1.0, **settings)
            with torch.inference_mode():
                sparsifier.model(torch.tensor([[1.0, 2.0]]))
            sparsifier.step()
            sparsifier.squash_mask()
            x = torch.tensor([[1.0, 2.0]], requires_grad=True)
            sparsifier.model(x * 1).sum().backward()
            self.assertEqual(x.grad, torch.tensor([[0.0, 1.0]]))

    @known_defect("activation-hook-needs-a-positional-input")
    def test_registered_layer_may_be_called_by_keyword(self):
        """A call that is valid without the sparsifier stays valid, at every stage: input is a keyword of nn.Linear."""

        class Scaled(nn.Linear):
            def forward(self, input, *, scale=1.0):
                return super().forward(input) * scale

        x, kept = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 2.0]])
        model = nn.Sequential(Scaled(2, 2))
        expected, masked = model[0](x, scale=3.0), model[0](kept, scale=3.0)
        sparsifier = _sparsifier(model, mask_fn=_above, threshold=1.0)
        for stage in ("registered", "loaded"):
            self.assertEqual(model[0](input=x, scale=3.0), expected, stage)
            self.assertEqual(sparsifier.data_groups["0"]["data"], x, stage)
            if stage == "registered":
                sparsifier.step()
                sparsifier.unregister_layer("0")
                sparsifier.register_layer(model[0], threshold=1.0)
                state = sparsifier.state_dict()
                sparsifier.unregister_layer("0")
                sparsifier.load_state_dict(state)
        sparsifier.step()
        sparsifier.squash_mask()
        for stage in ("squashed", "loaded"):
            self.assertEqual(model[0](input=x, scale=3.0), masked, stage)
            state = sparsifier.state_dict()
            sparsifier.unregister_layer("0")
            sparsifier.load_state_dict(state)

    @known_defect("activation-forward-after-step-erases-the-mask")
    def test_forward_after_step_keeps_the_mask(self):
        """A step computes the mask; a forward afterwards, to validate say, does not undo it."""
        for settings in ({}, {"features": [0, 1], "feature_dim": 1}):
            sparsifier = _sparsifier(mask_fn=_above, threshold=1.0, **settings)
            sparsifier.model(torch.tensor([[1.0, 2.0]]))
            sparsifier.step()
            sparsifier.model(torch.tensor([[1.0, 2.0]]))
            mask = sparsifier.get_mask("0")
            self.assertEqual(f"mask {(torch.cat(mask) if settings else mask).tolist()}", "mask [0.0, 1.0]")

    @known_defect("activation-step-needs-every-layer-to-have-run")
    def test_step_leaves_a_layer_that_did_not_run(self):
        """A registered layer that saw nothing since the last step keeps its mask; the others get theirs."""
        sparsifier = _sparsifier(layers=("0", "1"))
        sparsifier.model(torch.ones(1, 2))
        sparsifier.step()
        sparsifier.model[1](torch.full((1, 2), 5.0))
        sparsifier.step()
        self.assertEqual([sparsifier.get_mask(name) for name in ("0", "1")], [torch.ones(2), torch.full((2,), 5.0)])

    @known_defect("activation-refused-registration-loses-the-layer")
    def test_register_layer_refused_keeps_the_earlier_registration(self):
        """Settings that are refused change nothing: the layer stays registered as it was."""
        sparsifier = _sparsifier()
        with recorded_warnings(), self.assertRaises(AssertionError):
            sparsifier.register_layer(sparsifier.model[0], features=[0])
        self.assertEqual(f"layers {list(sparsifier.data_groups)}, hooks {_hooks(sparsifier.model[0])}", "layers ['0'], hooks 1")
        with recorded_warnings():
            sparsifier.register_layer(sparsifier.model[0], features=[0], feature_dim=1)
        self.assertEqual((_hooks(sparsifier.model[0]), sparsifier.data_groups["0"]["features"]), (1, [0]))

    @known_defect("activation-functions-must-be-copyable")
    def test_register_layer_uses_the_default_functions_themselves(self):
        """A default function is called as it is, like one given for the layer, also where it cannot be copied."""
        sparsifier = ActivationSparsifier(nn.Sequential(nn.Identity()), **{**_functions(), "aggregate_fn": _WithLock()})
        sparsifier.register_layer(sparsifier.model[0])
        self.assertIs(sparsifier.data_groups["0"]["aggregate_fn"], sparsifier.defaults["aggregate_fn"])

    @known_defect("activation-unregister-of-unknown-name-adds-a-group")
    def test_unregister_layer_refuses_an_unknown_name(self):
        """A name that is not registered is refused, and is not registered by that."""
        sparsifier = _sparsifier()
        with self.assertRaises((KeyError, ValueError, AssertionError)):
            sparsifier.unregister_layer("nowhere")
        self.assertEqual(f"layers {list(sparsifier.data_groups)}", "layers ['0']")

    @known_defect("activation-sparsify-writes-into-the-input")
    def test_squash_mask_of_features_leaves_the_input(self):
        """The layer gets a new, masked input; the caller's tensor, which a residual branch may use, is not written to."""
        sparsifier = _sparsifier(features=[0], feature_dim=1, mask_fn=_above, threshold=1e9)
        x = torch.ones(1, 2)
        sparsifier.model(x)
        sparsifier.step()
        sparsifier.squash_mask()
        self.assertEqual(sparsifier.model(x), torch.tensor([[0.0, 1.0]]))
        self.assertEqual(f"input {x.tolist()}", "input [[1.0, 1.0]]")

    @known_defect("activation-sparsify-breaks-backward")
    def test_squash_mask_of_features_passes_gradients(self):
        """Training goes on after squash_mask(): the gradient of a masked feature is zero, that of the others is as before."""
        model = nn.Sequential(nn.Sigmoid(), nn.Identity())
        sparsifier = _sparsifier(model, layers=("1",), features=[0], feature_dim=1, mask_fn=_above, threshold=1e9)
        x = torch.zeros(1, 2, requires_grad=True)
        sparsifier.model(x)
        sparsifier.step()
        sparsifier.squash_mask()
        sparsifier.model(x).sum().backward()
        self.assertEqual(x.grad, torch.tensor([[0.0, 0.25]]))

    @known_defect("activation-sparsify-drops-further-inputs")
    def test_squash_mask_passes_on_further_inputs(self):
        """Only the first input is masked, with and without features: a recurrent cell still gets its hidden state."""
        outcomes = []
        for settings in ({"features": [0, 1], "feature_dim": 1}, {}):
            cell = nn.RNNCell(2, 2)
            x, masked, hidden = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 2.0]]), torch.full((1, 2), 3.0)
            expected, without = cell(masked, hidden), cell(masked)
            sparsifier = _sparsifier(cell, layers=("",), mask_fn=_above, threshold=1.0, **settings)
            cell(x, hidden)
            sparsifier.step()
            sparsifier.squash_mask()
            found = cell(x, hidden)
            outcomes.append(
                "with its hidden state" if torch.equal(found, expected) else "without" if torch.equal(found, without) else f"{found}"
            )
        self.assertEqual(f"cell ran {', '.join(outcomes)}", "cell ran with its hidden state, with its hidden state")

    @known_defect("activation-mask-changes-the-input-s-dtype")
    def test_squash_mask_keeps_the_dtype_of_the_input(self):
        """A masked activation has the dtype of the activation, whatever that of the mask is, with and without features."""
        found = []
        for settings in ({}, {"features": [0], "feature_dim": 1}):
            sparsifier = _sparsifier(mask_fn=lambda data: torch.ones(data.shape), **settings)
            x = torch.ones(1, 2, dtype=torch.bfloat16)
            sparsifier.model(x)
            sparsifier.step()
            sparsifier.squash_mask()
            try:
                found.append(str(sparsifier.model(x).dtype))
            except RuntimeError as error:
                found.append(type(error).__name__)
        self.assertEqual(str(found), "['torch.bfloat16', 'torch.bfloat16']")

    @known_defect("activation-mask-stays-on-the-old-device")
    def test_squash_mask_follows_the_model_to_another_device(self):
        """A model that moves takes its masks along, seen without values on meta."""
        sparsifier = _sparsifier()
        sparsifier.model(torch.ones(1, 2))
        sparsifier.step()
        sparsifier.squash_mask()
        sparsifier.model.to("meta")
        with _FirstPair() as pair, self.assertRaises(_FirstPair.Seen):
            sparsifier.model(torch.ones(1, 2, device="meta"))
        self.assertEqual(f"activation and mask on {pair.devices}", "activation and mask on ['meta', 'meta']")

    @known_defect("activation-mask-of-ones-keeps-the-batch-size")
    def test_squash_mask_before_any_step_keeps_everything(self):
        """Without a step nothing is masked, whatever the size of the next batch."""
        for settings in ({}, {"features": [2, 0], "feature_dim": 1}):
            sparsifier = _sparsifier(**settings)
            sparsifier.model(torch.ones(4, 3, dtype=torch.float64))
            sparsifier.squash_mask()
            self.assertEqual(sparsifier.model(torch.ones(2, 3, dtype=torch.float64)), torch.ones(2, 3, dtype=torch.float64))

    def test_squash_mask_refused_tells_which_hook_there_is(self):
        """Also after squash_mask() was refused a layer's hook_state is "aggregate" where it has the hook, and "None" where not."""
        sparsifier = _sparsifier()
        with self.assertRaises(ValueError):
            sparsifier.squash_mask()
        found = sparsifier.data_groups["0"]["hook_state"], _hooks(sparsifier.model[0])
        self.assertIn(found, (("aggregate", 1), ("None", 0), (None, 0)))

    @known_defect("activation-refused-squash-removes-the-hooks")
    def test_squash_mask_refused_keeps_the_hooks(self):
        """squash_mask() before a layer's first forward asks for one; after it, it works."""
        sparsifier = _sparsifier(layers=("0", "1"))
        sparsifier.model[0](torch.ones(1, 2))
        with self.assertRaisesRegex(ValueError, "call layer"):
            sparsifier.squash_mask()
        self.assertEqual(f"hooks {_hooks(sparsifier.model[1])}", "hooks 1")
        self.assertEqual([config["hook_state"] for config in sparsifier.data_groups.values()], ["aggregate", "aggregate"])
        sparsifier.model(torch.ones(1, 2))
        sparsifier.squash_mask()

    @known_defect("activation-squash-keeps-the-aggregated-data")
    def test_squash_mask_drops_what_was_aggregated(self):
        """After the last step nothing reads aggregated activations: squash_mask() keeps none, nor does a saved state."""
        sparsifier = _sparsifier(layers=("0", "1"))
        sparsifier.model(torch.ones(1, 2))
        sparsifier.step()
        sparsifier.model[0](torch.ones(1, 2))
        sparsifier.squash_mask()
        self.assertEqual(f"kept {sparsifier.data_groups['0'].get('data')}", "kept None")
        self.assertEqual(sparsifier.model(torch.ones(1, 2)), torch.ones(1, 2))

    @known_defect("activation-squash-again-after-dense-squash-crashes")
    def test_squash_mask_with_hook_after_squash_mask_without(self):
        """What was squashed without a hook can be given one later."""
        sparsifier = _sparsifier(mask_fn=_above, threshold=1e9)
        sparsifier.model(torch.ones(1, 2))
        sparsifier.step()
        sparsifier.squash_mask(attach_sparsify_hook=False)
        sparsifier.squash_mask()
        self.assertEqual(sparsifier.model(torch.ones(1, 2)), torch.zeros(1, 2))

    @known_defect("activation-unregister-after-dense-squash-crashes")
    def test_unregister_layer_after_squash_mask_without_hook(self):
        """A layer without a hook can be unregistered as well."""
        sparsifier = _sparsifier()
        sparsifier.model(torch.ones(1, 2))
        sparsifier.squash_mask(attach_sparsify_hook=False)
        sparsifier.unregister_layer("0")
        self.assertEqual((list(sparsifier.data_groups), list(sparsifier.state)), ([], []))

    @known_defect("activation-dense-squash-is-saved-as-sparsify")
    def test_state_dict_after_squash_mask_without_hook(self):
        """A layer without a sparsify hook is not saved as one that has it: restored, the model would sparsify."""
        sparsifier = _sparsifier()
        sparsifier.model(torch.ones(1, 2))
        sparsifier.squash_mask(attach_sparsify_hook=False)
        self.assertIn(sparsifier.state_dict()["data_groups"]["0"]["hook_state"], ("None", None))

    def test_load_state_dict_of_a_second_layer_without_hook(self):
        """A layer without a saved hook state, or with None, gets no hook behind one that has it, whatever that one's is."""
        for stage in ("stepped", "squashed"):
            for saved in ({}, {"hook_state": "None"}):
                with self.subTest(stage=stage, saved=saved):
                    state = self._at(stage, nn.Sequential(nn.Identity(), nn.Identity())).state_dict()
                    del state["data_groups"]["1"]["hook_state"]
                    state["data_groups"]["1"].update(saved)
                    restored = ActivationSparsifier(nn.Sequential(nn.Identity(), nn.Identity()))
                    restored.load_state_dict(state)
                    self.assertEqual([_hooks(module) for module in restored.model], [1, 0])

    @known_defect("activation-load-of-a-layer-without-hook-crashes")
    def test_load_state_dict_of_a_layer_without_hook(self):
        """A layer whose hook state is not saved, or is None, which squash_mask() sets, gets no hook, not even another one's."""
        model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())
        state = _sparsifier(model, layers=("0", "1", "2")).state_dict()
        del state["data_groups"]["0"]["hook_state"]
        state["data_groups"]["2"]["hook_state"] = "None"
        restored = ActivationSparsifier(nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity()), **_functions())
        restored.load_state_dict(state)
        self.assertEqual([_hooks(module) for module in restored.model], [0, 1, 0])
        self.assertEqual([config.get("hook") is None for config in restored.data_groups.values()], [True, False, True])

    @known_defect("activation-load-keeps-the-old-hooks")
    def test_load_state_dict_into_a_registered_sparsifier(self):
        """Loading its own state goes back to it, whatever came in between: one hook a layer, each activation aggregated once."""
        for squash in (None, {"attach_sparsify_hook": True}, {"attach_sparsify_hook": False}):
            sparsifier = _sparsifier(layers=("0", "1"))
            state = sparsifier.state_dict()
            if squash is not None:
                sparsifier.model(torch.ones(1, 2))
                sparsifier.squash_mask(**squash)
            sparsifier.load_state_dict(state)
            sparsifier.model(torch.ones(1, 2))
            for name in ("0", "1"):
                found = _hooks(sparsifier.model[int(name)]), sparsifier.data_groups[name]["data"].tolist()
                self.assertEqual(f"hooks and data {found}", "hooks and data (1, [[1.0, 1.0]])")

    @known_defect("activation-load-writes-into-the-given-state")
    def test_load_state_dict_leaves_the_given_state(self):
        """The caller's dictionary holds after loading what it held before, no layer and no hook."""
        state = _sparsifier().state_dict()
        before = set(state["data_groups"]["0"])
        ActivationSparsifier(nn.Sequential(nn.Identity())).load_state_dict(state)
        self.assertEqual(f"added {sorted(set(state['data_groups']['0']) - before)}", "added []")

    @known_defect("activation-restored-sparsifiers-share-their-state")
    def test_load_state_dict_shares_nothing_with_the_original(self):
        """A restored sparsifier is on its own: running its model changes nothing in the sparsifier that was saved."""
        original = _sparsifier(features=[0], feature_dim=1)
        original.model(torch.ones(1, 2))
        restored = ActivationSparsifier(nn.Sequential(nn.Identity()), **_functions())
        restored.load_state_dict(original.state_dict())
        restored.model(torch.ones(1, 2))
        self.assertEqual(f"data {[data.tolist() for data in original.data_groups['0']['data']]}", "data [[[1.0]]]")

    @known_defect("activation-refused-load-changes-the-sparsifier")
    def test_load_state_dict_refused_changes_nothing(self):
        """A state with a layer that the model lacks is refused as a whole; the sparsifier stays as it was."""
        state = self._at("stepped", nn.Sequential(nn.Identity(), nn.Identity())).state_dict()
        sparsifier = _sparsifier(nn.Sequential(nn.Identity()))
        with self.assertRaises(AssertionError):
            sparsifier.load_state_dict(state)
        self.assertEqual(f"layers {list(sparsifier.data_groups)}", "layers ['0']")

    @known_defect("activation-state-dict-is-refused-by-torch-load")
    def test_state_dict_can_be_saved_and_loaded(self):
        """The state passes torch.save and torch.load, which reads plain data only by default; who loads it brings the functions."""

        def build(own):
            model = nn.Sequential(nn.Identity(), nn.Identity())
            sparsifier = ActivationSparsifier(model, _add, _mean, _scale, factor=2.0)
            sparsifier.register_layer(model[0])
            if own:
                sparsifier.register_layer(model[1], lambda so_far, new: new, torch.sum, torch.neg)
                sparsifier.data_groups["1"]["sparse_config"].clear()
            return sparsifier

        x = torch.tensor([[1.0, 3.0]])
        new = ActivationSparsifier(nn.Sequential(nn.Identity(), nn.Identity()), **_functions())
        for original, again in ((build(own=False), new), (build(own=True), build(own=True))):
            for _ in range(2):
                file = io.BytesIO()
                torch.save(original.state_dict(), file)
                file.seek(0)
                state = torch.load(file, weights_only=True)
                for config in again.data_groups.values():
                    config["hook"].remove()
                again.load_state_dict(state)
            self.assertEqual(list(again.data_groups), list(original.data_groups))
            self.assertEqual(_plain(again.defaults), _plain(original.defaults))
            again.model(x)
            again.model(x)
            again.step()
            self.assertEqual(again.get_mask("0"), torch.tensor([4.0, 12.0]))
        self.assertEqual(again.get_mask("1"), torch.tensor(-4.0))

    @known_defect("activation-copy-aggregates-into-the-original")
    def test_deepcopy_is_independent(self):
        """The model of a copied sparsifier aggregates into the copy, not into the original, which may have been loaded."""
        registered = _sparsifier()
        loaded = ActivationSparsifier(nn.Sequential(nn.Identity()), **_functions())
        loaded.load_state_dict(registered.state_dict())
        for sparsifier in (registered, loaded):
            copied = copy.deepcopy(sparsifier)
            self.assertIsNot(copied.model, sparsifier.model)
            copied.model(torch.ones(1, 2))
            found = [each.data_groups["0"].get("data") is not None for each in (sparsifier, copied)]
            self.assertEqual(f"original and copy aggregate: {found}", "original and copy aggregate: [False, True]")
            self.assertEqual(copied.data_groups["0"]["data"], torch.ones(1, 2))

    @known_defect("activation-sparsifier-cannot-be-pickled")
    def test_pickle_restores_the_sparsifier(self):
        """The class says how its state is got and set, so an instance with registered layers can be pickled."""
        sparsifier = ActivationSparsifier(nn.Sequential(nn.Identity()), **_functions())
        sparsifier.register_layer(sparsifier.model[0])
        restored = pickle.loads(pickle.dumps(sparsifier))
        self.assertEqual(restored.data_groups["0"]["hook_state"], "aggregate")

    @known_defect("activation-squashed-model-cannot-be-saved")
    def test_squashed_model_can_be_saved(self):
        """The finished model can be saved as a whole, with its masks, as it could be before."""
        for settings in ({}, {"features": [1], "feature_dim": 1}):
            sparsifier = _sparsifier(nn.Sequential(nn.Linear(2, 2)), **settings)
            x = torch.tensor([[2.0, 3.0]])
            sparsifier.model(x)
            sparsifier.step()
            sparsifier.squash_mask()
            loaded = ActivationSparsifier(nn.Sequential(nn.Linear(2, 2)), **_functions())
            loaded.load_state_dict(sparsifier.state_dict())
            for model in (sparsifier.model, loaded.model):
                file = io.BytesIO()
                torch.save(model, file)
                file.seek(0)
                again = torch.load(file, weights_only=False)
                self.assertEqual(again(x.clone()), model(x.clone()))
                self.assertEqual(_hooks(again[0]), 1)

    @known_defect("activation-documented-mask-fn-crashes")
    def test_documented_functions_work(self):
        """The functions in the class's example compute a mask of an activation."""
        self.skip_without_docstrings()
        scope = {"torch": torch}
        for example in doctest.DocTestParser().get_examples(ActivationSparsifier.__doc__ or ""):
            if example.source.startswith(("def ", "    ")):
                scope["source"] = scope.get("source", "") + example.source
        exec(scope["source"], scope)
        data = scope["agg_fn"](torch.ones(4, 3), torch.ones(4, 3))
        mask = scope["mask_fn"](scope["reduce_fn"](data))
        self.assertEqual(mask.device, data.device)

    @on_every_device
    def test_whole_life_on_device(self, device):
        """Masks, sparsified activations and restored masks stay on the device of the activations, with the oracle's values."""
        inputs = _inputs(2, (2, 3))
        for settings in ({}, {"features": [2, 0], "feature_dim": 1}):
            sparsifier = _sparsifier(**settings)
            for x in inputs:
                sparsifier.model(x.to(device, copy=True))
            sparsifier.step()
            sparsifier.squash_mask()
            features, dim = settings.get("features"), settings.get("feature_dim")
            expected = activations.masks(_arrays(inputs), _add, _mean, lambda data: data, features, dim)
            out = sparsifier.model(inputs[0].to(device, copy=True))
            self.assertEqual(out.device.type, device)
            self.assertEqual(out.cpu(), torch.as_tensor(activations.sparsified(_arrays(inputs[0]), expected, features, dim)))
            restored = ActivationSparsifier(nn.Sequential(nn.Identity(), nn.Identity()))
            restored.load_state_dict(sparsifier.state_dict())
            masks = restored.get_mask("0")
            self.assertEqual({mask.device.type for mask in (masks if settings else [masks])}, {device})
            self.assertEqual(restored.model(inputs[0].to(device, copy=True)).cpu(), out.cpu())

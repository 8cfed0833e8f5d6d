# Owner(s): ["module: sparse"]
"""Structured pruning: criteria, what prepare() adds, which chains match, and that pruned models compute what masked ones do."""

import copy
import functools
import itertools
import operator
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.pruning._experimental.pruner import (
    BaseStructuredSparsifier,
    BiasHook,
    FakeStructuredSparsity,
    FPGMPruner,
    LSTMSaliencyPruner,
    SaliencyPruner,
    base_structured_sparsifier,
    match_utils,
    prune_functions,
)
from torch.ao.pruning._experimental.pruner.parametrization import module_contains_param
from torch.fx import symbolic_trace
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Branches, Chain, RowPruner, zeroed
from ao.sparsity.testing.oracles import structured

# Activations with f(0) != 0: a row of zeros does not stay one behind them.
NOT_ZERO_AT_ZERO = {"sigmoid", "hardsigmoid", "logsigmoid", "softplus"}
# Functions that a traced model cannot show as themselves, or that cannot be called with the tensor alone.
NOT_CALLED_ALONE = {"sigmoid", "tanh", "prelu"}


def activation_steps():
    """Every supported activation as a step of a Chain.

    Returns:
        list[tuple[str, Callable, bool]]: name, module or function, and whether it maps zero to zero.
    """
    functions = [(f"F.{name}", getattr(F, name)) for name in structured.ACTIVATION_FUNCTIONS if name not in NOT_CALLED_ALONE]
    modules = [(f"nn.{name}", getattr(nn, name)()) for name in structured.ACTIVATION_MODULES]
    return [(name, step, name.split(".")[1].lower() not in NOT_ZERO_AT_ZERO) for name, step in functions + modules]


def pool_step(name):
    """The pool of that dotted name, 2 x 2, as a step of a Chain."""
    function = resolve(name)
    return function(2) if isinstance(function, type) else functools.partial(function, kernel_size=2)


def resolve(name):
    """The object of a dotted name of the oracle's table of patterns."""
    if name == "output":
        return name
    holder, _, attribute = name.partition(".")
    return getattr({"nn": nn, "F": F, "torch": torch, "operator": operator}[holder], attribute)


def patterns_in(*chains):
    """Those default patterns that these Chains contain: the time of prune() grows with the number of patterns."""
    table = base_structured_sparsifier._get_default_structured_pruning_patterns()
    found = {}
    for chain in chains:
        steps = [chain.functions.get(place) or type(chain.get_submodule(place)) for place in chain.places]
        kinds = [getattr(step, "func", step) for step in steps] + ["output"]
        for first, last in itertools.combinations(range(len(kinds) + 1), 2):
            pattern = tuple(kinds[first:last])
            if pattern in table:
                found[pattern] = table[pattern]
    return found


def mask_of(module, name="weight"):
    """The mask that a prepared module holds for its parameter ``name``."""
    return module.parametrizations[name][0].mask


def values(*shape):
    """A float tensor of normal numbers, the same at every call; no two rows are equally long."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def prepared(model, config, **defaults):
    """A RowPruner that has prepared the model and taken its step."""
    pruner = RowPruner(**defaults)
    pruner.prepare(model, config)
    pruner.step()
    return pruner


def entry(fqn, *rows, **options):
    """A configuration entry for RowPruner."""
    return {"tensor_fqn": fqn, "rows": rows, **options}


class StructuredTestCase(TestCase):
    """Compares pruned models with masked ones."""

    def assertPrunedAsMasked(self, model, config, x, patterns=None, uncut=(), kept=None, hooks_left=()):
        """prune() must give the output of the plain model with rows zeroed by hand, the right sizes, and leave nothing behind.

        Args:
            uncut: paths of layers that stay as large as they are.
            kept: indices along dimension 1 that remain of the output, where the last layer is pruned.
            hooks_left: paths of layers whose BiasHook another test asks for.
        """
        model.eval()
        rows = {entry["tensor_fqn"].rpartition(".")[0]: entry["rows"] for entry in config}
        sizes = {path: len(model.get_submodule(path).weight) - (path not in uncut) * len(rows[path]) for path in rows}
        with torch.no_grad(), zeroed(model, config):
            expected = model(x)
        pruned = self.prune(model, config, patterns)
        with torch.no_grad():
            actual = pruned(x)
        if not isinstance(actual, tuple):
            expected, actual = (expected,), (actual,)
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            one = one if kept is None else one[:, kept]
            self.assertTensorsClose(other, one, f"output {place}: pruned is not masked")
        for path, module in pruned.named_modules():
            shape = tuple(module.weight.shape[:2]) if isinstance(module, (nn.Linear, nn.Conv2d)) else None
            if isinstance(module, nn.Linear):
                self.assertTupleEqual((module.out_features, module.in_features), shape, msg=f"sizes of {path}")
            elif isinstance(module, nn.Conv2d):
                self.assertTupleEqual((module.out_channels, module.in_channels), shape, msg=f"sizes of {path}")
            if shape is not None and module.bias is not None:
                self.assertTupleEqual(tuple(module.bias.shape), shape[:1], msg=f"bias of {path}")
            if path in rows:
                self.assertTupleEqual(shape[:1], (sizes[path],), msg=f"rows of {path}")
            self.assertFalse(parametrize.is_parametrized(module), msg=f"parametrizations of {path}")
            self.assertFalse(hasattr(module, "_bias"), msg=f"_bias of {path}")
            if path not in hooks_left:
                self.assertListEqual(list(module._forward_hooks.values()), [], msg=f"hooks of {path}")
        return pruned

    def assertTensorsClose(self, actual, expected, what):
        """Equal shapes, types and, up to rounding, values; the message is made only when it is needed."""
        if actual.shape != expected.shape or actual.dtype != expected.dtype or not torch.allclose(actual, expected, atol=1e-5, rtol=1e-4):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4, msg=lambda text: f"{what}: {text}")

    def prune(self, model, config, patterns=None):
        """Prepare, mask the rows of the configuration, and prune; warnings of prune() are not what is asked here."""
        pruner = prepared(model, config, patterns=patterns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pruner.prune()

    def assertRefused(self, model, config):
        """prune() must say that a layer keeps its mask."""
        pruner = prepared(model, config)
        with self.assertRaisesRegex(Exception, "still contains FakeStructuredSparsity"):
            pruner.prune()


class TestSaliencyPruner(StructuredTestCase):
    def test_saliency_pruner_update_mask(self):
        """SaliencyPruner masks the rows with the smallest L1 norms, the level's part of them rounded down."""
        for shape in ((5, 3), (6, 2, 3, 2), (7, 2, 1), (1, 4), (4, 1)):
            module = nn.Module()
            module.weight = nn.Parameter(values(*shape))
            pruner = SaliencyPruner({"sparsity_level": 0.5})
            pruner.prepare(Chain(module), [{"tensor_fqn": "0.weight"}])
            mask = mask_of(module)
            for level in (0, 0.1, 0.34, 0.5, 0.75, 0.99, 1):
                with self.subTest(shape=shape, level=level):
                    mask.fill_(True)
                    pruner.groups[0]["sparsity_level"] = level
                    pruner.step()
                    self.assertListEqual(mask.tolist(), structured.saliency_mask(values(*shape), level).tolist())
                    self.assertIs(mask, mask_of(module))
                    self.assertIs(mask, pruner.state["0.weight"]["mask"])

    def test_lstm_saliency_pruner_update_mask(self):
        """LSTMSaliencyPruner masks the smallest rows of each of the four packed gates, as many in each."""
        names = ("weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1")
        for hidden, level in itertools.product((1, 2, 5), (0, 0.2, 0.5, 0.79, 1)):
            with self.subTest(hidden=hidden, level=level):
                lstm = nn.LSTM(3, hidden, 2)
                with torch.no_grad():
                    for name in names:
                        getattr(lstm, name).copy_(values(*getattr(lstm, name).shape))
                weights = {name: getattr(lstm, name).detach().clone() for name in names}
                pruner = LSTMSaliencyPruner({"sparsity_level": level})
                pruner.prepare(Chain(lstm), [{"tensor_fqn": f"0.{name}"} for name in names])
                pruner.step()
                for name in names:
                    self.assertListEqual(mask_of(lstm, name).tolist(), structured.lstm_saliency_mask(weights[name], level).tolist(), msg=name)

    def test_lstm_saliency_pruner_finds_its_mask_among_other_parametrizations(self):
        """The mask is updated by the parametrized weight wherever it stands in the list of parametrizations."""

        class Negated(nn.Module):
            def forward(self, weight):
                return -weight

        module = nn.Module()
        module.weight = nn.Parameter(values(8, 2))
        parametrize.register_parametrization(module, "weight", Negated())
        parametrize.register_parametrization(module, "weight", FakeStructuredSparsity(torch.ones(8, dtype=torch.bool)))
        LSTMSaliencyPruner({}).update_mask(module, "weight", sparsity_level=0.5)
        self.assertListEqual(module.parametrizations.weight[1].mask.tolist(), structured.lstm_saliency_mask(values(8, 2), 0.5).tolist())

    def test_saliency_refuses_vectors(self):
        """Structured pruning needs rows: a one-dimensional parameter is an error that says so."""
        for pruner in (SaliencyPruner({"sparsity_level": 0.5}), LSTMSaliencyPruner({"sparsity_level": 0.5})):
            with self.subTest(pruner=type(pruner).__name__):
                pruner.prepare(Chain(nn.LayerNorm(4)), [{"tensor_fqn": "0.weight"}])
                with self.assertRaisesRegex(Exception, "2\\+dim"):
                    pruner.step()

    def test_saliency_refuses_a_mask_of_another_shape(self):
        """The saliency vector must have the shape of the mask."""
        pruner = SaliencyPruner({"sparsity_level": 0.5})
        pruner.prepare(Chain(nn.Linear(3, 4)), [{"tensor_fqn": "0.weight", "mask": torch.ones(4, 1, dtype=torch.bool)}])
        with self.assertRaises(AssertionError):
            pruner.step()

    def test_step_twice_masks_the_same_rows(self):
        """At one level a second step changes nothing, weights and gradients stay, and scaling all weights does not move a mask."""
        for kind in (SaliencyPruner, LSTMSaliencyPruner):
            with self.subTest(pruner=kind.__name__):
                masks = []
                for scale in (1.0, 16.0):
                    module = nn.Linear(3, 8)
                    module.weight = nn.Parameter(values(8, 3) * scale)
                    pruner = kind({"sparsity_level": 0.5})
                    pruner.prepare(Chain(module), [{"tensor_fqn": "0.weight"}])
                    pruner.step()
                    masks.append(mask_of(module).tolist())
                    pruner.step()
                    masks.append(mask_of(module).tolist())
                    self.assertEqual(module.parametrizations.weight.original, values(8, 3) * scale)
                    self.assertIsNone(module.parametrizations.weight.original.grad)
                self.assertEqual(masks, masks[:1] * 4)
                self.assertEqual(sum(masks[0]), 4)

    @on_every_device
    def test_saliency_masks_stay_on_their_device(self, device):
        """Masks are made and updated where the weight is, by the same rows as anywhere."""
        for kind, oracle in ((SaliencyPruner, structured.saliency_mask), (LSTMSaliencyPruner, structured.lstm_saliency_mask)):
            with self.subTest(pruner=kind.__name__):
                module = nn.Linear(3, 8, device=device)
                module.weight = nn.Parameter(values(8, 3).to(device))
                pruner = kind({"sparsity_level": 0.5})
                pruner.prepare(Chain(module), [{"tensor_fqn": "0.weight"}])
                pruner.step()
                self.assertEqual(mask_of(module).device.type, device)
                self.assertListEqual(mask_of(module).tolist(), oracle(values(8, 3), 0.5).tolist())


class TestFPGMPruner(StructuredTestCase):
    # Three filters on a line, in the first and last of their 2 x 1 x 2 values: 0, 3 and 9 apart from the origin by L1.
    FILTERS = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 2], [3, 0, 0, 6]]).reshape(3, 2, 1, 2)

    def test_compute_distance(self):
        """The distance of a filter is the sum of its distances to all others: L1, L2 (the default) or the given function's."""
        root = 5**0.5

        def signed(rows):
            return rows[:, :1] - rows[:, :1].T

        for dist, expected in (
            (1, [3 + 9, 3 + 6, 9 + 6]),
            (2, [root + 3 * root, root + 2 * root, 3 * root + 2 * root]),
            (None, [root + 3 * root, root + 2 * root, 3 * root + 2 * root]),
            (signed, [1 + 3, 1 + 2, 3 + 2]),
        ):
            for tensor in (self.FILTERS, self.FILTERS.double(), self.FILTERS.reshape(3, 4), self.FILTERS.reshape(3, 4).T.contiguous().T):
                with self.subTest(dist=dist, shape=tuple(tensor.shape), dtype=tensor.dtype):
                    distance = FPGMPruner(dist=dist)._compute_distance(tensor)
                    self.assertEqual(distance.shape, (3,))
                    torch.testing.assert_close(distance, torch.tensor(expected, dtype=tensor.dtype), rtol=1e-5, atol=1e-5)

    def test_update_mask(self):
        """Filters near to the others go first, whatever their norm, in one layer and in several with levels of their own."""
        # Norms 1, 5, 6, 20: the smallest norm stands apart, the two in the middle are nearest to all others.
        lines = torch.tensor([1.0, 5.0, 6.0, 20.0]).reshape(4, 1, 1, 1)
        model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 3, 1, bias=False), nn.Linear(4, 3))
        model[0].weight.data.copy_(lines)
        model[1].weight.data.copy_(self.FILTERS.reshape(3, 4, 1, 1))
        model[2].weight.data.copy_(self.FILTERS.reshape(3, 4))
        pruner = FPGMPruner(0.5)
        pruner.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight", "sparsity_level": 0.34}, {"tensor_fqn": "2.weight", "sparsity_level": 0.7}])
        pruner.enable_mask_update = False
        pruner.step()
        self.assertTrue(all(bool(mask_of(layer).all()) for layer in model))
        pruner.enable_mask_update = True
        pruner.step()
        self.assertListEqual(mask_of(model[0]).tolist(), [True, False, False, True])
        self.assertListEqual(mask_of(model[1]).tolist(), [True, False, True])
        self.assertListEqual(mask_of(model[2]).tolist(), [False, False, True])
        self.assertEqual(model[0].weight.flatten().tolist(), [1, 0, 0, 20])

    def test_update_mask_prunes_the_nearest_number_of_filters(self):
        """Level times filters, to the nearest number, is pruned by distance; levels below 0 and above 1 are 0 and 1."""
        for shape, dist in itertools.product(((5, 2, 2, 1), (8, 1, 3, 3), (1, 2, 1, 1), (6, 4)), (1, 2)):
            weight = torch.rand(shape, generator=torch.Generator().manual_seed(shape[0]))
            module = nn.Module()
            module.weight = nn.Parameter(weight.clone())
            pruner = FPGMPruner(dist=dist)
            pruner.prepare(Chain(module), [{"tensor_fqn": "0.weight"}])
            mask = mask_of(module)
            for level in (-0.3, 0, 0.09, 0.3, 0.5, 0.74, 0.99, 1, 1.7):
                with self.subTest(shape=shape, dist=dist, level=level):
                    mask.fill_(True)
                    pruner.groups[0]["sparsity_level"] = level
                    pruner.step()
                    self.assertListEqual(mask.tolist(), structured.fpgm_mask(weight, level, dist).tolist())
                    self.assertEqual(mask.dtype, torch.bool)
                    self.assertIs(mask, mask_of(module))

    def test_update_mask_at_level_zero_restores_every_filter(self):
        """Levels at or below 0 give a full mask even after filters were masked; levels at or above 1 an empty one."""
        module = nn.Linear(2, 3)
        pruner = FPGMPruner(1.0)
        pruner.prepare(Chain(module), [{"tensor_fqn": "0.weight"}])
        for level, kept in ((1.0, 0), (0, 3), (2, 0), (-1, 3)):
            with self.subTest(level=level):
                pruner.groups[0]["sparsity_level"] = level
                pruner.step()
                self.assertListEqual(mask_of(module).tolist(), [kept == 3] * 3)
                self.assertEqual(mask_of(module).dtype, torch.bool)

    def test_constructor(self):
        """The level is 0.5 unless given; a distance is 1, 2, None or a function, anything else is refused."""
        self.assertEqual(FPGMPruner().defaults, {"sparsity_level": 0.5})
        self.assertEqual(FPGMPruner(0.25).defaults, {"sparsity_level": 0.25})
        self.assertIs(FPGMPruner(dist=torch.cdist).dist_fn, torch.cdist)
        for dist in (0, 4, "l2"):
            with self.subTest(dist=dist), self.assertRaises(NotImplementedError):
                FPGMPruner(dist=dist)

    @on_every_device
    def test_masks_and_pruned_model_stay_on_their_device(self, device):
        """On every device FPGM keeps the oracle's filters, and the pruned model runs there with the masked model's output."""
        weight = torch.rand(6, 2, 3, 3, generator=torch.Generator().manual_seed(3))
        model = nn.Sequential(nn.Conv2d(2, 6, 3, device=device), nn.ReLU(), nn.Conv2d(6, 2, 1, device=device))
        model[0].weight.data.copy_(weight)
        x = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(4)).to(device)
        kept = structured.fpgm_mask(weight, 0.5)
        config = [entry("0.weight", *(~kept).nonzero()[0].tolist())]
        with torch.no_grad(), zeroed(model, config):
            expected = model(x)
        pruner = FPGMPruner(0.5)
        pruner.prepare(model, [{"tensor_fqn": "0.weight"}])
        pruner.step()
        self.assertListEqual(mask_of(model[0]).tolist(), kept.tolist())
        pruned = pruner.prune()
        self.assertEqual({tensor.device.type for tensor in pruned.state_dict().values()}, {device})
        torch.testing.assert_close(pruned(x).detach(), expected, atol=1e-4, rtol=1e-4)


class TestBaseStructuredSparsifier(StructuredTestCase):
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

    def test_supported_modules_and_activations_are_exactly_the_documented_ones(self):
        """The tables of layers and activations, made anew at each call so that a caller's change stays with the caller."""
        for read, expected in (
            (base_structured_sparsifier._get_supported_structured_pruning_modules, {nn.Linear, nn.Conv2d, nn.LSTM}),
            (base_structured_sparsifier._get_supported_activation_functions, {getattr(F, name) for name in structured.ACTIVATION_FUNCTIONS}),
            (base_structured_sparsifier._get_supported_activation_modules, {getattr(nn, name) for name in structured.ACTIVATION_MODULES}),
        ):
            with self.subTest(table=read.__name__):
                self.assertSetEqual(read(), expected)
                read().clear()
                self.assertSetEqual(read(), expected)

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
        pruner.prepare(model, [{"tensor_fqn": "0.weight", "mask": mask, "parametrization": OtherSparsity}, {"tensor_fqn": "1.weight_hh_l0"}, {"tensor_fqn": "2.weight"}])
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
            for prune_bias in ((True, True), (True, False), (False, False), (False, None), (True, None)):
                place = len(cases)
                cases.append(Chain(nn.Linear(3, 5, bias=biases[0]), nn.Linear(5, 4, bias=biases[1]), nn.Linear(4, 2, bias=place % 2 == 0)))
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias[0]))
                if prune_bias[1] is not None:
                    config.append(entry(f"{place}.1.weight", 0, prune_bias=prune_bias[1]))
        self.assertPrunedAsMasked(Branches(*cases), config, values(5, 3), patterns_in(*cases))
        model = Chain(nn.Linear(3, 5), nn.Linear(5, 4))
        pruned = self.assertPrunedAsMasked(model, [entry("0.weight", 1), entry("1.weight", 0, 2)], values(5, 3), kept=[1, 3])
        self.assertEqual(pruned.get_submodule("1").bias, model.get_submodule("1").bias)

    def test_prune_linear_activation_linear(self):
        """linear -> activation -> linear: pruned equals masked for every supported activation, module or function."""
        cases, config = [], []
        for place, (_, step, _) in enumerate(activation_steps()):
            config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=False))
            cases.append(Chain(nn.Linear(3, 5), step, nn.Linear(5, 2)))
        self.assertPrunedAsMasked(Branches(*cases), config, values(5, 3), patterns_in(*cases))
        cases, config = [], []
        steps = [step for _, step, zero_stays in activation_steps() if zero_stays]
        for place, (step, bias) in enumerate(zip(steps, itertools.cycle((True, False)))):
            config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=True))
            cases.append(Chain(nn.Linear(3, 5, bias=bias), step, nn.Linear(5, 2)))
        self.assertPrunedAsMasked(Branches(*cases), config, values(5, 3), patterns_in(*cases))
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
        self.assertPrunedAsMasked(Branches(*cases), config, values(2, 2, 6, 6), patterns_in(*cases))
        model = Chain(nn.Conv2d(2, 4, 2, bias=False))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1, 2)], values(2, 2, 6, 6), kept=[0, 3])

    def test_prune_conv2d_bias_conv2d(self):
        """conv2d -> conv2d with biases: pruned ones are dropped with their filters, or else added to the next layer's."""
        cases, config = [], []
        for biases in itertools.product((True, False), repeat=2):
            for prune_bias in ((True, True), (True, False), (False, False), (False, None), (True, None)):
                place = len(cases)
                cases.append(Chain(nn.Conv2d(2, 4, 2, bias=biases[0]), nn.Conv2d(4, 3, (2, 1), bias=biases[1]), nn.Conv2d(3, 2, (1, 3), bias=place % 2 == 0)))
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias[0]))
                if prune_bias[1] is not None:
                    config.append(entry(f"{place}.1.weight", 0, prune_bias=prune_bias[1]))
        self.assertPrunedAsMasked(Branches(*cases), config, values(2, 2, 4, 4), patterns_in(*cases))
        model = Chain(nn.Conv2d(2, 4, 2), nn.Conv2d(4, 3, 1))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1), entry("1.weight", 0, 2)], values(2, 2, 4, 4), kept=[1])

    def test_prune_conv2d_activation_conv2d(self):
        """conv2d -> activation -> conv2d: pruned equals masked for every supported activation, module or function."""
        cases, config = [], []
        for place, (_, step, zero_stays) in enumerate(activation_steps()):
            prune_bias = zero_stays and place % 2 == 0
            config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias))
            cases.append(Chain(nn.Conv2d(2, 4, 2, bias=not prune_bias or place % 4 == 0), step, nn.Conv2d(4, 2, 1)))
        model = Chain(nn.Conv2d(2, 4, 2), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1), F.tanhshrink, nn.Conv2d(3, 2, 1))
        self.assertPrunedAsMasked(model, [entry("0.weight", 1, 2), entry("2.weight", 1)], values(2, 2, 3, 3))

    def test_prune_conv2d_padding_conv2d(self):
        """Before a padded conv2d a bias that is not pruned needs its channel: the layer stays as large as it is."""
        cases, config, uncut = [], [], []
        for padding, prune_bias in itertools.product((0, 1, (0, 1), (1, 0)), (True, False)):
            for biases in itertools.product((True, False), repeat=2):
                place = len(cases)
                chain = Chain(nn.Conv2d(2, 4, 2, padding=1, bias=biases[0]), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=padding, bias=biases[1]))
                if prune_bias and biases[0]:  # nothing to tell the two ways of pruning a bias apart
                    chain.get_submodule("0").bias.data[[1, 3]] = 0
                if biases[0] and padding:
                    uncut.append(f"{place}.0")
                cases.append(chain)
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias))
        # the layer before the padded one has got a bias from its own predecessor, or that and one of its own
        for bias in (True, False):
            place = len(cases)
            cases.append(Chain(nn.Conv2d(2, 4, 2), nn.Tanh(), nn.Conv2d(4, 4, 1, bias=bias), nn.Conv2d(4, 2, 3, padding=1)))
            config += [entry(f"{place}.0.weight", 1, prune_bias=False), entry(f"{place}.2.weight", 0, 2, prune_bias=False)]
            uncut.append(f"{place}.2")
        self.assertPrunedAsMasked(Branches(*cases), config, values(2, 2, 4, 4), patterns_in(*cases), uncut=uncut, hooks_left=uncut)

    def test_prune_conv2d_pool_conv2d(self):
        """conv2d, activation and pool in either order, conv2d: pruned equals masked for every pool, module or function."""
        cases, config, uncut = [], [], []
        pools = itertools.cycle(itertools.product(structured.POOLS, (True, False)))
        for (_, step, _), (pool, pool_first) in zip(activation_steps(), pools):
            config.append(entry(f"{len(cases)}.0.weight", 1, 3, prune_bias=False))
            middle = (pool_step(pool), step) if pool_first else (step, pool_step(pool))
            cases.append(Chain(nn.Conv2d(2, 4, 2), *middle, nn.Conv2d(4, 2, 1)))
        for pool, pool_first, bias, padding in itertools.product(structured.POOLS, (True, False), (True, False), (0, 1)):
            place = len(cases)
            middle = (pool_step(pool), nn.Tanh()) if pool_first else (nn.Tanh(), pool_step(pool))
            cases.append(Chain(nn.Conv2d(2, 4, 2, bias=bias), *middle, nn.Conv2d(4, 2, 1, padding=padding)))
            config.append(entry(f"{place}.0.weight", 0, prune_bias=False))
            if bias and padding:
                uncut.append(f"{place}.0")
        self.assertPrunedAsMasked(Branches(*cases), config, values(2, 2, 5, 5), patterns_in(*cases), uncut=uncut, hooks_left=uncut)

    def test_prune_conv2d_pool_flatten_linear(self):
        """conv2d -> adaptive pool -> flatten -> linear: all columns of a pruned channel go, its bias moves on unless pruned."""
        cases, config = [], []
        flattens = (nn.Flatten(), functools.partial(torch.flatten, start_dim=1))
        for pool, flatten in itertools.product((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), flattens):
            for prune_bias, bias, prepare_linear in itertools.product((True, False), repeat=3):
                place = len(cases)
                size, features = (1, 4) if bias == prepare_linear else ((2, 3), 24)
                cases.append(Chain(nn.Conv2d(2, 4, 2, padding=1), pool(size), flatten, nn.Linear(features, 3, bias=bias), nn.Linear(3, 2)))
                config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=prune_bias))
                if prepare_linear:  # without its bias being pruned: another test asks for that
                    config.append(entry(f"{place}.3.weight", 1, prune_bias=False))
        self.assertPrunedAsMasked(Branches(*cases), config, values(2, 2, 4, 4), patterns_in(*cases))

    def test_prune_refuses_columns_that_are_no_multiple_of_the_channels(self):
        """Columns of the linear layer that cannot be shared out among the channels are an error."""
        model = Chain(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten(2), nn.Linear(3, 1))
        with self.assertRaises(AssertionError):
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

        config = [entry("first.0.weight", 1), entry("first.2.weight", 2, prune_bias=False), entry("fourth.weight", 0, 2), entry("linear.weight", 1)]
        pruned = self.assertPrunedAsMasked(Model(), config, values(2, 2, 7, 7))
        self.assertEqual((pruned.second.in_channels, pruned.third.in_channels, pruned.linear.in_features), (4, 3, 4))
        self.assertRefused(Model(), [entry("third.weight", 1)])

    @on_every_device
    def test_pruned_model_stays_on_its_device(self, device):
        """On every device all of the pruned model lies there and computes what the masked model does."""
        model = Chain(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.Linear(3, 2)).to(device)
        config = [entry("0.weight", 1, prune_bias=False), entry("2.weight", 2, prune_bias=False), entry("5.weight", 0, prune_bias=False)]
        with torch.no_grad(), zeroed(model, config):
            expected = model(values(2, 2, 4, 4).to(device))
        pruned = self.prune(model, config)
        self.assertEqual({tensor.device.type for tensor in pruned.state_dict().values()}, {device})
        torch.testing.assert_close(pruned(values(2, 2, 4, 4).to(device)).detach(), expected, atol=1e-4, rtol=1e-4)

    def test_prune_keeps_dtype_mode_and_hooks(self):
        """Type of numbers, training mode, the user's hooks and what was not prepared survive prune(); parameters can be trained."""
        for dtype, training in ((torch.float64, True), (torch.bfloat16, False)):
            with self.subTest(dtype=dtype):
                model = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Linear(3, 2)).to(dtype).train(training)
                calls, hook = [], lambda module, args, output: calls.append(module)
                model.get_submodule("0").register_forward_hook(hook)
                last = model.get_submodule("3").weight
                pruned = self.prune(model, [entry("0.weight", 1, prune_bias=False)])
                self.assertEqual({tensor.dtype for tensor in pruned.parameters()}, {dtype})
                self.assertEqual({module.training for module in pruned.modules()}, {training})
                self.assertTrue(all(parameter.requires_grad and parameter.is_leaf for parameter in pruned.parameters()))
                self.assertIs(pruned.get_submodule("3").weight, last)
                pruned(values(5, 3).to(dtype)).sum().backward()
                self.assertEqual(calls, [pruned.get_submodule("0")])
                self.assertTrue(all(parameter.grad is not None for parameter in pruned.parameters()))

    def test_prune_returns_a_trace_that_shares_its_layers_with_the_model(self):
        """The pruned graph module is kept as `traced`; the model itself is pruned in place, and pruning it again changes nothing."""
        model = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        pruner = prepared(model, [entry("0.weight", 1)])
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
        model = Chain(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 1))
        for prune_bias in (True, False):
            with self.subTest(prune_bias=prune_bias):
                config = [entry(f"{place}.weight", prune_bias=prune_bias) for place in (0, 2, 5)]
                self.assertPrunedAsMasked(copy.deepcopy(model), config, values(2, 2, 3, 3))

    def test_prune_refuses_what_no_pattern_covers(self):
        """A masked layer in a chain that is not supported is an error that says so, with other patterns and with none too."""

        class Linear(nn.Linear):
            pass

        cases = (
            ("batch norm between", Chain(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))),
            ("dropout between", Chain(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 1))),
            ("two activations", Chain(nn.Linear(2, 2), nn.ReLU(), nn.ReLU(), nn.Linear(2, 1))),
            ("method instead of function", Chain(nn.Linear(2, 2), lambda x: x.relu(), nn.Linear(2, 1))),
            ("activation at the end", Chain(nn.Linear(2, 2), nn.ReLU())),
            ("a function that is not an activation", Chain(nn.Linear(2, 2), F.softmax, nn.Linear(2, 1))),
            ("linear -> conv2d", Chain(nn.Linear(2, 2), nn.Conv2d(2, 1, 1))),
            ("conv2d -> linear", Chain(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 1))),
            ("conv2d -> pool -> conv2d", Chain(nn.Conv2d(1, 2, 1), nn.MaxPool2d(1), nn.Conv2d(2, 1, 1))),
            ("conv2d -> activation -> adaptive pool -> flatten -> linear", Chain(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1))),
            ("a subclass of linear", Chain(Linear(2, 2), nn.Linear(2, 1))),
            ("another kind of convolution", Chain(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1))),
            ("a normalization", Chain(nn.LayerNorm(2), nn.Linear(2, 1))),
        )
        self.assertRefused(Branches(*(chain for _, chain in cases)), [entry(f"{place}.0.weight", 1) for place in range(len(cases))])
        for name, chain in cases:
            self.assertTrue(module_contains_param(chain.get_submodule("0"), FakeStructuredSparsity), msg=name)
        pruner = prepared(Chain(nn.Linear(2, 2), nn.Linear(2, 1)), [entry("0.weight", 1)], patterns={})
        with self.assertRaisesRegex(Exception, "(?s)Linear.*still contains FakeStructuredSparsity"):
            pruner.prune()

    def test_prune_refuses_a_layer_whose_output_nobody_uses(self):
        """A masked layer without a consumer matches no chain."""

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(2, 2)

            def forward(self, x):
                self.linear(x)
                return x

        self.assertRefused(Model(), [entry("linear.weight", 1)])

    def test_prune_follows_a_layer_that_is_used_for_two_inputs(self):
        """A chain that is applied to several inputs is pruned once and gives the masked outputs for each."""

        class Siamese(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

            def forward(self, x):
                return self.second(F.relu(self.first(x))), self.second(F.relu(self.first(-x)))

        self.assertPrunedAsMasked(Siamese(), [entry("first.weight", 1)], values(5, 3))

    def test_prune_uses_custom_patterns(self):
        """Patterns given by the user replace the default ones; their function gets modules and called functions, in order."""
        calls = []

        def record(*parts):
            calls.append(parts)
            prune_functions.prune_linear_activation_linear(parts[0], None, parts[-1])

        model = Chain(nn.Linear(2, 3), nn.Dropout(), F.hardtanh, nn.Linear(3, 2))
        first, dropout, last = (model.get_submodule(place) for place in "013")
        pattern = (nn.Linear, nn.Dropout, match_utils.MatchAllNode, nn.Linear)
        self.assertPrunedAsMasked(model, [entry("0.weight", 1)], values(5, 2), {pattern: record})
        self.assertEqual(calls, [(first, dropout, F.hardtanh, last)])
        self.prune(Chain(nn.Linear(2, 3), nn.Dropout(), F.hardtanh, nn.Linear(3, 2)), [], {pattern: record})
        self.assertEqual(len(calls), 1, msg="called for a chain that is not prepared")

    HIDDEN = 4  # of the LSTMs below

    def check_lstm(self, layers, units, batch_first=False, layernorm=False, prepare_linear=False, dropout=0.0):
        """Prune ``units[i]`` of layer i, whose biases are zero so that a masked unit stays zero, and compare with the masked model."""
        lstm = nn.LSTM(3, self.HIDDEN, layers, batch_first=batch_first, dropout=dropout)
        norm = nn.LayerNorm(self.HIDDEN) if layernorm else nn.Identity()
        linear, last = nn.Linear(self.HIDDEN, 3), nn.Linear(3, 2)
        if layernorm:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        config = []
        for layer, pruned_units in enumerate(units):
            rows = [gate * self.HIDDEN + unit for gate in range(4) for unit in pruned_units]
            for name in (f"weight_ih_l{layer}", f"weight_hh_l{layer}"):
                getattr(lstm, name.replace("weight", "bias")).data[rows] = 0
                config.append(entry(f"0.{name}", *rows))
        steps = (lstm, operator.itemgetter(0), norm, linear, last) if layernorm else (lstm, operator.itemgetter(0), linear, last)
        model = Chain(*steps).eval()
        place = len(steps) - 2
        if prepare_linear:
            config.append(entry(f"{place}.weight", 1, prune_bias=False))
        x = values(3, 5, 3)
        kept = [unit for unit in range(self.HIDDEN) if unit not in units[-1]]
        with torch.no_grad(), zeroed(model, config):
            out = lstm(x)[0]
            if layernorm:  # the mean and variance of a pruned layer are those of the units that are left
                out = torch.zeros_like(out).index_copy(-1, torch.tensor(kept), F.layer_norm(out[..., kept], (len(kept),), norm.weight[kept], norm.bias[kept]))
            expected = last(linear(out))
        pruned = self.prune(model, config)
        with torch.no_grad():
            self.assertTensorsClose(pruned(x), expected, "pruned is not masked")
        self.assertIs(pruned.get_submodule("0"), lstm)
        self.assertFalse(any(parametrize.is_parametrized(module) for module in pruned.modules()))
        sizes = [self.HIDDEN - len(pruned_units) for pruned_units in units]
        self.assertEqual((lstm.hidden_size, linear.in_features, linear.weight.shape[1]), (sizes[-1],) * 3)
        for layer, (inputs, size) in enumerate(zip([3, *sizes], sizes)):
            shapes = [tuple(getattr(lstm, f"{name}_l{layer}").shape) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            self.assertListEqual(shapes, [(4 * size, inputs), (4 * size, size), (4 * size,), (4 * size,)])
        if layernorm:
            self.assertEqual((norm.normalized_shape, norm.weight.shape, norm.bias.shape), ((sizes[-1],),) * 3)
        self.assertTrue(all(parameter.requires_grad for parameter in pruned.parameters()))

    def test_prune_lstm_linear_single_layer(self):
        """lstm -> linear: units masked in every gate and without bias are cut, the linear layer's columns with them."""
        for units, options in (([(1,)], {}), ([(0, 2)], {"batch_first": True}), ([()], {}), ([(3,)], {"prepare_linear": True})):
            with self.subTest(units=units, **options):
                self.check_lstm(1, units, **options)

    def test_prune_lstm_linear_multiple_layer(self):
        """Each layer's input columns follow the layer below, whichever units each of them loses."""
        for units, options in (([(1,), (2,)], {"dropout": 0.5}), ([(0, 3), (1, 2)], {"prepare_linear": True}), ([(2,), (0,), (3,)], {"batch_first": True})):
            with self.subTest(units=units, **options):
                self.check_lstm(len(units), units, **options)

    def test_prune_lstm_layernorm_linear_single_layer(self):
        """lstm -> layernorm -> linear: the norm keeps the entries of the units that are left, and normalizes over them."""
        for units, options in (([(1,)], {}), ([(0, 2)], {"prepare_linear": True}), ([()], {})):
            with self.subTest(units=units, **options):
                self.check_lstm(1, units, layernorm=True, **options)

    def test_prune_lstm_layernorm_linear_multiple_layer(self):
        """Layers, norm and linear layer follow the units of their own predecessor."""
        for units, options in (([(1,), (2,)], {}), ([(0, 3), (1, 2)], {"prepare_linear": True, "batch_first": True})):
            with self.subTest(units=units, **options):
                self.check_lstm(2, units, layernorm=True, **options)

    def test_prune_lstm_leaves_layers_that_are_not_prepared(self):
        """Full masks on one layer of two change nothing, whichever layer it is, and nothing of them is left."""
        for layer in (0, 1):
            with self.subTest(layer=layer):
                model = Chain(nn.LSTM(3, 2, 2), operator.itemgetter(0), nn.Linear(2, 2))
                expected = model(values(4, 2, 3))
                pruned = self.prune(model, [entry(f"0.weight_ih_l{layer}"), entry(f"0.weight_hh_l{layer}")])
                self.assertTensorsClose(pruned(values(4, 2, 3)), expected, "output")
                self.assertFalse(parametrize.is_parametrized(model.get_submodule("0")))

    def test_prune_lstm_cuts_the_columns_of_the_next_layer(self):
        """The next layer's input weight loses the columns of the cut units also where it is not prepared itself."""
        lstm, linear = nn.LSTM(3, 3, 2), nn.Linear(3, 2)
        before = lstm.weight_ih_l1.detach().clone()
        rows = [1, 4, 7, 10]
        prepared(Chain(lstm), [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows)])
        prune_functions.prune_lstm_output_linear(lstm, operator.getitem, linear)
        self.assertEqual(lstm.weight_ih_l1, before[:, [0, 2]])
        self.assertEqual(linear.weight.shape, (2, 3))

    def test_prune_refuses_recurrent_chains_that_no_pattern_covers(self):
        """An LSTM followed by anything but linear or layernorm and linear, and other recurrent layers, are errors."""
        cases = (
            ("activation between", Chain(nn.LSTM(2, 2), operator.itemgetter(0), nn.ReLU(), nn.Linear(2, 1)), "0.weight_ih_l0"),
            ("whole output", Chain(nn.LSTM(2, 2)), "0.weight_hh_l0"),
            ("last state", Chain(nn.LSTM(2, 2), operator.itemgetter(1), operator.itemgetter(0), nn.Linear(2, 1)), "0.weight_hh_l0"),
            ("gated recurrent unit", Chain(nn.GRU(2, 2), operator.itemgetter(0), nn.Linear(2, 1)), "0.weight_hh_l0"),
        )
        self.assertRefused(Branches(*(chain for _, chain, _ in cases)), [entry(f"{place}.{fqn}", 1) for place, (_, _, fqn) in enumerate(cases)])
        for name, chain, _ in cases:
            self.assertTrue(module_contains_param(chain.get_submodule("0"), FakeStructuredSparsity), msg=name)


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
        for mask in (torch.ones(2, dtype=torch.bool), torch.ones(4, dtype=torch.bool), None):
            with self.subTest(mask=mask), self.assertRaises(AssertionError):
                FakeStructuredSparsity(mask)(values(3, 2))

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


class TestStructuredMatching(TestCase):
    """apply_match on the graph of x -> linear -> relu -> (flatten, sigmoid method) of a traced model."""

    def setUp(self):
        super().setUp()
        self.model = Chain(nn.Linear(2, 2), nn.ReLU(), torch.flatten, lambda x: x.sigmoid())
        traced = symbolic_trace(self.model)
        self.modules = dict(traced.named_modules())
        self.nodes = dict(zip(("input", "linear", "relu", "flatten", "sigmoid", "output"), traced.graph.nodes, strict=True))

    def names(self, matched):
        return None if matched is None else [name for node in matched for name, known in self.nodes.items() if known is node]

    def test_match_compares_one_node(self):
        """A class matches calls of modules of just that class, a function calls of it, a string its target, MatchAllNode all."""
        everything = {"input", "linear", "relu", "flatten", "sigmoid", "output"}

        class AllNodes(match_utils.MatchAllNode):
            pass

        for current, expected in (
            (nn.Linear, {"linear"}),
            (nn.ReLU, {"relu"}),
            (nn.Module, set()),
            (torch.flatten, {"flatten"}),
            (torch.relu, set()),
            (torch.sigmoid, set()),
            ("output", {"output"}),
            ("sigmoid", {"sigmoid"}),
            ("linear", set()),
            (match_utils.MatchAllNode, everything),
            (AllNodes, everything),
            (3, set()),
            (None, set()),
        ):
            with self.subTest(current=current):
                answers = {name: match_utils._match(self.modules, node, current) for name, node in self.nodes.items()}
                self.assertSetEqual({name for name, answer in answers.items() if answer}, expected)
                self.assertSetEqual({type(answer) for answer in answers.values()}, {bool})

    def test_match_sees_the_class_before_parametrizations(self):
        """A prepared layer still matches its own class."""
        RowPruner().prepare(self.model, [{"tensor_fqn": "0.weight"}])
        self.assertIsNot(type(self.model.get_submodule("0")), nn.Linear)
        self.assertIs(match_utils._match(self.modules, self.nodes["linear"], nn.Linear), True)

    def test_match_of_no_node_is_false(self):
        """What is no node of a graph matches only MatchAllNode."""
        for node in (None, 3, "output"):
            with self.subTest(node=node):
                self.assertIs(match_utils._match(self.modules, node, "output"), False)
                self.assertIs(match_utils._match(self.modules, node, nn.Linear), False)
                self.assertIs(match_utils._match(self.modules, node, match_utils.MatchAllNode), True)

    def test_apply_match_follows_the_users_of_a_node(self):
        """A pattern matches from its first node on, every step by a user of the one before, and returns all nodes in order."""
        anything = match_utils.MatchAllNode
        for start, pattern, expected in (
            ("linear", (nn.Linear,), ["linear"]),
            ("linear", (nn.Linear, nn.ReLU), ["linear", "relu"]),
            ("relu", (nn.ReLU, torch.flatten, "sigmoid", "output"), ["relu", "flatten", "sigmoid", "output"]),
            ("input", (anything, nn.Linear, anything, torch.flatten), ["input", "linear", "relu", "flatten"]),
            ("linear", nn.Linear, ["linear"]),
            ("flatten", torch.flatten, ["flatten"]),
            ("linear", (nn.ReLU,), None),
            ("linear", nn.ReLU, None),
            ("linear", (nn.ReLU, nn.Linear), None),
            ("linear", (nn.Linear, nn.Linear), None),
            ("linear", (nn.Linear, torch.flatten), None),
            ("linear", (nn.Linear, nn.ReLU, nn.ReLU), None),
            ("relu", (nn.Linear, nn.ReLU), None),
            ("output", ("output", "output"), None),
            ("output", (anything, anything), None),
        ):
            with self.subTest(start=start, pattern=pattern):
                self.assertEqual(self.names(match_utils.apply_match(self.modules, pattern, self.nodes[start], [])), expected)

    def test_apply_match_appends_to_what_was_matched_before(self):
        """The nodes matched so far come first in the answer, and the caller's list is not changed."""
        before = [self.nodes["linear"]]
        matched = match_utils.apply_match(self.modules, (nn.ReLU, torch.flatten), self.nodes["relu"], before)
        self.assertEqual(self.names(matched), ["linear", "relu", "flatten"])
        self.assertEqual(len(before), 1)


class TestStructuredPruneFunctions(TestCase):
    MASK = torch.tensor([True, False, True, False])

    def biased(self, layer, bias=None, original=None):
        """The layer with these biases: ``bias`` as its own, ``original`` as the one that prepare() put aside."""
        layer.bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        if original is not None:
            layer._bias = nn.Parameter(torch.tensor(original))
        return layer

    def test_remove_bias_handles_removes_just_the_bias_hooks(self):
        """All BiasHooks of a module go, other forward hooks stay in order; something without hooks is no error."""
        linear = nn.Linear(2, 2)
        parametrization = FakeStructuredSparsity(torch.ones(2, dtype=torch.bool))
        others = [lambda *args: None, lambda *args: None]
        for hook in (BiasHook(parametrization, True), others[0], BiasHook(parametrization, False), others[1]):
            linear.register_forward_hook(hook)
        prune_functions._remove_bias_handles(linear)
        self.assertListEqual(list(linear._forward_hooks.values()), others)
        prune_functions._remove_bias_handles(torch.flatten)

    def test_prune_module_bias_keeps_the_rows_of_the_mask(self):
        """The bias put aside, or else the layer's own, is cut to the kept rows and becomes the layer's; none stays none."""
        for bias, original, expected in (
            (None, [1.0, 2, 3, 4], [1.0, 3]),
            ([5.0, 6, 7, 8], None, [5.0, 7]),
            (None, None, None),
        ):
            with self.subTest(bias=bias, original=original):
                layer = self.biased(nn.Linear(2, 4), bias, original)
                prune_functions._prune_module_bias(layer, self.MASK)
                self.assertEqual(None if layer.bias is None else layer.bias.tolist(), expected)
                self.assertIsInstance(layer.bias, (nn.Parameter, type(None)))
                self.assertFalse(hasattr(layer, "_bias"))

    def test_propagate_module_bias_returns_the_pruned_rows(self):
        """Kept rows become the layer's bias, pruned rows of the bias put aside are returned; none gives None."""
        for bias, original, expected, returned in (
            (None, [1.0, 2, 3, 4], [1.0, 3], [2.0, 4]),
            ([5.0, 6, 7, 8], [1.0, 2, 3, 4], [5.0, 7], [2.0, 4]),
            ([5.0, 6, 7, 8], None, [5.0, 7], None),
            (None, None, None, None),
        ):
            with self.subTest(bias=bias, original=original):
                layer = self.biased(nn.Linear(2, 4), bias, original)
                pruned = prune_functions._propagate_module_bias(layer, self.MASK)
                self.assertEqual(None if layer.bias is None else layer.bias.tolist(), expected)
                self.assertIsInstance(layer.bias, (nn.Parameter, type(None)))
                self.assertEqual(None if pruned is None else pruned.tolist(), returned)
                self.assertFalse(hasattr(layer, "_bias"))

    def test_adjusted_next_layer_bias_is_the_response_to_the_pruned_biases(self):
        """New bias = old bias + the layer's weight applied to a constant input that has the pruned biases in pruned channels."""
        pruned = torch.tensor([2.0, -3.0])
        constant = torch.tensor([0.0, 2.0, 0.0, -3.0])
        for kind, bias, is_prepared in itertools.product((nn.Linear, nn.Conv2d), (True, False), (True, False)):
            with self.subTest(layer=kind.__name__, bias=bias, prepared=is_prepared):
                layer = kind(4, 3, bias=bias) if kind is nn.Linear else kind(4, 3, (2, 3), bias=bias)
                x = constant if kind is nn.Linear else constant.reshape(1, 4, 1, 1).expand(1, 4, 2, 3)
                expected = layer(x).detach().flatten()
                if is_prepared:
                    prepared(Chain(layer), [entry("0.weight", 1)])
                adjusted = prune_functions._get_adjusted_next_layer_bias(layer, pruned, self.MASK)
                self.assertIsInstance(adjusted, nn.Parameter)
                torch.testing.assert_close(adjusted.detach(), expected)

    def test_adjusted_next_layer_bias_refuses_other_layers(self):
        """Only linear layers and two-dimensional convolutions can take a bias over."""
        with self.assertRaises(NotImplementedError):
            prune_functions._get_adjusted_next_layer_bias(nn.Conv1d(4, 2, 1), torch.zeros(2), self.MASK)


instantiate_parametrized_tests(TestSaliencyPruner)
instantiate_parametrized_tests(TestFPGMPruner)
instantiate_parametrized_tests(TestBaseStructuredSparsifier)

# Owner(s): ["module: sparse"]
"""Structured pruning: criteria, what prepare() adds, which chains match, and that pruned models compute what masked ones do."""

import contextlib
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

from ao.sparsity.testing import contracts

from ao.sparsity.testing.child import run_in_child
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


def patterns_in(model):
    """Those default patterns that a Chain, or the Chains of Branches, contain: the time of prune() grows with their number."""
    table = base_structured_sparsifier._get_default_structured_pruning_patterns()
    found = {}
    for chain in model.children() if isinstance(model, Branches) else [model]:
        steps = [
            chain.functions.get(place) or parametrize.type_before_parametrizations(chain.get_submodule(place)) for place in chain.places
        ]
        kinds = [operator.getitem if isinstance(step, operator.itemgetter) else getattr(step, "func", step) for step in steps] + ["output"]
        for first, last in itertools.combinations(range(len(kinds) + 1), 2):
            pattern = tuple(kinds[first:last])
            if pattern in table:
                found[pattern] = table[pattern]
    return found


def mask_of(module, name="weight"):
    """The mask that a prepared module holds for its parameter ``name``."""
    return next(step.mask for step in module.parametrizations[name] if isinstance(step, FakeStructuredSparsity))


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


class Scaled(nn.Module):
    """A parametrization that has nothing to do with pruning: the weight is twice its original."""

    def forward(self, weight):
        return weight * 2

    def right_inverse(self, weight):
        return weight / 2


class StructuredTestCase(TestCase):
    """Compares pruned models with masked ones."""

    def assertPrunedAsMasked(self, model, config, x, patterns=None, uncut=(), any_size=(), kept=None, hooks_left=()):
        """prune() must give the output of the plain model with rows zeroed by hand, the right sizes, and leave nothing behind.

        Args:
            uncut: paths of layers that stay as large as they are.
            any_size: paths of layers that may be cut or not.
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
            if path in rows and path not in any_size:
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

    def assertBranchesPrunedAsMasked(self, cases, config, x, uncut=(), any_size=(), hooks_left=()):
        """assertPrunedAsMasked for a list of Chains and entries like ``2.0.weight``, some of them at a time."""
        for start in range(0, len(cases), 12):
            model = Branches()
            for place in range(start, min(start + 12, len(cases))):
                model.add_module(str(place), cases[place])
            entries = [part for part in config if part["tensor_fqn"].partition(".")[0] in dict(model.named_children())]
            self.assertPrunedAsMasked(model, entries, x, uncut=uncut, any_size=any_size, hooks_left=hooks_left)

    def prune(self, model, config, patterns=None):
        """Prepare, mask the rows of the configuration, and prune; warnings of prune() are not what is asked here."""
        if patterns is None and isinstance(model, (Chain, Branches)):
            patterns = patterns_in(model)
        pruner = prepared(model, config, patterns=patterns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pruner.prune()

    def assertPrunedOrRefused(self, model, config, x, patterns=None):
        """prune() must give the masked output, or else raise and leave the prepared model as it is."""
        model.eval()
        with torch.no_grad(), zeroed(model, config):
            expected = model(x)
        pruner = prepared(model, config, patterns=patterns)
        try:
            result, how = pruner.prune(), "pruned"
        except Exception as error:
            result, how = model, f"refused ({error})"
        try:
            with torch.no_grad():
                actual = result(x)
        except Exception as error:
            raise AssertionError(f"{how}, and the model cannot run any more: {error}") from error
        self.assertTensorsClose(actual, expected, f"{how}: output is not that of the masked model")

    def assertRefused(self, model, config):
        """prune() must say that a layer keeps its mask."""
        pruner = prepared(model, config)
        with self.assertRaisesRegex(Exception, "still contains FakeStructuredSparsity"):
            pruner.prune()


@instantiate_parametrized_tests
@contracts.hold_for("saliency", "lstm_saliency")
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
        for hidden in (1, 2, 5):
            lstm = nn.LSTM(3, hidden, 2)
            weights = {name: getattr(lstm, name).detach().clone() for name in names}
            pruner = LSTMSaliencyPruner({"sparsity_level": 0.5})
            pruner.prepare(Chain(lstm), [{"tensor_fqn": f"0.{name}"} for name in names])
            for level in (0, 0.2, 0.5, 0.79, 1):
                with self.subTest(hidden=hidden, level=level):
                    for group, name in zip(pruner.groups, names):
                        group["sparsity_level"] = level
                        mask_of(lstm, name).fill_(True)
                    pruner.step()
                    for name in names:
                        self.assertListEqual(
                            mask_of(lstm, name).tolist(), structured.lstm_saliency_mask(weights[name], level).tolist(), msg=name
                        )

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
                with self.assertRaisesRegex(Exception, "^Structured pruning .* 2\\+dim"):
                    pruner.step()

    def test_saliency_refuses_a_mask_of_another_shape(self):
        """The saliency vector must have the shape of the mask."""
        pruner = SaliencyPruner({"sparsity_level": 0.5})
        pruner.prepare(Chain(nn.Linear(3, 4)), [{"tensor_fqn": "0.weight", "mask": torch.ones(4, 1, dtype=torch.bool)}])
        with self.assertRaisesRegex(AssertionError, "^(saliency shape .*)?$"):  # before torch 2.9: no text
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


@instantiate_parametrized_tests
@contracts.hold_for("fpgm")
class TestFPGMPruner(StructuredTestCase):
    # Three filters on a line, in the first and last of their 2 x 1 x 2 values: 0, 3 and 9 apart from the origin by L1.
    FILTERS = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 2], [3, 0, 0, 6]]).reshape(3, 2, 1, 2)

    def test_compute_distance(self):
        """The distance of a filter is the sum of its distances to all others: L1, L2 (the default) or the given function's."""
        root = 5**0.5

        def lopsided(rows):  # from i to j another distance than from j to i, and signed
            return rows[:, :1] - 2 * rows[:, :1].T

        for dist, expected in (
            (1, [3 + 9, 3 + 6, 9 + 6]),
            (2, [root + 3 * root, root + 2 * root, 3 * root + 2 * root]),
            (None, [root + 3 * root, root + 2 * root, 3 * root + 2 * root]),
            (lopsided, [0 + 2 + 6, 1 + 1 + 5, 3 + 1 + 3]),
        ):
            for tensor in (self.FILTERS, self.FILTERS.double(), self.FILTERS.reshape(3, 4), self.FILTERS.reshape(3, 4).T.contiguous().T):
                with self.subTest(dist=dist, shape=tuple(tensor.shape), dtype=tensor.dtype):
                    distance = FPGMPruner(dist=dist)._compute_distance(tensor)
                    self.assertEqual(distance.shape, (3,))
                    torch.testing.assert_close(distance, torch.tensor(expected, dtype=tensor.dtype), rtol=1e-5, atol=1e-5)
        self.assertEqual(FPGMPruner()._compute_distance(torch.tensor([0.0, 3.0, 9.0])).tolist(), [12, 9, 15])

    def test_update_mask(self):
        """Filters near to the others go first, whatever their norm, in one layer and in several with levels of their own."""
        # Norms 1, 5, 6, 20: the smallest norm stands apart, the two in the middle are nearest to all others.
        lines = torch.tensor([1.0, 5.0, 6.0, 20.0]).reshape(4, 1, 1, 1)
        model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 3, 1, bias=False), nn.Linear(4, 3))
        model[0].weight.data.copy_(lines)
        model[1].weight.data.copy_(self.FILTERS.reshape(3, 4, 1, 1))
        model[2].weight.data.copy_(self.FILTERS.reshape(3, 4))
        pruner = FPGMPruner(0.5)
        pruner.prepare(
            model,
            [
                {"tensor_fqn": "0.weight"},
                {"tensor_fqn": "1.weight", "sparsity_level": 0.34},
                {"tensor_fqn": "2.weight", "sparsity_level": 0.7},
            ],
        )
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
        for shape, dist in itertools.product(((5, 2, 2, 1), (1, 2, 1, 1), (6, 4)), (1, 2)):
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
        distance = functools.partial(torch.cdist)
        self.assertIs(FPGMPruner(dist=distance).dist_fn, distance)
        for dist in (0, 4, "l2"):
            with self.subTest(dist=dist), self.assertRaisesRegex(NotImplementedError, "^Distance"):
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


@instantiate_parametrized_tests
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
            (
                base_structured_sparsifier._get_supported_activation_functions,
                {getattr(F, name) for name in structured.ACTIVATION_FUNCTIONS},
            ),
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

    def test_prune_linear_activation_linear(self):
        """linear -> activation -> linear: pruned equals masked for every supported activation, module or function."""
        cases, config = [], []
        for place, (_, step, _) in enumerate(activation_steps()):
            config.append(entry(f"{place}.0.weight", 1, 3, prune_bias=False))
            cases.append(Chain(nn.Linear(3, 5), step, nn.Linear(5, 2)))
        self.assertBranchesPrunedAsMasked(cases, config, values(5, 3))
        cases, config = [], []
        for place, (step, bias) in enumerate(itertools.product((nn.Tanh(), nn.PReLU(), F.gelu), (True, False))):
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
        x, table = values(2, 2, 3, 3), base_structured_sparsifier._get_default_structured_pruning_patterns()
        for place, (name, step, zero_stays) in enumerate(activation_steps()):
            prune_bias = zero_stays and place % 2 == 0
            with self.subTest(activation=name, prune_bias=prune_bias), torch.no_grad():
                chain = Chain(nn.Conv2d(2, 4, 2, bias=not prune_bias or place % 4 == 0), step, nn.Conv2d(4, 2, 1)).eval()
                first, second = chain.get_submodule("0"), chain.get_submodule("2")
                config = [entry("0.weight", 1, 3, prune_bias=prune_bias)]
                with zeroed(chain, config):
                    expected = chain(x)
                prepared(chain, config, patterns={})
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

    def test_prune_refuses_columns_that_are_no_multiple_of_the_channels(self):
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
        pruner = prepared(model, config, patterns=patterns_in(model))
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruned = pruner.prune()
        torch.testing.assert_close(pruned(values(2, 2, 4, 4)).detach(), expected)

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

    def test_prune_keeps_what_other_parametrizations_of_a_weight_make_of_it(self):
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
                pruner = prepared(chain, [entry("0.weight", 1, prune_bias=False)], patterns=patterns_in(chain))
                if not before:
                    parametrize.register_parametrization(chain.get_submodule("0"), "weight", Scaled())
                x = values(5, 3) if isinstance(first, nn.Linear) else values(2, 3, 4, 4)
                with self.subTest(layer=type(first).__name__, padding=getattr(second, "padding", None), before=before), torch.no_grad():
                    expected = chain(x)
                    self.assertTensorsClose(pruner.prune()(x), expected, "pruned is not masked")

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
        model = Chain(
            nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2), nn.Linear(2, 1)
        )
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
            (
                "conv2d -> activation -> adaptive pool -> flatten -> linear",
                Chain(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1)),
            ),
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
        self.assertEqual([[getattr(part, "func", part) for part in parts] for parts in calls], [[first, dropout, F.hardtanh, last]])
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
                out = torch.zeros_like(out).index_copy(
                    -1, torch.tensor(kept), F.layer_norm(out[..., kept], (len(kept),), norm.weight[kept], norm.bias[kept])
                )
            expected = last(linear(out))
        pruned = self.prune(model, config)
        with torch.no_grad():
            self.assertTensorsClose(pruned(x), expected, "pruned is not masked")
        self.assertIs(pruned.get_submodule("0"), lstm)
        self.assertFalse(any(parametrize.is_parametrized(module) for module in pruned.modules()))
        sizes = [self.HIDDEN - len(pruned_units) for pruned_units in units]
        self.assertEqual((lstm.hidden_size, linear.in_features, linear.weight.shape[1]), (sizes[-1],) * 3)
        self.assertIs(type(lstm.hidden_size), int)
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
        for units, options in (
            ([(1,), (2,)], {"dropout": 0.5}),
            ([(0, 3), (1, 2)], {"prepare_linear": True}),
            ([(2,), (0,), (3,)], {"batch_first": True}),
        ):
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

    def test_prune_lstm_cuts_each_gate_by_its_own_mask(self):
        """Comment: "resize each individual weight separately"; what follows loses the columns of the units without an output gate."""
        for prepare_linear in (False, True):
            lstm, norm, linear = nn.LSTM(3, 4, 2), nn.LayerNorm(4), nn.Linear(4, 3)
            nn.init.normal_(norm.weight)
            before = {name: parameter.detach().clone() for name, parameter in lstm.named_parameters()}
            scale, columns = norm.weight.detach().clone(), linear.weight.detach().clone()
            lost = [(0, 1, 2, 3), (1, 2, 3, 0)]  # for each layer, the unit that each gate loses: input, forget, cell, output
            config = [
                entry(f"0.weight_{kind}_l{layer}", *(4 * gate + unit for gate, unit in enumerate(units)))
                for layer, units in enumerate(lost)
                for kind in ("ih", "hh")
            ]
            model = Chain(lstm, operator.itemgetter(0), norm, linear, nn.Linear(3, 2))
            with contextlib.suppress(ValueError, NotImplementedError):  # to refuse such masks is right, too
                self.prune(model, config + [entry("3.weight", prune_bias=False)] * prepare_linear)
                kept = [[[unit for unit in range(4) if unit != gone] for gone in units] for units in lost]
                for layer, gates in enumerate(kept):
                    own = torch.cat([before[f"weight_hh_l{layer}"].split(4)[gate][units][:, units] for gate, units in enumerate(gates)])
                    self.assertEqual(getattr(lstm, f"weight_hh_l{layer}"), own, f"recurrent weight of layer {layer}")
                    rows = torch.cat([before[f"weight_ih_l{layer}"].split(4)[gate][units] for gate, units in enumerate(gates)])
                    own = rows[:, kept[0][3]] if layer else rows
                    self.assertEqual(getattr(lstm, f"weight_ih_l{layer}"), own, f"input weight of layer {layer}")
                self.assertEqual(norm.weight, scale[kept[1][3]], f"norm, with prepare_linear={prepare_linear}")
                self.assertEqual(linear.weight, columns[:, kept[1][3]], f"linear, with prepare_linear={prepare_linear}")

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
        rows = [1, 4, 7, 10]
        for others in ([], [entry("0.weight_hh_l1")]):
            with self.subTest(prepared_besides=others):
                lstm, linear = nn.LSTM(3, 3, 2), nn.Linear(3, 2)
                before = lstm.weight_ih_l1.detach().clone()
                prepared(Chain(lstm), [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows), *others])
                prune_functions.prune_lstm_output_linear(lstm, operator.getitem, linear)
                self.assertEqual(lstm.weight_ih_l1, before[:, [0, 2]])
                self.assertEqual(linear.weight.shape, (2, 3))

    def test_prune_lstm_keeps_what_other_parametrizations_of_a_weight_make_of_it(self):
        """An LSTM of which a weight has another parametrization besides the mask is cut to the rows that it computes with."""
        rows = [1, 4, 7, 10]
        for name in ("weight_ih_l0", "weight_hh_l0"):
            with self.subTest(parametrized=name):
                chain = Chain(nn.LSTM(3, 3), operator.itemgetter(0), nn.Linear(3, 2))
                lstm = chain.get_submodule("0")
                lstm.bias_ih_l0.data[rows] = lstm.bias_hh_l0.data[rows] = 0
                pruner = prepared(chain, [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows)], patterns=patterns_in(chain))
                parametrize.register_parametrization(lstm, name, Scaled())
                with torch.no_grad():
                    expected = chain(values(4, 2, 3))
                    self.assertTensorsClose(pruner.prune()(values(4, 2, 3)), expected, "pruned is not masked")

    def test_prune_refuses_recurrent_chains_that_no_pattern_covers(self):
        """An LSTM followed by anything but linear or layernorm and linear, and other recurrent layers, are errors."""
        cases = (
            ("activation between", Chain(nn.LSTM(2, 2), operator.itemgetter(0), nn.ReLU(), nn.Linear(2, 1)), "0.weight_ih_l0"),
            ("whole output", Chain(nn.LSTM(2, 2)), "0.weight_hh_l0"),
            ("last state", Chain(nn.LSTM(2, 2), operator.itemgetter(1), operator.itemgetter(0), nn.Linear(2, 1)), "0.weight_hh_l0"),
            ("gated recurrent unit", Chain(nn.GRU(2, 2), operator.itemgetter(0), nn.Linear(2, 1)), "0.weight_hh_l0"),
        )
        self.assertRefused(
            Branches(*(chain for _, chain, _ in cases)), [entry(f"{place}.{fqn}", 1) for place, (_, _, fqn) in enumerate(cases)]
        )
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


class TestStructuredMatching(TestCase):
    """apply_match on the graph of x -> linear -> relu -> flatten -> exp, a method, of a traced model."""

    def setUp(self):
        super().setUp()
        self.model = Chain(nn.Linear(2, 2), nn.ReLU(), torch.flatten, lambda x: x.exp())
        traced = symbolic_trace(self.model)
        self.modules = dict(traced.named_modules())
        self.nodes = dict(zip(("input", "linear", "relu", "flatten", "exp", "output"), traced.graph.nodes, strict=True))

    def names(self, matched):
        return None if matched is None else [name for node in matched for name, known in self.nodes.items() if known is node]

    def test_match_compares_one_node(self):
        """A class matches calls of modules of just that class, a function calls of it, a string its target, MatchAllNode all."""
        everything = {"input", "linear", "relu", "flatten", "exp", "output"}

        class AllNodes(match_utils.MatchAllNode):
            pass

        for current, expected in (
            (nn.Linear, {"linear"}),
            (nn.ReLU, {"relu"}),
            (nn.Module, set()),
            (torch.flatten, {"flatten"}),
            (torch.relu, set()),
            (torch.exp, set()),
            ("output", {"output"}),
            ("exp", {"exp"}),
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
            ("relu", (nn.ReLU, torch.flatten, "exp", "output"), ["relu", "flatten", "exp", "output"]),
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
        name = (
            "_propagate_module_bias" if hasattr(prune_functions, "_propagate_module_bias") else "_propogate_module_bias"
        )  # spelled so in torch 2.1
        propagate = getattr(prune_functions, name)
        for bias, original, expected, returned in (
            (None, [1.0, 2, 3, 4], [1.0, 3], [2.0, 4]),
            ([5.0, 6, 7, 8], [1.0, 2, 3, 4], [5.0, 7], [2.0, 4]),
            ([5.0, 6, 7, 8], None, [5.0, 7], None),
            (None, None, None, None),
        ):
            with self.subTest(bias=bias, original=original):
                layer = self.biased(nn.Linear(2, 4), bias, original)
                pruned = propagate(layer, self.MASK)
                self.assertEqual(None if layer.bias is None else layer.bias.tolist(), expected)
                self.assertIsInstance(layer.bias, (nn.Parameter, type(None)))
                self.assertEqual(None if pruned is None else pruned.tolist(), returned)
                self.assertFalse(hasattr(layer, "_bias"))

    def test_prune_conv2d_padded_without_any_bias_takes_only_the_mask_away(self):
        """A convolution that has no bias to keep keeps its masked weight, and gets none."""
        conv = nn.Conv2d(1, 2, 1, bias=False)
        prepared(Chain(conv), [entry("0.weight", 1)])
        masked = conv.weight.detach().clone()
        prune_functions.prune_conv2d_padded(conv)
        self.assertEqual((conv.weight, conv.bias), (masked, None))
        self.assertFalse(parametrize.is_parametrized(conv))

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
        with self.assertRaisesRegex(NotImplementedError, "Conv1d"):
            prune_functions._get_adjusted_next_layer_bias(nn.Conv1d(4, 2, 1), torch.zeros(2), self.MASK)


class TestPruningCriteriaDefects(StructuredTestCase):
    """Known defects of SaliencyPruner, LSTMSaliencyPruner and FPGMPruner."""

    def steps(self, pruner, model, fqn="0.weight", number=1):
        """The mask after ``number`` steps on one tensor of a model."""
        pruner.prepare(model, [{"tensor_fqn": fqn}])
        for _ in range(number):
            pruner.step()
        path, _, name = fqn.rpartition(".")
        return mask_of(model.get_submodule(path), name)

    @known_defect("fpgm-drifts-above-level")
    def test_fpgm_prunes_no_more_filters_in_a_second_step(self):
        """The level defines the number of filters that are zeroed, however often step() is called."""
        weight = torch.rand(8, 2, 1, 1, generator=torch.Generator().manual_seed(0))
        model = Chain(nn.Conv2d(2, 8, 1))
        model.get_submodule("0").weight.data.copy_(weight)
        mask = self.steps(FPGMPruner(0.25), model, number=4)
        self.assertListEqual(mask.tolist(), structured.fpgm_mask(weight, 0.25).tolist(), msg="filters after four steps")

    @known_defect("fpgm-crashes-on-bfloat16")
    def test_fpgm_prunes_bfloat16_weights(self):
        """A bfloat16 weight is pruned as by SaliencyPruner, as far as its numbers tell the filters apart."""
        model = Chain(nn.Linear(1, 4))
        model.get_submodule("0").weight.data.copy_(torch.tensor([[0.0], [2.0], [3.0], [16.0]]))
        model.to(torch.bfloat16)
        self.assertListEqual(self.steps(FPGMPruner(0.5), model).tolist(), [True, False, False, True])

    @known_defect("fpgm-distances-lose-digits-beyond-25-filters")
    def test_fpgm_distances_of_many_filters_are_as_exact_as_those_of_few(self):
        """With 26 filters distances are as near to the oracle's as with 25."""
        weight = 100 + torch.rand(26, 8, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.1
        for filters in (25, 26):
            actual = FPGMPruner()._compute_distance(weight[:filters]).numpy()
            expected = structured.total_distances(weight[:filters].numpy(), 2)
            self.assertLess(abs(actual - expected).max() / expected.max(), 1e-3, msg=f"relative error of distances among {filters} filters")

    @known_defect("fpgm-names-a-default-distance-that-it-refuses")
    def test_fpgm_accepts_the_default_distance_that_its_documentation_names(self):
        """`dist` may be given as the number that the docstring calls the default."""
        self.skip_without_docstrings()
        default = int(FPGMPruner.__doc__.partition("Default: ")[2].split()[0])
        torch.testing.assert_close(FPGMPruner(dist=default)._compute_distance(values(3, 2)), FPGMPruner()._compute_distance(values(3, 2)))

    @known_defect("fpgm-copy-loses-its-distance")
    def test_fpgm_copy_keeps_its_distance(self):
        """A deep copy of a pruner measures as the original does."""
        pruner = FPGMPruner(dist=1)
        torch.testing.assert_close(copy.deepcopy(pruner)._compute_distance(values(3, 2)), pruner._compute_distance(values(3, 2)))

    @known_defect("fpgm-takes-the-first-parametrization-for-its-mask")
    def test_fpgm_finds_its_mask_behind_another_parametrization(self):
        """The mask is found wherever it stands in the list of parametrizations, as LSTMSaliencyPruner finds it."""
        model = Chain(nn.Linear(2, 4, bias=False))
        parametrize.register_parametrization(model.get_submodule("0"), "weight", Scaled())
        self.steps(FPGMPruner(0.5), model)
        self.assertEqual(int(model.get_submodule("0").parametrizations.weight[1].mask.sum()), 2)

    @known_defect("saliency-takes-the-first-parametrization-for-its-mask")
    def test_saliency_finds_its_mask_behind_another_parametrization(self):
        """The mask is found wherever it stands in the list of parametrizations, as LSTMSaliencyPruner finds it."""
        model = Chain(nn.Linear(2, 4, bias=False))
        parametrize.register_parametrization(model.get_submodule("0"), "weight", Scaled())
        self.steps(SaliencyPruner({"sparsity_level": 0.5}), model)
        self.assertEqual(int(model.get_submodule("0").parametrizations.weight[1].mask.sum()), 2)

    @known_defect("saliency-crashes-on-levels-outside-zero-to-one")
    def test_saliency_takes_levels_outside_zero_to_one_for_zero_and_one(self):
        """Levels below 0 prune nothing and above 1 everything, as FPGMPruner and WeightNormSparsifier have it."""
        for level, kept in ((-0.5, 4), (1.5, 0)):
            mask = self.steps(SaliencyPruner({"sparsity_level": level}), Chain(nn.Linear(2, 4)))
            self.assertEqual(int(mask.sum()), kept)

    @known_defect("saliency-gives-no-row-back")
    def test_saliency_gives_rows_back_at_a_lower_level(self):
        """The mask is that of the present level: at level 0 every row is kept, as FPGMPruner and WeightNormSparsifier have it."""
        pruner, model = SaliencyPruner({"sparsity_level": 0.5}), Chain(nn.Linear(2, 4))
        mask = self.steps(pruner, model)
        pruner.groups[0]["sparsity_level"] = 0
        pruner.step()
        self.assertListEqual(mask.tolist(), [True] * 4, msg="rows kept at level 0")

    @known_defect("lstm-saliency-gives-no-row-back")
    def test_lstm_saliency_gives_rows_back_at_a_lower_level(self):
        """The mask is that of the present level: at level 0 every row is kept, as FPGMPruner and WeightNormSparsifier have it."""
        pruner, model = LSTMSaliencyPruner({"sparsity_level": 0.5}), Chain(nn.LSTM(2, 2))
        mask = self.steps(pruner, model, "0.weight_ih_l0")
        pruner.groups[0]["sparsity_level"] = 0
        pruner.step()
        self.assertListEqual(mask.tolist(), [True] * 8, msg="rows kept at level 0")

    @known_defect("saliency-loses-a-row-to-rounding")
    def test_saliency_reaches_a_level_that_is_a_whole_number_of_rows(self):
        """0.29 of 100 rows are 29 rows."""
        mask = self.steps(SaliencyPruner({"sparsity_level": 0.29}), Chain(nn.Linear(1, 100)))
        self.assertEqual(int((~mask).sum()), 29, msg="rows pruned of 100 at level 0.29")

    @known_defect("lstm-saliency-loses-a-row-to-rounding")
    def test_lstm_saliency_reaches_a_level_that_is_a_whole_number_of_rows(self):
        """0.29 of each gate's 100 rows are 29 rows."""
        mask = self.steps(LSTMSaliencyPruner({"sparsity_level": 0.29}), Chain(nn.LSTM(1, 100)), "0.weight_ih_l0")
        self.assertListEqual([int((~gate).sum()) for gate in mask.split(100)], [29] * 4, msg="rows pruned of 4 gates of 100 at level 0.29")


class TestStructuredPreparationDefects(StructuredTestCase):
    """Known defects of prepare(), of the prepared model, and of taking the preparation back."""

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


class TestStructuredPruningDefects(StructuredTestCase):
    """Known defects of prune()."""

    def check(self, chain, *rows, x=None, test=None, fqn="0.weight", **options):
        """Prune rows of the chain's first layer and ask for the masked output."""
        first = chain.get_submodule("0")
        if x is None:
            x = values(5, first.in_features) if isinstance(first, nn.Linear) else values(2, first.in_channels, 5, 5)
        (test or self.assertPrunedAsMasked)(chain, [entry(fqn, *rows, **options)], x, patterns_in(chain))

    # Biases

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
        self.check(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("bias-is-propagated-through-the-original-of-a-parametrized-weight")
    def test_prune_propagates_a_bias_through_the_weight_that_is_used(self):
        """What a pruned bias contributes to a parametrized next layer goes by the weight that the layer computes with."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
        parametrize.register_parametrization(chain.get_submodule("1"), "weight", Scaled())
        self.check(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("linear-rows-are-dropped-though-the-activation-of-zero-is-not-zero")
    def test_prune_linear_keeps_what_an_activation_makes_of_zero(self):
        """A masked row gives sigmoid(0) = 0.5 to the next layer; all activations with f(0) != 0 are supported ones."""
        for activation in (nn.Sigmoid(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Softplus(), F.softplus):
            self.check(Chain(nn.Linear(3, 4), activation, nn.Linear(4, 2)), 1, test=self.assertPrunedOrRefused)

    @known_defect("conv2d-filters-are-dropped-though-the-activation-of-zero-is-not-zero")
    def test_prune_conv2d_keeps_what_an_activation_makes_of_zero(self):
        """A masked filter without bias gives sigmoid(0) = 0.5 to the next layer."""
        for activation in (nn.Sigmoid(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Softplus(), F.softplus):
            self.check(Chain(nn.Conv2d(1, 4, 1, bias=False), activation, nn.Conv2d(4, 2, 1)), 1, test=self.assertPrunedOrRefused)

    @known_defect("bias-is-propagated-through-an-activation-without-its-arguments")
    def test_prune_propagates_a_bias_through_the_activation_as_it_is_called(self):
        """leaky_relu(x, 0.5) is applied to the pruned bias with that slope, not with the default one."""
        chain = Chain(nn.Linear(3, 4), functools.partial(F.leaky_relu, negative_slope=0.5), nn.Linear(4, 2))
        chain.get_submodule("0").bias.data[1] = -3
        self.check(chain, 1, prune_bias=False)

    @known_defect("functional-prelu-crashes-where-a-bias-is-propagated")
    def test_prune_propagates_a_bias_through_functional_prelu(self):
        """F.prelu is a supported activation; it cannot be called without its weight."""
        self.check(Chain(nn.Linear(3, 4), functools.partial(F.prelu, weight=torch.tensor([0.3])), nn.Linear(4, 2)), 1, prune_bias=False)

    @known_defect("bias-is-propagated-as-if-average-pools-had-no-padding")
    def test_prune_keeps_the_border_of_a_padded_average_pool(self):
        """Behind AvgPool2d(padding=1) a constant channel is smaller at the border, so its bias cannot simply move on."""
        self.check(
            Chain(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 2, 1)),
            1,
            2,
            test=self.assertPrunedOrRefused,
            prune_bias=False,
        )

    @known_defect("bias-is-propagated-as-if-average-pools-kept-constants")
    def test_prune_propagates_a_bias_through_the_divisor_of_an_average_pool(self):
        """AvgPool2d(2, divisor_override=1) makes four of a constant one, and so of a pruned bias."""
        self.check(
            Chain(nn.Conv2d(1, 4, 1), nn.Tanh(), nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(4, 2, 1)),
            1,
            2,
            test=self.assertPrunedOrRefused,
            prune_bias=False,
        )

    @known_defect("pruned-bias-survives-before-a-padded-conv2d")
    def test_prune_bias_before_a_padded_conv2d_drops_it(self):
        """With prune_bias=True the pruned bias is gone, whether or not the model has run between step() and prune()."""
        self.check(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1)), 1, test=self.assertPrunedOrRefused)

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
        self.check(
            Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double(),
            x=values(2, 1, 5, 5).double(),
            prune_bias=False,
        )

    @known_defect("conv2d-without-bias-before-flatten-crashes")
    def test_prune_conv2d_without_bias_before_flatten(self):
        """conv2d -> adaptive pool -> flatten -> linear is supported with bias=False too."""
        self.check(Chain(nn.Conv2d(1, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), 1)

    # What is left behind

    @known_defect("pruned-layer-keeps-the-attribute-prune-bias")
    def test_prune_leaves_no_attribute_behind(self):
        """After prune() a layer has the attributes of a new one."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
        before = set(vars(chain.get_submodule("0")))
        self.prune(chain, [entry("0.weight", 1)])
        self.assertSetEqual(set(vars(chain.get_submodule("0"))), before, msg="attributes of the pruned layer")

    @known_defect("padded-conv2d-keeps-its-bias-hook")
    def test_prune_before_a_padded_conv2d_leaves_no_hook(self):
        """A pruned model can be prepared again, also where the next convolution is padded, and computes the same."""
        chain = Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1))
        self.prune(chain, [entry("0.weight", 1, prune_bias=False)])
        expected = chain(values(2, 1, 5, 5))
        RowPruner().prepare(chain, [entry("0.weight", prune_bias=False)])
        self.assertTensorsClose(chain(values(2, 1, 5, 5)), expected, "prepared again: output")

    @known_defect("prune-runs-the-hooks-of-activations")
    def test_prune_runs_no_hook_of_the_model(self):
        """prune() changes weights: an observer on an activation must not see a bias for an input."""
        chain, calls = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), []
        chain.get_submodule("1").register_forward_hook(lambda module, args, output: calls.append(tuple(output.shape)))
        self.prune(chain, [entry("0.weight", 1, prune_bias=False)])
        self.assertListEqual(calls, [], msg="shapes that a hook on the activation has seen")

    @known_defect("prune-makes-frozen-parameters-trainable")
    def test_prune_leaves_frozen_parameters_frozen(self):
        """What does not require a gradient before prune() does not require one afterwards."""
        chain = Chain(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
        chain.requires_grad_(False)
        self.prune(chain, [entry("0.weight", 1)])
        self.assertListEqual(
            [name for name, parameter in chain.named_parameters() if parameter.requires_grad], [], msg="parameters that can be trained now"
        )

    @known_defect("refused-prune-has-already-cut-layers")
    def test_refused_prune_leaves_the_model_as_it_is(self):
        """prune() raises if a masked layer is left over; what it cannot prune it must not have begun to prune."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2))
        pruner = prepared(chain, [entry("0.weight", 1), entry("1.weight", 2)], patterns=patterns_in(chain))
        with self.assertRaisesRegex(Exception, "still contains FakeStructuredSparsity"):
            pruner.prune()
        self.assertEqual(chain.get_submodule("0").weight.shape, (4, 3), msg="rows of the first layer after a refused prune()")

    # Matching

    @known_defect("layer-with-several-consumers-is-cut-for-the-first-alone")
    def test_prune_sees_every_consumer_of_a_layer(self):
        """A layer that feeds two others is cut in both or refused."""

        class Fork(Chain):
            def forward(self, x):
                x = getattr(self, "0")(x)
                return getattr(self, "1")(x) + getattr(self, "2")(x)

        self.check(Fork(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)), 1, test=self.assertPrunedOrRefused)

    @known_defect("consumer-of-several-layers-is-cut-for-one-alone")
    def test_prune_sees_every_layer_that_feeds_the_next(self):
        """A layer that gets the output of a pruned and of another layer is cut for neither."""

        class Join(Chain):
            def forward(self, x):
                return getattr(self, "1")(getattr(self, "0")(x)) + getattr(self, "1")(getattr(self, "2")(x))

        self.check(Join(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(3, 4)), 1, test=self.assertPrunedOrRefused)

    @known_defect("layer-that-feeds-itself-is-cut-for-its-own-output")
    def test_prune_sees_a_layer_that_feeds_itself(self):
        """A layer that is applied twice running has rows for its own columns and columns for the model's input."""
        layer = nn.Linear(3, 3)
        self.check(Chain(layer, nn.ReLU(), layer), 1, test=self.assertPrunedOrRefused)

    @known_defect("lstm-with-initial-states-is-cut-without-them")
    def test_prune_sees_the_initial_states_of_an_lstm(self):
        """An LSTM that is called with its initial states needs them as large as its hidden size: refused, or states cut."""

        class Started(Chain):
            def forward(self, x):
                state = x.new_zeros(1, 2, 4)
                return getattr(self, "2")(getattr(self, "0")(x, (state, state))[0])

        chain = Started(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2))
        rows = (1, 5, 9, 13)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(chain.get_submodule("0"), name).data[list(rows)] = 0
        config = [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows)]
        self.assertPrunedOrRefused(
            chain, config, values(5, 2, 3), {(nn.LSTM, operator.getitem, nn.Linear): prune_functions.prune_lstm_output_linear}
        )

    @known_defect("prune-crashes-where-the-model-reads-the-weight")
    def test_prune_takes_a_model_that_reads_the_weight_itself(self):
        """A model may use the weight of a pruned layer besides calling the layer, in a penalty say."""

        class Penalized(Chain):
            def forward(self, x):
                return super().forward(x) + getattr(self, "0").weight.abs().sum()

        chain = Penalized(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1)], values(5, 3))

    @known_defect("submodule-called-output-matches-the-output")
    def test_prune_takes_a_submodule_called_output_for_a_layer(self):
        """(nn.Linear, "output") is a linear layer at the output of the model, whatever the names of the modules are."""
        model = nn.Sequential()
        model.add_module("first", nn.Linear(3, 4))
        model.add_module("output", nn.Linear(4, 2))
        patterns = {(nn.Linear, "output"): prune_functions.prune_linear, (nn.Linear, nn.Linear): prune_functions.prune_linear_linear}
        self.assertPrunedAsMasked(model, [entry("first.weight", 1)], values(5, 3), patterns)

    @known_defect("functional-sigmoid-and-tanh-never-match")
    def test_prune_matches_functional_sigmoid_and_tanh(self):
        """F.sigmoid and F.tanh are in the table of supported activations."""
        for function in (F.tanh, F.sigmoid):
            chain = Chain(nn.Linear(3, 4), function, nn.Linear(4, 2))
            self.assertPrunedAsMasked(chain, [entry("0.weight", 1, prune_bias=False)], values(5, 3))

    @known_defect("custom-pattern-loses-the-methods-that-it-matches")
    def test_prune_hands_every_node_of_a_custom_pattern_over(self):
        """A pattern of three nodes gives its function three parts, a method that was called among them."""
        chain = Chain(nn.Linear(3, 4), lambda x: x.relu(), nn.Linear(4, 2))
        calls = []

        def record(*parts):
            calls.append(len(parts))
            prune_functions.prune_linear_linear(parts[0], parts[-1])

        self.prune(chain, [entry("0.weight", 1)], {(nn.Linear, match_utils.MatchAllNode, nn.Linear): record})
        self.assertListEqual(calls, [3], msg="parts of the match")

    @known_defect("patterns-after-a-match-are-tried-at-its-last-node")
    def test_prune_tries_every_pattern_at_every_node(self):
        """Patterns that begin at the same layer are all applied to it, in the order of the table."""
        chain = Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        patterns = {(nn.Linear, nn.ReLU): lambda *parts: None, **patterns_in(chain)}
        self.assertPrunedAsMasked(chain, [entry("0.weight", 1)], values(5, 3), patterns)

    @known_defect("root-layer-is-not-pruned-and-loses-its-bias")
    def test_prune_takes_a_layer_that_is_the_model(self):
        """A model that is one layer is prepared; prune() cuts it or refuses."""
        self.assertPrunedOrRefused(nn.Linear(3, 4), [entry("weight", 1, prune_bias=False)], values(5, 3), {})

    # Options of layers

    @known_defect("next-conv2d-with-padding-by-name-crashes")
    def test_prune_before_a_conv2d_whose_padding_is_a_name(self):
        """nn.Conv2d takes padding="same" and "valid"."""
        for padding in ("valid", "same"):
            chain = Chain(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 3, padding=padding))
            self.check(chain, 1)

    @known_defect("next-conv2d-with-groups-is-not-refused")
    def test_prune_before_a_grouped_conv2d(self):
        """Channels of a grouped convolution cannot be cut one by one: pruned right or refused, with the model intact."""
        self.check(Chain(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, groups=2)), 1, test=self.assertPrunedOrRefused)

    @known_defect("depthwise-conv2d-is-not-refused")
    def test_prune_of_a_depthwise_conv2d(self):
        """Filters of a grouped convolution cannot be cut one by one: pruned right or refused, with the model intact."""
        self.check(Chain(nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 2, 1)), 1, test=self.assertPrunedOrRefused)

    @known_defect("conv2d-without-any-filter-left-cannot-run")
    def test_prune_of_every_filter(self):
        """A level of 1 masks every filter, FPGMPruner says so: the model is pruned to one that runs, or refused."""
        self.check(Chain(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)), 0, 1, test=self.assertPrunedOrRefused)

    @known_defect("flatten-of-another-dimension-is-taken-for-that-of-channels")
    def test_prune_before_a_flatten_that_keeps_the_channels(self):
        """Behind Flatten(2) the columns of the linear layer are places, not channels: pruned right or refused."""
        self.check(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(2), nn.Linear(4, 2)), 1, test=self.assertPrunedOrRefused)

    @known_defect("prelu-with-a-weight-per-channel-is-not-cut")
    def test_prune_before_a_prelu_with_a_weight_per_channel(self):
        """nn.PReLU(channels) is a supported activation; its weights follow the channels."""
        self.check(Chain(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2)), 1, test=self.assertPrunedOrRefused)

    @known_defect("mask-of-the-next-layer-is-not-cut")
    def test_prune_before_a_layer_with_an_elementwise_mask(self):
        """A next layer that WeightNormSparsifier has prepared is cut with its mask, or refused."""
        from torch.ao.pruning import FakeSparsity

        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
        parametrize.register_parametrization(chain.get_submodule("1"), "weight", FakeSparsity(torch.ones(2, 4)))
        self.check(chain, 1, test=self.assertPrunedOrRefused)

    @known_defect("weight-norm-of-the-next-layer-is-not-refused")
    def test_prune_before_a_layer_with_weight_norm(self):
        """A next layer with torch's own weight_norm is cut, or refused with the model intact."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
        chain.add_module("1", nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
        self.assertPrunedOrRefused(
            chain, [entry("0.weight", 1)], values(5, 3), {(nn.Linear, nn.Linear): prune_functions.prune_linear_linear}
        )

    @known_defect("parametrized-bias-of-the-next-layer-crashes")
    def test_prune_before_a_layer_with_a_parametrized_bias(self):
        """A next layer of which only the bias has a parametrization is cut, or refused with the model intact."""
        chain = Chain(nn.Linear(3, 4), nn.Linear(4, 2))
        parametrize.register_parametrization(chain.get_submodule("1"), "bias", Scaled())
        self.assertPrunedOrRefused(
            chain, [entry("0.weight", 1)], values(5, 3), {(nn.Linear, nn.Linear): prune_functions.prune_linear_linear}
        )

    # LSTM

    def lstm_chain(self, lstm, *steps, silent=(1, 5, 9, 13)):
        """lstm -> getitem -> steps, with biases of zero in the ``silent`` rows, so that masked units stay zero."""
        with torch.no_grad():
            for name, parameter in lstm.named_parameters():
                if name.startswith("bias"):
                    parameter[list(silent)] = 0
        return Chain(lstm, operator.itemgetter(0), *steps)

    def check_lstm(self, chain, *config):
        """Ask for the masked output of an LSTM that is called with (length 5, batch 2, 3 features)."""
        config = config or (entry("0.weight_ih_l0", 1, 5, 9, 13), entry("0.weight_hh_l0", 1, 5, 9, 13))
        norm = any(isinstance(module, nn.LayerNorm) for module in chain.children())
        patterns = {(nn.LSTM, operator.getitem, nn.Linear): prune_functions.prune_lstm_output_linear}
        if norm:
            patterns = {(nn.LSTM, operator.getitem, nn.LayerNorm, nn.Linear): prune_functions.prune_lstm_output_layernorm_linear}
        self.assertPrunedOrRefused(chain, list(config), values(5, 2, 3), patterns)

    @known_defect("lstm-units-of-which-the-bias-lives-on-are-dropped")
    def test_prune_lstm_gives_the_output_of_the_masked_model(self):
        """What prepare() shows is what prune() gives: a masked unit of an LSTM still has its biases, or they are masked too."""
        chain = Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2))
        chain.get_submodule("0").bias_ih_l0.data.fill_(0.5)
        rows = (1, 5, 9, 13)
        pruner = prepared(
            chain,
            [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows)],
            patterns={(nn.LSTM, operator.getitem, nn.Linear): prune_functions.prune_lstm_output_linear},
        )
        with torch.no_grad():
            expected = chain(values(5, 2, 3))
            self.assertTensorsClose(pruner.prune()(values(5, 2, 3)), expected, "pruned is not masked")

    @known_defect("lstm-gates-masked-in-different-units-are-mixed-up")
    def test_prune_lstm_keeps_the_gates_of_a_unit_together(self):
        """LSTMSaliencyPruner masks other units in each gate; what is left of a unit's gates must still meet, or prune() refuse."""
        rows = (0, 5, 10, 15)
        chain = self.lstm_chain(nn.LSTM(3, 4), nn.Linear(4, 2), silent=range(16))
        self.check_lstm(chain, entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows))

    @known_defect("lstm-with-one-prepared-weight-cannot-run")
    def test_prune_lstm_of_which_one_weight_is_prepared(self):
        """An LSTM of which only the input or only the recurrent weight is masked is pruned right or refused."""
        for name in ("weight_ih_l0", "weight_hh_l0"):
            self.check_lstm(self.lstm_chain(nn.LSTM(3, 4), nn.Linear(4, 2)), entry(f"0.{name}", 1, 5, 9, 13))

    @known_defect("lstm-layers-of-different-sizes-read-foreign-memory")
    def test_prune_lstm_layers_to_different_sizes(self):
        """Layers of one LSTM that lose different numbers of units are refused, or give the masked output."""
        self.assertEqual(run_in_child(outcome_of_different_lstm_sizes), "masked output", msg="LSTM whose layers have 3 and 2 units")

    @known_defect("lstm-with-two-directions-is-not-refused")
    def test_prune_lstm_with_two_directions(self):
        """nn.LSTM(bidirectional=True) is pruned right or refused, with the model intact."""
        self.check_lstm(self.lstm_chain(nn.LSTM(3, 4, bidirectional=True), nn.Linear(8, 2)))

    @known_defect("lstm-with-projections-is-not-refused")
    def test_prune_lstm_with_projections(self):
        """nn.LSTM(proj_size=2) is pruned right or refused, with the model intact."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.check_lstm(self.lstm_chain(nn.LSTM(3, 4, proj_size=2), nn.Linear(2, 2)))

    @known_defect("lstm-without-bias-crashes")
    def test_prune_lstm_without_bias(self):
        """nn.LSTM(bias=False) is pruned as one whose biases are zero."""
        self.check_lstm(Chain(nn.LSTM(3, 4, bias=False), operator.itemgetter(0), nn.Linear(4, 2)))

    @known_defect("lstm-behind-another-parametrization-crashes")
    def test_prune_lstm_that_has_another_parametrization(self):
        """The mask of an LSTM's weight is found wherever it stands in the list of parametrizations."""
        chain = self.lstm_chain(nn.LSTM(3, 4), nn.Linear(4, 2))
        for name in ("weight_ih_l0", "weight_hh_l0"):
            parametrize.register_parametrization(chain.get_submodule("0"), name, Scaled())
        rows = [1, 5, 9, 13]
        pruner = prepared(
            chain,
            [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows)],
            patterns={(nn.LSTM, operator.getitem, nn.Linear): prune_functions.prune_lstm_output_linear},
        )
        with torch.no_grad():
            for name in ("weight_ih_l0", "weight_hh_l0"):
                chain.get_submodule("0").parametrizations[name].original[rows] = 0
            expected = chain(values(5, 2, 3))
            self.assertTensorsClose(pruner.prune()(values(5, 2, 3)), expected, "pruned is not masked")

    @known_defect("layernorm-without-affine-parameters-crashes")
    def test_prune_lstm_before_a_layernorm_without_affine_parameters(self):
        """nn.LayerNorm(elementwise_affine=False), and bias=False where there is such an option, are shortened like any."""
        norm = nn.LayerNorm(4, elementwise_affine=False)
        self.prune(
            self.lstm_chain(nn.LSTM(3, 4), norm, nn.Linear(4, 2)),
            [entry("0.weight_ih_l0", 1, 5, 9, 13), entry("0.weight_hh_l0", 1, 5, 9, 13)],
        )
        self.assertEqual(norm.normalized_shape, (3,))

    @known_defect("layernorm-over-several-dimensions-is-cut-along-the-first")
    def test_prune_lstm_before_a_layernorm_over_several_dimensions(self):
        """nn.LayerNorm((batch, units)) has its units last: pruned right or refused, with the model intact."""
        self.check_lstm(self.lstm_chain(nn.LSTM(3, 4), nn.LayerNorm((2, 4)), nn.Linear(4, 2)))

    @known_defect("layernorm-of-a-pruned-lstm-normalizes-over-fewer-units")
    def test_prune_lstm_before_a_layernorm_gives_the_output_of_the_masked_model(self):
        """The masked model normalizes over all units, the masked zeros among them; the pruned one gives that output or is refused."""
        self.check_lstm(self.lstm_chain(nn.LSTM(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))


def outcome_of_different_lstm_sizes():
    """In a child process: ``"masked output"`` or what else a two-layer LSTM gives that loses 1 and 2 of its 4 units."""
    lstm = nn.LSTM(3, 4, 2)
    config = []
    for layer, units in enumerate(((1,), (1, 2))):
        rows = [gate * 4 + unit for gate in range(4) for unit in units]
        for name in (f"weight_ih_l{layer}", f"weight_hh_l{layer}"):
            getattr(lstm, name.replace("weight", "bias")).data[rows] = 0
            config.append(entry(f"0.{name}", *rows))
    model = Chain(lstm, operator.itemgetter(0), nn.Linear(4, 2))
    pruner = prepared(model, config, patterns={(nn.LSTM, operator.getitem, nn.Linear): prune_functions.prune_lstm_output_linear})
    with torch.no_grad():
        expected = model(values(5, 2, 3))
        try:
            result = pruner.prune()
        except Exception:
            result = model
        return "masked output" if torch.allclose(result(values(5, 2, 3)), expected, atol=1e-5) else "another output"

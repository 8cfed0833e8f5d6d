"""What the tests of structured pruning share: chains of layers, their patterns, and the comparison of pruned with masked models."""

import functools
import itertools
import operator
import warnings

from ao.sparsity.testing.base import TestCase

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.pruning._experimental.pruner import FakeStructuredSparsity, base_structured_sparsifier
from torch.nn.utils import parametrize

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


@functools.cache
def default_patterns():
    """The package's table of supported patterns, to be read alone: each call of the package makes a new one, of several hundred."""
    return base_structured_sparsifier._get_default_structured_pruning_patterns()


def patterns_in(model):
    """Those default patterns that a Chain, or the Chains of Branches, contain: the time of prune() grows with their number."""
    table, found = default_patterns(), {}
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


def row_mask_of(module, name="weight"):
    """The mask that a prepared module holds for its parameter ``name``."""
    return next(step.mask for step in module.parametrizations[name] if isinstance(step, FakeStructuredSparsity))


def values(*shape):
    """A float tensor of normal numbers, the same at every call; no two rows are equally long."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def counted(model):
    """The model with every parameter filled with 1, 2, 3, ...: what goes wrong in it is the same number on every machine."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(1.0, parameter.numel() + 1).reshape(parameter.shape))
    return model


# For each function that cuts the columns of a next layer: a chain that it prunes, and the place of the next layer in it.
NEXT_LAYERS = {
    "linear": lambda **last: (counted(Chain(nn.Linear(3, 4), nn.Linear(4, 2, **last))), "1"),
    "conv2d": lambda **last: (counted(Chain(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1, **last))), "1"),
    "flatten": lambda **last: (
        counted(Chain(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, **last))),
        "3",
    ),
    "lstm": lambda **last: (counted(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2, **last))), "2"),
}
# What Python raises by itself: who refuses something on purpose has words and another error for it.
CRASHES = (AttributeError, LookupError, NameError, TypeError)
UNIT_1 = (1, 5, 9, 13)  # the rows of unit 1 in the four gates of an LSTM with 4 units


def lstm_entries(*rows, layer=0):
    """Configuration entries for both weights of one layer of an LSTM that is the first step of its chain."""
    return [entry(f"0.weight_{kind}_l{layer}", *rows) for kind in ("ih", "hh")]


def silence(chain, rows=UNIT_1):
    """The chain with zeros in these rows of the biases of its first step, an LSTM: with masked weights such a unit stays zero."""
    with torch.no_grad():
        for name, parameter in chain.get_submodule("0").named_parameters():
            if "bias" in name:
                parameter[list(rows)] = 0
    return chain


def differences(actual, expected):
    """Where two tensors differ, their numbers as ``3.0 for 4.0``, each such pair once; their shapes where these differ."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.dtype} {tuple(actual.shape)} for {expected.dtype} {tuple(expected.shape)}"
    apart = ~torch.isclose(actual, expected, atol=1e-5, rtol=1e-4, equal_nan=True)
    pairs = zip(actual[apart].tolist(), expected[apart].tolist())
    return ", ".join(dict.fromkeys(f"{round(one, 3)} for {round(other, 3)}" for one, other in pairs))


def shapes(model):
    """The parameters of a model and their shapes, for a message."""
    return ", ".join(f"{name} {tuple(parameter.shape)}" for name, parameter in sorted(model.named_parameters()))


def prepared_with(model, config, **defaults):
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
        actual = self.output_of(pruned, x, "pruned")
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
            self.fail(f"{what}: {differences(actual, expected)}")

    def check_next_layer(self, chain):
        """Prune unit 1 of the first layer, an LSTM also, with its bias, and ask for the masked output or a refusal."""
        first = chain.get_submodule("0")
        if not isinstance(first, nn.LSTM):
            return self.check_chain(chain, 1, test=self.assertPrunedOrRefused)
        return self.assertPrunedOrRefused(silence(chain), lstm_entries(*UNIT_1), torch.ones(1, 1, 3), patterns_in(chain))

    def output_of(self, model, x, how):
        """The output of a model; where it cannot run the failure says so with ``how`` it came about and the shapes it has."""
        try:
            with torch.no_grad():
                return model(x)
        except Exception as error:
            raise AssertionError(f"{how}, and cannot run with {shapes(model)}: {error}") from error

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
        pruner = prepared_with(model, config, patterns=patterns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pruner.prune()

    def assertPrunedOrRefused(self, model, config, x, patterns=None):
        """prune() must give the masked output, or else refuse, not crash, and leave the prepared model as it is."""
        model.eval()
        with torch.no_grad(), zeroed(model, config):
            expected = model(x)
        result, how, error = self.pruned_or_refused(prepared_with(model, config, patterns=patterns))
        actual = self.output_of(result, x, how)
        if not isinstance(actual, tuple):
            expected, actual = (expected,), (actual,)
        for one, other in zip(expected, actual, strict=True):
            self.assertTensorsClose(other, one, f"{how}: the output is not that of the masked model")
        self.assertNotIsInstance(error, CRASHES, msg=how)

    def pruned_or_refused(self, pruner):
        """The pruned model, or, where prune() raises, the prepared one; in words which of them it is; and the error, if any."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are not what is asked here
                return pruner.prune(), "pruned", None
        except Exception as error:
            return pruner.model, f"refused ({error})", error

    def assertRefused(self, model, config):
        """prune() must say that a layer keeps its mask."""
        pruner = prepared_with(model, config)
        with self.assertRaisesRegex(Exception, "still contains FakeStructuredSparsity"):
            pruner.prune()

    def check_chain(self, chain, *rows, x=None, test=None, fqn="0.weight", **options):
        """Prune rows of the chain's first layer and ask for the masked output for an input of ones."""
        first = chain.get_submodule("0")
        if x is None:
            x = torch.ones(1, first.in_features) if isinstance(first, nn.Linear) else torch.ones(1, first.in_channels, 3, 3)
        (test or self.assertPrunedAsMasked)(chain, [entry(fqn, *rows, **options)], x, patterns_in(chain))

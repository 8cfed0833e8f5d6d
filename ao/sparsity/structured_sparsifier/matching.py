"""Which chains of a traced model match a pattern, and which prune() refuses."""

import contextlib
import functools

from ao.sparsity.testing.base import TestCase

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.pruning._experimental.pruner import FakeStructuredSparsity, match_utils, prune_functions
from torch.ao.pruning._experimental.pruner.parametrization import module_contains_param
from torch.fx import symbolic_trace
from torch.testing._internal import common_utils
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.structured_sparsifier.cases import StructuredTestCase, counted, entry, prepared_with, values
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Branches, Chain, RowPruner


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

        def flatten(x):
            """A function of the user's that has the name of another."""

        for current, expected in (
            (nn.Linear, {"linear"}),
            (nn.ReLU, {"relu"}),
            (nn.Module, set()),
            (torch.flatten, {"flatten"}),
            (flatten, set()),
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

    def test_match_needs_the_very_function_kind_and_text(self):
        """A function of the same name, a layer that is read instead of called and a target that ends alike do not match."""
        graph = torch.fx.Graph()
        for kind, target, current in (
            ("call_function", F.relu, torch.relu),
            ("get_attr", "0", nn.Linear),
            ("placeholder", "my_output", "output"),
            ("placeholder", "sigmoid", F.sigmoid),
            ("placeholder", "tanh", F.tanh),
        ):
            with self.subTest(kind=kind, target=target, current=current):
                self.assertIs(match_utils._match(self.modules, graph.create_node(kind, target), current), False)

    def test_match_of_a_class_that_is_no_layer(self):
        """A class that is no module is a callable: it matches calls of it, and nothing else."""
        graph = torch.fx.Graph()
        for target, expected in ((complex, True), (slice, False), (abs, False)):
            with self.subTest(target=target):
                self.assertIs(match_utils._match(self.modules, graph.create_node("call_function", target), complex), expected)
        self.assertIs(match_utils._match(self.modules, self.nodes["linear"], complex), False)

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


# What may use the output of a layer besides the next layer: a third layer, a function, a method.
CONSUMERS = {
    "layer": lambda chain, x: getattr(chain, "2")(x),
    "function": lambda chain, x: torch.sum(x),
    "method": lambda chain, x: x.mean(),
}


@instantiate_parametrized_tests
class TestStructuredChains(StructuredTestCase):
    """Which chains prune() cuts, and which it refuses."""

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
        pruner = prepared_with(Chain(nn.Linear(2, 2), nn.Linear(2, 1)), [entry("0.weight", 1)], patterns={})
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

    def test_prune_uses_custom_patterns_for_a_layer_without_padding(self):
        """The functions for convolutions look at the padding of a next layer that has one: behind 1 x 1 maps it may be linear."""

        def cut(conv2d, flatten, linear):
            prune_functions.prune_conv2d_conv2d(conv2d, linear)

        for bias in (True, False):
            with self.subTest(bias=bias):
                model = counted(Chain(nn.Conv2d(1, 3, 2, bias=bias), functools.partial(torch.flatten, start_dim=1), nn.Linear(3, 2)))
                pruner = prepared_with(model, [entry("0.weight", 1)], patterns={(nn.Conv2d, torch.flatten, nn.Linear): cut})
                x = torch.ones(1, 1, 2, 2)
                expected = model(x)
                self.assertTensorsClose(pruner.prune()(x), expected, "pruned is not masked")

    @known_defect("layer-with-several-consumers-is-cut-for-the-first-alone")
    @common_utils.parametrize("consumer", CONSUMERS)
    def test_prune_sees_every_consumer_of_a_layer(self, consumer):
        """A layer that feeds another besides the next is cut in both or refused, with the model intact."""

        class Fork(Chain):
            def forward(self, x):
                x = getattr(self, "0")(x)
                return getattr(self, "1")(x) + CONSUMERS[consumer](self, x)

        chain = counted(Fork(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @common_utils.parametrize("consumer", ("function", "method"))
    def test_prune_sees_a_consumer_before_the_next_layer(self, consumer):
        """Where the first consumer of a layer matches no pattern the next layer does not match alone: pruned right or refused."""

        class Fork(Chain):
            def forward(self, x):
                x = getattr(self, "0")(x)
                return CONSUMERS[consumer](self, x) + getattr(self, "1")(x)

        chain = counted(Fork(nn.Linear(3, 4), nn.Linear(4, 2)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused, prune_bias=False)

    @known_defect("consumer-of-several-layers-is-cut-for-one-alone")
    @common_utils.parametrize("first", ("0", "2"))
    def test_prune_sees_every_layer_that_feeds_the_next(self, first):
        """A layer that gets the output of a pruned and of another layer is cut for neither, whichever of them comes first."""

        class Join(Chain):
            def forward(self, x):
                other = "2" if first == "0" else "0"
                return getattr(self, "1")(getattr(self, first)(x)) + getattr(self, "1")(getattr(self, other)(x))

        chain = counted(Join(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(3, 4)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused)

    @known_defect("layer-that-feeds-itself-is-cut-for-its-own-output")
    def test_prune_sees_a_layer_that_feeds_itself(self):
        """A layer that is applied twice running has rows for its own columns and columns for the model's input."""
        layer = nn.Linear(3, 3)
        self.check_chain(counted(Chain(layer, nn.ReLU(), layer)), 1, test=self.assertPrunedOrRefused)

    @known_defect("layer-that-is-called-twice-is-cut-for-its-first-call-alone")
    def test_prune_sees_every_call_of_a_layer(self):
        """A layer that is called for two inputs, each with a next layer of its own, is cut in both or refused, with the model intact."""

        class Twice(Chain):
            def forward(self, x):
                return getattr(self, "1")(getattr(self, "0")(x)) + getattr(self, "2")(getattr(self, "0")(-x))

        chain = counted(Twice(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)))
        self.check_chain(chain, 1, test=self.assertPrunedOrRefused)

    @known_defect("prune-crashes-where-the-model-reads-the-weight")
    def test_prune_takes_a_model_that_reads_the_weight_itself(self):
        """A model may use the weight of a pruned layer besides calling the layer, in a penalty say; its trace is what prune() returns."""

        class Penalized(Chain):
            def forward(self, x):
                return super().forward(x) + getattr(self, "0").weight.abs().sum()

        self.check_chain(counted(Penalized(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))), 1)

    @known_defect("submodule-called-output-matches-the-output")
    def test_prune_takes_a_submodule_called_output_for_a_layer(self):
        """(nn.Linear, "output") is a linear layer at the output of the model, whatever the names of the modules are."""
        model = nn.Sequential()
        model.add_module("first", nn.Linear(3, 4))
        model.add_module("output", nn.Linear(4, 2))
        calls = []

        def at_the_output(*parts):
            calls.append([type(part).__name__ for part in parts])

        patterns = {(nn.Linear, "output"): at_the_output, (nn.Linear, nn.Linear): prune_functions.prune_linear_linear}
        with contextlib.suppress(Exception):  # a match that does not cut is refused
            self.prune(counted(model), [entry("first.weight", 1)], patterns)
        self.assertListEqual(calls, [], msg="parts that the function for a layer at the output was called with")

    def test_prune_goes_by_what_a_layer_is(self):
        """An activation is the layer that is called, whatever its name is."""
        model = nn.Sequential()
        for name, layer in (("first", nn.Linear(3, 4)), ("tanh", nn.ReLU()), ("last", nn.Linear(4, 2))):
            model.add_module(name, layer)
        patterns = {(nn.Linear, nn.ReLU, nn.Linear): prune_functions.prune_linear_activation_linear}
        self.assertPrunedAsMasked(counted(model), [entry("first.weight", 1, prune_bias=False)], torch.ones(1, 3), patterns)

    @known_defect("functional-sigmoid-and-tanh-never-match")
    @common_utils.parametrize("name", ("sigmoid", "tanh"))
    def test_prune_matches_functional_sigmoid_and_tanh(self, name):
        """F.sigmoid and F.tanh are in the table of supported activations."""
        chain = counted(Chain(nn.Linear(3, 4), getattr(F, name), nn.Linear(4, 2)))
        self.check_chain(chain, 1, prune_bias=False)

    @known_defect("custom-pattern-loses-the-methods-that-it-matches")
    def test_prune_hands_every_node_of_a_custom_pattern_over(self):
        """A pattern gives its function a part for each of its nodes, a method that was called among them."""
        chain = Chain(nn.Linear(3, 4), lambda x: x.relu(), nn.Linear(4, 2))
        calls = []

        def record(*parts):
            calls.append(sum(part is not None for part in parts))
            prune_functions.prune_linear_linear(parts[0], parts[-1])

        self.prune(chain, [entry("0.weight", 1)], {(nn.Linear, match_utils.MatchAllNode, nn.Linear): record})
        self.assertListEqual(calls, [3], msg="parts of the match")

    @known_defect("patterns-after-a-match-are-tried-at-its-last-node")
    def test_prune_tries_every_pattern_at_every_node(self):
        """Docstring of prune(): each pattern that is found has its function applied, also where several begin at one layer."""
        chain, calls = counted(Chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))), []
        patterns = {
            (nn.Linear, nn.ReLU): lambda *parts: calls.append("short"),
            (nn.Linear, nn.ReLU, nn.Linear): lambda *parts: (calls.append("long"), prune_functions.prune_linear_activation_linear(*parts)),
        }
        with contextlib.suppress(Exception):  # what is left over is refused
            self.prune(chain, [entry("0.weight", 1)], patterns)
        self.assertListEqual(calls, ["short", "long"], msg="patterns that were applied")

    @known_defect("root-layer-is-not-pruned-and-loses-its-bias")
    def test_prune_takes_a_layer_that_is_the_model(self):
        """A model that is one layer is prepared by tensor_fqn="weight"; prune() cuts it or refuses, with the model intact."""
        self.assertPrunedOrRefused(counted(nn.Linear(3, 4)), [entry("weight", 1, prune_bias=False)], torch.ones(1, 3), {})

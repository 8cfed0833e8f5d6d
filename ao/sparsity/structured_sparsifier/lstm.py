"""prune() of LSTM layers."""

import contextlib
import operator
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.pruning._experimental.pruner import FakeStructuredSparsity, prune_functions
from torch.ao.pruning._experimental.pruner.parametrization import module_contains_param
from torch.nn.utils import parametrize

from ao.sparsity.structured_sparsifier.cases import patterns_in, values, prepared, entry, Scaled
from ao.sparsity.testing.child import run_in_child
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Branches, Chain, zeroed


class LSTMPruningTests:
    """prune() of chains that begin with an LSTM; part of TestBaseStructuredSparsifier."""

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

    def lstm_chain(self, lstm, *steps, silent=(1, 5, 9, 13)):
        """lstm -> getitem -> steps, with biases of zero in the ``silent`` rows, so that masked units stay zero."""
        with torch.no_grad():
            for name, parameter in lstm.named_parameters():
                if name.startswith("bias"):
                    parameter[list(silent)] = 0
        return Chain(lstm, operator.itemgetter(0), *steps)

    def check_lstm_chain(self, chain, *config):
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
        self.check_lstm_chain(chain, entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows))

    @known_defect("lstm-with-one-prepared-weight-cannot-run")
    def test_prune_lstm_of_which_one_weight_is_prepared(self):
        """An LSTM of which only the input or only the recurrent weight is masked is pruned right or refused."""
        for name in ("weight_ih_l0", "weight_hh_l0"):
            self.check_lstm_chain(self.lstm_chain(nn.LSTM(3, 4), nn.Linear(4, 2)), entry(f"0.{name}", 1, 5, 9, 13))

    @known_defect("lstm-layers-of-different-sizes-read-foreign-memory")
    def test_prune_lstm_layers_to_different_sizes(self):
        """Layers of one LSTM that lose different numbers of units are refused, or give the masked output."""
        self.assertEqual(run_in_child(outcome_of_different_lstm_sizes), "masked output", msg="LSTM whose layers have 3 and 2 units")

    @known_defect("lstm-with-two-directions-is-not-refused")
    def test_prune_lstm_with_two_directions(self):
        """nn.LSTM(bidirectional=True) is pruned right or refused, with the model intact."""
        self.check_lstm_chain(self.lstm_chain(nn.LSTM(3, 4, bidirectional=True), nn.Linear(8, 2)))

    @known_defect("lstm-with-projections-is-not-refused")
    def test_prune_lstm_with_projections(self):
        """nn.LSTM(proj_size=2) is pruned right or refused, with the model intact."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.check_lstm_chain(self.lstm_chain(nn.LSTM(3, 4, proj_size=2), nn.Linear(2, 2)))

    @known_defect("lstm-without-bias-crashes")
    def test_prune_lstm_without_bias(self):
        """nn.LSTM(bias=False) is pruned as one whose biases are zero."""
        self.check_lstm_chain(Chain(nn.LSTM(3, 4, bias=False), operator.itemgetter(0), nn.Linear(4, 2)))

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
        self.check_lstm_chain(self.lstm_chain(nn.LSTM(3, 4), nn.LayerNorm((2, 4)), nn.Linear(4, 2)))

    @known_defect("layernorm-of-a-pruned-lstm-normalizes-over-fewer-units")
    def test_prune_lstm_before_a_layernorm_gives_the_output_of_the_masked_model(self):
        """The masked model normalizes over all units, the masked zeros among them; the pruned one gives that output or is refused."""
        self.check_lstm_chain(self.lstm_chain(nn.LSTM(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))

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

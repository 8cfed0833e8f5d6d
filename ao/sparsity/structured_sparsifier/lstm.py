"""prune() of LSTM layers."""

import contextlib
import operator
import warnings

from ao.sparsity.testing.base import on_every_device  # first: it asks whether there is a torch to validate

import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.pruning._experimental.pruner import FakeStructuredSparsity, prune_functions
from torch.ao.pruning._experimental.pruner.parametrization import module_contains_param
from torch.nn.utils import parametrize
from torch.testing._internal import common_utils
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.structured_sparsifier.cases import (
    UNIT_1,
    Scaled,
    counted,
    entry,
    lstm_entries,
    patterns_in,
    prepared_with,
    silence,
    values,
)
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.structured import Branches, Chain, zeroed


def small(model):
    """The model with each parameter spread evenly from -0.5 to 0.5, last number first: gates of an LSTM stay off their limits."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(0.5, -0.5, parameter.numel()).reshape(parameter.shape))
    return model


def numbers(module):
    """What each parameter holds, by its name without parametrizations."""
    named = module.named_parameters()
    return {name.replace("parametrizations.", "").replace(".original", ""): parameter.detach().clone() for name, parameter in named}


@instantiate_parametrized_tests
class LSTMPruningTests:
    """prune() of chains that begin with an LSTM; part of TestBaseStructuredSparsifier."""

    HIDDEN = 4  # of the LSTMs below

    def refuses(self, lstm, prune):
        """Whether ``prune()`` refuses, which leaves the numbers of the LSTM as they were."""
        before = numbers(lstm)
        try:
            prune()
        except (ValueError, NotImplementedError):
            self.assertEqual(numbers(lstm), before, "the LSTM after a refusal")
            return True
        return False

    def check_lstm(self, layers, units, batch_first=False, layernorm=False, prepare_linear=False, dropout=0.0, device="cpu"):
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
        model = Chain(*steps).eval().to(device)
        place = len(steps) - 2
        if prepare_linear:
            config.append(entry(f"{place}.weight", 1, prune_bias=False))
        x = values(3, 5, 3).to(device)
        kept = [unit for unit in range(self.HIDDEN) if unit not in units[-1]]
        with torch.no_grad(), zeroed(model, config):
            out = lstm(x)[0]
            if layernorm:  # the mean and variance of a pruned layer are those of the units that are left
                out = torch.zeros_like(out).index_copy(
                    -1, torch.tensor(kept, device=device), F.layer_norm(out[..., kept], (len(kept),), norm.weight[kept], norm.bias[kept])
                )
            expected = last(linear(out))
        pruned = self.prune(model, config)
        with torch.no_grad():
            self.assertTensorsClose(pruned(x), expected, "pruned is not masked")
        self.assertEqual({parameter.device.type for parameter in pruned.parameters()}, {device})
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

    @on_every_device
    def test_pruned_lstm_stays_on_its_device(self, device):
        """On every device all of a pruned recurrent model lies there and computes what the masked model does."""
        self.check_lstm(2, [(0, 3), (1, 2)], layernorm=True, prepare_linear=True, device=device)

    def test_prune_lstm_cuts_each_gate_by_its_own_mask(self):
        """Comment: "resize each individual weight separately"; what follows loses the columns of the units without an output gate."""
        for prepare_linear in (False, True):
            lstm, norm, linear = nn.LSTM(3, 4, 2), nn.LayerNorm(4), nn.Linear(4, 3)
            nn.init.normal_(norm.weight)
            before = numbers(lstm)
            scale, columns = norm.weight.detach().clone(), linear.weight.detach().clone()
            lost = [(0, 1, 2, 3), (1, 2, 3, 0)]  # for each layer, the unit that each gate loses: input, forget, cell, output
            config = [
                entry(f"0.weight_{kind}_l{layer}", *(4 * gate + unit for gate, unit in enumerate(units)))
                for layer, units in enumerate(lost)
                for kind in ("ih", "hh")
            ]
            model = Chain(lstm, operator.itemgetter(0), norm, linear, nn.Linear(3, 2))
            config += [entry("3.weight", prune_bias=False)] * prepare_linear
            if self.refuses(lstm, lambda model=model, config=config: self.prune(model, config)):  # that is right, too
                continue
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
                frozen = [name for name, parameter in pruned.named_parameters() if not parameter.requires_grad]
                self.assertListEqual(frozen, [], msg="parameters that cannot be trained any more")

    def test_prune_lstm_cuts_the_columns_of_the_next_layer(self):
        """The next layer's input weight loses the columns of the cut units, and its own rows by its own mask."""
        lstm, linear = nn.LSTM(3, 4, 2), nn.Linear(4, 2)
        before = lstm.weight_ih_l1.detach().clone()
        chain = silence(Chain(lstm, operator.itemgetter(0), linear), rows=(1, 2, 5, 6, 9, 10, 13, 14))
        prepared_with(chain, [*lstm_entries(*UNIT_1), *lstm_entries(2, 6, 10, 14, layer=1)])
        prune_functions.prune_lstm_output_linear(lstm, operator.getitem, linear)
        rows = [row for row in range(16) if row % 4 != 2]
        self.assertEqual(lstm.weight_ih_l1, before[rows][:, [0, 2, 3]])
        self.assertEqual(linear.weight.shape, (2, 3))

    def test_prune_lstm_cuts_columns_by_the_output_gate_below(self):
        """The next layer's input weight loses the columns of the units without an output gate below, prepared or not."""
        for others in ([], [entry("0.weight_hh_l1")]):
            with self.subTest(prepared_besides=others):
                lstm, linear = nn.LSTM(3, 4, 2), nn.Linear(4, 2)
                before = lstm.weight_ih_l1.detach().clone()
                chain = silence(Chain(lstm, operator.itemgetter(0), linear), rows=range(16))
                prepared_with(chain, [*lstm_entries(0, 5, 10, 15), *others])
                if not self.refuses(lstm, lambda: prune_functions.prune_lstm_output_linear(lstm, operator.getitem, linear)):
                    self.assertEqual(lstm.weight_ih_l1, before[:, :3])

    def test_prune_lstm_cuts_the_weight_that_a_parametrization_makes(self):
        """An LSTM of which a weight has another parametrization besides the mask is cut to the rows that it computes with."""
        rows = [1, 4, 7, 10]
        for name in ("weight_ih_l0", "weight_hh_l0"):
            with self.subTest(parametrized=name):
                chain = Chain(nn.LSTM(3, 3), operator.itemgetter(0), nn.Linear(3, 2))
                lstm = chain.get_submodule("0")
                lstm.bias_ih_l0.data[rows] = lstm.bias_hh_l0.data[rows] = 0
                pruner = prepared_with(chain, [entry("0.weight_ih_l0", *rows), entry("0.weight_hh_l0", *rows)], patterns=patterns_in(chain))
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

    def check_lstm_chain(self, chain, *config, silent=UNIT_1):
        """Ask for the masked output of a chain that begins with an LSTM, with biases of zero in the ``silent`` rows, or a refusal."""
        silence(chain, silent)
        x = torch.tensor([[[1.0, 0.5, -1.0]], [[0.5, -1.0, 1.0]]])
        self.assertPrunedOrRefused(chain, list(config) or lstm_entries(*UNIT_1), x, patterns_in(chain))

    # What prune() gives, where the masks are such that it can

    @known_defect("lstm-units-of-which-the-bias-lives-on-are-dropped")
    def test_prune_lstm_gives_the_output_of_the_masked_model(self):
        """prune() gives what prepare() shows, where a masked unit of an LSTM still has its biases, or refuses; or they are masked too."""
        for silent in ((), ("bias_ih_l0",), ("bias_hh_l0",)):
            chain = small(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2)))
            for name in silent:
                getattr(chain.get_submodule("0"), name).data.zero_()
            pruner = prepared_with(chain, lstm_entries(*UNIT_1), patterns=patterns_in(chain))
            expected = self.output_of(chain, torch.ones(1, 1, 3), "prepared")
            result, how, _ = self.pruned_or_refused(pruner)
            self.assertTensorsClose(
                self.output_of(result, torch.ones(1, 1, 3), how), expected, f"{how}: the output is not that of the masked model"
            )

    @known_defect("lstm-without-bias-crashes")
    def test_prune_lstm_without_bias(self):
        """bias=False is an option of nn.LSTM, and of the other layers that are pruned: it is cut as one whose biases are zero."""
        chain = small(Chain(nn.LSTM(3, 4, bias=False), operator.itemgetter(0), nn.Linear(4, 2)))
        pruned = self.prune(chain, lstm_entries(*UNIT_1))
        self.assertTupleEqual(tuple(pruned.get_submodule("0").weight_hh_l0.shape), (12, 3))
        plain = small(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2)))
        plain.get_submodule("0").bias_ih_l0.data.zero_()
        plain.get_submodule("0").bias_hh_l0.data.zero_()
        with torch.no_grad(), zeroed(plain, lstm_entries(*UNIT_1)):
            expected = plain(torch.ones(2, 1, 3))
        self.assertTensorsClose(self.output_of(pruned, torch.ones(2, 1, 3), "pruned"), expected, "pruned is not masked")

    @known_defect("lstm-behind-another-parametrization-crashes")
    @common_utils.parametrize("kind", ("ih", "hh"))
    def test_prune_lstm_that_has_another_parametrization(self, kind):
        """The mask of an LSTM's weight is found wherever it stands in the list, as the other functions and criteria find theirs."""
        chain = small(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2)))
        parametrize.register_parametrization(chain.get_submodule("0"), f"weight_{kind}_l0", Scaled())
        pruner = prepared_with(chain, lstm_entries(*UNIT_1), patterns=patterns_in(chain))
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(chain.get_submodule("0"), name).data[list(UNIT_1)] = 0
        expected = self.output_of(chain, torch.ones(2, 1, 3), "prepared")
        actual = self.output_of(pruner.prune(), torch.ones(2, 1, 3), "pruned")
        self.assertTensorsClose(actual, expected, "pruned is not masked")

    # Masks of one LSTM that do not fit each other

    @known_defect("lstm-gates-masked-in-different-units-are-mixed-up")
    def test_prune_lstm_keeps_the_gates_of_a_unit_together(self):
        """LSTMSaliencyPruner masks other units in each gate; what is left of a unit's gates must still meet, or prune() refuse."""
        chain = small(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2)))
        self.check_lstm_chain(chain, *lstm_entries(0, 5, 10, 15), silent=range(16))

    @known_defect("lstm-with-one-prepared-weight-cannot-run")
    @common_utils.parametrize("kind", ("ih", "hh"))
    def test_prune_lstm_of_which_one_weight_is_prepared(self, kind):
        """An LSTM of which only the input or only the recurrent weight is masked is pruned right or refused, with the model intact."""
        chain = small(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2)))
        self.check_lstm_chain(chain, entry(f"0.weight_{kind}_l0", *UNIT_1))

    @known_defect("lstm-layers-of-different-sizes-read-foreign-memory")
    def test_prune_lstm_leaves_layers_of_one_size(self):
        """All layers of an nn.LSTM have hidden_size units: masks by which layers lose different numbers are refused, or padded."""
        rows = (1, 2, 5, 6, 9, 10, 13, 14)
        chain = silence(Chain(nn.LSTM(3, 4, 2), operator.itemgetter(0), nn.Linear(4, 2)), rows)
        lstm = chain.get_submodule("0")
        config = [*lstm_entries(*UNIT_1), *lstm_entries(*rows, layer=1)]
        pruner = prepared_with(chain, config, patterns=patterns_in(chain))
        with contextlib.suppress(Exception):  # to refuse is right, too
            pruner.prune()
        units = [getattr(lstm, f"weight_hh_l{layer}").shape[1] for layer in range(2)]  # to run it may read memory out of bounds
        self.assertListEqual(units, [lstm.hidden_size] * 2, msg=f"units of the layers of an LSTM with hidden_size {lstm.hidden_size}")

    # Options of nn.LSTM and nn.LayerNorm

    @known_defect("lstm-with-two-directions-is-not-refused")
    def test_prune_lstm_with_two_directions(self):
        """nn.LSTM(bidirectional=True) is pruned right or refused, with the model intact."""
        self.check_lstm_chain(small(Chain(nn.LSTM(3, 4, bidirectional=True), operator.itemgetter(0), nn.Linear(8, 2))))

    @known_defect("lstm-with-projections-is-not-refused")
    def test_prune_lstm_with_projections(self):
        """nn.LSTM(proj_size=2) is pruned right or refused, with the model intact."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.check_lstm_chain(small(Chain(nn.LSTM(3, 4, proj_size=2), operator.itemgetter(0), nn.Linear(2, 2))))

    @known_defect("lstm-with-initial-states-is-cut-without-them")
    def test_prune_sees_the_initial_states_of_an_lstm(self):
        """An LSTM that is called with its initial states needs them as large as its hidden size: refused, or states cut."""

        class Started(Chain):
            def forward(self, x):
                state = x.new_ones(1, 1, 4)
                return getattr(self, "2")(getattr(self, "0")(x, (state, state))[0])

        self.check_lstm_chain(small(Started(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2))))

    @known_defect("lstm-whose-state-is-used-too-is-cut-for-its-output-alone")
    def test_prune_sees_who_uses_the_state_of_an_lstm(self):
        """An LSTM of which a model uses the last state besides the output is refused, or cut for both users."""

        class Both(Chain):
            def forward(self, x):
                output, (state, _) = getattr(self, "0")(x)
                return getattr(self, "2")(output) + getattr(self, "3")(state)

        self.check_lstm_chain(small(Both(nn.LSTM(3, 4), operator.itemgetter(0), nn.Linear(4, 2), nn.Linear(4, 2))))

    @known_defect("layernorm-without-affine-parameters-crashes")
    @common_utils.parametrize("option", ("elementwise_affine", "bias"))
    def test_prune_lstm_before_a_layernorm_without_parameters(self, option):
        """nn.LayerNorm(elementwise_affine=False) and nn.LayerNorm(bias=False) are shortened like any."""
        norm = nn.LayerNorm(4, **{option: False})
        chain = silence(Chain(nn.LSTM(3, 4), operator.itemgetter(0), counted(norm), nn.Linear(4, 2)))
        self.prune(chain, lstm_entries(*UNIT_1))
        self.assertEqual(norm.normalized_shape, (3,))
        self.assertEqual([parameter.tolist() for parameter in norm.parameters()], [[1, 3, 4]] * (option == "bias"))

    @known_defect("layernorm-over-several-dimensions-is-cut-along-the-first")
    def test_prune_lstm_before_a_layernorm_over_several_dimensions(self):
        """nn.LayerNorm((batch, units)) has its units last: pruned right or refused, with the model intact."""
        self.check_lstm_chain(small(Chain(nn.LSTM(3, 4), operator.itemgetter(0), nn.LayerNorm((1, 4)), nn.Linear(4, 2))))

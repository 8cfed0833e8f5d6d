"""The models that PyTorch's own test tools hold for structured pruning: pruned equals masked on each."""

import warnings

# first: it asks whether there is a torch to validate
from ao.sparsity.structured_sparsifier.cases import StructuredTestCase, default_patterns, entry, values

import torch
import torch.nn.functional as F
from torch import nn
from torch.testing._internal import common_pruning
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize

from ao.sparsity.testing.models.structured import zeroed

# Name of the model and shape of its input.
LINEAR = {name: (3, 7) for name in ("SimpleLinear", "LinearBias", "LinearActivation", "LinearActivationFunctional")}
CONVOLUTIONS = {
    "SimpleConv2d": (1, 1, 12, 12),
    "Conv2dBias": (1, 1, 14, 14),
    "Conv2dActivation": (1, 1, 14, 14),
    "Conv2dPadBias": (1, 1, 10, 10),
    "Conv2dPool": (1, 1, 10, 10),
    "Conv2dPoolFlatten": (1, 1, 10, 10),
    "Conv2dPoolFlattenFunctional": (1, 1, 10, 10),
}
# Models with padded convolutions, before which a layer may stay as large as it is.
PADDED = ("Conv2dPadBias", "Conv2dPool", "Conv2dPoolFlatten", "Conv2dPoolFlattenFunctional")
# Those of them with a padded average pool, through which a bias cannot be propagated: to refuse it is right, too.
POOLED = PADDED[1:]
FUNCTIONS = {F.relu, F.hardtanh, F.avg_pool2d, F.max_pool2d, torch.flatten, "output"}


def patterns_for(model):
    """Those default patterns that are made of the model's modules and of FUNCTIONS: the time of prune() grows with their number."""
    steps = {type(module) for module in model.modules()} | FUNCTIONS
    return {pattern: function for pattern, function in default_patterns().items() if steps.issuperset(pattern)}


class Decoded(nn.Module):
    """The first output of a model alone: a second one, of a layer that is cut, would lose units."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


@instantiate_parametrized_tests
class TestStructuredModels(StructuredTestCase):
    """Every layer but the last is prepared, with every third of its rows masked."""

    @parametrize("model", [*LINEAR, *CONVOLUTIONS])
    def test_pruned_equals_masked(self, model):
        """README: a pruned model computes what the masked one does, whether biases are pruned or not."""
        make, shape = getattr(common_pruning, model), {**LINEAR, **CONVOLUTIONS}[model]
        for prune_bias in (True, False):
            with self.subTest(prune_bias=prune_bias), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # prune() warns of its own way to make a bias
                may_refuse = model in POOLED and not prune_bias
                self.check_pruned_as_masked(make().eval(), values(*shape).abs(), prune_bias, model in PADDED, may_refuse)

    def check_pruned_as_masked(self, model, x, prune_bias, padded, may_refuse):
        paths = [path for path, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][:-1]
        layers = {path: model.get_submodule(path) for path in paths}
        rows = {path: list(range(place % 2, len(layers[path].weight), 3)) for place, path in enumerate(paths)}
        config = [entry(f"{path}.weight", *rows[path], prune_bias=prune_bias) for path in paths]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()  # so that no activation cuts everything off
            for path, layer in layers.items():
                if padded and prune_bias and layer.bias is not None:
                    layer.bias[rows[path]] = 0  # what becomes of a pruned bias there is asked by another test
            with zeroed(model, config):
                expected = model(x)
        self.assertGreater(int(expected.count_nonzero()), 0)
        if may_refuse:
            self.assertPrunedOrRefused(model, config, x, patterns_for(model))
            return
        sizes = {path: len(layer.weight) - len(rows[path]) for path, layer in layers.items()}
        pruned = self.prune(model, config, patterns_for(model))
        with torch.no_grad():
            self.assertTensorsClose(pruned(x), expected, "pruned is not masked")
        if not padded:
            self.assertEqual({path: len(pruned.get_submodule(path).weight) for path in paths}, sizes)

    def test_pruned_lstm_equals_masked(self):
        """LSTMLinearModel: with units masked in all gates, and their biases zero, what is decoded is as by the masked model."""
        model = Decoded(common_pruning.LSTMLinearModel(3, 4, 2, 1)).eval()
        rows = [gate * 4 + unit for gate in range(4) for unit in (0, 2)]
        with torch.no_grad():
            for bias in (model.model.lstm.bias_ih_l0, model.model.lstm.bias_hh_l0):
                bias[rows] = 0
        config = [entry(f"model.lstm.weight_{part}_l0", *rows) for part in ("ih", "hh")]
        with torch.no_grad(), zeroed(model, config):
            expected = model(values(5, 3))
        pruned = self.prune(model, config)
        with torch.no_grad():
            self.assertTensorsClose(pruned(values(5, 3)), expected, "pruned is not masked")
        self.assertEqual((pruned.model.lstm.hidden_size, pruned.model.linear.in_features), (2, 2))

"""Known defects of structured pruning: the pruners, prepare(), matching and the functions that cut layers."""

from ao.sparsity.testing.register.entry import Defect

PACKAGE = "torch.ao.pruning._experimental.pruner."
BASE = PACKAGE + "base_structured_sparsifier: BaseStructuredSparsifier."
FUNCTIONS = PACKAGE + "prune_functions: "
HOOK = PACKAGE + "parametrization: BiasHook.__call__"
FPGM = PACKAGE + "FPGM_pruner: FPGMPruner."
SALIENCY = PACKAGE + "saliency_pruner: SaliencyPruner.update_mask"
LSTM_SALIENCY = PACKAGE + "lstm_saliency_pruner: LSTMSaliencyPruner.update_mask"

PRUNED_IS_MASKED = "README of the package: rows and the columns that use them are removed, and the output of the masked model is preserved."
SUPPORTED_OR_REFUSED = (
    "What prune() matches is pruned to the masked model's output, or refused with an error that leaves the model as it is."
)

# Words shared by entries that one mend would close.
AXIS = "BiasHook puts the bias along dimension 1 of any output"
ASIDE = "prepare() puts the bias aside under another name and into a hook of its own"
TWICE = "_prepare goes over all groups, prepared before or not"
FIRST = "parametrizations[0] is taken for the mask of pruning"
LEVEL = "the number of rows is int(level * rows), neither rounded nor clamped"
ONLY_OUT = "update_mask takes rows out of the mask that the last step has left"
OUTPUT_LAYER = "prune_linear and prune_conv2d do nothing to a bias that is not pruned"
ZERO = "a masked row is taken for zero behind any activation"
CONSTANT = "a bias is propagated as if what lies between the layers were the bare activation"
PADDED = "prune_conv2d_padded ignores prune_bias and keeps all filters"
NEXT = "the next layer's parametrization is taken for FakeStructuredSparsity"
USERS = "apply_match looks at the first user of a node and at nothing else that uses or feeds the layers"
GROUPS = "convolutions are cut as if groups were 1"
CHECK_FIRST = "prune functions cut the first layer before they look at the others"
NEW_PARAMETER = "nn.Parameter(...) around a cut or detached tensor: requires_grad is True"
LSTM_UNITS = "prune_lstm_output_layernorm_linear takes the masks for those of whole, equal units"
LSTM_OPTIONS = "prune_lstm_output_layernorm_linear is written for one direction, with biases and without projection"
GETSTATE = "BaseSparsifier.__getstate__ leaves out attributes that __init__ or prepare set"
LEFT = "prune functions do not take back all that prepare() added"

# What most reproductions start with: masks one of four rows of each named tensor (SaliencyPruner, level 0.25).
START = """
import torch
from torch import nn
from torch.ao.pruning._experimental.pruner import FPGMPruner, SaliencyPruner
def prepare(model, *names, **options):
    pruner = SaliencyPruner({"sparsity_level": 0.25, **options})
    pruner.prepare(model.eval(), [{"tensor_fqn": name} for name in names])
    pruner.step()
    return pruner
"""
COMPARE = """
masked = model(x)
print(torch.allclose(pruner.prune()(x), masked, atol=1e-5))  # prints False, should be True
"""


def defect(id, kind, summary, where, error, match, reproduce, mend, contract=PRUNED_IS_MASKED, cause=None):
    """An entry of this area; ``reproduce`` goes on from START."""
    return Defect(
        id=id,
        area="structured_sparsifier",
        kind=kind,
        summary=summary,
        where=where,
        contract=contract,
        error=error,
        match=match,
        reproduce=START + reproduce,
        mend=mend,
        cause=cause,
    )


DEFECTS = [
    # criteria
    defect(
        "fpgm-drifts-above-level",
        "wrong result",
        "FPGMPruner masks further filters at every step(): distances are taken from the masked weight, where masked filters are zeros.",
        FPGM + "update_mask",
        "AssertionError",
        "filters after four steps",
        """
model = nn.Sequential(nn.Conv2d(1, 8, 1))
model[0].weight.data.copy_(torch.arange(5.0, 13.0).reshape(8, 1, 1, 1))
pruner = FPGMPruner(0.25)
pruner.prepare(model, [{"tensor_fqn": "0.weight"}])
for _ in range(4):
    pruner.step()
print(int((~model[0].parametrizations.weight[0].mask).sum()))  # prints 4, should be 2 of 8
""",
        "measure the distances on parametrizations.weight.original and set the mask anew in each step",
        contract='Class docstring: sparsity_level "defines the number of filters (rows) that are zeroed-out".',
        cause=ONLY_OUT,
    ),
    defect(
        "fpgm-crashes-on-bfloat16",
        "crash",
        "FPGMPruner.step() raises NotImplementedError for bfloat16 and float16 weights on the CPU.",
        FPGM + "__init__ (dist_fn)",
        "RuntimeError",
        "cdist",
        """
pruner = FPGMPruner(0.5)
pruner.prepare(nn.Sequential(nn.Linear(2, 4)).bfloat16(), [{"tensor_fqn": "0.weight"}])
pruner.step()  # raises NotImplementedError: "cdist" not implemented for 'BFloat16', should mask two rows
""",
        "measure distances in float32",
        contract="SaliencyPruner and LSTMSaliencyPruner step such models, and prepare() and prune() take them.",
    ),
    defect(
        "fpgm-distances-lose-digits-beyond-25-filters",
        "wrong result",
        "With more than 25 filters torch.cdist computes Euclidean distances by a matrix product: filters that lie near to each "
        "other get distances that are wrong by a quarter, and other filters are pruned.",
        FPGM + "__init__ (dist_fn)",
        "AssertionError",
        "relative error of distances among 26 filters",
        """
weight = 100 + torch.rand(26, 8, 1, 1) * 0.1
exact = FPGMPruner()._compute_distance(weight.double())
print(((FPGMPruner()._compute_distance(weight) - exact).abs() / exact).max())  # prints 0.1 or more, should be < 1e-3, as for weight[:25]
""",
        'torch.cdist(x, x, p=2, compute_mode="donot_use_mm_for_euclid_dist")',
        contract="Docstring of the class: filters are pruned according to the distances among them, whatever their number; "
        "differences of float32 numbers are exact to 1e-4 here.",
    ),
    defect(
        "fpgm-names-a-default-distance-that-it-refuses",
        "crash",
        'The docstring says "Default: 3 (L2 distance)", but 3 raises NotImplementedError; the default is 2.',
        FPGM + "__init__",
        "NotImplementedError",
        "Distance function",
        """
FPGMPruner(dist=3)  # raises NotImplementedError, should be the documented default (or the docstring say 2)
""",
        'write "Default: 2 (L2 distance)" in the docstring',
        contract='Class docstring: "`dist` defines the distance measurement type. Default: 3 (L2 distance)."',
    ),
    defect(
        "fpgm-copy-loses-its-distance",
        "crash",
        "A deep copy or an unpickled FPGMPruner has no dist_fn: its step() raises AttributeError.",
        "torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.__getstate__",
        "AttributeError",
        "dist_fn",
        """
import copy
print(hasattr(copy.deepcopy(FPGMPruner(dist=1)), "dist_fn"))  # prints False, should be True
""",
        "let __getstate__ return all of __dict__ but the model, and keep dist instead of a lambda",
        contract="The class implements __getstate__ and __setstate__ for copies; a copy behaves as the original.",
        cause=GETSTATE,
    ),
    defect(
        "fpgm-takes-the-first-parametrization-for-its-mask",
        "crash",
        "FPGMPruner.step() raises AttributeError if the weight had a parametrization before prepare().",
        FPGM + "update_mask",
        "AttributeError",
        "has no attribute 'mask'",
        """
model = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4, bias=False)))
pruner = FPGMPruner(0.5)
pruner.prepare(model, [{"tensor_fqn": "0.weight"}])
pruner.step()  # raises AttributeError: '_SpectralNorm' object has no attribute 'mask', should mask two rows
""",
        "search the list for a FakeStructuredSparsity, as LSTMSaliencyPruner does",
        contract="LSTMSaliencyPruner and the functions that cut linear and conv2d layers search the list for their parametrization.",
        cause=FIRST,
    ),
    defect(
        "saliency-takes-the-first-parametrization-for-its-mask",
        "crash",
        "SaliencyPruner.step() raises AttributeError if the weight had a parametrization before prepare().",
        SALIENCY,
        "AttributeError",
        "has no attribute 'mask'",
        """
model = nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4, bias=False)))
prepare(model, "0.weight")  # raises AttributeError: '_SpectralNorm' object has no attribute 'mask', should mask one row
""",
        "search the list for a FakeStructuredSparsity, as LSTMSaliencyPruner does",
        contract="LSTMSaliencyPruner and the functions that cut linear and conv2d layers search the list for their parametrization.",
        cause=FIRST,
    ),
    defect(
        "saliency-crashes-on-levels-outside-zero-to-one",
        "crash",
        "SaliencyPruner.step() raises RuntimeError (selected index k out of range) for levels above 1 and below 0, where its "
        "siblings prune all and nothing.",
        SALIENCY,
        "RuntimeError",
        "out of range",
        """
prepare(nn.Sequential(nn.Linear(3, 4)), "0.weight", sparsity_level=1.5)  # raises RuntimeError, should mask all rows
""",
        "clamp the number of rows to 0 ... len(mask), as FPGMPruner does",
        contract="FPGMPruner and WeightNormSparsifier take levels at or below 0 for 0 and at or above 1 for 1.",
        cause=LEVEL,
    ),
    defect(
        "saliency-gives-no-row-back",
        "wrong result",
        "SaliencyPruner only ever takes rows out of the mask: after a step at level 0.5 a step at level 0 leaves half of the rows masked.",
        SALIENCY,
        "AssertionError",
        "rows kept at level 0",
        """
model = nn.Sequential(nn.Linear(3, 4))
pruner = prepare(model, "0.weight", sparsity_level=0.5)
pruner.groups[0]["sparsity_level"] = 0
pruner.step()
print(model[0].parametrizations.weight[0].mask)  # prints two False, should be four True
""",
        "fill the mask with True before the rows of the present level are taken out, and rank the original weights",
        contract='FPGMPruner and WeightNormSparsifier give a full mask at level 0; docstring: "until we reach the target sparsity_level".',
        cause=ONLY_OUT,
    ),
    defect(
        "lstm-saliency-gives-no-row-back",
        "wrong result",
        "LSTMSaliencyPruner only ever takes rows out of the mask: after a step at level 0.5 a step at level 0 leaves half of the "
        "rows masked.",
        LSTM_SALIENCY,
        "AssertionError",
        "rows kept at level 0",
        """
from torch.ao.pruning._experimental.pruner import LSTMSaliencyPruner
model = nn.Sequential(nn.LSTM(3, 2))
pruner = LSTMSaliencyPruner({"sparsity_level": 0.5})
pruner.prepare(model, [{"tensor_fqn": "0.weight_ih_l0"}])
pruner.step()
pruner.groups[0]["sparsity_level"] = 0
pruner.step()
print(model[0].parametrizations.weight_ih_l0[0].mask)  # prints four False, should be eight True
""",
        "fill the mask with True before the rows of the present level are taken out, and rank the original weights",
        contract="FPGMPruner and WeightNormSparsifier give a full mask at level 0.",
        cause=ONLY_OUT,
    ),
    defect(
        "saliency-loses-a-row-to-rounding",
        "wrong result",
        "int(100 * 0.29) is 28: SaliencyPruner masks one row less than the level asks for.",
        SALIENCY,
        "AssertionError",
        "rows pruned of 100 at level 0.29",
        """
model = nn.Sequential(nn.Linear(1, 100))
prepare(model, "0.weight", sparsity_level=0.29)
print(int((~model[0].parametrizations.weight[0].mask).sum()))  # prints 28, should be 29
""",
        "round(len(mask) * level), as FPGMPruner does",
        contract='Docstring: "We then pick elements to remove until we reach the target sparsity_level."',
        cause=LEVEL,
    ),
    defect(
        "lstm-saliency-loses-a-row-to-rounding",
        "wrong result",
        "int(100 * 0.29) is 28: LSTMSaliencyPruner masks one row of each gate less than the level asks for.",
        LSTM_SALIENCY,
        "AssertionError",
        "rows pruned of 4 gates of 100 at level 0.29",
        """
from torch.ao.pruning._experimental.pruner import LSTMSaliencyPruner
model = nn.Sequential(nn.LSTM(1, 100))
pruner = LSTMSaliencyPruner({"sparsity_level": 0.29})
pruner.prepare(model, [{"tensor_fqn": "0.weight_ih_l0"}])
pruner.step()
print(int((~model[0].parametrizations.weight_ih_l0[0].mask).sum()))  # prints 112, should be 116
""",
        "round(len(keep_mask) * level), as FPGMPruner does",
        contract="Class docstring: weights are pruned by saliency to the sparsity_level, each packed layer by the same amount.",
        cause=LEVEL,
    ),
    # prepare() and the prepared model
    defect(
        "prepared-conv2d-adds-bias-along-the-height",
        "wrong result",
        "A prepared nn.Conv2d adds its bias along the height of an unbatched image (C, H, W).",
        HOOK,
        "AssertionError",
        "prepare\\(\\) changed the output",
        """
model, x = nn.Sequential(nn.Conv2d(1, 3, 1)), torch.rand(1, 3, 3)
expected = model(x)
prepare(model, "0.weight", sparsity_level=0)
print(torch.allclose(model(x), expected))  # prints False, should be True
""",
        "put the bias along dimension -3 behind a Conv2d and -1 behind a Linear",
        contract="nn.Conv2d documents input (C, H, W); prepare() only adds masks.",
        cause=AXIS,
    ),
    defect(
        "prepared-linear-adds-bias-along-the-sequence",
        "wrong result",
        "A prepared nn.Linear adds its bias along dimension 1 of (batch, length, features): silently wrong if length equals "
        "features, an error otherwise.",
        HOOK,
        "AssertionError",
        "prepare\\(\\) changed the output",
        """
model, x = nn.Sequential(nn.Linear(2, 3)), torch.rand(4, 3, 2)
expected = model(x)
prepare(model, "0.weight", sparsity_level=0)
print(torch.allclose(model(x), expected))  # prints False, should be True
""",
        "put the bias along dimension -3 behind a Conv2d and -1 behind a Linear",
        contract="nn.Linear documents input (*, in_features); prepare() only adds masks.",
        cause=AXIS,
    ),
    defect(
        "prepared-linear-refuses-a-vector",
        "crash",
        "A prepared nn.Linear raises IndexError for one vector of features.",
        HOOK,
        "IndexError",
        "out of range",
        """
model = nn.Sequential(nn.Linear(2, 3))
prepare(model, "0.weight")
model(torch.rand(2))  # raises IndexError, should give three numbers
""",
        "put the bias along dimension -3 behind a Conv2d and -1 behind a Linear",
        contract="nn.Linear documents input (*, in_features), where * is any number of dimensions, none included.",
        cause=AXIS,
    ),
    defect(
        "prepare-of-another-layer-adds-the-first-bias-twice",
        "wrong result",
        "A second prepare(), for another layer, parametrizes the first layer again and adds its bias twice.",
        BASE + "_prepare",
        "AssertionError",
        "second prepare\\(\\) changed the output",
        """
model, x = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.rand(4, 2)
expected = model(x)
pruner = prepare(model, "0.weight", sparsity_level=0)
pruner.prepare(model, [{"tensor_fqn": "1.weight"}])
print(torch.allclose(model(x), expected))  # prints False, should be True
""",
        "prepare only the groups that this call has added",
        contract="prepare() appends to groups; preparing only adds masks and does not change the output.",
        cause=TWICE,
    ),
    defect(
        "prepare-of-a-shared-layer-adds-its-bias-twice",
        "wrong result",
        "prepare(model, None) prepares a layer that two containers share twice, under one name, and its bias is added twice.",
        BASE + "make_config_from_model, _prepare",
        "AssertionError",
        "prepare\\(\\) changed the output",
        """
layer = nn.Linear(2, 2)
model, x = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer)), torch.rand(4, 2)
expected = model(x)
SaliencyPruner({"sparsity_level": 0}).prepare(model, None)
print(torch.allclose(model(x), expected))  # prints False, should be True
""",
        "leave out layers that have been seen, and in _prepare those that have their mask",
        contract="prepare() gives each supported layer one mask and does not change the output.",
        cause=TWICE,
    ),
    defect(
        "prepare-adds-the-bias-after-the-users-hooks",
        "wrong result",
        "The bias is added by a forward hook behind those that the layer already has: they see, and replace, an output without bias.",
        BASE + "_prepare",
        "AssertionError",
        "prepare\\(\\) changed the output",
        """
model, x = nn.Sequential(nn.Linear(2, 3)), torch.rand(4, 2)
model[0].register_forward_hook(lambda module, args, output: output.relu())
expected = model(x)
prepare(model, "0.weight", sparsity_level=0)
print(torch.allclose(model(x), expected))  # prints False, should be True
""",
        "register_forward_hook(BiasHook(...), prepend=True)",
        contract="Forward hooks get the output of the module; prepare() only adds masks and does not change the output.",
        cause=ASIDE,
    ),
    defect(
        "prepare-without-config-crashes-on-an-lstm",
        "crash",
        "prepare(model, None) raises AttributeError for a model with an nn.LSTM: it asks for a tensor called weight.",
        BASE + "make_config_from_model",
        "AttributeError",
        "'LSTM' object has no attribute 'weight'",
        """
SaliencyPruner({}).prepare(nn.Sequential(nn.LSTM(2, 3)), None)  # raises AttributeError, should prepare weight_ih_l0 and weight_hh_l0
""",
        "add weight_ih_l{k} and weight_hh_l{k} of every layer of an nn.LSTM to the configuration",
        contract='nn.LSTM is in SUPPORTED_STRUCTURED_PRUNING_MODULES, "added to config if None given".',
    ),
    defect(
        "prepare-of-a-bias-crashes",
        "crash",
        "prepare() of a bias raises RuntimeError and leaves the layer parametrized: it sets the bias to None after it has parametrized it.",
        BASE + "_prepare",
        "RuntimeError",
        "right_inverse",
        """
prepare(nn.Sequential(nn.Linear(2, 4)), "0.bias")  # raises RuntimeError, should mask the bias
""",
        "put the bias aside only where the weight is what is masked",
        contract="Docstring of FakeStructuredSparsity: \"should be attached to the 'weight' or any other parameter that requires a mask\".",
        cause=ASIDE,
    ),
    defect(
        "prepare-crashes-on-a-parametrized-bias",
        "crash",
        "prepare() of a layer whose bias has a parametrization of the user's hands None to its right_inverse.",
        BASE + "_prepare",
        "TypeError",
        "NoneType",
        """
class Twice(nn.Module):
    def forward(self, bias):
        return bias * 2
    def right_inverse(self, bias):
        return bias / 2
model = nn.Sequential(nn.Linear(2, 4))
nn.utils.parametrize.register_parametrization(model[0], "bias", Twice())
prepare(model, "0.weight")  # raises TypeError: unsupported operand type(s) for /: 'NoneType' and 'int', should prepare the weight
""",
        "leave the bias where it is, and let the hook subtract its masked rows",
        contract="Parametrizations of other tensors of a module are no business of prepare().",
        cause=ASIDE,
    ),
    defect(
        "prepare-takes-the-first-parametrization-for-the-mask",
        "crash",
        "A prepared layer cannot run if its weight had a parametrization before: the BiasHook gets that one for its mask.",
        BASE + "_prepare",
        "AttributeError",
        "has no attribute 'mask'",
        """
model = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
SaliencyPruner({}).prepare(model, [{"tensor_fqn": "0.weight"}])
model(torch.rand(2, 3))  # raises AttributeError: '_WeightNorm' object has no attribute 'mask', should compute as before
""",
        "give the hook the parametrization that was just registered",
        contract="Parametrizations chain: a weight may have several.",
        cause=FIRST,
    ),
    defect(
        "prepare-makes-a-frozen-bias-trainable",
        "corrupted state",
        "prepare() wraps the detached bias in a new nn.Parameter, which requires a gradient even if the bias did not.",
        BASE + "_prepare",
        "AssertionError",
        "parameters that can be trained now",
        """
model = nn.Sequential(nn.Linear(2, 4)).requires_grad_(False)
prepare(model, "0.weight")
print(any(parameter.requires_grad for parameter in model.parameters()))  # prints True, should be False
""",
        "register the bias itself under the other name",
        contract="register_parametrization keeps requires_grad of the weight; prepare() only adds masks.",
        cause=NEW_PARAMETER,
    ),
    defect(
        "prepare-takes-the-bias-away-from-the-optimizer",
        "corrupted state",
        "prepare() replaces the bias by a new nn.Parameter: an optimizer that was made before never updates it.",
        BASE + "_prepare",
        "AssertionError",
        "parameters an optimizer does not know",
        """
model = nn.Sequential(nn.Linear(2, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=1)
prepare(model, "0.weight")
known = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
print([id(parameter) in known for parameter in model.parameters()])  # prints [False, True], should be [True, True]
""",
        "register the bias itself under the other name",
        contract="register_parametrization keeps the weight the same object for this very reason.",
        cause=ASIDE,
    ),
    defect(
        "prepared-bias-gets-no-gradient",
        "wrong result",
        "The bias of a prepared layer is added as .data: it never gets a gradient and is not trained.",
        HOOK,
        "AssertionError",
        "gradient of the bias",
        """
model = nn.Sequential(nn.Linear(2, 4))
prepare(model, "0.weight")
model(torch.rand(3, 2)).sum().backward()
print(model[0]._bias.grad)  # prints None, should be tensor([3., 3., 3., 3.]) with a zero in the masked row
""",
        "add the bias multiplied by the mask, not its data",
        contract="README of the package: prepare() makes the model behave as if pruned, and it is then trained.",
        cause=ASIDE,
    ),
    defect(
        "prepared-bias-is-overwritten-by-a-forward",
        "corrupted state",
        "A forward pass writes zeros into the bias of masked rows: they are lost even if the rows come back.",
        HOOK,
        "AssertionError",
        "output with a full mask again",
        """
model = nn.Sequential(nn.Linear(2, 4))
prepare(model, "0.weight")
before = model[0]._bias.detach().clone()
model(torch.rand(3, 2))
print(torch.equal(model[0]._bias, before))  # prints False, should be True
""",
        "add the bias multiplied by the mask, not its data",
        contract="Masking is a parametrization: the original values are kept beside the mask, as those of the weight are.",
        cause=ASIDE,
    ),
    defect(
        "prepared-structured-model-cannot-load-its-state-dict",
        "crash",
        "FakeStructuredSparsity.state_dict() is empty, but loading asks for its buffer: a prepared model refuses its own state_dict.",
        PACKAGE + "parametrization: FakeStructuredSparsity.state_dict",
        "RuntimeError",
        "Missing key.*mask",
        """
model = nn.Sequential(nn.Linear(2, 4))
prepare(model, "0.weight")
model.load_state_dict(model.state_dict())  # raises RuntimeError: Missing key(s), should load
""",
        'register_buffer("mask", mask, persistent=False)',
        contract="load_state_dict(state_dict()) with strict=True is the round trip of nn.Module.",
    ),
    defect(
        "structured-load-state-dict-adds-a-mask-of-another-kind",
        "corrupted state",
        "load_state_dict() of a structured pruner adds an elementwise FakeSparsity with the row mask: the model cannot run any more.",
        "torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.load_state_dict",
        "AssertionError",
        "masks on the weight after load_state_dict",
        """
model = nn.Sequential(nn.Linear(2, 4))
pruner = prepare(model, "0.weight")
pruner.load_state_dict(pruner.state_dict())
model(torch.rand(3, 2))  # raises AssertionError: mask shape must match x shape, should run
""",
        "look for the parametrization of the group's own class, FakeStructuredSparsity here",
        contract="state_dict() and load_state_dict() are inherited as they are; the round trip is the identity.",
    ),
    defect(
        "structured-squash-leaves-the-bias-aside",
        "corrupted state",
        "squash_mask() of a structured pruner leaves bias=None, the parameter _bias and a BiasHook: the names in the state_dict "
        "have changed.",
        "torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.squash_mask",
        "AssertionError",
        "names of the parameters after squash_mask",
        """
model = nn.Sequential(nn.Linear(2, 4))
prepare(model, "0.weight").squash_mask()
print(list(model.state_dict()))  # prints ['0._bias', '0.weight'], should be ['0.weight', '0.bias']
""",
        "override squash_mask: put the masked bias back and remove the hook",
        contract="squash_mask() removes what prepare() has added and leaves the masked values.",
        cause=ASIDE,
    ),
    defect(
        "structured-copy-loses-model-and-patterns",
        "crash",
        "A deep copy of a prepared structured pruner has neither model nor patterns nor enable_mask_update: prune() and step() "
        "raise AttributeError.",
        "torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.__getstate__",
        "AttributeError",
        "has no attribute '(model|patterns)'",
        """
import copy
pruner = copy.deepcopy(prepare(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)), "0.weight"))
pruner.prune()  # raises AttributeError: no attribute 'model', should return the pruned model
""",
        "let __getstate__ return all of __dict__",
        contract="The class implements __getstate__ and __setstate__ for copies; a copy behaves as the original.",
        cause=GETSTATE,
    ),
    # prune(): biases
    defect(
        "linear-at-the-output-loses-the-bias-that-is-not-pruned",
        "wrong result",
        "With prune_bias=False prune() of an nn.Linear at the output drops its whole bias, and leaves it under the name _bias.",
        FUNCTIONS + "prune_linear",
        "AssertionError",
        "pruned is not masked",
        """
model, x = nn.Sequential(nn.Linear(3, 4)), torch.zeros(1, 3)
pruner = prepare(model, "0.weight", prune_bias=False)
print(pruner.prune()(x))  # prints zeros, should be the biases of the three rows that are left
""",
        "give the kept rows of _bias to the layer in either case",
        cause=OUTPUT_LAYER,
    ),
    defect(
        "conv2d-at-the-output-loses-the-bias-that-is-not-pruned",
        "wrong result",
        "With prune_bias=False prune() of an nn.Conv2d at the output drops its whole bias, and leaves it under the name _bias.",
        FUNCTIONS + "prune_conv2d",
        "AssertionError",
        "pruned is not masked",
        """
model, x = nn.Sequential(nn.Conv2d(1, 4, 1)), torch.zeros(1, 1, 1, 1)
pruner = prepare(model, "0.weight", prune_bias=False)
print(pruner.prune()(x).flatten())  # prints zeros, should be the biases of the three filters that are left
""",
        "give the kept rows of _bias to the layer in either case",
        cause=OUTPUT_LAYER,
    ),
    defect(
        "linear-at-the-output-keeps-every-row-of-a-propagated-bias",
        "crash",
        "An nn.Linear(bias=False) at the output that got a bias from its predecessor keeps all rows of it when its own rows are "
        "cut: the pruned model cannot run.",
        FUNCTIONS + "prune_linear",
        "RuntimeError",
        "size",
        """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, bias=False))
pruned = prepare(model, "0.weight", "1.weight", prune_bias=False).prune()
pruned(torch.rand(5, 3))  # raises RuntimeError about sizes 3 and 4, should give three numbers a row
""",
        "cut the bias whenever there is one",
        cause=OUTPUT_LAYER,
    ),
    defect(
        "conv2d-at-the-output-keeps-every-row-of-a-propagated-bias",
        "crash",
        "An nn.Conv2d(bias=False) at the output that got a bias from its predecessor keeps all rows of it when its own filters are "
        "cut: the pruned model cannot run.",
        FUNCTIONS + "prune_conv2d",
        "RuntimeError",
        "bias",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, bias=False))
pruned = prepare(model, "0.weight", "1.weight", prune_bias=False).prune()
pruned(torch.rand(1, 1, 2, 2))  # raises RuntimeError about the size of the bias, should give three channels
""",
        "cut the bias whenever there is one",
        cause=OUTPUT_LAYER,
    ),
    defect(
        "propagated-bias-is-lost-in-a-layer-whose-bias-is-pruned",
        "wrong result",
        "A bias that was propagated into a layer with prune_bias=True is thrown away when that layer is cut: _bias, without it, is used.",
        FUNCTIONS + "_prune_module_bias",
        "AssertionError",
        "pruned is not masked",
        """
model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)), torch.rand(5, 3)
pruner = SaliencyPruner({"sparsity_level": 0.25})
pruner.prepare(model, [{"tensor_fqn": "0.weight", "prune_bias": False}, {"tensor_fqn": "1.weight"}])
pruner.step()
"""
        + COMPARE,
        "prefer module.bias, where a predecessor has set it, to module._bias",
        contract="prune_bias is an option of each tensor; " + PRUNED_IS_MASKED,
    ),
    defect(
        "bias-of-a-parametrized-next-layer-is-replaced",
        "wrong result",
        "If the next layer has a parametrization that is not pruning's, its own bias is replaced by the propagated one.",
        FUNCTIONS + "_get_adjusted_next_layer_bias",
        "AssertionError",
        "output is not that of the masked model",
        """
class Same(nn.Module):
    def forward(self, weight):
        return weight * 1
model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.rand(5, 3)
nn.utils.parametrize.register_parametrization(model[1], "weight", Same())
pruner = prepare(model, "0.weight", prune_bias=False)
"""
        + COMPARE,
        "add to next_layer.bias wherever there is one",
        cause=NEXT,
    ),
    defect(
        "bias-is-propagated-through-the-original-of-a-parametrized-weight",
        "wrong result",
        "A bias is propagated by the original of the next layer's weight, not by the weight that the layer computes with.",
        FUNCTIONS + "_get_adjusted_next_layer_bias",
        "AssertionError",
        "output is not that of the masked model",
        """
class Twice(nn.Module):
    def forward(self, weight):
        return weight * 2
model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)), torch.rand(5, 3)
nn.utils.parametrize.register_parametrization(model[1], "weight", Twice())
pruner = prepare(model, "0.weight", prune_bias=False)
"""
        + COMPARE,
        "use original only where the parametrization is FakeStructuredSparsity, else next_layer.weight",
        cause=NEXT,
    ),
    defect(
        "linear-rows-are-dropped-though-the-activation-of-zero-is-not-zero",
        "wrong result",
        "Rows with a pruned bias are dropped as if they gave nothing to the next layer, but sigmoid, hardsigmoid, logsigmoid and "
        "softplus of zero are not zero.",
        FUNCTIONS + "prune_linear_activation_linear",
        "AssertionError",
        "output is not that of the masked model",
        """
model, x = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)), torch.rand(5, 3)
pruner = prepare(model, "0.weight")
"""
        + COMPARE,
        "propagate activation(0) of the pruned rows into the next bias, as activation(bias) is",
        contract="The four are among the supported activations. " + PRUNED_IS_MASKED,
        cause=ZERO,
    ),
    defect(
        "conv2d-filters-are-dropped-though-the-activation-of-zero-is-not-zero",
        "wrong result",
        "Filters without bias are dropped as if they gave nothing to the next layer, but sigmoid, hardsigmoid, logsigmoid and "
        "softplus of zero are not zero.",
        FUNCTIONS + "prune_conv2d_activation_conv2d",
        "AssertionError",
        "output is not that of the masked model",
        """
model, x = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Softplus(), nn.Conv2d(4, 2, 1)), torch.rand(1, 1, 3, 3)
pruner = prepare(model, "0.weight")
"""
        + COMPARE,
        "propagate activation(0) of the pruned filters into the next bias, and keep them before a padded convolution",
        contract="The four are among the supported activations. " + PRUNED_IS_MASKED,
        cause=ZERO,
    ),
    defect(
        "bias-is-propagated-through-an-activation-without-its-arguments",
        "wrong result",
        "A functional activation is applied to the pruned bias without the arguments it has in the model: leaky_relu(x, 0.5) "
        "becomes leaky_relu(x).",
        BASE + "prune",
        "AssertionError",
        "pruned is not masked",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.second(nn.functional.leaky_relu(self.first(x), 0.5))
model, x = Model(), torch.rand(5, 3)
nn.init.constant_(model.first.bias, -3)
pruner = prepare(model, "first.weight", prune_bias=False)
"""
        + COMPARE,
        "hand over functools.partial(node.target, *node.args[1:], **node.kwargs)",
        cause=CONSTANT,
    ),
    defect(
        "functional-prelu-crashes-where-a-bias-is-propagated",
        "crash",
        "F.prelu is called with the pruned bias alone, without its weight: TypeError with prune_bias=False, after the rows are cut.",
        BASE + "prune",
        "TypeError",
        "weight",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.slope = nn.Linear(3, 4), nn.Linear(4, 2), nn.Parameter(torch.tensor([0.3]))
    def forward(self, x):
        return self.second(nn.functional.prelu(self.first(x), self.slope))
prepare(Model(), "first.weight", prune_bias=False).prune()  # raises TypeError: prelu() missing "weight", should prune
""",
        "hand over functools.partial(node.target, *node.args[1:], **node.kwargs), with parameters in place of their nodes",
        contract="F.prelu is in SUPPORTED_ACTIVATION_FUNCTIONS.",
        cause=CONSTANT,
    ),
    defect(
        "bias-is-propagated-as-if-average-pools-had-no-padding",
        "wrong result",
        "A bias moves on through AvgPool2d(padding=1) as a constant, but at the border the pool averages it with zeros.",
        FUNCTIONS + "prune_conv2d_activation_pool_conv2d, prune_conv2d_pool_activation_conv2d",
        "AssertionError",
        "output is not that of the masked model",
        """
model, x = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(3, 1, 1), nn.Conv2d(4, 2, 1)), torch.rand(1, 1, 5, 5)
nn.init.ones_(model[0].bias)
pruner = prepare(model, "0.weight", prune_bias=False)
"""
        + COMPARE,
        "keep the filters where the pool is padded and counts its padding, as before a padded convolution",
        contract="The chain is supported; padded convolutions are treated apart for this very reason. " + PRUNED_IS_MASKED,
        cause=CONSTANT,
    ),
    defect(
        "bias-is-propagated-as-if-average-pools-kept-constants",
        "wrong result",
        "A bias moves on through AvgPool2d(2, divisor_override=1) unchanged, but that pool makes four of one.",
        FUNCTIONS + "prune_conv2d_activation_pool_conv2d, prune_conv2d_pool_activation_conv2d",
        "AssertionError",
        "output is not that of the masked model",
        """
model, x = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(4, 2, 1)), torch.rand(1, 1, 4, 4)
nn.init.ones_(model[0].bias)
pruner = prepare(model, "0.weight", prune_bias=False)
"""
        + COMPARE,
        "apply the pool to a constant map of the pruned biases",
        cause=CONSTANT,
    ),
    defect(
        "pruned-bias-survives-before-a-padded-conv2d",
        "wrong result",
        "Before a padded convolution the bias of masked filters is kept although prune_bias=True, unless a forward pass after "
        "step() has overwritten it.",
        FUNCTIONS + "prune_conv2d_padded",
        "AssertionError",
        "output is not that of the masked model",
        """
model, x = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1)), torch.rand(1, 1, 4, 4)
pruner = prepare(model, "0.weight")
pruned = pruner.prune()
print(int((pruned.get_submodule("0").bias == 0).sum()))  # prints 0, should be 1: the bias of the masked filter is pruned by default
""",
        "zero the pruned rows of the bias if prune_bias is set",
        contract="prune_bias is True by default; whether the model was run must not matter. " + PRUNED_IS_MASKED,
        cause=PADDED,
    ),
    defect(
        "filters-before-a-padded-conv2d-stay-though-their-bias-is-pruned",
        "wrong result",
        "With the default prune_bias=True nothing is removed before a padded convolution: the masked filters stay as zeros.",
        FUNCTIONS + "prune_conv2d_activation_conv2d",
        "AssertionError",
        "channels between the layers",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
print(prepare(model, "0.weight").prune().get_submodule("0").out_channels)  # prints 4, should be 3
""",
        "take the padded case only if the bias is not pruned",
        contract="README of the package: prune() removes the masked rows; without bias a masked channel is zero at the border too, "
        "and bias=False is cut.",
        cause=PADDED,
    ),
    defect(
        "padded-conv2d-loses-dtype-of-a-propagated-bias",
        "crash",
        "A float64 model with a propagated bias before a padded convolution raises RuntimeError: the new bias is made as float32, "
        "on the CPU.",
        FUNCTIONS + "prune_conv2d_padded",
        "RuntimeError",
        "dtype",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)).double()
prepare(model, "0.weight", "1.weight", prune_bias=False).prune()  # raises RuntimeError: dtypes must match, should prune
""",
        "torch.zeros_like(conv2d_1.bias)",
        contract="Other chains of float64 models are pruned; torch.zeros has a dtype and a device.",
    ),
    defect(
        "flatten-of-a-full-mask-loses-dtype",
        "crash",
        "conv2d -> pool -> flatten -> linear of a float64 model raises RuntimeError if no filter is pruned: torch.tensor([]) is float32.",
        FUNCTIONS + "prune_conv2d_pool_flatten_linear",
        "RuntimeError",
        "dtype",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double()
prepare(model, "0.weight", prune_bias=False, sparsity_level=0).prune()  # raises RuntimeError: same dtype, should prune nothing
""",
        "pruned_biases.repeat_interleave(flatten_scale)",
        contract="A level of 0 prunes nothing; with any filter pruned the same model is cut.",
    ),
    defect(
        "conv2d-without-bias-before-flatten-crashes",
        "crash",
        "conv2d(bias=False) -> pool -> flatten -> linear raises TypeError with default settings, after the filters are cut.",
        FUNCTIONS + "prune_conv2d_pool_flatten_linear",
        "TypeError",
        "NoneType",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
prepare(model, "0.weight").prune()  # raises TypeError: 'NoneType' object is not iterable, should prune
""",
        "propagate only where there are pruned biases, as in the other chains",
        contract="The chain is supported, and bias=False is an option of nn.Conv2d that the other chains take.",
    ),
    # prune(): what is left behind
    defect(
        "pruned-layer-keeps-the-attribute-prune-bias",
        "leak",
        "prune() and squash_mask() leave the attribute prune_bias on every layer that was prepared.",
        FUNCTIONS + "_remove_bias_handles",
        "AssertionError",
        "attributes of the pruned layer",
        """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
prepare(model, "0.weight").prune()
print(hasattr(model[0], "prune_bias"))  # prints True, should be False
""",
        "delete the attribute with the bias hook",
        contract="prune() returns a plain model: parametrization, _bias and hook are removed too.",
        cause=LEFT,
    ),
    defect(
        "padded-conv2d-keeps-its-bias-hook",
        "corrupted state",
        "Before a padded convolution the BiasHook stays on the layer; if the pruned model is prepared again, the bias is added twice.",
        FUNCTIONS + "prune_conv2d_padded",
        "AssertionError",
        "prepared again",
        """
model, x = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1)), torch.rand(1, 1, 4, 4)
prepare(model, "0.weight", prune_bias=False).prune()
expected = model(x)
prepare(model, "0.weight", prune_bias=False, sparsity_level=0)
print(torch.allclose(model(x), expected))  # prints False, should be True
""",
        "call _remove_bias_handles, as _prune_conv2d_helper does",
        contract="prune() returns a plain model: in all other chains the hook is removed.",
        cause=LEFT,
    ),
    defect(
        "prune-runs-the-hooks-of-activations",
        "corrupted state",
        "To propagate a bias prune() calls the activation module, and with it its forward hooks: observers see the biases as if "
        "they were activations.",
        FUNCTIONS + "prune_linear_activation_linear, prune_conv2d_activation_conv2d",
        "AssertionError",
        "shapes that a hook on the activation has seen",
        """
model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
model[1].register_forward_hook(lambda module, args, output: print(tuple(output.shape)))
prepare(model, "0.weight", prune_bias=False).prune()  # prints (1,), should print nothing
""",
        "call activation.forward, which runs no hooks",
        contract="Forward hooks run when the model runs; observers of torch.ao.quantization are forward hooks.",
    ),
    defect(
        "prune-makes-frozen-parameters-trainable",
        "corrupted state",
        "prune() wraps what it cuts in new nn.Parameters, which require a gradient even if the layer was frozen.",
        FUNCTIONS + "_prune_linear_helper, _prune_conv2d_helper and all that cut a next layer",
        "AssertionError",
        "parameters that can be trained now",
        """
model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2)).requires_grad_(False)
prepare(model, "0.weight").prune()
print([name for name, parameter in model.named_parameters() if parameter.requires_grad])  # prints ['0.weight', '1.weight'], should be []
""",
        "nn.Parameter(cut, requires_grad=old.requires_grad)",
        contract="remove_parametrizations and register_parametrization keep requires_grad; cutting rows is no reason to train them.",
        cause=NEW_PARAMETER,
    ),
    defect(
        "refused-prune-has-already-cut-layers",
        "corrupted state",
        "prune() raises because one masked layer matches no pattern, when the others are cut already: the masked model is lost.",
        BASE + "prune",
        "AssertionError",
        "rows of the first layer after a refused prune",
        """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2))
pruner = prepare(model, "0.weight", "1.weight")
try:
    pruner.prune()
except Exception:
    print(tuple(model[0].weight.shape))  # prints (3, 3), should be (4, 3)
""",
        "find all matches first, refuse, and only then cut",
        contract="An error leaves the caller's model usable: mask another layer, or give another pattern, and retry.",
        cause=CHECK_FIRST,
    ),
    # prune(): matching
    defect(
        "layer-with-several-consumers-is-cut-for-the-first-alone",
        "wrong result",
        "A layer whose output has several users is cut for the first one; the others get too few features: an error, or wrong numbers.",
        PACKAGE + "match_utils: apply_match",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
class Fork(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
    def forward(self, x):
        x = self.first(x)
        return self.second(x) + self.third(x)
pruned = prepare(Fork(), "first.weight").prune()
pruned(torch.rand(5, 3))  # raises RuntimeError: shapes cannot be multiplied; prune() should have cut both or refused
""",
        "match only nodes that have one user, or all users of which match",
        contract=SUPPORTED_OR_REFUSED,
        cause=USERS,
    ),
    defect(
        "consumer-of-several-layers-is-cut-for-one-alone",
        "crash",
        "A layer that is applied to the outputs of two layers is cut for the one that is pruned; the other still gives all features.",
        BASE + "prune",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
class Join(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.last(self.first(x)) + self.last(self.second(x))
pruned = prepare(Join(), "first.weight").prune()
pruned(torch.rand(5, 3))  # raises RuntimeError: shapes cannot be multiplied; prune() should have refused
""",
        "match only if every call of the last module of the chain is fed by the chain",
        contract=SUPPORTED_OR_REFUSED,
        cause=USERS,
    ),
    defect(
        "layer-that-feeds-itself-is-cut-for-its-own-output",
        "crash",
        "A layer that is applied twice running matches as its own next layer: rows and columns are cut, and the model's input does "
        "not fit.",
        BASE + "prune",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
layer = nn.Linear(4, 4)
pruned = prepare(nn.Sequential(layer, nn.ReLU(), layer), "0.weight").prune()
pruned(torch.rand(5, 4))  # raises RuntimeError: shapes cannot be multiplied; prune() should have refused
""",
        "do not match a chain in which a module appears twice",
        contract=SUPPORTED_OR_REFUSED,
        cause=USERS,
    ),
    defect(
        "lstm-with-initial-states-is-cut-without-them",
        "crash",
        "An nn.LSTM that is called with its initial states is cut, but the states keep their size: the pruned model cannot run.",
        BASE + "prune",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4), nn.Linear(4, 2)
    def forward(self, x, h, c):
        return self.linear(self.lstm(x, (h, c))[0])
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(Model(), [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
state = torch.zeros(1, 2, 4)
pruner.prune()(torch.rand(5, 2, 3), state, state)  # raises RuntimeError about sizes; prune() should have refused
""",
        "match an LSTM only if its node has one argument",
        contract=SUPPORTED_OR_REFUSED,
        cause=USERS,
    ),
    defect(
        "prune-crashes-where-the-model-reads-the-weight",
        "crash",
        "If the model reads the weight of a masked layer itself, in a penalty say, the trace goes through its parametrization, "
        "which prune() removes: RuntimeError when everything is cut.",
        BASE + "prune",
        "RuntimeError",
        "nonexistent attribute",
        """
class Penalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.second(self.first(x)), self.first.weight.abs().sum()
prepare(Penalized(), "first.weight").prune()  # raises RuntimeError: references nonexistent attribute parametrizations, should prune
""",
        "trace the model again when the layers are cut",
        contract="Modules are shared with the model, which runs after prune(); its trace is what prune() returns.",
    ),
    defect(
        "submodule-called-output-matches-the-output",
        "crash",
        'A submodule with the name "output" is taken for the output of the model: prune() raises TypeError.',
        PACKAGE + "match_utils: _match",
        "TypeError",
        "prune_linear",
        """
model = nn.Sequential()
model.add_module("first", nn.Linear(3, 4))
model.add_module("output", nn.Linear(4, 2))
prepare(model, "first.weight").prune()  # raises TypeError: prune_linear() takes 1 positional argument but 2 were given, should prune
""",
        'compare node.op, too: "output" is the operation of the output node',
        contract='The pattern (nn.Linear, "output") is a linear layer at the output of the model.',
    ),
    defect(
        "functional-sigmoid-and-tanh-never-match",
        "crash",
        "F.sigmoid and F.tanh are traced as calls of the method: prune() refuses models with them although both are in the table.",
        BASE[:-1] + ", _get_supported_activation_functions",
        "Exception",
        "still contains FakeStructuredSparsity",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.second(nn.functional.tanh(self.first(x)))
prepare(Model(), "first.weight").prune()  # raises Exception: still contains FakeStructuredSparsity, should prune
""",
        'match call_method nodes "sigmoid" and "tanh", and torch.sigmoid and torch.tanh, as well',
        contract="F.sigmoid and F.tanh are in SUPPORTED_ACTIVATION_FUNCTIONS.",
    ),
    defect(
        "custom-pattern-loses-the-methods-that-it-matches",
        "wrong result",
        "The function of a pattern gets modules and functions, but nothing for a method that its pattern matched (x.relu() by "
        "MatchAllNode): its arguments move up.",
        BASE + "prune",
        "AssertionError",
        "parts of the match",
        """
from torch.ao.quantization.utils import MatchAllNode
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.second(self.first(x).relu())
def convert(*parts):
    print(len(parts))  # prints 2, should be 3
pruner = prepare(Model(), "first.weight")
pruner.patterns = {(nn.Linear, MatchAllNode, nn.Linear): convert}
try:
    pruner.prune()
except Exception:
    print("nothing was cut here")
""",
        "append something for every matched node, the method's name for call_method",
        contract="Patterns are tuples of what is matched; their functions take one argument for each: "
        "prune_linear_activation_linear(linear1, activation, linear2).",
    ),
    defect(
        "patterns-after-a-match-are-tried-at-its-last-node",
        "wrong result",
        "The loop over the matched nodes overwrites the node that is being matched: after a match the remaining patterns are tried "
        "at the last node of the chain.",
        BASE + "prune",
        "Exception",
        "still contains FakeStructuredSparsity",
        """
from torch.ao.pruning._experimental.pruner.prune_functions import prune_linear_activation_linear
pruner = prepare(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "0.weight")
pruner.patterns = {(nn.Linear, nn.ReLU): print, (nn.Linear, nn.ReLU, nn.Linear): prune_linear_activation_linear}
pruner.prune()  # raises Exception: still contains FakeStructuredSparsity, should apply both patterns to the layer
""",
        "give the inner loop a variable of its own",
        contract='Docstring of prune(): "For each pattern, it will apply to corresponding conversion function".',
    ),
    defect(
        "root-layer-is-not-pruned-and-loses-its-bias",
        "wrong result",
        "A model that is one prepared layer is traced through: prune() neither cuts it nor refuses, and the returned model has no "
        "bias any more.",
        BASE + "prune",
        "AssertionError",
        "output is not that of the masked model",
        """
model, x = nn.Linear(3, 4), torch.zeros(1, 3)
pruner = prepare(model, "weight", prune_bias=False)
print(torch.allclose(pruner.prune()(x), model(x)))  # prints False, should be True (or prune() refuse)
""",
        "refuse to trace a model that is itself parametrized, or wrap it in a container",
        contract='prepare() takes tensor_fqn="weight" for such a model. ' + SUPPORTED_OR_REFUSED,
    ),
    # prune(): options of layers
    defect(
        "next-conv2d-with-padding-by-name-crashes",
        "crash",
        'A next convolution with padding="same" or "valid" raises TypeError: the string is compared with (0, 0).',
        FUNCTIONS + "prune_conv2d_activation_conv2d",
        "TypeError",
        "not supported between instances of 'str' and 'tuple'",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 3, padding="valid"))
prepare(model, "0.weight").prune()  # raises TypeError: '>' not supported between instances of 'str' and 'tuple', should prune
""",
        "any(conv2d_2._reversed_padding_repeated_twice)",
        contract='nn.Conv2d documents padding="valid" and "same".',
    ),
    defect(
        "next-conv2d-with-groups-is-not-refused",
        "crash",
        "A next convolution with groups raises IndexError when the filters before it are cut already.",
        FUNCTIONS + "prune_conv2d_activation_conv2d",
        "AssertionError",
        "refused.*and the model cannot run any more",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, groups=2))
pruner = prepare(model, "0.weight")
try:
    pruner.prune()
except IndexError:
    model(torch.rand(1, 1, 2, 2))  # raises RuntimeError: expected input to have 4 channels, should run as before
""",
        "refuse groups other than 1 before anything is cut",
        contract=SUPPORTED_OR_REFUSED,
        cause=GROUPS,
    ),
    defect(
        "depthwise-conv2d-is-not-refused",
        "crash",
        "Filters of a depthwise or grouped convolution are cut one by one: the pruned model cannot run.",
        FUNCTIONS + "_prune_conv2d_helper",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 2, 1))
pruned = prepare(model, "0.weight").prune()
pruned(torch.rand(1, 4, 2, 2))  # raises RuntimeError about groups=4; prune() should have refused
""",
        "refuse groups other than 1",
        contract=SUPPORTED_OR_REFUSED,
        cause=GROUPS,
    ),
    defect(
        "conv2d-without-any-filter-left-cannot-run",
        "crash",
        "With every filter masked (level 1) prune() returns a convolution of no channels, which cannot run.",
        FUNCTIONS + "_prune_conv2d_helper",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
pruner = prepare(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)), "0.weight", sparsity_level=1)
pruner.prune()(torch.rand(1, 1, 2, 2))  # raises RuntimeError about the size of the weight; prune() should have refused
""",
        "refuse an empty mask, or keep one filter of zeros",
        contract="FPGMPruner masks every filter at level 1, and nn.Linear is cut to no rows and runs. " + SUPPORTED_OR_REFUSED,
    ),
    defect(
        "flatten-of-another-dimension-is-taken-for-that-of-channels",
        "crash",
        "Flatten(2) leaves the channels apart, but the columns of the linear layer are cut as if they were channels.",
        FUNCTIONS + "prune_conv2d_pool_flatten_linear",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(2), nn.Linear(4, 2))
pruner = prepare(model, "0.weight")
pruner.prune()(torch.rand(1, 1, 2, 2))  # raises RuntimeError: shapes cannot be multiplied; prune() should have refused
""",
        "look at start_dim and end_dim, and refuse all but 1 (or -3) and -1",
        contract="start_dim is an option of nn.Flatten and torch.flatten. " + SUPPORTED_OR_REFUSED,
    ),
    defect(
        "prelu-with-a-weight-per-channel-is-not-cut",
        "crash",
        "nn.PReLU(num_parameters=C) keeps its C weights when the channels are cut: the pruned model cannot run.",
        FUNCTIONS + "prune_linear_activation_linear, prune_conv2d_activation_conv2d",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
pruner = prepare(nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2)), "0.weight")
pruner.prune()(torch.rand(5, 3))  # raises RuntimeError: Mismatch of parameter numbers and input channel size, should run
""",
        "cut activation.weight by the mask where it has more than one entry",
        contract="nn.PReLU is in SUPPORTED_ACTIVATION_MODULES, and num_parameters is its option.",
    ),
    defect(
        "mask-of-the-next-layer-is-not-cut",
        "crash",
        "If WeightNormSparsifier has prepared the next layer, its original is cut and its mask is not: the pruned model cannot run.",
        FUNCTIONS + "prune_linear_activation_linear",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
from torch.ao.pruning import WeightNormSparsifier
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
WeightNormSparsifier().prepare(model, [{"tensor_fqn": "1.weight"}])
pruned = prepare(model, "0.weight").prune()
pruned(torch.rand(5, 3))  # raises AssertionError: mask shape must match x shape, should run (or prune() refuse)
""",
        "cut the mask of a FakeSparsity too, and refuse other parametrizations",
        contract="Both live in torch.ao.pruning. " + SUPPORTED_OR_REFUSED,
        cause=NEXT,
    ),
    defect(
        "weight-norm-of-the-next-layer-is-not-refused",
        "crash",
        "If the next layer has torch's weight_norm, which has no single original, prune() raises AttributeError when the rows "
        "before it are cut already.",
        FUNCTIONS + "prune_linear_activation_linear",
        "AssertionError",
        "refused.*and the model cannot run any more",
        """
model = nn.Sequential(nn.Linear(3, 4), torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
pruner = prepare(model, "0.weight")
try:
    pruner.prune()
except AttributeError:
    model(torch.rand(5, 3))  # raises RuntimeError: shapes cannot be multiplied, should run as before
""",
        "refuse parametrizations of the next layer other than FakeStructuredSparsity before anything is cut",
        contract=SUPPORTED_OR_REFUSED,
        cause=NEXT,
    ),
    defect(
        "parametrized-bias-of-the-next-layer-crashes",
        "crash",
        "If only the bias of the next layer has a parametrization, prune() asks for that of its weight and raises AttributeError "
        "when the rows before it are cut already.",
        FUNCTIONS + "prune_linear_activation_linear",
        "AssertionError",
        "refused.*and the model cannot run any more",
        """
model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
nn.utils.parametrize.register_parametrization(model[1], "bias", nn.Identity())
prepare(model, "0.weight").prune()  # raises AttributeError: 'ModuleDict' object has no attribute 'weight', should prune
""",
        'parametrize.is_parametrized(linear2, "weight")',
        contract=SUPPORTED_OR_REFUSED,
        cause=NEXT,
    ),
    # prune(): LSTM
    defect(
        "lstm-units-of-which-the-bias-lives-on-are-dropped",
        "wrong result",
        "prepare() masks no bias of an nn.LSTM, so a masked unit still puts numbers out; prune() drops it with its biases, and the "
        "output changes.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "pruned is not masked",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 2), nn.Linear(2, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
model, x = Model(), torch.rand(5, 1, 3)
pruner = SaliencyPruner({})
mask = torch.tensor([True, False] * 4)  # unit 1 in all four gates
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
"""
        + COMPARE,
        "mask bias_ih and bias_hh of an LSTM with the rows of its weights when it is prepared",
        cause=LSTM_UNITS,
    ),
    defect(
        "lstm-gates-masked-in-different-units-are-mixed-up",
        "wrong result",
        "prune() puts the kept rows of the four gates side by side, whichever units they are of: with the masks that "
        "LSTMSaliencyPruner makes, a gate of one unit meets the cell of another.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "output is not that of the masked model",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4, bias=True), nn.Linear(4, 2)
        nn.init.zeros_(self.lstm.bias_ih_l0)
        nn.init.zeros_(self.lstm.bias_hh_l0)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
model, x = Model(), torch.rand(5, 1, 3)
pruner = SaliencyPruner({})
mask = ~torch.eye(4, dtype=torch.bool).flatten()  # another unit in each of the four gates
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
"""
        + COMPARE,
        "cut only units that are masked in all gates of both weights, and mask whole units in LSTMSaliencyPruner",
        contract="Docstring of LSTMSaliencyPruner: packed weights must not be misassigned when unpacked. " + PRUNED_IS_MASKED,
        cause=LSTM_UNITS,
    ),
    defect(
        "lstm-with-one-prepared-weight-cannot-run",
        "crash",
        "If only weight_ih or only weight_hh of an nn.LSTM is prepared, only that one is cut, and the pruned model cannot run.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "pruned, and the model cannot run any more",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
from torch.ao.pruning._experimental.pruner import LSTMSaliencyPruner
pruner = LSTMSaliencyPruner({"sparsity_level": 0.25})
pruner.prepare(Model(), [{"tensor_fqn": "lstm.weight_ih_l0"}])
pruner.step()
pruner.prune()(torch.rand(5, 1, 3))  # raises RuntimeError about sizes 12 and 16; prune() should have refused
""",
        "cut only units that are masked in all gates of both weights, refuse the rest",
        contract=SUPPORTED_OR_REFUSED,
        cause=LSTM_UNITS,
    ),
    defect(
        "lstm-layers-of-different-sizes-read-foreign-memory",
        "wrong result",
        "Layers of one nn.LSTM that lose different numbers of units are cut to weights of different sizes; the LSTM takes all for "
        "the last one's and reads beyond their memory: random numbers.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "LSTM whose layers have 3 and 2 units",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4, 2), nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
model = Model()
pruner = SaliencyPruner({})
masks = {0: [True, True, True, False] * 4, 1: [True, True, False, False] * 4}
names = [(f"lstm.weight_{part}_l{layer}", torch.tensor(mask)) for layer, mask in masks.items() for part in ("ih", "hh")]
pruner.prepare(model, [{"tensor_fqn": name, "mask": mask} for name, mask in names])
pruner.prune()
print(tuple(model.lstm.weight_hh_l0.shape), model.lstm.hidden_size)  # prints (12, 3) 2: prune() should have refused
""",
        "refuse masks that keep different numbers of units",
        contract="sparsity_level is an option of each tensor. " + SUPPORTED_OR_REFUSED,
        cause=LSTM_UNITS,
    ),
    defect(
        "lstm-with-two-directions-is-not-refused",
        "crash",
        "nn.LSTM(bidirectional=True) raises IndexError when one of its directions is cut already.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "refused.*and the model cannot run any more",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4, bidirectional=True), nn.Linear(8, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
model = Model()
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
try:
    pruner.prune()
except IndexError:
    model(torch.rand(5, 1, 3))  # raises RuntimeError about shapes, should run as before
""",
        "refuse bidirectional LSTMs before anything is cut",
        contract="bidirectional is an option of nn.LSTM. " + SUPPORTED_OR_REFUSED,
        cause=LSTM_OPTIONS,
    ),
    defect(
        "lstm-with-projections-is-not-refused",
        "crash",
        "nn.LSTM(proj_size=...) raises IndexError when its input weight is cut already.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "refused.*and the model cannot run any more",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4, proj_size=2), nn.Linear(2, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
model = Model()
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
try:
    pruner.prune()
except IndexError:
    model(torch.rand(5, 1, 3))  # raises RuntimeError about sizes 16 and 12, should run as before
""",
        "refuse LSTMs with projections before anything is cut",
        contract="proj_size is an option of nn.LSTM. " + SUPPORTED_OR_REFUSED,
        cause=LSTM_OPTIONS,
    ),
    defect(
        "lstm-without-bias-crashes",
        "crash",
        "nn.LSTM(bias=False) raises AttributeError for bias_ih_l0 when its input weight is cut already.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "refused.*bias_ih_l0",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4, bias=False), nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(Model(), [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
pruner.prune()  # raises AttributeError: no attribute 'bias_ih_l0', should prune
""",
        "cut the biases only if lstm.bias",
        contract="bias=False is an option of nn.LSTM, and of the other layers that are pruned.",
        cause=LSTM_OPTIONS,
    ),
    defect(
        "lstm-behind-another-parametrization-crashes",
        "crash",
        "prune() of an nn.LSTM whose weights had a parametrization before raises AttributeError: the first in the list is taken "
        "for the mask.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AttributeError",
        "has no attribute 'mask'",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(3, 4), nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(self.lstm(x)[0])
model = Model()
nn.utils.parametrize.register_parametrization(model.lstm, "weight_ih_l0", nn.Identity())
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
pruner.prune()  # raises AttributeError: 'Identity' object has no attribute 'mask', should prune
""",
        "search the list for a FakeStructuredSparsity, as the functions for linear and conv2d do",
        contract="The functions that cut linear and conv2d layers, and LSTMSaliencyPruner, search the list.",
        cause=FIRST,
    ),
    defect(
        "layernorm-without-affine-parameters-crashes",
        "crash",
        "lstm -> LayerNorm(elementwise_affine=False) -> linear raises TypeError when the LSTM is cut already; so does bias=False.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "TypeError",
        "NoneType",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.norm, self.linear = nn.LSTM(3, 4), nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(self.norm(self.lstm(x)[0]))
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(Model(), [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
pruner.prune()  # raises TypeError: 'NoneType' object is not subscriptable, should prune
""",
        "cut weight and bias of the norm only where they are",
        contract="elementwise_affine and bias are options of nn.LayerNorm; the chain is supported.",
    ),
    defect(
        "layernorm-over-several-dimensions-is-cut-along-the-first",
        "crash",
        "lstm -> LayerNorm((batch, units)) -> linear: the norm's weight is indexed along its first dimension: IndexError when the "
        "LSTM is cut already.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "refused.*and the model cannot run any more",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.norm, self.linear = nn.LSTM(3, 4), nn.LayerNorm((2, 4)), nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(self.norm(self.lstm(x)[0]))
model = Model()
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
try:
    pruner.prune()
except IndexError:
    model(torch.rand(5, 2, 3))  # raises RuntimeError: Given normalized_shape, should run as before
""",
        "refuse normalized_shape of more than one dimension before anything is cut",
        contract="normalized_shape is a shape. " + SUPPORTED_OR_REFUSED,
    ),
    defect(
        "layernorm-of-a-pruned-lstm-normalizes-over-fewer-units",
        "wrong result",
        "The masked model normalizes over all units, zeros among them, the pruned one over those that are left: mean and variance "
        "differ, and so does the output.",
        FUNCTIONS + "prune_lstm_output_layernorm_linear",
        "AssertionError",
        "output is not that of the masked model",
        """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.norm, self.linear = nn.LSTM(3, 4, bias=True), nn.LayerNorm(4), nn.Linear(4, 2)
        nn.init.zeros_(self.lstm.bias_ih_l0)
        nn.init.zeros_(self.lstm.bias_hh_l0)
    def forward(self, x):
        return self.linear(self.norm(self.lstm(x)[0]))
model, x = Model(), torch.rand(5, 1, 3)
pruner = SaliencyPruner({})
mask = torch.tensor([True, True, True, False] * 4)
pruner.prepare(model, [{"tensor_fqn": f"lstm.weight_{part}_l0", "mask": mask} for part in ("ih", "hh")])
"""
        + COMPARE,
        "refuse the chain, or cut only the LSTM's weights and put zeros back before the norm",
        contract="The chain is in the table of patterns. " + PRUNED_IS_MASKED,
    ),
]

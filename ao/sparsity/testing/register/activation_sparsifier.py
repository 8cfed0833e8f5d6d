"""Known defects of the activation sparsifier."""

from ao.sparsity.testing.register.entry import Defect

_CLASS = "torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier: ActivationSparsifier"

_SETUP = """
import torch
from torch import nn
from torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier import ActivationSparsifier
model = nn.Sequential(nn.Identity())
def sparsifier_of(model, layer, mask_fn=torch.ones_like, aggregate_fn=torch.add, **settings):
    sparsifier = ActivationSparsifier(model, aggregate_fn, lambda x: x.mean(0), mask_fn)
    sparsifier.register_layer(layer, **settings)
    return sparsifier

"""

_CLOSURES = "the hooks are closures over the sparsifier, not objects that can be copied and pickled with it"
_IN_PLACE = "the sparsify hook writes with index_copy_ into the activation itself"
_INDEX = "feature indices pass through a tensor of the default floating-point dtype"
_NO_HOOK = "squash_mask removes the key 'hook' and sets hook_state to 'sparsify' without attaching one"
_ALIASED_LOAD = "load_state_dict takes over the dictionaries of the given state"


def _defect(**fields):
    return Defect(area="activation_sparsifier", reproduce=_SETUP + fields.pop("show"), where=_CLASS + "." + fields.pop("method"), **fields)


DEFECTS = [
    _defect(
        id="activation-aggregate-starts-from-zeros",
        kind="wrong result",
        summary=(
            "aggregate_fn is first called with a tensor of zeros, so that a maximum, minimum, product or concatenation of "
            "activations is wrong."
        ),
        method="_aggregate_hook",
        contract="Class docstring: mask = mask_fn(reduce_fn(aggregate_fn(activations))); only activations are aggregated.",
        error="AssertionError",
        match="maximum of the activations",
        show="""
sparsifier = sparsifier_of(model, model[0], aggregate_fn=torch.maximum)
_ = model(torch.tensor([[-3.0]])), model(torch.tensor([[-2.0]]))
print(sparsifier.data_groups["0"]["data"])  # prints 0, should be -2
""",
        mend="On the first forward store the activation itself instead of aggregate_fn(zeros_like(activation), activation).",
    ),
    _defect(
        id="activation-feature-lists-crash",
        kind="crash",
        summary="A feature given as a list of indices makes the forward of the layer raise.",
        method="_aggregate_hook",
        contract='Comment in the hook: "each feature is either a list or scalar, convert it to torch tensor".',
        error="IndexError",
        match="vector",
        show="""
sparsifier = sparsifier_of(model, model[0], features=[[0, 2], [1]], feature_dim=1)
model(torch.ones(1, 3))  # IndexError, should aggregate columns 0 and 2 together
""",
        mend="Build the index with torch.as_tensor(feature).reshape(-1), here and in _sparsify_hook.",
    ),
    _defect(
        id="activation-aggregate-keeps-the-autograd-graph",
        kind="leak",
        summary=(
            "The aggregated data hold the autograd graph of every forward since the last step; memory grows, and the state "
            "cannot be deep-copied."
        ),
        method="_aggregate_hook",
        contract="step() reads the data under torch.no_grad(): they are statistics, of which no gradient is taken.",
        error="AssertionError",
        match="autograd graph of the aggregated data",
        show="""
model = nn.Sequential(nn.Linear(2, 2), nn.Identity())
sparsifier = sparsifier_of(model, model[1])
model(torch.ones(1, 2)).sum().backward()
print(sparsifier.data_groups["1"]["data"].grad_fn)  # prints <AddBackward0 ...>, should be None
""",
        mend="Detach the activation in the hook: input_data = input[0].detach().",
    ),
    _defect(
        id="activation-feature-index-rounded-when-aggregating",
        kind="wrong result",
        summary="Under a default dtype of bfloat16 the index of a feature above 256 is rounded, and another feature is aggregated.",
        method="_aggregate_hook",
        contract="Class docstring: features are the selected features along feature_dim; an index is an integer.",
        error="AssertionError",
        match="aggregated feature 257",
        show="""
sparsifier = sparsifier_of(model, model[0], features=[257], feature_dim=0)
torch.set_default_dtype(torch.bfloat16)
_ = model(torch.arange(300, dtype=torch.float32))
torch.set_default_dtype(torch.float32)
print(sparsifier.data_groups["0"]["data"])  # prints 256, should be 257
""",
        mend="torch.tensor([feature], dtype=torch.long, device=input_data.device) instead of torch.Tensor([feature]).long().",
        cause=_INDEX,
    ),
    _defect(
        id="activation-feature-index-rounded-when-sparsifying",
        kind="wrong result",
        summary="Under a default dtype of bfloat16 the index of a feature above 256 is rounded, and another feature is masked.",
        method="_sparsify_hook",
        contract="Class docstring: features are the selected features along feature_dim; an index is an integer.",
        error="AssertionError",
        match="sparsified features",
        show="""
sparsifier = sparsifier_of(model, model[0], torch.zeros_like, features=[257], feature_dim=0)
_ = model(torch.ones(300))
sparsifier.step()
sparsifier.squash_mask()
torch.set_default_dtype(torch.bfloat16)
print((model(torch.ones(300, dtype=torch.float32)) == 0).nonzero())  # prints 256, should be 257
torch.set_default_dtype(torch.float32)
""",
        mend="torch.tensor([feature], dtype=torch.long, device=input_data.device) instead of torch.Tensor([feature]).long().",
        cause=_INDEX,
    ),
    _defect(
        id="activation-inference-mode-mask-cannot-be-updated",
        kind="crash",
        summary=(
            "After collecting activations in inference mode, step() raises: the mask was created in the hook and is an inference tensor."
        ),
        method="_aggregate_hook",
        contract=(
            "torch.inference_mode() is the documented way to run a model without training it; under torch.no_grad() the same code works."
        ),
        error="RuntimeError",
        match="[Ii]nference tensor",
        show="""
sparsifier = sparsifier_of(model, model[0])
x = torch.ones(1, 2, requires_grad=True)
with torch.inference_mode():
    _ = model(x)
sparsifier.step()
sparsifier.squash_mask()
model(x).sum().backward()  # RuntimeError about inference tensors, should work
""",
        mend="Create and replace the mask in step(), self.state[name]['mask'] = mask_fn(...), not in the hook.",
    ),
    _defect(
        id="activation-hook-needs-a-positional-input",
        kind="crash",
        summary="A registered layer that is called by keyword, layer(input=x), raises IndexError from the hook.",
        method="register_layer",
        contract="A registered layer stays callable as before: nn.Linear.forward(input) takes its argument by keyword.",
        error="IndexError",
        match="tuple index out of range",
        show="""
model = nn.Sequential(nn.Linear(2, 2))
sparsifier = sparsifier_of(model, model[0])
model[0](input=torch.ones(1, 2))  # IndexError: tuple index out of range, should work
""",
        mend="Register the hooks with with_kwargs=True and take the first argument, positional or named.",
    ),
    _defect(
        id="activation-forward-after-step-erases-the-mask",
        kind="wrong result",
        summary="The first forward after step() replaces the computed mask by ones; squash_mask() then sparsifies nothing.",
        method="_aggregate_hook",
        contract=(
            "step() computes the mask and squash_mask() applies it; get_mask docstring: the forward only makes the shape of the mask known."
        ),
        error="AssertionError",
        match="mask after a further forward",
        show="""
sparsifier = sparsifier_of(model, model[0], torch.zeros_like)
x = torch.ones(1, 2)
_ = model(x)
sparsifier.step()
print(sparsifier.get_mask("0"))  # prints [0., 0.]
_ = model(x)  # a validation pass
print(sparsifier.get_mask("0"))  # prints [[1., 1.]], should still be [0., 0.]
""",
        mend="Create the mask in the hook only while there is none.",
    ),
    _defect(
        id="activation-step-needs-every-layer-to-have-run",
        kind="crash",
        summary="step() raises KeyError: 'data' half way, if one registered layer saw no activation since the last step.",
        method="step",
        contract=(
            'Docstring: "Internally calls the update_mask() function for each layer"; a second step of the other '
            "sparsifiers changes nothing."
        ),
        error="KeyError",
        match="data",
        show="""
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(1, 2))
sparsifier.step()
sparsifier.step()  # KeyError: 'data', should change nothing
""",
        mend="Skip layers without aggregated data.",
    ),
    _defect(
        id="activation-refused-registration-loses-the-layer",
        kind="corrupted state",
        summary="Registering a layer again with settings that are refused has already unregistered it.",
        method="register_layer",
        contract="A refused call changes nothing; the warning promises deregistering and registering with the new config.",
        error="AssertionError",
        match="layers and hooks after the refusal",
        show="""
sparsifier = sparsifier_of(model, model[0])
try:
    sparsifier.register_layer(model[0], features=[0])  # needs a feature_dim
except AssertionError as error:
    print(error)
print(list(sparsifier.data_groups))  # prints [], should be ['0']
""",
        mend="Check the settings before unregister_layer().",
    ),
    _defect(
        id="activation-functions-must-be-copyable",
        kind="crash",
        summary=(
            "register_layer() deep-copies the default functions: an object with a lock or a file raises, any other is "
            "called as a copy, not itself."
        ),
        method="register_layer",
        contract=(
            "Class docstring: the default aggregate_fn, reduce_fn and mask_fn are used where the layer has none; one given "
            "for the layer is used itself."
        ),
        error="TypeError",
        match="cannot (be )?pickle",
        show="""
import threading
class Sum:
    def __init__(self):
        self.lock = threading.Lock()
    def __call__(self, x, y):
        with self.lock:
            return x + y
sparsifier_of(model, model[0], aggregate_fn=Sum())  # TypeError: cannot pickle '_thread.lock' object, should register
""",
        mend="Copy only sparse_config and features, not the functions.",
    ),
    _defect(
        id="activation-unregister-of-unknown-name-adds-a-group",
        kind="corrupted state",
        summary=(
            "unregister_layer() with an unknown name raises, but leaves an empty group of that name; every later step() and "
            "squash_mask() fails."
        ),
        method="unregister_layer",
        contract='Docstring: "Detaches the sparsifier from the layer"; get_mask() refuses an unknown name without a trace.',
        error="AssertionError",
        match="registered layers",
        show="""
sparsifier = sparsifier_of(model, model[0])
try:
    sparsifier.unregister_layer("nowhere")
except KeyError as error:
    print("KeyError", error)
print(list(sparsifier.data_groups))  # prints ['0', 'nowhere'], should be ['0']
""",
        mend="Raise before indexing the defaultdict if the name is not in data_groups.",
    ),
    _defect(
        id="activation-sparsify-writes-into-the-input",
        kind="corrupted state",
        summary=(
            "With features, the sparsify hook writes the masked values into the caller's tensor: residual branches and data "
            "sets are changed."
        ),
        method="_sparsify_hook",
        contract="A forward pre-hook returns a new input, as this one does without features.",
        error="AssertionError",
        match="the caller's tensor",
        show="""
sparsifier = sparsifier_of(model, model[0], torch.zeros_like, features=[0], feature_dim=1)
x = torch.ones(1, 2)
_ = model(x)
sparsifier.step()
sparsifier.squash_mask()
_ = model(x)
print(x)  # prints [[0., 1.]], should be [[1., 1.]]
""",
        mend="Work on a copy: input_data = input_data.index_copy(feature_dim, feature, sparsified).",
        cause=_IN_PLACE,
    ),
    _defect(
        id="activation-sparsify-breaks-backward",
        kind="crash",
        summary="With features, backward() fails after squash_mask(): a tensor saved for the gradient was modified in place.",
        method="_sparsify_hook",
        contract="The model can be trained on with its masks, as it can be without features.",
        error="RuntimeError",
        match="inplace operation|in-place operation",
        show="""
model = nn.Sequential(nn.Sigmoid(), nn.Identity())
sparsifier = sparsifier_of(model, model[1], features=[0], feature_dim=1)
x = torch.zeros(1, 2, requires_grad=True)
_ = model(x)
sparsifier.step()
sparsifier.squash_mask()
model(x).sum().backward()  # RuntimeError: modified by an inplace operation, should work
""",
        mend="Work on a copy: input_data = input_data.index_copy(feature_dim, feature, sparsified).",
        cause=_IN_PLACE,
    ),
    _defect(
        id="activation-sparsify-drops-further-inputs",
        kind="wrong result",
        summary=(
            "After squash_mask() a layer gets its first input only: a recurrent cell silently loses its hidden state, nn.Bilinear raises."
        ),
        method="_sparsify_hook",
        contract="register_forward_pre_hook: what the hook returns replaces all positional inputs; only the first is to be masked.",
        error="AssertionError",
        match="output of the cell under a mask of ones",
        show="""
cell = nn.RNNCell(2, 2)
sparsifier = sparsifier_of(cell, cell)  # a mask of ones
x, hidden = torch.ones(1, 2), torch.full((1, 2), 3.0)
before = cell(x, hidden)
sparsifier.step()
sparsifier.squash_mask()
print(torch.equal(cell(x, hidden), before))  # prints False, should be True
print(torch.equal(cell(x, hidden), cell(x)))  # prints True: hidden is dropped
""",
        mend="Return (masked, *input[1:]) from the hook.",
    ),
    _defect(
        id="activation-mask-changes-the-input-s-dtype",
        kind="crash",
        summary="A float32 mask, such as torch.eye() of the example makes, turns a bfloat16 activation into float32, and the layer raises.",
        method="_sparsify_hook",
        contract="Masking zeroes activations; it does not change their dtype. The class's own example makes its mask by torch.eye().",
        error="RuntimeError",
        match="same dtype|expected .*type",
        show="""
layer = nn.Linear(2, 2).bfloat16()
sparsifier = sparsifier_of(layer, layer, lambda data: torch.ones(data.shape))
x = torch.ones(1, 2, dtype=torch.bfloat16)
_ = layer(x)
sparsifier.step()
sparsifier.squash_mask()
layer(x)  # RuntimeError: mat1 and mat2 must have the same dtype, should work
""",
        mend="Multiply by mask.to(input_data) in the hook.",
    ),
    _defect(
        id="activation-mask-stays-on-the-old-device",
        kind="crash",
        summary="The masks of a squashed model stay where they were when the model moves to another device; its forward raises.",
        method="_sparsify_hook",
        contract="Module.to() moves a model with what belongs to it; the mask of a weight is a buffer and moves along.",
        error="AssertionError",
        match="devices of the activation and of the mask",
        show="""
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(1, 2))
sparsifier.step()
sparsifier.squash_mask()
model.to("meta")
print(sparsifier.get_mask("0").device)  # prints cpu; model(torch.ones(1, 2, device="meta")) raises RuntimeError
""",
        mend="Multiply by mask.to(input_data) in the hook, or make the mask a buffer of the layer.",
    ),
    _defect(
        id="activation-mask-of-ones-keeps-the-batch-size",
        kind="crash",
        summary=(
            "Before the first step the mask has the shape of the whole first batch; squashed then, the model runs with that "
            "batch size only."
        ),
        method="_aggregate_hook",
        contract="Until a step computes a mask nothing is masked, at any batch size; a computed mask allows every batch size too.",
        error="RuntimeError",
        match="must match the size",
        show="""
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(4, 3))
sparsifier.squash_mask()
model(torch.ones(2, 3))  # RuntimeError: size of tensor a (2) must match the size of tensor b (4), should return ones
""",
        mend="Start with a mask of one element, torch.ones((), dtype=..., device=...), which broadcasts.",
    ),
    _defect(
        id="activation-refused-squash-removes-the-hooks",
        kind="corrupted state",
        summary=(
            "squash_mask() before any forward raises as documented, but has already removed the aggregation hook; running "
            "the layer does not help any more."
        ),
        method="squash_mask",
        contract='The error asks to "call layer() routine at least once to infer mask" and try again.',
        error="AssertionError",
        match="hooks of the layer after the refusal",
        show="""
sparsifier = sparsifier_of(model, model[0])
try:
    sparsifier.squash_mask()
except ValueError as error:
    print(error)
print(len(model[0]._forward_pre_hooks))  # prints 0, should be 1
""",
        mend="Build all sparsify hooks, which asks for the masks, before the first hook is removed.",
    ),
    _defect(
        id="activation-squash-keeps-the-aggregated-data",
        kind="leak",
        summary=(
            "Activations aggregated after the last step stay in memory for good once masks are squashed, and are written "
            "into every saved state."
        ),
        method="squash_mask",
        contract='step() resets the accumulated data; squash_mask() "unregisters aggregate hook": nothing reads or extends them any more.',
        error="AssertionError",
        match="aggregated data after squash_mask",
        show="""
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(1, 2))
sparsifier.step()
_ = model(torch.ones(1, 2))  # a validation pass
sparsifier.squash_mask()
print("data" in sparsifier.state_dict()["data_groups"]["0"])  # prints True, should be False
""",
        mend="configs.pop('data', None) in squash_mask().",
    ),
    _defect(
        id="activation-squash-again-after-dense-squash-crashes",
        kind="crash",
        summary="squash_mask() after squash_mask(attach_sparsify_hook=False) raises KeyError: 'hook'.",
        method="squash_mask",
        contract="squash_mask() after squash_mask() works; attach_sparsify_hook only says whether a hook is attached.",
        error="KeyError",
        match="hook",
        show="""
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(1, 2))
sparsifier.squash_mask(attach_sparsify_hook=False)
sparsifier.squash_mask()  # KeyError: 'hook', should attach the sparsify hook
""",
        mend="configs.pop('hook', None), and remove it only where there is one.",
        cause=_NO_HOOK,
    ),
    _defect(
        id="activation-unregister-after-dense-squash-crashes",
        kind="crash",
        summary="unregister_layer(), and so registering again, raises KeyError: 'hook' after squash_mask(attach_sparsify_hook=False).",
        method="unregister_layer",
        contract='Docstring: "Detaches the sparsifier from the layer"; comment: "detach any hooks attached".',
        error="KeyError",
        match="hook",
        show="""
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(1, 2))
sparsifier.squash_mask(attach_sparsify_hook=False)
sparsifier.unregister_layer("0")  # KeyError: 'hook', should unregister
""",
        mend="Remove the hook only where there is one.",
        cause=_NO_HOOK,
    ),
    _defect(
        id="activation-dense-squash-is-saved-as-sparsify",
        kind="wrong result",
        summary=(
            "squash_mask(attach_sparsify_hook=False) is recorded as 'sparsify': a model restored from that state "
            "sparsifies, the saved one does not."
        ),
        method="squash_mask",
        contract=(
            'Docstring: "registers sparsification hooks if attach_sparsify_hook = True"; comment: "sparsify" signals that '
            "the hook is attached."
        ),
        error="AssertionError",
        match="saved state of the hook",
        show="""
sparsifier = sparsifier_of(model, model[0], torch.zeros_like)
_ = model(torch.ones(1, 2))
sparsifier.step()
sparsifier.squash_mask(attach_sparsify_hook=False)
restored = ActivationSparsifier(nn.Sequential(nn.Identity()))
restored.load_state_dict(sparsifier.state_dict())
print(model(torch.ones(1, 2)), restored.model(torch.ones(1, 2)))  # prints ones and zeros, should be ones twice
""",
        mend="Set hook_state to 'sparsify' inside the if that attaches the hook.",
        cause=_NO_HOOK,
    ),
    _defect(
        id="activation-load-of-a-layer-without-hook-crashes",
        kind="crash",
        summary=(
            "load_state_dict() raises UnboundLocalError for a layer in the hook state 'None'; after another layer it takes "
            "over that one's hook."
        ),
        method="__set_state__",
        contract="'None' is one of the three states that squash_mask() sets.",
        error="UnboundLocalError",
        match="hook",
        show="""
state = sparsifier_of(model, model[0]).state_dict()
state["data_groups"]["0"]["hook_state"] = "None"  # what squash_mask(attach_sparsify_hook=False) is meant to save
ActivationSparsifier(nn.Sequential(nn.Identity())).load_state_dict(state)  # UnboundLocalError, should attach no hook
""",
        mend="Set config['hook'] only in the branches that register one.",
    ),
    _defect(
        id="activation-load-keeps-the-old-hooks",
        kind="corrupted state",
        summary="load_state_dict() into a sparsifier with registered layers leaves their hooks: every activation is aggregated twice.",
        method="load_state_dict",
        contract="Loading an object's own state is the identity; docstring: it restores the state of the sparsifier.",
        error="AssertionError",
        match="hooks of the layer after loading",
        show="""
sparsifier = sparsifier_of(model, model[0])
sparsifier.load_state_dict(sparsifier.state_dict())
_ = model(torch.ones(1, 2))
print(sparsifier.data_groups["0"]["data"])  # prints [[2., 2.]], should be [[1., 1.]]
""",
        mend="Remove the hooks of all groups before the new state is set.",
    ),
    _defect(
        id="activation-load-writes-into-the-given-state",
        kind="corrupted state",
        summary=(
            "load_state_dict() puts the layer and the hook into the caller's dictionary, which then cannot be saved or loaded elsewhere."
        ),
        method="__set_state__",
        contract="load_state_dict() reads its argument, as that of nn.Module, Optimizer and BaseDataSparsifier does.",
        error="AssertionError",
        match="entries added to the caller's state",
        show="""
state = sparsifier_of(model, model[0]).state_dict()
ActivationSparsifier(nn.Sequential(nn.Identity())).load_state_dict(state)
print({"layer", "hook"} & set(state["data_groups"]["0"]))  # prints {'layer', 'hook'}, should be set()
""",
        mend="Copy data_groups and defaults before they are taken over.",
        cause=_ALIASED_LOAD,
    ),
    _defect(
        id="activation-restored-sparsifiers-share-their-state",
        kind="corrupted state",
        summary=(
            "A restored sparsifier shares the list of aggregated data, the features and the config with the one that was "
            "saved: running one changes the other."
        ),
        method="load_state_dict",
        contract="Load copies (nn.Module, Optimizer, BaseDataSparsifier); the masks are copied here as well.",
        error="AssertionError",
        match="data aggregated by the original",
        show="""
sparsifier = sparsifier_of(model, model[0], features=[0], feature_dim=1)
_ = model(torch.ones(1, 2))
restored = ActivationSparsifier(nn.Sequential(nn.Identity()))
restored.load_state_dict(sparsifier.state_dict())
_ = restored.model(torch.ones(1, 2))
print(sparsifier.data_groups["0"]["data"])  # prints 2., should be 1.
""",
        mend="Copy data_groups and defaults before they are taken over.",
        cause=_ALIASED_LOAD,
    ),
    _defect(
        id="activation-refused-load-changes-the-sparsifier",
        kind="corrupted state",
        summary="load_state_dict() that refuses a layer missing from the model has already replaced all groups and masks.",
        method="__set_state__",
        contract="A refused call changes nothing; the sparsifier could go on with its own state.",
        error="AssertionError",
        match="registered layers after the refusal",
        show="""
two = nn.Sequential(nn.Identity(), nn.Identity())
state = sparsifier_of(two, two[1]).state_dict()
sparsifier = sparsifier_of(model, model[0])
try:
    sparsifier.load_state_dict(state)
except AssertionError as error:
    print(error)
print(list(sparsifier.data_groups))  # prints ['1'], should be ['0']
""",
        mend="Look up all layers before self.__dict__.update(state).",
    ),
    _defect(
        id="activation-state-dict-is-refused-by-torch-load",
        kind="crash",
        summary="torch.load(), weights-only by default, rejects a saved state_dict(): it holds functions and a defaultdict of type dict.",
        method="state_dict",
        contract="Comments: hook and layer are left out to make the dictionary serializable; LambdaLR leaves functions out of its state.",
        error="UnpicklingError",
        match="[Ww]eights.only",
        show="""
import io
sparsifier = ActivationSparsifier(model, torch.add, torch.sum, torch.sign)
sparsifier.register_layer(model[0])
file = io.BytesIO()
torch.save(sparsifier.state_dict(), file)
_ = file.seek(0)
torch.load(file, weights_only=True)  # UnpicklingError, should load
""",
        mend="Leave the functions out (load keeps those of the sparsifier) and return plain dictionaries.",
    ),
    _defect(
        id="activation-copy-aggregates-into-the-original",
        kind="corrupted state",
        summary="After copy.deepcopy(sparsifier) the model of the copy still aggregates into the original, and the copy gets nothing.",
        method="_aggregate_hook",
        contract="A deep copy is independent; the class writes __get_state__ and __set_state__ (sic) to be copied and pickled.",
        error="AssertionError",
        match="the original's data after a forward of the copy's model",
        show="""
import copy
sparsifier = sparsifier_of(model, model[0])
copied = copy.deepcopy(sparsifier)
_ = copied.model(torch.ones(1, 2))
print("data" in sparsifier.data_groups["0"], "data" in copied.data_groups["0"])  # prints True False, should be False True
""",
        mend="Make the hooks functools.partial objects of bound methods, which are copied with the sparsifier.",
        cause=_CLOSURES,
    ),
    _defect(
        id="activation-sparsifier-cannot-be-pickled",
        kind="crash",
        summary="pickle refuses a sparsifier with a registered layer; its __get_state__ and __set_state__ are misspelt and never called.",
        method="__get_state__",
        contract="BaseSparsifier and BaseDataSparsifier have __getstate__ and __setstate__ for this.",
        error="AttributeError",
        match="_aggregate_hook",
        show="""
import pickle
sparsifier = ActivationSparsifier(model, torch.add, torch.sum, torch.sign)
sparsifier.register_layer(model[0])
pickle.dumps(sparsifier)  # AttributeError: local object '_aggregate_hook.<locals>.hook', should work
""",
        mend="Make the hooks functools.partial objects of bound methods; delete or rename the misspelt methods.",
        cause=_CLOSURES,
    ),
    _defect(
        id="activation-squashed-model-cannot-be-saved",
        kind="crash",
        summary="torch.save(model) raises once masks are squashed: the sparsify hook that stays in the model is a local function.",
        method="_sparsify_hook",
        contract="squash_mask() ends the preparation; the finished model of every other sparsifier can be saved.",
        error="AttributeError",
        match="_sparsify_hook",
        show="""
import io
sparsifier = sparsifier_of(model, model[0])
_ = model(torch.ones(1, 2))
sparsifier.step()
sparsifier.squash_mask()
torch.save(model, io.BytesIO())  # AttributeError: local object '_sparsify_hook.<locals>.hook', should work
""",
        mend="Make the sparsify hook an object of a module-level class that holds mask, features and feature_dim.",
        cause=_CLOSURES,
    ),
    _defect(
        id="activation-documented-mask-fn-crashes",
        kind="crash",
        summary="The mask_fn of the class's example raises: torch.eye(data.shape) takes a number of rows, not a shape.",
        method="__doc__",
        contract="The example in the class docstring.",
        error="TypeError",
        match="eye",
        show="""
data = torch.ones(3)
torch.eye(data.shape).to(data.device)  # the example's mask_fn: TypeError
""",
        mend="Write an example that runs, such as (data > data.median()).to(data.dtype).",
    ),
]

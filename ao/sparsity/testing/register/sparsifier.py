"""Known defects of the base sparsifier, WeightNormSparsifier and NearlyDiagonalSparsifier."""

from ao.sparsity.testing.register.entry import Defect

BASE = "torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier."
WEIGHT_NORM = "torch.ao.pruning.sparsifier.weight_norm_sparsifier: WeightNormSparsifier."
NEARLY_DIAGONAL = "torch.ao.pruning.sparsifier.nearly_diagonal_sparsifier: NearlyDiagonalSparsifier."

GETSTATE = "BaseSparsifier.__getstate__ leaves out attributes that __init__ or prepare set"
LOAD = "load_state_dict takes over the caller's objects instead of copying values into its own"
ROOT_LAYER = "make_config_from_model looks at the types of children, by their exact type"
NOT_CHECKED = "the request is checked while the model is already being changed"
FIRST = "update_mask takes parametrizations[0] for its own mask"
CONSTRUCTOR = "WeightNormSparsifier settles norm and zeros_per_block in the constructor, before the config is known"
SAME_TENSOR = "a tensor may get several groups, but has one mask in the state"
CROP = "masks in WeightNormSparsifier are made in the padded shape and not always cropped"
NEW_DATA = "update_mask replaces the data of the mask instead of writing into it"
CONVERT = "convert goes over named_children, which leaves out repeated modules"

# What most reproductions start with.
START = """
            import torch
            from torch import nn
            from torch.ao.pruning import WeightNormSparsifier
            config = [{"tensor_fqn": "0.weight"}]
"""

DEFECTS = [
    Defect(
        id="prepare-without-config-skips-a-root-layer",
        area="sparsifier",
        kind="wrong result",
        summary="prepare(nn.Linear(...), None) silently prepares nothing: only children of the model are looked at.",
        where=BASE + "make_config_from_model",
        contract=(
            'Comment in prepare: "If no config -- try getting all the supported layers"; tensor_fqn="weight" works for such a model.'
        ),
        error="AssertionError",
        match="the root layer was not prepared",
        reproduce=START
        + """
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(nn.Linear(4, 4), None)
            print(len(sparsifier.groups))  # prints 0, should be 1
        """,
        mend="look at the model itself too, with the tensor_fqn weight",
        cause=ROOT_LAYER,
    ),
    Defect(
        id="prepare-without-config-skips-a-parametrized-layer",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "prepare(model, None) leaves out an nn.Linear that has any parametrization, be it on its bias: its type is ParametrizedLinear."
        ),
        where=BASE + "make_config_from_model",
        contract=(
            'Comment in prepare: "try getting all the supported layers"; convert of the same class asks type_before_parametrizations.'
        ),
        error="AssertionError",
        match="the parametrized layer was not prepared",
        reproduce=START
        + """
            model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, None)
            print(len(sparsifier.groups))  # prints 0, should be 1
        """,
        mend="compare type_before_parametrizations(child) instead of type(child)",
        cause=ROOT_LAYER,
    ),
    Defect(
        id="prepare-without-config-prepares-a-shared-layer-twice",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            "A layer that two parents share gets two masks from prepare(model, None), of which the state holds the one "
            "that step() does not update."
        ),
        where=BASE + "make_config_from_model",
        contract='Docstring of state_dict: "current state of the sparsification"; the state has one mask for each tensor_fqn.',
        error="AssertionError",
        match="2 masks on the shared layer",
        reproduce=START
        + """
            layer = nn.Linear(4, 4)
            model = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer))
            sparsifier = WeightNormSparsifier(1.0)
            sparsifier.prepare(model, None)
            sparsifier.step()
            print(len(layer.parametrizations.weight))  # prints 2, should be 1
            print(sparsifier.state_dict()["state"]["0.0.weight"]["mask"].sum())  # prints tensor(16.), should be tensor(0.)
        """,
        mend="list each module once, as nn.Module.named_modules does",
        cause=SAME_TENSOR,
    ),
    Defect(
        id="prepare-does-not-chop-a-leading-dot",
        area="sparsifier",
        kind="crash",
        summary='A tensor_fqn with a leading dot, ".first.weight", raises AttributeError although prepare has a branch that accepts it.',
        where="torch.ao.pruning.sparsifier.utils: get_arg_info_from_tensor_fqn",
        contract="""Comment in BaseSparsifier.prepare: "info_from_tensor_fqn will chop leading '.' from tensor_fqn so ignore that".""",
        error="AttributeError",
        match="'NoneType' object has no attribute 'weight'",
        reproduce=START
        + """
            try:
                WeightNormSparsifier().prepare(nn.Sequential(nn.Linear(4, 4)), [{"tensor_fqn": ".0.weight"}])
            except AttributeError as error:
                print(error)  # prints 'NoneType' object has no attribute 'weight', should print nothing
        """,
        mend='tensor_fqn = tensor_fqn.removeprefix(".") at the start of get_arg_info_from_tensor_fqn',
    ),
    Defect(
        id="second-prepare-masks-earlier-layers-again",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            "A second prepare(), of another layer, adds a second mask to the layers of the first; the state then holds the "
            "mask that is not updated."
        ),
        where=BASE + "_prepare",
        contract="prepare() appends to groups; docstring of state_dict: the current state of the sparsification.",
        error="AssertionError",
        match="masks on the two layers",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier(1.0)
            sparsifier.prepare(model, config)
            sparsifier.prepare(model, [{"tensor_fqn": "1.weight"}])
            sparsifier.step()
            print(len(model[0].parametrizations.weight))  # prints 2, should be 1
            print(sparsifier.state["0.weight"]["mask"].sum())  # prints tensor(16.), should be tensor(0.)
        """,
        mend="let _prepare go over the groups that this call of prepare() has added",
        cause=SAME_TENSOR,
    ),
    Defect(
        id="refused-prepare-leaves-groups-behind",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            "When prepare() refuses an element of the config, the groups of those before it stay: after a second try their "
            "layers are masked twice."
        ),
        where=BASE + "prepare",
        contract="A call that raises has no effect; the state has one mask for each tensor_fqn.",
        error="AssertionError",
        match="2 masks on the layer",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier()
            try:
                sparsifier.prepare(model, [*config, {}])
            except AssertionError:
                sparsifier.prepare(model, config)
            print(len(model[0].parametrizations.weight))  # prints 2, should be 1
        """,
        mend="collect the new groups in a local list, and extend self.groups once all are checked",
        cause=NOT_CHECKED,
    ),
    Defect(
        id="refused-prepare-leaves-parametrizations-behind",
        area="sparsifier",
        kind="corrupted state",
        summary="When the config names a module that the model lacks, prepare() raises only after it has put masks on the layers before.",
        where=BASE + "_prepare",
        contract=(
            "A call that raises has no effect on the caller's model; all other checks of the config are made before the model is changed."
        ),
        error="AssertionError",
        match=r"the refused prepare\(\) has masked the first layer",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            try:
                WeightNormSparsifier().prepare(model, [*config, {"tensor_fqn": "nothing.weight"}])
            except AttributeError:
                print(nn.utils.parametrize.is_parametrized(model[0]))  # prints True, should be False
        """,
        mend="raise in prepare() where get_arg_info_from_tensor_fqn finds no module or no tensor",
        cause=NOT_CHECKED,
    ),
    Defect(
        id="load-not-strict-crashes-on-a-missing-layer",
        area="sparsifier",
        kind="crash",
        summary="load_state_dict(strict=False) raises AttributeError for a layer that the model lacks.",
        where=BASE + "load_state_dict",
        contract="Argument strict: the missing module is an error only if strict, as the code before has it.",
        error="AttributeError",
        match="'NoneType' object has no attribute 'parametrizations'",
        reproduce=START
        + """
            model, smaller = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(model, None)
            b.prepare(smaller, None)
            try:
                b.load_state_dict(a.state_dict(), strict=False)
            except AttributeError as error:
                print(error)  # prints 'NoneType' object has no attribute 'parametrizations', should print nothing
        """,
        mend="continue with the next tensor where module is None and not strict, and drop its group",
    ),
    Defect(
        id="strict-load-forgets-a-prepared-layer",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            "load_state_dict(strict=True) of a state that lacks a prepared layer drops that layer's group: it is never "
            "stepped or squashed again."
        ),
        where=BASE + "load_state_dict",
        contract="Argument strict=True, as in nn.Module.load_state_dict: missing keys are an error.",
        error="AssertionError",
        match="not raised",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.prepare(model, None)
            b.load_state_dict(a.state_dict(), strict=True)  # should raise
            b.squash_mask()
            print(nn.utils.parametrize.is_parametrized(model[1]))  # prints True, should be False
        """,
        mend="if strict, raise where the tensors of the state are not those of self.groups",
    ),
    Defect(
        id="load-accepts-a-mask-of-another-shape",
        area="sparsifier",
        kind="corrupted state",
        summary="load_state_dict puts a mask of another shape on a layer; only the next forward raises, and the old mask is lost.",
        where=BASE + "load_state_dict",
        contract="As nn.Module.load_state_dict: a size mismatch is an error when loading; FakeSparsity: the mask's shape must match.",
        error="AssertionError",
        match="not raised",
        reproduce=START
        + """
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            model = nn.Sequential(nn.Linear(4, 4))
            a.prepare(nn.Sequential(nn.Linear(3, 2)), config)
            b.prepare(model, config)
            b.load_state_dict(a.state_dict())  # should raise
            print(model[0].parametrizations.weight[0].mask.shape)  # prints torch.Size([2, 3]), should be torch.Size([4, 4])
        """,
        mend="compare mask.shape with the tensor's and raise RuntimeError",
        cause=LOAD,
    ),
    Defect(
        id="load-crashes-on-a-tensor-without-parametrization",
        area="sparsifier",
        kind="crash",
        summary=(
            "load_state_dict raises AttributeError for a tensor without parametrization, although it registers a "
            "FakeSparsity where it finds none."
        ),
        where=BASE + "load_state_dict",
        contract=(
            'Code of load_state_dict: "if not found: ... register_parametrization"; a tensor with any other parametrization is served.'
        ),
        error="AttributeError",
        match="'Linear' object has no attribute 'parametrizations'",
        reproduce=START
        + """
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.prepare(nn.Sequential(nn.Linear(4, 4)), [])
            try:
                b.load_state_dict(a.state_dict())
            except AttributeError as error:
                print(error)  # prints 'Linear' object has no attribute 'parametrizations', should print nothing
        """,
        mend="search only if parametrize.is_parametrized(module, tensor_name)",
    ),
    Defect(
        id="load-adds-a-mask-of-the-default-dtype",
        area="sparsifier",
        kind="crash",
        summary=(
            "The FakeSparsity that load_state_dict adds is made of torch.ones(shape): float32 on the CPU, so a bfloat16 or "
            "GPU tensor is refused."
        ),
        where=BASE + "load_state_dict",
        contract="prepare() makes the mask with torch.ones_like(tensor): dtype and device of the tensor.",
        error="ValueError",
        match="may not change the dtype",
        reproduce=START
        + """
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(nn.Sequential(nn.Linear(4, 4).bfloat16()), config)
            b.prepare(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4).bfloat16())), [])
            try:
                b.load_state_dict(a.state_dict())
            except ValueError as error:
                print(error)  # prints Registering a parametrization may not change the dtype of the tensor ..., should print nothing
        """,
        mend="FakeSparsity(torch.ones_like(getattr(module, tensor_name)))",
    ),
    Defect(
        id="loaded-mask-does-not-follow-dtype-and-device",
        area="sparsifier",
        kind="crash",
        summary="A loaded mask keeps the dtype and device that it was saved with; a bfloat16 or GPU model cannot run any more.",
        where=BASE + "load_state_dict",
        contract=(
            "As nn.Module.load_state_dict and Optimizer.load_state_dict: loaded values take dtype and device of the tensor they are for."
        ),
        error="AssertionError",
        match=r"mask torch\.float32 cpu",
        reproduce=START
        + """
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            model = nn.Sequential(nn.Linear(4, 4).bfloat16())
            a.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.prepare(model, config)
            b.load_state_dict(a.state_dict())
            print(model[0].weight.dtype)  # prints torch.float32, should be torch.bfloat16
        """,
        mend="p.mask.copy_(mask) instead of p.mask = mask",
        cause=LOAD,
    ),
    Defect(
        id="load-takes-masks-out-of-the-given-dict",
        area="sparsifier",
        kind="corrupted state",
        summary="load_state_dict pops the masks out of the caller's dict, which is the live state of the sparsifier it came from.",
        where=BASE + "load_state_dict",
        contract="As nn.Module.load_state_dict and Optimizer.load_state_dict: what is loaded is only read.",
        error="AssertionError",
        match="'mask' not found in",
        reproduce=START
        + """
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.load_state_dict(a.state_dict())
            print(a.state_dict()["state"]["0.weight"].keys())  # prints dict_keys([]), should be dict_keys(['mask'])
        """,
        mend='mask = s["mask"] instead of s.pop("mask"), and a copy of the dicts',
        cause=LOAD,
    ),
    Defect(
        id="loaded-sparsifier-has-no-masks-in-its-state",
        area="sparsifier",
        kind="corrupted state",
        summary="After load_state_dict the sparsifier's own state has no masks: a checkpoint that it writes then has lost them.",
        where=BASE + "load_state_dict",
        contract='Docstring of state_dict: "current state of the sparsification".',
        error="AssertionError",
        match="the loaded sparsifier's own state lacks the mask",
        reproduce=START
        + """
            import copy
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            b.load_state_dict(copy.deepcopy(a.state_dict()))
            print(b.state_dict()["state"]["0.weight"].keys())  # prints dict_keys([]), should be dict_keys(['mask'])
        """,
        mend='self.state[tensor_fqn]["mask"] = p.mask after loading',
        cause=LOAD,
    ),
    Defect(
        id="loaded-sparsifiers-share-one-mask",
        area="sparsifier",
        kind="corrupted state",
        summary="After b.load_state_dict(a.state_dict()) the two models share one mask: stepping one prunes the other.",
        where=BASE + "load_state_dict",
        contract="As nn.Module and Optimizer: loading copies; Note of FakeSparsity: the mask reference itself should not change.",
        error="AssertionError",
        match="stepping one model has pruned the other",
        reproduce=START
        + """
            a, b = WeightNormSparsifier(), WeightNormSparsifier(1.0)
            model, other = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))
            a.prepare(model, config)
            b.prepare(other, config)
            b.load_state_dict(a.state_dict())
            other[0].parametrizations.weight[0].mask.zero_()
            print(model[0].weight.abs().sum() > 0)  # prints tensor(False), should be tensor(True)
        """,
        mend="p.mask.copy_(mask) instead of p.mask = mask",
        cause=LOAD,
    ),
    Defect(
        id="state-dict-grows-after-it-was-taken",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            'state_dict()["state"] is the sparsifier\'s own dict: layers prepared later appear in it, but not in the "groups" beside it.'
        ),
        where=BASE + "state_dict",
        contract="As nn.Module and Optimizer: state_dict returns a dict of its own; here groups is one.",
        error="AssertionError",
        match=r"layers \['0\.weight'\]",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier()
            state = sparsifier.state_dict()
            sparsifier.prepare(model, config)
            print(len(state["groups"]), len(state["state"]))  # prints 0 1, should be 0 0
        """,
        mend='"state": {name: dict(s) for name, s in self.state.items()}',
    ),
    Defect(
        id="state-dict-needs-an-unsafe-load",
        area="sparsifier",
        kind="crash",
        summary="torch.load, which is weights_only by default, rejects a saved state_dict: its state is a collections.defaultdict.",
        where=BASE + "state_dict",
        contract=(
            'README of torch.ao.pruning: state_dict "returns dictionary that can be serialized"; it holds tensors and plain values only.'
        ),
        error="UnpicklingError",
        match="defaultdict",
        reproduce=START
        + """
            import io
            sparsifier, file = WeightNormSparsifier(), io.BytesIO()
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            torch.save(sparsifier.state_dict(), file)
            file.seek(0)
            try:
                print(torch.load(file, weights_only=True).keys())
            except Exception as error:
                print(error)  # prints Weights only load failed ... collections.defaultdict, should be dict_keys(['state', 'groups'])
        """,
        mend='"state": dict(self.state) in state_dict',
    ),
    Defect(
        id="copied-sparsifier-cannot-step",
        area="sparsifier",
        kind="crash",
        summary="step() of a sparsifier after copy or pickle raises AttributeError: enable_mask_update is lost.",
        where=BASE + "__getstate__",
        contract="copy, deepcopy and pickle: the class implements __getstate__ and __setstate__; a copy behaves as the original.",
        error="AttributeError",
        match="enable_mask_update",
        reproduce="""
            import copy
            from torch.ao.pruning import NearlyDiagonalSparsifier
            try:
                copy.deepcopy(NearlyDiagonalSparsifier()).step()
            except AttributeError as error:
                print(error)  # prints ... has no attribute 'enable_mask_update', should print nothing
        """,
        mend="add enable_mask_update to __getstate__",
        cause=GETSTATE,
    ),
    Defect(
        id="copied-sparsifier-has-no-model",
        area="sparsifier",
        kind="crash",
        summary="load_state_dict of a copied sparsifier raises AttributeError: model is lost, though the groups keep their modules.",
        where=BASE + "__getstate__",
        contract="copy and deepcopy: a copy behaves as the original.",
        error="AttributeError",
        match="no attribute 'model'",
        reproduce=START
        + """
            import copy
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            try:
                copy.deepcopy(sparsifier).load_state_dict(sparsifier.state_dict())
            except AttributeError as error:
                print(error)  # prints ... has no attribute 'model', should print nothing
        """,
        mend="add model and config to __getstate__",
        cause=GETSTATE,
    ),
    Defect(
        id="copied-weight-norm-has-no-norm",
        area="sparsifier",
        kind="crash",
        summary="WeightNormSparsifier loses norm_fn on copy and pickle.",
        where=WEIGHT_NORM + "__init__",
        contract="copy, deepcopy and pickle: a copy behaves as the original.",
        error="AttributeError",
        match="norm_fn",
        reproduce=START
        + """
            import copy
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            copied = copy.deepcopy(sparsifier)
            copied.enable_mask_update = True
            try:
                copied.step()
            except AttributeError as error:
                print(error)  # prints ... has no attribute 'norm_fn', should print nothing
        """,
        mend="keep norm among the defaults, and look the function up in update_mask",
        cause=GETSTATE,
    ),
    Defect(
        id="squash-rejects-the-documented-dict",
        area="sparsifier",
        kind="crash",
        summary="squash_mask raises KeyError for a dict of modules and keys as params_to_keep, which its docstring allows.",
        where=BASE + "squash_mask",
        contract='Docstring: params_to_keep is a "list of keys to save in the module or a dict representing the modules and keys".',
        error="KeyError",
        match="plain",
        reproduce=START
        + """
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            try:
                sparsifier.squash_mask(params_to_keep={"0": ("sparsity_level",)})
            except KeyError as error:
                print(repr(error))  # prints KeyError('0'), should print nothing
        """,
        mend="take a dict as params_to_keep_per_layer, or document the tuple that the signature has",
    ),
    Defect(
        id="refused-squash-has-already-squashed",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            "squash_mask that raises KeyError for a parameter to keep has already removed the mask; it can neither be repeated nor undone."
        ),
        where=BASE + "squash_mask",
        contract="A call that raises has no effect on the model, so that it can be repeated with the right names.",
        error="AssertionError",
        match=r"the refused squash_mask\(\) has removed the mask",
        reproduce=START
        + """
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), config)
            try:
                sparsifier.squash_mask(params_to_keep=("level",))
            except KeyError:
                pass
            try:
                sparsifier.squash_mask(params_to_keep=("sparsity_level",))
            except ValueError as error:
                print(error)  # prints ... does not have a parametrization on weight, should print nothing
        """,
        mend="collect sparse_params of all groups before the first remove_parametrizations",
        cause=NOT_CHECKED,
    ),
    Defect(
        id="squash-removes-foreign-parametrizations",
        area="sparsifier",
        kind="corrupted state",
        summary="squash_mask removes every parametrization of the tensor: a weight_norm of the user's, the mask of another sparsifier.",
        where=BASE + "squash_mask",
        contract='Docstring: "Squashes the sparse masks into the appropriate tensors".',
        error="AssertionError",
        match="the parametrization of somebody else is gone",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            a, b = WeightNormSparsifier(), WeightNormSparsifier()
            a.prepare(model, config)
            b.prepare(model, config)
            a.squash_mask()
            try:
                b.squash_mask()
            except ValueError as error:
                print(error)  # prints ... does not have a parametrization on weight, should print nothing
        """,
        mend="apply the mask to the original and take only the own FakeSparsity out of the list",
    ),
    Defect(
        id="squash-prunes-a-tied-weight-too",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "squash_mask writes into the shared Parameter: a tied embedding that was not prepared is pruned too, and the output changes."
        ),
        where=BASE + "squash_mask",
        contract='Docstring: "Squashes the sparse masks into the appropriate tensors"; until then only the prepared use is masked.',
        error="AssertionError",
        match="the embedding that was not prepared is pruned",
        reproduce=START
        + """
            embedding, head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
            head.weight = embedding.weight
            sparsifier = WeightNormSparsifier(1.0)
            sparsifier.prepare(nn.Sequential(embedding, head), [{"tensor_fqn": "1.weight"}])
            sparsifier.step()
            print((embedding.weight == 0).sum())  # prints tensor(0)
            sparsifier.squash_mask()
            print((embedding.weight == 0).sum())  # prints tensor(16), should be tensor(0)
        """,
        mend="give the squashed tensor a Parameter of its own where the original is shared, or refuse",
    ),
    Defect(
        id="squashed-sparsifier-cannot-be-used-again",
        area="sparsifier",
        kind="crash",
        summary=(
            "squash_mask leaves its groups: after a second prepare() the second squash_mask raises ValueError, and step() in between fails."
        ),
        where=BASE + "squash_mask",
        contract="prepare() and squash_mask() are inverse: what is squashed is no longer prepared, so pruning can go on in rounds.",
        error="ValueError",
        match="does not have a parametrization on weight",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, config)
            sparsifier.squash_mask()
            sparsifier.prepare(model, config)
            try:
                sparsifier.squash_mask()
            except ValueError as error:
                print(error)  # prints ... does not have a parametrization on weight, should print nothing
        """,
        mend="clear self.groups and self.state at the end of squash_mask",
    ),
    Defect(
        id="convert-misses-the-second-use-of-a-layer",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "convert() replaces only the first use of a layer that stands twice in one parent; the second stays parametrized and dense."
        ),
        where=BASE + "convert",
        contract="Docstring: converts submodules in input module to a different module according to mapping.",
        error="AssertionError",
        match="types after convert",
        reproduce=START
        + """
            class Target(nn.Identity):
                from_dense = classmethod(lambda cls, dense: cls())
            layer = nn.Linear(4, 4)
            model = nn.Sequential(layer, layer)
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, config)
            print(sparsifier.convert(model, {nn.Linear: Target}))  # prints (1): ParametrizedLinear, should be (1): Target()
        """,
        mend="go over module._modules.items(), and remember what a module became",
        cause=CONVERT,
    ),
    Defect(
        id="convert-splits-a-shared-layer",
        area="sparsifier",
        kind="corrupted state",
        summary="A layer that two parents share becomes two separate modules in convert().",
        where=BASE + "convert",
        contract=(
            "A shared module is one module: deepcopy, Module.to and state_dict keep it so; convert is documented to change its type."
        ),
        error="AssertionError",
        match=r"convert\(\) made two modules of one",
        reproduce=START
        + """
            class Target(nn.Identity):
                from_dense = classmethod(lambda cls, dense: cls())
            layer = nn.Linear(4, 4)
            model = nn.Sequential(nn.Sequential(layer), nn.Sequential(layer))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, [{"tensor_fqn": "0.0.weight"}])
            converted = sparsifier.convert(model, {nn.Linear: Target})
            print(converted[0][0] is converted[1][0])  # prints False, should be True
        """,
        mend="remember what a module became, and use that again",
        cause=CONVERT,
    ),
    Defect(
        id="weight-norm-frees-the-wrong-blocks",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "When the level is lowered, norms are taken of the masked weight, where all pruned blocks have norm 0: any of "
            "them stays pruned, not the smallest."
        ),
        where=WEIGHT_NORM + "update_mask",
        contract='Class docstring: "computes the norm of every sparse block and zeroes-out the ones with the lowest norm".',
        error="AssertionError",
        match="kept",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(8, 1))
            model[0].weight.data = torch.tensor([[8., 7., 6., 5., 4., 3., 2., 1.]])
            sparsifier = WeightNormSparsifier(0.5, (1, 1))
            sparsifier.prepare(model, config)
            sparsifier.step()
            sparsifier.groups[0]["sparsity_level"] = 0.25
            sparsifier.step()
            print(model[0].weight)  # prints [8., 7., 6., 5., 4., 0., 0., 1.], should be [8., 7., 6., 5., 4., 3., 0., 0.]
        """,
        mend="compute the norm of module.parametrizations[tensor_name].original, as DataNormSparsifier does",
    ),
    Defect(
        id="weight-norm-ignores-the-norm-of-the-config",
        area="sparsifier",
        kind="wrong result",
        summary="A norm in the config of prepare() is silently ignored.",
        where=WEIGHT_NORM + "update_mask",
        contract=(
            'Class docstring Note: "All arguments to the WeightNormSparsifier constructor are default arguments and could be overridden".'
        ),
        error="AssertionError",
        match=r"mask \[\[1\.0, 1\.0, 0\.0, 0\.0\]\]",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 1))
            model[0].weight.data = torch.tensor([[0., 5., 3., 3.]])
            sparsifier = WeightNormSparsifier(0.5, (1, 2), norm=2)
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight", "norm": 1}])
            sparsifier.step()
            print(model[0].weight)  # prints [0., 5., 0., 0.], should be [0., 0., 3., 3.]
        """,
        mend="keep norm among the defaults, and look the function up in update_mask",
        cause=CONSTRUCTOR,
    ),
    Defect(
        id="larger-block-of-the-config-keeps-the-former-zeros",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "A larger sparse_block_shape in the config keeps the zeros per block of the constructor's shape: 4 of 16 elements are pruned."
        ),
        where=WEIGHT_NORM + "__init__",
        contract=(
            'Class docstring: "By default we assume that all elements within a block are zeroed-out"; the Note: the block '
            "shape can be overridden."
        ),
        error="AssertionError",
        match="4 zeros",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(8, 4))
            sparsifier = WeightNormSparsifier(0.5)
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight", "sparse_block_shape": (4, 4)}])
            sparsifier.step()
            print((model[0].weight == 0).sum())  # prints tensor(4), should be tensor(16)
        """,
        mend="keep zeros_per_block=None among the defaults, and settle it in update_mask",
        cause=CONSTRUCTOR,
    ),
    Defect(
        id="smaller-block-of-the-config-is-refused",
        area="sparsifier",
        kind="crash",
        summary=(
            "A smaller sparse_block_shape in the config makes step() raise: the zeros per block of the constructor's shape do not fit."
        ),
        where=WEIGHT_NORM + "__init__",
        contract=(
            'Class docstring: "By default we assume that all elements within a block are zeroed-out"; the Note: the block '
            "shape can be overridden."
        ),
        error="ValueError",
        match="Number of zeros per block cannot be more than",
        reproduce=START
        + """
            sparsifier = WeightNormSparsifier(0.5)
            sparsifier.prepare(nn.Sequential(nn.Linear(8, 4)), [{"tensor_fqn": "0.weight", "sparse_block_shape": (1, 1)}])
            try:
                sparsifier.step()
            except ValueError as error:
                print(error)  # prints Number of zeros per block cannot be more than ..., should print nothing
        """,
        mend="keep zeros_per_block=None among the defaults, and settle it in update_mask",
        cause=CONSTRUCTOR,
    ),
    Defect(
        id="weight-norm-mask-loses-its-dtype",
        area="sparsifier",
        kind="crash",
        summary=(
            "step() replaces the mask by one of the default dtype, or by a bool one: a bfloat16 model can neither run nor "
            "be squashed any more."
        ),
        where=WEIGHT_NORM + "update_mask",
        contract="prepare() makes the mask in the weight's dtype; torch.zeros_like and ones_like in update_mask keep it.",
        error="AssertionError",
        match=r"mask torch\.(float32|bool)",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4)).bfloat16()
            sparsifier = WeightNormSparsifier(0.5)
            sparsifier.prepare(model, config)
            sparsifier.step()
            try:
                print(model(torch.ones(1, 4, dtype=torch.bfloat16)).shape)
            except RuntimeError as error:
                print(error)  # prints ... must have the same dtype, but got BFloat16 and Float, should be torch.Size([1, 4])
        """,
        mend="mask.copy_(tensor_mask) instead of mask.data = tensor_mask",
        cause=NEW_DATA,
    ),
    Defect(
        id="ragged-zeros-per-block-crashes",
        area="sparsifier",
        kind="crash",
        summary="With zeros_per_block below the block's size step() crashes on a weight that is no multiple of the block.",
        where=WEIGHT_NORM + "_make_block_mask",
        contract=(
            'Comment: "create a new padded tensor like data (to match the block_shape)"; whole blocks and '
            "DataNormSparsifier crop the padding."
        ),
        error="RuntimeError",
        match="size of tensor a",
        reproduce=START
        + """
            sparsifier = WeightNormSparsifier(0.5, (1, 4), zeros_per_block=2)
            sparsifier.prepare(nn.Sequential(nn.Linear(6, 2)), config)
            try:
                sparsifier.step()
            except RuntimeError as error:
                print(error)  # prints The size of tensor a (6) must match the size of tensor b (8) ..., should print nothing
        """,
        mend="crop the block mask to [:h, :w], as _make_tensor_mask does",
        upstream="https://github.com/pytorch/pytorch/issues/134220",
        cause=CROP,
    ),
    Defect(
        id="full-tensor-mask-has-the-padded-shape",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "_make_tensor_mask returns the padded shape at levels 0 and 1; with zeros_per_block at level 1 step() then "
            "sets a mask that the next forward refuses."
        ),
        where=WEIGHT_NORM + "_make_tensor_mask",
        contract="At levels between 0 and 1 the same function crops the mask to the shape of the data.",
        error="AssertionError",
        match=r"shape \(4, 8\)",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(6, 2))
            sparsifier = WeightNormSparsifier(1.0, (1, 4), zeros_per_block=2)
            sparsifier.prepare(model, config)
            sparsifier.step()
            print(model[0].parametrizations.weight[0].mask.shape)  # prints torch.Size([2, 8]), should be torch.Size([2, 6])
        """,
        mend="crop to [:h, :w] before the two early returns",
        upstream="https://github.com/pytorch/pytorch/issues/134220",
        cause=CROP,
    ),
    Defect(
        id="weight-norm-crashes-on-an-empty-weight",
        area="sparsifier",
        kind="crash",
        summary="step() raises for a weight without elements, which nn.Linear allows, at any level between 0 and 1.",
        where=WEIGHT_NORM + "_make_tensor_mask",
        contract="nn.Linear(4, 0) and nn.Linear(0, 4) are valid layers; at levels 0 and 1 step() accepts them.",
        error="RuntimeError",
        match=r"Expected .* tensor.*but got",
        reproduce=START
        + """
            import warnings
            warnings.simplefilter("ignore")
            sparsifier = WeightNormSparsifier(0.5)
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 0)), config)
            try:
                sparsifier.step()
            except RuntimeError as error:
                print(error)  # prints Expected 3D or 4D (batch mode) tensor ... but got:[1, 1, 0, 4], should print nothing
        """,
        mend="return the mask of ones where data.numel() == 0",
    ),
    Defect(
        id="second-sparsifier-overwrites-the-first-ones-mask",
        area="sparsifier",
        kind="wrong result",
        summary="A second WeightNormSparsifier on the same tensor writes into the first one's mask: what that had pruned comes back.",
        where=WEIGHT_NORM + "update_mask",
        contract="Each sparsifier's prepare registers a FakeSparsity of its own, and parametrizations chain.",
        error="AssertionError",
        match=r"weight \[\[1\.0, 2\.0, 3\.0, 4\.0\]\]",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            first, second = WeightNormSparsifier(1.0), WeightNormSparsifier(0.0)
            first.prepare(model, config)
            first.step()
            second.prepare(model, config)
            second.step()
            print((model[0].weight == 0).sum())  # prints tensor(0), should be tensor(16)
        """,
        mend='write into self.state[tensor_fqn]["mask"], the mask that prepare made',
        cause=FIRST,
    ),
    Defect(
        id="second-nearly-diagonal-overwrites-the-first-ones-mask",
        area="sparsifier",
        kind="wrong result",
        summary="A second NearlyDiagonalSparsifier on the same tensor writes into the first one's mask: what that had pruned comes back.",
        where=NEARLY_DIAGONAL + "update_mask",
        contract="Each sparsifier's prepare registers a FakeSparsity of its own, and parametrizations chain.",
        error="AssertionError",
        match=r"weight \[\[1\.0, 1\.0, 0\.0\]",
        reproduce="""
            from torch import nn
            from torch.ao.pruning import NearlyDiagonalSparsifier
            model = nn.Sequential(nn.Linear(4, 4))
            first, second = NearlyDiagonalSparsifier(1), NearlyDiagonalSparsifier(3)
            first.prepare(model, [{"tensor_fqn": "0.weight"}])
            first.step()
            second.prepare(model, [{"tensor_fqn": "0.weight"}])
            second.step()
            print((model[0].weight == 0).sum())  # prints tensor(6), should be tensor(12)
        """,
        mend='write into self.state[tensor_fqn]["mask"], the mask that prepare made',
        cause=FIRST,
    ),
    Defect(
        id="weight-norm-crashes-behind-another-parametrization",
        area="sparsifier",
        kind="crash",
        summary="step() of WeightNormSparsifier raises AttributeError if the tensor had a parametrization before prepare().",
        where=WEIGHT_NORM + "update_mask",
        contract="prepare() accepts such a tensor, and load_state_dict searches the FakeSparsity among its parametrizations.",
        error="AttributeError",
        match="has no attribute 'mask'",
        reproduce=START
        + """
            model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, config)
            try:
                sparsifier.step()
            except AttributeError as error:
                print(error)  # prints '_WeightNorm' object has no attribute 'mask', should print nothing
        """,
        mend='write into self.state[tensor_fqn]["mask"], the mask that prepare made',
        cause=FIRST,
    ),
    Defect(
        id="nearly-diagonal-crashes-behind-another-parametrization",
        area="sparsifier",
        kind="crash",
        summary="step() of NearlyDiagonalSparsifier raises AttributeError if the tensor had a parametrization before prepare().",
        where=NEARLY_DIAGONAL + "update_mask",
        contract="prepare() accepts such a tensor, and load_state_dict searches the FakeSparsity among its parametrizations.",
        error="AttributeError",
        match="has no attribute 'mask'",
        reproduce="""
            from torch import nn
            from torch.ao.pruning import NearlyDiagonalSparsifier
            model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
            sparsifier = NearlyDiagonalSparsifier()
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            try:
                sparsifier.step()
            except AttributeError as error:
                print(error)  # prints '_WeightNorm' object has no attribute 'mask', should print nothing
        """,
        mend='write into self.state[tensor_fqn]["mask"], the mask that prepare made',
        cause=FIRST,
    ),
    Defect(
        id="refused-nearliness-zeroes-the-mask",
        area="sparsifier",
        kind="corrupted state",
        summary="step() with an even or too large nearliness raises ValueError after it has zeroed the mask: the whole layer is pruned.",
        where=NEARLY_DIAGONAL + "update_mask",
        contract="A call that raises has no effect; WeightNormSparsifier checks its arguments before it touches the mask.",
        error="AssertionError",
        match="mask of 0 ones",
        reproduce="""
            from torch import nn
            from torch.ao.pruning import NearlyDiagonalSparsifier
            model = nn.Sequential(nn.Linear(4, 4))
            sparsifier = NearlyDiagonalSparsifier(2)
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            try:
                sparsifier.step()
            except ValueError:
                print((model[0].weight == 0).sum())  # prints tensor(16), should be tensor(0)
        """,
        mend="check nearliness before mask.data = torch.zeros_like(mask)",
        cause=NOT_CHECKED,
    ),
    Defect(
        id="documented-constructor-call-is-refused",
        area="sparsifier",
        kind="crash",
        summary=(
            "The documentation of BaseSparsifier names the arguments model and config, and calls it with config and defaults: a TypeError."
        ),
        where=BASE + "__init__",
        contract="Class docstring, Args and Example: BaseSparsifier(config, defaults).",
        error="AssertionError",
        match="documented and not accepted",
        reproduce="""
            from torch.ao.pruning import BaseSparsifier
            class Plain(BaseSparsifier):
                def update_mask(self, module, tensor_name, **kwargs):
                    pass
            try:
                Plain([{"tensor_fqn": "layer1.weight"}], {"sparsity_level": 0.7})
            except TypeError as error:
                print(error)  # prints ... takes from 1 to 2 positional arguments but 3 were given, should print nothing
        """,
        mend="document defaults alone, and model and config where they are taken, at prepare",
    ),
    Defect(
        id="prepare-adopts-the-callers-mask",
        area="sparsifier",
        kind="corrupted state",
        summary=(
            "A mask in the config becomes the layer's mask itself: step() overwrites the caller's, and layers that start "
            "from one mask share it."
        ),
        where=BASE + "_prepare",
        contract="A config is read: the defaults are deep-copied for each group, so a mask among the defaults is not shared.",
        error="AssertionError",
        match=r"kept \[\[1\.0, 2\.0, 3\.0, 4\.0\]\]",
        reproduce=START
        + """
            mask = torch.ones(4, 4)
            sparsifier = WeightNormSparsifier(1.0)
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), [{"tensor_fqn": "0.weight", "mask": mask}])
            sparsifier.step()
            print(mask.sum())  # prints tensor(0.), should be tensor(16.)
        """,
        mend="clone the mask of the config",
    ),
    Defect(
        id="tensor-listed-twice-gets-two-masks",
        area="sparsifier",
        kind="corrupted state",
        summary="A tensor that the config lists twice gets two masks, of which the state holds the one that step() does not update.",
        where=BASE + "prepare",
        contract="The state has one mask for each tensor_fqn; torch.optim.Optimizer refuses a parameter that is listed twice.",
        error="AssertionError",
        match="masks on a tensor listed twice",
        reproduce=START
        + """
            sparsifier = WeightNormSparsifier(1.0)
            sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), config * 2)
            sparsifier.step()
            print(sparsifier.state_dict()["state"]["0.weight"]["mask"].sum())  # prints tensor(16.), should be tensor(0.)
        """,
        mend="raise ValueError for a tensor_fqn that is already in a group",
        cause=SAME_TENSOR,
    ),
    Defect(
        id="loaded-sparsifier-cannot-prepare-another-layer",
        area="sparsifier",
        kind="crash",
        summary=(
            "After load_state_dict of plain dicts prepare() raises KeyError: the given dict has replaced the sparsifier's defaultdict."
        ),
        where=BASE + "load_state_dict",
        contract="The state of a sparsifier is a defaultdict(dict), on which _prepare relies; loading copies values.",
        error="KeyError",
        match="1.weight",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, config)
            state = sparsifier.state_dict()
            sparsifier.load_state_dict({"state": dict(state["state"]), "groups": state["groups"]})
            try:
                sparsifier.prepare(model, [{"tensor_fqn": "1.weight"}])
            except KeyError as error:
                print(repr(error))  # prints KeyError('1.weight'), should print nothing
        """,
        mend="self.state[tensor_fqn].update(s) instead of replacing self.state",
        cause=LOAD,
    ),
    Defect(
        id="step-in-inference-mode-breaks-training",
        area="sparsifier",
        kind="crash",
        summary="After a step() in torch.inference_mode the model cannot be trained any more: the mask's data is an inference tensor.",
        where=WEIGHT_NORM + "update_mask",
        contract="Note of FakeSparsity: the contents of the mask change; in-place writes to it are allowed in inference mode.",
        error="RuntimeError",
        match="Inference tensors cannot be saved for backward",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, config)
            with torch.inference_mode():
                sparsifier.step()
            try:
                model(torch.ones(1, 4)).sum().backward()
            except RuntimeError as error:
                print(error)  # prints Inference tensors cannot be saved for backward ..., should print nothing
        """,
        mend="mask.copy_(tensor_mask) instead of mask.data = tensor_mask",
        cause=NEW_DATA,
    ),
    Defect(
        id="step-takes-the-mask-out-of-shared-memory",
        area="sparsifier",
        kind="corrupted state",
        summary="step() gives the mask new storage: a model in shared memory is no longer pruned in the other processes.",
        where=WEIGHT_NORM + "update_mask",
        contract=(
            "Note of FakeSparsity: the contents of the mask change; Module.share_memory moves buffers to shared memory for "
            "other processes to see."
        ),
        error="AssertionError",
        match="the mask is no longer in shared memory",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 4))
            sparsifier = WeightNormSparsifier()
            sparsifier.prepare(model, config)
            model.share_memory()
            sparsifier.step()
            print(model[0].parametrizations.weight[0].mask.is_shared())  # prints False, should be True
        """,
        mend="mask.copy_(tensor_mask) instead of mask.data = tensor_mask",
        cause=NEW_DATA,
    ),
    Defect(
        id="weight-norm-l2-leaves-the-range-of-half",
        area="sparsifier",
        kind="wrong result",
        summary=(
            "Squares are taken in the weight's dtype: in float16 those below 2.4e-4 become 0 and those above 256 infinite, "
            "so any blocks go."
        ),
        where=WEIGHT_NORM + "__init__",
        contract='Class docstring: "zeroes-out the ones with the lowest norm"; L1 on the same weight prunes the smallest.',
        error="AssertionError",
        match="L2",
        reproduce=START
        + """
            model = nn.Sequential(nn.Linear(4, 1)).half()
            model[0].weight.data = torch.tensor([[1e-5, 2e-5, 3e-5, 4e-5]]).half()
            sparsifier = WeightNormSparsifier(0.5, (1, 1))
            sparsifier.prepare(model, config)
            sparsifier.step()
            print(model[0].parametrizations.weight[0].mask)  # prints [1., 1., 0., 0.], should be [0., 0., 1., 1.]
        """,
        mend="square in float32: T.float().square()",
    ),
]

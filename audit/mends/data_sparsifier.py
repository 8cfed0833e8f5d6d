"""Mends of the data sparsifiers and of the quantization of embeddings."""

from dataclasses import replace

from audit.edits import Edit, Function, Imports

BASE = "torch.ao.pruning._experimental.data_sparsifier.base_data_sparsifier"
NORM = "torch.ao.pruning._experimental.data_sparsifier.data_norm_sparsifier"
QUANTIZE = "torch.ao.pruning._experimental.data_sparsifier.quantization_utils"
ADD = "BaseDataSparsifier.add_data"
LOAD = "BaseDataSparsifier.load_state_dict"
RESTORE = "BaseDataSparsifier._load_container_from_state"
STATE = "BaseDataSparsifier.state_dict"
GET_STATE = "BaseDataSparsifier.__getstate__"
SQUASH = "BaseDataSparsifier.squash_mask"
UPDATE = "DataNormSparsifier.update_mask"
CONVERT = "post_training_sparse_quantize"

MENDS: dict[str, list] = {
    "add-data-deletes-before-it-is-sure": [
        Edit(BASE, ADD, "self._delete_data(name=name)", "param_class(mask)(weight)\nself._delete_data(name=name)"),
        Edit(BASE, ADD, "self._container.register_buffer(", "param_class(mask)(weight)\nself._container.register_buffer("),
    ],
    "copied-data-are-no-parameters": [
        Edit(BASE, STATE, "self._container.state_dict()", "self._container.state_dict(keep_vars=True)"),
        Edit(BASE, GET_STATE, "self._container.state_dict()", "self._container.state_dict(keep_vars=True)"),
    ],
    "copies-lack-attributes": [
        Edit(  # without the step that a scheduler counts, which is the one of this instance
            BASE,
            GET_STATE,
            '"defaults": self.defaults,',
            '**{key: value for key, value in vars(self).items() if key != "step"},\n"defaults": self.defaults,',
        ),
    ],
    "data-list-groups-share-the-defaults": [
        Edit(BASE, "BaseDataSparsifier.__init__", "self.add_data(name, data, **self.defaults)", "self.add_data(name, data)"),
    ],
    "data-names-become-attributes": [
        Function(
            BASE,
            "_attribute",
            """
            def _attribute(name):
                # what is taken gets a line, and so does what would be taken then
                first = name.rstrip("_")
                return f"{name}_" if hasattr(nn.ModuleDict(), first) or first == "parametrizations" else name
            """,
        ),
        Edit(BASE, ADD, "register_buffer(name=name", "register_buffer(name=_attribute(name)"),
        Edit(BASE, ADD, "register_parametrization(self._container, name", "register_parametrization(self._container, _attribute(name)"),
        Edit(BASE, ADD, "getattr(self._container, name)", "getattr(self._container, _attribute(name))"),
        Edit(
            BASE,
            "BaseDataSparsifier.get_data",
            "is_parametrized(self._container, name)",
            "is_parametrized(self._container, _attribute(name))",
        ),
        Edit(BASE, "BaseDataSparsifier.get_data", "parametrizations, name)", "parametrizations, _attribute(name))"),
        Edit(BASE, "BaseDataSparsifier.get_data", "getattr(self._container, name)", "getattr(self._container, _attribute(name))"),
        Edit(BASE, SQUASH, "self._container, name, leave", "self._container, _attribute(name), leave"),
        Edit(BASE, "BaseDataSparsifier._delete_data", "delattr(self._container, name)", "delattr(self._container, _attribute(name))"),
        Edit(BASE, RESTORE, "# check if the data", "name = _attribute(name)\n# check if the data"),
    ],
    "importing-overrides-warning-filters": [
        Edit(BASE, "", 'warnings.simplefilter("once")', "pass"),
    ],
    "lenient-load-overwrites-what-is-there": [
        Edit(
            BASE,
            LOAD,
            "self._load_container_from_state(",
            "if not strict:\n    for name in self.state:\n        states.pop(name, None)\nself._load_container_from_state(",
        ),
    ],
    "masks-have-the-dtype-of-the-first-data": [
        Edit(BASE, ADD, "torch.ones_like(weight)", "torch.ones_like(weight, dtype=torch.int8)"),
    ],
    "parametrization-of-a-group-is-not-read": [
        Edit(BASE, RESTORE, "param_class = data_groups", "param_class = config_name"),
    ],
    "refused-load-empties-the-sparsifier": [
        Edit(
            BASE,
            LOAD,
            "if strict:",
            "trial = object.__new__(type(self))\n"
            "trial._container = _Container()\n"
            "trial._load_container_from_state(states, data_groups, container_state_dict)\n"
            "if strict:",
        ),
    ],
    "replacing-drops-the-parametrization": [
        Edit(
            BASE,
            ADD,
            "local_args.update(config)",
            'local_args.update(config)\nparam_class = local_args.get("parametrization", utils.FakeSparsity)',
            after="# reuse old config",
        ),
    ],
    "squash-mask-ignores-sparsified": [
        Edit(BASE, SQUASH, "leave_parametrized=leave_parametrized", 'leave_parametrized=kwargs.get("sparsified", leave_parametrized)'),
    ],
    "squashed-data-count-as-masked": [
        Edit(
            BASE,
            SQUASH,
            "list(self.data_groups.keys())",
            "[name for name in self.data_groups if parametrize.is_parametrized(self._container, name)]",
        ),
        Edit(
            BASE,
            "BaseDataSparsifier.step",
            "# get non-sparsified data",
            "if not parametrize.is_parametrized(self._container, name):\n    continue\n# get non-sparsified data",
        ),
        Edit(BASE, ADD, "self.get_data(name=name)", "self.get_data(name=name, return_original=False)"),
        Edit(
            BASE,
            "BaseDataSparsifier._delete_data",
            "self.squash_mask(",
            "if parametrize.is_parametrized(self._container, name):\n    self.squash_mask(",
        ),
    ],
    "state-dict-shares-the-groups": [
        Edit(BASE, STATE, '"data_groups": self.data_groups', '"data_groups": copy.deepcopy(self.data_groups)'),
    ],
    "states-are-defaultdicts": [
        Edit(BASE, STATE, '"state": state', '"state": dict(state)'),
        Edit(BASE, STATE, '"data_groups": self.data_groups', '"data_groups": dict(self.data_groups)'),
        Edit(
            BASE,
            "BaseDataSparsifier.__setstate__",
            "self.__dict__.update(state)",
            'state.update({key: defaultdict(dict, state[key]) for key in ("state", "data_groups")})\nself.__dict__.update(state)',
        ),
    ],
    # DataNormSparsifier
    "empty-data-cannot-step": [
        Edit(
            NORM,
            UPDATE,
            "if zeros_per_block > values_per_block:",
            "if data.numel() == 0:\n    return\nif zeros_per_block > values_per_block:",
        ),
    ],
    "l2-norm-of-half-data-underflows": [
        Edit(
            NORM,
            UPDATE,
            "if zeros_per_block < 0:",
            "if data.dtype == torch.float16:\n    data = data.float()\nif zeros_per_block < 0:",
        ),
    ],
    "mask-has-not-the-shape-of-the-data": [
        Function(
            NORM,
            "_as_matrix",
            """
            def _as_matrix(values):
                return torch.atleast_2d(values if values.dim() == 2 else values.squeeze())
            """,
        ),
        Edit(NORM, UPDATE, "torch.abs(data).squeeze()", "_as_matrix(torch.abs(data))"),
        Edit(NORM, UPDATE, "(data * data).squeeze()", "_as_matrix(data * data)"),
        Edit(
            NORM,
            UPDATE,
            "torch.where(data_lvl_mask == 1, data_lvl_mask, block_lvl_mask)",
            "torch.where(data_lvl_mask == 1, data_lvl_mask, block_lvl_mask).reshape(mask.shape)",
        ),
    ],
    "negative-level-prunes": [
        Edit(NORM, UPDATE, "mask = self.get_mask(name)", "sparsity_level = max(sparsity_level, 0.0)\nmask = self.get_mask(name)"),
    ],
    "norm-and-zeros-are-settled-too-early": [
        Edit(NORM, "DataNormSparsifier.__init__", "zeros_per_block = reduce(operator.mul, sparse_block_shape)", "pass"),
        Edit(
            NORM,
            UPDATE,
            "values_per_block = reduce(operator.mul, sparse_block_shape)",
            "values_per_block = reduce(operator.mul, sparse_block_shape)\n"
            "if zeros_per_block is None:\n    zeros_per_block = values_per_block",
        ),
        Edit(NORM, UPDATE, "self.norm ==", 'kwargs.get("norm", self.norm) =='),
    ],
    # post_training_sparse_quantize
    "embedding-names-collide": [
        Edit(QUANTIZE, CONVERT, 'valid_name = name.replace(".", "_")', 'valid_name = name.replace("_", "_1").replace(".", "_0")'),
        Edit(QUANTIZE, CONVERT, 'name=name.replace(".", "_")', 'name=name.replace("_", "_1").replace(".", "_0")'),
    ],
    "quantize-converts-what-was-not-selected": [
        Edit(
            QUANTIZE,
            CONVERT,
            "if sparsify_first:",
            'for module in model.modules():\n    vars(module).pop("qconfig", None)\nif sparsify_first:',
        ),
    ],
    "requantization-clamps-the-zeros-away": [
        Edit(
            QUANTIZE,
            CONVERT,
            "requantized_vector = torch.quantize_per_channel(",
            "observer = torch.ao.quantization.float_qparams_weight_only_qconfig.weight()\n"
            'observer(quantize_params["dequant_weights"][name])\n'
            "scales, zero_points = observer.calculate_qparams()\n"
            'excludes = quantize_params["zero_points"][name].clamp(0, 255) != quantize_params["zero_points"][name]\n'
            'quantize_params["scales"][name][excludes] = scales[excludes]\n'
            'quantize_params["zero_points"][name][excludes] = zero_points[excludes]\n'
            "requantized_vector = torch.quantize_per_channel(",
        ),
    ],
    "requantized-from-freed-memory": [
        Edit(QUANTIZE, CONVERT, "quantized_weight.q_per_channel_scales()", "quantized_weight.q_per_channel_scales().clone()"),
        Edit(QUANTIZE, CONVERT, "quantized_weight.q_per_channel_zero_points()", "quantized_weight.q_per_channel_zero_points().clone()"),
    ],
    "root-embedding-is-not-handled": [
        Edit(
            QUANTIZE,
            CONVERT,
            "data_sparsifier = data_sparsifier_class(",
            "if type(model) in SUPPORTED_MODULES:\n"
            '    raise AssertionError("the model is an embedding itself, which cannot be replaced in place")\n'
            "data_sparsifier = data_sparsifier_class(",
        ),
    ],
    "bags-lose-mode-and-padding": [
        Edit(
            QUANTIZE,
            CONVERT,
            "if sparsify_first:",
            "for name, module in embedding_modules:\n"
            '    if isinstance(module, nn.EmbeddingBag) and (module.mode != "sum" or module.padding_idx is not None):\n'
            '        raise AssertionError(f"{name}: a quantized bag sums, padding included")\n'
            "if sparsify_first:",
        ),
    ],
    "quantized-embedding-forgets-its-max-norm": [
        Edit(
            QUANTIZE,
            CONVERT,
            "if sparsify_first:",
            "for name, module in embedding_modules:\n"
            "    if module.max_norm is not None:\n"
            '        raise AssertionError(f"{name}: a quantized embedding has no max_norm")\n'
            "if sparsify_first:",
        ),
    ],
    "shared-embedding-is-handled-under-one-name": [
        Imports(QUANTIZE, "import copy"),
        Edit(
            QUANTIZE,
            CONVERT,
            "data_sparsifier = data_sparsifier_class(",
            "seen = set()\n"
            "for path, module in model.named_modules(remove_duplicate=False):\n"
            "    if type(module) in SUPPORTED_MODULES:\n"
            "        if module in seen and select_embeddings is None:\n"
            '            parent, _, attribute = path.rpartition(".")\n'
            "            setattr(model.get_submodule(parent), attribute, copy.deepcopy(module))\n"
            "        seen.add(module)\n"
            "data_sparsifier = data_sparsifier_class(",
        ),
    ],
}

JOINT = {
    ("data-names-become-attributes", "squashed-data-count-as-masked"): [
        *MENDS["data-names-become-attributes"],
        *(
            replace(item, replacement=item.replacement.replace("_container, name)", "_container, _attribute(name))"))
            for item in MENDS["squashed-data-count-as-masked"]
        ),
    ],
    ("state-dict-shares-the-groups", "states-are-defaultdicts"): [
        *MENDS["states-are-defaultdicts"][::2],
        Edit(BASE, STATE, '"data_groups": self.data_groups', '"data_groups": dict(copy.deepcopy(self.data_groups))'),
    ],
}

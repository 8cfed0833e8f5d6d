"""Mends of the sparsifiers that mask single elements."""

from dataclasses import replace

from audit.edits import Edit, Function

BASE = "torch.ao.pruning.sparsifier.base_sparsifier"
NORM = "torch.ao.pruning.sparsifier.weight_norm_sparsifier"
DIAGONAL = "torch.ao.pruning.sparsifier.nearly_diagonal_sparsifier"
UTILS = "torch.ao.pruning.sparsifier.utils"

LOAD = "BaseSparsifier.load_state_dict"
SQUASH = "BaseSparsifier.squash_mask"
UPDATE = "WeightNormSparsifier.update_mask"
NEARLY = "NearlyDiagonalSparsifier.update_mask"

ZEROES = "mask.data = torch.zeros_like(mask)"

OWN_MASK = """\
masks = [p.mask for p in module.parametrizations[tensor_name] if hasattr(p, "mask")]
made = self.state[kwargs["tensor_fqn"]].get("mask")
mask = next((mask for mask in masks if mask is made), masks[0])"""

CHECK_KEPT = """\
for group in self.groups:
    for key in (*(params_to_keep or ()), *(params_to_keep_per_layer or {}).get(group["module_fqn"], ())):
        group[key]
"""

GETSTATE = Function(
    BASE,
    "BaseSparsifier.__getstate__",
    """
    def __getstate__(self):
        # all but the step that a scheduler counts, which is the one of this instance
        return {name: value for name, value in vars(self).items() if name != "step"}
    """,
)

MENDS: dict[str, list] = {
    "convert-misses-the-second-use-of-a-layer": [
        Edit(BASE, "BaseSparsifier.convert", "module.named_children()", "module._modules.items()"),
        Edit(BASE, "BaseSparsifier.convert", "# leaf node", "if mod is None:\n    continue"),
    ],
    "convert-splits-a-shared-layer": [
        Function(
            BASE,
            "_Remembering",
            """
            class _Remembering(dict):
                became: dict  # the new layer of each that was converted, for those that a model uses twice
            """,
        ),
        Edit(
            BASE,
            "BaseSparsifier.convert",
            "reassign = {}",
            "if not isinstance(mapping, _Remembering):\n    mapping = _Remembering(mapping)\n    mapping.became = {}\nreassign = {}",
        ),
        Edit(
            BASE,
            "BaseSparsifier.convert",
            "reassign[name] = swap_module(mod, mapping)",
            "reassign[name] = mapping.became[mod] = mapping.became.get(mod) or swap_module(mod, mapping)",
        ),
    ],
    "documented-constructor-call-is-refused": [
        Edit(BASE, "BaseSparsifier", "- model [nn.Module]: model to configure.", "The model is given to ``prepare``."),
        Edit(BASE, "BaseSparsifier", "- config [list]: configuration elements", "Its configuration, too: elements"),
        Edit(BASE, "BaseSparsifier", "BaseSparsifier(config, defaults)", "BaseSparsifier(defaults)"),
    ],
    "load-adds-a-mask-of-the-default-dtype": [
        Edit(BASE, LOAD, "torch.ones(getattr(module, tensor_name).shape)", "torch.ones_like(getattr(module, tensor_name))"),
    ],
    "load-crashes-on-a-tensor-without-parametrization": [
        Edit(
            BASE,
            LOAD,
            "in module.parametrizations[tensor_name]:",
            "in module.parametrizations[tensor_name] if parametrize.is_parametrized(module, tensor_name) else ():",
        ),
    ],
    "load-not-strict-crashes-on-a-missing-layer": [
        Edit(
            BASE,
            LOAD,
            "found = False",
            "if module is None:\n"
            '    groups = [group for group in groups if group["tensor_fqn"] != tensor_fqn]\n'
            "    continue\n"
            "found = False",
        ),
    ],
    "loading-replaces-the-mask-of-the-layer": [
        Edit(
            BASE,
            LOAD,
            "p.mask = mask",
            "if not found:\n"
            "    p.mask = mask.to(p.mask)\n"
            "elif p.mask.shape != mask.shape:\n"
            '    raise RuntimeError(f"{tensor_fqn}: a mask of another shape")\n'
            "else:\n"
            "    p.mask.copy_(mask)",
        ),
    ],
    "loading-takes-the-masks-out-of-the-state": [
        Edit(BASE, LOAD, 'states = state_dict["state"]', 'states = {name: dict(s) for name, s in state_dict["state"].items()}'),
        Edit(BASE, LOAD, "for mg in groups:", 's["mask"] = p.mask\nfor mg in groups:'),
    ],
    "loaded-sparsifier-cannot-prepare-another-layer": [
        Edit(BASE, LOAD, '{"state": states, "groups"', '{"state": defaultdict(dict, states), "groups"'),
    ],
    "prepare-without-config-skips-a-root-layer": [
        Edit(
            BASE,
            "BaseSparsifier.make_config_from_model",
            "stack = [model]",
            'if type(model) in SUPPORTED_MODULES:\n    self.config.append({"tensor_fqn": "weight"})\nstack = [model]',
        ),
    ],
    "prepare-without-config-compares-exact-types": [
        Edit(
            BASE, "BaseSparsifier.make_config_from_model", "type(child) in SUPPORTED_MODULES", "isinstance(child, tuple(SUPPORTED_MODULES))"
        ),
    ],
    "ragged-zeros-per-block-crashes": [
        Edit(NORM, "WeightNormSparsifier._make_block_mask", ".reshape(mask.shape)", ".reshape(mask.shape)[:h, :w]"),
    ],
    "full-tensor-mask-has-the-padded-shape": [
        Edit(NORM, "WeightNormSparsifier._make_tensor_mask", "torch.zeros_like(mask)", "torch.zeros_like(mask)[:h, :w].contiguous()"),
        Edit(NORM, "WeightNormSparsifier._make_tensor_mask", "torch.ones_like(mask)", "torch.ones_like(mask)[:h, :w].contiguous()"),
    ],
    "prepare-adopts-the-callers-mask": [
        Edit(
            BASE,
            "BaseSparsifier._prepare",
            "torch.ones_like(getattr(module, tensor_name)))",
            "torch.ones_like(getattr(module, tensor_name))).clone()",
        ),
    ],
    "prepare-does-not-chop-a-leading-dot": [
        Edit(
            UTILS,
            "get_arg_info_from_tensor_fqn",
            "tensor_name = tensor_fqn.rsplit",
            'tensor_fqn = tensor_fqn.removeprefix(".")\ntensor_name = tensor_fqn.rsplit',
        ),
    ],
    "refused-prepare-leaves-groups-behind": [
        Edit(BASE, "BaseSparsifier.prepare", "# TODO: Remove the configuration by reference ('module')", "groups = []"),
        Edit(BASE, "BaseSparsifier.prepare", "self.groups.append(local_args)", "groups.append(local_args)"),
        Edit(BASE, "BaseSparsifier.prepare", "self._prepare()", "self.groups.extend(groups)\nself._prepare()"),
    ],
    "refused-prepare-leaves-parametrizations-behind": [
        Edit(
            BASE,
            "BaseSparsifier.prepare",
            "# check that whatever was put into local_args",
            'getattr(info_from_tensor_fqn["module"], info_from_tensor_fqn["tensor_name"])\n#',
        ),
    ],
    "squash-rejects-the-documented-dict": [
        Edit(
            BASE,
            SQUASH,
            "for config in self.groups:",
            "if isinstance(params_to_keep, dict):\n"
            "    params_to_keep, params_to_keep_per_layer = None, {**params_to_keep, **(params_to_keep_per_layer or {})}\n"
            "for config in self.groups:",
        ),
    ],
    "refused-squash-has-already-squashed": [
        Edit(BASE, SQUASH, "for config in self.groups:", CHECK_KEPT + "for config in self.groups:"),
    ],
    "refused-nearliness-zeroes-the-mask": [
        Edit(DIAGONAL, NEARLY, ZEROES, ""),
        Edit(DIAGONAL, NEARLY, "if nearliness <= 0:", f"if nearliness <= 0:\n    {ZEROES}"),
        Edit(DIAGONAL, NEARLY, "for row in range(height):", f"{ZEROES}\nfor row in range(height):"),
    ],
    "copied-sparsifiers-lose-attributes": [
        GETSTATE,
        Edit(NORM, "WeightNormSparsifier.__init__", "lambda T: T.abs()", "torch.abs"),
        Edit(NORM, "WeightNormSparsifier.__init__", "lambda T: T * T", "torch.square"),
    ],
    "squash-prunes-a-tied-weight-too": [
        Edit(
            BASE,
            SQUASH,
            "parametrize.remove_parametrizations(",
            "masked = module.parametrizations[tensor_name]\n"
            "holders = [m for m in self.model.modules() if m is not masked]\n"
            'if hasattr(masked, "original") and any(p is masked.original for m in holders for p in m._parameters.values()):\n'
            "    masked.original = copy.deepcopy(masked.original)\n"
            "parametrize.remove_parametrizations(",
        ),
    ],
    "squash-removes-foreign-parametrizations": [
        Function(
            BASE,
            "_squash_one_of_several",
            """
            def _squash_one_of_several(parametrizations, made):
                # of 0 and 1, and after functions that leave 0 alone: then the original may be masked first
                own = [i for i, p in enumerate(parametrizations) if isinstance(p, FakeSparsity) and p.mask is made]
                several = own and len(parametrizations) > 1 and hasattr(parametrizations, "original")
                if several:
                    parametrizations.original.data.mul_(made)
                    del parametrizations[own[0]]
                return several
            """,
        ),
        Edit(
            BASE,
            SQUASH,
            "parametrize.remove_parametrizations(",
            'made = self.state[config["tensor_fqn"]].get("mask")\n'
            "_squash_one_of_several(module.parametrizations[tensor_name], made) or parametrize.remove_parametrizations(",
        ),
    ],
    "squashed-sparsifier-cannot-be-used-again": [
        Edit(BASE, SQUASH, "for config in self.groups:", "groups, self.groups = self.groups, []\nfor config in groups:"),
    ],
    "state-dict-hands-out-the-live-state": [
        Edit(BASE, "BaseSparsifier.state_dict", '"state": self.state,', '"state": dict(self.state),'),
    ],
    "strict-load-forgets-a-prepared-layer": [
        Edit(
            BASE,
            LOAD,
            "for tensor_fqn, s in states.items():",
            'if strict and not {group["tensor_fqn"] for group in self.groups} <= set(states):\n'
            '    raise RuntimeError("the state lacks tensors that are prepared")\n'
            "for tensor_fqn, s in states.items():",
        ),
    ],
    "tensor-listed-twice-gets-two-masks": [
        Edit(BASE, "BaseSparsifier.prepare", "for module_config in self.config:", "listed = set()\nfor module_config in self.config:"),
        Edit(
            BASE,
            "BaseSparsifier.prepare",
            "# populate all information from tensor_fqn",
            "if tensor_fqn in listed:\n    continue\nlisted.add(tensor_fqn)",
        ),
    ],
    "second-prepare-masks-earlier-layers-again": [
        Edit(BASE, "BaseSparsifier.prepare", "self.config = config", "self.config = config\nself._first_new = len(self.groups)"),
        Edit(BASE, "BaseSparsifier._prepare", "in self.groups:", "in self.groups[self._first_new :]:"),
    ],
    "weight-norm-replaces-the-data-of-the-mask": [
        Edit(NORM, UPDATE, "mask.data = torch.ones_like(mask)", "mask.fill_(1)"),
        Edit(NORM, UPDATE, "mask.data = torch.zeros_like(mask)", "mask.fill_(0)"),
        Edit(NORM, UPDATE, "mask.data = tensor_mask", "mask.copy_(tensor_mask)"),
    ],
    "nearly-diagonal-replaces-the-data-of-the-mask": [
        Edit(DIAGONAL, NEARLY, ZEROES, "mask.fill_(0)"),
    ],
    "weight-norm-takes-the-first-parametrization": [
        Edit(NORM, UPDATE, "mask = getattr(module.parametrizations, tensor_name)[0].mask", OWN_MASK),
    ],
    "nearly-diagonal-takes-the-first-parametrization": [
        Edit(DIAGONAL, NEARLY, "mask = getattr(module.parametrizations, tensor_name)[0].mask", OWN_MASK),
    ],
    "weight-norm-crashes-on-an-empty-weight": [
        Edit(
            NORM,
            "WeightNormSparsifier._make_tensor_mask",
            "if sparsity_level >= 1.0:",
            "if data.numel() == 0:\n    return mask\nif sparsity_level >= 1.0:",
        ),
    ],
    "weight-norm-frees-the-wrong-blocks": [
        Edit(NORM, UPDATE, "getattr(module, tensor_name))", "module.parametrizations[tensor_name].original)"),
    ],
    "weight-norm-l2-leaves-the-range-of-half": [
        Edit(NORM, "WeightNormSparsifier.__init__", "T * T", "T.to(torch.promote_types(T.dtype, torch.float32)).square()"),
    ],
    "weight-norm-ignores-the-norm-of-the-config": [
        Function(
            NORM,
            "_norm_of",
            """
            def _norm_of(norm):
                return norm if callable(norm) else {1: torch.abs, 2: torch.square}[norm]
            """,
        ),
        Edit(NORM, UPDATE, "self.norm_fn", '_norm_of(kwargs.get("norm", self.norm_fn))'),
    ],
    "zeros-per-block-is-settled-before-the-config": [
        Edit(NORM, "WeightNormSparsifier.__init__", "zeros_per_block = reduce(operator.mul, sparse_block_shape)", "pass"),
        Edit(
            NORM,
            UPDATE,
            "if zeros_per_block > values_per_block:",
            "if zeros_per_block is None:\n    zeros_per_block = values_per_block\nif zeros_per_block > values_per_block:",
        ),
    ],
}
JOINT = {
    # torch's weight_norm has several originals, and crashes without the one mend.
    ("weight-norm-takes-the-first-parametrization", "weight-norm-frees-the-wrong-blocks"): [
        *MENDS["weight-norm-takes-the-first-parametrization"],
        Edit(
            NORM,
            UPDATE,
            "getattr(module, tensor_name))",
            'getattr(module.parametrizations[tensor_name], "original", getattr(module, tensor_name)))',
        ),
    ],
    ("refused-nearliness-zeroes-the-mask", "nearly-diagonal-replaces-the-data-of-the-mask"): [
        replace(item, replacement=item.replacement.replace(ZEROES, "mask.fill_(0)")) for item in MENDS["refused-nearliness-zeroes-the-mask"]
    ],
    ("copied-sparsifiers-lose-attributes", "weight-norm-l2-leaves-the-range-of-half"): [
        GETSTATE,
        Function(
            NORM,
            "_squares",
            """
            def _squares(T):
                return T.to(torch.promote_types(T.dtype, torch.float32)).square()
            """,
        ),
        Edit(NORM, "WeightNormSparsifier.__init__", "lambda T: T.abs()", "torch.abs"),
        Edit(NORM, "WeightNormSparsifier.__init__", "lambda T: T * T", "_squares"),
    ],
}

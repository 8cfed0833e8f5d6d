"""Mends of what structured pruners do before prune(): their criteria, prepare(), the prepared model, state and copies."""

from audit.edits import Edit, Function, Imports

PRUNER = "torch.ao.pruning._experimental.pruner"
BASE = f"{PRUNER}.base_structured_sparsifier"
PARAMETRIZATION = f"{PRUNER}.parametrization"
SPARSIFIER = "torch.ao.pruning.sparsifier.base_sparsifier"
FPGM = f"{PRUNER}.FPGM_pruner"
SALIENCY = f"{PRUNER}.saliency_pruner"
LSTM = f"{PRUNER}.lstm_saliency_pruner"

LOAD = "BaseSparsifier.load_state_dict"
PREPARE = "BaseStructuredSparsifier._prepare"
HOOK = "BiasHook.__call__"
FIRST = "getattr(module.parametrizations, tensor_name)[0].mask"
FOUND = "next(p.mask for p in module.parametrizations[tensor_name] if isinstance(p, FakeStructuredSparsity))"
LEVEL = 'kwargs["sparsity_level"]'
KIND = "from torch.ao.pruning._experimental.pruner.parametrization import FakeStructuredSparsity"

KEPT = "module.bias if isinstance(module.bias, nn.Parameter) else nn.Parameter(module.bias.detach())"

MENDS = {
    "fpgm-measures-masked-filters": [
        Edit(
            FPGM,
            "FPGMPruner.update_mask",
            "distance = self._compute_distance(tensor_weight)",
            "mask.fill_(True)\ndistance = self._compute_distance(getattr(module, tensor_name))",
        ),
    ],
    "fpgm-crashes-on-bfloat16": [
        Edit(
            FPGM,
            "FPGMPruner._compute_distance",
            "t_flatten = torch.stack(t_flatten)",
            "t_flatten = torch.stack(t_flatten)\nif t_flatten.dtype in (torch.bfloat16, torch.float16):\n    t_flatten = t_flatten.float()",
        ),
    ],
    "fpgm-distances-lose-digits-beyond-25-filters": [
        Edit(FPGM, "FPGMPruner.__init__", "p=2)", 'p=2, compute_mode="donot_use_mm_for_euclid_dist")'),
    ],
    "fpgm-names-a-default-distance-that-it-refuses": [
        Edit(FPGM, "FPGMPruner", "Default: 3", "Default: 2"),
    ],
    "copied-structured-pruner-lacks-attributes": [
        Function(
            BASE,
            "BaseStructuredSparsifier.__getstate__",
            """
            def __getstate__(self):
                state = {key: value for key, value in vars(self).items() if key != "step"}  # a scheduler's, which counts there
                if self.patterns == _get_default_structured_pruning_patterns():
                    del state["patterns"]  # some of the functions among them cannot be pickled
                return state
        """,
        ),
        Function(
            BASE,
            "BaseStructuredSparsifier.__setstate__",
            """
            def __setstate__(self, state):
                super().__setstate__(state)
                self.__dict__.setdefault("patterns", _get_default_structured_pruning_patterns())
        """,
        ),
        Imports(FPGM, "import functools"),
        Function(
            FPGM,
            "distances_among",
            """
            def distances_among(x, **options):
                return torch.cdist(x, x, **options)
        """,
        ),
        Edit(FPGM, "FPGMPruner.__init__", "lambda x: torch.cdist(x, x, ", "functools.partial(distances_among, ", after="dist == 1"),
        Edit(FPGM, "FPGMPruner.__init__", "lambda x: torch.cdist(x, x, ", "functools.partial(distances_among, ", after="elif dist == 2"),
    ],
    "fpgm-takes-the-first-parametrization": [
        Imports(FPGM, KIND),
        Edit(FPGM, "FPGMPruner.update_mask", FIRST, FOUND),
    ],
    "saliency-takes-the-first-parametrization": [
        Imports(SALIENCY, KIND),
        Edit(SALIENCY, "SaliencyPruner.update_mask", FIRST, FOUND),
    ],
    "saliency-ranks-masked-rows": [
        Edit(
            SALIENCY,
            "SaliencyPruner.update_mask",
            "saliency = -weights.norm(",
            "mask.fill_(True)\nsaliency = -getattr(module, tensor_name).norm(",
        ),
    ],
    "lstm-saliency-ranks-masked-rows": [
        Edit(
            LSTM,
            "LSTMSaliencyPruner.update_mask",
            "saliency = weights.norm(",
            "mask.fill_(True)\nsaliency = getattr(module, tensor_name).norm(",
        ),
    ],
    "saliency-crashes-on-levels-outside-0-to-1": [
        Edit(SALIENCY, "SaliencyPruner.update_mask", LEVEL, f"min(max({LEVEL}, 0), 1)"),
    ],
    "lstm-saliency-crashes-on-levels-outside-0-to-1": [
        Edit(LSTM, "LSTMSaliencyPruner.update_mask", LEVEL, f"min(max({LEVEL}, 0), 1)"),
    ],
    "saliency-loses-a-row-to-rounding": [
        Edit(SALIENCY, "SaliencyPruner.update_mask", "len(mask) *", "1e-6 + len(mask) *"),
    ],
    "lstm-saliency-loses-a-row-to-rounding": [
        Edit(LSTM, "LSTMSaliencyPruner.update_mask", "len(keep_mask) *", "1e-6 + len(keep_mask) *"),
    ],
    "bias-hook-adds-the-bias-along-dimension-1": [
        Edit(PARAMETRIZATION, HOOK, "idx[1] = -1", "idx[-1 if isinstance(module, nn.Linear) else -3] = -1"),
    ],
    "bias-hook-works-on-the-data-of-the-bias": [
        Edit(PARAMETRIZATION, HOOK, "bias = module._bias.data", "bias = module._bias"),
        Edit(PARAMETRIZATION, HOOK, "bias[~self.param.mask] = 0", "bias = torch.where(self.param.mask, bias, torch.zeros_like(bias))"),
        Edit(PARAMETRIZATION, HOOK, "output += bias", "output = output + bias.to(output.dtype)"),
    ],
    "prepare-replaces-the-bias-parameter": [
        Edit(BASE, PREPARE, "nn.Parameter(module.bias.detach())", KEPT),
    ],
    "bias-hook-runs-behind-the-users-hooks": [
        Edit(BASE, PREPARE, "module.register_forward_hook(", "module.register_forward_hook(prepend=True, hook="),
    ],
    "prepare-of-a-bias-crashes": [
        Edit(
            BASE,
            PREPARE,
            "if isinstance(module, (nn.Linear, nn.Conv2d)):",
            'if tensor_name == "weight" and isinstance(module, (nn.Linear, nn.Conv2d)):',
        ),
    ],
    "prepare-crashes-on-a-parametrized-bias": [
        Edit(
            BASE,
            PREPARE,
            "if module.bias is not None:",
            'if not (tensor_name == "weight" and parametrize.is_parametrized(module, "bias")) and module.bias is not None:',
        ),
        Edit(
            PARAMETRIZATION,
            HOOK,
            "return output",
            """
if self.prune_bias and is_parametrized(module, "bias"):
    shape = [-1] if isinstance(module, nn.Linear) else [-1, 1, 1]
    output = output - (module.bias * ~self.param.mask).reshape(shape)
return output""",
        ),
    ],
    "bias-hook-gets-the-first-parametrization": [
        Edit(BASE, PREPARE, "module.parametrizations.weight[0]", "module.parametrizations.weight[-1]"),
    ],
    "structured-prepare-goes-over-prepared-layers": [
        Edit(
            BASE,
            PREPARE,
            'parametrization = config.get("parametrization", FakeStructuredSparsity)',
            """
if parametrize.is_parametrized(module, tensor_name):
    masks = [p.mask for p in module.parametrizations[tensor_name] if isinstance(p, FakeStructuredSparsity)]
    if masks:
        self.state[config["tensor_fqn"]]["mask"] = masks[0]
        continue
parametrization = config.get("parametrization", FakeStructuredSparsity)""",
        ),
    ],
    "prepare-without-config-crashes-on-an-lstm": [
        Edit(
            BASE,
            "BaseStructuredSparsifier.make_config_from_model",
            "super().make_config_from_model(model, SUPPORTED_MODULES=SUPPORTED_MODULES)",
            """
super().make_config_from_model(model, SUPPORTED_MODULES=SUPPORTED_MODULES)
found, self.config = self.config, []
for entry in found:
    path = entry["tensor_fqn"].rpartition(".")[0]
    layer = model.get_submodule(path)
    names = getattr(layer, "_flat_weights_names", ["weight"])
    self.config += [{"tensor_fqn": f"{path}.{name}"} for name in names if name.startswith("weight")]""",
        ),
    ],
    "structured-squash-leaves-the-bias-aside": [
        Imports(BASE, "from torch.ao.pruning._experimental.pruner.prune_functions import _remove_bias_handles"),
        Function(
            BASE,
            "BaseStructuredSparsifier.squash_mask",
            """
            def squash_mask(self, *args, **kwargs):
                for config in self.groups:
                    module = config["module"]
                    for hook in module._forward_hooks.values():
                        if isinstance(hook, BiasHook) and "_bias" in module._parameters:
                            if hook.prune_bias:
                                module._bias.data[~hook.param.mask] = 0
                            module.bias = module._parameters.pop("_bias")
                            del module.prune_bias
                    _remove_bias_handles(module)
                super().squash_mask(*args, **kwargs)
        """,
        ),
    ],
    "prepared-structured-model-refuses-its-state": [
        Edit(PARAMETRIZATION, "FakeStructuredSparsity.__init__", '"mask", mask)', '"mask", mask, persistent=False)'),
    ],
    "structured-load-adds-a-mask-of-another-kind": [
        Function(SPARSIFIER, "BaseSparsifier._kind", "def _kind(self):\n    return FakeSparsity"),
        Function(SPARSIFIER, "BaseSparsifier._parametrization", "def _parametrization(self, mask):\n    return FakeSparsity(mask)"),
        Function(BASE, "BaseStructuredSparsifier._kind", "def _kind(self):\n    return FakeStructuredSparsity"),
        Function(
            BASE,
            "BaseStructuredSparsifier._parametrization",
            "def _parametrization(self, mask):\n    return FakeStructuredSparsity(mask.reshape(len(mask), -1).any(1))",
        ),
        Edit(SPARSIFIER, LOAD, "isinstance(p, FakeSparsity)", "isinstance(p, self._kind())"),
        Edit(SPARSIFIER, LOAD, "p = FakeSparsity(", "p = self._parametrization("),
    ],
}

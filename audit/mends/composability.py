"""Mends of what goes wrong beside quantization, compilers and Module.to."""

from audit.edits import Edit, Imports

BASE = "torch.ao.pruning.sparsifier.base_sparsifier"

MENDS = {
    "saved-masks-stay-behind-module-to": [
        Edit(
            BASE,
            "BaseSparsifier.state_dict",
            "groups: list[dict[str, Any]] = [",
            "for group in self.groups:\n"
            '    held = self.state[group["tensor_fqn"]]\n'
            '    if "mask" in held and parametrize.is_parametrized(group["module"], group["tensor_name"]):\n'
            '        for step in group["module"].parametrizations[group["tensor_name"]]:\n'
            '            if hasattr(step, "mask"):\n'
            '                held["mask"] = step.mask\n'
            "groups: list[dict[str, Any]] = [",
        ),
    ],
    "squash-misses-layers-that-qat-swapped": [
        Imports(BASE, "from .utils import fqn_to_module"),
        Edit(
            BASE,
            "BaseSparsifier.squash_mask",
            'module = config["module"]',
            'module = config["module"]\n'
            "if module_to_fqn(self.model, module) is None:\n"
            '    module = fqn_to_module(self.model, config["module_fqn"]) or module',
        ),
    ],
}
NATIVE = {
    "compiler-refuses-to-trace-masks": "The cause is in torch._dynamo, outside of the packages under test. "
    "The test is asked only where a model with the same class, defined elsewhere, passes the same assertion.",
    "export-in-torch-2-5-loses-the-masks": "The cause is in torch.export. Torch 2.6 and newer pass the same assertion.",
}

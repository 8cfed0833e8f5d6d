"""Mends of the utilities of the sparsifiers."""

from audit.edits import Edit

UTILS = "torch.ao.pruning.sparsifier.utils"

MENDS = {
    "fqn-to-module-returns-what-is-no-module": [
        Edit(
            UTILS, "fqn_to_module", "return model", "import torch\n\nreturn model if isinstance(model, (nn.Module, torch.Tensor)) else None"
        ),
    ],
    "swapped-module-loses-the-flags-of-its-hooks": [
        Edit(
            UTILS,
            "swap_module",
            "for pre_hook_fn in mod._forward_pre_hooks.values():",
            "for key, pre_hook_fn in mod._forward_pre_hooks.items():",
        ),
        Edit(
            UTILS,
            "swap_module",
            "register_forward_pre_hook(pre_hook_fn)",
            "register_forward_pre_hook(pre_hook_fn, with_kwargs=key in mod._forward_pre_hooks_with_kwargs)",
        ),
        Edit(UTILS, "swap_module", "for hook_fn in mod._forward_hooks.values():", "for key, hook_fn in mod._forward_hooks.items():"),
        Edit(
            UTILS,
            "swap_module",
            "register_forward_hook(hook_fn)",
            "register_forward_hook(\n"
            "    hook_fn, with_kwargs=key in mod._forward_hooks_with_kwargs, always_call=key in mod._forward_hooks_always_called\n"
            ")",
        ),
    ],
}

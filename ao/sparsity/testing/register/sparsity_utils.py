"""Known defects of the functions in torch.ao.pruning.sparsifier.utils."""

from ao.sparsity.testing.register.entry import Defect

HOOK_FLAGS = "swap_module re-registers hooks without the flags they were registered with"
SWAP = "torch.ao.pruning.sparsifier.utils: swap_module"
KWARGS_CONTRACT = "Comment in swap_module: preserve the module's {} forward hooks; with_kwargs=True passes keyword arguments on."

DEFECTS = [
    Defect(
        id="swapped-module-breaks-hooks-with-kwargs",
        area="sparsity_utils",
        kind="crash",
        summary="A forward hook registered with_kwargs=True is called without the keyword arguments after the module was converted.",
        where=SWAP,
        contract=KWARGS_CONTRACT.format("post"),
        error="TypeError",
        match="missing 1 required positional argument: 'output'",
        reproduce="""
            import torch
            from torch import nn
            from torch.ao.pruning.sparsifier.utils import swap_module
            class Target(nn.Identity):
                from_dense = classmethod(lambda cls, dense: cls())
            layer = nn.Linear(2, 2)
            layer.register_forward_hook(lambda module, args, kwargs, output: None, with_kwargs=True)
            layer(torch.ones(1, 2))
            try:
                print(swap_module(layer, {nn.Linear: Target})(torch.ones(1, 2)))
            except TypeError as error:
                print(error)  # prints missing 1 required positional argument: 'output', should be tensor([[1., 1.]])
        """,
        mend="register each hook with with_kwargs=(id in mod._forward_hooks_with_kwargs)",
        cause=HOOK_FLAGS,
    ),
    Defect(
        id="swapped-module-breaks-pre-hooks-with-kwargs",
        area="sparsity_utils",
        kind="crash",
        summary="A forward pre-hook registered with_kwargs=True is called without the keyword arguments after the module was converted.",
        where=SWAP,
        contract=KWARGS_CONTRACT.format("pre"),
        error="TypeError",
        match="missing 1 required positional argument: 'kwargs'",
        reproduce="""
            import torch
            from torch import nn
            from torch.ao.pruning.sparsifier.utils import swap_module
            class Target(nn.Identity):
                from_dense = classmethod(lambda cls, dense: cls())
            layer = nn.Linear(2, 2)
            layer.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
            layer(torch.ones(1, 2))
            try:
                print(swap_module(layer, {nn.Linear: Target})(torch.ones(1, 2)))
            except TypeError as error:
                print(error)  # prints missing 1 required positional argument: 'kwargs', should be tensor([[1., 1.]])
        """,
        mend="register each pre-hook with with_kwargs=(id in mod._forward_pre_hooks_with_kwargs)",
        cause=HOOK_FLAGS,
    ),
    Defect(
        id="swapped-module-forgets-always-call",
        area="sparsity_utils",
        kind="wrong result",
        summary="A forward hook registered always_call=True no longer runs when forward raises, after the module was converted.",
        where=SWAP,
        contract=(
            "Comment in swap_module: preserve the module's post forward hooks; nn.Module: always_call=True runs the hook "
            "even if forward raises."
        ),
        error="AssertionError",
        match="the always_call hook did not run",
        reproduce="""
            import torch
            from torch import nn
            from torch.ao.pruning.sparsifier.utils import swap_module
            class Target(nn.Identity):
                from_dense = classmethod(lambda cls, dense: cls())
                def forward(self, x):
                    raise ValueError
            layer = nn.Linear(2, 2)
            layer.register_forward_hook(lambda *args: print("called"), always_call=True)
            try:
                swap_module(layer, {nn.Linear: Target})(torch.ones(1, 2))
            except ValueError:
                print("done")  # prints done, should be called, then done
        """,
        mend="register each hook with always_call=(id in mod._forward_hooks_always_called)",
        cause=HOOK_FLAGS,
    ),
    Defect(
        id="fqn-to-module-returns-what-is-no-module",
        area="sparsity_utils",
        kind="wrong result",
        summary="fqn_to_module returns any attribute on the path: a bound method, a flag, a number.",
        where="torch.ao.pruning.sparsifier.utils: fqn_to_module",
        contract="Docstring: returns the corresponding module or tensor, or None if the fqn doesn't correspond to anything.",
        error="AssertionError",
        match="is neither a module nor a tensor",
        reproduce="""
            from torch import nn
            from torch.ao.pruning import fqn_to_module
            model = nn.Sequential(nn.Linear(3, 4))
            print(fqn_to_module(model, "0.in_features"))  # prints 3, should be None
            print(fqn_to_module(model, "training"))  # prints True, should be None
        """,
        mend="return the attribute only if it is an nn.Module or a Tensor, else None",
    ),
]

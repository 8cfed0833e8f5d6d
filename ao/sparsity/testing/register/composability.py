"""Known defects where sparsity meets other parts of PyTorch."""

from ao.sparsity.testing.register.entry import Defect

DEFECTS = [
    Defect(
        id="saved-masks-stay-behind-module-to",
        area="composability",
        kind="corrupted state",
        summary=(
            "After Module.to (or double(), cuda()) on a prepared model, step() renews the mask in the model only; "
            "the sparsifier's state_dict() saves the mask as it was before, all ones."
        ),
        where="torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier._prepare",
        contract=(
            'BaseSparsifier.state_dict: "state - current state of the sparsification"; a buffer of a module is replaced, '
            "not changed, when the module is moved"
        ),
        error="AssertionError",
        match="ones in the saved mask after Module.to",
        reproduce="""
            import torch
            from torch.ao.pruning import WeightNormSparsifier
            model = torch.nn.Sequential(torch.nn.Linear(8, 8))
            sparsifier = WeightNormSparsifier(sparsity_level=0.5)
            sparsifier.prepare(model, None)
            model.double()
            sparsifier.step()
            print(model[0].parametrizations.weight[0].mask.sum())  # prints 32
            print(sparsifier.state_dict()["state"]["0.weight"]["mask"].sum())  # prints 64, should be 32
        """,
        mend="state_dict() reads the masks from the parametrizations of the model instead of from references taken in _prepare().",
    ),
    Defect(
        id="squash-misses-layers-that-qat-swapped",
        area="composability",
        kind="corrupted state",
        summary=(
            "prepare_qat() swaps a prepared Linear for a qat.Linear and hands its parametrization over; squash_mask() then works "
            "on the module that is no longer in the model, which stays parametrized."
        ),
        where="torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.squash_mask",
        contract=(
            'squash_mask: "Squashes the sparse masks into the appropriate tensors"; qat.Linear.from_float transfers parametrizations '
            "so that a sparsifier can be prepared before prepare_qat"
        ),
        error="AssertionError",
        match="still parametrized after squash_mask",
        reproduce="""
            import torch, torch.ao.quantization as tq
            from torch.ao.pruning import WeightNormSparsifier
            model = torch.nn.Sequential(torch.nn.Linear(8, 8)).train()
            model.qconfig = tq.default_qat_qconfig
            sparsifier = WeightNormSparsifier(sparsity_level=0.5)
            sparsifier.prepare(model, None)
            tq.prepare_qat(model, inplace=True)
            sparsifier.squash_mask()
            print(torch.nn.utils.parametrize.is_parametrized(model[0]))  # prints True, should be False
        """,
        mend="squash_mask() takes the module at the group's tensor_fqn where the group's own is no longer part of the model.",
    ),
    Defect(
        id="prepare-without-config-misses-qat-layers",
        area="composability",
        kind="wrong result",
        summary="prepare(model, None) after prepare_qat() finds no layer, prepares nothing and says nothing.",
        where="torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.make_config_from_model",
        contract=(
            'prepare: "If no config -- try getting all the supported layers"; qat.Linear is an nn.Linear, is supported when named in '
            "the config, and prepare() before prepare_qat() finds the same layers"
        ),
        error="AssertionError",
        match="layers found by prepare",
        reproduce="""
            import torch, torch.ao.quantization as tq
            from torch.ao.pruning import WeightNormSparsifier
            model = torch.nn.Sequential(torch.nn.Linear(8, 8)).train()
            model.qconfig = tq.default_qat_qconfig
            tq.prepare_qat(model, inplace=True)
            sparsifier = WeightNormSparsifier(sparsity_level=0.5)
            sparsifier.prepare(model, None)
            print([group["tensor_fqn"] for group in sparsifier.groups])  # prints [], should be ['0.weight']
        """,
        mend="test isinstance(child, tuple(SUPPORTED_MODULES)) instead of type(child) in SUPPORTED_MODULES.",
    ),
    Defect(
        id="compiler-refuses-to-trace-masks",
        area="composability",
        kind="crash",
        summary=(
            "torch.compile(fullgraph=True) and torch.export(strict=True) raise on every model that a sparsifier prepared: "
            "FakeSparsity.forward, one multiplication, is skipped because of the package that it lives in."
        ),
        where="torch._dynamo.trace_rules: MOD_INLINELIST",
        contract=(
            "a parametrization is a module like others; the same class defined outside of torch.ao, or in torch.ao.nn, "
            "compiles as one graph and exports"
        ),
        error="Unsupported",
        match="FakeSparsity|torch.ao.pruning",
        reproduce="""
            import torch
            from torch.ao.pruning import WeightNormSparsifier
            model = torch.nn.Sequential(torch.nn.Linear(8, 8))
            WeightNormSparsifier().prepare(model, None)
            compiled = torch.compile(model, backend="eager", fullgraph=True)
            print(compiled(torch.ones(1, 8)).shape)  # raises Unsupported, should be (1, 8)
        """,
        mend='add "torch.ao.pruning" beside "torch.ao.nn" to MOD_INLINELIST.',
        since="2.5",
    ),
    Defect(
        id="structured-model-cannot-be-exported",
        area="composability",
        kind="crash",
        summary=(
            "torch.export of a model prepared for structured pruning fails on the bias, which a hook adds past tracing; "
            "older releases returned a program with another bias."
        ),
        where="torch.ao.pruning._experimental.pruner.parametrization: BiasHook.__call__",
        contract="preparing makes a model behave as if pruned; the same model with the bias added by nn.Linear exports",
        error="AssertionError",
        match="the export fails|the exported model answers otherwise",
        reproduce="""
            import torch
            from torch.ao.pruning._experimental.pruner import SaliencyPruner
            model = torch.nn.Sequential(torch.nn.Linear(8, 8))
            SaliencyPruner({}).prepare(model, [{"tensor_fqn": "0.weight"}])
            torch.export.export(model, (torch.ones(1, 8),), strict=False)  # raises RuntimeError: We found a fake tensor ...
        """,
        mend="add module._bias itself, masked out of place, instead of module._bias.data.",
        cause="the bias hook works on the data of the bias",
    ),
]

"""Known defects of FakeSparsity."""

from ao.sparsity.testing.register.entry import Defect

DEFECTS = [
    Defect(
        id="prepared-model-rejects-its-own-state-dict",
        area="parametrization",
        kind="crash",
        summary="A module with a FakeSparsity cannot load its own state_dict: the mask is a buffer that state_dict() leaves out.",
        where="torch.ao.pruning.sparsifier.utils: FakeSparsity.state_dict",
        contract="nn.Module.load_state_dict(strict=True): the keys match those that this module's state_dict() returns.",
        error="RuntimeError",
        match=r"Missing key.*parametrizations\.weight\.0\.mask",
        reproduce="""
            import torch
            from torch import nn
            from torch.ao.pruning import WeightNormSparsifier
            model = nn.Sequential(nn.Linear(4, 4))
            WeightNormSparsifier().prepare(model, [{"tensor_fqn": "0.weight"}])
            try:
                print(model.load_state_dict(model.state_dict()))
            except RuntimeError as error:
                print(error)  # prints Missing key(s) ... 0.parametrizations.weight.0.mask, should be <All keys matched successfully>
        """,
        mend='register_buffer("mask", mask, persistent=False) instead of the state_dict override',
    ),
]

"""Mends of FakeSparsity."""

from audit.edits import Edit, Function

UTILS = "torch.ao.pruning.sparsifier.utils"

MENDS = {
    "prepared-model-rejects-its-own-state-dict": [
        Edit(UTILS, "FakeSparsity.__init__", '("mask", mask)', '("mask", mask, persistent=False)'),
        Function(
            UTILS,
            "FakeSparsity.state_dict",
            """
            def state_dict(self, *args, **kwargs):
                return super().state_dict(*args, **kwargs)
            """,
        ),
    ],
}

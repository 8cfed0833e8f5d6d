"""Mends of the activation sparsifier."""

from audit.edits import Edit

MODULE = "torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier"

MENDS = {
    "activation-aggregate-keeps-the-autograd-graph": [
        Edit(MODULE, "ActivationSparsifier._aggregate_hook", "input_data = input[0]", "input_data = input[0].detach()"),
    ],
    "activation-unregister-of-unknown-name-adds-a-group": [
        Edit(
            MODULE,
            "ActivationSparsifier.unregister_layer",
            "# detach any hooks attached",
            'if name not in self.data_groups:\n    raise ValueError(f"no layer is registered as {name!r}")\n# detach any hooks attached',
        ),
    ],
}

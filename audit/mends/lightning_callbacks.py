"""Mends of the Lightning callbacks."""

from audit.edits import Edit

UTILS = "torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks._data_sparstity_utils"
CALLBACKS = "torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks.data_sparsity"

MENDS = {
    "callback-names-collide": [
        Edit(
            UTILS,
            "_attach_model_to_data_sparsifier",
            "valid_name = _get_valid_name(name)",
            'valid_name = _get_valid_name(name)\nwhile valid_name in taken:\n    valid_name += "_"\ntaken.add(valid_name)',
        ),
        Edit(UTILS, "_attach_model_to_data_sparsifier", "for name, parameter in", "taken = set()\nfor name, parameter in"),
    ],
    "callback-looks-up-what-is-not-attached": [
        Edit(
            CALLBACKS,
            "TrainingAwareDataSparsity.__create_config_based_on_state",
            "config[valid_name] =",
            "if valid_name not in self.data_sparsifier.data_groups:\n    continue\nconfig[valid_name] =",
        ),
    ],
    "callback-starts-with-an-earlier-state": [
        Edit(
            CALLBACKS,
            "TrainingAwareDataSparsity.on_train_start",
            "# create sparsifier",
            "self.data_sparsifier_state_dict = None\n# create sparsifier",
        ),
    ],
    "logged-level-has-an-invalid-format": [
        Edit(UTILS, "_log_sparsified_level", "= % .2%", "= %.2f%%"),
        Edit(UTILS, "_log_sparsified_level", "name, sparsity_level)", "name, 100 * sparsity_level)"),
    ],
}

"""Known defects of the callbacks for pytorch-lightning and of what they share."""

from ao.sparsity.testing.register.entry import Defect

UTILS = "torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks._data_sparstity_utils: "
CALLBACK = "torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks.data_sparsity: TrainingAwareDataSparsity."

START = """
            import torch
            from torch import nn
            from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
            from torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks import _data_sparstity_utils as utils
"""
# Only where pytorch-lightning is installed; the hooks ask of the trainer nothing, of the module its .model.
START_LIGHTNING = """
            import importlib.util, types
            import torch
            from torch import nn
            from torch.ao.pruning._experimental.data_scheduler import BaseDataScheduler
            from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
            class Halving(BaseDataScheduler):
                def get_schedule_param(self):
                    return {name: level * 0.5 ** self.last_epoch for name, level in self.base_param.items()}
            module = types.SimpleNamespace(model=nn.Sequential(nn.Linear(4, 4, bias=False)))
            if importlib.util.find_spec("pytorch_lightning"):
                from torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks import data_sparsity
                callback = data_sparsity.TrainingAwareDataSparsity(
                    DataNormSparsifier, {"sparsity_level": 0.8}, Halving, {"schedule_param": "sparsity_level"}
                )
"""

DEFECTS = [
    Defect(
        id="logged-level-has-an-invalid-format",
        area="lightning_callbacks",
        kind="crash",
        summary='_log_sparsified_level logs with the format "% .2%", which the logging module cannot apply: with INFO enabled it '
        "prints a traceback for every layer instead of the level.",
        where=UTILS + "_log_sparsified_level",
        contract='Comment: "Show the level of sparsity AFTER step"; a record can be formatted.',
        error="ValueError",
        match="unsupported format character",
        reproduce=START
        + """
            import logging
            logging.basicConfig(level=logging.INFO)
            model = nn.Sequential(nn.Linear(4, 4, bias=False))
            sparsifier = DataNormSparsifier()
            utils._attach_model_to_data_sparsifier(model, sparsifier)
            utils._log_sparsified_level(model, sparsifier)  # prints ValueError: unsupported format character, should be the level
        """,
        mend='logger.info("Sparsity in layer %s = %.2f%%", name, 100 * sparsity_level)',
    ),
    Defect(
        id="callback-passes-over-a-parameter-whose-name-collides",
        area="lightning_callbacks",
        kind="wrong result",
        summary='Of two parameters "a.b.weight" and "a_b.weight" only one is sparsified (or add_data raises, if their shapes differ): '
        "both become a_b_weight.",
        where=UTILS + "_attach_model_to_data_sparsifier",
        contract='Docstring: "Attaches a data sparsifier to all the layers of the module".',
        error="AssertionError",
        match="attached parameters",
        reproduce=START
        + """
            model = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(4, 4, bias=False)}), "a_b": nn.Linear(4, 4, bias=False)})
            sparsifier = DataNormSparsifier()
            utils._attach_model_to_data_sparsifier(model, sparsifier)
            print(list(sparsifier.data_groups))  # prints ['a_b_weight'], should be two names
        """,
        mend="number the names, or refuse a name that is taken",
    ),
    Defect(
        id="callback-starts-with-the-state-of-an-earlier-fit",
        area="lightning_callbacks",
        kind="wrong result",
        summary="A callback used for a second fit() loads the state of the first one: masks and levels go on where that ended, while "
        "the new scheduler starts at its beginning.",
        where=CALLBACK + "on_train_start",
        contract='Docstring: on_train_start(): "Data sparsifier and scheduler objects are created"; the comment in '
        'on_train_epoch_start: "probably first epoch".',
        error="AssertionError",
        match="level of the first epoch",
        reproduce=START_LIGHTNING
        + """
                for fit in range(2):
                    callback.on_train_start(None, module)
                    callback.on_train_epoch_start(None, module)
                    print(callback.data_sparsifier.data_groups["0_weight"]["sparsity_level"])  # prints 0.8, 0.4, should be 0.8 twice
                    callback.on_train_epoch_end(None, module)
                    callback.on_train_end(None, module)
        """,
        mend="self.data_sparsifier_state_dict = None in on_train_start",
    ),
    Defect(
        id="callback-fails-in-the-second-epoch-on-a-parameter-it-passes-over",
        area="lightning_callbacks",
        kind="crash",
        summary="A model with a parameter that is not attached (a subclass of nn.Parameter) trains one epoch and fails in the second: "
        "looking up its configuration in a defaultdict adds an empty group, which step() takes for squashed data.",
        where=CALLBACK + "__create_config_based_on_state",
        contract="_attach_model_to_data_sparsifier passes over parameters of other types on purpose; so must all epochs.",
        error="ValueError",
        match="mask squashed",
        reproduce=START_LIGHTNING
        + """
                class Frozen(nn.Parameter):
                    pass
                module.model[0].register_parameter("extra", Frozen(torch.ones(4)))
                callback.on_train_start(None, module)
                callback.on_train_epoch_end(None, module)
                try:
                    callback.on_train_epoch_end(None, module)
                except ValueError as error:
                    print(error)  # prints mask squashed ..., should be silent
        """,
        mend="look up only names that are in data_groups",
    ),
]

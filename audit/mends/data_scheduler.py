"""Mends of the data scheduler."""

from audit.edits import Edit, Function
from audit.mends.scheduler import counted_in_copies, never_reset, own_step_counted, within_step

BASE = "torch.ao.pruning._experimental.data_scheduler.base_data_scheduler"
INIT = "BaseDataScheduler.__init__"
STEP = "BaseDataScheduler.step"
COUNT = "BaseDataScheduler.__init__.with_counter"

MENDS = {
    "abstract-method-is-not-enforced": [
        Edit(
            BASE,
            INIT,
            "# Attach sparsifier",
            "if type(self).get_schedule_param is BaseDataScheduler.get_schedule_param:\n"
            '    raise TypeError("get_schedule_param is abstract")\n'
            "# Attach sparsifier",
        ),
    ],
    "documented-example-fails": [
        Edit(
            BASE,
            "BaseDataScheduler.get_schedule_param",
            "in self.sparsifier.data_groups.keys()",
            "in self.data_sparsifier.data_groups.keys()",
        ),
        Edit(
            BASE,
            "BaseDataScheduler.get_schedule_param",
            "self.sparsifier.data_groups[name][self.schedule_param] * 0.5",
            "self.data_sparsifier.data_groups[name][self.schedule_param] * 0.5",
        ),
    ],
    "documents-a-method-it-lacks": [
        Edit(BASE, "BaseDataScheduler", "*get_hyperparam()*", "*get_schedule_param()*"),
    ],
    "data-scheduler-resume-compounds-the-parameter": [
        Edit(BASE, INIT, "name: config.get(schedule_param, None)", "name: self._base(name, config.get(schedule_param), last_epoch)"),
        Function(
            BASE,
            "BaseDataScheduler._base",
            """
            def _base(self, name, current, last_epoch):
                bases = vars(self.data_sparsifier).setdefault("_scheduled_bases", {})
                key = name, self.schedule_param
                bases[key] = current if last_epoch == -1 else bases.get(key, current)
                return bases[key]
            """,
        ),
    ],
    "data-scheduler-step-leaves-a-class-behind": within_step(BASE, STEP, "_enable_get_sp_call", "_get_sp_called_within_step"),
    "unknown-name-becomes-a-group": [
        Edit(
            BASE,
            STEP,
            "for name, param in updated",
            "for name in updated_scheduler_params:\n"
            "    if name not in self.data_sparsifier.data_groups:\n"
            '        raise ValueError(f"there is no data {name!r}")\n'
            "for name, param in updated",
        ),
    ],
    "second-data-scheduler-forgets-the-steps": never_reset(BASE, INIT, STEP, "data_sparsifier"),
    "copied-data-scheduler-reports-a-replaced-step": counted_in_copies(BASE, "BaseDataScheduler", "data_sparsifier"),
    "data-scheduler-cannot-watch-a-replaced-step": own_step_counted(BASE, COUNT, "data_sparsifier"),
}

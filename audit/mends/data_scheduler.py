"""Mends of the data scheduler."""

from audit.edits import Edit, Function, Imports

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
    "data-scheduler-step-leaves-a-class-behind": [
        Function(
            BASE,
            "_WithinStep",
            """
            class _WithinStep:
                def __init__(self, scheduler):
                    self.scheduler = scheduler

                def __enter__(self):
                    self.scheduler._get_sp_called_within_step = True

                def __exit__(self, *error):
                    self.scheduler._get_sp_called_within_step = False
            """,
        ),
        Function(
            BASE,
            "BaseDataScheduler.step._enable_get_sp_call",
            """
            def _enable_get_sp_call(scheduler):
                return _WithinStep(scheduler)
            """,
        ),
    ],
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
    "second-data-scheduler-forgets-the-steps": [
        Edit(
            BASE,
            INIT,
            "self.data_sparsifier._step_count = 0",
            'self.data_sparsifier._step_count = self._attached_at = getattr(self.data_sparsifier, "_step_count", 0)',
        ),
        Edit(BASE, STEP, "self.data_sparsifier._step_count < 1", "self.data_sparsifier._step_count <= self._attached_at"),
    ],
    "copied-data-scheduler-reports-a-replaced-step": [
        Edit(
            BASE,
            STEP,
            'if not hasattr(self.data_sparsifier.step, "_with_counter"):',
            'if "step" not in vars(self.data_sparsifier):\n'
            "    pass  # a copy, which nobody counts\n"
            'elif not hasattr(self.data_sparsifier.step, "_with_counter"):',
        ),
    ],
    "data-scheduler-cannot-watch-a-replaced-step": [
        Imports(BASE, "from types import MethodType"),
        Edit(
            BASE,
            COUNT,
            "instance_ref = weakref.ref(method.__self__)",
            'if not hasattr(method, "__self__"):\n'
            "    method = _as_method(method, data_sparsifier)\n"
            "instance_ref = weakref.ref(method.__self__)",
        ),
        Function(
            BASE,
            "_as_method",
            """
            def _as_method(function, instance):
                return MethodType(lambda _, *args, **kwargs: function(*args, **kwargs), instance)
            """,
        ),
    ],
}

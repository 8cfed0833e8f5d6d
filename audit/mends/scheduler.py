"""Mends of the schedulers."""

from audit.edits import Edit, Function, Imports

BASE = "torch.ao.pruning.scheduler.base_scheduler"
CUBIC = "torch.ao.pruning.scheduler.cubic_scheduler"
LAMBDA = "torch.ao.pruning.scheduler.lambda_scheduler"

INIT = "BaseScheduler.__init__"
STEP = "BaseScheduler.step"
COUNT = "BaseScheduler.__init__.with_counter"

CHECK = """\
if not isinstance(sparsifier, BaseSparsifier):
    raise TypeError(f"{type(sparsifier).__name__} is not an instance of torch.ao.pruning.BaseSparsifier")
self.sparsifier = sparsifier"""

MENDS = {
    "scheduler-epoch-changes-only-the-message": [
        Edit(BASE, STEP, "self.last_epoch += 1", "self.last_epoch = self.last_epoch + 1 if epoch is None else epoch"),
    ],
    "cubic-falling-level-never-moves": [
        Edit(CUBIC, "CubicSL.sparsity_compute_fn", "_clamp(s_t, s_0, s_f)", "_clamp(s_t, min(s_0, s_f), max(s_0, s_f))"),
    ],
    "cubic-ignores-delta-t": [
        Edit(CUBIC, "CubicSL.sparsity_compute_fn", "s_t = s_f + (s_0", "t = t_0 + (t - t_0) // dt * dt\ns_t = s_f + (s_0"),
    ],
    "second-scheduler-forgets-the-sparsifiers-steps": [
        Edit(
            BASE,
            INIT,
            "self.sparsifier._step_count = 0",
            'self.sparsifier._step_count = self._attached_at = getattr(self.sparsifier, "_step_count", 0)',
        ),
        Edit(BASE, STEP, "self.sparsifier._step_count < 1", "self.sparsifier._step_count <= self._attached_at"),
    ],
    "copied-scheduler-reports-a-replaced-step": [
        Edit(
            BASE,
            STEP,
            'if not hasattr(self.sparsifier.step, "_with_counter"):',
            'if "step" not in vars(self.sparsifier):\n'
            "    pass  # a copy, which nobody counts\n"
            'elif not hasattr(self.sparsifier.step, "_with_counter"):',
        ),
    ],
    "scheduler-cannot-watch-a-replaced-step": [
        Imports(BASE, "from types import MethodType"),
        Edit(
            BASE,
            COUNT,
            "instance_ref = weakref.ref(method.__self__)",
            'if not hasattr(method, "__self__"):\n    method = _as_method(method, sparsifier)\ninstance_ref = weakref.ref(method.__self__)',
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
    "lambda-first-level-is-not-zero": [
        Edit(LAMBDA, "LambdaSL", "When last_epoch=-1, sets initial sl as zero.", "The first level is that of epoch 0."),
    ],
    "lambda-state-holds-the-functions": [
        Function(
            LAMBDA,
            "LambdaSL.state_dict",
            """
            def state_dict(self):
                return {name: value for name, value in vars(self).items() if name not in ("sparsifier", "sl_lambdas")}
            """,
        ),
    ],
    "scheduler-resume-compounds-the-level": [
        Edit(
            BASE,
            INIT,
            "self.base_sl = [group",
            "for group in sparsifier.groups:\n"
            "    if last_epoch == -1:\n"
            '        group["initial_sl"] = group["sparsity_level"]\n'
            '    group.setdefault("initial_sl", group["sparsity_level"])\n'
            "self.base_sl = [group",
        ),
        Edit(BASE, INIT, '["sparsity_level"] for group', '["initial_sl"] for group'),
    ],
    "scheduler-skips-groups-without-a-level": [
        Edit(
            BASE,
            STEP,
            "for i, data in enumerate",
            'if len(values) != len(self.sparsifier.groups):\n    raise ValueError("not a level for each group")\nfor i, data in enumerate',
        ),
    ],
    "scheduler-step-leaves-a-class-behind": [
        Function(
            BASE,
            "_WithinStep",
            """
            class _WithinStep:
                def __init__(self, scheduler):
                    self.scheduler = scheduler

                def __enter__(self):
                    self.scheduler._get_sl_called_within_step = True

                def __exit__(self, *error):
                    self.scheduler._get_sl_called_within_step = False
            """,
        ),
        Function(
            BASE,
            "BaseScheduler.step._enable_get_sl_call",
            """
            def _enable_get_sl_call(scheduler):
                return _WithinStep(scheduler)
            """,
        ),
    ],
    "scheduler-takes-a-data-sparsifier": [
        Edit(
            BASE,
            INIT,
            "if not isinstance(sparsifier, BaseSparsifier):",
            'if not isinstance(sparsifier, BaseSparsifier) or hasattr(sparsifier, "data_groups"):',
        ),
    ],
    "cubic-wrong-sparsifier-is-not-named": [
        Imports(CUBIC, "from torch.ao.pruning.sparsifier.base_sparsifier import BaseSparsifier"),
        Edit(CUBIC, "CubicSL.__init__", "self.sparsifier = sparsifier", CHECK),
    ],
    "lambda-wrong-sparsifier-is-not-named": [Edit(LAMBDA, "LambdaSL.__init__", "self.sparsifier = sparsifier", CHECK)],
}

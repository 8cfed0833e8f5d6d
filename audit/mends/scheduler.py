"""Mends of the schedulers."""

from audit.edits import Edit, Function, Imports, Item

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


def counted_in_copies(module: str, scheduler: str, sparsifier: str) -> list[Item]:
    """A copy of a scheduler counts the steps of its own sparsifier, from the count of the original on."""
    return [
        Function(
            module,
            "_count_steps",
            """
            def _count_steps(sparsifier):
                reference, step = weakref.ref(sparsifier), type(sparsifier).step

                @wraps(step)
                def counted(*args, **kwargs):
                    reference()._step_count += 1
                    return step(reference(), *args, **kwargs)

                counted._with_counter = True
                sparsifier.step = counted
            """,
        ),
        Function(
            module,
            f"{scheduler}.__getstate__",
            f"""
            def __getstate__(self):
                return {{**vars(self), "_steps": self.{sparsifier}._step_count}}
            """,
        ),
        Function(
            module,
            f"{scheduler}.__setstate__",
            f"""
            def __setstate__(self, state):
                self.{sparsifier} = state["{sparsifier}"]
                self.{sparsifier}._step_count = state.pop("_steps")
                if "step" not in vars(self.{sparsifier}):
                    _count_steps(self.{sparsifier})
                vars(self).update(state)
            """,
        ),
    ]


def within_step(module: str, step: str, enable: str, flag: str) -> list[Item]:
    """The class of what ``step`` enters is made once."""
    return [
        Function(
            module,
            "_WithinStep",
            f"""
            class _WithinStep:
                def __init__(self, scheduler):
                    self.scheduler = scheduler

                def __enter__(self):
                    self.scheduler.{flag} = True

                def __exit__(self, *error):
                    self.scheduler.{flag} = False
            """,
        ),
        Function(
            module,
            f"{step}.{enable}",
            f"""
            def {enable}(scheduler):
                return _WithinStep(scheduler)
            """,
        ),
    ]


def own_step_counted(module: str, counter: str, sparsifier: str) -> list[Item]:
    """A step that is no method of the class is counted, too."""
    return [
        Imports(module, "from types import MethodType"),
        Edit(
            module,
            counter,
            "instance_ref = weakref.ref(method.__self__)",
            'if not hasattr(method, "__self__"):\n'
            f"    method = _as_method(method, {sparsifier})\n"
            "instance_ref = weakref.ref(method.__self__)",
        ),
        Function(
            module,
            "_as_method",
            """
            def _as_method(function, instance):
                return MethodType(lambda _, *args, **kwargs: function(*args, **kwargs), instance)
            """,
        ),
    ]


def never_reset(module: str, init: str, step: str, sparsifier: str) -> list[Item]:
    """Each scheduler remembers the count of steps at which it was attached."""
    count = f"self.{sparsifier}._step_count"
    return [
        Edit(module, init, f"{count} = 0", f'{count} = self._attached_at = getattr(self.{sparsifier}, "_step_count", 0)'),
        Edit(module, step, f"{count} < 1", f"{count} <= self._attached_at"),
    ]


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
    "second-scheduler-forgets-the-sparsifiers-steps": never_reset(BASE, INIT, STEP, "sparsifier"),
    "copied-scheduler-reports-a-replaced-step": counted_in_copies(BASE, "BaseScheduler", "sparsifier"),
    "scheduler-cannot-watch-a-replaced-step": own_step_counted(BASE, COUNT, "sparsifier"),
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
    "scheduler-step-leaves-a-class-behind": within_step(BASE, STEP, "_enable_get_sl_call", "_get_sl_called_within_step"),
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

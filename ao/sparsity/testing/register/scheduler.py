"""Known defects of the schedulers of the sparsity level."""

from ao.sparsity.testing.register.entry import Defect

_MODULE = "torch.ao.pruning.scheduler."

_SETUP = """
import torch
from torch import nn
from torch.ao.pruning import BaseScheduler, CubicSL, LambdaSL, WeightNormSparsifier
def sparsifier_of(*levels):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in levels))
    sparsifier = WeightNormSparsifier()
    sparsifier.prepare(model, [{"tensor_fqn": f"{i}.weight", "sparsity_level": level} for i, level in enumerate(levels)])
    return sparsifier

"""

_COUNTER = "steps of the sparsifier are counted in an attribute of its instance that each scheduler resets"
_FUNCTIONS = "LambdaSL has no state_dict and load_state_dict of its own"
_ORDER = "subclasses use the sparsifier before BaseScheduler.__init__ checks its type"


def _defect(**fields):
    where = _MODULE + fields.pop("place")
    return Defect(area="scheduler", reproduce=_SETUP + fields.pop("show"), where=where, **fields)


DEFECTS = [
    _defect(
        id="cubic-ignores-delta-t",
        kind="wrong result",
        summary="CubicSL changes the level at every step, whatever delta_t; delta_t only stretches the whole run.",
        place="cubic_scheduler: CubicSL.sparsity_compute_fn",
        contract=(
            'Docstring: delta_t is the "Pruning frequency", it controls "how often the update of the sparsity level '
            'happens"; equation 1 of arXiv 1710.01878.'
        ),
        error="AssertionError",
        match="levels of the groups at epoch 2",
        show="""
scheduler = CubicSL(sparsifier_of(0.8), delta_t=3, total_t=2)
for _ in range(3):
    print(scheduler.get_last_sl())  # prints 0, 0.337, 0.563, should be 0 three times
    scheduler.sparsifier.step()
    scheduler.step()
""",
        mend="Round t down to an update: t_0 + (t - t_0) // dt * dt.",
    ),
    _defect(
        id="cubic-falling-level-never-moves",
        kind="wrong result",
        summary="With init_sl above the sparsifier's level CubicSL stays at init_sl for ever and never reaches the target.",
        place="cubic_scheduler: CubicSL.sparsity_compute_fn",
        contract="Docstring: the formula, and s_f as the target level; nothing says that s_0 has to be below it.",
        error="AssertionError",
        match="levels of the groups at epoch 1",
        show="""
print([CubicSL.sparsity_compute_fn(s_0=0.8, s_f=0.2, t=t, t_0=0, dt=1, n=2) for t in range(4)])
# prints [0.8, 0.8, 0.8, 0.8], should be [0.8, 0.275, 0.2, 0.2]
""",
        mend="_clamp(s_t, min(s_0, s_f), max(s_0, s_f)).",
    ),
    _defect(
        id="cubic-wrong-sparsifier-is-not-named",
        kind="crash",
        summary="CubicSL(model) raises AttributeError: no attribute 'groups', not the TypeError that names what is wrong.",
        place="cubic_scheduler: CubicSL.__init__",
        contract='BaseScheduler.__init__: TypeError "... is not an instance of torch.ao.pruning.BaseSparsifier".',
        error="AttributeError",
        match="groups",
        show="""
CubicSL(nn.Linear(1, 1))  # AttributeError: 'Linear' object has no attribute 'groups', should be the TypeError of BaseScheduler
""",
        mend="Check the type before the lists are made.",
        cause=_ORDER,
    ),
    _defect(
        id="lambda-wrong-sparsifier-is-not-named",
        kind="crash",
        summary="LambdaSL(model, f) raises AttributeError: no attribute 'groups', not the TypeError that names what is wrong.",
        place="lambda_scheduler: LambdaSL.__init__",
        contract='BaseScheduler.__init__: TypeError "... is not an instance of torch.ao.pruning.BaseSparsifier".',
        error="AttributeError",
        match="groups",
        show="""
# AttributeError: 'Linear' object has no attribute 'groups', should be the TypeError of BaseScheduler
LambdaSL(nn.Linear(1, 1), lambda epoch: 1)
""",
        mend="Check the type before the list is made.",
        cause=_ORDER,
    ),
    _defect(
        id="lambda-first-level-is-not-zero",
        kind="wrong result",
        summary="LambdaSL starts at the final level times its function of 0, not at zero as its docstring says.",
        place="lambda_scheduler: LambdaSL",
        contract='Class docstring: "When last_epoch=-1, sets initial sl as zero."',
        error="AssertionError",
        match="first level of LambdaSL",
        show="""
print(LambdaSL(sparsifier_of(0.5), lambda epoch: 1.0).get_last_sl())  # prints [0.5], should be [0.0] by the docstring
""",
        mend="Correct the sentence of the docstring, or set the level of epoch 0 to zero.",
    ),
    _defect(
        id="lambda-state-dict-cannot-be-saved",
        kind="crash",
        summary="LambdaSL.state_dict() holds the functions; with lambdas, as in its own example, torch.save() fails.",
        place="base_scheduler: BaseScheduler.state_dict",
        contract="The class's example uses lambdas; LambdaLR leaves functions out of its state.",
        error="AssertionError",
        match="cannot be saved",
        show="""
import io
state = LambdaSL(sparsifier_of(0.5), lambda epoch: 1.0).state_dict()
torch.save(state, io.BytesIO())  # PicklingError or AttributeError: can't pickle the lambda, should save
""",
        mend="LambdaSL.state_dict and load_state_dict as in torch.optim.lr_scheduler.LambdaLR.",
        cause=_FUNCTIONS,
    ),
    _defect(
        id="lambda-load-replaces-the-functions",
        kind="wrong result",
        summary="load_state_dict() replaces the functions that a LambdaSL was made with by those of the scheduler that was saved.",
        place="base_scheduler: BaseScheduler.load_state_dict",
        contract="LambdaLR: functions are no part of the state and stay as given to the constructor.",
        error="AssertionError",
        match="level by the scheduler's own function",
        show="""
saved = LambdaSL(sparsifier_of(1.0), lambda epoch: epoch / 10)
scheduler = LambdaSL(sparsifier_of(1.0), lambda epoch: epoch / 4)
scheduler.load_state_dict(saved.state_dict())
scheduler.sparsifier.step()
scheduler.step()
print(scheduler.get_last_sl())  # prints [0.1], should be [0.25]
""",
        mend="LambdaSL.state_dict and load_state_dict as in torch.optim.lr_scheduler.LambdaLR.",
        cause=_FUNCTIONS,
    ),
    _defect(
        id="scheduler-resume-compounds-the-level",
        kind="wrong result",
        summary=(
            "A scheduler made with last_epoch over a sparsifier in mid-run takes the scheduled level for the final one and scales it again."
        ),
        place="base_scheduler: BaseScheduler.__init__",
        contract='Docstring: last_epoch is the "index of last epoch"; LRScheduler keeps the base in the group as initial_lr for this.',
        error="AssertionError",
        match="level of epoch 3",
        show="""
sparsifier = sparsifier_of(0.8)
first = LambdaSL(sparsifier, lambda epoch: 0.5**epoch)
for _ in range(2):
    sparsifier.step()
    first.step()
second = LambdaSL(sparsifier, lambda epoch: 0.5**epoch, last_epoch=2)
print(second.get_last_sl())  # prints [0.025], should be [0.1] = 0.8 * 0.5**3
""",
        mend="Keep the base level in the group (initial_sl), set it for last_epoch=-1 and read it otherwise.",
    ),
    _defect(
        id="second-scheduler-forgets-the-sparsifier-s-steps",
        kind="wrong result",
        summary=(
            "Attaching a second scheduler resets the sparsifier's step counter, and the first then warns that the "
            "sparsifier has not stepped."
        ),
        place="base_scheduler: BaseScheduler.__init__",
        contract=(
            "The warning is for a scheduler that steps before the sparsifier; LRScheduler notes that a step was made and never forgets it."
        ),
        error="AssertionError",
        match="before `sparsifier",
        show="""
sparsifier = sparsifier_of(0.5)
scheduler = LambdaSL(sparsifier, lambda epoch: 0.5)
sparsifier.step()
_ = LambdaSL(sparsifier, lambda epoch: 0.5)
scheduler.step()  # warns: "Detected call of `scheduler.step()` before `sparsifier.step()`", should be silent
""",
        mend="Let each scheduler remember the count at which it was attached, and never reset it.",
        cause=_COUNTER,
    ),
    _defect(
        id="copied-scheduler-reports-a-replaced-step",
        kind="wrong result",
        summary="A deep copy of a scheduler warns that the sparsifier's step was overridden: the copied sparsifier has lost the counter.",
        place="base_scheduler: BaseScheduler.step",
        contract="The warning is for a step overridden after the initialization; nobody overrode it.",
        error="AssertionError",
        match="has been overridden",
        show="""
import copy
scheduler = copy.deepcopy(CubicSL(sparsifier_of(0.5)))
scheduler.step()  # warns: "Seems like `sparsifier.step()` has been overridden", should warn of the order only
""",
        mend="Attach the counter again in __setstate__, or count in BaseSparsifier.step itself.",
        cause=_COUNTER,
    ),
    _defect(
        id="scheduler-cannot-watch-a-replaced-step",
        kind="crash",
        summary="A sparsifier whose step was wrapped before cannot be scheduled: AttributeError: no attribute '__self__'.",
        place="base_scheduler: BaseScheduler.__init__",
        contract='The warning calls only a step "overridden after sparsity scheduler initialization" a problem.',
        error="AttributeError",
        match="__self__",
        show="""
sparsifier = sparsifier_of(0.5)
method = sparsifier.step
sparsifier.step = lambda: method()
LambdaSL(sparsifier, lambda epoch: 0.5)  # AttributeError: 'function' object has no attribute '__self__', should work
""",
        mend="Wrap what is no bound method as it is, with a weak reference to the sparsifier for the counter.",
        cause=_COUNTER,
    ),
    _defect(
        id="scheduler-epoch-changes-only-the-message",
        kind="wrong result",
        summary="step(epoch=5) sets the level of the next epoch, not of epoch 5; with verbose it prints that level as that of epoch 5.",
        place="base_scheduler: BaseScheduler.step",
        contract="The argument's name and the message; LRScheduler.step(epoch) sets last_epoch to it.",
        error="AssertionError",
        match=r"level after step\(epoch=5\)",
        show="""
scheduler = LambdaSL(sparsifier_of(1.0), lambda epoch: epoch / 10)
scheduler.sparsifier.step()
scheduler.step(epoch=5)
print(scheduler.get_last_sl(), scheduler.last_epoch)  # prints [0.1] 1, should be [0.5] 5
""",
        mend="self.last_epoch = self.last_epoch + 1 if epoch is None else epoch.",
    ),
    _defect(
        id="scheduler-skips-groups-without-a-level",
        kind="wrong result",
        summary="Groups for which get_sl() has no level are silently left out, such as all those prepared after the scheduler was made.",
        place="base_scheduler: BaseScheduler.step",
        contract="LRScheduler zips with strict=True: another number of values than groups is an error.",
        error="AssertionError",
        match="ValueError not raised",
        show="""
sparsifier = sparsifier_of(0.5)
scheduler = LambdaSL(sparsifier, lambda epoch: 0.0)
sparsifier.prepare(nn.Sequential(nn.Linear(2, 2)), [{"tensor_fqn": "0.weight", "sparsity_level": 0.9}])
sparsifier.step()
scheduler.step()
print(scheduler.get_last_sl())  # prints [0.0, 0.9]: the second group is not scheduled, should be an error
""",
        mend="zip(self.sparsifier.groups, values, strict=True).",
    ),
    _defect(
        id="scheduler-takes-a-data-sparsifier",
        kind="wrong result",
        summary="A scheduler accepts a data sparsifier, which has no groups, and schedules nothing.",
        place="base_scheduler: BaseScheduler.__init__",
        contract="The constructor refuses by TypeError what it cannot schedule; BaseDataScheduler is the class for data sparsifiers.",
        error="AssertionError",
        match="TypeError not raised",
        show="""
from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
sparsifier = DataNormSparsifier([("data", torch.ones(2, 2))], sparsity_level=0.5)
scheduler = LambdaSL(sparsifier, lambda epoch: 0.1)
print(scheduler.get_last_sl(), sparsifier.data_groups["data"]["sparsity_level"])  # prints [] 0.5, should raise TypeError
""",
        mend="Refuse a sparsifier whose prepare() is undefined, or whose groups are not its own.",
    ),
    _defect(
        id="scheduler-step-leaves-a-class-behind",
        kind="leak",
        summary=(
            "step() defines a class in its body: every step leaves one, over a kilobyte in reference cycles, until the "
            "garbage collector runs."
        ),
        place="base_scheduler: BaseScheduler.step",
        contract="LRScheduler moved the same class to module level; training loops that disable the collector grow with every step.",
        error="AssertionError",
        match="classes made by two steps",
        show="""
import gc
scheduler = LambdaSL(sparsifier_of(0.5), lambda epoch: 0.5)
gc.disable()
before = len(object.__subclasses__())
for _ in range(3):
    scheduler.sparsifier.step()
    scheduler.step()
print(len(object.__subclasses__()) - before)  # prints 3, should be 0
gc.enable()
""",
        mend="Define the context manager once, at module level.",
    ),
]

"""Known defects of the scheduler of a data sparsifier's hyperparameter."""

from ao.sparsity.testing.register.entry import Defect

_CLASS = "torch.ao.pruning._experimental.data_scheduler.base_data_scheduler: BaseDataScheduler"

_SETUP = """
import torch
from torch.ao.pruning._experimental.data_scheduler import BaseDataScheduler
from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
class Halving(BaseDataScheduler):
    def get_schedule_param(self):
        return {name: base * 0.5**self.last_epoch for name, base in self.base_param.items()}

sparsifier = DataNormSparsifier([("data", torch.ones(2, 4))], sparsity_level=0.8)
"""

_COUNTER = "steps of the sparsifier are counted in an attribute of its instance that each scheduler resets"


def _defect(**fields):
    where = f"{_CLASS}.{fields.pop('method')}"
    return Defect(area="data_scheduler", reproduce=_SETUP + fields.pop("show").lstrip("\n"), where=where, **fields)


DEFECTS = [
    _defect(
        id="data-scheduler-resume-compounds-the-parameter",
        kind="wrong result",
        summary="A scheduler made with last_epoch over a sparsifier in mid-run takes the scheduled value for the base and scales it again.",
        method="__init__",
        contract='Docstring: last_epoch "is specifically passed when training needs to be resumed from a particular point".',
        error="AssertionError",
        match="parameter of epoch 3",
        show="""
first = Halving(sparsifier, "sparsity_level")
for _ in range(2):
    sparsifier.step()
    first.step()
print(Halving(sparsifier, "sparsity_level", last_epoch=2).get_last_param())  # prints 0.025, should be 0.1 = 0.8 * 0.5**3
""",
        mend="Keep the base value in the data group, set it for last_epoch=-1 and read it otherwise.",
    ),
    _defect(
        id="data-scheduler-unknown-name-becomes-a-group",
        kind="corrupted state",
        summary="A name without data in what get_schedule_param() returns becomes a group of the sparsifier, whose next step() fails.",
        method="step",
        contract=(
            "get_schedule_param() returns values for the names of the sparsifier's data; its get_data() and get_mask() "
            "refuse an unknown name."
        ),
        error="AssertionError",
        match="groups of the sparsifier",
        show="""
class Misspelt(BaseDataScheduler):
    def get_schedule_param(self):
        return {"dada": 0.5}

_ = Misspelt(sparsifier, "sparsity_level")
print(list(sparsifier.data_groups))  # prints ['data', 'dada'], should be ['data'] and an error
sparsifier.step()  # ValueError: mask squashed - original mask value does not exist
""",
        mend="Raise for a name that is not in data_groups, a defaultdict, before any value is set.",
    ),
    _defect(
        id="second-data-scheduler-forgets-the-sparsifier-s-steps",
        kind="wrong result",
        summary=(
            "A second scheduler, for another parameter, resets the sparsifier's step counter; the first then warns that the "
            "sparsifier has not stepped."
        ),
        method="__init__",
        contract=(
            "The warning is for a scheduler that steps before the sparsifier; each scheduler is for one parameter, so "
            "several are to be expected."
        ),
        error="AssertionError",
        match="before `data_sparsifier",
        show="""
scheduler = Halving(sparsifier, "sparsity_level")
sparsifier.step()
_ = Halving(sparsifier, "zeros_per_block")
scheduler.step()  # warns: "Detected call of `scheduler.step()` before `data_sparsifier.step()`", should be silent
""",
        mend="Let each scheduler remember the count at which it was attached, and never reset it.",
        cause=_COUNTER,
    ),
    _defect(
        id="copied-data-scheduler-reports-a-replaced-step",
        kind="wrong result",
        summary="A deep copy of a scheduler warns that the sparsifier's step was overridden: the copied sparsifier has lost the counter.",
        method="step",
        contract="The warning is for a step overridden after the initialization; nobody overrode it.",
        error="AssertionError",
        match="has been overridden",
        show="""
import copy
scheduler = copy.deepcopy(Halving(sparsifier, "sparsity_level"))
scheduler.step()  # warns: "Seems like `data_sparsifier.step()` has been overridden", should warn of the order only
""",
        mend="Attach the counter again in __setstate__, or count in BaseDataSparsifier.step itself.",
        cause=_COUNTER,
    ),
    _defect(
        id="data-scheduler-cannot-watch-a-replaced-step",
        kind="crash",
        summary="A data sparsifier whose step was wrapped before cannot be scheduled: AttributeError: no attribute '__self__'.",
        method="__init__",
        contract='The warning calls only a step "overridden after sparsity scheduler initialization" a problem.',
        error="AttributeError",
        match="__self__",
        show="""
method = sparsifier.step
sparsifier.step = lambda: method()
Halving(sparsifier, "sparsity_level")  # AttributeError: 'function' object has no attribute '__self__', should work
""",
        mend="Wrap what is no bound method as it is, with a weak reference to the sparsifier for the counter.",
        cause=_COUNTER,
    ),
    _defect(
        id="data-scheduler-step-leaves-a-class-behind",
        kind="leak",
        summary=(
            "step() defines a class in its body: every step leaves one, over a kilobyte in reference cycles, until the "
            "garbage collector runs."
        ),
        method="step",
        contract="LRScheduler moved the same class to module level; training loops that disable the collector grow with every step.",
        error="AssertionError",
        match="classes made by two steps",
        show="""
import gc
scheduler = Halving(sparsifier, "sparsity_level")
gc.disable()
before = len(object.__subclasses__())
for _ in range(3):
    sparsifier.step()
    scheduler.step()
print(len(object.__subclasses__()) - before)  # prints 3, should be 0
gc.enable()
""",
        mend="Define the context manager once, at module level.",
    ),
    _defect(
        id="data-scheduler-documented-example-fails",
        kind="crash",
        summary="The get_schedule_param() of the docstring's example raises: it uses self.sparsifier, the attribute is data_sparsifier.",
        method="get_schedule_param",
        contract="The example in the docstring of get_schedule_param.",
        error="AttributeError",
        match="sparsifier",
        show="""
class Documented(BaseDataScheduler):
    def get_schedule_param(self):  # as in the docstring
        return {name: self.sparsifier.data_groups[name][self.schedule_param] * 0.5 for name in self.sparsifier.data_groups}

Documented(sparsifier, "sparsity_level")  # AttributeError: 'Documented' object has no attribute 'sparsifier', should halve the level
""",
        mend="Write self.data_sparsifier in the example.",
    ),
    _defect(
        id="data-scheduler-documents-a-method-it-lacks",
        kind="wrong result",
        summary="The class docstring asks the user to implement get_hyperparam(); the method that is called is get_schedule_param().",
        method="__doc__",
        contract='Class docstring: "The *get_hyperparam()* function needs to be implemented by the user."',
        error="AssertionError",
        match="documented but unknown methods",
        show="""
class Documented(BaseDataScheduler):
    def get_hyperparam(self):
        return {"data": 0.5}

Documented(sparsifier, "sparsity_level")  # NotImplementedError, should schedule
""",
        mend="Name get_schedule_param() in the docstring.",
    ),
    _defect(
        id="data-scheduler-abstract-method-is-not-enforced",
        kind="corrupted state",
        summary=(
            "The class marks a method as abstract but is no ABC: the constructor starts, replaces the sparsifier's step, "
            "and only then fails."
        ),
        method="get_schedule_param",
        contract=(
            "abc.abstractmethod, and the class docstring: the abstract scheduler class; BaseSparsifier is an ABC and "
            "refuses with TypeError."
        ),
        error="AssertionError",
        match="the sparsifier after a refused constructor",
        show="""
try:
    BaseDataScheduler(sparsifier, "sparsity_level")
except (NotImplementedError, TypeError) as error:
    print(type(error).__name__)  # prints NotImplementedError, should be TypeError
print("step" in vars(sparsifier))  # prints True, should be False
""",
        mend="class BaseDataScheduler(abc.ABC).",
    ),
]

# Owner(s): ["module: sparse"]
"""Scheduler of a data sparsifier's hyperparameter: BaseDataScheduler."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import copy
import doctest
import io
import re
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing.capture import recorded_warnings, stdout_of
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.scheduling import CountedSteps, SchedulerContract

with warnings.catch_warnings():
    from torch.ao.pruning._experimental.data_scheduler import BaseDataScheduler
    from torch.ao.pruning._experimental.data_sparsifier import BaseDataSparsifier, DataNormSparsifier

FIRST_STEP = (
    "Detected call of `scheduler.step()` before `data_sparsifier.step()`. "
    "You have to make sure you run the data_sparsifier.step() BEFORE any calls to the scheduler.step()."
)
OVERRIDDEN = (
    "Seems like `data_sparsifier.step()` has been overridden after sparsity scheduler initialization. "
    "Please, make sure to call `data_sparsifier.step()` before `scheduler.step()`."
)


class _Sparsifier(CountedSteps, BaseDataSparsifier):
    """Leaves the masks alone."""


class _Doubling(BaseDataScheduler):
    """Each parameter: its base times 2 to the power of the epoch."""

    def get_schedule_param(self):
        return {name: base * 2**self.last_epoch for name, base in self.base_param.items()}


class _Failing(_Doubling):
    """As _Doubling, but fails while ``broken``."""

    broken = False

    def get_schedule_param(self):
        if self.broken:
            raise ZeroDivisionError("broken")
        return super().get_schedule_param()


def _sparsifier(kind=_Sparsifier):
    """Two pieces of data, ``a`` with level 0.01 and ``b`` with level 0.02."""
    sparsifier = kind(sparsity_level=0.01)
    sparsifier.add_data("a", torch.ones(2, 2))
    sparsifier.add_data("b", nn.Embedding(2, 2), sparsity_level=0.02)
    return sparsifier


def _parameters(sparsifier, key="sparsity_level"):
    return {name: config[key] for name, config in sparsifier.data_groups.items() if key in config}


@instantiate_parametrized_tests
class TestBaseDataScheduler(SchedulerContract, TestCase):
    """BaseDataScheduler, by small schedulers derived from it."""

    first_step, overridden = FIRST_STEP, OVERRIDDEN

    def sparsifier(self):
        """What attached() takes."""
        return _sparsifier()

    def attached(self, sparsifier=None):
        """A scheduler that doubles the level, and its sparsifier."""
        sparsifier = sparsifier or self.sparsifier()
        return _Doubling(sparsifier, "sparsity_level"), sparsifier

    def test_constructor(self):
        """The constructor keeps sparsifier, parameter name and base values, and sets the values of epoch 0."""
        sparsifier = _sparsifier()
        with recorded_warnings() as caught:
            scheduler = _Doubling(sparsifier, "sparsity_level")
        self.assertWarned(caught)
        self.assertIs(scheduler.data_sparsifier, sparsifier)
        self.assertEqual(scheduler.schedule_param, "sparsity_level")
        self.assertEqual(scheduler.base_param, {"a": 0.01, "b": 0.02})
        self.assertEqual(scheduler.last_epoch, 0)
        self.assertIs(scheduler.verbose, False)
        self.assertEqual(_parameters(sparsifier), {"a": 0.01, "b": 0.02})
        self.assertEqual(scheduler.get_last_param(), {"a": 0.01, "b": 0.02})

    def test_constructor_refuses_what_is_no_data_sparsifier(self):
        """The first argument is a BaseDataSparsifier, an instance of it; TypeError names what was given."""
        for wrong in (None, torch.ones(2), _Sparsifier, {}):
            with self.subTest(wrong=wrong):
                message = f"^{type(wrong).__name__} is not an instance of torch.ao.pruning.*BaseDataSparsifier$"
                with self.assertRaisesRegex(TypeError, message):
                    _Doubling(wrong, "sparsity_level")

    def test_constructor_takes_its_arguments_in_the_documented_order(self):
        """data_sparsifier, schedule_param, last_epoch, verbose; the first step follows last_epoch."""
        sparsifier = _sparsifier()
        out = stdout_of(lambda: _Doubling(sparsifier, "sparsity_level", 3, True))
        self.assertEqual(out.count("\n"), 2)
        self.assertEqual(_parameters(sparsifier), {"a": 0.16, "b": 0.32})
        self.assertEqual(_Doubling(_sparsifier(), "sparsity_level", last_epoch=3).last_epoch, 4)

    def test_constructor_base_is_none_where_data_lacks_the_parameter(self):
        """Data without the parameter has no base value; it gets the parameter with the first value set for it."""

        class Setting(BaseDataScheduler):
            def get_schedule_param(self):
                return {"a": 7} if self.last_epoch else {}

        sparsifier = _sparsifier()
        scheduler = Setting(sparsifier, "zeros_per_block")
        self.assertEqual(scheduler.base_param, {"a": None, "b": None})
        self.assertEqual(scheduler.get_last_param(), {"a": None, "b": None})
        self.assertEqual(_parameters(sparsifier, "zeros_per_block"), {})
        sparsifier.step()
        scheduler.step()
        self.assertEqual(scheduler.get_last_param(), {"a": 7, "b": None})
        self.assertEqual(_parameters(sparsifier, "zeros_per_block"), {"a": 7})

    def test_get_schedule_param_is_the_subclass_s_task(self):
        """The abstract method computes nothing, neither called directly nor through super()."""
        with self.assertRaises(NotImplementedError):
            BaseDataScheduler.get_schedule_param(_Doubling(_sparsifier(), "sparsity_level"))
        self.assertTrue(BaseDataScheduler.get_schedule_param.__isabstractmethod__)

    def test_order_of_steps(self):
        """step() warns when the scheduler steps first, once; the right order is silent."""
        self.check_order_of_steps()

    def test_step(self):
        """Each step is the next epoch: what get_schedule_param returns is set and masks may be updated again."""
        sparsifier = _sparsifier()
        scheduler = _Doubling(sparsifier, "sparsity_level")
        for epoch in range(1, 5):
            sparsifier.enable_mask_update = False
            sparsifier.step()
            self.assertIsNone(scheduler.step())
            self.assertIs(sparsifier.enable_mask_update, True)
            self.assertEqual(scheduler.last_epoch, epoch)
            self.assertEqual(_parameters(sparsifier), {"a": 0.01 * 2**epoch, "b": 0.02 * 2**epoch})
            self.assertEqual(scheduler.get_last_param(), _parameters(sparsifier))
        self.assertEqual(scheduler.base_param, {"a": 0.01, "b": 0.02})

    def test_groups_may_hold_what_cannot_be_copied(self):
        """The scheduler holds the sparsifier itself: a group may have what cannot be copied, as a lock."""
        sparsifier = self.sparsifier()
        self.check_uncopyable(list(sparsifier.data_groups.values()), lambda: self.attached(sparsifier))

    def test_step_sets_the_values_themselves(self):
        """Each value that get_schedule_param returns is set as it is, a tensor too, and is the last one."""
        value = torch.tensor(0.25)

        class Fixed(BaseDataScheduler):
            def get_schedule_param(self):
                return {"a": value}

        sparsifier = _sparsifier()
        scheduler = Fixed(sparsifier, "sparsity_level")
        self.assertIs(sparsifier.data_groups["a"]["sparsity_level"], value)
        self.assertIs(scheduler.get_last_param()["a"], value)

    def test_step_touches_only_the_scheduled_parameter(self):
        """Other entries, data and defaults stay, and so does a value that the scheduler leaves out; no random number is drawn."""

        class OnlyB(BaseDataScheduler):
            def get_schedule_param(self):
                return {"b": 0.5}

        sparsifier = _sparsifier()
        sparsifier.data_groups["a"]["zeros_per_block"] = 3
        random = torch.get_rng_state()
        OnlyB(sparsifier, "sparsity_level")
        self.assertTrue(torch.equal(torch.get_rng_state(), random), "random numbers were drawn")
        self.assertEqual(dict(sparsifier.data_groups), {"a": {"sparsity_level": 0.01, "zeros_per_block": 3}, "b": {"sparsity_level": 0.5}})
        self.assertEqual(sparsifier.defaults, {"sparsity_level": 0.01})
        self.assertEqual(sparsifier.get_data("a"), torch.ones(2, 2))

    def test_get_last_param_stays_that_of_its_step(self):
        """What get_last_param() said before a step is not changed by the step, as with get_last_sl()."""

        class Epoch(BaseDataScheduler):
            def get_schedule_param(self):
                return {"a": self.last_epoch}

        sparsifier = _sparsifier()
        scheduler = Epoch(sparsifier, "sparsity_level")
        first = scheduler.get_last_param()
        sparsifier.step()
        scheduler.step()
        self.assertEqual((first["a"], scheduler.get_last_param()["a"]), (0, 1))

    def test_step_sets_any_parameter(self):
        """schedule_param may be any hyperparameter of the sparsifier, and is set to the very object returned."""
        given = [(1, 2), [1, 3]]

        class Blocks(BaseDataScheduler):
            def get_schedule_param(self):
                return {name: given[self.last_epoch] for name in self.base_param}

        sparsifier = DataNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4), zeros_per_block=1)
        sparsifier.add_data("a", torch.ones(2, 2))
        scheduler = Blocks(sparsifier, schedule_param="sparse_block_shape")
        self.assertEqual(scheduler.base_param, {"a": (1, 4)})
        sparsifier.step()
        scheduler.step()
        self.assertIs(sparsifier.data_groups["a"]["sparse_block_shape"], given[1])
        self.assertEqual(_parameters(sparsifier), {"a": 0.5})

    def test_step_with_failing_get_schedule_param_changes_nothing(self):
        """An error in get_schedule_param() reaches the caller and no parameter is touched; the next step works."""
        sparsifier = _sparsifier()
        scheduler = _Failing(sparsifier, "sparsity_level")
        sparsifier.step()
        scheduler.step()
        sparsifier.enable_mask_update = False
        scheduler.broken = True
        with self.assertRaisesRegex(ZeroDivisionError, "broken"):
            scheduler.step()
        self.assertEqual(_parameters(sparsifier), {"a": 0.02, "b": 0.04})
        self.assertEqual(scheduler.get_last_param(), {"a": 0.02, "b": 0.04})
        self.assertIs(sparsifier.enable_mask_update, False)
        self.assertIs(scheduler._get_sp_called_within_step, False)
        scheduler.broken = False
        scheduler.step()
        factor = 2**scheduler.last_epoch
        self.assertEqual(_parameters(sparsifier), {"a": 0.01 * factor, "b": 0.02 * factor})

    def test_step_marks_its_call_of_get_schedule_param(self):
        """A subclass can tell a call by step() from a direct one, which is marked as such from the constructor on."""
        seen = []

        class Watching(_Doubling):
            def get_schedule_param(self):
                seen.append(self._get_sp_called_within_step)
                return super().get_schedule_param()

        scheduler = Watching(_sparsifier(), "sparsity_level")
        scheduler.get_schedule_param()
        scheduler.data_sparsifier.step()
        scheduler.step()
        scheduler.get_schedule_param()
        self.assertEqual(seen, [True, False, True, False])

    def test_verbose_prints_every_update(self):
        """verbose=True prints name and value of each update, otherwise nothing is printed."""
        sparsifier = _sparsifier()

        def run():
            scheduler = _Doubling(sparsifier, "sparsity_level", verbose=True)
            sparsifier.step()
            scheduler.step()

        self.assertExpectedInline(
            stdout_of(run),
            """\
Adjusting sparsity_level for group a to 0.01
Adjusting sparsity_level for group b to 0.02
Adjusting sparsity_level for group a to 0.02
Adjusting sparsity_level for group b to 0.04
""",
        )
        self.assertEqual(stdout_of(lambda: _Doubling(_sparsifier(), "sparsity_level")), "")

    def test_repr_shows_sparsifier_and_base_values(self):
        """repr names the class, the sparsifier and the base values of the parameter, whatever the last step made of them."""
        sparsifier = _sparsifier()
        scheduler = _Doubling(sparsifier, "sparsity_level")
        sparsifier.step()
        scheduler.step()
        self.assertExpectedInline(
            repr(scheduler),
            """\
_Doubling (
Data Sparsifier SPARSIFIER
    sparsity_level: {'a': 0.01, 'b': 0.02}
)""",
        )

    def test_state_dict(self):
        """state_dict() has all variables but the sparsifier; loaded, it continues the run as the original does."""
        for stop in (0, 3):
            whole = _Doubling(_sparsifier(), "sparsity_level")
            for _ in range(stop):
                whole.data_sparsifier.step()
                whole.step()
            state = whole.state_dict()
            self.assertEqual(set(state), set(vars(whole)) - {"data_sparsifier"})
            self.assertEqual(state["last_epoch"], stop)
            self.assertEqual(state["base_param"], {"a": 0.01, "b": 0.02})
            self.assertEqual(state["schedule_param"], "sparsity_level")
            resumed = _Doubling(_sparsifier(), "sparsity_level")
            sparsifier = resumed.data_sparsifier
            resumed.load_state_dict(copy.deepcopy(state))
            with self.subTest(stop=stop):
                self.assertIs(resumed.data_sparsifier, sparsifier)
                self.assertEqual(resumed.get_last_param(), whole.get_last_param())
                with recorded_warnings() as caught:
                    for scheduler in (whole, resumed):
                        for _ in range(2):
                            scheduler.data_sparsifier.step()
                            scheduler.step()
                self.assertWarned(caught)
                self.assertEqual(_parameters(sparsifier), {"a": 0.01 * 2 ** (stop + 2), "b": 0.02 * 2 ** (stop + 2)})
                self.assertEqual(_parameters(whole.data_sparsifier), _parameters(sparsifier))

    def test_state_dict_can_be_saved(self):
        """The state passes torch.save and torch.load, which reads plain data only by default."""
        scheduler = _Doubling(_sparsifier(), "sparsity_level")
        file = io.BytesIO()
        torch.save(scheduler.state_dict(), file)
        file.seek(0)
        self.assertEqual(torch.load(file, weights_only=True), scheduler.state_dict())

    @known_defect("data-scheduler-resume-compounds-the-parameter")
    def test_constructor_resumes_from_the_base_values(self):
        """last_epoch is "passed when training needs to be resumed": the run goes on as it would have without a break."""
        sparsifier = _sparsifier()
        first = _Doubling(sparsifier, "sparsity_level")
        for _ in range(2):
            sparsifier.step()
            first.step()
        second = _Doubling(sparsifier, "sparsity_level", last_epoch=2)
        self.assertEqual(f"parameter of epoch 3: {second.get_last_param()['a']:.2f}", "parameter of epoch 3: 0.08")

    def test_new_scheduler_starts_from_the_values_of_now(self):
        """A scheduler made without last_epoch begins a run of its own, whatever another one has done to the values before."""
        sparsifier = _sparsifier()
        first = _Doubling(sparsifier, "sparsity_level")
        sparsifier.step()
        first.step()
        self.assertEqual(_Doubling(sparsifier, "sparsity_level").get_last_param(), {"a": 0.02, "b": 0.04})

    @known_defect("data-scheduler-unknown-name-becomes-a-group")
    def test_step_refuses_an_unknown_name(self):
        """A name that the sparsifier has no data for is refused, and does not become a group of the sparsifier."""

        class Misspelt(BaseDataScheduler):
            def get_schedule_param(self):
                return {"a": 0.5, "c": 0.5}

        sparsifier = _sparsifier()
        try:
            Misspelt(sparsifier, "sparsity_level")
        except (KeyError, ValueError) as error:
            self.assertIn("'c'", str(error))
        self.assertEqual(f"groups {list(sparsifier.data_groups)}", "groups ['a', 'b']")

    @known_defect("second-data-scheduler-forgets-the-sparsifier-s-steps")
    def test_order_of_steps_survives_a_second_scheduler(self):
        """Two parameters have two schedulers; the second does not make the first warn that the sparsifier has not stepped."""
        self.check_second_scheduler()

    @known_defect("copied-data-scheduler-reports-a-replaced-step")
    def test_order_of_steps_of_a_copy(self):
        """A deep copy watches its own sparsifier, whose step nobody replaced."""
        self.check_copy()

    @known_defect("data-scheduler-cannot-watch-a-replaced-step")
    def test_constructor_takes_a_sparsifier_with_a_step_of_its_own(self):
        """Only a step replaced after attaching is said to be a problem: one replaced before is counted."""
        self.check_own_step()

    @known_defect("data-scheduler-step-leaves-a-class-behind")
    def test_step_leaves_no_garbage(self):
        """A step leaves nothing that only the garbage collector frees, a class least of all."""
        self.check_no_garbage()

    @known_defect("data-scheduler-documented-example-fails")
    def test_documented_example_halves_the_parameter(self):
        """The get_schedule_param of the docstring's example works in a subclass: each step halves the parameter."""
        self.skip_without_docstrings()
        scope = {}
        (example,) = doctest.DocTestParser().get_examples(BaseDataScheduler.get_schedule_param.__doc__ or "")
        exec(example.source, scope)
        documented = type("Documented", (BaseDataScheduler,), {"get_schedule_param": scope["get_schedule_param"]})
        self.assertEqual(documented(_sparsifier(), "sparsity_level").get_last_param(), {"a": 0.005, "b": 0.01})

    @known_defect("data-scheduler-documents-a-method-it-lacks")
    def test_documented_methods_exist(self):
        """The method that the class docstring asks the user to implement is one that the class knows."""
        self.skip_without_docstrings()
        named = re.findall(r"\*(\w+)\(\)\*", BaseDataScheduler.__doc__ or "")
        self.assertEqual(f"asked for: {named}", "asked for: ['get_schedule_param']")

    @known_defect("data-scheduler-abstract-method-is-not-enforced")
    def test_constructor_without_get_schedule_param_raises(self):
        """A class with an abstract method cannot be instantiated, and leaves the sparsifier alone."""
        sparsifier = _sparsifier()
        with self.assertRaises((TypeError, NotImplementedError)):
            BaseDataScheduler(sparsifier, "sparsity_level")
        self.assertEqual(f"step replaced: {'step' in vars(sparsifier)}", "step replaced: False")

    @on_every_device
    def test_scheduled_level_decides_the_zeros(self, device):
        """DataNormSparsifier prunes at each step what the scheduler asks for, on the device of the data."""

        class Rising(BaseDataScheduler):
            def get_schedule_param(self):
                return {name: base * self.last_epoch / 4 for name, base in self.base_param.items()}

        sparsifier = DataNormSparsifier(sparse_block_shape=(1, 1), zeros_per_block=1)
        sparsifier.add_data("a", torch.arange(16.0, device=device).reshape(4, 4), sparsity_level=1.0)
        sparsifier.add_data("b", torch.arange(8.0, device=device).reshape(2, 4), sparsity_level=0.5)
        scheduler = Rising(sparsifier, "sparsity_level")
        for epoch in range(5):
            sparsifier.step()
            masks = [sparsifier.get_mask(name) for name in "ab"]
            self.assertEqual([int((mask == 0).sum()) for mask in masks], [4 * epoch, epoch], f"zeros at epoch {epoch}")
            self.assertEqual({mask.device.type for mask in masks}, {device})
            scheduler.step()

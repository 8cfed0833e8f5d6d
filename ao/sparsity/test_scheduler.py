# Owner(s): ["module: sparse"]
"""Schedulers of the sparsity level: BaseScheduler, LambdaSL and CubicSL."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import copy
import functools
import io
import pickle
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.ao.pruning import BaseScheduler, BaseSparsifier, CubicSL, LambdaSL, WeightNormSparsifier
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing.capture import recorded_warnings, stdout_of
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.oracles import levels
from ao.sparsity.testing.scheduling import CountedSteps, SchedulerContract

FIRST_STEP = (
    "Detected call of `scheduler.step()` before `sparsifier.step()`. "
    "You have to make sure you run the sparsifier.step() BEFORE any calls to the scheduler.step()."
)
OVERRIDDEN = (
    "Seems like `sparsifier.step()` has been overridden after sparsity scheduler initialization. "
    "Please, make sure to call `sparsifier.step()` before `scheduler.step()`."
)
DIRECT_CALL = "To get the last sparsity level computed by the scheduler, please use `get_last_sl()`."


class _Sparsifier(CountedSteps, BaseSparsifier):
    """Leaves the masks alone."""


class _Doubling(BaseScheduler):
    """Level of each group: its base times 2 to the power of the epoch."""

    def get_sl(self):
        return [base * 2**self.last_epoch for base in self.base_sl]


class _Failing(_Doubling):
    """As _Doubling, but fails while ``broken``."""

    broken = False

    def get_sl(self):
        if self.broken:
            raise ZeroDivisionError("broken")
        return super().get_sl()


def _sparsifier(*group_levels, kind=_Sparsifier):
    """A prepared sparsifier with one group for each level."""
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in group_levels))
    sparsifier = kind()
    sparsifier.prepare(model, [{"tensor_fqn": f"{i}.weight", "sparsity_level": level} for i, level in enumerate(group_levels)])
    return sparsifier


def _group_levels(sparsifier):
    return [group["sparsity_level"] for group in sparsifier.groups]


def _identity(epoch):
    return epoch


class _SchedulerTestCase(TestCase):
    """What the tests of all schedulers share."""

    def assertRun(self, scheduler, expected):
        """The levels of the groups from now on, a step after each, are the rows of ``expected``."""
        for epoch, row in enumerate(expected):
            if epoch:
                scheduler.sparsifier.step()
                scheduler.step()
            for found in (_group_levels(scheduler.sparsifier), scheduler.get_last_sl()):
                self.assertEqual(len(found), len(row))
                for level, expected in zip(found, row):
                    self.assertLevel(level, expected, f"at epoch {epoch}: {found}, expected {row}")

    def assertLevel(self, level, expected, message=""):
        """A level is the expected one, up to rounding."""
        self.assertTrue(abs(level - expected) < 1e-12, f"{expected:.12g} but got {level:.12g} {message}")


@instantiate_parametrized_tests
class TestScheduler(SchedulerContract, _SchedulerTestCase):
    """The base class and LambdaSL."""

    first_step, overridden = FIRST_STEP, OVERRIDDEN

    def sparsifier(self):
        """What attached() takes."""
        return _sparsifier(0.1)

    def attached(self, sparsifier=None):
        """A scheduler that doubles the level, and its sparsifier."""
        sparsifier = sparsifier or self.sparsifier()
        return _Doubling(sparsifier), sparsifier

    def test_constructor(self):
        """The constructor keeps the sparsifier and its levels, and sets the levels of epoch 0."""
        sparsifier = _sparsifier(0.25, 0.5)
        with recorded_warnings() as caught:
            scheduler = CubicSL(sparsifier, init_sl=[0.125, 0.25])
        self.assertWarned(caught)
        self.assertIsInstance(scheduler, BaseScheduler)
        self.assertIs(scheduler.sparsifier, sparsifier)
        self.assertEqual(scheduler.base_sl, [0.25, 0.5])
        self.assertEqual(scheduler.last_epoch, 0)
        self.assertIs(scheduler.verbose, False)
        self.assertEqual(_group_levels(sparsifier), [0.125, 0.25])
        self.assertEqual(scheduler.get_last_sl(), [0.125, 0.25])

    def test_constructor_refuses_what_is_no_sparsifier(self):
        """The first argument is a BaseSparsifier, an instance of it; TypeError names what was given."""
        for wrong in (None, nn.Linear(1, 1), _Sparsifier, "sparsifier"):
            with self.subTest(wrong=wrong):
                message = f"^{type(wrong).__name__} is not an instance of torch.ao.pruning.BaseSparsifier$"
                with self.assertRaisesRegex(TypeError, message):
                    _Doubling(wrong)

    def test_constructor_without_get_sl_raises(self):
        """BaseScheduler computes no level; a class that defines none cannot make its first step."""
        with recorded_warnings() as caught, self.assertRaises(NotImplementedError):
            BaseScheduler(_sparsifier(0.5))
        self.assertWarned(caught)

    def test_constructor_counts_on_from_last_epoch(self):
        """last_epoch is the index of the last epoch, so the first step is the one after it."""
        for make in (_Doubling, lambda s, last_epoch: LambdaSL(s, lambda epoch: 2**epoch, last_epoch)):
            sparsifier = _sparsifier(0.01)
            scheduler = make(sparsifier, last_epoch=3)
            self.assertEqual(scheduler.last_epoch, 4)
            self.assertEqual(_group_levels(sparsifier), [0.16])

    def test_order_of_steps(self):
        """step() warns when the scheduler steps first, once; the right order is silent."""
        self.check_order_of_steps()

    def test_step(self):
        """Each step is the next epoch: levels of all groups are set and masks may be updated again."""
        sparsifier = _sparsifier(0.01, 0.02)
        scheduler = _Doubling(sparsifier)
        self.assertEqual(_group_levels(sparsifier), [0.01, 0.02])
        for epoch in range(1, 5):
            sparsifier.enable_mask_update = False
            sparsifier.step()
            self.assertIsNone(scheduler.step())
            self.assertIs(sparsifier.enable_mask_update, True)
            self.assertEqual(scheduler.last_epoch, epoch)
            self.assertEqual(_group_levels(sparsifier), [0.01 * 2**epoch, 0.02 * 2**epoch])
            self.assertEqual(scheduler.get_last_sl(), _group_levels(sparsifier))
        self.assertEqual(scheduler.base_sl, [0.01, 0.02])

    def test_step_sets_the_levels_themselves(self):
        """Each level that get_sl returns is set as it is, a tensor too; its list may change afterwards."""
        level = torch.tensor(0.25)
        returned = [level]

        class Fixed(BaseScheduler):
            def get_sl(self):
                return returned

        scheduler = Fixed(_sparsifier(0.5))
        returned[0] = None
        self.assertIs(scheduler.sparsifier.groups[0]["sparsity_level"], level)
        self.assertIs(scheduler.get_last_sl()[0], level)

    def test_step_sets_a_level_that_somebody_changed(self):
        """Nothing new to set is no reason to leave it out: each step sets the level and lets masks be updated."""
        for make in (lambda s: LambdaSL(s, lambda epoch: 0.5), lambda s: CubicSL(s, init_sl=0.5, delta_t=1, total_t=1)):
            scheduler = make(_sparsifier(1.0, 0.5))
            for _ in range(3):
                scheduler.sparsifier.step()
                scheduler.step()
                final = scheduler.get_last_sl()
                scheduler.sparsifier.groups[0]["sparsity_level"] = 0.125
                scheduler.sparsifier.enable_mask_update = False
            scheduler.sparsifier.step()
            scheduler.step()
            with self.subTest(scheduler=type(scheduler).__name__):
                self.assertEqual(_group_levels(scheduler.sparsifier), final)
                self.assertIs(scheduler.sparsifier.enable_mask_update, True)

    def test_long_run_follows_the_schedule(self):
        """Each step is one epoch: over 300 steps, with save and load in between, the levels rise, fall and rise as the functions say."""

        def wave(epoch):
            return abs((epoch % 20) / 10 - 1)

        for make, final, level in (
            (lambda s: LambdaSL(s, wave), 0.8, lambda epoch: 0.8 * wave(epoch)),
            (lambda s: CubicSL(s, 0.1, 5, 1, 200, True), 0.8, lambda epoch: levels.cubic(0.1, 0.8, epoch, 5, 1, 200, True)),
        ):
            scheduler = make(_sparsifier(final))
            for epoch in range(300):
                self.assertEqual(scheduler.last_epoch, epoch)
                self.assertLevel(scheduler.sparsifier.groups[0]["sparsity_level"], level(epoch), f"at epoch {epoch}")
                if epoch % 50 == 49:
                    saved, scheduler = scheduler.state_dict(), make(_sparsifier(final))
                    scheduler.load_state_dict(saved)
                scheduler.sparsifier.step()
                scheduler.sparsifier.enable_mask_update = False
                scheduler.step()
                self.assertIs(scheduler.sparsifier.enable_mask_update, True, f"masks may be updated after epoch {epoch}")

    def test_groups_may_hold_what_cannot_be_copied(self):
        """Every scheduler holds the sparsifier itself: a group may have what cannot be copied, as a lock."""
        for make in (_Doubling, CubicSL, lambda sparsifier: LambdaSL(sparsifier, _identity)):
            sparsifier = self.sparsifier()
            self.check_uncopyable(sparsifier.groups, lambda make=make, sparsifier=sparsifier: (make(sparsifier), sparsifier))

    def test_step_touches_only_the_level(self):
        """A step of the scheduler changes no other entry of a group and no tensor of the model; it draws no random number."""
        sparsifier, random = _sparsifier(0.5), torch.get_rng_state()
        before = dict(sparsifier.groups[0])
        weights = copy.deepcopy(sparsifier.model.state_dict())
        scheduler = LambdaSL(sparsifier, lambda epoch: 0.5)
        sparsifier.step()
        scheduler.step()
        after = {name: sparsifier.groups[0][name] for name in before}
        self.assertEqual(after, {**before, "sparsity_level": 0.25})
        self.assertEqual(sparsifier.model.state_dict(), weights)
        self.assertTrue(torch.equal(torch.get_rng_state(), random), "random numbers were drawn")

    def test_get_last_sl_stays_that_of_its_step(self):
        """get_last_sl: the last computed level; one that was asked for before a step is not changed by the step."""
        sparsifier = _sparsifier(0.1)
        scheduler = _Doubling(sparsifier)
        first = scheduler.get_last_sl()
        sparsifier.step()
        scheduler.step()
        self.assertEqual((first, scheduler.get_last_sl()), ([0.1], [0.2]))

    def test_attached_step_runs_the_overriding_method(self):
        """The counted step is that of the sparsifier's own class, also where a subclass overrides it."""

        class Louder(_Sparsifier):
            def step(self, *args, **kwargs):
                return "louder", super().step(*args, **kwargs)

        sparsifier = _sparsifier(0.1, kind=Louder)
        scheduler = _Doubling(sparsifier)
        self.assertEqual(sparsifier.step(), ("louder", ((), {})))
        with recorded_warnings() as caught:
            scheduler.step()
        self.assertWarned(caught)

    def test_get_sl_outside_step_warns(self):
        """get_sl() is meant for step(); called directly it says which method to use, within step() it is silent."""
        for make in (lambda s: LambdaSL(s, lambda epoch: 0.5), lambda s: CubicSL(s, init_sl=0.1)):
            sparsifier = _sparsifier(0.2)
            with recorded_warnings() as caught:
                scheduler = make(sparsifier)
                sparsifier.step()
                scheduler.step()
            self.assertWarned(caught)
            with recorded_warnings() as caught:
                direct = scheduler.get_sl()
            with self.subTest(scheduler=type(scheduler).__name__):
                self.assertWarned(caught, DIRECT_CALL)
                self.assertEqual(direct, scheduler.get_last_sl())

    def test_get_sl_of_the_base_class_raises(self):
        """BaseScheduler.get_sl() called directly warns too, and has no level to give."""
        scheduler = _Doubling(_sparsifier(0.1))
        with recorded_warnings() as caught, self.assertRaises(NotImplementedError):
            BaseScheduler.get_sl(scheduler)
        self.assertWarned(caught, DIRECT_CALL)

    def test_step_with_failing_get_sl_changes_no_level(self):
        """An error in get_sl() reaches the caller, no level is touched, and get_sl() warns again afterwards."""
        sparsifier = _sparsifier(0.1)
        scheduler = _Failing(sparsifier)
        sparsifier.step()
        scheduler.step()
        sparsifier.enable_mask_update = False
        scheduler.broken = True
        with self.assertRaisesRegex(ZeroDivisionError, "broken"):
            scheduler.step()
        self.assertEqual(_group_levels(sparsifier), [0.2])
        self.assertEqual(scheduler.get_last_sl(), [0.2])
        self.assertIs(sparsifier.enable_mask_update, False)
        with recorded_warnings() as caught, self.assertRaises(NotImplementedError):
            BaseScheduler.get_sl(scheduler)
        self.assertWarned(caught, DIRECT_CALL)
        scheduler.broken = False
        scheduler.step()
        self.assertEqual(_group_levels(sparsifier), [0.1 * 2**scheduler.last_epoch])
        self.assertIs(sparsifier.enable_mask_update, True)

    def test_lambda_scheduler(self):
        """Level of each group: its final level times its function of the epoch, over a whole run."""
        first, second, third = (lambda epoch: epoch / 10), (lambda epoch: 1 - 0.5**epoch), (lambda epoch: epoch - 2)
        cases = {
            "one function": (first, (first, first)),
            "list": ([first, second], (first, second)),
            "tuple": ((second, first), (second, first)),
            "from below zero to above one": (third, (third, third)),
        }
        for case, (given, (of_group_0, of_group_1)) in cases.items():
            with self.subTest(case=case):
                scheduler = LambdaSL(_sparsifier(0.25, 0.75), sl_lambda=given)
                self.assertRun(scheduler, list(zip(levels.scaled(0.25, of_group_0, 12), levels.scaled(0.75, of_group_1, 12))))

    def test_lambda_scheduler_calls_the_function_once_an_epoch(self):
        """The function gets the integer epoch, once for each group and step after the first."""
        epochs = []
        scheduler = LambdaSL(_sparsifier(0.5), lambda epoch: epochs.append(epoch) or 1.0)
        for _ in range(2):
            scheduler.sparsifier.step()
            scheduler.step()
        self.assertEqual([epoch for epoch in epochs if epoch], [1, 2])

    def test_lambda_scheduler_keeps_its_own_list(self):
        """The caller's list of functions may change afterwards."""
        given = [_identity]
        scheduler = LambdaSL(_sparsifier(0.5), given)
        given[0] = None
        scheduler.sparsifier.step()
        scheduler.step()
        self.assertEqual(scheduler.get_last_sl(), [0.5])

    def test_lambda_scheduler_refuses_wrong_number_of_functions(self):
        """A list has one function a group; a refusal leaves the sparsifier untouched."""
        sparsifier = _sparsifier(0.5, 0.5)
        for given in ([], [_identity], (_identity,) * 3):
            with self.subTest(functions=len(given)):
                with self.assertRaisesRegex(ValueError, f"Expected 2 .*but got {len(given)}$"):
                    LambdaSL(sparsifier, given)
                self.assertNotIn("step", vars(sparsifier))
                self.assertEqual(_group_levels(sparsifier), [0.5, 0.5])

    def test_verbose_prints_every_update(self):
        """verbose=True prints group and level of each update, with the epoch where one is given."""
        sparsifier = _sparsifier(0.5, 0.001)

        def run():
            scheduler = LambdaSL(sparsifier, lambda epoch: 0.25 if epoch else 0, verbose=True)
            sparsifier.step()
            with recorded_warnings():
                scheduler.step(12)
            scheduler.print_sl(True, 7, 0.5, epoch=0)

        self.assertExpectedInline(
            stdout_of(run),
            """\
Adjusting sparsity level of group 0 to 0.0000e+00.
Adjusting sparsity level of group 1 to 0.0000e+00.
Epoch    12: adjusting sparsity level of group 0 to 1.2500e-01.
Epoch    12: adjusting sparsity level of group 1 to 2.5000e-04.
Epoch     0: adjusting sparsity level of group 7 to 5.0000e-01.
""",
        )

    def test_verbose_is_off_by_default(self):
        """Without verbose nothing is printed, in LambdaSL, CubicSL and a class of one's own."""
        for make in (lambda s: LambdaSL(s, lambda epoch: 0.25), CubicSL, _Doubling):
            scheduler = make(_sparsifier(0.5))
            scheduler.sparsifier.step()
            self.assertEqual(stdout_of(scheduler.step), "")
            self.assertEqual(stdout_of(functools.partial(scheduler.print_sl, False, 0, 0.5)), "")

    def test_repr_shows_sparsifier_and_base_levels(self):
        """repr names the class, the sparsifier and the final levels."""
        self.assertExpectedInline(
            repr(LambdaSL(_sparsifier(0.5, 0.25), lambda epoch: 0.0)),
            """\
LambdaSL (
Sparsifier SPARSIFIER
    base_sl: [0.5, 0.25]
)""",
        )

    def test_state_dict_holds_all_but_the_sparsifier(self):
        """state_dict() has an entry for every variable of the scheduler which is not the sparsifier."""
        scheduler = CubicSL(_sparsifier(0.5), init_sl=0.1, init_t=1, delta_t=1, total_t=3, initially_zero=True)
        state = scheduler.state_dict()
        self.assertEqual(set(state), set(vars(scheduler)) - {"sparsifier"})
        for name, value in {
            "base_sl": [0.5],
            "last_epoch": 0,
            "verbose": False,
            "_get_sl_called_within_step": False,
            "init_sl": [0.1],
            "init_t": [1],
            "delta_t": [1],
            "total_t": [3],
            "initially_zero": [True],
        }.items():
            self.assertEqual(state[name], value, f"entry {name!r}")

    def test_load_state_dict_resumes_the_run(self):
        """A scheduler that loads the state of another continues as the other would have, levels and warnings."""
        settings = {"init_sl": 0.1, "init_t": 2, "delta_t": 1, "total_t": 6}
        for make in (lambda s, **more: CubicSL(s, **more), lambda s, **more: LambdaSL(s, lambda epoch: epoch / 10)):
            for stop in (0, 4):
                whole = make(_sparsifier(0.5, 0.8), **settings)
                for _ in range(stop):
                    whole.sparsifier.step()
                    whole.step()
                resumed = make(_sparsifier(0.1, 0.1))
                resumed.load_state_dict(whole.state_dict())
                with self.subTest(scheduler=type(whole).__name__, stop=stop):
                    self.assertEqual(resumed.last_epoch, stop)
                    self.assertEqual(resumed._step_count, stop + 1, "the steps, the one of the constructor among them")
                    self.assertEqual(resumed.get_last_sl(), whole.get_last_sl())
                    self.assertIsNot(resumed.sparsifier, whole.sparsifier)
                    with recorded_warnings() as caught:
                        for scheduler in (whole, resumed):
                            for _ in range(5):
                                scheduler.sparsifier.step()
                                scheduler.step()
                    self.assertWarned(caught)
                    self.assertEqual(_group_levels(resumed.sparsifier), _group_levels(whole.sparsifier))

    def test_state_dict_of_cubic_can_be_saved(self):
        """The state of a CubicSL passes torch.save and torch.load, which reads plain data only by default."""
        scheduler = CubicSL(_sparsifier(0.5), init_sl=0.1)
        file = io.BytesIO()
        torch.save(scheduler.state_dict(), file)
        file.seek(0)
        self.assertEqual(torch.load(file, weights_only=True), scheduler.state_dict())

    @known_defect("lambda-first-level-is-not-zero")
    def test_lambda_scheduler_starts_as_documented(self):
        """LambdaSL: "When last_epoch=-1, sets initial sl as zero", as long as its docstring says so."""
        self.skip_without_docstrings()
        self.skip_without_docstrings()
        promised = 0.0 if "sets initial sl as zero" in (LambdaSL.__doc__ or "") else 0.5
        self.assertLevel(LambdaSL(_sparsifier(0.5), lambda epoch: 1.0).get_last_sl()[0], promised)

    @known_defect("lambda-state-dict-cannot-be-saved")
    def test_lambda_scheduler_state_can_be_saved(self):
        """The state of a LambdaSL over lambdas, as in its docstring, passes torch.save, as that of LambdaLR does."""
        state = LambdaSL(_sparsifier(0.5), lambda epoch: epoch / 10).state_dict()
        file = io.BytesIO()
        try:
            torch.save(state, file)
        except (AttributeError, pickle.PicklingError) as error:
            self.fail(f"the state cannot be saved: {error}")
        file.seek(0)
        self.assertEqual(torch.load(file, weights_only=True)["last_epoch"], 0)

    @known_defect("lambda-load-replaces-the-functions")
    def test_lambda_scheduler_keeps_its_functions_when_loading(self):
        """The functions of a LambdaSL are those it was made with; like LambdaLR's they are no part of the state."""
        saved = LambdaSL(_sparsifier(1.0), lambda epoch: epoch / 10)
        scheduler = LambdaSL(_sparsifier(1.0), lambda epoch: epoch / 4)
        scheduler.load_state_dict(saved.state_dict())
        scheduler.sparsifier.step()
        scheduler.step()
        self.assertLevel(scheduler.get_last_sl()[0], 0.25)

    @known_defect("lambda-wrong-sparsifier-is-not-named")
    def test_lambda_scheduler_refuses_what_is_no_sparsifier(self):
        """LambdaSL refuses what is no BaseSparsifier by the TypeError of its base class."""
        with self.assertRaisesRegex(TypeError, "Linear.*BaseSparsifier"):
            LambdaSL(nn.Linear(1, 1), _identity)

    @known_defect("scheduler-resume-compounds-the-level")
    def test_constructor_resumes_from_the_final_levels(self):
        """A scheduler made with last_epoch over a sparsifier in mid-run goes on as the first would have."""
        sparsifier = _sparsifier(0.8)
        first = LambdaSL(sparsifier, lambda epoch: 0.5**epoch)
        for _ in range(2):
            sparsifier.step()
            first.step()
        second = LambdaSL(sparsifier, lambda epoch: 0.5**epoch, last_epoch=2)
        self.assertLevel(second.get_last_sl()[0], 0.1)

    def test_new_scheduler_starts_from_the_levels_of_now(self):
        """A scheduler made without last_epoch begins a run of its own, whatever another one has done to the levels before."""
        sparsifier = _sparsifier(0.8)
        LambdaSL(sparsifier, lambda epoch: 0.5)
        self.assertLevel(LambdaSL(sparsifier, lambda epoch: 0.5).get_last_sl()[0], 0.2)
        sparsifier.groups[0]["sparsity_level"] = 0.6
        self.assertLevel(LambdaSL(sparsifier, lambda epoch: 0.5).get_last_sl()[0], 0.3)

    @known_defect("second-scheduler-forgets-the-sparsifier-s-steps")
    def test_order_of_steps_survives_a_second_scheduler(self):
        """A second scheduler on the sparsifier does not make the first warn that the sparsifier has not stepped."""
        self.check_second_scheduler()

    @known_defect("copied-scheduler-reports-a-replaced-step")
    def test_order_of_steps_of_a_copy(self):
        """A deep copy watches its own sparsifier, whose step nobody replaced."""
        self.check_copy()

    @known_defect("scheduler-cannot-watch-a-replaced-step")
    def test_constructor_takes_a_sparsifier_with_a_step_of_its_own(self):
        """Only a step replaced after attaching is said to be a problem: one replaced before is counted."""
        self.check_own_step()

    @known_defect("scheduler-epoch-changes-only-the-message")
    def test_step_goes_to_the_given_epoch(self):
        """step(epoch) is the step of that epoch, as with LRScheduler and as its verbose message says."""
        scheduler = LambdaSL(_sparsifier(1.0), lambda epoch: epoch / 10)
        scheduler.sparsifier.step()
        with recorded_warnings():
            scheduler.step(epoch=5)
        self.assertLevel(scheduler.get_last_sl()[0], 0.5)
        self.assertEqual(scheduler.last_epoch, 5)
        scheduler.sparsifier.step()
        scheduler.step()
        self.assertEqual(scheduler.get_last_sl(), [0.6], "the step after is that of the next epoch")

    @known_defect("scheduler-skips-groups-without-a-level")
    def test_step_wants_a_level_for_every_group(self):
        """A get_sl() with another number of levels than groups is an error, as with LRScheduler; no group is left out."""

        class OneLevel(BaseScheduler):
            def get_sl(self):
                return [0.1]

        sparsifier = _sparsifier(0.5, 0.5)
        try:
            OneLevel(sparsifier)
        except ValueError:
            self.assertEqual(sparsifier.groups[1]["sparsity_level"], 0.5)
        else:
            self.fail(f"not refused, levels {_group_levels(sparsifier)}")

    @known_defect("scheduler-takes-a-data-sparsifier")
    def test_constructor_refuses_a_data_sparsifier(self):
        """A data sparsifier has no groups to schedule: it is for BaseDataScheduler, and refused rather than ignored."""
        with warnings.catch_warnings():
            from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
        sparsifier = DataNormSparsifier([("data", torch.ones(2, 2))], sparsity_level=0.5)
        for make in (lambda: LambdaSL(sparsifier, lambda epoch: 0.5), lambda: CubicSL(sparsifier), lambda: _Doubling(sparsifier)):
            try:
                scheduler = make()
            except TypeError as error:
                self.assertIn("DataNormSparsifier", str(error))
            else:
                self.fail(f"not refused, levels {scheduler.get_last_sl()}")

    @known_defect("scheduler-step-leaves-a-class-behind")
    def test_step_leaves_no_garbage(self):
        """A step leaves nothing that only the garbage collector frees, a class least of all."""
        self.check_no_garbage()

    @on_every_device
    def test_scheduled_level_decides_the_zeros(self, device):
        """WeightNormSparsifier prunes at each step what the scheduler asks for, on the device of the model."""
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).to(device)
        sparsifier = WeightNormSparsifier(sparse_block_shape=(1, 1), zeros_per_block=1)
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight", "sparsity_level": 1.0}, {"tensor_fqn": "1.weight", "sparsity_level": 0.5}])
        scheduler = LambdaSL(sparsifier, lambda epoch: epoch / 4)
        for epoch in range(5):
            sparsifier.step()
            masks = [sparsifier.state[f"{i}.weight"]["mask"] for i in range(2)]
            self.assertEqual([int((mask == 0).sum()) for mask in masks], [4 * epoch, epoch], f"zeros at epoch {epoch}")
            self.assertEqual({mask.device.type for mask in masks}, {device})
            scheduler.step()


class TestCubicScheduler(_SchedulerTestCase):
    """CubicSL."""

    def test_constructor(self):
        """Before t_0 the level is s_0, or 0 where initially_zero says so, for each group on its own."""
        cases = (({}, [0.1, 0.1]), ({"initially_zero": True}, [0, 0]), ({"initially_zero": [True, False]}, [0, 0.1]))
        for zero, expected in cases:
            with self.subTest(zero=zero):
                scheduler = CubicSL(_sparsifier(0.5, 0.8), init_sl=0.1, init_t=3, delta_t=1, total_t=2, **zero)
                self.assertIsInstance(scheduler, BaseScheduler)
                self.assertEqual(scheduler.base_sl, [0.5, 0.8])
                self.assertRun(scheduler, [expected] * 3 + [[0.1, 0.1]])

    def test_constructor_defaults_prune_in_a_hundred_updates(self):
        """Defaults: from level 0 at epoch 0, a hundred updates, ten epochs apart, then the target."""
        scheduler = CubicSL(_sparsifier(0.5))
        self.assertEqual(scheduler.get_last_sl(), [0.0])
        for epoch in (10, 500, 990, 1000, 1010):
            scheduler.last_epoch = epoch - 1
            scheduler.sparsifier.step()
            scheduler.step()
            self.assertEqual(scheduler.get_last_sl(), [levels.cubic(0.0, 0.5, epoch, 0, 10, 100)], f"level at epoch {epoch}")
        scheduler.last_epoch = -3
        scheduler.step()
        self.assertEqual(scheduler.get_last_sl(), [0.0], "level before t_0")

    def test_constructor_takes_its_arguments_in_the_documented_order(self):
        """sparsifier, init_sl, init_t, delta_t, total_t, initially_zero, last_epoch, verbose."""
        out = stdout_of(lambda: CubicSL(_sparsifier(0.9), 0.1, 2, 4, 3, True, 5, True))
        level = levels.cubic(0.1, 0.9, 6, 2, 4, 3)
        self.assertEqual(out, f"Adjusting sparsity level of group 0 to {level:.4e}.\n")
        self.assertEqual(stdout_of(lambda: CubicSL(_sparsifier(0.9), 0.1, 2, 4, 3, True, -1, False)), "")

    def test_step(self):
        """The level follows the cubic of the paper from s_0 at t_0 up to the target, and stays there."""
        cases = (
            {"init_sl": 0.0, "init_t": 0, "delta_t": 1, "total_t": 4},
            {"init_sl": 0.05, "init_t": 2, "delta_t": 1, "total_t": 5, "initially_zero": True},
            {"init_sl": [0.1, 0.5], "init_t": (0, 3), "delta_t": [1, 1], "total_t": (3, 6), "initially_zero": [False, True]},
            {"init_sl": (0.2, 0.0), "init_t": [1, 0], "delta_t": 1, "total_t": [1, 7], "initially_zero": (True, True)},
        )
        targets = (0.5, 0.9)
        for case in cases:
            with self.subTest(**case):
                per_group = [
                    {name: value[i] if isinstance(value, (list, tuple)) else value for name, value in case.items()} for i in range(2)
                ]
                expected = [
                    [
                        levels.cubic(g["init_sl"], target, t, g["init_t"], g["delta_t"], g["total_t"], g.get("initially_zero", False))
                        for g, target in zip(per_group, targets)
                    ]
                    for t in range(12)
                ]
                self.assertRun(CubicSL(_sparsifier(*targets), **case), expected)

    def test_step_updates_are_delta_t_apart(self):
        """At the epochs of its updates, delta_t apart, the level is that of the paper."""
        scheduler = CubicSL(_sparsifier(0.8, 0.8), init_sl=0.2, init_t=1, delta_t=[3, 2], total_t=[3, 4])
        for epoch in range(1, 15):
            scheduler.sparsifier.step()
            scheduler.step()
            for group, (frequency, updates) in enumerate(((3, 3), (2, 4))):
                if (epoch - 1) % frequency == 0:
                    expected = levels.cubic(0.2, 0.8, epoch, 1, frequency, updates)
                    self.assertEqual(scheduler.get_last_sl()[group], expected, f"level of group {group} at epoch {epoch}")

    def test_sparsity_compute_fn_is_the_cubic(self):
        """The closed form on its own: before, at, within, at the end of and after the pruning, with and without zero."""
        for t in (-1, 4, 5, 6, 7, 9, 10, 50):
            for zero in (False, True):
                with self.subTest(t=t, initially_zero=zero):
                    level = CubicSL.sparsity_compute_fn(s_0=0.25, s_f=0.75, t=t, t_0=5, dt=1, n=4, initially_zero=zero)
                    self.assertEqual(level, levels.cubic(0.25, 0.75, t, 5, 1, 4, zero))
        self.assertEqual(CubicSL.sparsity_compute_fn(0.25, 0.75, 4, 5, 1, 4), 0.25)

    def test_constructor_refuses_wrong_number_of_values(self):
        """A list or tuple has one value a group; a refusal leaves the sparsifier untouched."""
        sparsifier = _sparsifier(0.5, 0.5)
        for name in ("init_sl", "init_t", "delta_t", "total_t", "initially_zero"):
            for given in ([], [1], (1, 1, 1)):
                with self.subTest(argument=name, values=given):
                    with self.assertRaisesRegex(ValueError, f"^Expected variable of length 2, but got {len(given)}$"):
                        CubicSL(sparsifier, **{name: given})
                    self.assertNotIn("step", vars(sparsifier))
                    self.assertEqual(_group_levels(sparsifier), [0.5, 0.5])

    def test_constructor_keeps_its_own_lists(self):
        """The caller's lists may change afterwards."""
        given = {"init_sl": [0.1], "init_t": [0], "delta_t": [1], "total_t": [2], "initially_zero": [False]}
        scheduler = CubicSL(_sparsifier(0.5), **given)
        for values in given.values():
            values[0] = 7
        self.assertRun(scheduler, [[levels.cubic(0.1, 0.5, t, 0, 1, 2)] for t in range(4)])

    @known_defect("cubic-ignores-delta-t")
    def test_step_holds_the_level_between_updates(self):
        """delta_t is the pruning frequency: the level changes every delta_t epochs and stays in between."""
        scheduler = CubicSL(_sparsifier(0.8), init_t=1, delta_t=3, total_t=2)
        self.assertRun(scheduler, [[levels.cubic(0.0, 0.8, epoch, 1, 3, 2)] for epoch in range(9)])

    @known_defect("cubic-falling-level-never-moves")
    def test_step_falls_to_a_target_below_the_initial_level(self):
        """From s_0 above s_f the level falls by the same cubic; it does not stay at s_0 for ever."""
        scheduler = CubicSL(_sparsifier(0.2), init_sl=0.8, delta_t=1, total_t=4)
        self.assertRun(scheduler, [[levels.cubic(0.8, 0.2, epoch, 0, 1, 4)] for epoch in range(6)])

    @known_defect("cubic-wrong-sparsifier-is-not-named")
    def test_constructor_refuses_what_is_no_sparsifier(self):
        """CubicSL refuses what is no BaseSparsifier by the TypeError of its base class."""
        with self.assertRaisesRegex(TypeError, "Linear.*BaseSparsifier"):
            CubicSL(nn.Linear(1, 1))

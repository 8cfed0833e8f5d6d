"""What BaseScheduler and BaseDataScheduler both promise about the steps of the sparsifier that they are attached to."""

import copy
import threading
import weakref

from ao.sparsity.testing.capture import WarnsCaller, recorded_warnings, without_gc


class CountedSteps:
    """Of a sparsifier's class: ``step`` counts its calls, prunes nothing and returns what it was given; ``repr`` is one word."""

    calls = 0

    def step(self, *args, **kwargs):
        """Instead of new masks: the arguments."""
        self.calls += 1
        return args, kwargs

    def update_mask(self, *args, **kwargs):
        """Never called, as step() computes no mask."""
        raise NotImplementedError

    def __repr__(self):
        return "SPARSIFIER"


class SchedulerContract(WarnsCaller):
    """Mixed into a TestCase, whose ``sparsifier()`` makes a sparsifier of CountedSteps and whose ``attached(sparsifier=None)``
    attaches a scheduler to one, by default a new one, and returns both; ``first_step`` and ``overridden`` are the texts of the two
    warnings.

    Where a test is upstream's, or one of the two classes breaks the promise, the test is the class's own and calls the ``check_`` method.
    """

    def check_order_of_steps(self):
        """step() warns when the scheduler steps first, once; the right order is silent."""
        scheduler, _ = self.attached()
        self.assertCallWarns(scheduler.step, self.first_step)
        for _ in range(2):
            self.assertCallWarns(scheduler.step)

        with recorded_warnings() as caught:
            scheduler, sparsifier = self.attached()
        self.assertWarned(caught)
        for _ in range(3):
            sparsifier.step()
            self.assertCallWarns(scheduler.step)
        self.assertCallWarns(scheduler.step)

    def test_order_counts_only_steps_after_attaching(self):
        """A step made before the scheduler existed does not count as one that it may follow."""
        sparsifier = self.sparsifier()
        sparsifier.step()
        scheduler, _ = self.attached(sparsifier)
        self.assertCallWarns(scheduler.step, self.first_step)

    def test_order_of_steps_warns_of_replaced_step(self):
        """A sparsifier whose step was replaced after attaching cannot be watched, and the second step says so, once."""
        scheduler, sparsifier = self.attached()
        sparsifier.step = lambda: None
        sparsifier.step()
        self.assertCallWarns(scheduler.step, self.overridden)
        self.assertCallWarns(scheduler.step)

    def test_steps_are_counted_once_each(self):
        """As PyTorch's own tests have it: a scheduler's count starts with the constructor's step; each step is counted once."""
        scheduler, sparsifier = self.attached()
        self.assertEqual((sparsifier._step_count, scheduler._step_count), (0, 1))
        for count in (1, 2, 3):
            sparsifier.step()
            self.assertEqual((sparsifier._step_count, scheduler._step_count), (count, count))
            scheduler.step()
            self.assertEqual((sparsifier._step_count, scheduler._step_count), (count, count + 1))

    def test_attached_sparsifier_steps_as_before(self):
        """The counted step passes on arguments and result, runs once a call, and keeps its name."""
        _, sparsifier = self.attached()
        self.assertEqual(sparsifier.step(1, use_path=False), ((1,), {"use_path": False}))
        self.assertEqual(sparsifier.calls, 1)
        self.assertEqual(sparsifier.step.__name__, "step")
        wrapped = sparsifier.step
        self.attached(sparsifier)
        self.assertIs(sparsifier.step, wrapped, "a second scheduler wraps the step a second time")
        sparsifier.step()
        self.assertEqual(sparsifier.calls, 2)

    def test_scheduler_and_sparsifier_are_freed_without_gc(self):
        """The counted step refers weakly to the sparsifier, so no reference cycle keeps it."""
        with without_gc():
            scheduler, sparsifier = self.attached()
            sparsifier.step()
            scheduler.step()
            refs = weakref.ref(sparsifier), weakref.ref(scheduler)
            del sparsifier, scheduler
            self.assertEqual([ref() for ref in refs], [None, None])

    def check_uncopyable(self, groups, attach):
        """A scheduler holds the sparsifier itself: a group may have what cannot be copied, as a lock."""
        groups[0]["guard"] = threading.Lock()
        scheduler, sparsifier = attach()
        sparsifier.step()
        scheduler.step()
        self.assertEqual(scheduler.last_epoch, 1)

    def check_second_scheduler(self):
        """A second scheduler on the sparsifier does not make the first warn that the sparsifier has not stepped."""
        scheduler, sparsifier = self.attached()
        sparsifier.step()
        self.attached(sparsifier)
        self.assertCallWarns(scheduler.step)

    def test_shallow_copy_leaves_the_step_alone(self):
        """copy.copy: a second scheduler with the same sparsifier, whose step stays the one that is counted."""
        scheduler, sparsifier = self.attached()
        wrapped = sparsifier.step
        sparsifier.step()
        copied = copy.copy(scheduler)
        self.assertIs(sparsifier.step, wrapped)
        self.assertEqual(sparsifier._step_count, 1)
        self.assertCallWarns(copied.step)

    def check_copy(self):
        """A deep copy watches its own sparsifier, whose step nobody replaced: it warns where the original would, and only there."""
        scheduler, sparsifier = copy.deepcopy(self.attached())
        self.assertEqual(sparsifier.step(1, use_path=False), ((1,), {"use_path": False}))
        self.assertCallWarns(scheduler.step)
        scheduler, _ = copy.deepcopy(self.attached())
        self.assertCallWarns(scheduler.step, self.first_step)
        scheduler, sparsifier = self.attached()
        sparsifier.step()
        scheduler, sparsifier = copy.deepcopy((scheduler, sparsifier))
        self.assertCallWarns(scheduler.step)
        sparsifier.step()
        self.assertEqual((sparsifier._step_count, sparsifier.step.__name__), (2, "step"))
        wrapped = sparsifier.step
        self.attached(sparsifier)
        self.assertIs(sparsifier.step, wrapped, "a scheduler wraps the step of a copy a second time")

    def check_own_step(self):
        """Only a step replaced after attaching is said to be a problem: one replaced before is counted."""
        sparsifier = self.sparsifier()
        method, seen = sparsifier.step, []
        sparsifier.step = lambda *args, **kwargs: seen.append((args, kwargs)) or method()
        scheduler, _ = self.attached(sparsifier)
        sparsifier.step("before", calls=1)
        self.assertCallWarns(scheduler.step)
        self.assertEqual((seen, sparsifier.calls), ([(("before",), {"calls": 1})], 1))

    def check_no_garbage(self):
        """A step leaves nothing that only the garbage collector frees, a class least of all."""
        scheduler, sparsifier = self.attached()
        with without_gc():
            before = len(object.__subclasses__())
            sparsifier.step()
            scheduler.step()
            scheduler.step()
            self.assertEqual(len(object.__subclasses__()) - before, 0, "classes made by two steps")

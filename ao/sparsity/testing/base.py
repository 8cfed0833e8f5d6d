"""The base case of every test: guarded, cheap, and clear when it fails."""

import contextlib
import random
import unittest

from ao.sparsity.testing import session  # first: it asks whether there is a torch to validate

import numpy as np
import torch
from torch.testing._internal import common_utils

from ao.sparsity.testing import build
from ao.sparsity.testing.guards import Snapshot

# Tiny tensors gain nothing from threads, and on a busy machine they lose; a test that wants more says so.
torch.set_num_threads(1)

# A build with qnnpack alone starts with no engine selected, and "none" could not be selected again after a test.
if torch.backends.quantized.engine == "none" and build.engines():
    torch.backends.quantized.engine = build.engines()[0]

# Torch's hint names a file relative to a folder called "test"; ours is right in this project.
common_utils.PRINT_REPRO_ON_FAILURE = False

# Names here carry no device or dtype suffix of torch's device tests; stripping one imports torch._inductor (1.5 s).
common_utils.remove_device_and_dtype_suffixes = lambda test_name: test_name

# No test compares distributed tensors; asking whether it does imports torch.distributed.tensor and sympy (1 s).
torch.testing._comparison._HAS_DTENSOR = False

_SEED_TORCH = torch.default_generator.manual_seed if build.devices() == ["cpu"] else torch.manual_seed


def _seed(seed=common_utils.SEED):
    """Seed every generator, as torch's function of this name does.

    torch.manual_seed also tells the devices that this build lacks, each of which keeps a stack trace of every call.
    """
    for seed_one in (_SEED_TORCH, np.random.seed, random.seed):
        seed_one(seed)


common_utils.set_rng_seed = _seed

# Modes of torch's own runner that need its heavy per-test machinery (it imports torch._dynamo).
_TORCH_MODES = ("TEST_WITH_TORCHDYNAMO", "TEST_WITH_AOT_EAGER", "TEST_WITH_TORCHINDUCTOR", "TEST_WITH_CROSSREF")


def _is_meta(value):
    return isinstance(value, torch.Tensor) and value.is_meta


class TestCase(common_utils.TestCase):
    """torch's TestCase plus guards against what a test leaves behind, grouped skips and a right command to repeat a failure.

    A subclass that overrides setUp calls ``super().setUp()`` first.
    """

    in_known_defect = False  # set by known_defects.known_defect while its test runs

    def run(self, result=None):
        """Run once, without the import of torch._dynamo (2 s) that torch's TestCase.run costs."""
        skipped_before = len(getattr(result, "skipped", ()))
        self._result, self._counted = result, []
        try:
            if any(getattr(common_utils, mode, False) for mode in _TORCH_MODES):
                outcome = super().run(result)
            else:
                outcome = unittest.TestCase.run(self, result)
        finally:
            for method in self._counted:
                delattr(result, method)
        for test, reason in getattr(result, "skipped", ())[skipped_before:]:
            session.note_skip(test, reason)
        return outcome

    def count(self, method, as_):
        """What unittest is going to report of this run by ``method`` of the result is reported by the method ``as_`` instead."""
        if self._result is not None and method not in self._counted:
            setattr(self._result, method, getattr(self._result, as_))
            self._counted.append(method)

    def setUp(self):
        self._snapshot = Snapshot(self)
        self._gradients_left = None
        self.addCleanup(self._check_nothing_left_behind)
        super().setUp()

    def tearDown(self):
        self._gradients_left = torch.is_grad_enabled()  # torch's tearDown puts the mode back without a word
        super().tearDown()

    def _check_nothing_left_behind(self):
        if self._gradients_left is not None:
            torch.set_grad_enabled(self._gradients_left)
        leaks = self._snapshot.restore()
        if leaks:
            raise self.failureException(f"{self._name()} leaves behind: " + "; ".join(leaks) + self._repeat_hint())

    def _callTestMethod(self, method):
        with self._hint_on_failure():
            method()

    @contextlib.contextmanager
    def subTest(self, *msg, **params):
        """As unittest's, but inside a known defect the first failing case decides, so that it can be compared."""
        if self.in_known_defect:
            yield
        else:
            with super().subTest(*msg, **params), self._hint_on_failure():
                yield

    @contextlib.contextmanager
    def _hint_on_failure(self):
        try:
            yield
        except unittest.SkipTest:
            raise
        except Exception as error:
            hint = self._repeat_hint()
            if not self.in_known_defect and not any(hint in str(arg) for arg in error.args):
                error.args = (f"{error.args[0] if error.args else ''}{hint}", *error.args[1:])
            raise

    def _name(self):
        return f"{type(self).__name__}.{self._testMethodName}"

    def _repeat_hint(self):
        return f"\n\nTo repeat it, from the project's root: python test_ao_sparsity.py {self._name()}"

    def assertEqual(self, x, y, *args, **kwargs):
        """As torch's, but a tensor on meta, which has no values, is not taken for equal to one that has."""
        if _is_meta(x) != _is_meta(y):
            raise self.failureException(f"one of the two has no values: {x!r}, {y!r}")
        super().assertEqual(x, y, *args, **kwargs)

    def assertRaisesRegex(self, expected_exception, expected_regex, *args, **kwargs):
        """As unittest's, but where the build's checks are bare asserts an AssertionError without a text is right, too."""
        kinds = expected_exception if isinstance(expected_exception, tuple) else (expected_exception,)
        if build.BARE_ASSERTS and AssertionError in kinds:
            expected_regex = rf"(?:{getattr(expected_regex, 'pattern', expected_regex)})|^\Z"
        return super().assertRaisesRegex(expected_exception, expected_regex, *args, **kwargs)

    def skip_unless_engine(self, engine, what="quantized kernels"):
        """Skip, naming the engine, unless this build lists it."""
        if engine not in build.engines():
            self.skipTest(f"{what} (no {engine})")

    def skip_unless_device(self, device):
        """Skip, naming the device, unless this machine has it."""
        if device not in build.devices():
            self.skipTest(f"on {device} (no such device)")


def on_every_device(test):
    """Parametrize ``test`` with ``device`` over build.DEVICES; what this machine lacks is skipped by name.

    The class needs torch's ``instantiate_parametrized_tests``.
    """

    def run(self, device):
        self.skip_unless_device(device)
        test(self, device)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return common_utils.parametrize("device", build.DEVICES)(run)

"""The base case of every test: guarded, cheap, and clear when it fails."""

from __future__ import annotations

import contextlib
import os
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from ao.sparsity.testing import session  # first: it asks whether there is a torch to validate

import torch
from torch.testing._internal import common_utils

from ao.sparsity.testing import build, companion, speedups
from ao.sparsity.testing.guards import Snapshot, restore_filters

# Tiny tensors gain nothing from threads, and on a busy machine they lose; a test that wants more says so.
torch.set_num_threads(1)

# What was set for all programs of this machine (in a sitecustomize.py) is no fault of the build.
torch.set_default_dtype(torch.float32)
torch.set_default_device(None)
with contextlib.suppress(AttributeError):
    del torch._GLOBAL_DEVICE_CONTEXT.device_context  # before 2.10 get_default_device(), which lightning calls, fails on None
torch.set_grad_enabled(True)
if torch.are_deterministic_algorithms_enabled():
    torch.use_deterministic_algorithms(False)  # imports torch._inductor (2 s)
torch.set_printoptions(profile="default")

# A build with qnnpack alone starts with no engine selected, and "none" could not be selected again after a test.
if torch.backends.quantized.engine == "none" and build.engines():
    torch.backends.quantized.engine = build.engines()[0]

speedups.apply()


_CLOSENESS = {"msg", "rtol", "atol"}  # arguments of assertEqual that say nothing of values that are the same; msg may have no name


def _is_meta(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta


class TestCase(common_utils.TestCase):
    """torch's TestCase plus guards against what a test leaves behind, grouped skips and a right command to repeat a failure.

    A subclass that overrides setUp calls ``super().setUp()`` first.

    On releases of torch whose runner asks on which hardware a class runs (``hw_classification``), a class with a test that is
    parametrized by on_every_device is ACCELERATOR, every other one GENERIC.
    """

    hw_classification: ClassVar[Any]
    in_companion: ClassVar[bool] = False  # whether it runs in the process beside the others, see ao.sparsity.testing.companion
    _ran_here: ClassVar[int] = 0  # tests that this process has begun to run
    in_known_defect = False  # set by known_defects.known_defect while its test runs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        classification = getattr(common_utils, "HardwareClassification", None)
        if classification is not None:
            by_device = any(getattr(member, "by_device", False) for holder in cls.__mro__ for member in vars(holder).values())
            cls.hw_classification = classification.ACCELERATOR if by_device else classification.GENERIC

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """As unittest's; skips are noted for the closing line, and of subtests only those that fail are told."""
        skipped_before = len(getattr(result, "skipped", ()))
        told = companion.told(self) if result is not None else None
        self._result: Any = result
        self._counted: list[str] = []
        try:
            outcome: unittest.TestResult | None
            if told is not None:
                outcome = companion.replay(self, result, told)
            else:
                TestCase._ran_here += 1
                with _failed_subtests_alone(result), _warnings_stay_warnings():
                    outcome = speedups.run(self, result)
        finally:
            for method in self._counted:
                delattr(result, method)
        for test, reason in getattr(result, "skipped", ())[skipped_before:]:
            session.note_skip(test, reason)
        return outcome

    def _addExpectedFailure(self, result: Any, exc_info: tuple) -> None:
        """As unittest's, without the traceback, which nobody reads and which takes a tenth of a second in all to format."""
        super()._addExpectedFailure(result, (*exc_info[:2], None))  # type: ignore[misc]

    def count(self, method: str, as_: str) -> None:
        """What unittest is going to report of this run by ``method`` of the result is reported by the method ``as_`` instead."""
        if self._result is not None and method not in self._counted:
            setattr(self._result, method, getattr(self._result, as_))
            self._counted.append(method)

    def is_first_here(self) -> bool:
        """Whether the test that runs is the first in this process, so that what a fork of it holds is what the imports have made."""
        return TestCase._ran_here == 1

    def setUp(self) -> None:
        self._snapshot = Snapshot(self)
        self._gradients_left: bool | None = None
        self.addCleanup(self._check_nothing_left_behind)
        super().setUp()

    def tearDown(self) -> None:
        self._gradients_left = torch.is_grad_enabled()  # torch's tearDown puts the mode back without a word
        super().tearDown()

    def _check_nothing_left_behind(self) -> None:
        if self._gradients_left is not None:
            torch.set_grad_enabled(self._gradients_left)
        leaks = self._snapshot.restore()
        del self._snapshot  # results keep the cases that went wrong or were expected to
        if leaks:
            raise self.failureException(f"{self._name()} leaves behind: " + "; ".join(leaks) + self._repeat_hint())

    def _callTestMethod(self, method: Callable[[], Any]) -> None:
        with self._hint_on_failure():
            method()

    @contextlib.contextmanager
    def subTest(self, *msg: Any, **params: Any) -> Iterator[None]:
        """As unittest's, but inside a known defect the first failing case decides, so that it can be compared."""
        if self.in_known_defect:
            yield
        else:
            with super().subTest(*msg, **params), self._hint_on_failure():
                yield

    @contextlib.contextmanager
    def _hint_on_failure(self) -> Iterator[None]:
        try:
            yield
        except unittest.SkipTest:
            raise
        except Exception as error:
            hint = self._repeat_hint()
            if not self.in_known_defect and not any(hint in str(arg) for arg in error.args):
                error.args = (f"{error.args[0] if error.args else ''}{hint}", *error.args[1:])
            raise

    def _name(self) -> str:
        return f"{type(self).__name__}.{self._testMethodName}"

    def _repeat_hint(self) -> str:
        contract = (self._testMethodDoc or "").strip().partition("\n")[0]
        repeat = companion.repeat_hint(type(self).__name__, self._testMethodName)
        return f"\n\nContract: {contract}{repeat[1:]}" if contract else repeat

    def shortDescription(self) -> None:
        """None: the contract stands in a failure's text, and between its name and the dashes nothing that a log's reader trips over."""

    def assertEqual(self, x: Any, y: Any, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """As torch's, but a tensor on meta, which has no values, is not taken for equal to one that has."""
        if len(args) < 2 and kwargs.keys() <= _CLOSENESS and speedups.equal(x, y):
            return
        if _is_meta(x) != _is_meta(y):
            raise self.failureException(f"one of the two has no values: {x!r}, {y!r}")
        super().assertEqual(x, y, *args, **kwargs)

    def assertExpectedInline(self, actual: Any, expect: str, skip: int = 0) -> None:  # type: ignore[override]
        """As expecttest's, but neither EXPECTTEST_ACCEPT nor --accept lets it write into the test what this build happens to do."""
        self.assertMultiLineEqual(str(actual), expect)

    def assertRaises(self, expected_exception: Any, *args: Any, **kwargs: Any) -> Any:
        """As unittest's, but it skips where AssertionErrors are expected and Python was told to leave assert statements out."""
        self._skip_without_asserts(expected_exception)
        return super().assertRaises(expected_exception, *args, **kwargs)

    def _skip_without_asserts(self, expected_exception: Any) -> bool:
        """Whether AssertionErrors are among the expected; skips where the build's assert statements are gone."""
        kinds = expected_exception if isinstance(expected_exception, tuple) else (expected_exception,)
        if build.NO_ASSERTS and AssertionError in kinds:
            self.skipTest("refusals by assert statements (none under python -O)")
        return AssertionError in kinds

    def assertRaisesRegex(self, expected_exception: Any, expected_regex: Any, *args: Any, **kwargs: Any) -> Any:
        """As unittest's, but where the build's checks are bare asserts an AssertionError without a text is right, too."""
        if self._skip_without_asserts(expected_exception) and build.BARE_ASSERTS:
            expected_regex = rf"(?:{getattr(expected_regex, 'pattern', expected_regex)})|^\Z"
        return super().assertRaisesRegex(expected_exception, expected_regex, *args, **kwargs)

    def skip_unless_engine(self, engine: str, what: str = "quantized kernels") -> None:
        """Skip, naming the engine, unless this build lists it."""
        if engine not in build.engines():
            self.skipTest(f"{what} (no {engine})")

    def skip_unless_device(self, device: str) -> None:
        """Skip, naming what is absent, unless this machine has the device: one of build.DEVICES, or any other type of device."""
        if device == build.ACCELERATOR:
            self.skipTest(_NO_ACCELERATOR)
        if device not in build.devices():
            self.skipTest(f"on {device} (no such device)")

    def accelerator(self) -> str:
        """The type of this machine's accelerator; skips where there is none."""
        self.skip_unless_device(build.DEVICES[1])
        return build.DEVICES[1]

    def skip_without_shared_memory(self) -> None:
        """Skip where no tensor can be put into shared memory, in a container without /dev/shm for one."""
        try:
            torch.zeros(1).share_memory_()
        except RuntimeError:
            self.skipTest("tensors in shared memory (none here)")

    def skip_without_torchscript(self) -> None:
        """Skip where PYTORCH_JIT=0 has switched TorchScript off: torch.jit.script and trace return what they are given."""
        if os.environ.get("PYTORCH_JIT", "1").startswith("0"):
            self.skipTest("TorchScript (switched off by PYTORCH_JIT)")

    def skip_without_docstrings(self) -> None:
        """Skip where Python was told to leave docstrings out, which the test reads; PyTorch's that are missing are a failure."""
        if sys.flags.optimize >= 2:
            self.skipTest("what docstrings say (none under python -OO)")


@contextlib.contextmanager
def _failed_subtests_alone(result: Any) -> Iterator[None]:
    """A case that passes is not told to ``result``: pytest counts it like a test, and reports the test under another name."""
    add = getattr(result, "addSubTest", None)
    if add is None:
        yield
        return
    result.addSubTest = lambda test, subtest, error: None if error is None else add(test, subtest, error)
    try:
        yield
    finally:
        del result.addSubTest


_NO_ACCELERATOR = "on an accelerator (none here)"
# A parameter's values: build.DEVICES, under names that do not depend on the machine; what is absent is skipped before setUp.
_EVERY_DEVICE = [
    common_utils.subtest(
        device,
        name=f"device_{name}",
        decorators=[unittest.skip(_NO_ACCELERATOR)] if device == build.ACCELERATOR else [],
    )
    for device, name in zip(build.DEVICES, ("cpu", build.ACCELERATOR))
]


@contextlib.contextmanager
def _warnings_stay_warnings() -> Iterator[None]:
    """``python -W error`` makes exceptions of PyTorch's warnings, which a test would take for a refusal; other filters stay."""
    kept = [entry for entry in warnings.filters if entry[0] != "error"]
    if len(kept) == len(warnings.filters):
        yield
    else:
        with warnings.catch_warnings():
            restore_filters(kept)
            yield


def on_every_device(test: Callable[..., None]) -> Callable[..., None]:
    """Parametrize ``test`` with ``device`` over build.DEVICES; where the machine has no accelerator that part is skipped by name.

    The class needs torch's ``instantiate_parametrized_tests``.
    """

    def run(self: TestCase, device: str) -> None:
        self.skip_unless_device(device)
        test(self, device)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.by_device = True  # type: ignore[attr-defined]
    return common_utils.parametrize("device", _EVERY_DEVICE)(run)

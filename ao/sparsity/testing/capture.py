"""What a call does besides returning a value: warnings, printed text, memory that only the garbage collector frees."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ao.sparsity.testing import build


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """All warnings of the block as a list, none filtered, none printed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Turn the garbage collector off, so that the block sees only what reference counting frees."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def stdout_of(function: Callable[[], Any]) -> str:
    """What ``function()`` prints to standard output."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        function()
    return out.getvalue()


class WarnsCaller:
    """Assertion on recorded warnings, for a TestCase."""

    def assertWarned(self: Any, caught: Sequence[warnings.WarningMessage], *messages: str) -> None:
        """The warnings are UserWarnings with the texts ``messages``, in order; each points at the calling test (from 2.10 on)."""
        caller = sys._getframe(1).f_code.co_filename
        self.assertEqual(len(caught), len(messages), f"warnings: {[str(w.message) for w in caught]}, expected {messages}")
        for warning, message in zip(caught, messages):
            self.assertEqual(str(warning.message), message)
            self.assertIs(warning.category, UserWarning)
            if build.WARNINGS_NAME_CALLER:
                self.assertEqual(warning.filename, caller, "the warning points at another file than the caller's")

    def assertCallWarns(self: Any, function: Callable[[], Any], *messages: str) -> None:
        """``function()`` warns of exactly this, as assertWarned() has it, and points at its caller, which is here."""
        with recorded_warnings() as caught:
            function()
        self.assertWarned(caught, *messages)

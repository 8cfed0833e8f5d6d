"""What the tests ask of optional packages: where one is not installed, the tests that need it are skipped, and all others run."""

import importlib
import importlib.util
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

try:
    hypothesis: Any = importlib.import_module("hypothesis")
    st: Any = importlib.import_module("hypothesis.strategies")
except ImportError:
    # Strategies of any kind can be made and joined; none is drawn from.
    hypothesis, st = mock.MagicMock(), mock.MagicMock()
    hypothesis.given.return_value = unittest.skip("generated input (no hypothesis)")
    hypothesis.settings.return_value = lambda test: test

given, settings, HealthCheck = hypothesis.given, hypothesis.settings, hypothesis.HealthCheck
# The same examples in every run, whatever the machine's speed, and none kept in a folder.
settings.register_profile("the same everywhere", database=None, derandomize=True, deadline=None)
settings.load_profile("the same everywhere")


def needs(package: str, what: str) -> Callable:
    """Skip a test, or a class of tests, of ``what`` where a package cannot be imported."""
    return unittest.skipIf(importlib.util.find_spec(package) is None, f"{what} (no {package})")


def slow(test: Callable) -> Callable:
    """Let conftest.py mark a test that takes seconds."""
    test.slow = True  # type: ignore[attr-defined]
    return test

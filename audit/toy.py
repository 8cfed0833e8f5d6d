"""A package of a few lines, its tests and its runner, on which the tests of the audit try the whole machinery."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audit.project import Project

PACKAGE = "toykit"

#: What is mutated. ``never_called`` has no test; ``Guard.check`` ends the process when its condition is turned round.
SOURCES = {
    "__init__.py": "",
    "sums.py": """
        def clamp(x, low, high=10):
            if x < low:
                return low
            return min(x, high)

        def never_called(x):
            return x + 1
    """,
    "guard.py": """
        import os

        class Guard:
            LIMIT = 5

            @property
            def limit(self):
                return self.LIMIT

            def check(self, x):
                if x is None:
                    os.abort()
                return True
    """,
}

RUNNER = """
    import unittest
    from suite_of_toy.cases import TestSums, TestGuard

    if __name__ == "__main__":
        unittest.main()
"""

CASES = """
    import os
    import unittest

    from toykit.guard import Guard
    from toykit.sums import clamp

    class TestSums(unittest.TestCase):
        def test_low(self):
            self.assertEqual(clamp(-1, 0), 0)

        @unittest.expectedFailure
        def test_known_defect(self):
            self.assertEqual(clamp(3, 0), 10)

        @unittest.skip("why")
        def test_not_asked(self):
            self.fail("not asked")

    class TestGuard(unittest.TestCase):
        def test_check(self):
            self.assertTrue(Guard().check(1))
            self.assertEqual(Guard().limit, 5)
"""


def write(folder: Path, cases: str = CASES, sources: dict[str, str] | None = None) -> Project:
    """Write the toy below ``folder`` and return it as a project; the package goes to ``folder/site/toykit``."""
    site, tests = folder / "site" / PACKAGE, folder / "project" / "suite_of_toy"
    for directory in (site, tests):
        directory.mkdir(parents=True, exist_ok=True)
    for name, text in (SOURCES if sources is None else sources).items():
        (site / name).write_text(textwrap.dedent(text).lstrip())
    (tests / "__init__.py").write_text("")
    (tests / "cases.py").write_text(textwrap.dedent(cases).lstrip())
    (tests.parent / "run_toy.py").write_text(textwrap.dedent(RUNNER).lstrip())
    return Project(tests.parent, "run_toy.py", ("run_toy.py", "suite_of_toy"), {"toy": (PACKAGE,)}, "mutmut")


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[None]:
    """The toy below ``folder`` is importable here and in the processes started here."""
    site, before = str(folder / "site"), os.environ.get("PYTHONPATH")
    sys.path.insert(0, site)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, before]))
    try:
        yield
    finally:
        sys.path.remove(site)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Case(unittest.TestCase):
    """A test with a folder of its own, ``folder``, in which the toy can be imported when it has been written there."""

    def setUp(self) -> None:
        self.folder = Path(self.entered(tempfile.TemporaryDirectory()))
        self.entered(installed(self.folder))

    def entered(self, manager: contextlib.AbstractContextManager) -> Any:
        """What a context manager gives, until the test is over; as unittest's enterContext, which Python 3.10 does not have."""
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

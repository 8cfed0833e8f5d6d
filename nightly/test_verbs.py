"""Tests of how the package is put together."""

import sys
import unittest
from pathlib import Path


class TestModules(unittest.TestCase):
    """The modules' names."""

    def test_no_module_hides_one_of_the_standard_library(self):
        """The driver and the stopwatch run as scripts from this folder, which then comes first where modules are looked for."""
        names = {file.stem for file in Path(__file__).parent.glob("*.py")} - {"__init__", "__main__"}
        self.assertEqual(names & set(sys.stdlib_module_names), set())


if __name__ == "__main__":
    unittest.main()

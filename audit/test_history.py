"""Mistakes of refactorings: their form, and the proof that each is one."""

import tempfile
import unittest
from collections import Counter
from pathlib import Path

import torch

from audit import history, mending, probes, toy
from audit.edits import WRITTEN_FOR, Edit, holds
from audit.history import Mistake
from audit.project import Project
from audit.variants import Asker


class TestProbes(unittest.TestCase):
    slow = 4

    def test_mistake_without_proof_is_named(self):
        """One that does not fit, one whose probe prints the same, one whose probe is no code; a good one is not."""
        clamp = Edit("toykit.sums", "clamp", "return low", "return high")
        found = [
            Mistake("good", (clamp,), "from toykit.sums import clamp; print(clamp(0, 1))"),
            Mistake(
                "raises", (Edit("toykit.sums", "clamp", "return low", "raise ValueError"),), "from toykit.sums import clamp; clamp(0, 1)"
            ),
            Mistake("same", (clamp,), "from toykit.sums import clamp; print(clamp(2, 1))"),
            Mistake("broken", (clamp,), "print("),
            Mistake("misfit", (Edit("toykit.sums", "clamp", "nowhere", ""),), "print(1)"),
        ]
        with tempfile.TemporaryDirectory() as folder, toy.installed(Path(folder)):
            faults = probes.faults(Asker(toy.write(Path(folder)), Path(folder, "work"), [], 2), found)
        self.assertEqual([fault.partition(":")[0] for fault in faults], ["misfit", "same", "broken"])


class TestMistakes(unittest.TestCase):
    def test_every_module_has_some(self):
        """At least 150 in all, and one for each module that has functions."""
        found = history.load()
        self.assertGreaterEqual(len(found), 150)
        by_module = Counter(one.items[0].module for one in found)
        texts, _ = mending.installed_sources(Project())
        self.assertEqual([module for module, text in texts.items() if "def " in text and not by_module[module]], [])


class TestProof(unittest.TestCase):
    slow = 4

    def test_mistakes_change_behaviour(self):
        """Each probe prints something else with its mistake than without it: a few of them; ``audit probes`` asks all."""
        if not holds(WRITTEN_FOR, torch.__version__):
            self.skipTest(f"mistakes in the packages (written for torch {WRITTEN_FOR})")
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(probes.faults(Asker(Project(), Path(folder), [], 2), history.load()[::80]), [])


if __name__ == "__main__":
    unittest.main()

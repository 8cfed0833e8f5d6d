"""What commands cost, measured on small ones."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from audit import cost
from audit.project import AuditError, Project

PROJECT = Path(__file__).resolve().parents[1]


class TestRun(unittest.TestCase):
    def test_run_tells_seconds_and_peak_memory(self):
        """A process that fills 128 MiB and sleeps 0.1 s needs at least that, and not the double memory.

        Measured from a fresh interpreter, as ``python -m audit`` is: Linux counts what a process held before it became the command.
        """
        code = "import time; x = b'x' * (128 << 20); time.sleep(0.1)"
        measure = "import sys; from pathlib import Path; from audit import cost; print(*cost.run(sys.argv[1:], Path.cwd()))"
        command = [sys.executable, "-c", measure, sys.executable, "-c", code]
        printed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        seconds, mebibytes = map(float, printed.split())
        self.assertGreater(seconds, 0.1)
        self.assertGreater(mebibytes, 128)
        self.assertLess(mebibytes, 256)

    def test_failing_command_is_an_error(self):
        """Its status and what it said are told; a broken run is no quick run."""
        with self.assertRaisesRegex(AuditError, "(?s)status 3.*it broke"):
            cost.run([sys.executable, "-c", "import sys; print('it broke', file=sys.stderr); sys.exit(3)"], Path.cwd())


class TestMeasure(unittest.TestCase):
    def test_measure_gives_ratios_of_medians(self):
        """The runner's time over the bare import's, for the whole and for the filter."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "run.py").write_text("")
            python = Path(folder, "python")
            python.write_text('#!/bin/sh\ncase "$*" in *-k*) sleep 0.15;; *run.py*) sleep 0.3;; *) sleep 0.1;; esac\n')
            python.chmod(0o755)
            result = cost.measure(Project(root=Path(folder), runner="run.py"), str(python), 1)
        self.assertGreater(result.bare, 0.1)
        self.assertGreater(result.suite, result.filtered)
        self.assertGreater(result.filtered, 1)

    def test_goals_are_all_to_be_met(self):
        """One figure above its goal is enough to miss it."""
        self.assertTrue(cost.Cost(2.0, 5.0, 1.35, 400).within)
        for worse in ((2.0, 5.01, 1.35, 400), (2.0, 5.0, 1.36, 400), (2.0, 5.0, 1.35, 401)):
            with self.subTest(worse):
                self.assertFalse(cost.Cost(*worse).within)


if __name__ == "__main__":
    unittest.main()

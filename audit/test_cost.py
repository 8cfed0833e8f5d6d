"""What commands cost, measured on small ones."""

import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from unittest import mock

from audit import cost
from audit.project import AuditError, Project

LINUX = sys.platform == "linux"


def script(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


class TestRun(unittest.TestCase):
    def test_run_tells_wall_clock_and_processor_seconds(self):
        """A command that sleeps costs no processor time; what its children compute is counted."""
        slept = cost.run(script("import time; time.sleep(0.3)"), Path.cwd())
        self.assertGreater(slept.seconds, 0.3)
        self.assertLess(slept.cpu, 0.3)
        busy = "import time\nwhile time.process_time() < 0.4: pass"
        self.assertGreater(
            cost.run(script(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"), Path.cwd()).cpu, 0.4
        )

    @unittest.skipUnless(LINUX, "the memory of a process tree (Linux alone)")
    def test_memory_is_that_of_the_whole_tree(self):
        """64 MiB each in a parent and a fork of it, but 64 MiB that both share count once."""
        text = """
            import os, time
            shared = b"x" * (64 << 20)
            pid = os.fork()
            own = b"y" * (64 << 20)
            time.sleep(0.5)
            if pid:
                os.wait()
        """
        found = cost.run(script(text), Path.cwd(), look=True).pss
        self.assertGreater(found, 192)
        self.assertLess(found, 250)

    @unittest.skipUnless(LINUX, "the choice of cores (Linux alone)")
    def test_cores_are_kept_to(self):
        """The command sees as many as it was given."""
        cost.run(script("import os, sys; sys.exit(len(os.sched_getaffinity(0)) != 1)"), Path.cwd(), cores=1)

    def test_failing_command_is_an_error(self):
        """Its status and what it said are told; a broken run is no quick run."""
        with self.assertRaisesRegex(AuditError, "(?s)status 3.*it broke"):
            cost.run([sys.executable, "-c", "import sys; print('it broke', file=sys.stderr); sys.exit(3)"], Path.cwd())


def quick(seconds):
    """A stand-in for cost.run: the first of the words that occurs in a command says what it takes."""

    def run(command, *arguments, **options):
        taken = next(taken for word, taken in seconds.items() if word in " ".join(command))
        return cost.Run(taken, 2 * taken, 100.0)

    return mock.patch.object(cost, "run", run)


class TestMeasure(unittest.TestCase):
    def test_measure_gives_ratios_to_the_bare_import(self):
        """The runner's time over the bare import's, for the whole and for the filter; the slowest tests, slowest first."""
        with tempfile.TemporaryDirectory() as folder, quick({"-k": 1.5, "run.py": 3.0, cost.BARE: 1.0}):
            python = Path(folder, "python")
            python.write_text(
                '#!/bin/sh\ncase "$*" in *find_spec*) exit 1;; *suite.py*) echo \'{"seconds": {"a": 0.1, "b": 0.3}}\' > $4;; esac\n'
            )
            python.chmod(0o755)
            result = cost.measure(Project(root=Path(folder), runner="run.py"), str(python), 1)
        values = {figure.name: figure.value for figure in result.figures}
        self.assertEqual({value for name, value in values.items() if name.startswith("whole suite") and "time" not in name}, {3.0})
        self.assertEqual(values["-k TestFPGMPruner"], 1.5)
        self.assertEqual(result.slowest, [("b", 0.3), ("a", 0.1)])
        self.assertIn("\n   0.30 s  b\n", str(result) + "\n")

    def test_rounds_are_compared_with_their_own_bare_imports(self):
        """Of rounds that take 10, 1 and 2 times as long, with 2, 3 and 4 times the bare import, the figure is 3; medians' ratio is 4."""
        bare = [1.0, 10.0, 1.0, 2.0]  # the first round warms the caches
        suite = [1.0, 20.0, 3.0, 8.0]
        left = {cost.BARE: [seconds for seconds in bare for _ in range(cost.BARE_RUNS)], "-k": [1.0] * 4, "run.py": suite}

        def run(command, *arguments, **options):
            word = next(word for word in left if word in " ".join(command))
            return cost.Run(left[word][0], left[word].pop(0), 100.0)

        with (
            mock.patch.object(cost.sys, "platform", "darwin"),
            mock.patch.multiple(cost, run=run, _seconds=lambda *arguments: {}, _has_extras=lambda python: False),
        ):
            result = cost.measure(Project(root=Path.cwd(), runner="run.py"), "python", 3)
        figures = [(figure.value, figure.unit) for figure in result.figures if figure.name.startswith("whole suite")]
        self.assertEqual(figures, [(3.0, "times the bare import"), (8.0, "s"), (3.0, "times the bare import's")])

    def test_project_is_measured_beside_the_bare_import(self):
        """The whole test command and its quick part, in times of the bare import, as wall-clock and as processor time."""
        with quick({"not slow": 15.0, "pytest": 90.0, cost.BARE: 1.0}):
            figures = cost.measure_project(Project(), sys.executable, 3).figures
        self.assertEqual([(figure.value, figure.at_most) for figure in figures], [(1, None), (90, 80), (90, None), (15, 20), (15, None)])

    def test_goals_are_all_to_be_met(self):
        """One figure above its goal is enough to miss it, and says so."""
        good, bad = cost.Figure("x", 3.5, "times", 3.5), cost.Figure("y", 3.51, "times", 3.5)
        self.assertTrue(cost.Cost([good, cost.Figure("z", 99, "s")]).within)
        self.assertFalse(cost.Cost([good, bad]).within)
        self.assertEqual(str(bad), "y: 3.51 times (at most 3.5: MISSED)")

    def test_machine_without_cores_to_choose_measures_all_the_same(self):
        """On other systems than Linux neither cores nor the memory of a tree are told."""
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(cost.sys, "platform", "darwin"):
            python = Path(folder, "python")
            python.write_text('#!/bin/sh\ncase "$*" in *find_spec*) exit 0;; *suite.py*) echo \'{"seconds": {}}\' > $4;; esac\n')
            python.chmod(0o755)
            result = cost.measure(Project(root=Path(folder), runner="run.py"), str(python), 1)
        self.assertIn("whole suite with all extras on this machine", {figure.name for figure in result.figures})
        self.assertNotIn("MiB", str(result))


if __name__ == "__main__":
    unittest.main()

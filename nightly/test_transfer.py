"""Tests of results that travel: JUnit files with their environment, and other histories."""

import json
import tempfile
import unittest
from pathlib import Path

from nightly import junit, transfer
from nightly.history import History, Row
from nightly.made_up import make_row, make_run, put
from nightly.outcomes import OUTCOMES, NightlyError

ROWS = [
    make_row(f"TestX.test_{outcome.replace(' ', '_')}", outcome, f"why\nit <is> {outcome} \x1b[0m", 0.25, "scheduler")
    for outcome in OUTCOMES
]
PYTEST = """<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="4">
<testcase classname="ao.sparsity.test_kernels.TestX" name="test_a" time="0.5"/>
<testcase classname="ao.sparsity.test_kernels.TestX" name="test_b" time="0.1"><failure message="short">long</failure></testcase>
<testcase classname="ao.sparsity.test_kernels.TestX" name="test_c" time="0"><skipped message="no engine"/></testcase>
<testcase classname="ao.sparsity.test_kernels.TestX" name="test_d" time="0"><error>broken</error></testcase>
</testsuite></testsuites>"""


class TestTransfer(unittest.TestCase):
    """Files in a folder, taken into a history."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.history = History(self.folder / "history.sqlite", create=True)
        self.addCleanup(self.history.close)

    def put_file(self, name, text, about=None):
        file = self.folder / name
        file.write_text(text)
        if about is not None:
            file.with_suffix(".json").write_text(about if isinstance(about, str) else json.dumps(about))
        return file

    def test_written_results_are_read_back_whole(self):
        """Every outcome, time, message and the environment survive the way through JUnit XML."""
        run = make_run("a target/with: odd name", notes=["a note"])
        junit.write(self.folder / "new" / "folder", run, ROWS)
        (file,) = (self.folder / "new" / "folder").glob("*.xml")
        read, rows = junit.read(file)
        self.assertEqual(read, run)
        wanted = [row._replace(message="" if row.outcome == "" else row.message.replace("\x1b", "?")) for row in ROWS]
        self.assertEqual(rows, wanted)

    def test_written_files_mean_the_same_to_other_programs(self):
        """What is red here is a failure or an error to a reader that knows JUnit alone."""
        import junitparser

        junit.write(self.folder, make_run(), ROWS)
        (suite,) = junitparser.JUnitXml.fromfile(str(self.folder / "stable_box.xml"))
        self.assertEqual((suite.tests, suite.failures, suite.errors, suite.skipped), (11, 2, 3, 3))

    def test_results_of_pytest_are_read(self):
        """JUnit XML of another program needs the environment beside it, with target and start, and no more."""
        file = self.put_file("results.xml", PYTEST, {"target": "cluster", "started": "2026-03-31T04:30:00+02:00", "torch": "2.9.0"})
        run, rows = junit.read(file)
        told = (run.target, run.machine, run.started, run.torch, run.state)
        self.assertEqual(told, ("cluster", "unknown", "2026-03-31T02:30:00Z", "2.9.0", "complete"))
        self.assertEqual(
            rows,
            [
                Row("TestX.test_a", "kernels", "pass", 0.5, ""),
                Row("TestX.test_b", "kernels", "fail", 0.1, "long"),
                Row("TestX.test_c", "kernels", "skip", 0.0, "no engine"),
                Row("TestX.test_d", "kernels", "error", 0.0, "broken"),
            ],
        )

    def test_files_folders_and_histories_are_taken_in_once(self):
        """A folder of JUnit files and another history bring their runs, in the order of their nights, the second time none."""
        junit.write(self.folder / "results" / "deep", make_run("one", night=1, nights=3), ROWS)
        other = self.folder / "other.sqlite"
        with History(other, create=True) as history:
            for night in (0, 2):
                put(history, make_run("two", night, 3), {"A.x": "pass"})
            put(history, make_run("unfinished", state="running"), {})
        new, problems = transfer.take_in(self.history, [other, self.folder / "results"])
        self.assertEqual(([run.uid for run in new], problems), (["two-0", "one-1", "two-2"], []))
        self.assertEqual(transfer.take_in(self.history, [self.folder / "results", other, other]), ([], []))
        self.assertEqual([target.name for target in self.history.targets()], ["one", "two"])

    def test_bad_files_are_told_and_spoil_no_other(self):
        """Each file that cannot be used is one line that names it; the good one is still taken in."""
        good = {"target": "good"}
        (self.folder / "empty").mkdir()
        cases = {
            self.folder / "missing.xml": "no such file",
            self.put_file("lonely.xml", PYTEST): "lonely.json beside it",
            self.put_file("nothing.xml", "<testsuites", good): "no JUnit XML",
            self.put_file("page.xml", "<html><body/></html>", good): "no JUnit XML",
            self.put_file("brackets.xml", PYTEST, "[1]"): "no environment of a run",
            self.put_file("unnamed.xml", PYTEST, {"torch": "2.9"}): "target is missing",
            self.put_file("number.xml", PYTEST, {"target": 3}): "target is of the wrong type",
            self.put_file("date.xml", PYTEST, {"target": "x", "started": "last night"}): "last night",
            self.put_file("state.xml", PYTEST, {"target": "x", "state": "running"}): "running",
            self.put_file("text.sqlite", "no data base " * 99): "not a database",
            self.folder / "empty": "no JUnit XML in this folder",
        }
        sound = self.put_file("sound.xml", PYTEST, good)
        new, problems = transfer.take_in(self.history, [*cases, sound])
        self.assertEqual([run.target for run in new], ["good"])
        self.assertEqual(len(problems), len(cases))
        for (file, wanted), problem in zip(cases.items(), problems):
            with self.subTest(file=file.name):
                self.assertIn(wanted, problem)
                self.assertIn(file.stem, problem)
                self.assertEqual(len(problem.splitlines()), 1)

    def test_folder_that_cannot_be_written_is_one_line(self):
        """A JUnit folder in an impossible place is told with advice."""
        self.put_file("file", "")
        with self.assertRaisesRegex(NightlyError, "--junit"):
            junit.write(self.folder / "file" / "below", make_run(), ROWS)

    def test_short_night_from_elsewhere_is_no_baseline(self):
        """Imported nights are held to the same floor on their number of tests."""
        for night, names in enumerate((10, 3)):
            junit.write(self.folder / f"night {night}", make_run("one", night, 2), [make_row(f"A.test_{name}") for name in range(names)])
        new, _ = transfer.take_in(self.history, [self.folder])
        self.assertEqual([run.short for run in new], [0, 1])


if __name__ == "__main__":
    unittest.main()

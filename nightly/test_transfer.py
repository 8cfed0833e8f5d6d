"""Tests of results that travel: JUnit files with their environment, and other histories."""

import json
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

from nightly import junit, transfer
from nightly.extras import needs
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
        run = make_run("a target/with: odd name", notes=["a note"], strict=1, suite_version="2.0")
        junit.write(self.folder / "new" / "folder", run, ROWS)
        (file,) = (self.folder / "new" / "folder").glob("*.xml")
        read, rows = junit.read(file)
        self.assertEqual(read, run)
        self.assertEqual(rows, [row._replace(message=row.message.replace("\x1b", "\\x1b")) for row in ROWS])

    @needs("junitparser", "JUnit XML as another program reads it")
    def test_written_files_mean_the_same_to_other_programs(self):
        """What is red here is a failure or an error to a reader that knows JUnit alone."""
        import junitparser

        junit.write(self.folder, make_run(), ROWS)
        (suite,) = junitparser.JUnitXml.fromfile(str(next(self.folder.glob("stable*.xml"))))
        self.assertEqual((suite.tests, suite.failures, suite.errors, suite.skipped), (11, 2, 3, 3))

    def test_written_files_fit_the_schema_of_jenkins(self):
        """What is written has no element, attribute or form that the xUnit plugin's schema does not know; the check knows a fault."""
        content = junit.to_xml(make_run("odd \x00 target"), [*ROWS, make_row("A.test_x", "fail", "", 12345.67891)])
        self.assertEqual(schema_faults(content), [])
        wrong = content.replace(b"<skipped", b"<properties/><skipped", 1).replace(b'time="0.250"', b'time="0.2500"', 1)
        self.assertEqual(len(schema_faults(wrong)), 2)

    def test_message_is_the_line_that_tells_most(self):
        """What a viewer shows first of a failure is its exception, not how to repeat it."""
        repeat = "To repeat it, from the project's root: python test_ao_sparsity.py TestX.test_a"
        start = "Traceback (most recent call last):\n  File 'x.py', line 3"
        cases = {
            f"{start}\nAssertionError: 3 != 4 : level=0.5\n\n{repeat}": "3 != 4 : level=0.5",
            f"{start}\nAssertionError: \nTensors are not close\n{repeat}": "Tensors are not close",
            f"torch.cuda.OutOfMemoryError: none left\n{repeat}": "torch.cuda.OutOfMemoryError: none left",
            f"(case=1) {start}\nValueError: no": "ValueError: no",
            "the time limit of one test was reached\n  File x": "the time limit of one test was reached",
        }
        for message, wanted in cases.items():
            with self.subTest(message=message):
                (case,) = ElementTree.fromstring(junit.to_xml(make_run(), [make_row("A.b", "fail", message)])).iter("failure")
                self.assertIn(wanted, case.get("message"))
                self.assertNotIn("To repeat", case.get("message"))

    def test_each_target_has_files_of_its_own(self):
        """Targets whose names differ in what a file system cannot hold, or are endless, have different files with short names."""
        names = ["Ядро", "Сборка", "torch>=2.9", "torch<=2.9", "VM", "vm", "x" * 300, "x" * 301, "", "../up", "a@b"]
        stems = {junit.file_stem(make_run(name, machine=machine)) for name in names for machine in ("vm", "b@c", "VM")}
        self.assertEqual(len({stem.lower() for stem in stems}), 3 * len(names))
        for stem in stems:
            with self.subTest(stem=stem):
                self.assertLess(len(stem), 100)
                self.assertRegex(stem, r"^[\w=@][\w.=@-]*$")

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
        taken = transfer.take_in(self.history, [other, self.folder / "results"])
        self.assertEqual(([run.uid for run in taken.new], taken.problems), (["two-0", "one-1", "two-2"], []))
        again = transfer.take_in(self.history, [self.folder / "results", other, other])
        self.assertEqual((again.new, again.problems), ([], []))
        self.assertEqual([target.name for target in self.history.targets()], ["one", "two"])

    def test_bad_files_are_told_and_spoil_no_other(self):
        """Each file that cannot be used is one line that names it; the good one is still taken in, and waits to be judged."""
        good = {"target": "good", "started": "2026-03-31"}
        bare = '<testsuite name="x"><testcase/></testsuite>'
        (self.folder / "empty").mkdir()
        cases = {
            self.folder / "missing.xml": "no such file",
            self.put_file("lonely.xml", PYTEST): "lonely.json beside it",
            self.put_file("nothing.xml", "<testsuites", good): "no JUnit XML",
            self.put_file("page.xml", "<html><body/></html>", good): "no JUnit XML",
            self.put_file("brackets.xml", PYTEST, "[1]"): "no environment of a run",
            self.put_file("unnamed.xml", PYTEST, {"torch": "2.9"}): "target is missing",
            self.put_file("number.xml", PYTEST, {"target": 3}): "target is of the wrong type",
            self.put_file("blank.xml", PYTEST, {"target": " \n"}): "target is missing",
            self.put_file("undated.xml", PYTEST, {"target": "x"}): "started is missing",
            self.put_file("date.xml", PYTEST, {"target": "x", "started": "last night"}): "last night",
            self.put_file("future.xml", PYTEST, {"target": "x", "started": "2099-01-01"}): "in the future",
            self.put_file("ancient.xml", PYTEST, {"target": "x", "started": "0001-01-01"}): "before 2000",
            self.put_file("edge.xml", PYTEST, {"target": "x", "started": "0001-01-01T00:00:00+14:00"}): "edge.json",
            self.put_file("state.xml", PYTEST, {**good, "state": "running"}): "running",
            self.put_file("engines.xml", PYTEST, {**good, "environment": {"engines": 5}}): "engines is of the wrong type",
            self.put_file("tree.xml", PYTEST, {**good, "environment": {"x": {"y": 1}}}): "x is of the wrong type",
            self.put_file("notes.xml", PYTEST, {**good, "notes": [3]}): "notes is of the wrong type",
            self.put_file("deep.xml", PYTEST, "[" * 100_000): "no environment of a run",
            self.put_file("bare.xml", bare, good): "a testcase has no name",
            self.put_file("text.sqlite", "no data base " * 99): "not a database",
            self.folder / "empty": "no JUnit XML in this folder",
        }
        sound = self.put_file("sound.xml", PYTEST, good)
        taken = transfer.take_in(self.history, [*cases, sound])
        problems = taken.problems
        self.assertEqual(([run.target for run in taken.new], taken.untold), (["good"], taken.new))
        self.assertEqual(len(problems), len(cases), problems)
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
        taken = transfer.take_in(self.history, [self.folder])
        self.assertEqual([run.short for run in taken.new], [0, 1])

    def test_failure_is_not_hidden_by_a_namesake(self):
        """Names keep their module; of several results of one name the worst counts, and a skip beside a pass is a part."""
        cases = """<testsuites><testsuite name="a">
            <testcase classname="pkg.test_one.TestX" name="test_a"><failure>broken</failure></testcase>
            <testcase classname="pkg.test_two.TestX" name="test_a"/>
            <testcase name="a"/><testcase name="a"><failure>once</failure></testcase>
            <testsuite name="within"><testcase name="a"/><testcase name="b"/></testsuite>
            <testcase name="b"><skipped message="no engine"/></testcase>
        </testsuite></testsuites>"""
        _, rows = junit.read(self.put_file("x.xml", cases, {"target": "x", "started": "2026-03-31"}))
        self.assertEqual(
            {row.name: (row.area, row.outcome, row.message) for row in rows},
            {
                "pkg.test_one.TestX.test_a": ("one", "fail", "broken"),
                "pkg.test_two.TestX.test_a": ("two", "pass", ""),
                "a": ("main", "fail", "one of 3 results of this name\nonce"),
                "b": ("main", "pass", "partly skipped: no engine"),
            },
        )

    def test_words_of_other_programs_are_known(self):
        """Expected failures and unexpected successes of pytest and unittest-xml-reporting are such, and a flaky test is one."""
        cases = """<testsuite name="a">
            <testcase name="a"><skipped type="pytest.xfail" message="known"/></testcase>
            <testcase name="b"><failure message="[XPASS(strict)] known"/></testcase>
            <testcase name="c"><error type="UnexpectedSuccess"/></testcase>
            <testcase name="d" time="1,234.5"><flakyFailure type="x"><stackTrace>now and then</stackTrace></flakyFailure></testcase>
            <testcase name="e" time="nan"><rerunFailure type="x"/><system-out>noise</system-out></testcase>
            <testcase name="f"><failure type="error">x</failure><error type="skip">y</error></testcase>
        </testsuite>"""
        _, rows = junit.read(self.put_file("x.xml", cases, {"target": "x", "started": "2026-03-31"}))
        told = [(row.name, row.outcome, row.message, row.seconds) for row in rows]
        self.assertEqual(told[0], ("a", "expected failure", "known", 0.0))
        self.assertEqual([outcome for _, outcome, _, _ in told[1:3]], ["unexpected success"] * 2)
        self.assertEqual(told[3:5], [("d", "flaky", "now and then", 1234.5), ("e", "pass", "", 0.0)])
        self.assertEqual(told[5][1], "error")

    def test_equal_results_of_another_night_are_another_night(self):
        """The same XML with another day, machine or torch is another run; with the same words it is the same."""
        said = {"target": "x", "started": "2026-03-30"}
        for number, change in enumerate(({}, {"started": "2026-03-31"}, {"machine": "other"}, {"torch": "2.9"}, {"notes": ["n"]}, {})):
            self.put_file(f"{number}.xml", PYTEST, {**said, **change})
        self.assertEqual(len(transfer.take_in(self.history, [self.folder]).new), 5)
        two = [self.put_file(f"own {n}.xml", PYTEST, {**said, "started": f"2026-03-0{n}", "uid": "mine"}) for n in (1, 2)]
        taken = transfer.take_in(self.history, two)
        self.assertEqual([run.day for run in taken.new], ["2026-03-01"])
        self.assertRegex(taken.problems[0], "own 2.*uid mine is that of another run")

    def test_start_may_stand_in_the_xml(self):
        """Where the environment does not say when the run began, the suite's timestamp does."""
        timed = PYTEST.replace('name="pytest"', 'name="pytest" timestamp="2026-03-31T04:30:00+02:00"')
        run, _ = junit.read(self.put_file("x.xml", timed, {"target": "x"}))
        self.assertEqual(run.started, "2026-03-31T02:30:00Z")

    def test_files_of_two_runs_are_not_taken_for_one(self):
        """XML and JSON that belong to different nights, as a copy under way has them, are refused by name."""
        junit.write(self.folder, make_run(uid="new"), ROWS)
        (beside,) = self.folder.glob("*.json")
        beside.write_text(beside.read_text().replace('"new"', '"old"'))
        taken = transfer.take_in(self.history, [self.folder])
        self.assertRegex(taken.problems[0], "is of another run")

    def test_run_of_another_history_is_checked_like_a_file(self):
        """A history that holds what cannot be shown spoils no page: each such run is named, the others are taken in."""
        other = self.folder / "other.sqlite"
        with History(other, create=True) as history:
            put(history, make_run("good"), {"A.x": "pass"})
            put(history, make_run("odd"), {"A.x": "an outcome of its own"})
            bad = put(history, make_run("bad"), {"A.x": "pass"})
            history.db.execute("UPDATE run SET finished = 'never' WHERE id = ?", (bad.id,))
        taken = transfer.take_in(self.history, [other])
        self.assertEqual([run.target for run in taken.new], ["good"])
        self.assertEqual(len(taken.problems), 2)
        for problem in taken.problems:
            self.assertRegex(problem, "other.sqlite: the run bad-0: finished: |other.sqlite: the outcome 'an outcome of its own' of A.x")

    def test_full_disk_leaves_the_former_files(self):
        """Where a file cannot be written whole, the one of the night before stays as it is, and nothing lies beside it."""
        junit.write(self.folder, make_run(), ROWS)
        before = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        with mock.patch("nightly.files.os.fsync", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(NightlyError, "No space left"):
                junit.write(self.folder, make_run(torch="other"), ROWS[:3])
        self.assertEqual({file.name: file.read_bytes() for file in self.folder.iterdir()}, before)


TEXT = {"message", "type"}
#: Element -> (attributes that must be there, others that may be, elements within), as far as the schema of Jenkins' xUnit plugin for
#: JUnit goes and other schemas agree with it.
SCHEMA = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": (
        {"name"},
        {"classname", "time"},
        {"skipped", "failure", "error", "system-out", "system-err", "rerunFailure", "rerunError", "flakyFailure", "flakyError"},
    ),
    "skipped": (set(), TEXT, set()),
    "failure": (set(), TEXT, set()),
    "error": (set(), TEXT, set()),
    "flakyFailure": ({"type"}, TEXT, {"stackTrace", "system-out", "system-err"}),
    "stackTrace": (set(), set(), set()),
    "system-out": (set(), set(), set()),
}
#: The form of some attributes: seconds have up to three decimals.
FORMS = {
    "time": r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]{0,3})?",
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ?",
    **dict.fromkeys(("tests", "failures", "errors", "skipped"), r"\d+"),
}


def schema_faults(content):
    """What of a JUnit file does not fit `SCHEMA`, in words."""
    faults = []

    def check(element, parent):
        must, may, _ = SCHEMA.get(element.tag, (set(), set(), set()))
        if element.tag not in SCHEMA or (parent and element.tag not in SCHEMA[parent][2]):
            faults.append(f"{element.tag} within {parent}")
        faults.extend(f"{element.tag} lacks {key}" for key in must - set(element.attrib))
        faults.extend(f"{element.tag} has {key}" for key in set(element.attrib) - must - may)
        faults.extend(f"{key}={text!r}" for key, text in element.attrib.items() if not re.fullmatch(FORMS.get(key, r"(?s).*"), text))
        for child in element:
            check(child, element.tag)

    check(ElementTree.fromstring(content), None)
    return faults


if __name__ == "__main__":
    unittest.main()

"""Mends on the toy package, and the real ones as far as they need no run."""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch

from audit import mended, mending, mends, toy
from audit.edits import WRITTEN_FOR, Edit, Function, holds
from audit.project import AuditError, Project, digest

CASES = """
    import unittest

    from toykit.guard import Guard
    from toykit.sums import clamp, never_called

    def known_defect(name):
        def mark(test):
            test = unittest.expectedFailure(test)
            test.known_defect = name
            return test
        return mark

    class TestSums(unittest.TestCase):
        def test_low(self):
            self.assertEqual(clamp(-1, 0), 0)

        @known_defect("clamp-ignores-the-order")
        def test_order(self):
            self.assertEqual(clamp(15, 10, 0), 10)

        @known_defect("clamp-takes-no-text")
        def test_text(self):
            self.assertEqual(clamp("5", 0), 5)

    class TestGuard(unittest.TestCase):
        def test_check(self):
            self.assertTrue(Guard().check(1))

        @known_defect("guard-has-no-name")
        def test_name(self):
            self.assertEqual(Guard().name(), "guard")

        @known_defect("guard-in-compiled-code")
        def test_compiled(self):
            self.fail("compiled")
"""
RUNNER = toy.RUNNER
CAUSES = {
    "clamp-ignores-the-order": "order",
    "clamp-takes-no-text": "text",
    "guard-has-no-name": "name",
    "guard-in-compiled-code": "compiled",
}
ORDER = Edit("toykit.sums", "clamp", "return min(x, high)", "return min(x, max(low, high))")
TEXT = Edit("toykit.sums", "clamp", "if x < low:", "x = int(x)\nif x < low:")
NAME = Function("toykit.guard", "Guard.name", 'def name(self):\n    return "guard"')


class TestMends(toy.Case):
    def setUp(self):
        super().setUp()
        self.project = toy.write(self.folder, CASES)
        self.entered(mock.patch.object(mending, "distribution_version", lambda name: "2.13.0"))

    def mending(self, alone, pages=(), **more):
        known = mends.Mends(alone, areas=dict.fromkeys(alone, "toy"), **more)
        found = mending.Mending(self.project, self.folder / "work", known, [], 2, mending.Register(CAUSES, pages=dict(pages)))
        with contextlib.redirect_stdout(io.StringIO()):
            found.prepare()
        return found

    def alone(self, found, only=()):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            results = {one.cause: one.faults for one in found.alone(list(only), (1, 1))}
        return results, out.getvalue()

    def test_each_mend_is_held_to_exactly_its_tests(self):
        """Right ones; one that flips nothing, too much, breaks a healthy test, does not fit, is for nothing; kept results."""
        before = digest(self.folder / "site")
        right = {"order": [ORDER], "name": [NAME]}
        results, _ = self.alone(self.mending(right))
        self.assertEqual(results, {"order": (), "name": ()})
        results, said = self.alone(self.mending({**right, "order": [TEXT, ORDER], "compiled": [NAME], "other": [TEXT]}))
        self.assertIn("4 selected, 2 to run", said)
        self.assertEqual(results["name"], ())
        self.assertEqual(results["other"], ("the register has no such cause",))
        self.assertEqual(results["order"], ("flips also (clamp-takes-no-text): TestSums.test_text",))
        self.assertEqual(
            set(results["compiled"]),
            {"does not flip: TestGuard.test_compiled: expected failure", "flips also (guard-has-no-name): TestGuard.test_name"},
        )
        bad = {"order": [Edit("toykit.sums", "clamp", "return low", "return 1 / 0")], "text": [Edit("toykit.sums", "clamp", "gone", "")]}
        results, _ = self.alone(self.mending(bad))
        self.assertEqual(results["text"], ("does not fit: toykit.sums: clamp: 'gone': it occurs 0 times there, not once",))
        self.assertEqual(results["order"][1], "makes error: TestSums.test_low: ZeroDivisionError: division by zero")
        self.assertEqual(digest(self.folder / "site"), before, "the installed package was written to")
        results, _ = self.alone(self.mending(right), ["or*"])
        self.assertEqual(results, {"order": ()})
        with self.assertRaisesRegex(AuditError, "no mend matches nothing"):
            self.alone(self.mending(right), ["nothing"])

    def test_page_that_calls_a_wrong_answer_right_is_a_fault(self):
        """On the copy with the mend alone, and on that with all; what was kept does not outlive the page."""
        self.entered(mock.patch.object(mending, "PROBE", "exec({source!r})"))  # the other one imports torch, each time
        alone = {"order": [ORDER], "name": [NAME]}
        clamp, compiled = "from toykit.sums import clamp\nprint(clamp(15, 10, 0))", ("print(1)", "what no mend gives")
        pages = {"clamp-ignores-the-order": (clamp, "0"), "guard-in-compiled-code": compiled}
        fault = "prints '10', right is '0': clamp-ignores-the-order"
        found = self.mending(alone, pages, native={"compiled": "why"})
        self.assertEqual(self.alone(found)[0], {"order": (fault,), "name": ()})
        with contextlib.redirect_stdout(io.StringIO()):
            lines, _ = found.together([])
        self.assertEqual([line for line in lines if "prints" in line], [fault])
        pages["clamp-ignores-the-order"] = clamp, "10"
        self.assertEqual(self.alone(self.mending(alone, pages))[0], {"order": (), "name": ()})

    def test_process_that_dies_is_a_fault(self):
        """With the signal and the test."""
        results, _ = self.alone(
            self.mending({"order": [Edit("toykit.sums", "clamp", "if x < low:", "import os\nos.abort()\nif x < low:")]})
        )
        self.assertEqual(results["order"], ("ended by SIGABRT in suite_of_toy.cases.TestSums.test_order",))

    def test_together_leaves_compiled_code_alone(self):
        """Every mend at once: what is left, what is in the way, what lies in compiled code."""
        alone = {"order": [ORDER], "text": [TEXT], "name": [NAME]}
        with contextlib.redirect_stdout(io.StringIO()):
            lines, faults = self.mending(alone, native={"compiled": "why"}).together([])
            self.assertEqual((faults, lines[-1]), (0, "3 tests of known defects pass, 1 in compiled code, 0 faults"))
            del alone["text"]
            lines, faults = self.mending(alone).together([])
        self.assertEqual(set(lines[:2]), {"no mend: text: TestSums.test_text", "no mend: compiled: TestGuard.test_compiled"})
        self.assertEqual(faults, 2)

    def test_mutants_of_a_mend_are_asked_with_its_tests(self):
        """What the tests of the defect let pass is asked of the others: here whether the upper bound still counts."""
        if importlib.util.find_spec("mutmut") is None:
            self.skipTest("the mutation machinery (no mutmut)")
        found = self.mending({"order": [Edit("toykit.sums", "clamp", "if x < low:", "if low > x:"), ORDER], "name": [NAME]})
        group = mended.MendedGroup(self.project, self.folder / "work", [], 2, found)
        with contextlib.redirect_stdout(io.StringIO()):
            group.prepare(survivors=False)
            group.run([], (1, 1))
        verdicts = {(mutant.function, mutant.after): mutant.verdict for mutant in group.read()}
        expected = {"return None": "killed", "return min(x, (low))": "survived", "if low <= x:": "other tests"}
        self.assertEqual({after: verdicts.get(("order", after)) for after in expected}, expected)
        self.assertEqual({verdict for (cause, _), verdict in verdicts.items() if cause == "name"}, {"killed"})
        with contextlib.redirect_stdout(io.StringIO()) as said:
            group.run([], (1, 1))
        self.assertIn("0 to run", said.getvalue())
        # Another mend of one cause: the mutants of the other keep what was found out about them.
        later = mended.MendedGroup(self.project, self.folder / "work", [], 2, self.mending({"order": [ORDER], "name": [NAME]}))
        with contextlib.redirect_stdout(io.StringIO()), mock.patch.object(later, "made_by", lambda: [Path(mended.__file__)]):
            later.prepare(survivors=False)
        self.assertEqual({mutant.verdict for mutant in later.read() if mutant.function == "name"}, {"killed"})
        self.assertEqual({mutant.verdict for mutant in later.read() if mutant.function == "order"}, {"not checked"})
        self.assertFalse(later.kept)

    def test_joint_mend_stands_for_its_causes(self):
        """Where both are mended; alone each has its own."""
        both = Function("toykit.sums", "clamp", "def clamp(x, low, high=10):\n    return max(low, min(int(x), max(low, high)))")
        known = mends.Mends({"order": [ORDER], "text": [TEXT], "name": [NAME]}, {("order", "text"): [both]})
        self.assertEqual(known.items(["order", "text", "name"], "2.13.0"), {("order", "text"): [both], ("name",): [NAME]})
        self.assertEqual(known.items(["order", "name"], "2.13.0"), {("order",): [ORDER], ("name",): [NAME]})
        later = Edit("m", "f", "a", "b", torch=">=2.14")
        self.assertEqual(mends.Mends({"late": [later]}).items(["late"], "2.13.0"), {("late",): []})

    def test_diff_is_taken_by_git(self):
        """Applied to the sources it gives the mended files."""
        known = mends.Mends({"order": [ORDER], "name": [NAME]})
        patch = mending.diff(self.project, known, [])
        self.assertRegex(patch, r"(?m)^\+\+\+ b/toykit/sums\.py$")
        git = ["git", "apply", "-"]
        subprocess.run(
            git,
            cwd=self.folder / "site",
            input=patch,
            text=True,
            check=True,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(self.folder)},
        )
        code = "from toykit.guard import Guard; from toykit.sums import clamp; print(Guard().name(), clamp(15, 10, 0))"
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        self.assertEqual(printed, "guard 10\n")
        with self.assertRaisesRegex(AuditError, "no mend for else"):
            mending.diff(self.project, known, ["else"])

    def test_overlay_is_for_trying_out(self):
        """PYTHONPATH alone takes the mended packages, also where the folder is moved to."""
        mending.write_overlay(self.project, mends.Mends({"name": [NAME]}), [], self.folder / "out")
        (self.folder / "out").rename(self.folder / "moved")
        env = {**os.environ, "PYTHONPATH": f"{self.folder}/moved/site:{os.environ['PYTHONPATH']}"}
        code = "from toykit.guard import Guard; print(Guard().name())"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout, "guard\n")
        with self.assertRaisesRegex(AuditError, "is not empty"):
            mending.write_overlay(self.project, mends.Mends(), [], self.folder / "moved")


class TestRealMends(unittest.TestCase):
    def test_every_mend_fits_and_git_takes_the_diff(self):
        """On the sources of the installed torch, all together."""
        if not holds(WRITTEN_FOR, torch.__version__):
            self.skipTest(f"mends of the packages (written for torch {WRITTEN_FOR})")
        project, known = Project(), mends.load()
        patch = mending.diff(project, known, [])
        texts, files = mending.installed_sources(project)
        with tempfile.TemporaryDirectory() as folder:
            for module, text in texts.items():
                file = Path(folder, files[module])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            env = {**os.environ, "GIT_CEILING_DIRECTORIES": folder}
            run = subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, capture_output=True, text=True, env=env)
            self.assertEqual(run.returncode, 0, run.stderr)
            mending.write_overlay(project, known, [], Path(folder, "overlay"))
            for path in files.values():
                self.assertEqual(Path(folder, path).read_text(), Path(folder, "overlay", path).read_text(), path)


if __name__ == "__main__":
    unittest.main()

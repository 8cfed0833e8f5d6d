"""Tests of the register of known defects: its mark is strict both ways, its entries are complete, used and reproducible."""

import ast
import builtins
import contextlib
import io
import json
import pathlib
import tempfile
import unittest
import warnings
from unittest import mock

from ao.sparsity.testing import build, known_defects, session
from ao.sparsity.testing.base import TestCase
from ao.sparsity.testing.child import run_in_child
from ao.sparsity.testing.register import Defect

ENTRY = {
    "id": "sum-is-off",
    "area": "sparsifier",
    "kind": "wrong result",
    "summary": "One and one are three.",
    "where": "torch: add",
    "contract": "arithmetic",
    "error": "ArithmeticError",
    "match": "one too (many|few)",
    "reproduce": "print(1 + 1)  # prints 3, should be 2",
    "mend": "count again",
}


def run_marked(body, **changes):
    """Run a test with this body, marked with an entry changed so; returns its result."""
    entry = Defect(**{**ENTRY, **changes})
    with mock.patch.dict(known_defects.REGISTER, {entry.id: entry}):
        test = known_defects.known_defect(entry.id)(body)
    result = unittest.TestResult()
    type("TestSubject", (TestCase,), {"test_subject": test, "__module__": __name__})("test_subject").run(result)
    return result


def _raise(error):
    def body(case):
        raise error

    return body


class TestMark(unittest.TestCase):
    """``@known_defect``: the test must fail, and as registered."""

    def setUp(self):
        self.addCleanup(session._mended.clear)

    def test_registered_failure_is_an_expected_failure(self):
        """Register: the unittest outcome is an expected failure, also for a subclass of the exception and in a subTest."""

        def in_case(case):
            with case.subTest(x=1):
                raise OverflowError("one too few")

        for body in (_raise(ArithmeticError("one too many")), in_case):
            result = run_marked(body)
            self.assertEqual((len(result.expectedFailures), len(result.failures), len(result.errors)), (1, 0, 0))
            self.assertTrue(result.wasSuccessful())

    def test_any_other_failure_is_a_real_failure(self):
        """Register: another exception, another text or a leak is red, with both ways in the message."""
        for error in (ArithmeticError("quite another thing"), ValueError("one too many"), AssertionError("set-up")):
            result = run_marked(_raise(error))
            self.assertEqual((len(result.expectedFailures), len(result.failures)), (0, 1))
            self.assertIn("shows in another way than registered", result.failures[0][1])
            self.assertIn(f"now: {type(error).__name__}: {error}", result.failures[0][1])
            self.assertIn("ArithmeticError matching 'one too (many|few)'", result.failures[0][1])

    def test_a_pass_is_an_unexpected_success_with_advice(self):
        """Register: a mended defect turns the run red, and the closing line names the entry and what to do."""
        result = run_marked(lambda case: None)
        self.assertEqual(len(result.unexpectedSuccesses), 1)
        self.assertFalse(result.wasSuccessful())
        self.assertIn("known defect 'sum-is-off' did not show: delete its entry in register/sparsifier.py", session.closing_lines()[0])
        self.assertIn(f'fixed="{build.torch_release()}"', session.closing_lines()[0])

    def test_a_skip_stays_a_skip(self):
        """Register: a build that cannot be asked neither confirms nor refutes."""
        result = run_marked(lambda case: case.skipTest("dynamic kernels (no qnnpack)"))
        self.assertEqual((len(result.skipped), len(result.failures), len(result.expectedFailures)), (1, 0, 0))

    def test_versions_decide_whether_the_test_is_plain(self):
        """Register: fixed in torch X is a plain test from X on, and so is one before its first release."""
        body = _raise(ArithmeticError("one too many"))
        for changes in ({"fixed": build.torch_release()}, {"since": "999.0"}):
            self.assertEqual(len(run_marked(body, **changes).errors), 1)
            self.assertTrue(run_marked(lambda case: None, **changes).wasSuccessful())
        major, minor = build.TORCH_VERSION[:2]
        self.assertEqual(len(run_marked(body, fixed=f"{major}.{minor + 1}").expectedFailures), 1)

    def test_entry_refuses_what_would_make_it_useless(self):
        """Entry: words for an id, a kind of the closed list, no empty field."""
        for changes in ({"id": "Sum"}, {"kind": "nuisance"}, {"match": " "}, {"mend": ""}, {"summary": None}):
            with self.subTest(**changes), self.assertRaises(ValueError):
                Defect(**{**ENTRY, **changes})


class TestRegister(unittest.TestCase):
    """The entries themselves."""

    def test_every_entry_has_exactly_one_test(self):
        """Register: no unused entry, no unknown id, no two tests for one fault."""
        self.assertEqual(known_defects.inconsistencies(), [])

    def test_inconsistencies_are_found(self):
        """Register: each of the three errors is reported."""
        lines = known_defects.inconsistencies({"a-b": None, "c-d": None}, {"c-d": ["T.x", "T.y"], "e-f": ["T.z"]})
        self.assertEqual(len(lines), 3, lines)

    def test_uses_reads_marks_from_sources(self):
        """Register: marks are found on plain and on parametrized tests."""
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "test_x.py").write_text(
                "class TestX:\n"
                "    @known_defect('a-b')\n    def test_p(self): pass\n"
                "    @parametrize('n', [subtest(1, decorators=[known_defect('c-d')])])\n    def test_q(self): pass\n",
                encoding="utf-8",
            )
            self.assertEqual(known_defects.uses(pathlib.Path(folder)), {"a-b": ["TestX.test_p"], "c-d": ["TestX.test_q"]})

    def test_areas_are_areas_of_the_suite(self):
        """Entry: ``area`` names a test file, and the mark stands in that file."""
        folder = known_defects.ROOT / "ao" / "sparsity"
        for defect in known_defects.REGISTER.values():
            with self.subTest(defect=defect.id):
                path = folder / f"test_{defect.area}.py"
                self.assertTrue(path.exists(), path)
                self.assertIn(f'known_defect("{defect.id}")', path.read_text(encoding="utf-8"))

    def test_reproductions_run_as_pasted(self):
        """Entry: ``reproduce`` is complete: it parses, finds its names, and shows something."""
        for defect in known_defects.REGISTER.values():
            with self.subTest(defect=defect.id):
                ast.parse(defect.reproduce)
                self.assertEqual(_paste(defect.reproduce, crashes=defect.error == "ProcessDied"), "ran")

    def test_defects_md_is_current(self):
        """DEFECTS.md is what ``--write`` would write."""
        text = (known_defects.ROOT / "DEFECTS.md").read_text(encoding="utf-8")
        self.assertEqual(text, known_defects.as_markdown(), "renew it: python -m ao.sparsity.testing.known_defects --write")

    def test_command_line_prints_table_and_json(self):
        """Command line: a line per entry, and all fields as JSON."""
        for arguments in ([], ["--json"]):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                self.assertEqual(known_defects.main(arguments), 0)
            for defect_id in known_defects.REGISTER:
                self.assertIn(defect_id, output.getvalue())
        self.assertEqual(len(json.loads(output.getvalue())), len(known_defects.REGISTER))


class TestCheck(unittest.TestCase):
    """``--check``: still there, fixed, changed."""

    def test_check_tells_the_states_apart(self):
        """Command line: each outcome of the runner's verbose output becomes the state of its entry."""
        report = (
            "test_a (ao.sparsity.test_x.TestX.test_a)\nStates a contract. ... expected failure\n"
            "test_b_n_1 (ao.sparsity.test_x.TestX.test_b_n_1)\nStates a contract. ... unexpected success\n"
            "test_c (ao.sparsity.test_x.TestX)\nStates a contract. ... FAIL\n"
            "test_d (ao.sparsity.test_x.TestX.test_d) ... skipped 'dynamic kernels (no qnnpack)'\n"
        )
        marks = {f"{letter}-{letter}": [f"TestX.test_{letter}"] for letter in "abcde"}
        with (
            mock.patch.object(known_defects, "uses", return_value=marks),
            mock.patch.object(known_defects.subprocess, "run", return_value=mock.Mock(stderr=report)),
            mock.patch.dict(known_defects.REGISTER, dict.fromkeys(marks), clear=True),
        ):
            states = known_defects.check()
        self.assertEqual(
            states,
            {"a-a": "still there", "b-b": "fixed", "c-c": "changed", "d-d": "skipped 'dynamic kernels (no qnnpack)'", "e-e": "not run"},
        )


def _run_pasted(source):
    """In a child: execute ``source`` as a prompt would; returns the name of the exception that left it, or ``ran``."""
    warnings.simplefilter("ignore")
    try:
        exec(compile(source, "<reproduce>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
    except (NameError, ImportError, SyntaxError) as error:
        if not isinstance(error, UnboundLocalError):  # a name that PyTorch lacks, not the snippet
            return f"{type(error).__name__}: {error}"
    except Exception:
        return "ran"
    return "ran"


def _paste(source, crashes):
    try:
        return run_in_child(_run_pasted, source)
    except Exception as error:
        return "ran" if crashes else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    unittest.main()

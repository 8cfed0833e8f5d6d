"""Tests of the register of known defects: one rule decides what a marked test counts as; pages are used, reproducible and true."""

import ast
import contextlib
import functools
import importlib.util
import io
import json
import os
import pathlib
import re
import tempfile
import unittest
from unittest import mock

from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize

from ao.sparsity.testing import build, defects, known_defects, session
from ao.sparsity.testing.base import TestCase
from ao.sparsity.testing.snippets import printed, printed_in_turn
from ao.sparsity.testing.test_defects import PAGE

MEASURED = "2.13"  # the release of torch whose outputs the pages show


def symptom_of(*replacements):
    """The first symptom of the page that test_defects shows, with ``(old, new)`` replaced in it."""
    return defects.parse(functools.reduce(lambda page, pair: page.replace(*pair), replacements, PAGE), "adds-wrong", "sparsifier")[0]


def run_marked(body, *replacements, strict=True):
    """Run a test with this body, marked with a symptom whose page is changed so; returns its result."""
    symptom = symptom_of(*replacements)
    with mock.patch.dict(known_defects.REGISTER, {symptom.id: symptom}):
        test = known_defects.known_defect(symptom.id)(body)
    result = unittest.TestResult()
    with mock.patch.dict(os.environ, {session.STRICT: str(int(strict))}):
        type("TestSubject", (TestCase,), {"test_subject": test, "__module__": __name__})("test_subject").run(result)
    return result


def numbers(result):
    """Expected failures, unexpected successes, failures and errors of a run."""
    return tuple(map(len, (result.expectedFailures, result.unexpectedSuccesses, result.failures, result.errors)))


def _raise(error):
    def body(case):
        raise error

    return body


def _pass(case):
    """The right behaviour."""


NO_MATTER = ("since: 2.1", "since: 2.1\nwhen: python < 2.0")
BY_CHANCE = ("since: 2.1", "since: 2.1\nchance: freed memory")


class TestMark(unittest.TestCase):
    """``@known_defect``: the test must fail as registered."""

    def setUp(self):
        absent = dict(session._absent)
        self.addCleanup(session._absent.update, absent)
        self.addCleanup(session._absent.clear)
        session._absent.clear()

    def test_registered_failure_is_an_expected_failure(self):
        """Rule: a registered way is expected, also of a subclass, in a subTest, and where the conditions do not hold."""

        def in_case(case):
            with case.subTest(x=1):
                raise OverflowError("one too few")

        for body in (_raise(ArithmeticError("one too many")), in_case):
            for replacement in (("", ""), NO_MATTER, BY_CHANCE):
                for strict in (True, False):
                    result = run_marked(body, replacement, strict=strict)
                    self.assertEqual(numbers(result), (1, 0, 0, 0))
                    self.assertTrue(result.wasSuccessful())

    def test_any_other_failure_is_a_real_failure(self):
        """Rule: another exception or another text is red in every run, with both ways in the message."""
        for error in (ArithmeticError("quite another thing"), ValueError("one too many"), AssertionError("set-up")):
            for strict in (True, False):
                result = run_marked(_raise(error), strict=strict)
                self.assertEqual(numbers(result), (0, 0, 1, 0))
                self.assertIn("shows in another way than registered", result.failures[0][1])
                self.assertIn(f"now: {type(error).__name__}: {error}", result.failures[0][1])
                self.assertIn("ArithmeticError matching 'one too (many|few)'", result.failures[0][1])

    def test_a_result_reports_later_tests_as_ever(self):
        """Rule: what one test's outcome counts as is forgotten behind it."""
        result = unittest.TestResult()
        cases = [unittest.FunctionTestCase(lambda: None)]
        for body in (_raise(ValueError("other")), _pass):
            symptom = symptom_of()
            with mock.patch.dict(known_defects.REGISTER, {symptom.id: symptom}):
                test = known_defects.known_defect(symptom.id)(body)
            cases.insert(0, type("TestSubject", (TestCase,), {"test_subject": test, "__module__": __name__})("test_subject"))
        for case in cases:
            case.run(result)
        own = {name for name in ("addExpectedFailure", "addUnexpectedSuccess") if name in vars(result)}
        self.assertEqual(own, set())

    def test_a_certain_one_that_passes_is_red_in_strict_runs_alone(self):
        """Rule: strict runs keep the register true; whoever validates a build is told the good news."""
        self.assertEqual(numbers(run_marked(_pass)), (0, 1, 0, 0))
        self.assertIn("'sum-is-off' did not show: delete its section in ao/sparsity/defects/sparsifier/adds-", session.closing_lines()[0])
        self.assertIn(f"`fixed: {build.torch_release()}`", session.closing_lines()[0])
        session._absent.clear()
        result = run_marked(_pass, strict=False)
        self.assertEqual(numbers(result), (0, 0, 0, 0))
        self.assertTrue(result.wasSuccessful())
        self.assertEqual(session.closing_lines()[0], "1 known defect does not show on this build: sum-is-off")

    def test_one_that_is_not_certain_may_pass(self):
        """Rule: where the conditions do not hold, or chance decides, a pass is no news of the register; luck is not even told."""
        for replacement, lines in ((NO_MATTER, ["1 known defect does not show on this build: sum-is-off"]), (BY_CHANCE, [])):
            for strict in (True, False):
                session._absent.clear()
                self.assertEqual(numbers(run_marked(_pass, replacement, strict=strict)), (0, 0, 0, 0))
                self.assertEqual(session.closing_lines({}), lines)

    def test_a_skip_stays_a_skip(self):
        """Rule: a build that cannot be asked neither confirms nor refutes."""
        result = run_marked(lambda case: case.skipTest("dynamic kernels (no qnnpack)"))
        self.assertEqual((len(result.skipped), numbers(result)), (1, (0, 0, 0, 0)))

    def test_versions_decide_whether_the_test_is_plain(self):
        """Rule: fixed in torch X is a plain test from X on, and so is one before its first release."""
        body = _raise(ArithmeticError("one too many"))
        for replacement in (("since: 2.1", f"since: 2.1\nfixed: {build.torch_release()}"), ("since: 2.1", "since: 999.0")):
            self.assertEqual(numbers(run_marked(body, replacement)), (0, 0, 0, 1))
            self.assertTrue(run_marked(_pass, replacement).wasSuccessful())
        major, minor = build.TORCH_VERSION[:2]
        self.assertEqual(numbers(run_marked(body, ("since: 2.1", f"since: 2.1\nfixed: {major}.{minor + 1}"))), (1, 0, 0, 0))


class TestRegister(unittest.TestCase):
    """The pages themselves."""

    def test_every_symptom_has_exactly_one_test(self):
        """Register: no unused symptom, no unknown id, no two tests for one fault."""
        self.assertEqual(known_defects.inconsistencies(), [])

    def test_inconsistencies_are_found(self):
        """Register: each of the three errors is reported."""
        lines = known_defects.inconsistencies({"a-b": None, "c-d": None}, {"c-d": ["T.x", "T.y"], "e-f": ["T.z"]})
        self.assertEqual(len(lines), 3, lines)

    def test_uses_reads_marks_from_sources(self):
        """Register: marks are found on plain and parametrized tests, in the folder of an area, and in a part of a class."""
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "x").mkdir()
            pathlib.Path(folder, "test_x.py").write_text("class TestX:\n    @known_defect('a-b')\n    def test_p(self): pass\n")
            pathlib.Path(folder, "x", "part.py").write_text(
                "class TestX:\n    @parametrize('n', [subtest(1, decorators=[known_defect('c-d')]), subtest(2, name='two',"
                " decorators=[known_defect('g-h')])])\n    def test_q(self): pass\n"
            )
            pathlib.Path(folder, "x", "base.py").write_text("class Half:\n    @known_defect('e-f')\n    def test_r(self): pass\n")
            pathlib.Path(folder, "test_y.py").write_text("class TestY(Half, TestCase):\n    pass\n")
            expected = {"a-b": ["TestX.test_p"], "c-d": ["TestX.test_q_n_1"], "g-h": ["TestX.test_q_two"], "e-f": ["TestY.test_r"]}
            self.assertEqual(known_defects.uses(pathlib.Path(folder)), expected)

    def test_pages_stand_with_their_tests(self):
        """Page: its folder names an area of the suite, and the mark stands in that area's file or folder."""
        suite = known_defects.ROOT / "ao" / "sparsity"
        texts = {}
        for symptom in known_defects.REGISTER.values():
            if symptom.area not in texts:
                files = [suite / f"test_{symptom.area}.py", *(suite / symptom.area).glob("*.py")]
                texts[symptom.area] = "".join(path.read_text(encoding="utf-8") for path in files)
            with self.subTest(symptom=symptom.id):
                self.assertIn(f'known_defect("{symptom.id}")', texts[symptom.area])

    def test_every_line_of_a_reproduction_is_used(self):
        """Page: a reproduction binds no name that it does not read."""
        for symptom in known_defects.REGISTER.values():
            with self.subTest(symptom=symptom.id):
                self.assertEqual(_never_read(symptom.python), set())

    def test_no_page_is_unfinished(self):
        """Page: every field says something, and the ways it shows are regular expressions."""
        for symptom in known_defects.REGISTER.values():
            with self.subTest(symptom=symptom.id):
                for _, pattern in symptom.shows:
                    re.compile(pattern)
                for value in (*symptom.keys.values(), symptom.today, symptom.right, symptom.title):
                    self.assertNotIn(value, ("?", ""))

    def test_generated_pages_are_current(self):
        """The index and the page for packagers are what ``--write`` would write."""
        for name, text in known_defects.GENERATED.items():
            with self.subTest(page=name):
                current = (defects.FOLDER / name).read_text(encoding="utf-8")
                self.assertEqual(current, text(), "renew it: python -m ao.sparsity.testing.known_defects --write")

    def test_command_line_prints_table_and_json(self):
        """Command line: a line per symptom, and all fields as JSON."""
        for arguments in ([], ["--json"]):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                self.assertEqual(known_defects.main(arguments), 0)
            for symptom_id in known_defects.REGISTER:
                self.assertIn(symptom_id, output.getvalue())
        entries = json.loads(output.getvalue())
        self.assertEqual(len(entries), len(known_defects.REGISTER))
        self.assertTrue(all(entry["tests"] and entry["severity"] in defects.SEVERITIES for entry in entries))


@instantiate_parametrized_tests
class TestReproductions(unittest.TestCase):
    """Each fenced snippet prints what its page says."""

    slow = 8

    @parametrize("area", sorted({symptom.area for symptom in known_defects.REGISTER.values()}))
    def test_prints_what_the_page_says(self, area):
        """Page: pasted into a fresh process, a reproduction prints its ``today``, which is not its ``right``."""
        if build.torch_release() != MEASURED:
            self.skipTest(f"what reproductions print (the pages show torch {MEASURED})")
        if area == "lightning_callbacks" and importlib.util.find_spec("pytorch_lightning") is None:
            self.skipTest("reproductions of the callbacks (pytorch_lightning not installed)")
        symptoms = [symptom for symptom in known_defects.REGISTER.values() if symptom.area == area]
        for symptom, now in zip(symptoms, printed_in_turn([symptom.python for symptom in symptoms])):
            with self.subTest(symptom=symptom.id, page=symptom.page):
                known = symptom.known_in(build.TORCH_VERSION)
                wanted = symptom.right if not known else symptom.today if symptom.certain_here() else now
                if now != wanted:
                    now = printed(symptom.python)  # what ran before it in the same process may have changed it
                if now != wanted and known:
                    now = printed(symptom.python, fresh=True)  # what this process did before may hide it
                self.assertNotRegex(now, r"^(NameError|ImportError|ModuleNotFoundError|SyntaxError)")
                self.assertEqual(now, wanted)


class TestCheck(unittest.TestCase):
    """``--check``: still there, does not show, changed."""

    def test_check_tells_the_states_apart(self):
        """Command line: each outcome of the runner's verbose output becomes the state of its symptom."""
        report = (
            "test_a (ao.sparsity.test_x.TestX.test_a)\nStates a contract. ... expected failure\n"
            "test_b_n_1 (ao.sparsity.test_x.TestX.test_b_n_1)\nStates a contract. ... unexpected success\n"
            "test_c (ao.sparsity.test_x.TestX)\nStates a contract. ... FAIL\n"
            "test_d (ao.sparsity.test_x.TestX.test_d) ... skipped 'dynamic kernels (no qnnpack)'\n"
            "test_f (ao.sparsity.test_x.TestX.test_f) ... ok\n"
        )
        marks = {f"{letter}-{letter}": [f"TestX.test_{letter}"] for letter in "abcdef"}
        with (
            mock.patch.object(known_defects, "uses", return_value=marks),
            mock.patch.object(known_defects.subprocess, "run", return_value=mock.Mock(stderr=report)),
            mock.patch.dict(known_defects.REGISTER, dict.fromkeys(marks), clear=True),
        ):
            states = known_defects.check()
        expected = ["still there", "fixed", "changed", "skipped 'dynamic kernels (no qnnpack)'", "not run", "does not show here"]
        self.assertEqual(states, dict(zip(marks, expected)))


def _never_read(source):
    """Names that the top level of ``source`` binds and nothing in it reads."""
    tree = ast.parse(source)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
    bound = set()
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
        elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            bound.add(statement.name)
        elif isinstance(statement, ast.Assign):
            targets = [node for target in statement.targets for node in ast.walk(target)]
            bound |= {node.id for node in targets if isinstance(node, ast.Name) and not re.fullmatch("_+", node.id)}
    return bound - read


if __name__ == "__main__":
    unittest.main()

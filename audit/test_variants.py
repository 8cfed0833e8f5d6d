"""Changed copies, asked by forks of a warmed process: what is watched, what an answer says, which verdict it gives."""

import os
import unittest
from unittest import mock

from audit import by_copy, toy
from audit.project import AuditError
from audit.variants import Answer, Asker, Baseline, Variant

CASES = """
    import multiprocessing
    import subprocess
    import sys
    import threading
    import unittest

    from toykit.guard import Guard
    from toykit.sums import clamp, never_called

    def in_child():
        never_called(1)

    class TestReach(unittest.TestCase):
        def test_calls(self):
            self.assertEqual(clamp(1, 0), 1)

        def test_thread(self):
            thread = threading.Thread(target=Guard().check, args=(1,))
            thread.start()
            thread.join()

        def test_fork(self):
            process = multiprocessing.get_context("fork").Process(target=in_child)
            process.start()
            process.join()

        def test_program(self):
            subprocess.run([sys.executable, "-c", ""], check=True)

        def test_nothing(self):
            pass

        @unittest.expectedFailure
        def test_known(self):
            self.assertEqual(clamp(3, 0), 10)
"""
TEST = "suite_of_toy.cases.TestReach."
SUMS = "toykit/sums.py"


class TestAsker(toy.Case):
    slow = 6

    def asker(self, cases=CASES):
        project = toy.write(self.folder, cases)
        runner = toy.RUNNER.replace("TestSums, TestGuard", "TestReach") if cases == CASES else toy.RUNNER
        (project.root / project.runner).write_text("\n".join(line[4:] for line in runner.splitlines()))
        return Asker(project, self.folder / "work", [], 2)

    def changed(self, old, new):
        """The toy's sums with one text replaced, by path."""
        text = (self.folder / "site" / SUMS).read_text()
        self.assertIn(old, text)
        return {SUMS: text.replace(old, new)}

    def test_reached_functions_are_noted_by_test(self):
        """Those called in the test, in a thread and in a fork of it; a test that starts a program may reach everything."""
        baseline = self.asker().prepare()
        expected = {
            "calls": {(SUMS, "clamp")},
            "known": {(SUMS, "clamp")},
            "thread": {("toykit/guard.py", "Guard.check")},
            "fork": {(SUMS, "never_called")},
            "program": {("*", "")},
        }
        self.assertEqual({name.removeprefix(TEST + "test_"): places for name, places in baseline.reached.items()}, expected)
        self.assertEqual(baseline.known, {TEST + "test_known": ""})
        names = [name.removeprefix(TEST + "test_") for name in baseline.in_order(baseline.reaching([(SUMS, "clamp")]))]
        self.assertEqual((set(names), names[-1]), ({"calls", "known", "program"}, "known"))
        self.assertEqual(len(baseline.reaching([(SUMS, "")])), 4)

    def test_nothing_goes_on_when_no_more_is_asked(self):
        """An interruption ends the copies that are being asked, one that would never end by itself among them."""
        asker = self.asker()
        asker.prepare()
        said, end = self.folder / "said", self.folder / "end"
        for path in (said, end):
            os.mkfifo(path)
        wait = f"import os; open({str(said)!r}, 'w').write(str(os.getpid())); open({str(end)!r}).read()"
        answers = asker.ask([Variant("waits", {}, probes=["", wait]), Variant("ends", {})])
        self.assertEqual(next(answers).name, "ends")
        pid = int(said.read_text())
        answers.close()
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    def test_answers_tell_what_became_of_a_copy(self):
        """Outcomes, a chosen part in its order, the first red alone, a crash, a time-out, a copy that cannot be imported, a probe."""
        asker = self.asker()
        baseline = asker.prepare()
        wrong = self.changed("return min(x, high)", "return 7")
        asked = [
            Variant("whole", wrong),
            Variant("part", wrong, [TEST + "test_nothing", TEST + "test_calls"]),
            Variant("first", wrong, baseline.in_order(baseline.outcomes), stop=True),
            Variant("known", self.changed("return min(x, high)", "return high if x == 3 else x"), stop=True),
            Variant("crash", self.changed("if x < low:", "import os\n    os.abort()\n    if x < low:")),
            Variant("hangs", self.changed("if x < low:", "while True: pass\n    if x < low:")),
            Variant("broken", {SUMS: "def clamp("}),
            Variant("probe", wrong, probes=["import os; os.abort()", "from toykit.sums import clamp; print(clamp(1, 0)); clamp()"]),
            Variant("same", {}),
        ]
        asker.timeout = 2
        answers = {answer.name: answer for answer in asker.ask(asked)}
        self.assertEqual(answers["whole"].outcomes, {**baseline.outcomes, TEST + "test_calls": "failed"})
        self.assertEqual(answers["whole"].details, {TEST + "test_calls": "AssertionError: 7 != 1"})
        self.assertEqual(list(answers["part"].outcomes), [TEST + "test_nothing", TEST + "test_calls"])
        self.assertEqual(list(answers["first"].outcomes.values()).count("failed"), 1)
        self.assertNotIn(TEST + "test_known", answers["first"].outcomes)
        self.assertEqual(answers["crash"].broken, f"ended by SIGABRT in {TEST}test_calls")
        self.assertEqual(answers["hangs"].broken, f"no end in time, in {TEST}test_calls")
        self.assertRegex(answers["broken"].broken, "SyntaxError")
        died, printed = answers["probe"].printed
        self.assertEqual(died, "process ended with status -6\n")
        self.assertRegex(printed, r"^7\nTypeError: clamp\(\) missing")
        self.assertEqual((answers["same"].outcomes, answers["same"].broken), (baseline.outcomes, ""))
        codes = {name: by_copy.exit_code(answer) for name, answer in answers.items() if name != "probe"}
        expected = {"whole": 1, "part": 1, "first": 1, "known": 3, "crash": -6, "hangs": 36, "broken": 1, "same": 0}
        self.assertEqual(codes, expected)

    def test_baseline_is_kept_until_something_changes(self):
        """The same tests and packages are not run again; other tests are."""
        first = self.asker()
        first.prepare()
        with mock.patch.object(Asker, "_run", side_effect=AssertionError("run again")):
            self.asker().prepare()
            with self.assertRaisesRegex(AssertionError, "run again"):
                self.asker(CASES + "\n    # a remark\n").prepare()

    def test_red_suite_is_refused(self):
        """Nothing can be measured with it."""
        with self.assertRaisesRegex(AuditError, r"(?s)red on an unchanged copy.*test_low: AssertionError: 0 != 7"):
            self.asker(toy.CASES.replace("clamp(-1, 0), 0)", "clamp(-1, 0), 7)")).prepare()


class TestBaseline(unittest.TestCase):
    def test_nested_functions_belong_to_theirs(self):
        """A place without a function is the whole file."""
        baseline = Baseline({"a": "passed", "b": "passed"}, {}, {}, {"a": {("m.py", "f.inner")}, "b": {("m.py", "g")}})
        for place, expected in ((("m.py", "f"), ["a"]), (("m.py", ""), ["a", "b"]), (("m.py", "fg"), []), (("n.py", ""), [])):
            with self.subTest(place):
                self.assertEqual(baseline.reaching([place]), expected)

    def test_status_of_its_own_is_told(self):
        """A process that leaves without an answer."""
        self.assertEqual(Answer("x", 3, "t").broken, "ended with status 3 in t")


if __name__ == "__main__":
    unittest.main()

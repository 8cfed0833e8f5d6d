"""Tests of running a suite whose tests crash, hang, leak and fail now and then."""

import io
import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from nightly import execute
from nightly.execute import Limits, Runner
from nightly.extras import slow
from nightly.made_up import make_suite

QUICK = Limits(total=90, test=1.5, memory=160 * execute.MIB)


#: A suite that says and is called what is hard to record.
ODD_SUITE = """
import os, sys, unittest

class Unshowable(Exception):
    def __str__(self):
        raise ValueError
    __repr__ = __str__

class TestOdd(unittest.TestCase):
    def test_surrogate(self):
        print("printed \\x1b[31m", file=sys.stderr)
        self.fail("bad \\udce9 surrogate")

    def test_reason(self):
        self.skipTest(5)

    def test_unshowable(self):
        raise Unshowable

    def test_case(self):
        with self.subTest(case=Unshowable(), text="\\ud800"):
            self.fail("x")

    @unittest.expectedFailure
    def test_known(self):
        self._outcome.result.addUnexpectedSuccess = self._outcome.result.addSuccess
    test_known.known_defect = Unshowable()

    def test_writes(self):
        for descriptor in range(3, 30):
            try:
                os.write(descriptor, b'{"event": "stop"}\\n[5]\\n')
            except OSError:
                pass

setattr(TestOdd, "test_\\x1b[31m\\udce9\\n", lambda self: self.fail("odd name"))

if __name__ == "__main__":
    unittest.main()
"""

#: A suite with a test whose name SQLite cannot hold, and which ends the process.
NUL_SUITE = """
import os, unittest

class TestNul(unittest.TestCase):
    def test_c(self):
        self.assertEqual(1, 1)

setattr(TestNul, "test_b\\0", lambda self: os._exit(7))

if __name__ == "__main__":
    unittest.main()
"""

#: A suite in which a test has another name in each process, and ends it.
RESTLESS_SUITE = """
import os, unittest

class TestRestless(unittest.TestCase):
    def test_z(self):
        self.assertEqual(1, 1)

setattr(TestRestless, f"test_{os.getpid()}", lambda self: os._exit(7))

if __name__ == "__main__":
    unittest.main()
"""

#: A suite that skips by a decorator as Python 3.12.1 does: the test is stopped, but was never started.
UNBALANCED_SUITE = """
import unittest

class TestSkips(unittest.TestCase):
    def run(self, result=None):
        if not getattr(getattr(self, self._testMethodName), "__unittest_skip__", False):
            return super().run(result)
        result.addSkip(self, "no accelerator")
        result.stopTest(self)
        return result

    def test_a(self):
        self.assertEqual(1, 1)

    @unittest.skip("no accelerator")
    def test_b(self):
        self.fail("never run")

    def test_c(self):
        self.assertEqual(1, 1)

if __name__ == "__main__":
    unittest.main()
"""


class TestRunner(unittest.TestCase):
    """A made-up suite run by this interpreter."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_suite(self, *mode, limits=QUICK, arguments=(), python=sys.executable):
        """The run, and name -> outcome without the class, of a suite in a mode."""
        self.seen = []
        runner = Runner(python, make_suite(self.folder, *mode), arguments, limits, on_result=self.seen.append)
        run = runner.run()
        return run, {result.name.split(".")[1]: result.outcome for result in run.results}

    def message(self, run, method):
        return next(result.message for result in run.results if result.name.endswith(f".{method}"))

    def test_sound_suite_gets_every_outcome_as_it_is(self):
        """Each test of a suite that runs through has its own outcome, area, time and reason."""
        run, outcomes = self.run_suite()
        self.assertEqual(len(outcomes), 14)
        self.assertEqual({name for name, outcome in outcomes.items() if outcome != "pass"}, {"test_h_is_skipped", "test_i_is_known"})
        self.assertEqual((outcomes["test_h_is_skipped"], outcomes["test_i_is_known"]), ("skip", "expected failure"))
        self.assertEqual(self.message(run, "test_h_is_skipped"), "static kernels (no fbgemm)")
        self.assertTrue(self.message(run, "test_i_is_known").startswith("bias-is-added-along-h: AssertionError: "))
        self.assertEqual((run.reason, run.notes), ("", []))
        self.assertEqual({result.area for result in run.results}, {"main"})
        self.assertEqual(run.environment["python"], ".".join(map(str, sys.version_info[:3])))
        self.assertEqual(sorted(self.seen, key=lambda r: r.name), sorted(run.results, key=lambda r: r.name))

    @slow
    def test_crash_hang_and_leak_cost_one_test_each(self):
        """A segmentation fault, a hang, an exit and eaten memory are named, and every other test has its verdict."""
        with mock.patch.object(execute, "RERUNS", 1):  # each hang takes the whole limit
            run, outcomes = self.run_suite("crash", "hang", "leak", "exit")
        bad = {name: outcome for name, outcome in outcomes.items() if outcome not in ("pass", "skip", "expected failure")}
        self.assertEqual(bad, {"test_c_crashes": "crash", "test_d_hangs": "timeout", "test_e_leaks": "crash", "test_k_exits": "crash"})
        self.assertEqual(len(outcomes), 14)
        (hang,) = (result for result in run.results if result.outcome == "timeout")
        self.assertLess(abs(hang.seconds - QUICK.test), 3, "it was ended long after its limit")
        for method, wanted in {
            "test_c_crashes": "killed by signal 11 (SIGSEGV)",
            "test_d_hangs": "in test_d_hangs",
            "test_e_leaks": "more than 160 MiB",
            "test_k_exits": "exit status 7",
        }.items():
            with self.subTest(method=method):
                self.assertIn(wanted, self.message(run, method))

    def test_a_runner_that_is_killed_leaves_no_temporary_files(self):
        """What the runner makes in its folder for temporary files is gone after the night, also where it could not tidy up itself."""
        place = self.folder / "tmp"
        place.mkdir()
        with mock.patch.object(tempfile, "tempdir", str(place)), mock.patch.dict(os.environ, TMPDIR=str(place)):
            _, outcomes = self.run_suite("crash")
        self.assertEqual((outcomes["test_c_crashes"], os.listdir(place)), ("crash", []))

    def test_folder_for_temporary_files_is_in_no_message(self):
        """What fails or crashes with a temporary file's name says the same in every process."""
        runner = self.folder / "test_ao_sparsity.py"
        body = "print('', 'in', tempfile.mkdtemp(), sep='\\n', flush=True)"
        runner.write_text(
            "import os, tempfile, unittest\nclass TestX(unittest.TestCase):\n"
            f"    def test_a(self): self.fail(tempfile.mkdtemp())\n    def test_b(self): {body}; os._exit(7)\nunittest.main()\n"
        )
        run = Runner(sys.executable, runner, [], QUICK).run()
        place = f"{tempfile.gettempdir()}/tmp..."
        last = [result.message.splitlines()[-1] for result in run.results]
        self.assertEqual(last, [f"AssertionError: {place}", place])

    def test_output_of_a_test_is_not_taken_for_that_of_the_one_before(self):
        """What a test prints is told with it, also where the start of the test is found after what it printed."""

        class LastFirst(selectors.DefaultSelector):
            def select(self, timeout=None):
                return super().select(timeout)[::-1]

        attempt, runner = execute.Attempt(), Runner(sys.executable, self.folder / "x.py", [], QUICK)
        read, write = os.pipe()
        with os.fdopen(read, "rb", buffering=0) as journal, subprocess.Popen(["echo", "told"], stdout=subprocess.PIPE) as process:
            os.write(write, b'{"event": "start", "test": "A.x"}\n')
            os.close(write)
            process.wait()
            with mock.patch.object(selectors, "DefaultSelector", LastFirst):
                runner.listen(process, journal, attempt, time.monotonic() + 60)
        self.assertEqual((attempt.in_flight, attempt.tail()), ("A.x", "told"))

    def test_no_room_for_temporary_files_is_one_line(self):
        """Where no folder can be made, the reason of the run says so."""
        with mock.patch.object(tempfile, "tempdir", str(self.folder / "not there")):
            run, outcomes = self.run_suite()
        wanted = f"no folder for temporary files can be made in {self.folder / 'not there'}: No such file or directory"
        self.assertEqual((run.reason, outcomes), (wanted, {}))

    @slow
    def test_failures_run_again_alone_are_told_from_flaky_tests(self):
        """A test that passes when it is run again is flaky, one that never does fails, and a mended defect is no pass."""
        run, outcomes = self.run_suite("fail", "flaky", "subtest", "mended")
        bad = {name: outcome for name, outcome in outcomes.items() if outcome not in ("pass", "skip")}
        self.assertEqual(
            bad,
            {
                "test_b_fails": "fail",
                "test_f_is_flaky": "flaky",
                "test_g_has_subtests": "fail",
                "test_i_is_known": "unexpected success",
            },
        )
        self.assertIn("the first time", self.message(run, "test_f_is_flaky"))
        self.assertIn("case=1", self.message(run, "test_g_has_subtests"))

    @slow
    def test_fixtures_that_fail_are_told_of_their_tests(self):
        """A class whose set-up or tidying fails is in error, and the other classes have their verdicts."""
        for mode, wanted in {"setup": ["test_one", "test_two"], "teardown": ["tearDownClass"]}.items():
            with self.subTest(mode=mode):
                run, outcomes = self.run_suite(mode)
                self.assertEqual([name for name, outcome in outcomes.items() if outcome == "error"], wanted)
                self.assertIn("ValueError", self.message(run, wanted[0]))
                self.assertEqual(outcomes["test_a_passes"], "pass")

    def test_part_of_a_test_that_is_skipped_is_told(self):
        """A passing test of which a subtest was skipped says so."""
        run, outcomes = self.run_suite("part", arguments=["-k", "part"])
        self.assertEqual(outcomes, {"test_j_is_skipped_in_part": "pass"})
        self.assertEqual(self.message(run, "test_j_is_skipped_in_part"), "partly skipped: dynamic kernels (no qnnpack)")

    def test_crash_after_the_last_test_is_recorded(self):
        """A process that dies once all tests are done leaves a result of its own."""
        run, outcomes = self.run_suite("exit at the end", arguments=["-k", "TestSecond"])
        self.assertEqual(outcomes, {"test_one": "pass", "test_two": "pass", "exit": "crash"})
        self.assertIn("SIGABRT", self.message(run, "exit"))

    @slow
    def test_end_between_two_tests_is_noted(self):
        """A process that ends with no test in flight, before all are done, is mentioned, and every test has its verdict."""
        run, outcomes = self.run_suite("exit between")
        self.assertEqual((len(outcomes), set(outcomes.values())), (14, {"pass", "skip", "expected failure"}))
        self.assertEqual(
            run.notes, ["the runner ended between two tests (the process ended with exit status 9); another process ran the rest"]
        )

    @slow
    def test_total_limit_leaves_the_rest_not_run(self):
        """Where time is up the test in flight timed out and those after it are not run."""
        run, outcomes = self.run_suite("hang", limits=Limits(total=2.5, test=30))
        self.assertEqual((outcomes["test_c_crashes"], outcomes["test_d_hangs"], outcomes["test_e_leaks"]), ("pass", "timeout", "not run"))
        self.assertEqual(sum(outcome == "not run" for outcome in outcomes.values()), 10)

    def test_runner_that_does_not_start_gives_its_reason(self):
        """An interpreter or runner that gets to no test is a reason in one line, not a result."""
        cases = {
            "torch is not installed": (sys.executable, ["nothing"]),
            "cannot be started": (str(self.folder / "python"), []),
        }
        for wanted, (python, mode) in cases.items():
            with self.subTest(wanted=wanted):
                run, outcomes = self.run_suite(*mode, python=python)
                self.assertIn(wanted, run.reason)
                self.assertEqual(outcomes, {})

    def test_filter_that_matches_nothing_runs_nothing(self):
        """No test and no reason: what a night takes as 'no tests ran'."""
        run, outcomes = self.run_suite(arguments=["-k", "no_such_test"])
        self.assertEqual((outcomes, run.reason), ({}, ""))

    def test_call_to_stop_between_processes_is_heeded(self):
        """A runner told to stop before it starts ends its process at once, and has neither results nor a reason."""
        runner = Runner(sys.executable, make_suite(self.folder, "hang"), [], QUICK)
        runner.stop()
        run = runner.run()
        self.assertEqual((run.results, run.reason, run.interrupted), ([], "", True))

    def test_what_is_interrupted_has_no_verdict(self):
        """A runner told to stop in the middle has the results of the tests that had ended: the one in flight did not crash, those
        after it are not left out by the suite, and a failure is not run again."""
        runner = Runner(sys.executable, make_suite(self.folder, "fail", "slow"), [], QUICK)
        runner.on_result = lambda result: result.name.endswith("test_k_exits") and threading.Timer(0.2, runner.stop).start()
        run = runner.run()
        found = {result.name.split(".")[1]: result.outcome for result in run.results}
        self.assertTrue(run.interrupted)
        self.assertEqual((len(found), found["test_b_fails"]), (11, "fail"))
        self.assertLessEqual(set(found.values()), {"pass", "fail", "skip", "expected failure"})

    def test_nothing_a_test_says_or_is_called_takes_the_run_down(self):
        """Lone surrogates, objects that cannot be shown, odd reasons and names: each test has its verdict in the first process."""
        runner = self.folder / "test_ao_sparsity.py"
        runner.write_text(ODD_SUITE)
        run = Runner(sys.executable, runner, [], QUICK).run()
        outcomes = {result.name: result.outcome for result in run.results}
        wanted = {"surrogate": "fail", "reason": "skip", "unshowable": "error", "case": "fail", "known": "defect gone", "writes": "pass"}
        self.assertEqual({key: outcomes.get(f"TestOdd.test_{key}") for key in wanted}, wanted)
        (odd,) = set(outcomes) - {f"TestOdd.test_{key}" for key in wanted}
        self.assertEqual((odd, outcomes[odd]), ("TestOdd.test_\x1b[31m\\udce9\n", "fail"))
        self.assertEqual((run.reason, run.notes), ("", []))
        for result in run.results:
            result.message.encode()

    def test_skip_without_a_start_is_a_skip_of_its_test(self):
        """Python 3.12.1 stops a test that a decorator skips without starting it: it is skipped, and the run goes on."""
        runner = self.folder / "test_ao_sparsity.py"
        runner.write_text(UNBALANCED_SUITE)
        run = Runner(sys.executable, runner, [], QUICK).run()
        outcomes = {result.name: (result.outcome, result.message) for result in run.results}
        passed = ("pass", "")
        self.assertEqual(outcomes, {"TestSkips.test_a": passed, "TestSkips.test_b": ("skip", "no accelerator"), "TestSkips.test_c": passed})

    def test_crash_of_a_test_with_any_name_costs_that_test(self):
        """A test whose name has to be recorded otherwise than it is, and that ends the process, is not run for ever."""
        runner = self.folder / "test_ao_sparsity.py"
        runner.write_text(NUL_SUITE)
        run = Runner(sys.executable, runner, [], Limits(total=8)).run()
        outcomes = {result.name: result.outcome for result in run.results}
        self.assertEqual(outcomes, {"TestNul.test_b\\x00": "crash", "TestNul.test_c": "pass"})

    @slow
    def test_process_that_settles_no_test_is_the_last(self):
        """Where each process has other tests than the first, and dies, no more of them are started: what is left is not run."""
        runner = self.folder / "test_ao_sparsity.py"
        runner.write_text(RESTLESS_SUITE)
        run = Runner(sys.executable, runner, [], Limits(total=8)).run()
        outcomes = {result.outcome for result in run.results if result.name == "TestRestless.test_z"}
        self.assertEqual((outcomes, len(run.results)), ({"not run"}, 3), run.results)

    def test_events_are_not_to_be_trusted(self):
        """Whatever stands on the pipe, a line that is no event of the driver says nothing."""
        attempt, runner = execute.Attempt(), Runner(sys.executable, self.folder / "x.py", [], QUICK)
        lines = [
            b"5",
            b"[]",
            b"null",
            b"\xff",
            b"{}",
            b'{"event": 3}',
            b'{"event": "stop"}',
            b'{"event": "plan", "tests": 3}',
            b"[" * 10**5,
        ]
        lines += [b'{"event": "stop", "test": "a", "outcome": [], "seconds": "x", "message": 1}', b'{"event": "fixture", "kind": 1}']
        for line in lines:
            runner.hear(line, attempt)
        self.assertEqual((attempt.stopped, attempt.fixtures, attempt.plan), ({}, [], None))
        runner.hear(b'{"event": "stop", "test": 5, "outcome": "odd", "seconds": NaN, "message": null}', attempt)
        self.assertEqual(attempt.stopped, {"5": ("error", 0.0, "None")})

    def test_worst_of_two_tests_of_one_name_counts(self):
        """A failure is not hidden by a namesake that passes after it, and what differs by chance in its text is left out."""
        attempt, runner = execute.Attempt(), Runner(sys.executable, self.folder / "x.py", [], QUICK)
        for outcome in ("pass", "fail", "pass"):
            event = {"event": "stop", "test": "A.x", "outcome": outcome, "seconds": 1, "message": "at 0x7f00aabbccdd in /tmp/tmpab12cd_9/x"}
            runner.hear(json.dumps(event).encode(), attempt)
        self.assertEqual(attempt.stopped, {"A.x": ("fail", 1.0, "at 0x... in /tmp/tmp.../x")})

    def test_mistake_of_a_listener_is_not_swallowed(self):
        """What goes wrong in what listens to the results is raised, not taken for an odd event."""
        runner = Runner(sys.executable, make_suite(self.folder), [], QUICK, on_result=lambda result: {}["no such key"])
        with self.assertRaises(KeyError):
            runner.run()

    def test_long_output_of_a_crash_is_cut_in_its_middle(self):
        """What is recorded of it is short and has its end, which tells most, and its beginning."""
        attempt = execute.Attempt()
        attempt.output.extend(["first", *["x" * execute.OUTPUT_LINE] * 20, "Fatal Python error"])
        lines = attempt.tail().splitlines()
        self.assertEqual((lines[0], lines[-1]), ("first", "Fatal Python error"))
        self.assertLess(len(attempt.tail()), 5000)

    def test_line_that_a_crash_cut_off_is_left_out(self):
        """Half an event is none."""
        attempt = execute.Attempt()
        Runner(sys.executable, self.folder / "x.py", [], QUICK).hear(b'{"event": "plan", "tes', attempt)
        self.assertIsNone(attempt.plan)

    def test_suite_does_not_believe_that_it_runs_in_ci(self):
        """In CI torch's runner would write XML by a package that the target may lack: the variable is kept from it."""
        with mock.patch.dict(os.environ, {"CI": "1", "MARK": "kept"}):
            environment = Runner(sys.executable, self.folder / "x.py", [], QUICK, extra_environment={"OMP_NUM_THREADS": "1"}).environment
        self.assertEqual([environment.get(key) for key in ("CI", "MARK", "OMP_NUM_THREADS", "PYTHON_COLORS")], [None, "kept", "1", "0"])

    def read_all(self, data, longest):
        """The lines of a stream, and the most bytes that were kept of a line that had not ended."""
        lines, most, source = [], 0, io.BytesIO(data)
        with mock.patch.object(os, "read", lambda descriptor, count: source.read(count)):
            reader = execute.LineReader(0, longest)
            while not reader.closed:
                lines += reader.read()
                most = max(most, len(reader.rest))
        return lines, most

    def test_lines_are_whole_wherever_the_stream_is_cut(self):
        """What comes in pieces is put together; the last line needs no end."""
        lines = [b"x" * length for length in (0, 1, 1 << 16, (1 << 16) - 1, 3, 200_000, 7)]
        self.assertEqual(self.read_all(b"\n".join(lines), 1 << 20)[0], lines)
        self.assertEqual(self.read_all(b"\n".join(lines) + b"\n", 1 << 20)[0], lines)

    def test_line_without_an_end_takes_no_memory(self):
        """Of a line that is too long its beginning is kept, and the line after it is whole."""
        lines, most = self.read_all(b"ab" + b"x" * 300_000 + b"\nnext", 10)
        self.assertEqual((lines, most), ([b"abxxxxxxxx", b"next"], 10))

    def test_area_is_the_module_without_its_prefix(self):
        """Areas are named as the suite's files are."""
        for module, area in {
            "ao.sparsity.test_kernels": "kernels",
            "__main__": "main",
            "ao.sparsity.kernels.packing": "kernels",
            "a.b.test_c": "c",
        }.items():
            with self.subTest(module=module):
                self.assertEqual(execute.area_of(module), area)


if __name__ == "__main__":
    unittest.main()

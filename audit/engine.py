"""The process that runs mutmut 3 in a group's work folder: ``python engine.py JOB.json``, started there.

mutmut makes the mutants, chooses the tests that reach the mutated function, runs the quickest first and keeps the
verdicts; the tests are the runner's own, run by unittest. They are imported once, and never run in the process that is
forked for the mutants: no mutant sees what an earlier run left behind. mutmut's wrappers are left out (audit_switch.py).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import unittest
from pathlib import Path

import audit_switch
import libcst as cst
import mutmut.__main__ as mutmut
import operators
import suite
from mutmut.mutation import file_mutation
from mutmut.mutation.mutators import mutation_operators
from mutmut.runners.harness import ListAllTestsResult, TestRunner
from mutmut.state import state
from mutmut.workers.isolation import ForkRunner, run_in_fork, run_in_fork_with_result


#: Modules that were there after all tests had run, in the order of their import.
IMPORTED = Path("mutants", "imported.json")


#: Exit status of a mutant that could not be put in place; mutmut's for one that was interrupted.
NOT_CHECKED = 2

#: Exit status of a mutant that a plain test notices, and of one that only tests of known defects notice.
KILLED, KNOWN_ONLY = 1, 3


class RunnersTests(TestRunner):
    """mutmut's view of the runner's tests."""

    def __init__(self, tests: dict[str, unittest.TestCase]):
        self.tests = tests

    def _select(self, ids):
        """The tests of these ids, the quickest first; all of them where none is named."""
        ids = [i for i in ids if i in self.tests] or list(self.tests)
        return [self.tests[i] for i in sorted(ids, key=lambda i: state().duration_by_test.get(i, 0.0))]

    def run_tests(self, *, mutant_name, tests):
        """0 where all are as they should be, else 1, or 3 where only tests of known defects are not: the plain ones run first. Whatever
        else ends a test (SystemExit, for one) is a mutant that was noticed."""
        if mutant_name:
            try:
                audit_switch.activate(mutant_name)
            except LookupError:
                return NOT_CHECKED
        known, plain = [], []
        for test in self._select(tests):
            (plain if suite.known_defect(test) is None else known).append(test)
        for some, status in ((plain, KILLED), (known, KNOWN_ONLY)):
            try:
                if not suite.run(some, failfast=True).wasSuccessful():
                    return status
            except BaseException:
                return status
        return 0

    def run_forced_fail(self):
        audit_switch.break_all()
        return self.run_tests(mutant_name=None, tests=[])

    def run_stats(self, *, tests):
        """Note which test reaches which function; what fails while it is watched fails in the clean run too, or is no matter."""
        hits = set()

        def note(test_id):
            for function in hits:
                state().tests_by_mangled_function_name[function].add(test_id)
            hits.clear()

        audit_switch.record(hits)
        result = suite.run(self._select(tests), on_stop=note)
        state().duration_by_test.update(result.seconds)
        return 0

    def list_all_tests(self):
        return ListAllTestsResult(ids=set(self.tests))


class CleanForks(ForkRunner):
    """mutmut's runner by fork, with the runs that precede the mutants in forks of their own."""

    def collect_stats(self, tests):
        def in_child():
            code = self.test_runner.run_stats(tests=tests or [])
            return code, dict(state().tests_by_mangled_function_name), dict(state().duration_by_test), list(sys.modules)

        code, by_function, durations, imported = run_in_fork_with_result(in_child)
        for function, ids in by_function.items():
            state().tests_by_mangled_function_name[function] |= ids
        state().duration_by_test.update(durations)
        IMPORTED.write_text(json.dumps(imported))
        return code

    def startup(self):
        """Import what the tests import while they run (torch._dynamo, for one): once here, not once per mutant."""
        for name in json.loads(IMPORTED.read_text()):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        super().startup()

    def run_clean_tests(self, tests):
        """Each test alone, in a fork of its own: a mutant is asked with some of the tests and in another order, and a test
        that passes only after another one would count as having noticed it."""
        run = self.test_runner.run_tests
        red = [name for name in sorted(tests or self.test_runner.tests) if run_in_fork(run, mutant_name=None, tests=[name])]
        if red:
            print("red when run alone:", *red, sep="\n")
        return len(red)

    def run_forced_fail(self):
        return run_in_fork(self.test_runner.run_forced_fail)


def generate(workers: int) -> None:
    """Write the mutated copies below ``mutants/``; files done by an earlier run are kept."""
    imports = file_mutation.trampoline_imports.replace("mutmut.mutation.trampoline", "audit_switch")
    file_mutation.trampoline_impl_cst[:] = cst.parse_module(imports).body
    with mutmut.CatchOutput():
        mutmut.copy_src_dir()
        mutmut.create_mutants(workers)


def main(job_file: str) -> int:
    job = json.loads(Path(job_file).read_text())
    Path("mutants").mkdir(exist_ok=True)
    if job["operators"] == "own":
        mutation_operators[:] = operators.OPERATORS  # type: ignore[index]
    if job["task"] == "generate":
        generate(job["workers"])
        return 0

    def runner(max_workers=1):
        tests = suite.load(Path(job["tests"]), job["runner"], job["patterns"])
        outside = [n for n, m in sys.modules.items() if _under(n, job["packages"]) and not _inside(m, job["overlay"])]
        if outside:
            raise SystemExit(f"not taken from the overlay: {', '.join(sorted(outside))}")
        for name in job["deselected"]:
            tests.pop(name, None)
        return CleanForks(max_workers, RunnersTests(tests))

    # the trampoline's switch is not used, and tests need not find it in their environment
    mutmut.set_mutant_under_test = lambda name: None
    mutmut.get_mutant_runner = runner
    mutmut._run(job["names"], job["workers"])
    return 0


def _under(name, packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def _inside(module, folder):
    return os.path.realpath(getattr(module, "__file__", None) or folder).startswith(os.path.realpath(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

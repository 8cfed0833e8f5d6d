"""Mutation runs on the toy package: verdicts, resuming, shards, refusals."""

import contextlib
import fcntl
import importlib.util
import io
import json
import os
import shutil
import signal
import unittest
from unittest import mock

from audit import by_mutmut, group, merge, mutants, mutate, toy
from audit.project import AuditError, digest

HAS_MUTMUT = importlib.util.find_spec("mutmut") is not None


class ToyCase(toy.Case):
    """Makes mutants of the toy."""

    def setUp(self):
        if not HAS_MUTMUT:
            self.skipTest("the mutation machinery (no mutmut)")
        super().setUp()

    def mutate(self, project, work="work", operators="mutmut", only=(), shard=(1, 1), survivors=False):
        """Run, and return what it printed and the mutants."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            file = mutate.mutate(project, self.folder / work, operators, list(only), shard, [], survivors, workers=2)
        return out.getvalue(), mutants.load(file)[1]


def verdicts(found):
    return {(m.function, m.before, m.after): m.verdict for m in found}


def toy_group(project, work):
    return by_mutmut.MutmutGroup(project, "toy", project.groups["toy"], work, "mutmut", [], 1)


class TestWholeRun(ToyCase):
    slow = 8

    def test_whole_run_gives_the_verdicts_that_follow_from_the_tests(self):
        """Killed, crashed, survived or not reached by any test; the same after a resume, a merge of shards, new tests."""
        project = toy.write(self.folder)
        before = digest(self.folder / "site")
        said, found = self.mutate(project)
        self.assertEqual(digest(self.folder / "site"), before, "the installed package was written to")
        self.assertIn(f"{len(found)} mutants, {len(found)} selected, {len(found)} to run", said)
        got = verdicts(found)
        expected = {
            ("clamp", "if x < low:", "if x <= low:"): "survived",  # equal at the bound
            ("clamp", "return min(x, high)", "return min(None, high)"): "survived",  # unittest takes any failure as expected
            ("clamp", "def clamp(x, low, high=10):", "def clamp(x, low, high=11):"): "survived",
            ("never_called", "return x + 1", "return x - 1"): "no tests",
            ("never_called", "return x + 1", "return x + 2"): "no tests",
            ("Guard.check", "if x is None:", "if x is not None:"): "crash",
            ("Guard.check", "return True", "return False"): "killed",
        }
        self.assertEqual({key: got.get(key) for key in expected}, expected)
        self.assertEqual(len({m.key for m in found}), len(found), "two mutants with one key")

        with self.subTest("the same command has nothing left to do"):
            said, again = self.mutate(project)
            self.assertIn("0 to run", said)
            self.assertEqual(again, found)

        with self.subTest("an interrupted run goes on where it stopped"):
            meta = next(file for file in mutants.meta_files(self.folder / "work/mutmut/toy") if file.name.startswith("sums"))
            data = json.loads(meta.read_text())
            first, second, *_ = data["exit_code_by_key"]
            data["exit_code_by_key"].update({first: None, second: None})
            meta.write_text(json.dumps(data))
            said, again = self.mutate(project)
            self.assertIn("2 to run", said)
            self.assertEqual(again, found)

        with self.subTest("a part"):
            said, part = self.mutate(project, only=["toykit.guard*"])
            self.assertEqual({m.module for m in part}, {"toykit.guard"})
            with self.assertRaisesRegex(AuditError, "no mutant matches nothing"):
                self.mutate(project, only=["nothing"])

        with self.subTest("shards on several machines, merged, are the whole run"):
            for number in (1, 2):
                work = self.folder / f"machine{number}"
                shutil.copytree(self.folder / "work", work)
                toy_group(project, work).forget(lambda exit_code: True)
                self.mutate(project, work=work.name, shard=(number, 2))
            parts = [mutants.load(mutate.results_file(self.folder / f"machine{n}", "mutmut"))[1] for n in (1, 2)]
            asked = [{m.name for m in part if m.verdict != "not checked"} for part in parts]
            self.assertFalse(asked[0] & asked[1])
            whole = merge.merge([self.folder / "machine1", self.folder / "machine2"], self.folder / "merged", "mutmut")
            self.assertEqual(whole, found)

        with self.subTest("changed tests: asked again, or the survivors alone"):
            better = toy.CASES.replace("clamp(-1, 0), 0)", "(clamp(-1, 0), clamp(11, 0)), (0, 10))")
            project = toy.write(self.folder, better)
            said, again = self.mutate(project, survivors=True)
            lost = sum(m.verdict in ("survived", "no tests") for m in found)
            self.assertIn(f"{lost} to run", said)
            self.assertEqual(verdicts(again)["clamp", "def clamp(x, low, high=10):", "def clamp(x, low, high=11):"], "killed")
            project = toy.write(self.folder, better + "\n    # another comment\n")
            again = toy_group(project, self.folder / "work")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                again.prepare(survivors=False)
            self.assertIn("asked again", out.getvalue())
            self.assertEqual(set(mutants.read_verdicts(again.folder).values()), {None})

    def test_own_operators_make_other_mutants(self):
        """The second set of operators is run by the same machinery and kept apart from mutmut's."""
        said, found = self.mutate(toy.write(self.folder), operators="own", only=["toykit.sums.clamp"])
        got = verdicts(found)
        self.assertEqual(got["clamp", "return low", "return None"], "killed")
        self.assertEqual(got["clamp", "if x < low:", "if not (x < low):"], "killed")
        self.assertEqual(got["clamp", "return min(x, high)", "return max(x, high)"], "known only")  # an unexpected success
        self.assertFalse((self.folder / "work" / "mutmut").exists())

    def test_code_that_runs_at_import_is_mutated_too(self):
        """Class-level code, decorators and decorated functions; functions that mutmut reaches are left to it."""
        project = toy.write(self.folder)
        said, found = self.mutate(project, operators="import", only=["toykit.guard"])
        self.assertEqual(
            verdicts(found),
            {
                ("Guard", "LIMIT = 5", "LIMIT = 6"): "killed",
                ("Guard", "LIMIT = 5", "LIMIT = None"): "killed",
                ("Guard", "LIMIT = 5", "LIMIT = 4"): "killed",
                ("Guard", "LIMIT = 5", "LIMIT = (-5)"): "killed",
                ("Guard.limit", "@property", ""): "killed",
                ("Guard.limit", "return self.LIMIT", "return None"): "killed",
                ("Guard.limit", "return self.LIMIT", 'return __import__("copy").deepcopy(self.LIMIT)'): "survived",
            },
        )
        said, again = self.mutate(project, operators="import", only=["toykit.guard"])
        self.assertIn("0 to run", said)
        self.assertEqual(again, found)


class TestRefusals(ToyCase):
    slow = 6

    def test_run_refuses_an_overlay_with_other_verdicts(self):
        """A test that the overlay alone makes fail stops the run and is named."""
        cases = toy.CASES.replace("clamp(-1, 0), 0)", "os.environ.get('AUDIT_OVERLAY'), None)")
        with self.assertRaisesRegex(AuditError, r"(?s)other verdicts.*TestSums\.test_low: passed there, failed here"):
            self.mutate(toy.write(self.folder, cases))

    def test_run_refuses_a_red_suite(self):
        """Nothing can be measured with a test that fails anyway."""
        cases = toy.CASES.replace("clamp(-1, 0), 0)", "clamp(-1, 0), 7)")
        with self.assertRaisesRegex(AuditError, r"(?s)red on the installed package.*TestSums\.test_low: AssertionError: 0 != 7"):
            self.mutate(toy.write(self.folder, cases))

    def test_run_refuses_a_test_that_needs_another_one(self):
        """A test that passes only after another would fail for every mutant that is asked with it alone."""
        early = 'def test_early(self):\n            os.environ["EARLY"] = "1"\n\n        def test_low'
        cases = toy.CASES.replace("def test_low", early)
        cases = cases.replace("clamp(-1, 0), 0)", 'clamp(-1, 0), int(os.environ["EARLY"]) - 1)')
        with self.assertRaisesRegex(AuditError, r"(?s)red when run alone.*TestSums\.test_low"):
            self.mutate(toy.write(self.folder, cases))

    def test_run_refuses_a_work_folder_in_use(self):
        """Two runs in one folder would overwrite each other's verdicts."""
        with group.lock(self.folder / "work"), self.assertRaisesRegex(AuditError, "in use"):
            self.mutate(toy.write(self.folder))

    def test_engine_of_a_killed_run_keeps_the_work_folder(self):
        """It goes on with the mutants, and a next run would work beside it."""
        work, end = self.folder / "work", self.folder / "end"
        toys = toy_group(toy.write(self.folder), work)
        toys.folder.mkdir(parents=True)
        os.mkfifo(end)
        (self.folder / "engine.py").write_text(f"open({str(end)!r}).read()")
        pid = os.fork()
        if not pid:
            with mock.patch.object(by_mutmut, "AUDIT", self.folder), group.lock(work):
                toys.engine({}, lambda process: os.kill(os.getpid(), signal.SIGKILL))
            os._exit(0)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGKILL)
        with self.assertRaisesRegex(AuditError, "in use"), group.lock(work):
            pass
        end.write_text("")
        with (work / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # waits for the end of the engine

    def test_tests_that_mind_mutmuts_files_are_left_out_and_named(self):
        """What fails with mutmut's further functions alone is deselected."""
        cases = toy.CASES.replace("clamp(-1, 0), 0)", "[n for n in dir(Guard) if '__mutmut' in n], [])")
        said, found = self.mutate(toy.write(self.folder, cases), only=["toykit.sums.clamp"])
        self.assertIn("left out, as it minds mutmut's files: suite_of_toy.cases.TestSums.test_low", said)


if __name__ == "__main__":
    unittest.main()

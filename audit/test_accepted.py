"""The list of what is accepted: its form, and what it says about mutants and gaps."""

import json
import tempfile
import unittest
from pathlib import Path

from audit import accepted
from audit.lines import Gap
from audit.mutants import Mutant
from audit.project import AuditError

WHY = "The value is never read again."


def entry(**changes):
    return {"module": "m", "function": "f", "before": "a", "after": "b", "reason": "equivalent", "why": WHY, **changes}


def mutant(verdict="survived", after="b", nth=1):
    return Mutant(f"m.x_f__mutmut_{after}{nth}", "m", "f", "a", after, nth, 0, verdict)


class TestFile(unittest.TestCase):
    def load(self, **changes):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "accepted.json")
            file.write_text(
                json.dumps({"torch": "2.13", "mutmut": [], "own": [], "import": [], "history": [], "mends": [], "coverage": [], **changes})
            )
            return accepted.load(file)

    def test_project_list_is_well_formed(self):
        """The committed file passes its own check."""
        self.assertRegex(accepted.load().torch, r"^\d+\.\d+$")

    def test_malformed_entries_are_refused(self):
        """Unknown reason, no sentence, unknown or missing field."""
        self.assertEqual(len(self.load(mutmut=[entry()]).of("mutmut")), 1)
        cases = {
            "reason 'too hard'": {"mutmut": [entry(reason="too hard")]},
            "needs a sentence": {"own": [entry(why="because")]},
            "fields": {"mutmut": [entry(number=3)]},
            "expected": {"coverage": [entry()]},
        }
        for message, changes in cases.items():
            with self.subTest(message), self.assertRaisesRegex(AuditError, message):
                self.load(**changes)

    def test_entries_hold_for_their_release_alone(self):
        """Another torch has other sources."""
        entries = self.load()
        cases = {"2.13.0+cpu": True, "2.13.1": True, "2.14.0": False, "2.1.0": False, "3.13": False}
        self.assertEqual({version: entries.holds_for(version) for version in cases}, cases)


class TestSortMutants(unittest.TestCase):
    def test_entry_accepts_its_mutants(self):
        """By place and change; one of several equal changes by nth; several changes of the same lines by a list."""
        found = [mutant(), mutant(nth=2), mutant(after="c")]
        for changes, expected in (({}, [0, 1]), ({"nth": 2}, [1]), ({"after": ["b", "c"]}, [0, 1, 2])):
            with self.subTest(changes):
                reasons, complaints = accepted.sort_mutants((entry(**changes),), found)
                self.assertEqual(reasons, {found[i].name: "equivalent" for i in expected})
                self.assertEqual(complaints, [])

    def test_wrong_entries_are_complained_about(self):
        """No such mutant; noticed by a test; listed twice."""
        cases = [
            ("no such mutant", [entry(after="z")], [mutant()]),
            ("no such mutant", [entry(nth=3)], [mutant()]),
            ("a test notices it", [entry()], [mutant("killed")]),
            ("accepted twice", [entry(), entry(reason="speed only")], [mutant()]),
        ]
        for message, entries, found in cases:
            with self.subTest(message):
                _, complaints = accepted.sort_mutants(tuple(entries), found)
                self.assertEqual(len(complaints), 1, complaints)
                self.assertIn(message, complaints[0])


class TestSortGaps(unittest.TestCase):
    def test_entry_accepts_lines_and_branches(self):
        """A branch by where it would go; an entry that matches no gap is complained about."""
        line, branch = Gap("m", "f", 3, "x = 1"), Gap("m", "f", 5, "if x:", "exit")
        listed = [
            {"module": "m", "function": "f", "line": "x = 1", "reason": "unreachable", "why": WHY},
            {"module": "m", "function": "f", "line": "if x:", "to": "exit", "reason": "unreachable", "why": WHY},
        ]
        self.assertEqual(accepted.sort_gaps(tuple(listed), [line, branch])[0], {line: "unreachable", branch: "unreachable"})
        _, complaints = accepted.sort_gaps(tuple(listed), [line])
        self.assertEqual(len(complaints), 1)
        self.assertIn("it is reached or does not exist", complaints[0])


if __name__ == "__main__":
    unittest.main()

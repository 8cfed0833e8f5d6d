"""The register of PyTorch's known defects in the sparsity stack, and the mark of the tests that show them.

A root cause has a page (``ao/sparsity/defects/<area>/<cause>.md``) with a section for each symptom, and each symptom one test
that asserts the *right* behaviour, marked with ``@known_defect("symptom-id")``. One rule decides what such a test counts as:

    it fails in a registered way                      expected failure
    it fails in any other way                         failure
    it passes, and the symptom is certain to show here, and the run is strict     unexpected success
    it passes otherwise                               success; a closing line names the symptom unless chance decides it

A symptom is certain to show on a torch that is known to have it, where the conditions of its page hold and chance plays no part.
A run is strict where the environment variable AO_SPARSITY_STRICT is 1: the project's own runs are, so that the register stays true.

    python -m ao.sparsity.testing.known_defects            the register as a table, the worst first
    python -m ao.sparsity.testing.known_defects --json     all of it as JSON
    python -m ao.sparsity.testing.known_defects --check    run just these tests: still there, does not show, changed
    python -m ao.sparsity.testing.known_defects --write    renew the index and the page for packagers in ao/sparsity/defects
"""

import argparse
import ast
import collections
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import typing
import unittest

from ao.sparsity.testing import session  # first: it asks whether there is a torch to validate

from ao.sparsity.testing import build
from ao.sparsity.testing.child import TO_BE_READ
from ao.sparsity.testing.defects import FOLDER, SEVERITIES, Symptom, load

ROOT = pathlib.Path(__file__).resolve().parents[3]
REGISTER = load()
STATES = {
    "expected failure": "still there",
    "unexpected success": "fixed",
    "ok": "does not show here",
    "FAIL": "changed",
    "ERROR": "changed",
}


def known_defect(symptom_id: str) -> typing.Callable:
    """Mark a test of the right behaviour with the registered symptom that makes it fail today.

    On a torch that is not known to have the defect the test is a plain one.

    Raises:
        KeyError: if the register has no such symptom.
    """
    symptom = REGISTER[symptom_id]

    def decorate(test):
        if not symptom.known_in(build.TORCH_VERSION):
            return test

        @functools.wraps(test)
        def run(self, *args, **kwargs):
            self.in_known_defect = True
            try:
                test(self, *args, **kwargs)
            except unittest.SkipTest:
                raise
            except Exception as error:
                if symptom.shows_as(error):
                    raise error.with_traceback(None) from None  # nobody reads it, and to format it takes milliseconds
                self.count("addExpectedFailure", as_="addFailure")
                raise AssertionError(
                    f"the known defect {symptom_id!r} shows in another way than registered.\n"
                    f"registered: {symptom.ways()}\n"
                    f"now: {type(error).__name__}: {error}"
                ) from error
            else:
                red = session.strict() and symptom.certain_here()
                if not red:
                    self.count("addUnexpectedSuccess", as_="addSuccess")
                if red or "chance" not in symptom.keys:
                    session.note_absent(symptom_id, advice(symptom) if red else None)
            finally:
                self.in_known_defect = False

        run.__unittest_expecting_failure__ = True
        run.known_defect = symptom_id  # for results that name it, and its page
        run.known_defect_page = f"ao/sparsity/defects/{symptom.page}"
        return run

    return decorate


def advice(symptom: Symptom) -> str:
    """What a maintainer of this suite does about a symptom that is gone."""
    return f"delete its section in ao/sparsity/defects/{symptom.page} and its mark, or write `fixed: {build.torch_release()}` there"


def uses(folder: pathlib.Path = ROOT / "ao" / "sparsity") -> dict:
    """Tests that are marked with known_defect, read from the sources without importing a test.

    Returns:
        dict[str, list[str]]: for each id, the tests as ``Class.test``; those of a part of a class, whose name does not begin
        with Test, as tests of the classes that it is a base of.
    """
    marks, bases = [], {}
    for path in sorted(folder.glob("**/*.py")):
        if path.parent.name == "testing":
            continue
        for holder in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(holder, ast.ClassDef):
                bases[holder.name] = [base.id for base in holder.bases if isinstance(base, ast.Name)]
                marks += [(holder.name, *mark) for mark in _marks(holder)]
    found: dict[str, list[str]] = collections.defaultdict(list)
    for holder, test, symptom_id in marks:
        holders = [holder] if holder.startswith("Test") else sorted(name for name in bases if holder in bases[name]) or [holder]
        found[symptom_id] += [f"{name}.{test}" for name in holders]
    return dict(found)


def _marks(holder: ast.ClassDef) -> list:
    """The marked tests of a class: name of the test, with that of its case where a case is marked, and id of the symptom."""
    marks = []
    for function in holder.body:
        if isinstance(function, ast.FunctionDef):
            for decorator in function.decorator_list:
                suffixes = _suffixes(decorator)
                for call in _calls(decorator, "known_defect"):
                    marks.append((function.name + suffixes.get(id(call), ""), ast.literal_eval(call.args[0])))
    return marks


def _calls(tree: ast.AST, name: str) -> list:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name]


def _suffixes(decorator: ast.expr) -> dict:
    """What torch's parametrize adds to the name of each marked case, by the identity of the mark."""
    found = {}
    for case in _calls(decorator, "subtest"):
        names = [keyword.value.value for keyword in case.keywords if keyword.arg == "name" and isinstance(keyword.value, ast.Constant)]
        value = case.args[0] if case.args else None
        if names:
            suffix = f"_{names[0]!s}"
        elif isinstance(decorator, ast.Call) and isinstance(decorator.args[0], ast.Constant) and isinstance(value, ast.Constant):
            suffix = f"_{decorator.args[0].value!s}_{value.value!s}"
        else:
            continue
        found.update({id(call): suffix for call in _calls(case, "known_defect")})
    return found


def inconsistencies(entries: typing.Iterable | None = None, marks: dict | None = None) -> list:
    """Symptoms that no test uses, tests that name no symptom, and symptoms that have two tests; one line each."""
    entries = REGISTER if entries is None else entries
    marks = uses() if marks is None else marks
    lines = [f"symptom {symptom_id!r}: no test uses it" for symptom_id in entries if symptom_id not in marks]
    lines += [f"{tests[0]}: the register has no symptom {name!r}" for name, tests in marks.items() if name not in entries]
    lines += [f"symptom {name!r}: two tests for the same fault: {', '.join(tests)}" for name, tests in marks.items() if len(tests) > 1]
    return lines


def check() -> dict:
    """Run the marked tests strictly, as a process of the root runner.

    Returns:
        dict[str, str]: for each id ``still there``, ``fixed``, ``does not show here``, ``changed`` or why there was no answer.
    """
    marks = uses()
    names = {test: symptom_id for symptom_id, tests in marks.items() for test in tests}
    command = [sys.executable, str(ROOT / "test_ao_sparsity.py"), "-v"]
    for test in names:
        command += ["-k", test]
    environment = {**os.environ, **TO_BE_READ, "PYTHONWARNINGS": "ignore", session.STRICT: "1"}
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    outcomes = collections.defaultdict(set)
    pattern = r"^(test_\w+) \(([\w.]+)\).*?\.\.\. (ok|FAIL|ERROR|expected failure|unexpected success|skipped [^\n]*)$"
    for method, path, outcome in re.findall(pattern, process.stderr, re.MULTILINE | re.DOTALL):
        holder = [part for part in path.split(".") if part != method][-1]
        base = max((n for n in names if f"{holder}.{method}".startswith(n)), key=len, default=None)
        if base is not None:
            outcomes[names[base]].add(STATES.get(outcome, outcome))
    return {symptom_id: " / ".join(sorted(outcomes.get(symptom_id, {"not run"}))) for symptom_id in REGISTER}


def as_json() -> list:
    """All that is known about each symptom, with whether it is certain to show on this build.

    Returns:
        list[dict]
    """
    tests = uses()
    return [
        {
            "id": symptom.id,
            "cause": symptom.cause,
            "area": symptom.area,
            "title": symptom.title,
            "severity": symptom.severity,
            "standing": symptom.keys["standing"],
            "affects": symptom.keys["affects you if"],
            "where": symptom.keys["where"],
            "mend": symptom.keys["mend"],
            "since": symptom.keys["since"],
            "fixed": symptom.keys.get("fixed"),
            "upstream": symptom.keys.get("upstream"),
            "when": symptom.keys.get("when"),
            "chance": symptom.keys.get("chance"),
            "known_in_this_torch": symptom.known_in(build.TORCH_VERSION),
            "certain_here": symptom.certain_here(),
            "shows_as": [f"{name}: {pattern}" for name, pattern in symptom.shows],
            "text": symptom.text,
            "reproduce": symptom.python,
            "today": symptom.today,
            "right": symptom.right,
            "tests": tests.get(symptom.id, []),
            "page": f"ao/sparsity/defects/{symptom.page}",
        }
        for symptom in REGISTER.values()
    ]


def causes() -> list:
    """The symptoms of each root cause, the worst first, arguable ones after clear ones.

    Returns:
        list[list[Symptom]]
    """
    by_cause = collections.defaultdict(list)
    for symptom in REGISTER.values():
        by_cause[symptom.cause].append(symptom)
    return sorted(by_cause.values(), key=lambda symptoms: (symptoms[0].arguable, _worst(symptoms), symptoms[0].area))


def _worst(symptoms: list) -> int:
    return min(SEVERITIES.index(symptom.severity) for symptom in symptoms)


def counts() -> list:
    """Numbers of root causes and symptoms, a line for each severity and standing.

    Returns:
        list[str]
    """
    lines = []
    for arguable, kind in ((False, "root causes"), (True, "arguable root causes, not counted as defects")):
        chosen = [symptoms for symptoms in causes() if symptoms[0].arguable == arguable]
        by_severity = collections.Counter(_worst(symptoms) for symptoms in chosen)
        if chosen:
            parts = ", ".join(f"{number} {SEVERITIES[index]}" for index, number in sorted(by_severity.items()))
            lines.append(f"{len(chosen)} {kind}, {sum(map(len, chosen))} symptoms: {parts}")
    return lines


def as_table() -> str:
    """The register as text, a symptom a line, the worst first."""
    symptoms = [symptom for group in causes() for symptom in group]
    width = max((len(symptom.id) for symptom in symptoms), default=0)
    rows = [
        f"{s.id:{width}}  {s.severity + (', arguable' if s.arguable else ''):36} {s.area:22} ao/sparsity/defects/{s.page}" for s in symptoms
    ]
    return "\n".join([*rows, *counts()])


def as_index() -> str:
    """The text of ``defects/README.md``: one line a root cause, by severity."""
    lines = [
        "# Known defects of PyTorch's sparsity stack",
        "",
        "Generated by `python -m ao.sparsity.testing.known_defects --write`. Each line is a root cause with a page of its own;",
        "[PACKAGERS.md](PACKAGERS.md) has those that kill a process or give wrong numbers in silence, and whom they meet.",
        "",
        *(f"- {line}." for line in counts()),
    ]
    for arguable in (False, True):
        for index, severity in enumerate(SEVERITIES):
            chosen = [group for group in causes() if group[0].arguable == arguable and _worst(group) == index]
            if chosen:
                lines += ["", f"## {'Arguable: ' if arguable else ''}{severity}", ""]
                lines += [f"- {group[0].area}: [{group[0].title}]({group[0].page})" + _details(group) for group in chosen]
    return "\n".join(lines) + "\n"


def _details(group: list) -> str:
    """What an index line says behind the title: conditions, versions, symptoms."""
    whens = {symptom.keys["when"] for symptom in group if "when" in symptom.keys}
    keys = group[0].keys
    notes = [f"{len(group)} symptoms"] * (len(group) > 1)
    notes += [f"when {when}" for when in sorted(whens)]
    notes += [f"since {keys['since']}"] if keys["since"] != "2.1" else []
    notes += [f"fixed in {keys['fixed']}"] if "fixed" in keys else []
    return f" ({'; '.join(notes)})" if notes else ""


def as_packagers_page() -> str:
    """The text of ``defects/PACKAGERS.md``: the first two severities, and whom they meet."""
    lines = [
        "# What a packager should know",
        "",
        "Generated by `python -m ao.sparsity.testing.known_defects --write`: the known defects of PyTorch's sparsity stack that kill a",
        "process or give wrong numbers in silence. They are PyTorch's own; a build that shows them is not broken by its packager.",
    ]
    for index, severity in enumerate(SEVERITIES[:2]):
        chosen = [group for group in causes() if not group[0].arguable and _worst(group) == index]
        lines += ["", f"## {severity.capitalize()}", "", "| it affects you if | what goes wrong |", "| --- | --- |"]
        lines += [f"| {group[0].keys['affects you if']} | [{group[0].title}]({group[0].page}){_details(group)} |" for group in chosen]
    return "\n".join(lines) + "\n"


GENERATED = {"README.md": as_index, "PACKAGERS.md": as_packagers_page}


def main(argv: list | None = None) -> int:
    """Command line; returns the exit status: 0, or 1 where the register and the tests or the build disagree."""
    parser = argparse.ArgumentParser(
        prog="python -m ao.sparsity.testing.known_defects", description="PyTorch's known defects in its sparsity stack"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--json", action="store_true", help="print the register as JSON")
    action.add_argument("--check", action="store_true", help="run the tests of the register: still there, does not show, changed")
    action.add_argument("--write", action="store_true", help="renew the index and the page for packagers")
    options = parser.parse_args(argv)
    if options.json:
        print(json.dumps(as_json(), indent=1))
        return 0
    if options.write:
        for name, text in GENERATED.items():
            (FOLDER / name).write_text(text(), encoding="utf-8")
        return 0
    wrong = inconsistencies()
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    if not options.check:
        print(as_table())
        return 1 if wrong else 0
    states = check()
    width = max((len(symptom_id) for symptom_id in states), default=0)
    for symptom_id, state in states.items():
        print(f"{symptom_id:{width}}  {state}" + (f": {advice(REGISTER[symptom_id])}" if state == "fixed" else ""))
    print(", ".join(f"{number} {state}" for state, number in collections.Counter(states.values()).most_common()))
    fine = ("still there", "does not show here", "skipped")
    return 1 if wrong or not all(state.startswith(fine) for state in states.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

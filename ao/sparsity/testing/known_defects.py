"""The register of PyTorch's known defects in the sparsity stack.

A defect gets an entry (``register/<area>.py``) and one test that asserts the *right* behaviour, marked with
``@known_defect("id")``. The mark is strict both ways: the test must fail as its entry says, and is then an expected failure.
If it fails otherwise the run is red; if it passes, it is an unexpected success and the run says which entry to delete or close.

    python -m ao.sparsity.testing.known_defects            the register as a table
    python -m ao.sparsity.testing.known_defects --json     the same as JSON
    python -m ao.sparsity.testing.known_defects --check    run just these tests: still there, fixed, changed
    python -m ao.sparsity.testing.known_defects --write    renew DEFECTS.md
"""

import argparse
import ast
import collections
import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

from ao.sparsity.testing import session  # first: it asks whether there is a torch to validate

from ao.sparsity.testing import build
from ao.sparsity.testing.register import load

ROOT = pathlib.Path(__file__).resolve().parents[3]
REGISTER = load()
STATES = {"expected failure": "still there", "unexpected success": "fixed", "ok": "fixed", "FAIL": "changed", "ERROR": "changed"}


def known_defect(defect_id):
    """Mark a test of the right behaviour with the registered defect that makes it fail today.

    On a torch that is not known to have the defect the test is a plain one.

    Raises:
        KeyError: if the register has no such entry.
    """
    defect = REGISTER[defect_id]

    def decorate(test):
        if not defect.known_in(build.TORCH_VERSION):
            return test

        @functools.wraps(test)
        def run(self, *args, **kwargs):
            self._in_known_defect = True
            try:
                test(self, *args, **kwargs)
            except unittest.SkipTest:
                raise
            except Exception as error:
                if defect.shows_as(error):
                    raise error.with_traceback(None) from None  # nobody reads it, and to format it takes milliseconds
                self._outcome.expecting_failure = False  # unittest: from here on, a real failure
                raise AssertionError(
                    f"the known defect {defect_id!r} shows in another way than registered.\n"
                    f"registered: {defect.error} matching {defect.match!r}\n"
                    f"now: {type(error).__name__}: {error}"
                ) from error
            else:
                session.note_mended(defect_id, _advice(defect))
            finally:
                self._in_known_defect = False

        run.__unittest_expecting_failure__ = True
        run.known_defect = defect_id  # for results that name it
        return run

    return decorate


def _advice(defect):
    return f'delete its entry in register/{defect.area}.py, or close it there with fixed="{build.torch_release()}"'


def uses(folder=ROOT / "ao" / "sparsity"):
    """Tests that are marked with known_defect, read from the sources without importing a test.

    Returns:
        dict[str, list[str]]: for each id, the tests as ``Class.test``.
    """
    found = collections.defaultdict(list)
    for path in sorted(folder.glob("test_*.py")):
        for holder in ast.parse(path.read_text(encoding="utf-8")).body:
            for function in getattr(holder, "body", []) if isinstance(holder, ast.ClassDef) else []:
                for decorator in getattr(function, "decorator_list", []):
                    for call in ast.walk(decorator):
                        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "known_defect":
                            found[ast.literal_eval(call.args[0])].append(f"{holder.name}.{function.name}")
    return dict(found)


def inconsistencies(entries=None, marks=None):
    """Entries that no test uses, tests that name no entry, and faults that have two tests; one line each."""
    entries = REGISTER if entries is None else entries
    marks = uses() if marks is None else marks
    lines = [f"entry {defect_id!r}: no test uses it" for defect_id in entries if defect_id not in marks]
    lines += [f"{tests[0]}: the register has no entry {name!r}" for name, tests in marks.items() if name not in entries]
    lines += [f"entry {name!r}: two tests for the same fault: {', '.join(tests)}" for name, tests in marks.items() if len(tests) > 1]
    return lines


def check():
    """Run the marked tests, as a process of the root runner.

    Returns:
        dict[str, str]: for each id ``still there``, ``fixed``, ``changed`` or why the test gave no answer.
    """
    marks = uses()
    names = {test: defect_id for defect_id, tests in marks.items() for test in tests}
    command = [sys.executable, str(ROOT / "test_ao_sparsity.py"), "-v"]
    for test in names:
        command += ["-k", test]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "CI": ""}  # where CI is set torch's runner prints outcomes differently
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    outcomes = collections.defaultdict(set)
    pattern = r"^(test_\w+) \(([\w.]+)\).*?\.\.\. (ok|FAIL|ERROR|expected failure|unexpected success|skipped [^\n]*)$"
    for method, path, outcome in re.findall(pattern, process.stderr, re.MULTILINE | re.DOTALL):
        holder = [part for part in path.split(".") if part != method][-1]
        base = max((n for n in names if f"{holder}.{method}".startswith(n)), key=len, default=None)
        if base is not None:
            outcomes[names[base]].add(STATES.get(outcome, outcome))
    return {defect_id: " / ".join(sorted(outcomes.get(defect_id, {"not run"}))) for defect_id in REGISTER}


def as_table():
    """The register as text, an entry a line."""
    width = max((len(defect_id) for defect_id in REGISTER), default=0)
    rows = [f"{d.id:{width}}  {d.area:22} {d.kind:16} {d.summary}" for d in REGISTER.values()]
    return "\n".join([*rows, f"{len(rows)} known defects"])


def as_markdown():
    """The text of DEFECTS.md."""
    by_area = collections.defaultdict(lambda: collections.defaultdict(list))
    for defect in REGISTER.values():
        by_area[defect.area][defect.kind].append(defect)
    kinds = collections.Counter(defect.kind for defect in REGISTER.values())
    tests = uses()
    lines = [
        "# Known defects of PyTorch's sparsity stack",
        "",
        "Generated from the register by `python -m ao.sparsity.testing.known_defects --write`; do not edit.",
        "Each entry has a test that asserts the right behaviour and fails today in the registered way",
        "(`python -m ao.sparsity.testing.known_defects --check`).",
        "",
        f"{len(REGISTER)} entries: " + ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()) + ".",
    ]
    causes = collections.defaultdict(list)
    for defect in REGISTER.values():
        if defect.cause:
            causes[defect.cause].append(defect.id)
    shared = {cause: ids for cause, ids in causes.items() if len(ids) > 1}
    if shared:
        lines += ["", "## Root causes that one mend would close", ""]
        lines += [f"- {cause}: {', '.join(f'`{defect_id}`' for defect_id in ids)}" for cause, ids in sorted(shared.items())]
    for area, kinds_of_area in by_area.items():
        lines += ["", f"## {area}"]
        for kind, defects in sorted(kinds_of_area.items()):
            lines += ["", f"### {area}: {kind}"]
            for defect in defects:
                lines += [
                    "",
                    f"#### {defect.id}",
                    "",
                    defect.summary,
                    "",
                    f"- Where: {defect.where}",
                    f"- Contract: {defect.contract}",
                    f"- Known: torch {defect.since} to {'before ' + defect.fixed if defect.fixed else 'the newest tried'}"
                    + (f"; upstream: {defect.upstream}" if defect.upstream else ""),
                    f"- Shows as: {defect.error} matching `{defect.match}` in `{', '.join(tests.get(defect.id, ['no test']))}`",
                    f"- Mend: {defect.mend}",
                    "",
                    "```python",
                    defect.reproduce,
                    "```",
                ]
    return "\n".join(lines) + "\n"


def main(argv=None):
    """Command line; returns the exit status: 0, or 1 where the register and the tests or the build disagree."""
    parser = argparse.ArgumentParser(
        prog="python -m ao.sparsity.testing.known_defects", description="PyTorch's known defects in its sparsity stack"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--json", action="store_true", help="print the register as JSON")
    action.add_argument("--check", action="store_true", help="run the tests of the register: still there, fixed, changed")
    action.add_argument("--write", action="store_true", help="renew DEFECTS.md")
    options = parser.parse_args(argv)
    if options.json:
        print(json.dumps([dataclasses.asdict(defect) for defect in REGISTER.values()], indent=1))
        return 0
    if options.write:
        (ROOT / "DEFECTS.md").write_text(as_markdown(), encoding="utf-8")
        return 0
    wrong = inconsistencies()
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    if not options.check:
        print(as_table())
        return 1 if wrong else 0
    states = check()
    width = max((len(defect_id) for defect_id in states), default=0)
    for defect_id, state in states.items():
        print(f"{defect_id:{width}}  {state}" + (f": {_advice(REGISTER[defect_id])}" if state == "fixed" else ""))
    print(", ".join(f"{number} {state}" for state, number in collections.Counter(states.values()).most_common()))
    bad = [state for state in states.values() if state != "still there" and not state.startswith("skipped")]
    return 1 if wrong or bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Are the tests of the known defects right? The mends say it: a copy of the packages with one mend, or with all of them."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from audit import edits, mutants as records
from audit.mends import Mends
from audit.group import distribution_version, lock, say
from audit.project import OVERLAY_SITE, ROOT, AuditError, Project, copy_packages, environment, package_folder
from audit.variants import Answer, Asker, Baseline, Variant, is_red

RIGHT = "right"

#: What is run in a copy to see what a reproduction prints there.
PROBE = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from ao.sparsity.testing import snippets
print(snippets.printed({{source!r}}))
"""


@dataclass(frozen=True)
class Found:
    """What came out for one mend: its cause, how many tests it is to flip, and the faults found, a sentence each."""

    cause: str
    area: str
    tests: int
    faults: tuple[str, ...]

    def __str__(self) -> str:
        verdict = "\n    ".join(self.faults) if self.faults else RIGHT
        return f"{self.area}: {self.cause}: {self.tests} tests: {verdict}"


@dataclass(frozen=True)
class Register:
    """What the register of known defects says.

    causes: the root cause of every symptom.
    native: causes that lie in compiled code, whose place is no Python module.
    pages: the reproduction of every symptom, and what it should print.
    """

    causes: dict[str, str]
    native: set[str] = field(default_factory=set)
    pages: dict[str, tuple[str, str]] = field(default_factory=dict)


def register(folder: Path) -> Register:
    """The register below ``folder``, read from its own command, in a process."""
    command = [sys.executable, "-m", "ao.sparsity.testing.known_defects", "--json"]
    run = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if run.returncode:
        raise AuditError(f"the register cannot be read: {run.stderr[-1000:]}")
    entries = json.loads(run.stdout)
    return Register(
        {entry["id"]: entry["cause"] for entry in entries},
        {entry["cause"] for entry in entries if not re.match(r"torch\.(?!classes|ops)", entry["where"])},
        {entry["id"]: (entry["reproduce"], entry["right"]) for entry in entries},
    )


class Mending:
    """Mended copies of a project's packages, held to its register (default: the one in its tests)."""

    def __init__(self, project: Project, work: Path, mends: Mends, patterns: list[str], workers: int, known: Register | None = None):
        self.project, self.mends = project, mends
        self.version = distribution_version(project.product)
        self.asker = Asker(project, work / "mending", patterns, workers)
        self.file = work / "mending" / "results.json"
        self._register = known

    def prepare(self) -> None:
        """Run the tests on the unchanged copy, and learn which tests each cause has."""
        say("mends: the tests on the unchanged copy")
        self.baseline: Baseline = self.asker.prepare()
        self.installed = self.asker.sources()
        known = self._register or register(self.asker.tests)
        self.native = known.native | set(self.mends.native)
        self.pages = known.pages
        self.tests: dict[str, list[str]] = {}
        self.shown: dict[str, list[str]] = {}  # symptoms that show here and have a page, by cause
        for test, outcome in self.baseline.outcomes.items():
            if outcome == "expected failure":
                symptom = self.baseline.known.get(test, "")
                cause = known.causes.get(symptom, symptom)
                self.tests.setdefault(cause, []).append(test)
                if symptom in known.pages and symptom not in self.shown.setdefault(cause, []):
                    self.shown[cause].append(symptom)
        self.causes = set(known.causes.values())

    def changed(self, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Changed sources by path with these mends together, and what did not fit, by cause; such a mend is left out."""
        chosen = self.mends.items(names, self.version)
        misfits: dict[str, str] = {}
        good: list[edits.Item] = []
        for several, items in chosen.items():
            try:
                edits.apply([*good, *items], self.installed)
            except edits.Misfit as error:
                misfits.update(dict.fromkeys(several, str(error)))
            else:
                good += items
        return {self.asker.path(module): text for module, text in edits.apply(good, self.installed).items()}, misfits

    def selected(self, only: list[str]) -> list[str]:
        """Causes with a mend whose name, or area, matches one of the patterns (none: all)."""
        return selected(self.mends, only)

    def without(self) -> list[str]:
        """Causes in Python code, of which a test fails here, that have no mend."""
        return sorted(cause for cause in self.tests if cause not in self.mends.areas and cause not in self.native)

    def alone(self, only: list[str], shard: tuple[int, int]) -> list[Found]:
        """Each mend alone: exactly the tests of its root cause flip."""
        stamp = {**self.asker.fingerprint(), "torch": self.version}
        data = json.loads(self.file.read_text()) if self.file.is_file() else {}
        kept: dict[str, dict] = data.get("results", {}) if data.get("stamp") == stamp else {}
        names = self.selected(only)
        if not names:
            raise AuditError("no mend matches " + " ".join(only))
        names = [name for name in names if name in set(records.shard_of(names, shard))]
        variants, results, marks = [], {}, {}
        for name in names:
            changed, misfits = self.changed([name])
            pages = [self.pages[symptom] for symptom in self.shown.get(name, ())]
            mark = json.dumps([sorted(changed.items()), sorted(self.tests.get(name, [])), pages])
            marks[name] = hashlib.sha256(mark.encode()).hexdigest()[:16]
            if name in kept and kept[name]["mark"] == marks[name]:
                results[name] = tuple(kept[name]["faults"])
            elif misfits:
                results[name] = tuple(f"does not fit: {text}" for text in misfits.values())
            elif name not in self.tests:
                results[name] = ("the register has no such cause",) if name not in self.causes else ("none of its tests fails here",)
            else:
                variants.append(Variant(name, changed, self._asked(name)))
        say(f"mends: {len(names)} selected, {len(variants)} to run")
        misprints = self._misprints((variant.name, variant.sources, self.shown.get(variant.name, [])) for variant in variants)
        for number, answer in enumerate(self.asker.ask(variants), start=1):
            results[answer.name] = (*self._faults(answer), *misprints[answer.name])
            kept[answer.name] = {"mark": marks[answer.name], "faults": results[answer.name]}
            self._save({"stamp": stamp, "results": kept})
            if number % 10 == 0 or number == len(variants):
                say(f"mends: {number}/{len(variants)} done, {sum(bool(results[v.name]) for v in variants if v.name in results)} at fault")
        return [Found(name, self.mends.areas[name], len(self.tests.get(name, ())), results[name]) for name in names]

    def _misprints(self, copies: Iterable[tuple[str, dict[str, str], list[str]]]) -> dict[str, list[str]]:
        """Reproductions that do not print what is right, a sentence each, by the name of the copy.

        copies: a name, the changed sources and the symptoms to be tried.
        """
        asked = {name: (changed, symptoms) for name, changed, symptoms in copies}
        say(f"mends: what {sum(len(symptoms) for _, symptoms in asked.values())} reproductions print")
        probes = {name: [PROBE.format(source=self.pages[symptom][0]) for symptom in symptoms] for name, (_, symptoms) in asked.items()}
        found: dict[str, list[str]] = {name: [] for name in asked}
        for answer in self.asker.ask(Variant(name, asked[name][0], probes=probes[name]) for name in asked if probes[name]):
            if answer.broken:
                found[answer.name].append(answer.broken)
            for symptom, text in zip(asked[answer.name][1], answer.printed):
                now, right = text.rstrip("\n"), self.pages[symptom][1]
                if now != right:
                    found[answer.name].append(f"prints {now!r}, right is {right!r}: {symptom}")
        return found

    def _save(self, data: dict) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(data, indent=1))
        new.replace(self.file)

    def _asked(self, cause: str) -> list[str] | None:
        """Tests that can notice the mend: its own, and those that call what it changes; all, where it changes more than functions."""
        places = []
        for item in self.mends.items([cause], self.version)[(cause,)]:
            function = "" if isinstance(item, edits.Imports) else item.function
            if not edits.is_function(self.installed[item.module], function):
                return None
            places.append((self.asker.path(item.module), function))
        own = self.tests[cause]
        return [*own, *(test for test in self.baseline.reaching(places) if test not in own)]

    def _faults(self, answer: Answer) -> tuple[str, ...]:
        own, faults = self.tests[answer.name], []
        if answer.broken:
            return (answer.broken,)
        for test in own:
            outcome = answer.outcomes.get(test, "not run")
            if outcome not in ("unexpected success", "passed"):
                faults.append(f"does not flip: {_short(test)}: {outcome}{_said(answer, test)}")
        for test, outcome in answer.outcomes.items():
            if test not in own and outcome != self.baseline.outcomes[test]:
                symptom = self.baseline.known.get(test)
                verb = f"flips also ({symptom})" if symptom and not outcome.startswith(("failed", "error")) else f"makes {outcome}"
                faults.append(f"{verb}: {_short(test)}{_said(answer, test)}")
        return tuple(faults)

    def together(self, only: list[str]) -> tuple[list[str], int]:
        """All mends at once; the lines to be told, and how many of them are faults."""
        names = self.selected(only)
        changed, misfits = self.changed(names)
        say(f"mends: all {len(names) - len(misfits)} together, the whole suite")
        answer = next(iter(self.asker.ask([Variant("together", changed)])))
        faults = [f"does not fit: {cause}: {text}" for cause, text in misfits.items()]
        symptoms = [symptom for name in names if name not in misfits for symptom in self.shown.get(name, ())]
        workers = self.asker.workers
        shares = self._misprints((f"together {number}", changed, symptoms[number::workers]) for number in range(workers))
        faults += [fault for share in shares.values() for fault in share]
        if answer.broken:
            faults.append(answer.broken)
        of_test = {test: cause for cause, tests in self.tests.items() for test in tests}
        native: list[str] = []
        passed = 0
        for test, outcome in answer.outcomes.items():
            cause = of_test.get(test)
            if is_red(outcome) and not (outcome == "unexpected success" and cause in self.mends.areas):
                faults.append(f"{outcome}: {_short(test)}{_said(answer, test)}")
            elif outcome == "expected failure" and cause in self.native and cause not in names:
                native.append(f"in compiled code: {cause}: {_short(test)}")
            elif outcome == "expected failure" and (not only or cause in names):
                state = "mended, but still there" if cause in names else "no mend"
                faults.append(f"{state}: {cause}: {_short(test)}")
            elif outcome == "passed" and cause in names:
                passed += 1  # chance decides how it shows, so that a pass is no unexpected success
            elif outcome not in (self.baseline.outcomes[test], "unexpected success"):
                faults.append(f"{outcome}, not {self.baseline.outcomes[test]}: {_short(test)}")
        flipped = passed + sum(outcome == "unexpected success" for outcome in answer.outcomes.values())
        return [*native, *faults, f"{flipped} tests of known defects pass, {len(native)} in compiled code, {len(faults)} faults"], len(
            faults
        )


def diff(project: Project, mends: Mends, names: list[str]) -> str:
    """A unified diff of these causes' mends (none: all) against the installed packages."""
    version = distribution_version(project.product)
    installed, files = installed_sources(project)
    names = names or list(mends.alone)
    if missing := [name for name in names if name not in mends.alone]:
        raise AuditError(f"no mend for {', '.join(missing)}")
    items = [item for part in mends.items(names, version).values() for item in part]
    lines: list[str] = []
    for module, text in sorted(edits.apply(items, installed).items()):
        old, new = installed[module].splitlines(keepends=True), text.splitlines(keepends=True)
        lines += difflib.unified_diff(old, new, f"a/{files[module]}", f"b/{files[module]}")
    return "".join(lines)


def installed_sources(project: Project) -> tuple[dict[str, str], dict[str, str]]:
    """Text and path (``torch/ao/...``) of every installed module under test."""
    texts, files = {}, {}
    for package in project.packages:
        folder = package_folder(package)
        for file in sorted(folder.rglob("*.py")):
            path = Path(*package.split(".")) / file.relative_to(folder)
            module = ".".join(part for part in path.with_suffix("").parts if part != "__init__")
            texts[module], files[module] = file.read_text(), path.as_posix()
    return texts, files


def selected(mends: Mends, only: list[str]) -> list[str]:
    """Causes with a mend whose name, or area, matches one of the patterns (none: all)."""
    return [
        cause
        for cause, area in mends.areas.items()
        if not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only for name in (cause, area))
    ]


def write_overlay(project: Project, mends: Mends, names: list[str], folder: Path) -> None:
    """Write the mended packages to ``folder``, with ``folder/site`` to be put on PYTHONPATH.

    Raises:
        AuditError: the folder is there and not empty, or a mend does not fit.
    """
    if folder.exists() and any(folder.iterdir()):
        raise AuditError(f"{folder} is not empty")
    installed, files = installed_sources(project)
    items = [item for part in mends.items(names or mends.alone, distribution_version(project.product)).values() for item in part]
    changed = edits.apply(items, installed)
    copy_packages(project.packages, folder)
    for module, text in changed.items():
        (folder / files[module]).write_text(text)
    (folder / "site").mkdir()
    finder = (OVERLAY_SITE / "sitecustomize.py").read_text()
    start = f"\nsys.meta_path.insert(0, OverlayFinder(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), {project.packages!r}))\n"
    (folder / "site" / "sitecustomize.py").write_text(finder + start)


def _short(test: str) -> str:
    return ".".join(test.split(".")[-2:])


def _said(answer: Answer, test: str) -> str:
    text = answer.details.get(test, "").strip()
    return f": {text[:300]}" if text else ""


def summary_file(work: Path) -> Path:
    """Where the sentences for SCORE.md lie in a work folder, by what they tell of."""
    return work / "mending" / "summary.json"


def note(work: Path, what: str, sentence: str) -> None:
    """Keep a sentence for SCORE.md, and print it."""
    file = summary_file(work)
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**known, what: sentence}, indent=1))
    print(sentence)


def mend(
    project: Project, work: Path, mends: Mends, only: list[str], shard: tuple[int, int], patterns: list[str], workers: int, together: bool
) -> int:
    """The command: each mend alone, or all together; returns the exit status."""
    with lock(work):
        mending = Mending(project, work, mends, patterns, workers)
        mending.prepare()
        if together:
            lines, faults = mending.together(only)
            print("\n".join(lines[:-1]))
            tell = print if only or patterns else lambda sentence: note(work, "together", sentence)
            tell(f"All at once, on the whole suite: {lines[-1]}.")
            return int(bool(faults))
        found = mending.alone(only, shard)
    for one in found:
        print(one)
    right = sum(not one.faults for one in found)
    sentence = (
        f"Alone, each with the tests that can notice it: {len(found)} mends; exactly the tests of the cause flip, and its pages print what "
        f"is right, for {right}."
    )
    if only or patterns or shard != (1, 1):
        print(sentence)
        return int(right < len(found))
    note(work, "alone", sentence)
    for cause in mending.without():
        print(f"no mend: {cause}")
    python = [cause for cause in mending.tests if cause not in mending.native or cause in mends.areas]
    mended = len(python) - len(mending.without())
    note(work, "mended", f"Root causes in Python code that show here: {len(python)}, of which {mended} are mended.")
    return int(right < len(found))

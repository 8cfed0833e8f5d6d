"""The mutants of one work folder as mutmut left them: what each changes, and what became of it."""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

#: Verdicts; those of NOTICED count as noticed. ``known only``: by no plain test, only by one of a known defect (of a mutant of a mend:
#: of another one than is mended). ``other tests``: a mutant of a mend, by no test of the defect that is mended, but by a plain test.
NOTICED = ("killed", "known only", "other tests", "timeout", "crash")
VERDICTS = (*NOTICED, "survived", "no tests", "not checked")


@dataclass(frozen=True)
class Mutant:
    """One mutant.

    name: mutmut's name, unique within one set of mutants.
    module, function: dotted names of what is mutated.
    before, after: the changed source lines, stripped and joined by a newline where there are several.
    nth: 1 for the first mutant of the function with this change, counted up for equal ones on further lines.
    line: line of the change, relative to the function's ``def`` (0).
    verdict: one of VERDICTS.
    """

    name: str
    module: str
    function: str
    before: str
    after: str
    nth: int
    line: int
    verdict: str

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        return self.module, self.function, self.before, self.after, self.nth

    def __str__(self) -> str:
        place = f"{self.module}.{self.function}+{self.line}"
        return f"{place}\n    - " + self.before.replace("\n", "\n    - ") + "\n    + " + self.after.replace("\n", "\n    + ")


def verdict(exit_code: int | None) -> str:
    """Verdict for the exit status of a mutant's process (negative: ended by that signal)."""
    if exit_code is None or exit_code == 2:
        return "not checked"
    if exit_code in (5, 33):
        return "no tests"
    if exit_code in (-24, 24, 36, 152):
        return "timeout"
    if exit_code < 0:
        return "crash"
    if exit_code == 3:
        return "known only"
    if exit_code == 6:
        return "other tests"
    return "killed" if exit_code else "survived"


def changed_lines(original: str, mutated: str) -> tuple[str, str, int]:
    """The lines removed, the lines put in (both stripped), and the number of the first line that differs, from 0."""
    old, new = original.splitlines(), mutated.splitlines()
    blocks = [op for op in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if op[0] != "equal"]
    if not blocks:
        return "", "", 0
    first, last = blocks[0], blocks[-1]
    before = [line.strip() for line in old[first[1] : last[2]]]
    after = [line.strip() for line in new[first[3] : last[4]]]
    return "\n".join(before), "\n".join(after), first[1]


def _split(name: str) -> tuple[str, str]:
    """Module and function of a mutmut name, e.g. ``a.b.xǁClassǁmethod__mutmut_3`` -> ``a.b``, ``Class.method``."""
    module, _, generated = name.rpartition(".")
    return module, _function(generated)


def _function(generated: str) -> str:
    """Name of the function, ``Class.method`` for a method, from which mutmut generated this one."""
    mangled = generated.partition("__mutmut_")[0]
    return mangled[2:] if mangled.startswith("x_") else mangled[1:].strip("ǁ").replace("ǁ", ".")


def name(module: str, function: str, label: int | str) -> str:
    """Name of a mutant, as mutmut forms it: the reverse of taking it apart."""
    mangled = f"xǁ{function.replace('.', 'ǁ')}" if "." in function else f"x_{function}"
    return f"{module}.{mangled}__mutmut_{label}"


def _functions(mutated_file: Path) -> dict[str, str]:
    """Source of every function mutmut generated in a file, by its generated name, with the function's own name in it."""
    spans = json.loads(Path(f"{mutated_file}.spans").read_text())["spans"]
    lines = mutated_file.read_text().splitlines(keepends=True)
    sources = {}
    for name, (start, end) in spans.items():
        body = "".join(lines[start - 1 : end])
        body = re.sub(rf"\bdef {re.escape(name)}\(", f"def {_function(name).rpartition('.')[2]}(", body, count=1)
        sources[name] = body.lstrip("\n")
    return sources


def meta_files(group: Path) -> list[Path]:
    """mutmut's verdict files below a group's work folder."""
    return sorted((group / "mutants" / "src").rglob("*.meta"))


def read_verdicts(group: Path) -> dict[str, int | None]:
    """Exit status of every mutant by mutmut's name; None where it was not run yet."""
    verdicts = {}
    for file in meta_files(group):
        try:
            verdicts.update(json.loads(file.read_text())["exit_code_by_key"])
        except json.JSONDecodeError:
            continue  # being written at this moment
    return verdicts


def read(group: Path) -> list[Mutant]:
    """Every mutant of a group's work folder, in the order of the sources."""
    mutants: list[Mutant] = []
    seen: dict[tuple, int] = {}
    for file in meta_files(group):
        verdicts = json.loads(file.read_text())["exit_code_by_key"]
        if not verdicts:
            continue
        sources = _functions(file.with_suffix(""))
        for name, exit_code in verdicts.items():
            generated = name.rpartition(".")[2]
            original = sources[generated.partition("__mutmut_")[0] + "__mutmut_orig"]
            before, after, line = changed_lines(original, sources[generated])
            module, function = _split(name)
            place = (module, function, before, after)
            seen[place] = seen.get(place, 0) + 1
            mutants.append(Mutant(name, *place, seen[place], line, verdict(exit_code)))
    return mutants


def matches(mutant_name: str, patterns: list[str] | tuple[str, ...]) -> bool:
    """Whether a mutant's module, or its ``module.Class.method``, matches one of the glob patterns (none: all do)."""
    module, function = _split(mutant_name)
    names = module, f"{module}.{function}", mutant_name
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def shard_of(names: Iterable[str], shard: tuple[int, int]) -> list[str]:
    """Part I of N of the mutants: every N-th of the sorted names, so that the parts cost about the same."""
    part, parts = shard
    return sorted(names)[part - 1 :: parts]


def write(file: Path, header: dict, mutants: list[Mutant]) -> None:
    """Write a result file: ``header`` and the mutants."""
    file.write_text(json.dumps({**header, "mutants": [asdict(m) for m in mutants]}, indent=1, ensure_ascii=False) + "\n")


def load(file: Path) -> tuple[dict, list[Mutant]]:
    """Header and mutants of a result file."""
    data = json.loads(file.read_text())
    mutants = [Mutant(**m) for m in data.pop("mutants")]
    return data, mutants


def summary(found: list[Mutant]) -> str:
    """One line: how many mutants were noticed, and what became of the others."""
    counts = {v: sum(m.verdict == v for m in found) for v in VERDICTS}
    return f"{len(found)} mutants: " + ", ".join(f"{n} {v}" for v, n in counts.items() if n)

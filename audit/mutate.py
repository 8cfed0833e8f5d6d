"""Mutation testing of the packages under test by the suite, on an overlay copy."""

from __future__ import annotations

from pathlib import Path

from audit import history, mutants as records
from audit.by_mutmut import MutmutGroup, require_mutmut
from audit.by_copy import CopyGroup
from audit.group import Group, lock
from audit.project import AUDIT, AuditError, Project


def mutate(
    project: Project,
    work: Path,
    operators: str,
    only: list[str],
    shard: tuple[int, int],
    patterns: list[str],
    survivors: bool,
    workers: int,
) -> Path:
    """Run the selected mutants and write ``work/<operators>/results.json``; returns that file.

    operators: one of project.OPERATORS.
    only: glob patterns of modules or ``module.Class.method`` (none: everything).
    shard: (I, N), the I-th of N parts.
    patterns: select tests as ``unittest -k`` does (none: all; anything else is for a quick look at one area).
    survivors: keep what the previous run noticed though the tests have changed since.
    """
    if operators != "history":
        require_mutmut()
    with lock(work):
        found, deselected, kept = [], {}, False
        header = {}
        for group in _groups(project, work, operators, patterns, workers):
            if only and not _may_match(group.packages, only):
                continue
            group.prepare(survivors)
            group.run(only, shard)
            found += [m for m in group.read() if records.matches(m.name, only)]
            deselected[group.name] = group.deselected
            kept |= group.kept
            header = group.fingerprint()
        if not found:
            raise AuditError("no mutant matches " + " ".join(only))
        out = results_file(work, operators)
        header |= {"scope": project.packages, "kept": kept, "deselected": deselected, "only": only, "shards": [shard]}
        records.write(out, header, found)
    return out


def _groups(project: Project, work: Path, operators: str, patterns: list[str], workers: int) -> list[Group]:
    if operators == "import":
        from audit import at_import  # needs libcst, which comes with mutmut

        return [CopyGroup(project, work, operators, patterns, workers, at_import.copies, [AUDIT / "at_import.py", AUDIT / "operators.py"])]
    if operators == "history":
        return [CopyGroup(project, work, operators, patterns, workers, history.copies, [AUDIT / "history", AUDIT / "edits.py"])]
    if operators == "mends":
        from audit.mended import MendedGroup

        return [MendedGroup(project, work, patterns, workers)]
    return [MutmutGroup(project, name, project.groups[name], work, operators, patterns, workers) for name in project.groups]


def results_file(work: Path, operators: str) -> Path:
    """Where the results of a set of operators lie in a work folder."""
    return work / operators / "results.json"


def _may_match(packages: tuple[str, ...], only: list[str]) -> bool:
    """Whether a pattern can match something below one of the packages: their fixed beginnings agree."""
    for pattern in only:
        fixed = pattern.split("*")[0].split("?")[0].split("[")[0]
        if any(fixed.startswith(package) or package.startswith(fixed) for package in packages):
            return True
    return False

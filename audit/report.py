"""``SCORE.md``: what the last whole run of the audit found, in a form that can be read, compared and repeated."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from audit.accepted import REASONS
from audit.mutants import NOTICED, VERDICTS, Mutant
from audit.project import Project

_TITLES = {
    "mutmut": "mutmut's operators",
    "own": "Other operators",
    "import": "What runs at import",
    "history": "Mistakes of refactorings",
    "mends": "Mended lines",
}
_OPERATORS = {
    "mutmut": "All of its operators: arguments dropped or None, constants, comparisons, arithmetic, keywords, strings, defaults.",
    "own": "the operators of `operators.py` in place of its own: conditions negated, statements and table entries left out, "
    "calls skipped, copies for identities, other exceptions, fewer rounds, arguments swapped, slices opened, opposite names.",
    "import": "both sets of operators on the code of modules and classes outside functions and on decorated functions, which "
    "mutmut leaves out, and decorators left out.",
    "history": "edits by hand (`history/`): arguments and defaults lost, work skipped, names matched too widely, the first of several "
    "alone, half-applied changes and the like, each proved by a probe to change behaviour.",
    "mends": "both sets of operators on the lines of each mend (`mends/`), in a copy that is mended by it alone. What the tests of the "
    "mended defect let pass is asked of the other tests, plain ones first: `other tests` are plain ones, which hold what is right without "
    "the mend, too.",
}

HOW = """\
    pip install -r requirements.txt -r requirements-dev.txt
    python -m audit coverage
    python -m audit mutate          # goes on after an interruption; --shard I/N on several machines, then merge
    python -m audit mutate --operators own
    python -m audit mutate --operators import
    python -m audit mutate --operators history
    python -m audit mutate --operators mends
    python -m audit mends           # and: mends --together
    python -m audit report
    python -m audit cost            # with requirements.txt alone: --python /path/to/python
"""


def unlisted(found: list[Mutant], reasons: dict[str, str]) -> list[Mutant]:
    """Mutants that no test notices and no entry accepts."""
    return [m for m in found if m.verdict not in NOTICED and m.name not in reasons]


def figures(found: list[Mutant], reasons: dict[str, str]) -> tuple[int, int, int, int]:
    """Mutants in all, noticed, accepted, and open (survived without being accepted, not covered or not run)."""
    noticed = sum(m.verdict in NOTICED for m in found)
    listed = sum(m.name in reasons for m in found)
    return len(found), noticed, listed, len(found) - noticed - listed


def _percent(part: int, whole: int) -> str:
    """``part`` of ``whole``, rounded down, so that 100.0 % means all."""
    return f"{int(1000 * part / whole) / 10:.1f} %" if whole else "-"


def _percent_up(part: int, whole: int) -> str:
    """``part`` of ``whole``, rounded up, so that 0.0 % means none."""
    return f"{-(-1000 * part // whole) / 10:.1f} %" if whole else "-"


def known_only(found: list[Mutant]) -> int:
    """How many mutants no plain test notices, only one of a known defect."""
    return sum(m.verdict == "known only" for m in found)


def _beside(part: Part) -> str:
    """How many mutants are noticed by other tests than those that are asked first."""
    if part.operators == "mends":
        others = sum(m.verdict == "other tests" for m in part.found)
        return f"{_percent_up(others, len(part.found))} by plain tests beside those of the mended defect"
    return f"{_percent_up(known_only(part.found), len(part.found))} by tests of known defects only"


def partial(header: dict) -> bool:
    """Whether the results are of some mutants or some tests alone."""
    return bool(header["only"] or header["patterns"] or header["runner"] != Project.runner)


@dataclass(frozen=True)
class Part:
    """Results of one set of operators: header and mutants of the result file (those that were asked), reasons of the accepted ones by
    name, and how many were not asked, where the shards that were run do not make the whole."""

    operators: str
    header: dict
    found: list[Mutant]
    reasons: dict[str, str]
    unasked: int = 0


def section_of(text: str, title: str) -> tuple[str, str] | None:
    """The headline and the section of a title in an earlier SCORE.md; None where it has none."""
    headline = re.search(rf"^- {re.escape(title)}: .*$", text, re.MULTILINE)
    section = re.search(rf"^## {re.escape(title)}\n\n(.*?)\n(?=\n## )", text, re.MULTILINE | re.DOTALL)
    return (headline[0], section[1]) if headline and section else None


def render(parts: list[Part], mends: Sequence[str] = (), earlier: str = "") -> str:
    """The text of SCORE.md, for one or more sets of operators.

    mends: sentences about the mends of known defects.
    earlier: the file as it was: what it says of sets that have no results now is kept.
    """
    lines = ["# What the suite notices", "", "Generated by `python -m audit report`; do not edit.", ""]
    ran = {part.operators: part for part in parts}
    kept = {title: old for operators, title in _TITLES.items() if operators not in ran and (old := section_of(earlier, title))}
    lines += [headline for headline, _ in kept.values()]
    for part in parts:
        total, noticed, listed, _ = figures(part.found, part.reasons)
        lines.append(
            f"- {_TITLES[part.operators]}: **{_percent(noticed, total)}** of {total} mutants are noticed, "
            f"**{_percent(noticed, total - listed)}** without the {listed} that `accepted.json` lists with their reasons; {_beside(part)}."
        )
    header = parts[0].header
    lines += [
        "",
        f"Under test: {header['product']} on Python {header['python']}, packages "
        + " and ".join(f"`{package}`" for package in header["scope"])
        + ". A mutant is noticed when a test of the runner fails, errors, or no longer fails in the way the register of known",
        "defects says, or when the process ends by a signal or does not end. Nothing is claimed about other mistakes than",
        "these, other code or other builds.",
    ]
    for title, (_, section) in kept.items():
        lines += ["", f"## {title}", "", section]
    for part in parts:
        lines += ["", f"## {_TITLES[part.operators]}", "", *_section(part)]
    if mends:
        lines += ["", "## Mends", "", *(f"- {sentence}" for sentence in mends)]
    return "\n".join([*lines, "", "## To repeat it", "", HOW.rstrip()]) + "\n"


def _section(part: Part) -> list[str]:
    header, found, reasons = part.header, part.found, part.reasons
    by = {"mutmut": f"By mutmut {header['mutmut']}. ", "history": "By "}
    lines = [by.get(part.operators, f"By mutmut {header['mutmut']}, with ") + _OPERATORS[part.operators]]
    if partial(header):
        tests = " ".join([header["runner"], *header["patterns"]])
        lines += ["", f"**A part only**: mutants of {header['only'] or 'everything'}, tests of {tests}."]
    if part.unasked:
        shards = ", ".join(f"{number} of {parts}" for number, parts in header["shards"])
        lines += [
            "",
            f"**A sample**: {len(found)} mutants, evenly over their names (shard {shards}); {part.unasked} others were not asked.",
        ]
    if header["kept"]:
        lines += [
            "",
            "Verdicts from before the last change of the tests, or with one area's tests alone, were kept (`--survivors`): "
            "tests that are added can only notice more.",
        ]
    left_out = sorted({test for tests in header["deselected"].values() for test in tests})
    if left_out:
        names = ", ".join(f"`{_short(test)}`" for test in left_out)
        lines += ["", f"Tests left out, as they mind the further functions in mutmut's files: {names}."]
    verdicts, by_reason = Counter(m.verdict for m in found), Counter(reasons.values())
    lines += ["", "| verdict | mutants |", "|---|---:|"]
    lines += [f"| {verdict} | {verdicts[verdict]} |" for verdict in VERDICTS]
    lines += [f"| accepted: {reason} ({meaning}) | {by_reason[reason]} |" for reason, meaning in REASONS.items()]
    lines += ["", "| module | mutants | noticed | known only | accepted | open | noticed of the rest |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    for module in [*sorted({m.module for m in found}), ""]:
        of_module = [m for m in found if not module or m.module == module]
        total, noticed, listed, open_ = figures(of_module, reasons)
        name = f"`{module}`" if module else "all"
        lines.append(
            f"| {name} | {total} | {noticed} | {known_only(of_module)} | {listed} | {open_} | {_percent(noticed, total - listed)} |"
        )
    return lines


def _short(test: str) -> str:
    return ".".join(test.split(".")[-2:])

"""Two builds or nights side by side: what differs, test by test, with reasons."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightly import digest, lookup
from nightly.files import write_whole
from nightly.findings import what_changed
from nightly.history import History, Row, RunRow
from nightly.links import compare_address
from nightly.outcomes import (
    ALL_WELL,
    BAD,
    EXPECTED_FAILURE,
    FLAKY,
    GONE,
    GOOD,
    OUTCOMES,
    PASS,
    SKIP,
    WORSE,
    NightlyError,
    is_test,
    skipped_parts,
)
from nightly.texts import one_line, steady, telling_line

#: Kind of difference -> whether it makes B worse than A; in the order in which they are told.
KINDS = {
    "broke": True,
    "gone": True,
    "skipped in B only": True,
    "asked less in B": True,
    "flaky in B only": False,
    "known defect in B only": False,
    "fails otherwise": False,
    "known defect shows otherwise": False,
    "mended": False,
    "known defect gone in B": False,
    "skipped in A only": False,
    "new in B": False,
    "otherwise": False,
}
SHOWN_GROUPS, SHOWN_CHARACTERS = 200, 300
#: Characters of what two lines have in common that are shown before the place where they part.
LEAD = 40


@dataclass(frozen=True)
class Difference:
    """One test that did not come to the same; a side without the test is None."""

    kind: str
    test: str
    a: Row | None
    b: Row | None

    @property
    def outcomes(self) -> str:
        """``pass -> fail``."""
        return " -> ".join(row.outcome if row else "not there" for row in (self.a, self.b))

    @property
    def reason(self) -> str:
        """The line that says why: of B where it says anything, else of A."""
        rows = [row for row in (self.b, self.a) if row and telling_line(row.message)]
        return telling_line(rows[0].message) if rows else ""

    @property
    def reasons(self) -> tuple[tuple[str, str], ...]:
        """("A" or "B", line) for each side that says something; both only where they say different things, from where they part."""
        told = [(side, telling_line(row.message)) for side, row in (("A", self.a), ("B", self.b)) if row and telling_line(row.message)]
        if len(told) < 2:
            return tuple(told)
        one, other = told[0][1], told[1][1]
        return (("B", other),) if one == other else (("A", from_parting(one, other)), ("B", from_parting(other, one)))


def from_parting(line: str, other: str) -> str:
    """A line from a little before the place where it parts from another, if that is far in."""
    same = next((number for number, (a, b) in enumerate(zip(line, other)) if a != b), min(len(line), len(other)))
    start = line.rfind(" ", 0, max(0, same - LEAD)) + 1
    return line if same < 2 * LEAD else f"... {line[start:]}"


@dataclass
class Comparison:
    """Two runs, and kind -> differences, in the order of `KINDS`."""

    a: RunRow
    b: RunRow
    tests: tuple[int, int]
    differences: dict[str, list[Difference]] = field(default_factory=dict)
    same: Counter[str] = field(default_factory=Counter)

    @property
    def worse(self) -> bool:
        return any(KINDS[kind] for kind in self.differences)

    @property
    def grouped(self) -> dict[str, list[list[Difference]]]:
        """Kind -> differences with the same outcomes and reasons together."""
        found: dict[str, dict[Any, list[Difference]]] = {}
        for kind, items in self.differences.items():
            for item in items:
                found.setdefault(kind, {}).setdefault((item.outcomes, item.reasons), []).append(item)
        return {kind: list(groups.values()) for kind, groups in found.items()}

    @property
    def count(self) -> int:
        return sum(map(len, self.differences.values()))

    @property
    def headline(self) -> str:
        """``3 of 431 tests differ: 2 broke, 1 mended``."""
        total = sum(self.same.values()) + self.count
        told = ", ".join(f"{len(found)} {kind}" for kind, found in self.differences.items())
        return f"{self.count} of {total} tests differ" + (f": {told}" if told else "")


def compare_runs(a: RunRow, b: RunRow, before: Mapping[str, Row], after: Mapping[str, Row]) -> Comparison:
    """What differs between two runs."""
    found: dict[str, list[Difference]] = {kind: [] for kind in KINDS}
    same: Counter[str] = Counter()
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        kind = kind_of(one, other)
        if kind:
            found[kind].append(Difference(kind, name, one, other))
        elif one is not None:
            same[one.outcome] += 1
    return Comparison(a, b, (len(before), len(after)), {kind: items for kind, items in found.items() if items}, same)


def kind_of(a: Row | None, b: Row | None) -> str:
    """The kind of difference between two results of a test; empty if there is none."""
    if a is None or b is None:
        if a is not None:
            return "gone" if is_test(a.name) else "mended"
        return "broke" if b is not None and b.outcome in BAD else "new in B"
    was, became = a.outcome, b.outcome
    if was == became:
        if telling_line(steady(a.message)) == telling_line(steady(b.message)):
            return ""
        if was in BAD:
            return "fails otherwise"
        if was == EXPECTED_FAILURE:
            return "known defect shows otherwise"
        if was == PASS and skipped_parts(b.message) - skipped_parts(a.message):
            return "asked less in B"
        return "otherwise" if was == SKIP else ""
    pairs = (
        (became in BAD, "fails otherwise" if was in BAD else "broke"),
        (was in BAD and became in GOOD | GONE, "mended"),
        (became == SKIP, "skipped in B only"),
        (was == SKIP, "skipped in A only"),
        (became == FLAKY, "flaky in B only"),
        (became == EXPECTED_FAILURE, "known defect in B only"),
        (was == EXPECTED_FAILURE or became in GONE, "known defect gone in B"),
    )
    return next((kind for true, kind in pairs if true), "otherwise")


def side(letter: str, run: RunRow, tests: int) -> str:
    """One line on a run."""
    who = f"{one_line(run.target)} on {one_line(run.machine)}"
    return f"{letter}: {who}, {run.day}: torch {one_line(run.torch_label)}, Python {one_line(run.python)}, {tests} tests"


def text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    a, b = comparison.a, comparison.b
    lines = [comparison.headline, side("A", a, comparison.tests[0]), side("B", b, comparison.tests[1])]
    lines += [f"  {one_line(line)}" for line in what_changed(a, b)]
    if address := compare_address(a, b):
        lines.append(f"  commits: {address}")
    for kind, groups in comparison.grouped.items():
        lines += ["", f"{kind[:1].upper()}{kind[1:]} ({len(comparison.differences[kind])})"]
        for same in groups[:SHOWN_GROUPS]:
            lines += [f"  {one_line(item.test)}  {item.outcomes}" for item in same]
            both = len(same[0].reasons) > 1
            lines += [f"      {letter + ': ' if both else ''}{one_line(line)[:SHOWN_CHARACTERS]}" for letter, line in same[0].reasons]
        if len(groups) > SHOWN_GROUPS:
            lines.append(f"  and {sum(map(len, groups[SHOWN_GROUPS:]))} others")
    alike = ", ".join(f"{comparison.same[outcome]} {outcome}" for outcome in OUTCOMES[::-1] if comparison.same[outcome])
    return "\n".join([*lines, "", f"The same on both: {alike or 'nothing'}"])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "form": 1,
        "headline": comparison.headline,
        "worse": comparison.worse,
        "a": {**digest.run_digest(comparison.a), "tests": comparison.tests[0]},
        "b": {**digest.run_digest(comparison.b), "tests": comparison.tests[1]},
        "changed": what_changed(comparison.a, comparison.b),
        "commits": compare_address(comparison.a, comparison.b),
        "differences": [
            {
                "kind": item.kind,
                "test": item.test,
                "a": item.a and item.a._asdict(),
                "b": item.b and item.b._asdict(),
                "reason": item.reason,
            }
            for found in comparison.differences.values()
            for item in found
        ],
        "same": dict(comparison.same),
    }


def page(comparison: Comparison) -> str:
    """The comparison as one HTML page that needs nothing but itself."""
    from nightly import report

    return report.template("diff.html").render(
        comparison=comparison,
        worse_kinds={kind for kind, worse in KINDS.items() if worse},
        changed=what_changed(comparison.a, comparison.b),
        address=compare_address(comparison.a, comparison.b),
        side=side,
    )


def add_command(command: Any) -> None:
    """Add ``diff`` to the command line."""
    parser = command(
        "diff", run_command, "what differs between two builds or nights, test by test; exit status 1 if B is worse", epilog=lookup.HOW
    )
    parser.add_argument("a", metavar="A", help="a run, as named below")
    parser.add_argument("b", metavar="B", help="the run to hold against it")
    parser.add_argument("--format", choices=("text", "json", "html"), default="text", help="(default: text)")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="(default: standard output)")


def run_command(arguments: argparse.Namespace) -> int:
    """``python -m nightly diff``."""
    from nightly.cli import history_path

    with ExitStack() as opened:
        history = None
        if not (lookup.is_file(arguments.a) and lookup.is_file(arguments.b)):
            history = opened.enter_context(History(history_path(arguments)))
        (a, before), (b, after) = (lookup.find_results(history, name) for name in (arguments.a, arguments.b))
    comparison = compare_runs(a, b, before, after)
    if arguments.format == "json":
        told = json.dumps(as_json(comparison), indent=2)
    else:
        told = text(comparison) if arguments.format == "text" else page(comparison)
    if arguments.output is None:
        sys.stdout.write(told + "\n")
    else:
        try:
            write_whole(arguments.output, told + "\n")
        except OSError as error:
            raise NightlyError(f"{arguments.output}: {error.strerror}: name another place with --output") from None
    return WORSE if comparison.worse else ALL_WELL

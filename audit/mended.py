"""Mutants of mended lines: does the test of a defect hold its mend to what it should do, or would half of it pass?"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from audit.by_copy import Copy
from audit.mending import Mending
from audit.mutants import changed_lines
from audit.project import AuditError, require
from audit.variants import Variant


@dataclass(frozen=True)
class Survivor:
    """A mutant of a mend that the tests of its defect let pass: the cause, the module, and the lines before and after."""

    cause: str
    module: str
    before: str
    after: str

    def __str__(self) -> str:
        return (
            f"{self.cause}: {self.module}\n    - "
            + self.before.replace("\n", "\n    - ")
            + "\n    + "
            + self.after.replace("\n", "\n    + ")
        )


def mutations(module: str, installed: str, mended: str) -> Iterator[Copy]:
    """Mutants of the lines of ``mended`` that ``installed`` has not, by both sets of operators."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    from audit.operators import OPERATORS

    blocks = difflib.SequenceMatcher(None, installed.splitlines(), mended.splitlines(), autojunk=False).get_opcodes()
    new = {line + 1 for kind, _, _, start, end in blocks if kind != "equal" for line in range(start, end)}
    wrapper = MetadataWrapper(cst.parse_module(mended))
    operators: list[tuple] = [*mutation_operators, *OPERATORS]
    seen = {mended}
    for node, place in wrapper.resolve(PositionProvider).items():
        if place.start.line not in new or place.end.line not in new or isinstance(node, (cst.Annotation, cst.Decorator)):
            continue
        for kinds, operator in operators:
            if not isinstance(node, kinds):
                continue
            for other in operator(node):
                text = wrapper.module.deep_replace(node, other).code  # type: ignore[attr-defined]
                with contextlib.suppress(SyntaxError):
                    compile(text, "mutant", "exec")
                    if text not in seen:
                        seen.add(text)
                        yield Copy(module, "", str(len(seen)), {module: text})


def evenly(items: list[Copy], most: int) -> list[Copy]:
    """At most so many of the items, spread evenly over them."""
    return items if len(items) <= most else [items[i * len(items) // most] for i in range(most)]


def survivors(mending: Mending, only: list[str], most: int) -> tuple[int, list[Survivor]]:
    """Ask at most ``most`` mutants of each mend with the tests of its root cause.

    Returns:
        how many were asked, and those that let every test of the cause pass.

    Raises:
        AuditError: no mend matches ``only``.
    """
    require("mutmut", "mends --mutants")
    asked: dict[str, tuple[str, Copy, str]] = {}
    variants = []
    for cause in mending.selected(only):
        changed, misfits = mending.changed([cause])
        if misfits or cause not in mending.tests:
            continue
        found = []
        for module, text in mending.installed.items():
            mended = changed.get(mending.asker.path(module), text)
            if mended != text:
                found += [(mended, copy) for copy in mutations(module, text, mended)]
        texts = {copy.label + copy.module: mended for mended, copy in found}
        for number, copy in enumerate(evenly([copy for _, copy in found], most)):
            name = f"{cause} {number}"
            asked[name] = cause, copy, texts[copy.label + copy.module]
            sources = changed | {mending.asker.path(copy.module): copy.sources[copy.module]}
            variants.append(Variant(name, sources, mending.tests[cause]))
    if not variants:
        raise AuditError("no mend matches " + " ".join(only))
    left = []
    for answer in mending.asker.ask(variants):
        cause, copy, mended = asked[answer.name]
        passed = [answer.outcomes.get(test) in ("passed", "unexpected success") for test in mending.tests[cause]]
        if not answer.broken and all(passed):
            before, after, _ = changed_lines(mended, copy.sources[copy.module])
            left.append(Survivor(cause, copy.module, before, after))
    return len(variants), left

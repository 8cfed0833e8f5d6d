"""Mutants of mended lines: does the test of a defect hold its mend to what it should do, or would half of it pass?

Each is a copy of the packages with one mend, in which one of the mend's own lines is mutated, by both sets of operators. The tests of the
mend's root cause are asked first; what they let pass is asked of the other tests that call what the mend changes, plain tests first: a mark
must hide nothing that is right today, so what a mended line has of that is for the plain tests beside it.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path

from audit import mends
from audit.by_copy import KILLED, OTHERS, Copy, CopyGroup, exit_code, unfinished
from audit.mending import Mending
from audit.project import AUDIT, Project
from audit.variants import TIMEOUT_FACTOR, Answer, Variant

#: Seconds for the tests of one defect, at least.
TIMEOUT_OF_ONE = 30


class MendedGroup(CopyGroup):
    """The mutants of all mends (default: those of ``audit/mends``). A mutant's function is the root cause that is mended."""

    def __init__(self, project: Project, work: Path, patterns: list[str], workers: int, mending: Mending | None = None):
        files = [AUDIT / name for name in ("mends", "edits.py", "mended.py", "operators.py")]
        super().__init__(project, work, "mends", patterns, workers, self._copies, files)
        self.mending = mending or Mending(project, self.folder, mends.load(), patterns, workers)
        self.asker = self.mending.asker

    def _copies(self, installed: dict[str, str]) -> Iterator[Copy]:
        for cause in self.mending.mends.alone:
            changed, misfits = self.mending.changed([cause])
            if misfits or cause not in self.mending.tests:
                continue
            texts = {module: changed[path] for module in installed if (path := self.asker.path(module)) in changed}
            number = 0
            for module, mended in texts.items():
                for text in mutations(installed[module], mended):
                    number += 1
                    yield Copy(module, cause, str(number), {**texts, module: text}, mended)

    def make(self) -> None:
        self.mending.prepare()
        super().make()

    def ask(self, names: list[str]) -> None:
        self.mending.prepare()
        self.keep(self._told(self.mutants(), names), names)

    def _told(self, data: dict[str, dict], names: list[str]) -> Iterator[tuple[str, int]]:
        own = {name: self.mending.tests[data[name]["place"][1]] for name in names}
        baseline = self.mending.baseline

        def others(name: str) -> list[str]:
            reaching = baseline.reaching((path, "") for path in data[name]["sources"])
            return baseline.in_order(test for test in reaching if test not in own[name])

        passed = []
        whole = self.asker.timeout
        longest = max(sum(baseline.seconds.get(test, 0.0) for test in tests) for tests in own.values())
        self.asker.timeout = max(TIMEOUT_OF_ONE, TIMEOUT_FACTOR * longest)
        for answer in self.asker.ask(Variant(name, data[name]["sources"], own[name]) for name in names):
            if status := _noticed(answer, own[answer.name]):
                yield answer.name, status
            else:
                passed.append(answer.name)
        self.asker.timeout = whole
        for answer in self.asker.ask(Variant(name, data[name]["sources"], others(name), stop=True) for name in passed):
            status = exit_code(answer)
            yield answer.name, OTHERS if status == KILLED else status


def _noticed(answer: Answer, own: list[str]) -> int:
    """The exit status that stands for what the tests of the mend's own cause say; 0 where all of them pass."""
    if status := unfinished(answer):
        return status
    passed = all(answer.outcomes.get(test) in ("passed", "unexpected success") for test in own)
    return 0 if passed and not answer.error else KILLED


def mutations(installed: str, mended: str) -> Iterator[str]:
    """Mutants of the lines of ``mended`` that ``installed`` has not, by both sets of operators."""
    import libcst as cst
    from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    from audit.operators import OPERATORS

    blocks = difflib.SequenceMatcher(None, installed.splitlines(), mended.splitlines(), autojunk=False).get_opcodes()
    new = {line + 1 for kind, _, _, start, end in blocks if kind != "equal" for line in range(start, end)}
    wrapper = MetadataWrapper(cst.parse_module(mended))
    module, spans, raw = wrapper.module, wrapper.resolve(ByteSpanPositionProvider), mended.encode()
    operators: list[tuple] = [*mutation_operators, *OPERATORS]
    seen = {mended}
    for node, place in wrapper.resolve(PositionProvider).items():
        if place.start.line not in new or place.end.line not in new or isinstance(node, (cst.Annotation, cst.Decorator)):
            continue
        span = spans[node]
        before, old, after = raw[: span.start], raw[span.start : span.start + span.length], raw[span.start + span.length :]
        in_place = isinstance(node, cst.BaseExpression) and module.code_for_node(node).encode() == old
        for kinds, operator in operators:
            if not isinstance(node, kinds):
                continue
            for other in operator(node):
                if in_place and isinstance(other, cst.BaseExpression):  # a hundred times as quick as the other way
                    text = (before + module.code_for_node(other).encode() + after).decode()
                else:
                    text = module.deep_replace(node, other).code  # type: ignore[attr-defined]
                with contextlib.suppress(SyntaxError):
                    compile(text, "mutant", "exec")
                    if text not in seen:
                        seen.add(text)
                        yield text

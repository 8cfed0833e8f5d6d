"""Mutants of what mutmut leaves out: code of modules and classes that runs at import, and decorated functions.

Such a mutant has to be there before the first import, so each is a copy of the packages with one file changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import libcst as cst

from audit.by_copy import Copy
from audit.operators import OPERATORS


def copies(installed: dict[str, str]) -> Iterator[Copy]:
    """The mutants of every module, of which the texts are given."""
    for module, source in installed.items():
        for number, (function, mutated) in enumerate(mutations(source), start=1):
            yield Copy(module, function, str(number), {module: mutated})


def mutations(source: str) -> Iterator[tuple[str, str]]:
    """The mutations of a source file's code outside undecorated functions.

    Yields:
        the class or function (``<module>``, ``Class``, ``Class.method``) and the whole mutated source.
    """
    from mutmut.mutation.mutators import mutation_operators

    module = cst.parse_module(source)
    found: list[tuple[str, cst.CSTNode, cst.CSTNode]] = []
    owner: list[str] = []

    def undecorated(node):
        for i in range(len(node.decorators)):
            yield node.with_changes(decorators=[*node.decorators[:i], *node.decorators[i + 1 :]])

    operators = [*mutation_operators, *OPERATORS, ((cst.FunctionDef, cst.ClassDef), undecorated)]

    class Visitor(cst.CSTVisitor):
        def on_visit(self, node):
            if isinstance(node, (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)):
                return False
            named = isinstance(node, (cst.FunctionDef, cst.ClassDef))
            if named:
                owner.append(node.name.value)
            for kinds, operator in operators:
                if isinstance(node, kinds):
                    found.extend((".".join(owner) or "<module>", node, new) for new in operator(node))
            # what mutmut does reach is not asked again
            return not isinstance(node, cst.FunctionDef) or not _reached_by_mutmut(node)

        def on_leave(self, node):
            if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
                owner.pop()

    module.visit(Visitor())
    seen = {source}
    for function, node, new in found:
        mutated = module.deep_replace(node, new).code  # type: ignore[attr-defined]
        with contextlib.suppress(SyntaxError):
            compile(mutated, "mutant", "exec")
            if mutated not in seen:
                seen.add(mutated)
                yield function, mutated


def _reached_by_mutmut(function: cst.FunctionDef) -> bool:
    names = [getattr(decorator.decorator, "value", None) for decorator in function.decorators]
    return not names or (len(names) == 1 and names[0] in ("staticmethod", "classmethod"))

"""Edits of a package's source that keep no more of it than a fragment of a line: the one form of mends and of made mistakes.

An edit names a module, a function in it, a fragment that occurs once there, and what to put in the fragment's place; or it
is a whole function. Edits are applied to the *installed* sources, so that one that no longer fits a release says so by name.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from audit.project import AuditError


class Misfit(AuditError):
    """An edit does not fit the installed source; the message names it."""


@dataclass(frozen=True)
class Edit:
    """Put ``replacement`` in the place of ``fragment``.

    module: dotted name.
    function: ``function``, ``Class.method``; ``Class`` or ``""`` for code of a class or of the module outside its functions.
    fragment: at most a line; it occurs once in the function, or once in the lines from ``after`` on.
    replacement: further lines get the indentation of the fragment's line; a line that becomes empty goes.
    after: at most a line, which occurs once in the function; the search begins at it, and the first ``fragment`` is taken.
    torch: the releases it is for, such as ``">=2.3,<2.9"``; none: all.
    """

    module: str
    function: str
    fragment: str
    replacement: str
    after: str = ""
    torch: str = ""

    def __str__(self) -> str:
        return f"{self.module}: {self.function or '<module>'}: {self.fragment!r}"


@dataclass(frozen=True)
class Function:
    """Put a whole function (or class) of our own in the place of the one of this name; add it where there is none.

    function: ``function`` or ``Class.method``; what is added goes to the end of the class or module.
    source: its text, decorators included, with any common indentation.
    torch: as for Edit.
    """

    module: str
    function: str
    source: str
    torch: str = ""

    def __str__(self) -> str:
        return f"{self.module}: {self.function}: the whole function"


@dataclass(frozen=True)
class Imports:
    """Put lines (imports, as a rule) before the first import of the module; the same line asked for twice is put once."""

    module: str
    source: str
    torch: str = ""

    def __str__(self) -> str:
        return f"{self.module}: <module>: imports"


Item = Edit | Function | Imports

#: The releases whose sources the mends and the mistakes of history fit, all of them.
WRITTEN_FOR = ">=2.13"


def holds(condition: str, version: str) -> bool:
    """Whether a torch version (``2.13.0+cpu``) meets every part of a condition such as ``">=2.3,<2.9"``."""
    release = _release(version)
    for part in filter(None, (part.strip() for part in condition.split(","))):
        sign = part.rstrip("0123456789.")
        bound = _release(part[len(sign) :])
        if sign not in ("<", "<=", ">", ">=", "=="):
            raise AuditError(f"not a condition on a torch release: {condition!r}")
        order = (release > bound) - (release < bound)
        if not {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "==": order == 0}[sign]:
            return False
    return True


def _release(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split("+")[0].split(".")
    return int(major), int(minor)


@dataclass
class _Line:
    text: str
    owner: str  # the innermost function or class, "" for the module


def _owned(source: str, within: str = "") -> list[_Line]:
    """The lines of a source, each with its owner; ``within`` is the class or function that the whole stands in."""
    lines = [_Line(text, within) for text in source.splitlines()]

    def visit(node, name):
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}" if name else child.name
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                for number in range(first, (child.end_lineno or first) + 1):
                    lines[number - 1].owner = inner
            visit(child, inner)

    visit(ast.parse(source), within)
    return lines


def owners(source: str) -> dict[int, str]:
    """The innermost function or class of each line by its number, from 1; ``""`` for the module."""
    return {number: line.owner for number, line in enumerate(_owned(source), start=1)}


def is_function(source: str, name: str) -> bool:
    """Whether a source has a function or method of this name."""
    return bool(name) and bool(Source("", source).of_function(name))


class Source:
    """The text of one module on which edits are applied, one after the other."""

    def __init__(self, module: str, text: str):
        self.module = module
        self.lines = _owned(text)
        self.put_before_imports: set[str] = set()

    def __str__(self) -> str:
        return "\n".join(line.text for line in self.lines) + "\n"

    def apply(self, item: Item) -> None:
        """Raises Misfit."""
        if isinstance(item, Edit):
            self._edit(item)
        elif isinstance(item, Function):
            self._function(item)
        else:
            self._imports(item)

    def of_function(self, name: str) -> list[int]:
        """Indices of the lines of a function with all that is nested in it; none where there is no such function."""
        own = [line.text.lstrip() for line in self.lines if line.owner == name]
        if not name or not any(text.startswith(("def ", "async def ")) for text in own):
            return []
        return [i for i, line in enumerate(self.lines) if line.owner == name or line.owner.startswith(name + ".")]

    def _edit(self, edit: Edit) -> None:
        if "\n" in edit.fragment + edit.after or not edit.fragment.strip():
            raise Misfit(f"{edit}: a fragment is a part of one line")
        lines = self.of_function(edit.function) or [i for i, line in enumerate(self.lines) if line.owner == edit.function]
        if not lines:
            raise Misfit(f"{edit}: there is no such function")
        if edit.after:
            start = [i for i in lines if edit.after in self.lines[i].text]
            if len(start) != 1:
                raise Misfit(f"{edit}: after {edit.after!r}, which occurs {len(start)} times there, not once")
            lines = [i for i in lines if i >= start[0]]
        found = [i for i in lines for _ in range(self.lines[i].text.count(edit.fragment))]
        if not found or (len(found) != 1 and not edit.after):
            raise Misfit(f"{edit}: it occurs {len(found)} times there, not once")
        line = self.lines[found[0]]
        indentation = line.text[: len(line.text) - len(line.text.lstrip())]
        new = line.text.replace(edit.fragment, edit.replacement.replace("\n", "\n" + indentation), 1)
        kept = [_Line(text if text.strip() else "", line.owner) for text in new.split("\n")] if new.strip() else []
        self.lines[found[0] : found[0] + 1] = kept

    def _function(self, new: Function) -> None:
        holder, _, name = new.function.rpartition(".")
        old = [i for i, line in enumerate(self.lines) if line.owner == new.function or line.owner.startswith(new.function + ".")]
        within = [i for i, line in enumerate(self.lines) if not holder or line.owner == holder or line.owner.startswith(holder + ".")]
        if not within:
            raise Misfit(f"{new}: there is no {holder}")
        text = textwrap.dedent(new.source).strip("\n")
        try:
            defined = [getattr(node, "name", None) for node in ast.parse(text).body]
        except SyntaxError as error:
            raise Misfit(f"{new}: {error}") from None
        if set(defined) != {name}:
            raise Misfit(f"{new}: its source defines {defined}")
        indentation = ""
        if holder:
            head = self.lines[old[0] if old else next(i for i in within if self.lines[i].owner == holder)].text
            indentation = head[: len(head) - len(head.lstrip())] + ("" if old else "    ")
        lines = _owned(text, holder)
        for line in lines:
            line.text = indentation + line.text if line.text else ""
        if old:
            for i in reversed(old[1:]):
                del self.lines[i]
            self.lines[old[0] : old[0] + 1] = lines
        else:
            end = max(within) + 1
            self.lines[end:end] = [_Line("", holder) for _ in range(1 if holder else 2)] + lines

    def _imports(self, new: Imports) -> None:
        wanted = [line for line in textwrap.dedent(new.source).strip("\n").splitlines() if line not in self.put_before_imports]
        self.put_before_imports.update(wanted)
        for i, line in enumerate(self.lines):
            if not line.owner and line.text.startswith(("import ", "from ")) and not line.text.startswith("from __future__"):
                self.lines[i:i] = [_Line(text, "") for text in wanted]
                return
        raise Misfit(f"{new}: the module imports nothing")


def apply(items: Iterable[Item], installed: dict[str, str]) -> dict[str, str]:
    """The changed sources by module.

    items: whole functions are put in first, then the edits in their order.
    installed: sources by module.

    Raises:
        Misfit: an item does not fit, or the outcome is no Python.
    """
    sources: dict[str, Source] = {}
    items = list(dict.fromkeys(items))
    replaced: set[tuple[str, str]] = set()
    for item in sorted(items, key=lambda item: not isinstance(item, Function)):
        if item.module not in sources:
            if item.module not in installed:
                raise Misfit(f"{item}: there is no such module")
            sources[item.module] = Source(item.module, installed[item.module])
        if isinstance(item, Function):
            if (item.module, item.function) in replaced:
                raise Misfit(f"{item}: another one was put in its place already")
            replaced.add((item.module, item.function))
        sources[item.module].apply(item)
    changed = {module: str(source) for module, source in sources.items()}
    for module, text in changed.items():
        try:
            compile(text, module, "exec")
        except SyntaxError as error:
            raise Misfit(f"{module}: with its edits it is no Python: {error}") from None
    return changed

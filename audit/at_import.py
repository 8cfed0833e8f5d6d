"""Mutants of what mutmut leaves out: code of modules and classes that runs at import, and decorated functions.

Such a mutant has to be there before the first import: each one is a copy of the packages with one file changed, asked in
a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audit import mutants as records
from audit.mutate import Group, Progress
from audit.project import AUDIT, Project, environment

#: Seconds after which a mutant's process is ended; the whole suite takes a tenth of it.
TIMEOUT = 120
TIMED_OUT = 36  # mutmut's exit status for it


def mutations(source: str) -> Iterator[tuple[str, str]]:
    """The mutations of a source file's code outside undecorated functions.

    Yields:
        the class or function (``<module>``, ``Class``, ``Class.method``) and the whole mutated source.
    """
    import libcst as cst
    from mutmut.mutation.mutators import mutation_operators

    from audit.operators import OPERATORS

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
        mutated = module.deep_replace(node, new).code
        with contextlib.suppress(SyntaxError):
            compile(mutated, "mutant", "exec")
            if mutated not in seen:
                seen.add(mutated)
                yield function, mutated


def _reached_by_mutmut(function) -> bool:
    names = [getattr(decorator.decorator, "value", None) for decorator in function.decorators]
    return not names or (len(names) == 1 and names[0] in ("staticmethod", "classmethod"))


class ImportGroup(Group):
    """All packages under test, with their mutants of this kind."""

    deselected: list[str] = []  # there is nothing but the mutation that a test could mind

    def __init__(self, project: Project, work: Path, patterns: list[str], workers: int):
        super().__init__(project, "all", project.packages, work, "import", patterns, workers)
        self.file = self.folder / "mutants.json"

    def _load(self) -> dict[str, dict]:
        return json.loads(self.file.read_text())

    def _save(self, data: dict[str, dict]) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(data))
        new.replace(self.file)

    def make(self) -> None:
        data: dict[str, dict] = {}
        for file in sorted(self.plain.rglob("*.py")):
            path = file.relative_to(self.plain)
            module = ".".join(part for part in path.with_suffix("").parts if part != "__init__")
            source = file.read_text()
            for number, (function, mutated) in enumerate(mutations(source), start=1):
                before, after, line = records.changed_lines(source, mutated)
                data[records.name(module, function, number)] = {
                    "path": str(path),
                    "source": mutated,
                    "exit_code": None,
                    "line": line,
                    "place": [module, function, before, after],
                }
        self._save(data)

    def exit_codes(self) -> dict[str, int | None]:
        return {name: entry["exit_code"] for name, entry in self._load().items()}

    def forget(self, condition) -> None:
        data = self._load()
        for entry in data.values():
            if condition(entry["exit_code"]):
                entry["exit_code"] = None
        self._save(data)

    def read(self) -> list[records.Mutant]:
        found, seen = [], {}
        for name, entry in self._load().items():
            place = tuple(entry["place"])
            seen[place] = seen.get(place, 0) + 1
            found.append(records.Mutant(name, *place, seen[place], entry["line"], records.verdict(entry["exit_code"])))
        return found

    def compare_wrapped(self, installed: dict[str, str]) -> None:
        """There are no files of mutmut."""

    def ask(self, names: list[str]) -> None:
        data, progress = self._load(), Progress(self, names)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for number, (name, code) in enumerate(zip(names, pool.map(lambda n: self._exit_code(data[n]), names)), start=1):
                    data[name]["exit_code"] = code
                    self._save(data)
                    if number % 10 == 0 or number == len(names):
                        progress.tell()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _exit_code(self, entry: dict) -> int:
        """Exit status of the tests with one file changed."""
        with tempfile.TemporaryDirectory(prefix="audit-") as folder:
            overlay = Path(folder)
            for package in self.packages:
                path = Path(*package.split("."))
                shutil.copytree(self.plain / path, overlay / path)
            (overlay / entry["path"]).write_text(entry["source"])
            command = [sys.executable, str(AUDIT / "suite.py"), str(self.tests), self.project.runner, "-", *self.patterns]
            try:
                return subprocess.run(
                    command,
                    cwd=self.tests,
                    env=environment(overlay, self.packages),
                    timeout=TIMEOUT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                ).returncode
            except subprocess.TimeoutExpired:
                return TIMED_OUT

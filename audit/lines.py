"""Line and branch coverage of the packages under test by the runner."""

from __future__ import annotations

import ast
import json
import fnmatch
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from audit.edits import owners
from audit.project import AuditError, Project, environment, package_folder, require

CONFIG = """\
[run]
branch = True
parallel = True
patch = fork, _exit
data_file = {folder}/data
include =
    {include}
[report]
exclude_lines =
[json]
show_contexts = False
"""


@dataclass(frozen=True)
class Gap:
    """A line that never ran, or a branch that was never taken.

    module, function: dotted names; ``<module>`` and ``Class`` stand for code outside functions.
    line: number of the line (for a branch: of the line it leaves).
    source: that line, stripped.
    to: None for a line; for a branch the stripped line it would go to, or ``exit`` for the end of the function.
    """

    module: str
    function: str
    line: int
    source: str
    to: str | None = None

    @property
    def key(self) -> tuple[str, str, str, str | None]:
        return self.module, self.function, self.source, self.to

    def __str__(self) -> str:
        what = self.source if self.to is None else f"{self.source}  never goes to: {self.to}"
        return f"{self.module}:{self.line} {self.function}: {what}"


@dataclass(frozen=True)
class Module:
    """Figures of one module: lines and branches, reached and in all."""

    name: str
    lines: int
    lines_reached: int
    branches: int
    branches_reached: int


def measure(project: Project, patterns: list[str], only: list[str]) -> tuple[list[Module], list[Gap], bool]:
    """Run the runner under coverage.py.

    Returns:
        the modules (those of which nothing ran are in it), the gaps, and whether the runner was green.

    Raises:
        AuditError: coverage is missing, or the runner did not run.
    """
    require("coverage", "coverage")
    folders = {package: package_folder(package) for package in project.packages}
    with tempfile.TemporaryDirectory(prefix="audit-") as scratch:
        rc = Path(scratch, "coveragerc")
        include = "\n    ".join(f"{folder}/*" for folder in folders.values())
        rc.write_text(CONFIG.format(folder=scratch, include=include))
        command = [sys.executable, "-m", "coverage"]
        arguments = [word for pattern in patterns for word in ("-k", pattern)]
        tests = [project.runner] if project.runner == Project.runner else ["-m", "unittest", project.runner]
        run = subprocess.run(
            [*command, "run", f"--rcfile={rc}", *tests, *arguments],
            cwd=project.root,
            env=environment(),
            capture_output=True,
            text=True,
        )
        out = Path(scratch, "coverage.json")
        for words in (["combine", "-q"], ["json", "-q", "-o", str(out)]):
            step = subprocess.run([*command, words[0], f"--rcfile={rc}", *words[1:]], cwd=scratch, capture_output=True, text=True)
            if step.returncode:
                raise AuditError(f"nothing was measured: {(step.stdout + step.stderr + run.stderr)[-2000:]}")
        data = json.loads(out.read_text())["files"]
    if run.returncode:
        print(run.stderr[-4000:], file=sys.stderr)
    by_path = {Path(name): figures for name, figures in data.items()}
    modules, gaps = [], []
    for package, folder in folders.items():
        for file in sorted(folder.rglob("*.py")):
            name = _module_name(package, folder, file)
            if only and not any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
                continue
            module, missing = _examine(name, file, by_path.get(file))
            modules.append(module)
            gaps += missing
    return modules, gaps, run.returncode == 0


def _module_name(package: str, folder: Path, file: Path) -> str:
    parts = file.relative_to(folder).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


def _examine(name: str, file: Path, figures: dict | None) -> tuple[Module, list[Gap]]:
    source = file.read_text()
    if figures is None:  # never imported
        count = sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(source)))
        gaps = [Gap(name, "<module>", 1, "the module is never imported")] if count else []
        return Module(name, count, 0, 0, 0), gaps
    owner = owners(source)
    text = {number: line.strip() for number, line in enumerate(source.splitlines(), start=1)}
    gaps = [Gap(name, owner[line] or "<module>", line, text[line]) for line in figures["missing_lines"]]
    unreached = set(figures["missing_lines"])
    for start, end in figures["missing_branches"]:
        if start not in unreached:  # a line that never ran is one gap, not three
            gaps.append(Gap(name, owner[start] or "<module>", start, text[start], text[end] if end > 0 else "exit"))
    total = figures["summary"]
    return (
        Module(name, total["num_statements"], total["covered_lines"], total["num_branches"], total["covered_branches"]),
        sorted(gaps, key=lambda gap: gap.line),
    )


def table(modules: list[Module]) -> str:
    """One line per module and one for all: reached and in all, in percent over lines and branches together."""
    total = Module(
        "all",
        *(sum(getattr(m, name) for m in modules) for name in ("lines", "lines_reached", "branches", "branches_reached")),
    )
    rows = []
    for m in [*(m for m in modules if m.lines), total]:
        share = 100 * (m.lines_reached + m.branches_reached) / ((m.lines + m.branches) or 1)
        rows.append(f"{share:6.1f} %  {m.lines_reached:5}/{m.lines:<5} lines  {m.branches_reached:4}/{m.branches:<4} branches  {m.name}")
    return "\n".join(rows)

"""What is audited: the project's runner and the packages under test, and where the audit works."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

AUDIT = Path(__file__).resolve().parent
ROOT = AUDIT.parent
OVERLAY_SITE = AUDIT / "overlay"
WORK = ROOT / "build" / "audit-work"  # where neither git, the linter nor any program that finds tests looks: it is no name of a package

#: Packages under test, in the groups that are mutated together.
GROUPS = {"all": ("torch.ao.pruning", "torch.ao.nn.sparse")}

#: Sets of mutation operators: mutmut's; this project's own (operators.py); both on what mutmut cannot reach (at_import.py); mistakes
#: as refactorings bring them, made by hand (history); mutmut's and the own ones on mended lines (mends).
OPERATORS = ("mutmut", "own", "import", "history", "mends")


class AuditError(Exception):
    """A reason to stop, told to the user in one line."""


@dataclass(frozen=True)
class Project:
    """A suite and its packages under test.

    root: folder of the project, from which the runner is started.
    runner: the runner's file name in ``root``.
    tests: what the runner needs, relative to ``root``; a run works on a snapshot of it.
    groups: packages under test by group; groups are mutated one after the other.
    product: distribution whose version the results belong to.
    """

    root: Path = ROOT
    runner: str = "test_ao_sparsity.py"
    tests: tuple[str, ...] = ("test_ao_sparsity.py", "ao")
    groups: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(GROUPS))
    product: str = "torch"

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(package for packages in self.groups.values() for package in packages)


def require(module: str, command: str) -> None:
    """Raise AuditError where ``module``, needed by ``command``, is not installed."""
    if importlib.util.find_spec(module) is None:
        raise AuditError(f"python -m audit {command} needs {module}, which {sys.executable} lacks: pip install -r requirements-dev.txt")


def package_folder(package: str) -> Path:
    """Folder of an installed package, found without importing the package or its parents' subpackages."""
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location, *rest)
        if folder.is_dir():
            return folder
    raise AuditError(f"{package} is not installed for {sys.executable}")


def copy_packages(packages: tuple[str, ...], folder: Path) -> None:
    """Copy the installed ``packages`` to ``folder`` by their dotted names, without bytecode."""
    for package in packages:
        target = folder.joinpath(*package.split("."))
        shutil.copytree(package_folder(package), target, ignore=shutil.ignore_patterns("__pycache__"))


def copy_tests(project: Project, folder: Path) -> None:
    """Copy the runner and the tests to ``folder``: a run is not disturbed by edits made meanwhile."""
    if not (project.root / project.runner).is_file():
        raise AuditError(f"no {project.runner} in {project.root}")
    for name in project.tests:
        source, target = project.root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, target)


def digest(*paths: Path) -> str:
    """Short hash of the given files and of every Python file and page below the given folders (names and contents)."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(f for f in path.rglob("*") if f.suffix in (".py", ".md")) if path.is_dir() else [path]:
            total.update(str(file.relative_to(path.parent)).encode())
            total.update(file.read_bytes())
    return total.hexdigest()[:16]


def environment(overlay: Path | None = None, packages: tuple[str, ...] = ()) -> dict[str, str]:
    """Environment of a process that runs the tests, with ``packages`` taken from ``overlay`` where one is given.

    One thread and one process each, since several run at a time; bytecode is not written, nor, where CI is set, JUnit XML;
    the output has no colours.
    """
    env = dict(
        os.environ,
        OMP_NUM_THREADS="1",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONHASHSEED="0",
        CI="",
        PYTHON_COLORS="0",
        AO_SPARSITY_ONE_PROCESS="1",
        AO_SPARSITY_STRICT="1",
    )
    env.pop("MUTANT_UNDER_TEST", None)
    if overlay is not None:
        paths = [str(OVERLAY_SITE), *filter(None, [env.get("PYTHONPATH")])]
        env.update(AUDIT_OVERLAY=str(overlay), AUDIT_PACKAGES=":".join(packages), PYTHONPATH=os.pathsep.join(paths))
    return env

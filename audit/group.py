"""A set of mutants in a work folder: made once, asked once, kept while what they depend on stays as it is."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import platform
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from audit import mutants as records
from audit.project import AUDIT, OVERLAY_SITE, AuditError, Project, copy_packages, copy_tests, digest, package_folder


#: Descriptors of the locks that this process holds, for a child that works in the folder.
HELD: list[int] = []


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


class Group(ABC):
    """The mutants of some packages by one set of operators, and their work folder."""

    def __init__(
        self,
        project: Project,
        name: str,
        packages: tuple[str, ...],
        work: Path,
        operators: str,
        patterns: list[str],
        workers: int,
    ):
        self.project = project
        self.name = name
        self.operators = operators
        self.packages = packages
        self.folder = (work / operators / name).resolve()
        self.tests = self.folder / "tests"
        self.plain = self.folder / "src"
        self.patterns = patterns
        self.workers = workers

    # -- state ---------------------------------------------------------------------------------------------------

    def fingerprint(self) -> dict:
        """Everything a verdict depends on."""
        root = self.project.root
        return {
            "product": f"{self.project.product} {distribution_version(self.project.product)}",
            "python": platform.python_version(),
            "mutmut": distribution_version("mutmut"),
            "engine": digest(*(AUDIT / name for name in ("engine.py", "suite.py", "warm.py", "variants.py")), OVERLAY_SITE),
            "operators": f"{self.operators} {digest(*self.made_by())}" if self.made_by() else self.operators,
            "packages": digest(*(package_folder(package) for package in self.project.packages)),
            "runner": self.project.runner,
            "patterns": self.patterns,
            "tests": digest(*(root / name for name in self.project.tests)),
        }

    def prepare(self, survivors: bool) -> None:
        """Bring the work folder up to date; keep the verdicts only where they are still true.

        ``survivors``: where nothing but the tests changed, keep what was noticed and ask the rest again.
        """
        state_file = self.folder / "state.json"
        old = json.loads(state_file.read_text()) if state_file.is_file() else None
        new = self.fingerprint()
        if old == new:
            return
        differing = {key for key in new if not old or old.get(key) != new[key]}
        if differing <= {"tests", "runner", "patterns"}:
            if not survivors:
                say(f"{self.name}: the tests changed, every mutant is asked again")
            self.forget(lambda exit_code: not survivors or records.verdict(exit_code) not in records.NOTICED)
            self._mark_kept(survivors)
        else:
            known = self.by_content() if differing <= {"tests", "runner", "patterns", "operators"} else {}
            if "tests" in differing:
                known = {key: code for key, code in known.items() if survivors and records.verdict(code) in records.NOTICED}
            kept = bool(known) and ("tests" in differing or self.kept)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            copy_packages(self.project.packages, self.plain)
            say(f"{self.name}: making the mutants")
            self.make()
            self.recall(known)
            self._mark_kept(kept)
        state_file.write_text(json.dumps({**new, "tests": "not compared yet"}, indent=1))
        shutil.rmtree(self.tests, ignore_errors=True)
        copy_tests(self.project, self.tests)
        for stale in ("mutants/mutmut-stats.json", "mutants/imported.json", "deselected.json"):
            (self.folder / stale).unlink(missing_ok=True)
        self.compare()
        state_file.write_text(json.dumps(new, indent=1))

    def _mark_kept(self, kept: bool) -> None:
        marker = self.folder / "kept"
        marker.touch() if kept else marker.unlink(missing_ok=True)

    @property
    def kept(self) -> bool:
        """Whether there are verdicts from before the last change of the tests."""
        return (self.folder / "kept").exists()

    @abstractmethod
    def made_by(self) -> list[Path]:
        """Files of the audit on which it depends what the mutants are."""

    @abstractmethod
    def make(self) -> None:
        """Make the mutants."""

    def contents(self) -> dict[str, str]:
        """What tells each mutant from all others of the same packages, however the set is made; by name."""
        return {mutant.name: repr(mutant.key) for mutant in self.read()}

    def by_content(self) -> dict[str, int]:
        """Exit statuses by content, of the mutants that have one."""
        codes, contents = self.exit_codes(), self.contents()
        return {contents[name]: code for name, code in codes.items() if code is not None}

    def recall(self, known: dict[str, int]) -> None:
        """Give the mutants, which were just made, the exit statuses that are known by their content."""
        if known:
            contents = self.contents()
            self.change(lambda name, code: known.get(contents[name], code))

    def forget(self, condition: Callable[[int | None], bool]) -> None:
        """Ask again the mutants for whose exit status ``condition`` is true."""
        self.change(lambda name, code: None if condition(code) else code)

    @abstractmethod
    def compare(self) -> None:
        """Refuse to go on unless the unmutated copy gives every test the outcome it has on the installed package."""

    @abstractmethod
    def exit_codes(self) -> dict[str, int | None]:
        """Exit status of every mutant by name; None where it was not asked yet."""

    @abstractmethod
    def read(self) -> list[records.Mutant]:
        """Every mutant."""

    @abstractmethod
    def change(self, new: Callable[[str, int | None], int | None]) -> None:
        """Give each mutant the exit status that ``new`` makes of its name and the one it has."""

    @abstractmethod
    def ask(self, names: list[str]) -> None:
        """Find the verdicts of these mutants."""

    @property
    def deselected(self) -> list[str]:
        """Tests that are left out."""
        return []

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, only: list[str], shard: tuple[int, int]) -> None:
        """Ask every mutant that is selected and has no verdict yet."""
        verdicts = self.exit_codes()
        chosen = [name for name in records.shard_of(verdicts, shard) if records.matches(name, only)]
        open_ = [name for name in chosen if records.verdict(verdicts[name]) == "not checked"]
        say(f"{self.name}: {len(verdicts)} mutants, {len(chosen)} selected, {len(open_)} to run")
        if open_:
            self.ask(open_)


class Progress:
    """Says now and then how far a group is."""

    def __init__(self, group: Group, names: list[str]):
        self.group, self.names = group, set(names)
        self.start, self.said, self.pause = time.monotonic(), 0, 5.0

    def tell(self) -> None:
        """Print a line if there is news, and be quieter from then on."""
        codes = [code for name, code in self.group.exit_codes().items() if name in self.names]
        done = [records.verdict(code) for code in codes if code is not None]
        if len(done) == self.said:
            return
        self.said, self.pause = len(done), min(self.pause * 1.3, 30.0)
        survived = sum(verdict in ("survived", "no tests") for verdict in done)
        left = (time.monotonic() - self.start) / self.said * (len(self.names) - self.said) / 60
        say(f"{self.group.name}: {self.said}/{len(self.names)} done, {survived} survived, about {left:.0f} min left")


def distribution_version(distribution: str) -> str:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(no distribution)"


@contextlib.contextmanager
def lock(work: Path) -> Iterator[None]:
    """Take the work folder for the block, and for what is started with HELD: it may outlive a process that is killed."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(f"{work} is in use by another run; name another folder with --work") from None
        HELD.append(file.fileno())
        try:
            yield
        finally:
            HELD.remove(file.fileno())
            fcntl.flock(file, fcntl.LOCK_UN)

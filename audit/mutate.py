"""Mutation testing of the packages under test by the suite, with mutmut 3, on an overlay copy."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from audit import mutants as records
from audit.project import AUDIT, OVERLAY_SITE, AuditError, Project, copy_packages, copy_tests, digest, environment, package_folder
from audit.project import require

#: At most this share of the tests may be left out because they mind the further functions in mutmut's files.
MOST_DESELECTED = 0.05

#: Versions of mutmut that engine.py knows how to drive.
MUTMUT_FROM, MUTMUT_BEFORE = (3, 8), (4, 0)

MUTMUT_CONFIG = """\
[tool.mutmut]
source_paths = ["src"]
only_mutate = [{only}]
process_isolation = "fork"
use_git_change_detection = false
on_dependency_change = "ignore"
timeout_multiplier = 15.0
timeout_constant = 1.5
use_setproctitle = false
"""


def say(text: str) -> None:
    print(text, flush=True)


class Group:
    """One group of packages that is mutated together, and its work folder."""

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
        self.mutated = self.folder / "mutants" / "src"
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
            "engine": digest(AUDIT / "engine.py", OVERLAY_SITE),
            "operators": self.operators + ("" if self.operators == "mutmut" else f" {digest(AUDIT / 'operators.py')}"),
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
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            copy_packages(self.project.packages, self.plain)
            say(f"{self.name}: making the mutants")
            self.make()
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

    def make(self) -> None:
        """Make the mutants."""
        paths = (f'"src/{package.replace(".", "/")}/*"' for package in self.packages)
        (self.folder / "pyproject.toml").write_text(MUTMUT_CONFIG.format(only=", ".join(paths)))
        self.engine({"task": "generate"})

    def exit_codes(self) -> dict[str, int | None]:
        """Exit status of every mutant by name; None where it was not asked yet."""
        return records.read_verdicts(self.folder)

    def read(self) -> list[records.Mutant]:
        """Every mutant."""
        return records.read(self.folder)

    def forget(self, condition) -> None:
        """Ask again the mutants for whose exit status ``condition`` is true."""
        for file in records.meta_files(self.folder):
            data = json.loads(file.read_text())
            codes = data["exit_code_by_key"]
            data["exit_code_by_key"] = {name: None if condition(code) else code for name, code in codes.items()}
            stamp = file.stat().st_mtime
            file.write_text(json.dumps(data, indent=4))
            os.utime(file, (stamp, stamp))

    # -- processes -----------------------------------------------------------------------------------------------

    def engine(self, job: dict, wait=None) -> None:
        """Run the engine on ``job``; ``wait(process)`` watches it. AuditError with the end of its log where it fails."""
        job_file, log_file = self.folder / "job.json", self.folder / "engine.log"
        job_file.write_text(json.dumps({"workers": self.workers, "operators": self.operators, **job}))
        env = environment(self.mutated, self.project.packages)
        with log_file.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, str(AUDIT / "engine.py"), str(job_file)],
                cwd=self.folder,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                if wait:
                    wait(process)
                process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
        if process.returncode:
            tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-40:])
            raise AuditError(f"{self.name}: mutmut stopped with status {process.returncode}; the end of {log_file}:\n{tail}")

    def verdicts(self, name: str, overlay: Path | None) -> tuple[dict[str, str], dict[str, str]]:
        """Outcome of every test, and the last line of what it said where it failed, with the packages from ``overlay``."""
        out, log = self.folder / f"verdicts-{name}.json", self.folder / f"verdicts-{name}.log"
        command = [sys.executable, str(AUDIT / "suite.py"), str(self.tests), self.project.runner, str(out), *self.patterns]
        with log.open("w") as stream:
            code = subprocess.run(
                command,
                cwd=self.tests,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment(overlay, self.project.packages),
            ).returncode
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise AuditError(f"{self.name}: the tests do not run ({name}, status {code}):\n{tail}")
        data = json.loads(out.read_text())
        return data["outcomes"], data["details"]

    def compare(self) -> None:
        """Refuse to go on unless the unmutated overlay gives every test the outcome it has on the installed package."""
        say(f"{self.name}: comparing the verdicts of the installed package and of the overlay")
        installed, details = self.verdicts("installed", None)
        if not installed:
            raise AuditError("no test matches " + " ".join(self.patterns))
        red = [f"{test}: {details.get(test, outcome)}" for test, outcome in installed.items() if _red(outcome)]
        if red:
            raise AuditError("red on the installed package, there is nothing to measure:\n" + "\n".join(red))
        overlay, _ = self.verdicts("overlay", self.plain)
        if differing := _differing(installed, overlay):
            raise AuditError("the unmutated overlay gives other verdicts than the installed package:\n" + "\n".join(differing))
        self.compare_wrapped(installed)

    def compare_wrapped(self, installed: dict[str, str]) -> None:
        """Note the tests that mind the further functions in mutmut's files; they are left out."""
        wrapped, _ = self.verdicts("wrapped", self.mutated)
        deselected = {test.partition(":")[0] for test in _differing(installed, wrapped)}
        if len(deselected) > max(3, MOST_DESELECTED * len(installed)):
            raise AuditError(f"mutmut's files disturb {len(deselected)} tests:\n" + "\n".join(sorted(deselected)))
        (self.folder / "deselected.json").write_text(json.dumps(sorted(deselected), indent=1))
        for test in sorted(deselected):
            say(f"{self.name}: left out, as it minds mutmut's files: {test}")

    @property
    def deselected(self) -> list[str]:
        return json.loads((self.folder / "deselected.json").read_text())

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, only: list[str], shard: tuple[int, int]) -> None:
        """Ask every mutant that is selected and has no verdict yet."""
        verdicts = self.exit_codes()
        chosen = [name for name in records.shard_of(verdicts, shard) if records.matches(name, only)]
        open_ = [name for name in chosen if records.verdict(verdicts[name]) == "not checked"]
        say(f"{self.name}: {len(verdicts)} mutants, {len(chosen)} selected, {len(open_)} to run")
        if open_:
            self.ask(open_)

    def ask(self, names: list[str]) -> None:
        """Find the verdicts of these mutants."""
        job = {
            "task": "run",
            "names": names,
            "tests": str(self.tests),
            "runner": self.project.runner,
            "patterns": self.patterns,
            "deselected": self.deselected,
            "packages": self.project.packages,
            "overlay": str(self.mutated),
        }
        progress = Progress(self, names)

        def wait(process):
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(progress.pause)
                progress.tell()

        self.engine(job, wait)


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
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(no distribution)"


def _red(outcome: str) -> bool:
    return outcome in ("failed", "error", "unexpected success")


def _differing(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """One line for every test whose outcome differs or that one side lacks."""
    return [
        f"{test}: {expected.get(test, 'absent')} there, {got.get(test, 'absent')} here"
        for test in sorted(expected.keys() | got.keys())
        if expected.get(test) != got.get(test)
    ]


def lock(work: Path):
    """Take the work folder for this process; the lock lasts as long as the returned file is kept open."""
    work.mkdir(parents=True, exist_ok=True)
    file = (work / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AuditError(f"{work} is in use by another run; name another folder with --work") from None
    return file


def mutate(
    project: Project,
    work: Path,
    operators: str,
    only: list[str],
    shard: tuple[int, int],
    patterns: list[str],
    survivors: bool,
    workers: int,
) -> Path:
    """Run the selected mutants and write ``work/<operators>/results.json``; returns that file.

    operators: one of project.OPERATORS.
    only: glob patterns of modules or ``module.Class.method`` (none: everything).
    shard: (I, N), the I-th of N parts.
    patterns: select tests as ``unittest -k`` does (none: all; anything else is for a quick look at one area).
    survivors: keep what the previous run noticed though the tests have changed since.
    """
    require("mutmut", "mutate")
    if not MUTMUT_FROM <= tuple(int(n) for n in distribution_version("mutmut").split(".")[:2]) < MUTMUT_BEFORE:
        raise AuditError(
            f"python -m audit mutate needs mutmut 3.8 or a later 3, not {distribution_version('mutmut')}: pip install 'mutmut>=3.8,<4'"
        )
    with lock(work):
        found, deselected, kept = [], {}, False
        header = {}
        for group in _groups(project, work, operators, patterns, workers):
            if only and not _may_match(group.packages, only):
                continue
            group.prepare(survivors)
            group.run(only, shard)
            found += [m for m in group.read() if records.matches(m.name, only)]
            deselected[group.name] = group.deselected
            kept |= group.kept
            header = group.fingerprint()
        if not found:
            raise AuditError("no mutant matches " + " ".join(only))
        out = results_file(work, operators)
        header |= {"scope": project.packages, "kept": kept, "deselected": deselected, "only": only, "shards": [shard]}
        records.write(out, header, found)
    return out


def _groups(project: Project, work: Path, operators: str, patterns: list[str], workers: int) -> list[Group]:
    if operators == "import":
        from audit.at_import import ImportGroup

        return [ImportGroup(project, work, patterns, workers)]
    return [Group(project, name, project.groups[name], work, operators, patterns, workers) for name in project.groups]


def results_file(work: Path, operators: str) -> Path:
    """Where the results of a set of operators lie in a work folder."""
    return work / operators / "results.json"


def _may_match(packages: tuple[str, ...], only: list[str]) -> bool:
    """Whether a pattern can match something below one of the packages: their fixed beginnings agree."""
    for pattern in only:
        fixed = pattern.split("*")[0].split("?")[0].split("[")[0]
        if any(fixed.startswith(package) or package.startswith(fixed) for package in packages):
            return True
    return False

"""The mutants that mutmut 3 makes, by its own operators or the project's, and the processes in which it asks them (engine.py)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from audit import mutants as records
from audit.group import HELD, Group, Progress, distribution_version, say
from audit.project import AUDIT, AuditError, environment, require
from audit.variants import is_red

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


def require_mutmut() -> None:
    """Raise AuditError where mutmut is missing, or one that engine.py does not know."""
    require("mutmut", "mutate")
    if not MUTMUT_FROM <= tuple(int(n) for n in distribution_version("mutmut").split(".")[:2]) < MUTMUT_BEFORE:
        found = distribution_version("mutmut")
        raise AuditError(f"python -m audit mutate needs mutmut 3.8 or a later 3, not {found}: pip install 'mutmut>=3.8,<4'")


class MutmutGroup(Group):
    """One group of packages that is mutated together by mutmut."""

    def made_by(self) -> list[Path]:
        return [AUDIT / "operators.py"] if self.operators == "own" else []

    @property
    def mutated(self) -> Path:
        """Folder of mutmut's files."""
        return self.folder / "mutants" / "src"

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

    def change(self, new: Callable[[str, int | None], int | None]) -> None:
        for file in records.meta_files(self.folder):
            data = json.loads(file.read_text())
            data["exit_code_by_key"] = {name: new(name, code) for name, code in data["exit_code_by_key"].items()}
            stamp = file.stat().st_mtime
            file.write_text(json.dumps(data, indent=4))
            os.utime(file, (stamp, stamp))

    def engine(self, job: dict, wait: Callable[[subprocess.Popen], None] | None = None) -> None:
        """Run the engine on ``job``; ``wait(process)`` watches it. AuditError with the end of its log where it fails."""
        job_file, log_file = self.folder / "job.json", self.folder / "engine.log"
        job_file.write_text(json.dumps({"workers": self.workers, "operators": self.operators, **job}))
        env = environment(self.mutated, self.project.packages)
        # What a fork leaves behind that is killed, or that mutmut ends at once, goes with the folder.
        with tempfile.TemporaryDirectory(prefix="audit-") as scratch, log_file.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, str(AUDIT / "engine.py"), str(job_file)],
                cwd=self.folder,
                env={**env, "TMPDIR": scratch},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=HELD,
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
        red = [f"{test}: {details.get(test, outcome)}" for test, outcome in installed.items() if is_red(outcome)]
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


def _differing(expected: dict[str, str], got: dict[str, str]) -> list[str]:
    """One line for every test whose outcome differs or that one side lacks."""
    return [
        f"{test}: {expected.get(test, 'absent')} there, {got.get(test, 'absent')} here"
        for test in sorted(expected.keys() | got.keys())
        if expected.get(test) != got.get(test)
    ]

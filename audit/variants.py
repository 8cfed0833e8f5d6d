"""Changed copies of the packages under test, and what the tests say to them: many of them, quickly.

A variant is a set of changed files. All variants are asked by forks of one process that has everything imported but the packages
and the tests (warm.py), and each is asked with the tests that can notice it.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audit import edits
from audit.project import AUDIT, OVERLAY_SITE, AuditError, Project, copy_packages, copy_tests, digest, environment, package_folder

#: Seconds after which a variant's process is ended, at least, and as a multiple of what the tests took on the unchanged copy.
TIMEOUT, TIMEOUT_FACTOR = 180, 15

#: Seconds for the tests on the unchanged copy.
BASELINE_TIMEOUT = 1800


@dataclass(frozen=True)
class Variant:
    """A changed copy.

    name: for the answer.
    sources: changed texts, by path as ``torch/ao/pruning/...``.
    only: ids of the tests to run, in this order; None: all.
    stop: whether the first test that is not as it should be is enough.
    probes: pieces of code to be run in the place of tests, each in a process of its own.
    """

    name: str
    sources: dict[str, str]
    only: list[str] | None = None
    stop: bool = False
    probes: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """What became of a variant.

    status: of the process: 0, negative for a signal, None where its time was over.
    at: the test that was running last.
    outcomes: by test, as audit/suite.py has them, those that were run.
    details: the line that names the exception, by test.
    printed: what each of the probes printed.
    error: why nothing could be run, or empty.
    """

    name: str
    status: int | None
    at: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    imported: list[str] = field(default_factory=list)
    printed: Sequence[str] = ()
    error: str = ""

    @property
    def broken(self) -> str:
        """Why there is no outcome for every test that was asked, or empty."""
        if self.error:
            return self.error.strip().splitlines()[-1]
        if self.status is None:
            return f"no end in time, in {self.at}"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name} in {self.at}"
        return f"ended with status {self.status} in {self.at}" if self.status else ""


@dataclass(frozen=True)
class Baseline:
    """The tests on the unchanged copy.

    outcomes, seconds: by test.
    known: the mark of each test of a known defect.
    reached: the functions that each test calls, as ``(path, function)``; ``("*", "")`` where it starts another program.
    """

    outcomes: dict[str, str]
    seconds: dict[str, float]
    known: dict[str, str]
    reached: dict[str, set[tuple[str, str]]]

    def reaching(self, places: Iterable[tuple[str, str]]) -> list[str]:
        """Tests that call one of the functions, or one nested in it, or, where a place has no function, any of the path."""
        wanted = list(places)

        def hit(path: str, function: str) -> bool:
            return any(path == p and (not f or function == f or function.startswith(f + ".")) for p, f in wanted)

        return [test for test in self.outcomes if any(path == "*" or hit(path, f) for path, f in self.reached.get(test, ()))]

    def in_order(self, tests: Iterable[str]) -> list[str]:
        """Plain tests first, the quickest first among each."""
        return sorted(tests, key=lambda test: (test in self.known, self.seconds.get(test, 0.0)))


class Asker:
    """Asks variants of a project's packages, in a work folder."""

    def __init__(self, project: Project, folder: Path, patterns: list[str], workers: int):
        self.project, self.folder, self.patterns, self.workers = project, folder.resolve(), patterns, workers
        self.tests, self.plain = self.folder / "tests", self.folder / "plain"
        self.imports: list[str] = []
        self.timeout: float = TIMEOUT

    def fingerprint(self) -> dict[str, str]:
        """Everything that an outcome depends on beside the variant."""
        names = ("warm.py", "variants.py", "suite.py", "edits.py")
        return {
            "packages": digest(*(package_folder(package) for package in self.project.packages)),
            "tests": digest(*(self.project.root / name for name in self.project.tests)),
            "engine": digest(*(AUDIT / name for name in names), OVERLAY_SITE),
            "patterns": " ".join(self.patterns),
        }

    def path(self, module: str) -> str:
        """Path of a module below ``plain``."""
        base = module.replace(".", "/")
        return f"{base}/__init__.py" if (self.plain / base).is_dir() else f"{base}.py"

    def sources(self) -> dict[str, str]:
        """The unchanged text of every module, by its name."""
        found = {}
        for file in sorted(self.plain.rglob("*.py")):
            parts = file.relative_to(self.plain).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = file.read_text()
        return found

    def copy(self) -> None:
        """Copy packages and tests anew."""
        shutil.rmtree(self.tests, ignore_errors=True)
        shutil.rmtree(self.plain, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        copy_packages(self.project.packages, self.plain)
        compileall.compile_dir(self.plain, quiet=1)  # each variant compiles what it changes alone
        copy_tests(self.project, self.tests)

    def prepare(self) -> Baseline:
        """Copy packages and tests, run the tests on the unchanged copy (kept, while nothing changes).

        Raises:
            AuditError: a test is red there, or not the same in a fork that was warmed beforehand.
        """
        file = self.folder / "baseline.json"
        stamp = self.fingerprint()
        data = json.loads(file.read_text()) if file.is_file() else {}
        if data.get("fingerprint") != stamp:
            self.imports = data.get("imports", [])
            file.unlink(missing_ok=True)
            self.copy()
            data = {"fingerprint": stamp, **self._measure()}
            file.write_text(json.dumps(data))
        self.imports = data["imports"]
        self.timeout = max(TIMEOUT, TIMEOUT_FACTOR * sum(data["seconds"].values()))
        reached = {test: {(path, function) for path, function in places} for test, places in data["reached"].items()}
        return Baseline(data["outcomes"], data["seconds"], data["known"], reached)

    def _measure(self) -> dict:
        self.timeout = BASELINE_TIMEOUT
        watched = self.folder / "reached.txt"
        watched.unlink(missing_ok=True)
        question = {**self._question(Variant("unchanged", {})), "watch": str(watched)}
        answer = next(self._run([question]))
        if not self.imports and not answer.broken:  # once in a process that was not warmed, once in one that was
            watched.unlink(missing_ok=True)
            self.imports = self._foreign(answer.imported)
            answer = next(self._run([question]))
        if answer.broken or not answer.outcomes:
            raise AuditError(f"the tests do not run: {answer.error or answer.broken or 'no test matches'}")
        red = [f"{test}: {answer.details.get(test, outcome)}" for test, outcome in answer.outcomes.items() if is_red(outcome)]
        if red:
            raise AuditError("red on an unchanged copy, there is nothing to measure:\n" + "\n".join(red))
        owners = {file.relative_to(self.plain).as_posix(): edits.owners(file.read_text()) for file in self.plain.rglob("*.py")}
        reached: dict[str, set[tuple[str, str]]] = {}
        for line in watched.read_text().splitlines() if watched.is_file() else ():
            test, path, number = line.split("\t")
            reached.setdefault(test, set()).add((path, owners[path].get(int(number), "") if path in owners else ""))
        return {
            "outcomes": answer.outcomes,
            "seconds": answer.seconds,
            "known": answer.known,
            "imports": self._foreign(answer.imported),
            "reached": {test: sorted(places) for test, places in reached.items()},
        }

    def _foreign(self, imported: list[str]) -> list[str]:
        """Those of the imported modules that are neither tests nor under test."""
        ours = tuple(f"{package}." for package in self.project.packages)
        here = {path.name.removesuffix(".py") for path in self.tests.iterdir()}
        return [name for name in imported if not f"{name}.".startswith(ours) and name.partition(".")[0] not in here]

    def ask(self, variants: Iterable[Variant]) -> Iterator[Answer]:
        """Answers as they come, in any order."""
        yield from self._run(self._question(variant) for variant in variants)

    @staticmethod
    def _question(variant: Variant) -> dict:
        return {**vars(variant), "watch": None}

    def _run(self, questions: Iterable[dict]) -> Iterator[Answer]:
        with tempfile.TemporaryDirectory(prefix="audit-") as scratch:
            asked, job = Path(scratch, "questions"), Path(scratch, "job.json")
            with asked.open("w") as stream:
                for question in questions:
                    stream.write(json.dumps(question) + "\n")
            job.write_text(
                json.dumps(
                    {
                        "tests": str(self.tests),
                        "runner": self.project.runner,
                        "patterns": self.patterns,
                        "plain": str(self.plain),
                        "packages": self.project.packages,
                        "imports": self.imports,
                        "workers": self.workers,
                        "timeout": self.timeout,
                        "questions": str(asked),
                    }
                )
            )
            env = environment()
            env["PYTHONPATH"] = os.pathsep.join([str(OVERLAY_SITE), *filter(None, [env.get("PYTHONPATH")])])
            with (
                (self.folder / "warm.log").open("w") as log,
                subprocess.Popen(
                    [sys.executable, str(AUDIT / "warm.py"), str(job)],
                    cwd=self.tests,
                    env={**env, "TMPDIR": scratch},
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                ) as process,
            ):
                try:
                    assert process.stdout is not None
                    for line in process.stdout:
                        yield Answer(**json.loads(line))
                    process.wait()
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGTERM)
            if process.returncode:
                tail = "\n".join((self.folder / "warm.log").read_text(errors="replace").splitlines()[-15:])
                raise AuditError(f"{AUDIT / 'warm.py'} ended with status {process.returncode}:\n{tail}")


def is_red(outcome: str) -> bool:
    """Whether an outcome is not as it should be."""
    return outcome in ("failed", "error", "unexpected success")

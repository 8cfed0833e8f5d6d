"""What the suite costs, as ratios to importing what every suite on torch's test tools must import."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.project import AUDIT, AuditError, Project

BARE = "import torch.testing._internal.common_utils"
FILTER = "TestFPGMPruner"

#: The project's own tests: what is told of them, pytest's arguments, and the most that they may take, in times of the bare import.
PROJECT = (("all of the project's tests", ("-n", "2"), 80.0), ("its quick tests", ("-n", "2", "-m", "not slow"), 20.0))

#: The most memory, in times of the bare import's: 400 MiB where that takes 169.
MEMORY = 2.37

#: Bare imports before each run that is compared with them: they are short, and a busy machine changes them most.
BARE_RUNS = 3

#: Seconds between two looks at the memory of a process tree.
LOOK_EVERY = 0.05

#: How many of the slowest tests are told.
SLOWEST = 20


@dataclass(frozen=True)
class Run:
    """One run of a command: wall-clock seconds, processor seconds of it and its children, and, where it was looked at, the peak of
    the sum of the proportional set sizes (PSS) over its process tree in MiB."""

    seconds: float
    cpu: float
    pss: float = 0.0


@dataclass(frozen=True)
class Figure:
    """One figure of the table: what it is, its value, its unit, and the most it may be (None: no goal)."""

    name: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def within(self) -> bool:
        """Whether the goal is met."""
        return self.at_most is None or self.value <= self.at_most

    def __str__(self) -> str:
        goal = "" if self.at_most is None else f" (at most {self.at_most:g}{'' if self.within else ': MISSED'})"
        return f"{self.name}: {self.value:.2f} {self.unit}{goal}"


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds, and the slowest tests with their seconds."""

    figures: Sequence[Figure]
    slowest: Sequence[tuple[str, float]] = ()

    @property
    def within(self) -> bool:
        """Whether every goal is met."""
        return all(figure.within for figure in self.figures)

    def __str__(self) -> str:
        lines = [str(figure) for figure in self.figures]
        if self.slowest:
            lines += ["", f"the slowest {len(self.slowest)} tests, in one process:"]
            lines += [f"{seconds:7.2f} s  {test}" for test, seconds in self.slowest]
        return "\n".join(lines)


def tree_pss(root: int) -> float:
    """Sum of the proportional set sizes of a process and of all its descendants, in MiB; Linux alone."""
    parents: dict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(fields[1])].append(int(entry.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += parents[process]
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _environment() -> dict[str, str]:
    """Bytecode is kept, as by default; where CI is set, torch's runner writes JUnit XML as well."""
    return {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONDONTWRITEBYTECODE")}


def run(command: list[str], folder: Path, cores: int | None = None, look: bool = False) -> Run:
    """Run a command in ``folder``; AuditError where it fails.

    cores: on so many of the cores (None: all); Linux alone.
    look: look at the memory of its process tree, which slows it a little.
    """
    chosen = sorted(os.sched_getaffinity(0))[:cores] if cores else None
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=(lambda: os.sched_setaffinity(0, chosen)) if chosen else None,
        )
        pss, done = 0.0, 0
        try:
            while look and not done:
                pss = max(pss, tree_pss(process.pid))
                time.sleep(LOOK_EVERY)
                done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not look:
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise AuditError(f"{' '.join(command)} ended with status {process.returncode}:\n{errors.read()[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, pss)


def _median(runs: list[Run], field: str) -> float:
    return statistics.median(getattr(one, field) for one in runs)


def _beside(runs: list[Run], bare: list[Run], field: str) -> float:
    """The median over the rounds of what a run takes in times of its own round's BARE_RUNS bare imports, as hours differ."""
    near = [_median(bare[start : start + BARE_RUNS], field) for start in range(0, len(bare), BARE_RUNS)]
    return statistics.median(getattr(one, field) / beside for one, beside in zip(runs, near))


def measure(project: Project, python: str, rounds: int) -> Cost:
    """Run the commands in turn, ``rounds`` times, after one round that only warms the file caches."""
    importing, running = [python, "-c", BARE], [python, project.runner]
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
    wanted: list[int | None] = [count for count in (2, 1) if available >= count] or [None]
    samples: dict[str, list[Run]] = defaultdict(list)
    tests: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for cores in wanted:
            samples[f"bare {cores}"] += [run(importing, project.root, cores) for _ in range(BARE_RUNS)]
            samples[f"suite {cores}"].append(run(running, project.root, cores))
        samples["filtered"].append(run([*running, "-k", FILTER], project.root, min(available, 2) or None))
        if available and number:
            samples["memory"].append(run(running, project.root, min(available, 2), look=True))
            samples["memory of bare"].append(run(importing, project.root, min(available, 2), look=True))
        if number == 0:
            samples.clear()
        else:
            for test, seconds in _seconds(project, python).items():
                tests[test].append(seconds)

    def median(name: str, field: str) -> float:
        return _median(samples[name], field)

    def beside(name: str, bare: str, field: str = "seconds") -> float:
        return _beside(samples[name], samples[bare], field)

    first = f"{min(available, 2) or None}"
    wide = " with all extras" if _has_extras(python) else ""
    on_two, on_one = (4.5, None) if wide else (3.5, 4.5)
    places = {"2": ("two cores", on_two), "1": ("one core", on_one), "None": ("this machine", on_two)}
    figures = [Figure(f"bare import on {places[first][0]} (python -c '{BARE}')", median(f"bare {first}", "seconds"), "s")]
    for key, (place, goal) in places.items():
        if f"suite {key}" in samples:
            suite, bare, times = f"suite {key}", f"bare {key}", "times the bare import"
            figures.append(Figure(f"whole suite{wide} on {place}", beside(suite, bare), times, goal))
            figures.append(Figure(f"whole suite{wide} on {place}, processor time", median(suite, "cpu"), "s"))
            figures.append(Figure(f"whole suite{wide} on {place}, processor time", beside(suite, bare, "cpu"), f"{times}'s"))
    figures.append(Figure(f"-k {FILTER}", beside("filtered", f"bare {first}"), "times the bare import", 1.15))
    if available:
        peak = median("memory", "pss")
        figures.append(Figure("peak of the sum of PSS over all processes of the suite", peak, "MiB"))
        ratio = peak / median("memory of bare", "pss")
        figures.append(Figure("the same beside the bare import's", ratio, "times the bare import", MEMORY))
    slowest = sorted(((test, statistics.median(seconds)) for test, seconds in tests.items()), key=lambda pair: -pair[1])[:SLOWEST]
    return Cost(figures, slowest)


def measure_project(project: Project, python: str, rounds: int) -> Cost:
    """Run the bare import and the project's own tests in turn, ``rounds`` times, all on two cores where there are more."""
    cores = min(len(os.sched_getaffinity(0)), 2) if sys.platform == "linux" else None
    run([python, "-c", BARE], project.root, cores)  # warms the file caches
    bare: dict[str, list[Run]] = defaultdict(list)
    samples: dict[str, list[Run]] = defaultdict(list)
    for _ in range(rounds):
        for name, arguments, _ in PROJECT:
            bare[name] += [run([python, "-c", BARE], project.root, cores) for _ in range(BARE_RUNS)]
            samples[name].append(run([python, "-m", "pytest", "-q", *arguments], project.root, cores))

    every = [one for runs in bare.values() for one in runs]
    figures = [Figure(f"bare import (python -c '{BARE}')", _median(every, "seconds"), "s")]
    for name, arguments, goal in PROJECT:
        for field, what, at_most in (("seconds", "", goal), ("cpu", ", processor time", None)):
            ratio = _beside(samples[name], bare[name], field)
            figures.append(Figure(f"{name} (pytest {shlex.join(arguments)}){what}", ratio, "times the bare import", at_most))
    return Cost(figures)


def _seconds(project: Project, python: str) -> dict[str, float]:
    """Seconds of every test, all in one process."""
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        out = Path(folder, "seconds.json")
        env = {**_environment(), "AO_SPARSITY_ONE_PROCESS": "1"}
        command = [python, str(AUDIT / "suite.py"), str(project.root), project.runner, str(out)]
        process = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True)
        if process.returncode:
            raise AuditError(f"{' '.join(command)} ended with status {process.returncode}:\n{process.stderr[-2000:]}")
        return json.loads(out.read_text())["seconds"]


def _has_extras(python: str) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pytorch_lightning') is None)"
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0

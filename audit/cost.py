"""What the suite costs, as ratios to importing what every suite on torch's test tools must import."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from audit.project import AuditError, Project

BARE = "import torch.testing._internal.common_utils"
FILTER = "TestFPGMPruner"

#: Goals: times of the bare import, and MiB of the whole suite's process.
SUITE_AT_MOST = 5.0
FILTERED_AT_MOST = 1.35
MEMORY_AT_MOST = 400


@dataclass
class Sample:
    """Wall-clock seconds and peak resident MiB of one command, one value per round."""

    seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)

    def add(self, seconds: float, mebibytes: float) -> None:
        self.seconds.append(seconds)
        self.mebibytes.append(mebibytes)


@dataclass(frozen=True)
class Cost:
    """Medians over the rounds. ``bare`` in seconds; ``suite`` and ``filtered`` as ratios to it; ``memory`` in MiB."""

    bare: float
    suite: float
    filtered: float
    memory: float

    @property
    def within(self) -> bool:
        """Whether every goal is met."""
        return self.suite <= SUITE_AT_MOST and self.filtered <= FILTERED_AT_MOST and self.memory <= MEMORY_AT_MOST

    def __str__(self) -> str:
        return "\n".join(
            (
                f"bare import: {self.bare:.2f} s (python -c '{BARE}')",
                f"whole suite: {self.suite:.2f} times the bare import (at most {SUITE_AT_MOST:.2f})",
                f"-k {FILTER}: {self.filtered:.2f} times the bare import (at most {FILTERED_AT_MOST:.2f})",
                f"peak memory of the whole suite: {self.memory:.0f} MiB (at most {MEMORY_AT_MOST})",
            )
        )


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and peak resident MiB of a command run in ``folder``; AuditError where it fails."""
    start = time.perf_counter()
    env = {**os.environ, "CI": ""}  # where it is set, torch's runner writes JUnit XML as well
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise AuditError(f"{' '.join(command)} ended with status {process.returncode}:\n{errors[-2000:]}")
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss / unit


def measure(project: Project, python: str, rounds: int) -> Cost:
    """Run the three commands in turn, ``rounds`` times, after one round that only warms the file caches."""
    commands = {
        "bare": [python, "-c", BARE],
        "suite": [python, project.runner],
        "filtered": [python, project.runner, "-k", FILTER],
    }
    samples = {name: Sample() for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            figures = run(command, project.root)
            if number:
                samples[name].add(*figures)
    medians = {name: statistics.median(sample.seconds) for name, sample in samples.items()}
    return Cost(
        medians["bare"],
        medians["suite"] / medians["bare"],
        medians["filtered"] / medians["bare"],
        statistics.median(samples["suite"].mebibytes),
    )

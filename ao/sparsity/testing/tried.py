"""The builds on which the suite was run: recorded, and shown as the table in BUILDS.md.

python -m ao.sparsity.testing.tried                          the table; a run that is older than the tests says so
python -m ao.sparsity.testing.tried --record                 run the suite on this interpreter's torch and record the outcome
python -m ao.sparsity.testing.tried --record --note emulated the same, with a word on the machine
python -m ao.sparsity.testing.tried --take RUN.json          enter runs that were recorded elsewhere with --record --to RUN.json
python -m ao.sparsity.testing.tried --write                  renew the table in BUILDS.md from the recorded runs

ao.sparsity.testing.roots records runs on Debian's builds for other processors.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import typing

from ao.sparsity.testing import preflight
from ao.sparsity.testing.child import TO_BE_READ

ROOT = pathlib.Path(__file__).resolve().parents[3]
RECORDS = pathlib.Path(__file__).with_name("tried_builds.json")
PAGE = pathlib.Path(__file__).with_name("BUILDS.md")
SHAPES = ((1, 4), (8, 1))  # block shapes of the sparse quantized linear

# In git's words: all but what a record writes, and what decides the outcome of a run.
BUT_RECORDS = (":(exclude)ao/sparsity/testing/tried_builds.json", ":(exclude)ao/sparsity/testing/BUILDS.md")
TESTS = ("test_ao_sparsity.py", "ao/sparsity", ":(exclude)ao/sparsity/testing/test_*.py", *BUT_RECORDS)
COLUMNS = (
    "torch",
    "Python",
    "NumPy",
    "platform",
    "processor",
    "engines",
    "sparse blocks",
    "tests",
    "known defects",
    "skipped",
    "wrong",
    "run",
    "suite",
    "on",
)
BEGIN, END = "<!-- tried builds: begin -->", "<!-- tried builds: end -->"


@dataclasses.dataclass
class Run:
    """One run of the whole suite.

    Args:
        torch, commit, python, platform, capability, numpy, engines: the build and its processor; ``engines`` joined by spaces.
        shapes: block shapes that the sparse quantized linear ran on, ``"1 x 4, 8 x 1"``; empty where there were none.
        strict: whether an absent known defect was a failure.
        suite: commit of this project.
        note: what is special about the machine, ``emulated`` for one.
        day: ISO date of the run.
        ran, skipped, known, wrong: numbers of tests: all; skipped; failed as a known defect; failed, or passed against the register.
    """

    torch: str
    commit: str
    python: str
    platform: str
    capability: str
    numpy: str
    engines: str
    shapes: str
    strict: bool
    suite: str
    note: str
    day: str
    ran: int
    skipped: int
    known: int
    wrong: int

    @property
    def build(self) -> tuple:
        """What a later run of the same build replaces."""
        return self.torch, self.python, self.platform, self.note

    @property
    def order(self) -> tuple:
        """Newest torch first."""
        newest_first = [-number for number in preflight.version_tuple(self.torch)]
        return newest_first, preflight.version_tuple(self.python), self.platform, self.note


def load(path: pathlib.Path | None = None) -> list:
    """All recorded runs, newest torch first; none where the file is missing.

    Args:
        path: the file, RECORDS unless it is given.

    Returns:
        list[Run]
    """
    path = path or RECORDS
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return sorted((Run(**entry) for entry in entries), key=lambda run: run.order)


def save(runs: list, path: pathlib.Path | None = None) -> None:
    """Write the runs to RECORDS or ``path``, one for each build: a later one replaces an earlier one."""
    path = path or RECORDS
    latest = {run.build: run for run in runs}
    entries = [dataclasses.asdict(run) for run in sorted(latest.values(), key=lambda run: run.order)]
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def parse(output: str) -> dict:
    """Numbers of a finished run, from unittest's last lines.

    Args:
        output: what the runner wrote to standard error.

    Returns:
        dict[str, int]: ``ran``, ``skipped``, ``known``, ``wrong``.

    Raises:
        ValueError: if the run has no summary.
    """
    ran = re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE)
    summary = re.search(r"^(?:OK|FAILED)(?: \((.*)\))?$", output, re.MULTILINE)
    if ran is None or summary is None:
        raise ValueError(f"the run has no summary; its last lines:\n{output[-2000:]}")
    numbers = {name: int(number) for name, number in re.findall(r"([a-z ]+)=(\d+)", summary.group(1) or "")}
    numbers = {name.strip(): number for name, number in numbers.items()}
    return {
        "ran": int(ran.group(1)),
        "skipped": numbers.get("skipped", 0),
        "known": numbers.get("expected failures", 0),
        "wrong": sum(numbers.get(name, 0) for name in ("failures", "errors", "unexpected successes")),
    }


def record(note: str = "", suite: str = "", device: str | None = None) -> Run:
    """Run the suite strictly in a process of this interpreter; what it said goes to standard error where it was wrong.

    Args:
        note: what is special about the machine.
        suite: commit of this project, asked of git where it is empty.
        device: ``"stand-in"`` to run with that accelerator.

    Raises:
        ValueError: if the process ended without a summary.
    """
    import numpy
    import torch

    from ao.sparsity.testing import build, session

    runner = ["test_ao_sparsity.py"] if device is None else ["-m", "ao.sparsity.testing.play", "--device", device, "--"]
    environment = {**os.environ, **TO_BE_READ, session.STRICT: "1"}
    process = subprocess.run([sys.executable, *runner], cwd=ROOT, env=environment, capture_output=True, text=True)
    run = Run(
        torch=torch.__version__,
        commit=(torch.version.git_version or "")[:12],
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        capability=build.cpu_capability(),
        numpy=numpy.__version__,
        engines=" ".join(build.engines()),
        shapes=", ".join(f"{rows} x {columns}" for rows, columns in SHAPES if build.engines_with("dynamic", (rows, columns))),
        strict=True,
        suite=suite or commit(),
        note=", ".join(word for word in (note, device and f"{device} accelerator") if word),
        day=datetime.date.today().isoformat(),
        **parse(process.stderr),
    )
    if run.wrong:
        print(process.stderr, file=sys.stderr)
    return run


def commit() -> str:
    """The commit of this project, with a plus where something but the record is not committed; empty where git does not know it."""
    found = _git("rev-parse", "--short=10", "HEAD")
    return "" if found is None else found + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", *BUT_RECORDS) else "")


def commits_since(suite: str) -> int | None:
    """How many commits changed the tests, or what they stand on, after the commit ``suite``; None where git does not know it."""
    found = _git("rev-list", "--count", f"{suite.rstrip('+')}..HEAD", "--", *TESTS) if suite else None
    return None if found is None else int(found)


def _git(*arguments: str) -> str | None:
    try:
        process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:  # no git
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def age(run: Run) -> str:
    """A word on a run that does not speak for the tests of today, or nothing."""
    commits = commits_since(run.suite)
    if commits is None:
        return ", of unknown age"
    return f", older than the tests by {commits} commit{'s' if commits > 1 else ''}" if commits else ""


def as_markdown(runs: list, aged: typing.Callable[[Run], str] = age) -> str:
    """The table of BUILDS.md."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for run in runs:
        cells = (
            run.torch,
            run.python,
            run.numpy or "?",
            run.platform + (f" ({run.note})" if run.note else ""),
            run.capability or "?",
            run.engines or "none",
            run.shapes or "none",
            run.ran,
            run.known,
            run.skipped,
            run.wrong,
            "strict" if run.strict else "not strict",
            (run.suite or "?") + aged(run),
            run.day,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def renewed(text: str, runs: list, aged: typing.Callable[[Run], str] = age) -> str:
    """``text`` with the table between its two marks replaced.

    Raises:
        ValueError: if the marks are missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} ... {END} to put the table between")
    return f"{head}{begin}\n{as_markdown(runs, aged)}\n{end}{tail}"


def main(argv: list | None = None) -> int:
    """Command line; returns the exit status: 0, or 1 where a recorded run was wrong."""
    parser = argparse.ArgumentParser(prog="python -m ao.sparsity.testing.tried", description="The builds on which the suite was run")
    parser.add_argument("--record", action="store_true", help="run the suite on this interpreter's torch and record the outcome")
    parser.add_argument("--note", default="", help="with --record: what is special about the machine")
    parser.add_argument("--device", choices=["stand-in"], help="with --record: an accelerator that the machine is to have")
    parser.add_argument("--suite", default="", help="with --record: commit of this project where git does not know it")
    parser.add_argument("--to", type=pathlib.Path, help="with --record: file that the run is entered in")
    parser.add_argument("--take", type=pathlib.Path, action="append", default=[], help="enter the runs of this file, may be repeated")
    parser.add_argument("--write", action="store_true", help="renew the table in BUILDS.md")
    options = parser.parse_args(argv)
    status = 0
    for path in options.take:
        save([*load(), *load(path)])
    if options.record:
        preflight.require()
        run = record(options.note, options.suite, options.device)
        save([*load(options.to), run], options.to)
        status = 1 if run.wrong else 0
    if options.write:
        PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")
    print(as_markdown(load(options.to)))
    return status


if __name__ == "__main__":
    sys.exit(main())

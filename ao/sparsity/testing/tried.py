"""The builds on which the suite was run: recorded, and shown as the table in README.md.

python -m ao.sparsity.testing.tried                          the table
python -m ao.sparsity.testing.tried --record                 run the suite on this interpreter's torch and record the outcome
python -m ao.sparsity.testing.tried --record --note emulated the same, with a word on the machine
python -m ao.sparsity.testing.tried --write                  renew the table in README.md
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

from ao.sparsity.testing import preflight

ROOT = pathlib.Path(__file__).resolve().parents[3]
RECORDS = pathlib.Path(__file__).with_name("tried_builds.json")
BEGIN, END = "<!-- tried builds: begin -->", "<!-- tried builds: end -->"


@dataclasses.dataclass
class Run:
    """One run of the whole suite.

    Args:
        torch, commit, python, platform, engines: the build, as the run's first line names it; ``engines`` joined by spaces.
        note: what is special about the machine, ``emulated`` for one.
        day: ISO date of the run.
        ran, skipped, known, wrong: numbers of tests: all; skipped; failed as a known defect; failed, or passed against the register.
    """

    torch: str
    commit: str
    python: str
    platform: str
    engines: str
    note: str
    day: str
    ran: int
    skipped: int
    known: int
    wrong: int

    @property
    def build(self):
        """What a later run of the same build replaces."""
        return self.torch, self.python, self.platform, self.note

    @property
    def order(self):
        """Newest torch first."""
        newest_first = [-number for number in preflight.version_tuple(self.torch)]
        return newest_first, preflight.version_tuple(self.python), self.platform, self.note


def load(path=RECORDS):
    """All recorded runs, newest torch first; none where the file is missing.

    Returns:
        list[Run]
    """
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return sorted((Run(**entry) for entry in entries), key=lambda run: run.order)


def save(runs, path=RECORDS):
    """Write the runs, one for each build: a later one replaces an earlier one."""
    latest = {run.build: run for run in runs}
    entries = [dataclasses.asdict(run) for run in sorted(latest.values(), key=lambda run: run.order)]
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def parse(output):
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


def record(note=""):
    """Run the suite in a process of this interpreter.

    Returns:
        Run

    Raises:
        ValueError: if the process ended without a summary.
    """
    import torch

    from ao.sparsity.testing import build

    environment = {**os.environ, "CI": ""}  # where CI is set torch's runner writes XML as well
    process = subprocess.run([sys.executable, "test_ao_sparsity.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    return Run(
        torch=torch.__version__,
        commit=(torch.version.git_version or "")[:12],
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        engines=" ".join(build.engines()),
        note=note,
        day=datetime.date.today().isoformat(),
        **parse(process.stderr),
    )


def as_markdown(runs):
    """The table of README.md."""
    lines = ["| torch | Python | platform | engines | tests | known defects | skipped | wrong | run on |", "|" + " --- |" * 9]
    for run in runs:
        where = run.platform + (f" ({run.note})" if run.note else "")
        lines.append(
            f"| {run.torch} | {run.python} | {where} | {run.engines or 'none'} "
            f"| {run.ran} | {run.known} | {run.skipped} | {run.wrong} | {run.day} |"
        )
    return "\n".join(lines)


def renewed(text, runs):
    """``text`` with the table between its two marks replaced.

    Raises:
        ValueError: if the marks are missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} ... {END} to put the table between")
    return f"{head}{begin}\n{as_markdown(runs)}\n{end}{tail}"


def main(argv=None):
    """Command line; returns the exit status: 0, or 1 where a recorded run was wrong."""
    parser = argparse.ArgumentParser(prog="python -m ao.sparsity.testing.tried", description="The builds on which the suite was run")
    parser.add_argument("--record", action="store_true", help="run the suite on this interpreter's torch and record the outcome")
    parser.add_argument("--note", default="", help="with --record: what is special about the machine")
    parser.add_argument("--write", action="store_true", help="renew the table in README.md")
    options = parser.parse_args(argv)
    status = 0
    if options.record:
        preflight.require()
        run = record(options.note)
        save([*load(), run])
        status = 1 if run.wrong else 0
    if options.write:
        readme = ROOT / "README.md"
        readme.write_text(renewed(readme.read_text(encoding="utf-8"), load()), encoding="utf-8")
    print(as_markdown(load()))
    return status


if __name__ == "__main__":
    sys.exit(main())

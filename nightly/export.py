"""The history as CSV or JSON, row by row, for other programs."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from nightly.history import History, Row, RunRow
from nightly.lookup import runs_of
from nightly.outcomes import ALL_WELL, NightlyError

RUN_KEYS = (
    "target",
    "machine",
    "uid",
    "started",
    "finished",
    "state",
    "reason",
    "torch",
    "torch_commit",
    "python",
    "suite_version",
    "suite_commit",
    "selection",
)
ROW_KEYS = ("name", "area", "outcome", "seconds", "message")
#: What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def wanted_runs(history: History, targets: list[str], since: str, nights: int) -> Iterator[RunRow]:
    """The runs of the targets (all, if none is named) that began on or after a day, at most so many of each (0: all)."""
    counts: dict[int | None, int] = {}
    for run in runs_of(history):
        if (targets and run.target not in targets) or run.started < since:
            continue
        counts[run.target_id] = counts.get(run.target_id, 0) + 1
        if not nights or counts[run.target_id] <= nights:
            yield run


def parse_day(text: str) -> str:
    """``2026-03-01`` as it is recorded.

    Raises:
        ValueError: it is no day.
    """
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is no day: write it as 2026-03-01") from None


def write_csv(history: History, runs: Iterator[RunRow], file: TextIO) -> None:
    """One line for each test of each run, under a line of names. A run without results is one line with its reason.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    writer = csv.writer(file)
    writer.writerow([*RUN_KEYS, *("test" if key == "name" else key for key in ROW_KEYS)])
    for run in runs:
        about = [plain(getattr(run, key)) for key in RUN_KEYS]
        for row in history.results(run).values() or [Row("", "", "", 0.0, "")]:
            writer.writerow([*about, *(plain(getattr(row, key)) for key in ROW_KEYS)])


def plain(value: Any) -> Any:
    """A value for a cell."""
    text = "" if value is None else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA) else text


def write_json(history: History, runs: Iterator[RunRow], file: TextIO) -> None:
    """One object: ``runs``, each with what it says of itself, its environment, its notes and its ``results``."""
    file.write('{"form": 1, "runs": [')
    for number, run in enumerate(runs):
        about = {key: getattr(run, key) for key in (*RUN_KEYS, "environment", "notes")}
        rows = [row._asdict() for row in history.results(run).values()]
        file.write(("," if number else "") + "\n" + json.dumps({**about, "results": rows}))
    file.write("\n]}\n")


def add_command(command: Any) -> None:
    """Add ``export`` to the command line."""
    from nightly.cli import checked, count

    parser = command("export", run_command, "write the results of the recorded runs as CSV or JSON")
    parser.add_argument("--format", choices=("csv", "json"), default="csv", help="(default: csv)")
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="only this target (may be repeated)")
    parser.add_argument("--since", type=checked(parse_day), metavar="DATE", help="only runs from this day on, such as 2026-03-01")
    parser.add_argument("--nights", type=count, default=0, metavar="N", help="only the last N runs of each target (default: all)")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="(default: standard output)")


def run_command(arguments: argparse.Namespace) -> int:
    """``python -m nightly export``."""
    from nightly.cli import history_path

    write = write_csv if arguments.format == "csv" else write_json
    with History(history_path(arguments)) as history:
        unknown = set(arguments.target) - {target.name for target in history.targets()}
        if unknown:
            raise NightlyError(f"{sorted(unknown)[0]}: no such target in {history.path}")
        runs = wanted_runs(history, arguments.target, arguments.since or "", arguments.nights)
        if arguments.output is None:
            write(history, runs, sys.stdout)
            return ALL_WELL
        try:
            with open(arguments.output, "w", encoding="utf-8", newline="") as file:
                write(history, runs, file)
        except OSError as error:
            raise NightlyError(f"{arguments.output}: {error.strerror}") from None
    return ALL_WELL

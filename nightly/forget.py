"""Takes runs out of the history: one that was poisoned, those of a target, those that claim to be of the future."""

import argparse
import sys
from typing import Any

from nightly import lookup, night
from nightly.history import History, RunRow
from nightly.outcomes import ALL_WELL, CommandLineError, NightlyError
from nightly.texts import one_line


def chosen(history: History, runs: list[str], targets: list[str], machine: str, misdated: bool) -> list[RunRow]:
    """The runs that are named one by one, all runs of the named targets (of one machine, if that is named), and those whose start
    cannot be.

    Raises:
        NightlyError: something that is named is not there.
    """
    found = [lookup.find_run(history, name) for name in runs]
    for name in targets:
        rows = [row for row in history.targets() if row.name == name and machine in ("", row.machine)]
        if not rows:
            raise NightlyError(f"{one_line(name)}{f' on {one_line(machine)}' if machine else ''}: no such target in {history.path}")
        found += [run for row in rows for run in history.runs(row.id)]
        found += [run for run in history.misdated_runs() if run.target_id in {row.id for row in rows}]
    if misdated:
        found += history.misdated_runs()
    return list({run.id: run for run in found}.values())


def add_command(command: Any) -> None:
    """Add ``forget`` to the command line."""
    parser = command(
        "forget",
        run_command,
        "take runs out of the history for good; without --yes it only lists them",
        locked=True,
        epilog=lookup.HOW,
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="a run, as named below")
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help="all runs of this target (may be repeated)")
    parser.add_argument("--machine", default="", metavar="NAME", help="with --target: only those of this machine")
    parser.add_argument("--misdated", action="store_true", help="the runs whose start lies in the future: a clock was wrong")
    parser.add_argument("--yes", action="store_true", help="forget them")


def run_command(arguments: argparse.Namespace) -> int:
    """``python -m nightly forget``."""
    from nightly.cli import history_path

    path = history_path(arguments)
    if not (arguments.run or arguments.target or arguments.misdated):
        raise CommandLineError("forget what? Name a RUN, a --target, or --misdated")
    if arguments.machine and not arguments.target:
        raise CommandLineError("--machine goes with --target NAME")
    with night.only_one(path, arguments.wait), History(path) as history:
        runs = chosen(history, arguments.run, arguments.target, arguments.machine, arguments.misdated)
        for run in runs:
            build = f"torch {one_line(run.torch_label)}, {one_line(run.state)}, {one_line(run.uid)}"
            print(f"{one_line(run.target)} on {one_line(run.machine)}, {one_line(run.started)}, {build}")
        if arguments.yes:
            history.forget([run.id for run in runs if run.id is not None])
            history.shrink()
    if runs and not arguments.yes:
        print(f"{len(runs)} run{'s' * (len(runs) != 1)}: repeat it with --yes to forget", file=sys.stderr)
    return ALL_WELL

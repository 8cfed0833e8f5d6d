"""The commands that have a module of their own, in the order in which the help lists them, and what is done with a night's news."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nightly import acknowledge, bisection, check, diff, digest, export, forget, notify, prometheus, speed, summary
from nightly.compare import Judgement


def register(command: Callable[..., Any]) -> None:
    """Add every such command; ``command`` makes a parser with what all commands have."""
    for module in (diff, bisection, speed, acknowledge, export, forget, check):
        module.add_command(command)


def add_telling(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what becomes of a judged night."""
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="what is printed: the news as text, or always all as JSON (default: text)",
    )
    parser.add_argument(
        "--notify", metavar="COMMAND", help="a shell command that gets the night as JSON on standard input, if there is news"
    )
    parser.add_argument(
        "--prometheus", type=Path, metavar="FILE", help="also write figures for Prometheus' text-file collector (FILE.prom)"
    )


def hand_on(judgements: Sequence[Judgement], problems: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """Do what `add_telling`'s options ask for besides printing. Returns a line for each thing that failed."""
    failed = []
    if arguments.notify and (line := notify.notify(arguments.notify, digest.digest(judgements, problems))):
        failed.append(line)
    status = summary.night_status(judgements, [*problems, *failed])
    if arguments.prometheus and (line := prometheus.write(arguments.prometheus, judgements, status)):
        failed.append(line)
    return failed

"""Failures that somebody knows of: they are shown as such, and do not alarm until a date."""

import argparse
import fnmatch
import re
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from nightly.history import History, RunRow, now
from nightly.outcomes import ALL_WELL, CommandLineError, NightlyError
from nightly.texts import clean, clean_name, one_line

if TYPE_CHECKING:
    from nightly.compare import Change

#: The kind that a change becomes, and the kinds that may become it.
ACKNOWLEDGED = "acknowledged"
KINDS = frozenset({"new failure", "still failing", "flaky", "still flaky", "new skip", "vanished test"})
LONGEST_DAYS = 366
TABLE = """CREATE TABLE IF NOT EXISTS acknowledged (
    test TEXT NOT NULL, target TEXT NOT NULL, reason TEXT NOT NULL, until TEXT NOT NULL, made TEXT NOT NULL, PRIMARY KEY (test, target))"""


@dataclass(frozen=True)
class Acknowledgement:
    """That failures of a test (or of tests, by a pattern with ``*``) are known, up to and including a day; on one target, or all."""

    test: str
    target: str
    reason: str
    until: str
    made: str

    def covers(self, test: str, target: str) -> bool:
        return self.target in ("", target) and fits(test, self.test)


def fits(test: str, pattern: str) -> bool:
    """Whether a test is meant by a pattern, in which ``*`` and ``?`` have a meaning; ``[cpu]`` is part of many names."""
    return fnmatch.fnmatchcase(test, pattern.replace("[", "[[]"))


def all_of(history: History) -> list[Acknowledgement]:
    """Every acknowledgement of a history, also those that have run out."""
    if not history.query("SELECT 1 FROM sqlite_master WHERE name = 'acknowledged'"):
        return []
    return [
        Acknowledgement(*row) for row in history.query("SELECT test, target, reason, until, made FROM acknowledged ORDER BY test, target")
    ]


def add(history: History, test: str, target: str, reason: str, until: str) -> Acknowledgement:
    """Record one, in place of an earlier one of the same test and target."""
    made = Acknowledgement(clean_name(test), clean_name(target), clean(reason), until, now())
    with history.writing() as db:
        db.execute(TABLE)
        db.execute(
            "INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?, ?)", (made.test, made.target, made.reason, made.until, made.made)
        )
    return made


def remove(history: History, test: str, target: str) -> bool:
    """Take one back. Returns whether it was there."""
    with history.writing() as db:
        db.execute(TABLE)
        return bool(db.execute("DELETE FROM acknowledged WHERE test = ? AND target = ?", (clean_name(test), clean_name(target))).rowcount)


def applied(known: list[Acknowledgement], changes: "list[Change]", run: RunRow, baseline: RunRow | None) -> "list[Change]":
    """The changes of a run, those that are acknowledged as such.

    A failure whose acknowledgement has run out since the night that the run is held against is a new one again.
    """
    return [acknowledged(known, change, run, baseline) for change in changes] if known else changes


def acknowledged(known: list[Acknowledgement], change: "Change", run: RunRow, baseline: RunRow | None) -> "Change":
    """One change as it is told."""
    covering = [item for item in known if change.test and change.kind in KINDS and item.covers(change.test, run.target)]
    if not covering:
        return change
    longest = max(covering, key=lambda item: item.until)
    if longest.until >= run.day:
        return replace(change, kind=ACKNOWLEDGED, text=f"known until {longest.until}: {longest.reason}\n{change.text}")
    if change.kind == "still failing" and baseline is not None and baseline.day <= longest.until:
        return replace(change, kind="new failure")
    return change


def parse_day(text: str) -> str:
    """A day from today on, at most a year ahead: ``2026-12-24``, or ``14d`` for so many days.

    Raises:
        ValueError: it is none.
    """
    today = date.today()
    if found := re.fullmatch(r"(\d{1,3})d", text):
        day = today + timedelta(days=int(found[1]))
    else:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no day: write it as 2026-12-24, or as 14d for so many days") from None
    if not today <= day <= today + timedelta(days=LONGEST_DAYS):
        raise ValueError(f"{text!r} is not within the next year: what is known has to be looked at again some day")
    return day.isoformat()


def add_command(command: Any) -> None:
    """Add ``ack`` to the command line."""
    from nightly.cli import checked

    parser = command(
        "ack", run_command, "acknowledge a failure: it is shown as known, and does not alarm until a day; without TEST list them"
    )
    parser.add_argument("test", nargs="?", metavar="TEST", help="the test's name, or a pattern such as 'TestX.*'")
    parser.add_argument("--reason", metavar="TEXT", help="why, such as an issue's address")
    parser.add_argument("--until", type=checked(parse_day), metavar="DATE", help="the last day, such as 2026-12-24, or 14d")
    parser.add_argument("--target", default="", metavar="NAME", help="on this target alone (default: on all)")
    parser.add_argument("--remove", action="store_true", help="take it back")


def run_command(arguments: argparse.Namespace) -> int:
    """``python -m nightly ack``."""
    from nightly.cli import history_path

    if arguments.test is None and (arguments.reason or arguments.until or arguments.remove):
        raise CommandLineError("ack what? Name a TEST")
    if arguments.test is not None and not arguments.remove and not (arguments.reason and arguments.until):
        raise CommandLineError("ack TEST needs --reason TEXT and --until DATE")
    with History(history_path(arguments)) as history:
        if arguments.test is None:
            for item in all_of(history):
                over = ", run out" if item.until < now()[:10] else ""
                where = f" on {one_line(item.target)}" if item.target else ""
                print(f"{one_line(item.test)}{where} until {item.until}{over}: {one_line(item.reason)}")
        elif arguments.remove:
            if not remove(history, arguments.test, arguments.target):
                raise NightlyError(f"{one_line(arguments.test)}: not acknowledged{' on ' + arguments.target if arguments.target else ''}")
        else:
            tests = {name for (name,) in history.query("SELECT name FROM test")}
            if not any(fits(name, clean_name(arguments.test)) for name in tests):
                raise NightlyError(f"{one_line(arguments.test)}: no test of that name in {history.path}")
            add(history, arguments.test, arguments.target, arguments.reason, arguments.until)
    return ALL_WELL

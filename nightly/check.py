"""Whether a history is sound: the file, how its parts refer to each other, and what can be read from it."""

import argparse
import json
import sqlite3
import zlib
from collections.abc import Iterator
from typing import Any

from nightly.history import COMPLETE, OPEN, History, text_of, unpack_seconds
from nightly.outcomes import ALL_WELL, COULD_NOT_RUN, OUTCOMES, NightlyError
from nightly.texts import one_line

#: Lines that one kind of fault is told with.
MOST_LINES = 20


def faults(history: History) -> list[str]:
    """What is wrong with a history, one line each; empty if it is sound."""
    found = []
    for look in (look_at_file, look_at_spans, look_at_runs, look_at_texts):
        try:
            lines = list(look(history))
        except (NightlyError, sqlite3.Error, ValueError, TypeError, zlib.error) as error:
            lines = [f"{(look.__doc__ or '').split(':')[0]}: {one_line(error)}"]
        found += lines[:MOST_LINES] + ([f"and {len(lines) - MOST_LINES} more of this kind"] if len(lines) > MOST_LINES else [])
    return found


def look_at_file(history: History) -> Iterator[str]:
    """The file: what SQLite itself finds."""
    yield from (f"the file: {one_line(line)}" for (line,) in history.query("PRAGMA integrity_check") if line != "ok")
    for table, row, parent, _ in history.query("PRAGMA foreign_key_check"):
        yield f"the file: row {row} of {table} refers to what is not in {parent}"


def look_at_spans(history: History) -> Iterator[str]:
    """The spans: a test has one outcome at each place of its series."""
    spans = history.query(
        "SELECT x.series, t.name, x.first, x.last, s.places FROM span x JOIN test t ON t.id = x.test JOIN series s ON s.id = x.series "
        "ORDER BY x.series, x.test, x.first"
    )
    before: tuple[Any, ...] = (None, None, 0, 0, 0)
    for span in spans:
        series, name, first, last, places = span
        if not 1 <= first <= last or (last != OPEN and last > places):
            yield f"a span of {one_line(name)} goes from {first} to {last} in a series with {places} places"
        if before[:2] == (series, name) and first <= before[3]:
            yield f"two spans of {one_line(name)} overlap from {first} on"
        before = span


def look_at_runs(history: History) -> Iterator[str]:
    """The runs: each can be read, and has as many results as it says."""
    placed = history.query("SELECT series, place, count(*) FROM run WHERE place IS NOT NULL GROUP BY series, place HAVING count(*) > 1")
    yield from (f"{count} runs have the place {place} of series {series}" for series, place, count in placed)
    for uid, started, state, place, tests, seconds in history.query("SELECT uid, started, state, place, tests, seconds FROM run"):
        if state == COMPLETE and place is None:
            yield f"the run {one_line(uid)} of {one_line(started)} is complete, but was not packed"
        if place is not None and len(unpack_seconds(seconds)) != tests:
            yield f"the run {one_line(uid)} of {one_line(started)} says that it has {tests} results, but has seconds of another number"
    for run in history.misdated_runs():
        yield f"the run {one_line(run.uid)} of {one_line(run.target)} claims to have started at {one_line(run.started)}: forget it"
    outcomes = {outcome for (outcome,) in history.query("SELECT DISTINCT outcome FROM verdict")}
    yield from (f"the outcome {one_line(outcome)!r} is none that is known here" for outcome in sorted(outcomes - set(OUTCOMES)))


def look_at_texts(history: History) -> Iterator[str]:
    """The texts: each can be unpacked, and each environment is JSON."""
    for (number,) in history.query("SELECT id FROM text"):
        ((content,),) = history.query("SELECT content FROM text WHERE id = ?", (number,))
        try:
            text_of(content)
        except (zlib.error, ValueError, TypeError):
            yield f"text {number} cannot be read"
    for uid, environment, notes in history.query("SELECT uid, environment, notes FROM run"):
        try:
            told = history.environment(environment), json.loads(notes)
        except (ValueError, TypeError, zlib.error):
            yield f"the run {one_line(uid)}: what it says of its machine cannot be read"
            continue
        if not (isinstance(told[0], dict) and isinstance(told[1], list)):
            yield f"the run {one_line(uid)}: what it says of its machine is no object, or its notes are no list"


def add_command(command: Any) -> None:
    """Add ``check`` to the command line."""
    command("check", run_command, "look whether the history is sound; says nothing if it is")


def run_command(arguments: argparse.Namespace) -> int:
    """``python -m nightly check``."""
    from nightly.cli import history_path

    with History(history_path(arguments)) as history:
        found = faults(history)
    for line in found:
        print(f"nightly check: {line}")
    return COULD_NOT_RUN if found else ALL_WELL

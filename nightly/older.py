"""Brings a history of an older form up to date."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nightly.history import History

TABLES = ("result", "run", "test", "target")
#: Runs between two words of progress.
SAY_EVERY = 100


def renew(history: History, say: Callable[[str], None]) -> None:
    """Turn a history of form 1, in which every result of every night was a row, into one of the present form.

    It is one transaction: whatever ends it half way leaves the history as it was.
    """
    from nightly.history import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

    with history.writing() as db:
        for table in TABLES:
            db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        copy_runs(history, say)
        for table in TABLES:
            db.execute(f"DROP TABLE old_{table}")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    history.shrink()


def copy_runs(history: History, say: Callable[[str], None]) -> None:
    """Record every run of the old tables anew, in the order in which they started."""
    from nightly.history import Row, RunRow

    db = history.db
    columns = (
        "uid started finished state reason short torch torch_commit python suite_commit selection environment notes".split()
    )  # of form 1, whatever the present form has
    select = f"SELECT r.id, t.name, t.machine, {', '.join('r.' + column for column in columns)} FROM old_run r "
    runs = db.execute(select + "JOIN old_target t ON t.id = r.target ORDER BY r.started, r.id").fetchall()
    for number, (old, name, machine, *values) in enumerate(runs):
        if number % SAY_EVERY == 0 and len(runs) > SAY_EVERY:
            say(f"bringing the history up to date: {number:,} of {len(runs):,} nights")
        fields = dict(zip(columns, values))
        fields |= {key: json.loads(fields[key]) for key in ("environment", "notes")}
        results = db.execute(
            "SELECT t.name, t.area, r.outcome, r.seconds, r.message FROM old_result r JOIN old_test t ON t.id = r.test WHERE r.run = ?",
            (old,),
        )
        history.merge(RunRow(name, machine, told=1, **fields), [Row(*row) for row in results])

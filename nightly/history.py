"""Every night's results, in one SQLite file.

The file uses SQLite's rollback journal (not WAL): it stays one file that can be copied or lie on a network share, and a
process that is killed, or a disk that fills, at any moment leaves the last committed state.
"""

import json
import sqlite3
import threading
import time
import uuid
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from nightly.outcomes import BAD, GOOD, NightlyError

APPLICATION_ID = 0x414F4E54  # "AONT"
SCHEMA_VERSION = 1
BUSY_SECONDS = 30
MESSAGE_LIMIT = 6000

RUNNING = "running"
COMPLETE = "complete"
INTERRUPTED = "interrupted"
COULD_NOT_RUN = "could not run"

SCHEMA = """
CREATE TABLE target (id INTEGER PRIMARY KEY, name TEXT NOT NULL, machine TEXT NOT NULL, UNIQUE (name, machine));
CREATE TABLE run (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, target INTEGER NOT NULL REFERENCES target,
    started TEXT NOT NULL, finished TEXT, state TEXT NOT NULL, reason TEXT NOT NULL, short INTEGER NOT NULL DEFAULT 0,
    torch TEXT NOT NULL, torch_commit TEXT NOT NULL, python TEXT NOT NULL, suite_commit TEXT NOT NULL,
    selection TEXT NOT NULL, environment TEXT NOT NULL, notes TEXT NOT NULL);
CREATE INDEX run_of_target ON run (target, started);
CREATE TABLE test (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, area TEXT NOT NULL);
CREATE TABLE result (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, test INTEGER NOT NULL REFERENCES test,
    outcome TEXT NOT NULL, seconds REAL NOT NULL, message TEXT NOT NULL, PRIMARY KEY (run, test)) WITHOUT ROWID;
CREATE INDEX result_of_test ON result (test, run);
"""

Target = namedtuple("Target", "id name machine")
Row = namedtuple("Row", "name area outcome seconds message")


@dataclass
class RunRow:
    """One night of one target as it stands in the history; ``environment`` holds what else is known of the machine."""

    target: str
    machine: str
    started: str
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    finished: str | None = None
    state: str = RUNNING
    reason: str = ""
    short: int = 0
    torch: str = ""
    torch_commit: str = ""
    python: str = ""
    suite_commit: str = ""
    selection: str = ""
    environment: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    id: int | None = None
    target_id: int | None = None

    @property
    def day(self):
        return self.started[:10]

    @property
    def torch_label(self):
        """``2.13.0 (abc1234)``: the version of torch and the commit that it was built from."""
        commit = f" ({self.torch_commit[:9]})" if self.torch_commit else ""
        return (self.torch or "of unknown version") + commit

    def seconds(self):
        """How long the run took, or None while it has not finished."""
        return (parse_time(self.finished) - parse_time(self.started)).total_seconds() if self.finished else None


#: The fields of a run that stand in columns of their own.
COLUMNS = ("uid", "started", "finished", "state", "reason", "short", "torch", "torch_commit", "python", "suite_commit", "selection")


def recorded(moment):
    """A time as it is recorded: UTC to the second, sortable as text."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def now():
    """The present time as it is recorded."""
    return recorded(datetime.now(timezone.utc))


def parse_time(text):
    """The time that a record names; naive or foreign ISO forms are taken as UTC unless they say otherwise.

    Raises:
        ValueError: the text is no ISO 8601 time.
    """
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


class History:
    """The history file. One `History` may be used from several threads; errors of SQLite come as `NightlyError`."""

    def __init__(self, path, create=False, read_only=False):
        """Open the history at ``path``; with ``create``, begin one where there is none.

        Raises:
            NightlyError: no history there, or not one, or of a newer form, or it cannot be read or written.
        """
        self.path = Path(path)
        self.lock = threading.RLock()
        if not create and not self.path.exists():
            raise NightlyError(f"no history at {self.path}: run `python -m nightly run` first, or name one with --history")
        with self.errors():
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            uri = self.path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rwc" if create else "?mode=rw")
            self.db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            try:
                self.check(create)
            except BaseException:
                self.db.close()
                raise

    def check(self, create):
        """See that the file is a history of a form known here, and lay one out in an empty file."""
        self.db.execute("PRAGMA foreign_keys = ON")
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        (tables,) = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if create and not application and not tables:
            self.db.executescript(
                f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif application != APPLICATION_ID:
            raise NightlyError(f"{self.path} is not a history of nightly: name another file with --history (nothing was changed)")
        elif version > SCHEMA_VERSION:
            raise NightlyError(f"{self.path} was written by a newer nightly (form {version}, here {SCHEMA_VERSION}): update the suite")

    @contextmanager
    def errors(self):
        """Turn SQLite's and the system's errors into one line that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "not a database" in text or "malformed" in text:
                advice = "it is damaged or not a history of nightly: move it away, or name another with --history"
            elif "full" in text or "disk I/O" in text:
                advice = "make room on the disk; what was recorded before is kept"
            elif "locked" in text:
                advice = "another program holds it: try again later"
            else:
                advice = "check that the file and its folder can be written, or name another with --history"
            raise NightlyError(f"history {self.path}: {text}: {advice}") from error
        except OSError as error:
            raise NightlyError(f"history {self.path}: {error.strerror}: name another place with --history") from error

    @contextmanager
    def writing(self):
        """One transaction: everything in it is recorded, or nothing. Within another one, a part of it."""
        with self.lock, self.errors():
            if self.db.in_transaction:
                yield self.db
                return
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def query(self, sql, arguments=()):
        with self.lock, self.errors():
            return self.db.execute(sql, arguments).fetchall()

    def close(self):
        with self.errors():
            self.db.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # Writing

    def begin(self, run):
        """Record that a run has started; gives ``run`` its id."""
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO target (name, machine) VALUES (?, ?)", (run.target, run.machine))
            (run.target_id,) = db.execute("SELECT id FROM target WHERE name = ? AND machine = ?", (run.target, run.machine)).fetchone()
            run.id = db.execute(
                f"INSERT INTO run (target, {', '.join(COLUMNS)}, environment, notes) VALUES (?{', ?' * (len(COLUMNS) + 2)})",
                (run.target_id, *self.columns(run)),
            ).lastrowid

    def update(self, run):
        """Record what ``run`` now says of itself."""
        with self.writing() as db:
            assignments = ", ".join(f"{column} = ?" for column in (*COLUMNS, "environment", "notes"))
            db.execute(f"UPDATE run SET {assignments} WHERE id = ?", (*self.columns(run), run.id))

    @staticmethod
    def columns(run):
        values = asdict(run)
        return (*(values[column] for column in COLUMNS), json.dumps(run.environment, sort_keys=True), json.dumps(run.notes))

    def add(self, run, results):
        """Record results (anything with a `Row`'s fields) of a run; a later result of the same test replaces the earlier."""
        results = list(results)
        with self.writing() as db:
            db.executemany(
                "INSERT INTO test (name, area) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET area = excluded.area "
                "WHERE area != excluded.area",
                [(result.name, result.area) for result in results],
            )
            db.executemany(
                "INSERT OR REPLACE INTO result (run, test, outcome, seconds, message) "
                "VALUES (?, (SELECT id FROM test WHERE name = ?), ?, ?, ?)",
                [(run.id, result.name, result.outcome, round(result.seconds, 4), result.message[:MESSAGE_LIMIT]) for result in results],
            )

    def close_interrupted(self):
        """Mark runs that never finished as interrupted; only for the holder of the lock. Returns how many there were."""
        with self.writing() as db:
            return db.execute(
                "UPDATE run SET state = ?, reason = 'it was ended from outside before it had finished' WHERE state = ?",
                (INTERRUPTED, RUNNING),
            ).rowcount

    def prune(self, days):
        """Forget runs older than ``days``, but never the last complete run of a target. Returns how many were forgotten."""
        oldest = recorded(datetime.now(timezone.utc) - timedelta(days=days))
        with self.writing() as db:
            forgotten = db.execute(
                "DELETE FROM run WHERE started < ? AND id NOT IN (SELECT id FROM (SELECT id, max(started) FROM run "
                "WHERE state = ? GROUP BY target))",
                (oldest, COMPLETE),
            ).rowcount
            if forgotten:
                db.execute("DELETE FROM test WHERE NOT EXISTS (SELECT 1 FROM result WHERE result.test = test.id)")
                db.execute("DELETE FROM target WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.target = target.id)")
        return forgotten

    def merge(self, run, results):
        """Record a finished run from elsewhere, unless it is here already. Returns whether it was new."""
        with self.writing() as db:
            if db.execute("SELECT 1 FROM run WHERE uid = ?", (run.uid,)).fetchone():
                return False
            self.begin(run)
            self.add(run, results)
            return True

    # Reading

    def targets(self):
        """All targets, by name and machine."""
        return [Target(*row) for row in self.query("SELECT id, name, machine FROM target ORDER BY name, machine")]

    def runs(self, target_id, limit=-1, before=None, comparable=False):
        """A target's runs, the latest first; with ``before``, those that started before that `RunRow` (or were recorded before
        it in the same second); if ``comparable``, only those of them with the same selection that are complete and not short."""
        sql = (
            f"SELECT r.id, {', '.join('r.' + column for column in COLUMNS)}, r.environment, r.notes, t.name, t.machine "
            "FROM run r JOIN target t ON t.id = r.target WHERE r.target = ?"
        )
        arguments = [target_id]
        if before is not None:
            sql += " AND (r.started, r.id) < (?, ?)"
            arguments += [before.started, before.id]
        if comparable:
            sql += " AND r.selection = ? AND r.state = ? AND NOT r.short"
            arguments += [before.selection, COMPLETE]
        rows = self.query(sql + " ORDER BY r.started DESC, r.id DESC LIMIT ?", (*arguments, limit))
        return [self.run_row(target_id, row) for row in rows]

    @staticmethod
    def run_row(target_id, row):
        number, *columns, environment, notes, name, machine = row
        return RunRow(
            target=name,
            machine=machine,
            id=number,
            target_id=target_id,
            environment=json.loads(environment),
            notes=json.loads(notes),
            **dict(zip(COLUMNS, columns)),
        )

    def results(self, run):
        """Name -> `Row` of every test of a run."""
        rows = self.query(
            "SELECT t.name, t.area, r.outcome, r.seconds, r.message FROM result r JOIN test t ON t.id = r.test "
            "WHERE r.run = ? ORDER BY t.area, t.name",
            (run.id,),
        )
        return {row[0]: Row(*row) for row in rows}

    def outcomes_before(self, run, name):
        """(RunRow-like torch label, day, outcome) of a test on the earlier nights of the run's target, the latest first."""
        rows = self.query(
            "SELECT u.torch, u.torch_commit, u.started, r.outcome FROM result r JOIN run u ON u.id = r.run "
            "WHERE r.test = (SELECT id FROM test WHERE name = ?) AND u.target = ? AND (u.started, u.id) < (?, ?) "
            "ORDER BY u.started DESC, u.id DESC",
            (name, run.target_id, run.started, run.id),
        )
        return [(RunRow(target=run.target, machine=run.machine, started=row[2], torch=row[0], torch_commit=row[1]), row[3]) for row in rows]

    def turning_point(self, run, name):
        """The last run in which a test was good and the first since in which it was bad (each a `RunRow` or None), for a test
        that is bad in ``run``. Skips and runs without the test do not count."""
        first_bad = run
        for earlier, outcome in self.outcomes_before(run, name):
            if outcome in GOOD:
                return earlier, first_bad
            if outcome in BAD:
                first_bad = earlier
        return None, first_bad

    def newest(self):
        """Target -> (start of its newest complete run or None, start of its newest run of any kind)."""
        rows = self.query(
            "SELECT t.id, t.name, t.machine, max(CASE r.state WHEN ? THEN r.started END), max(r.started) "
            "FROM target t JOIN run r ON r.target = t.id GROUP BY t.id ORDER BY t.name, t.machine",
            (COMPLETE,),
        )
        return {Target(*row[:3]): row[3:] for row in rows}


def age(started):
    """Seconds since a recorded time."""
    return time.time() - parse_time(started).timestamp()

"""Every night's results, in one SQLite file.

Nights repeat each other, so what repeats is stored once. A complete run takes the next *place* in its series (a target with a
selection of tests), and a *span* says that a test came to the same, with the same text, from one place to another; a night in
which nothing changed adds no span. Each text is stored once. The seconds of a run's tests are one compressed value. A run that
is under way, or was interrupted, has *loose* results, one row each.

The file uses SQLite's rollback journal (not WAL): it stays one file that can be copied or lie on a network share, and a
process that is killed, or a disk that fills, at any moment leaves the last committed state.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import uuid
import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from nightly.outcomes import BAD, GOOD, PASS, SKIP, TIMED, NightlyError, is_test
from nightly.texts import clean, clean_name, fit_area, fit_environment, fit_notes

APPLICATION_ID = 0x414F4E54  # "AONT"
SCHEMA_VERSION = 2
BUSY_SECONDS = 30
MESSAGE_LIMIT = 6000
#: Texts longer than this are compressed.
COMPRESSED_FROM = 200
#: What stands for a text that can no longer be read.
DAMAGED_TEXT = "(this text is damaged in the history)"
#: The last place of a span that has not ended.
OPEN = 2**31 - 1
#: Runs that one transaction forgets.
PRUNE_STEP = 200
#: Complete runs that count as the recent ones of a test.
RECENT_RUNS = 14
#: A start that lies further ahead than this is of a clock that was wrong.
CLOCK_TOLERANCE = timedelta(minutes=15)
#: Days with runs that a clock which is far ahead needs before old runs are forgotten for it.
CLOCK_DAYS = 7

RUNNING = "running"
COMPLETE = "complete"
INTERRUPTED = "interrupted"
COULD_NOT_RUN = "could not run"

SCHEMA = """
CREATE TABLE IF NOT EXISTS target (id INTEGER PRIMARY KEY, name TEXT NOT NULL, machine TEXT NOT NULL, UNIQUE (name, machine));
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, target INTEGER NOT NULL REFERENCES target ON DELETE CASCADE, selection TEXT NOT NULL,
    places INTEGER NOT NULL DEFAULT 0, UNIQUE (target, selection));
CREATE TABLE IF NOT EXISTS text (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, content NOT NULL);
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, series INTEGER NOT NULL REFERENCES series,
    started TEXT NOT NULL, finished TEXT, state TEXT NOT NULL, reason TEXT NOT NULL, short INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0, torch TEXT NOT NULL, torch_commit TEXT NOT NULL, python TEXT NOT NULL, suite_version TEXT NOT NULL,
    suite_commit TEXT NOT NULL, strict INTEGER NOT NULL, environment INTEGER NOT NULL REFERENCES text, notes TEXT NOT NULL,
    tests INTEGER NOT NULL DEFAULT 0, test_seconds REAL NOT NULL DEFAULT 0, place INTEGER, seconds BLOB);
CREATE INDEX IF NOT EXISTS run_of_series ON run (series, started);
CREATE TABLE IF NOT EXISTS test (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, area TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdict (
    id INTEGER PRIMARY KEY, outcome TEXT NOT NULL, message INTEGER NOT NULL REFERENCES text, UNIQUE (outcome, message));
CREATE TABLE IF NOT EXISTS span (
    series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, test INTEGER NOT NULL REFERENCES test, first INTEGER NOT NULL,
    last INTEGER NOT NULL, verdict INTEGER NOT NULL REFERENCES verdict, PRIMARY KEY (series, test, first)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS span_by_last ON span (series, last);
CREATE TABLE IF NOT EXISTS loose (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, test INTEGER NOT NULL REFERENCES test,
    verdict INTEGER NOT NULL REFERENCES verdict, seconds REAL NOT NULL, PRIMARY KEY (run, test)) WITHOUT ROWID;
"""


class Target(NamedTuple):
    """What is validated, by name and machine."""

    id: int
    name: str
    machine: str


class Row(NamedTuple):
    """What one test came to in one run."""

    name: str
    area: str
    outcome: str
    seconds: float
    message: str


class ResultLike(Protocol):
    """Anything with the fields of a `Row`."""

    @property
    def name(self) -> str: ...
    @property
    def area(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def message(self) -> str: ...


@dataclass
class RunRow:
    """One night of one target as it stands in the history; ``environment`` holds what else is known of the machine.

    ``tests`` and ``test_seconds`` are the number of its results and the seconds of those whose duration means something; they
    are set when the run is complete. ``told`` is set once a person was told what changed.
    """

    target: str
    machine: str
    started: str
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    finished: str | None = None
    state: str = RUNNING
    reason: str = ""
    short: int = 0
    told: int = 0
    torch: str = ""
    torch_commit: str = ""
    python: str = ""
    suite_version: str = ""
    suite_commit: str = ""
    strict: int = 0
    selection: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tests: int = 0
    test_seconds: float = 0.0
    id: int | None = None
    target_id: int | None = None

    @property
    def day(self) -> str:
        return self.started[:10]

    @property
    def torch_label(self) -> str:
        """``2.13.0 (abc1234)``: the version of torch and the commit that it was built from."""
        commit = f" ({self.torch_commit[:9]})" if self.torch_commit else ""
        return (self.torch or "of unknown version") + commit

    @property
    def suite_label(self) -> str:
        """The suite's version and commit, as short as they can be told apart; empty where neither is known."""
        dirty = "-dirty" * self.suite_commit.endswith("-dirty")
        return " ".join(filter(None, (self.suite_version, self.suite_commit.removesuffix("-dirty")[:9] + dirty)))

    def seconds(self) -> float | None:
        """How long the run took, or None while it has not finished."""
        try:
            return (parse_time(self.finished) - parse_time(self.started)).total_seconds() if self.finished else None
        except ValueError:  # of an older record that was not checked
            return None


@dataclass(frozen=True)
class Stretch:
    """Runs one after the other, from ``first`` to ``last``, in which a test came to the same; None: it was not there."""

    outcome: str | None
    message: str
    first: RunRow
    last: RunRow
    runs: int


@dataclass(frozen=True)
class Past:
    """What a test came to before a run: the last complete run in which it was good, the first since in which it was bad,
    its last outcome that says something (no skip; None: there is none), and its outcomes in the last `RECENT_RUNS`."""

    last_good: RunRow | None = None
    first_bad: RunRow | None = None
    outcome: str | None = None
    recent: frozenset[str] = frozenset()


#: The fields of a run that stand in columns of their own.
COLUMNS = (
    "uid",
    "started",
    "finished",
    "state",
    "reason",
    "short",
    "told",
    "torch",
    "torch_commit",
    "python",
    "suite_version",
    "suite_commit",
    "strict",
)
#: The condition that a run's start can be: a time from 2000 on, and not in the future.
DATED = "r.started BETWEEN '2000' AND ? AND is_time(r.started)"
#: What a query for runs selects; the rest of `RunRow` comes from the tables beside it.
RUN_SELECT = (
    f"SELECT r.id, t.id, t.name, t.machine, s.selection, {', '.join('r.' + column for column in COLUMNS)}, r.tests, r.test_seconds, "
    "e.content, r.notes, r.series, r.place FROM run r JOIN series s ON s.id = r.series JOIN target t ON t.id = s.target "
    "JOIN text e ON e.id = r.environment "
)


def recorded(moment: datetime) -> str:
    """A time as it is recorded: UTC to the second, sortable as text."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def now() -> str:
    """The present time as it is recorded."""
    return recorded(datetime.now(timezone.utc))


def latest_start() -> str:
    """The latest start that a run can have; what claims to have started later is of a clock that was wrong."""
    return recorded(datetime.now(timezone.utc) + CLOCK_TOLERANCE)


def parse_time(text: str) -> datetime:
    """The time that a record names; naive or foreign ISO forms are taken as UTC unless they say otherwise.

    Raises:
        ValueError: the text is no ISO 8601 time.
    """
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def is_time(text: str) -> bool:
    """Whether `parse_time` takes a text."""
    try:
        return bool(parse_time(text))
    except ValueError:
        return False


def age(started: str) -> float:
    """Seconds since a recorded time."""
    return time.time() - parse_time(started).timestamp()


def pack_seconds(seconds: dict[int, float]) -> bytes:
    """Test id -> seconds as one compressed value, to the tenth of a millisecond."""
    ids = sorted(seconds)
    gaps = array("I", (one - other for one, other in zip(ids, [0, *ids[:-1]])))
    units = array("I", (min(round(seconds[key] * 10_000), 2**32 - 1) for key in ids))
    # The bytes of equal rank side by side: most of them are zero.
    planes = [values.tobytes()[rank::4] for values in (gaps, units) for rank in range(4)]
    return zlib.compress(b"".join(planes), 9)


def unpack_seconds(packed: bytes | None) -> dict[int, float]:
    """What `pack_seconds` has packed; nothing for None."""
    if not packed:
        return {}
    data = zlib.decompress(packed)
    count = len(data) // 8
    columns = []
    for number in (0, 1):
        raw = bytearray(4 * count)
        for rank in range(4):
            place = (4 * number + rank) * count
            raw[rank::4] = data[place : place + count]
        columns.append(array("I", bytes(raw)))
    found, key = {}, 0
    for gap, unit in zip(*columns):
        key += gap
        found[key] = unit / 10_000
    return found


class History:
    """The history file. One `History` may be used from several threads; errors of SQLite come as `NightlyError`."""

    def __init__(self, path: str | Path, create: bool = False, read_only: bool = False, say: Callable[[str], None] = lambda text: None):
        """Open the history at ``path``; with ``create``, begin one where there is none. A history of an older form is brought up
        to date in one transaction, and ``say`` is told; one that is opened ``read_only`` must be of the present form.

        ``:memory:`` is a history that lasts as long as this object.

        Raises:
            NightlyError: no history there, or not one, or of another form, or it cannot be read or written.
        """
        self.path = Path(path)
        self.lock = threading.RLock()
        #: What has been looked up in the transaction under way: ids of texts, verdicts and tests.
        self.known: dict[Any, int] = {}
        #: Whether something that was looked at could not be read.
        self.damaged = False
        in_memory = str(path) == ":memory:"
        if not create and not in_memory and not self.path.exists():
            raise NightlyError(f"no history at {self.path}: run `python -m nightly run` first, or name one with --history")
        with self.errors():
            if create and not in_memory:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            uri = self.path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rwc" if create else "?mode=rw")
            place = ":memory:" if in_memory else uri
            self.db = sqlite3.connect(place, uri=not in_memory, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            self.db.create_function("is_time", 1, is_time, deterministic=True)
            try:
                self.check(create or in_memory, read_only, say)
            except BaseException:
                self.db.close()
                raise

    @classmethod
    def copy_of(cls, path: str | Path) -> History:
        """A history in memory that begins with all that stands in a file, which may be of an older form.

        Raises:
            NightlyError: it is no history, or cannot be read.
        """
        copy = cls(":memory:")
        copy.path = Path(path)
        try:
            with (
                copy.errors(),
                closing(sqlite3.connect(copy.path.absolute().as_uri() + "?mode=ro", uri=True, timeout=BUSY_SECONDS)) as file,
            ):
                file.executescript("BEGIN; SELECT 1 FROM sqlite_master")  # whoever writes to it now is waited for, and then waits
                file.backup(copy.db)
                ((found,),) = copy.query("PRAGMA quick_check(1)")
                if found != "ok":
                    raise sqlite3.DatabaseError(f"malformed: {found}")
                copy.check(create=False, read_only=False, say=lambda text: None)
        except BaseException:
            copy.close()
            raise
        return copy

    def check(self, create: bool, read_only: bool, say: Callable[[str], None]) -> None:
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
        elif version < SCHEMA_VERSION:
            self.renew(version, read_only, say)

    def renew(self, version: int, read_only: bool, say: Callable[[str], None]) -> None:
        """Bring a history of an older form up to date, in one transaction."""
        from nightly import older

        older_form = f"history {self.path} is of an older form ({version}, here {SCHEMA_VERSION})"
        if read_only:
            raise NightlyError(f"{older_form}: bring it up to date with `python -m nightly report --history {self.path}` first")
        try:
            older.renew(self, say)
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
            raise NightlyError(f"{older_form} and cannot be written: copy it to a place that can be written, then use the copy") from None

    @contextmanager
    def errors(self) -> Iterator[None]:
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
            elif "no such table" in text or "no such column" in text:
                advice = "its tables are not those of a history: move it away, or name another with --history"
            else:
                advice = "check that the file and its folder can be written, or name another with --history"
            raise NightlyError(f"history {self.path}: {text}: {advice}") from error
        except OSError as error:
            raise NightlyError(f"history {self.path}: {error.strerror}: name another place with --history") from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
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
            finally:
                self.known.clear()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is written in here waits for nobody: where another target or program holds the history, it fails."""
        if not self.lock.acquire(blocking=False):
            raise NightlyError(f"history {self.path}: another target is writing to it")
        try:
            self.db.execute("PRAGMA busy_timeout = 0")
            yield
        finally:
            self.db.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
            self.lock.release()

    def query(self, sql: str, arguments: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.lock, self.errors():
            return self.db.execute(sql, tuple(arguments)).fetchall()

    def close(self) -> None:
        with self.errors():
            self.db.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Writing

    def begin(self, run: RunRow) -> None:
        """Record that a run has started; gives ``run`` its id."""
        tidy(run)
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO target (name, machine) VALUES (?, ?)", (run.target, run.machine))
            (run.target_id,) = db.execute("SELECT id FROM target WHERE name = ? AND machine = ?", (run.target, run.machine)).fetchone()
            db.execute("INSERT OR IGNORE INTO series (target, selection) VALUES (?, ?)", (run.target_id, run.selection))
            run.id = db.execute(
                f"INSERT INTO run (series, {', '.join(COLUMNS)}, environment, notes) "
                f"VALUES ((SELECT id FROM series WHERE target = ? AND selection = ?){', ?' * (len(COLUMNS) + 2)})",
                (run.target_id, run.selection, *self.columns(run)),
            ).lastrowid

    def update(self, run: RunRow) -> None:
        """Record what ``run`` now says of itself; the results of one that is complete by now are packed."""
        tidy(run)
        with self.writing() as db:
            assignments = ", ".join(f"{column} = ?" for column in (*COLUMNS, "environment", "notes"))
            db.execute(f"UPDATE run SET {assignments} WHERE id = ?", (*self.columns(run), run.id))
            if run.state == COMPLETE:
                self.pack(run)

    def columns(self, run: RunRow) -> tuple[Any, ...]:
        environment = self.text_id(json.dumps(run.environment, sort_keys=True))
        return (*(getattr(run, column) for column in COLUMNS), environment, json.dumps(run.notes))

    def text_id(self, text: str) -> int:
        """The id of a text, which is stored if it is new, or no longer what it was."""
        digest = hashlib.sha256(text.encode()).digest()[:16]
        content = text if len(text) < COMPRESSED_FROM else zlib.compress(text.encode(), 9)
        for number, stored in self.db.execute("SELECT id, content FROM text WHERE digest = ?", (digest,)).fetchall():
            if self.text(stored) != text:
                self.damaged = True
                self.db.execute("UPDATE text SET content = ? WHERE id = ?", (content, number))
            return number
        return self.db.execute("INSERT INTO text (digest, content) VALUES (?, ?)", (digest, content)).lastrowid or 0

    def verdict_id(self, outcome: str, message: str) -> int:
        """The id of an outcome with its message."""
        if (outcome, message) not in self.known:
            text = self.text_id(clean(message)[:MESSAGE_LIMIT])
            self.db.execute("INSERT OR IGNORE INTO verdict (outcome, message) VALUES (?, ?)", (clean(outcome), text))
            found = self.db.execute("SELECT id FROM verdict WHERE outcome = ? AND message = ?", (clean(outcome), text)).fetchone()
            self.known[outcome, message] = found[0]
        return self.known[outcome, message]

    def test_id(self, result: ResultLike) -> int:
        """The id of the test of a result; an area that has changed is recorded."""
        key = ("test", result.name, result.area)
        if key not in self.known:
            name, area = clean_name(result.name) or "unnamed", fit_area(result.area)
            self.db.execute("INSERT OR IGNORE INTO test (name, area) VALUES (?, ?)", (name, area))
            self.db.execute("UPDATE test SET area = ? WHERE name = ? AND area != ?", (area, name, area))
            (self.known[key],) = self.db.execute("SELECT id FROM test WHERE name = ?", (name,)).fetchone()
        return self.known[key]

    def add(self, run: RunRow, results: Iterable[ResultLike]) -> None:
        """Record results of a run that has not been packed; a later result of the same test replaces the earlier."""
        results = list(results)
        with self.writing() as db:
            rows = [
                (run.id, self.test_id(item), self.verdict_id(item.outcome, item.message), sound_seconds(item.seconds)) for item in results
            ]
            db.executemany("INSERT OR REPLACE INTO loose (run, test, verdict, seconds) VALUES (?, ?, ?, ?)", rows)

    def pack(self, run: RunRow) -> None:
        """Give a complete run its place in its series: its loose results become spans."""
        with self.writing() as db:
            series, place = db.execute("SELECT series, place FROM run WHERE id = ?", (run.id,)).fetchone()
            if place is not None:
                return
            db.execute("UPDATE series SET places = places + 1 WHERE id = ?", (series,))
            (place,) = db.execute("SELECT places FROM series WHERE id = ?", (series,)).fetchone()
            found = db.execute(
                "SELECT l.test, l.verdict, l.seconds, v.outcome FROM loose l JOIN verdict v ON v.id = l.verdict WHERE l.run = ?", (run.id,)
            ).fetchall()
            verdicts = {test: verdict for test, verdict, _, _ in found}
            before = dict(db.execute("SELECT test, verdict FROM span WHERE series = ? AND last = ?", (series, OPEN)))
            ended = [test for test, verdict in before.items() if verdicts.get(test) != verdict]
            db.executemany(
                "UPDATE span SET last = ? WHERE series = ? AND test = ? AND last = ?", [(place - 1, series, test, OPEN) for test in ended]
            )
            db.executemany(
                "INSERT INTO span (series, test, first, last, verdict) VALUES (?, ?, ?, ?, ?)",
                [(series, test, place, OPEN, verdict) for test, verdict in verdicts.items() if before.get(test) != verdict],
            )
            run.tests = len(found)
            run.test_seconds = round(sum(seconds for _, _, seconds, outcome in found if outcome in TIMED), 4)
            db.execute(
                "UPDATE run SET place = ?, seconds = ?, tests = ?, test_seconds = ? WHERE id = ?",
                (place, pack_seconds({test: seconds for test, _, seconds, _ in found}), run.tests, run.test_seconds, run.id),
            )
            db.execute("DELETE FROM loose WHERE run = ?", (run.id,))

    def close_interrupted(self) -> int:
        """Mark runs that never finished as interrupted; only for the holder of the lock. Returns how many there were."""
        with self.writing() as db:
            return db.execute(
                "UPDATE run SET state = ?, reason = 'it was ended from outside before it had finished' WHERE state = ?",
                (INTERRUPTED, RUNNING),
            ).rowcount

    def set_told(self, runs: Iterable[RunRow]) -> None:
        """Record that a person was told what changed in these runs."""
        with self.writing() as db:
            db.executemany("UPDATE run SET told = 1 WHERE uid = ?", [(run.uid,) for run in runs])

    def prune(self, days: float, say: Callable[[str], None] = lambda text: None, stopping: Callable[[], bool] = lambda: False) -> int:
        """Forget runs older than ``days``, but never the last complete one of a series. Returns how many were forgotten.

        The age is counted from the last `CLOCK_DAYS` on which there were runs, for the clock may be wrong today. It goes in steps, each a
        transaction of its own: ``say`` is told after each, and where ``stopping`` answers True the rest is left to the next time.
        """
        latest = f"SELECT DISTINCT substr(r.started, 1, 10) AS day FROM run r WHERE {DATED} ORDER BY day DESC LIMIT ?"
        ((oldest,),) = self.query(f"SELECT date(min(day), ?) FROM ({latest})", (f"-{days} days", latest_start(), CLOCK_DAYS))
        doomed = self.query(
            "SELECT r.id FROM run r WHERE r.started < ? AND r.id NOT IN (SELECT id FROM (SELECT r.id, max(r.started) FROM run r "
            f"WHERE r.state = ? AND {DATED} GROUP BY r.series)) ORDER BY r.started",
            (oldest, COMPLETE, latest_start()),
        )
        forgotten = 0
        while forgotten < len(doomed) and not stopping():
            step = doomed[forgotten : forgotten + PRUNE_STEP]
            self.forget([number for (number,) in step])
            forgotten += len(step)
            if len(doomed) > PRUNE_STEP:
                say(f"old nights forgotten: {forgotten:,} of {len(doomed):,}")
        return forgotten

    def forget(self, runs: Collection[int]) -> None:
        """Take runs out of the history by their ids, with all that nothing else refers to."""
        with self.writing() as db:
            touched: set[int] = set()
            for number in runs:
                found = db.execute("SELECT series FROM run WHERE id = ?", (number,)).fetchone()
                touched.update(found or ())
                db.execute("DELETE FROM run WHERE id = ?", (number,))
            for series in touched:
                self.drop_empty_spans(series)
            db.execute("DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.series = series.id)")
            db.execute("DELETE FROM target WHERE NOT EXISTS (SELECT 1 FROM series WHERE series.target = target.id)")
            used = "SELECT {0} FROM span UNION SELECT {0} FROM loose"
            db.execute(f"DELETE FROM verdict WHERE id NOT IN ({used.format('verdict')})")
            db.execute(f"DELETE FROM test WHERE id NOT IN ({used.format('test')})")
            db.execute("DELETE FROM text WHERE id NOT IN (SELECT message FROM verdict UNION SELECT environment FROM run)")
            self.known.clear()

    def shrink(self) -> None:
        """Give the room that nothing uses back to the system, where there is room to do so."""
        with self.lock:
            try:
                self.db.execute("VACUUM")
            except sqlite3.OperationalError:
                return

    def drop_empty_spans(self, series: int) -> None:
        """Take out the spans of a series of which no run is left."""
        places = [place for (place,) in self.db.execute("SELECT place FROM run WHERE series = ? AND place > 0 ORDER BY place", (series,))]
        bounds = [0, *places, OPEN]
        # Between two places that are left lie those that are gone: a span that lies there entirely is of no run.
        gaps = [(low + 1, high - 1) for low, high in zip(bounds, bounds[1:]) if high - low > 1]
        if not places:
            self.db.execute("DELETE FROM span WHERE series = ?", (series,))
            return
        self.db.executemany(
            "DELETE FROM span WHERE series = ? AND last BETWEEN ? AND ? AND first >= ?", [(series, a, b, a) for a, b in gaps]
        )

    def merge(self, run: RunRow, results: Iterable[ResultLike]) -> bool:
        """Record a finished run from elsewhere, unless it is here already. Returns whether it was new."""
        with self.writing() as db:
            if db.execute("SELECT 1 FROM run WHERE uid = ?", (run.uid,)).fetchone():
                return False
            self.begin(run)
            self.add(run, results)
            if run.state == COMPLETE:
                self.pack(run)
            return True

    # Reading

    def sound(self, read: Callable[[Any], Any], stored: Any, otherwise: Any) -> Any:
        """What was stored, as it is read; where it is no longer what nightly wrote, what else to take for it."""
        try:
            return read(stored)
        except (ValueError, TypeError, AttributeError, zlib.error):
            self.damaged = True
            return otherwise

    def text(self, content: str | bytes) -> str:
        """A stored text, or `DAMAGED_TEXT`."""
        return self.sound(text_of, content, DAMAGED_TEXT)

    def targets(self) -> list[Target]:
        """All targets, by name and machine."""
        return [Target(*row) for row in self.query("SELECT id, name, machine FROM target ORDER BY name, machine")]

    def runs(self, target_id: int, limit: int = -1, before: RunRow | None = None, comparable: bool = False) -> list[RunRow]:
        """A target's runs, the latest first, without those whose start cannot be (`misdated_runs`).

        With ``before``, those that started before that `RunRow` (or were recorded before it in the same second); if ``comparable``,
        only those of them with the same selection that are complete and not short.
        """
        sql, arguments = f"WHERE s.target = ? AND {DATED}", [target_id, latest_start()]
        if before is not None:
            sql += " AND (r.started, r.id) < (?, ?)"
            arguments += [before.started, before.id]
            if comparable:
                sql += " AND s.selection = ? AND r.state = ? AND NOT r.short"
                arguments += [before.selection, COMPLETE]
        return self.select_runs(sql + " ORDER BY r.started DESC, r.id DESC LIMIT ?", (*arguments, limit))

    def nights(self, target_id: int, limit: int = -1) -> list[RunRow]:
        """The `runs` that stand for a target, the latest first: those of all its tests; where it has none, those with the selection of
        the latest."""
        series = (
            f"SELECT s.id FROM run r JOIN series s ON s.id = r.series WHERE s.target = ? AND {DATED} "
            "ORDER BY s.selection != '', r.started DESC, r.id DESC LIMIT 1"
        )
        sql = f"WHERE r.series = ({series}) AND {DATED} ORDER BY r.started DESC, r.id DESC LIMIT ?"
        return self.select_runs(sql, (target_id, latest_start(), latest_start(), limit))

    def run(self, uid: str) -> RunRow | None:
        """The run with this uid, if it is here."""
        return next(iter(self.select_runs("WHERE r.uid = ?", (uid,))), None)

    def misdated_runs(self) -> list[RunRow]:
        """The runs whose start cannot be: no time, or one in the future or long before there was anything to run, as of a wrong clock."""
        return self.select_runs(f"WHERE NOT ({DATED}) ORDER BY r.started", (latest_start(),))

    def is_misdated(self, run: RunRow) -> bool:
        """Whether a run's start cannot be (see `misdated_runs`)."""
        return not ("2000" <= run.started <= latest_start() and is_time(run.started))

    def select_runs(self, sql: str, arguments: Iterable[Any]) -> list[RunRow]:
        return [run for run, _, _ in self.placed_runs(sql, arguments)]

    def placed_runs(self, sql: str, arguments: Iterable[Any]) -> list[tuple[RunRow, int, int | None]]:
        """(run, series, place) of the runs that the end of a query selects; the place is None where the results are loose."""
        found = self.query(RUN_SELECT + sql, arguments)
        environments = {content: self.sound(environment_of, content, {}) for content in {row[-4] for row in found}}
        placed = []
        for number, target_id, name, machine, selection, *rest in found:
            *columns, tests, test_seconds, environment, notes, series, place = rest
            fields = dict(zip(COLUMNS, columns))
            run = RunRow(
                name,
                machine,
                **fields,
                selection=selection,
                environment=dict(environments[environment]),
                notes=self.sound(notes_of, notes, []),
            )
            run.tests, run.test_seconds, run.id, run.target_id = tests, test_seconds, number, target_id
            placed.append((run, series, place))
        return placed

    def environment(self, key: int) -> Any:
        """What was recorded of a run's surroundings, by the id of its text, as it stands there.

        Raises:
            ValueError, zlib.error: it is not what nightly writes.
        """
        ((content,),) = self.query("SELECT content FROM text WHERE id = ?", (key,))
        return json.loads(text_of(content))

    def results(self, run: RunRow) -> dict[str, Row]:
        """Name -> `Row` of every test of a run, by area and name."""
        ((series, place, packed),) = self.query("SELECT series, place, seconds FROM run WHERE id = ?", (run.id,)) or [(None, None, None)]
        columns = "t.id, t.name, t.area, v.outcome, m.content"
        joins = "JOIN test t ON t.id = x.test JOIN verdict v ON v.id = x.verdict JOIN text m ON m.id = v.message"
        if place is None:
            rows = self.query(f"SELECT {columns}, x.seconds FROM loose x {joins} WHERE x.run = ?", (run.id,))
            seconds = {row[0]: row[5] for row in rows}
        else:
            seconds = self.sound(unpack_seconds, packed, {})
            rows = self.query(
                f"SELECT {columns} FROM span x {joins} WHERE x.series = ? AND x.first <= ? AND x.last >= ?", (series, place, place)
            )
        found = [Row(row[1], row[2], row[3], seconds.get(row[0], 0.0), self.text(row[4])) for row in rows]
        return {row.name: row for row in sorted(found, key=lambda row: (row.area, row.name))}

    def seconds(self, run: RunRow) -> dict[str, float]:
        """Name -> seconds of the tests of a complete run whose duration means something."""
        ((series, place, packed),) = self.query("SELECT series, place, seconds FROM run WHERE id = ?", (run.id,)) or [(None, None, None)]
        found = self.sound(unpack_seconds, packed, {})
        rows = self.query(
            "SELECT t.id, t.name, v.outcome FROM span x JOIN test t ON t.id = x.test JOIN verdict v ON v.id = x.verdict "
            "WHERE x.series = ? AND x.first <= ? AND x.last >= ?",
            (series, place, place),
        )
        return {name: found.get(key, 0.0) for key, name, outcome in rows if outcome in TIMED}

    def timelines(self, target_id: int, runs: list[RunRow], names: Collection[str] | None = None) -> dict[str, list[Stretch]]:
        """Name -> the stretches of a test over ``runs`` of one target (in any order; told from the oldest to the latest).

        A run without a result of the test has its stretches too, with the outcome None. Tests that are in none of the runs are
        left out; with ``names``, so are all others.
        """
        wanted, starts = {run.id for run in runs}, [run.started for run in runs] or [""]
        sql = "WHERE s.target = ? AND r.started BETWEEN ? AND ? ORDER BY r.started, r.id"
        placed = [item for item in self.placed_runs(sql, (target_id, min(starts), max(starts))) if item[0].id in wanted]
        at = {(series, place): number for number, (_, series, place) in enumerate(placed) if place is not None}
        columns: dict[str, list[tuple[str, int] | None]] = defaultdict(lambda: [None] * len(placed))
        for name, number, outcome, message in self.cells(placed, at):
            if names is None or name in names:
                columns[name][number] = (outcome, message)
        texts: dict[int, str] = {}
        return {name: self.stretches(placed, cells, texts) for name, cells in columns.items()}

    def cells(self, placed: list[tuple[RunRow, int, int | None]], at: dict[tuple[int, int], int]) -> Iterator[tuple[str, int, str, int]]:
        """(test, number of the run, outcome, text) for each result of the runs."""
        joins = "JOIN test t ON t.id = x.test JOIN verdict v ON v.id = x.verdict"
        for series in sorted({series for series, _ in at}):
            places = sorted(place for key, place in at if key == series)
            rows = self.query(
                f"SELECT t.name, x.first, x.last, v.outcome, v.message FROM span x {joins} "
                "WHERE x.series = ? AND x.last >= ? AND x.first <= ?",
                (series, places[0], places[-1]),
            )
            for name, first, last, outcome, message in rows:
                for place in places:
                    if first <= place <= last:
                        yield name, at[series, place], outcome, message
        for number, (run, _, own_place) in enumerate(placed):
            if own_place is None:
                rows = self.query(f"SELECT t.name, v.outcome, v.message FROM loose x {joins} WHERE x.run = ?", (run.id,))
                for name, outcome, message in rows:
                    yield name, number, outcome, message

    def stretches(
        self, placed: list[tuple[RunRow, int, int | None]], cells: list[tuple[str, int] | None], texts: dict[int, str]
    ) -> list[Stretch]:
        """The cells of one test, equal neighbours together."""
        found, start = [], 0
        for end in range(1, len(cells) + 1):
            if end < len(cells) and cells[end] == cells[start]:
                continue
            cell = cells[start]
            outcome, message = (cell[0], self.message(cell[1], texts)) if cell else (None, "")
            found.append(Stretch(outcome, message, placed[start][0], placed[end - 1][0], end - start))
            start = end
        return found

    def message(self, key: int, texts: dict[int, str]) -> str:
        """A message by its id; empty where another process has just forgotten it."""
        if key not in texts:
            found = self.query("SELECT content FROM text WHERE id = ?", (key,))
            texts[key] = self.text(found[0][0]) if found else ""
        return texts[key]

    def past(self, run: RunRow, names: Collection[str], heard: Callable[[RunRow], bool] = lambda earlier: True) -> dict[str, Past]:
        """Name -> `Past` of tests before a run of their target: of complete runs alone, for an interrupted one gave no verdict; the
        outcomes of those alone of which ``heard`` answers True."""
        earlier = self.placed_runs(
            "WHERE s.target = ? AND r.state = ? AND (r.started, r.id) < (?, ?) ORDER BY r.started DESC, r.id DESC",
            (run.target_id, COMPLETE, run.started, run.id),
        )
        found = {}
        for name in names:
            spans = defaultdict(list)
            for series, first, last, outcome in self.query(
                "SELECT x.series, x.first, x.last, v.outcome FROM span x JOIN verdict v ON v.id = x.verdict "
                "JOIN series s ON s.id = x.series WHERE s.target = ? "
                "AND x.test = (SELECT id FROM test WHERE name = ?) ORDER BY x.first DESC",
                (run.target_id, name),
            ):
                spans[series].append((first, last, outcome))
            found[name] = past_of(earlier, spans, heard, absent=None if is_test(name) else PASS)
        return found

    def newest(self) -> dict[Target, tuple[str | None, str]]:
        """Target -> (start of the newest complete one of its `nights` or None, start of its newest run of any kind); no misdated run
        counts."""
        rows = self.query(
            "SELECT t.id, t.name, t.machine, max(CASE r.state WHEN ? THEN r.started END), max(r.started) FROM target t "
            f"JOIN series s ON s.target = t.id JOIN run r ON r.series = s.id WHERE {DATED} GROUP BY s.id "
            "ORDER BY t.name, t.machine, s.selection != '', max(r.started) DESC, max(r.id) DESC",
            (COMPLETE, latest_start()),
        )
        found: dict[Target, tuple[str | None, str]] = {}
        for *target, complete, latest in rows:
            first = found.get(Target(*target), (complete, latest))
            found[Target(*target)] = (first[0], max(first[1], latest))
        return found


def past_of(
    earlier: list[tuple[RunRow, int, int | None]],
    spans: dict[int, list[tuple[int, int, str]]],
    heard: Callable[[RunRow], bool],
    absent: str | None,
) -> Past:
    """The `Past` of one test, from the complete runs before (the latest first) and its spans, by series; ``absent`` is what a run
    without it says in a series that has it."""
    if not spans:
        return Past()

    def outcome_in(series: int, place: int | None) -> str | None:
        if place is None or series not in spans:
            return None
        return next((outcome for first, last, outcome in spans[series] if first <= place <= last), absent)

    told = [outcome_in(series, place) for run, series, place in earlier if heard(run)]
    recent = frozenset(filter(None, told[:RECENT_RUNS]))
    last_outcome = next((outcome for outcome in told if outcome not in (None, SKIP)), None)
    last_good, first_bad = None, None
    ever = {absent, *(outcome for found in spans.values() for _, _, outcome in found)}
    for run, series, place in earlier:
        outcome = outcome_in(series, place)
        if outcome in GOOD:
            last_good = run
            break
        if outcome in BAD:
            first_bad = run
            if not ever & GOOD:  # then the first of all is looked for from the other end
                break
    if first_bad and not ever & GOOD:
        first_bad = next(run for run, series, place in reversed(earlier) if outcome_in(series, place) in BAD)
    return Past(last_good, first_bad, last_outcome, recent)


def text_of(content: str | bytes) -> str:
    """A text as it was before it was stored."""
    return content if isinstance(content, str) else zlib.decompress(content).decode()


def environment_of(content: str | bytes) -> dict[str, Any]:
    """A recorded environment, without what of it cannot be shown."""
    return fit_environment(json.loads(text_of(content)))[0]


def notes_of(content: str) -> list[str]:
    """Recorded notes, without what of them cannot be shown."""
    return fit_notes(json.loads(content))


def sound_seconds(value: float) -> float:
    """Seconds as they are recorded: a number from zero up, to the tenth of a millisecond."""
    return round(min(max(float(value), 0.0), 4e5), 4) if value == value else 0.0


def tidy(run: RunRow) -> None:
    """Make all that a run says fit for a record."""
    run.target, run.machine = clean_name(run.target) or "unnamed", clean_name(run.machine) or "unknown"
    for key in ("uid", "reason", "torch", "torch_commit", "python", "suite_version", "suite_commit", "selection"):
        setattr(run, key, clean(getattr(run, key)))
    run.notes = fit_notes(run.notes)
    run.environment, _ = fit_environment(run.environment)

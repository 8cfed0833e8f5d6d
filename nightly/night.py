"""One night: every target prepared, run, recorded and judged."""

from __future__ import annotations

import copy
import itertools
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from nightly import execute, junit, speed, targets
from nightly.compare import Change, Judgement, judge, mark_short, was_told
from nightly.execute import Result
from nightly.history import COMPLETE, COULD_NOT_RUN, INTERRUPTED, History, ResultLike, RunRow, now, parse_time
from nightly.outcomes import BAD, Mistake, NightlyError
from nightly.texts import one_line

FLUSH_SECONDS = 1.0
#: How long a target may have the same build, where the index decides, until a line says so, and how that line begins.
STALE, UNCHANGED = timedelta(days=14), "pip has found no other torch since"
#: The signals that ask a night to end.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Where the suite says its version; it is read as text, for nightly imports nothing of the suite.
VERSION_FILE, VERSION_LINE = Path("ao", "sparsity", "__init__.py"), re.compile(r"^__version__ = [\"']([^\"']+)[\"']", re.MULTILINE)


@dataclass
class Options:
    """What `run` was asked to do."""

    history: Path
    cache: Path
    runner: Path
    targets: list[targets.Target]
    arguments: list[str] = field(default_factory=list)
    machine: str = field(default_factory=platform.node)
    limits: execute.Limits = execute.Limits()
    jobs: int = 1
    keep_days: float = 400.0
    junit: Path | None = None
    speed: bool = False
    wait: float = 0.0


class Busy(NightlyError):
    """Another run holds the history."""


def suite_commit(folder: Path) -> tuple[str, str]:
    """The commit of the checkout whose top is a folder, marked where its files differ from it, and, where there is none, why."""

    def git(*arguments: str) -> str:
        # The checkout may belong to somebody else; what is asked runs nothing of what lies in it.
        trusted = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
        done = subprocess.run(["git", *trusted, "-C", str(folder), *arguments], capture_output=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise NightlyError(one_line(done.stderr.decode(errors="replace").strip().splitlines()[-1:] or f"exit status {done.returncode}"))
        return done.stdout.decode(errors="replace").strip()

    try:
        if os.path.realpath(git("rev-parse", "--show-toplevel")) != os.path.realpath(folder):
            return "", "the suite is no checkout of its own"
        commit = git("rev-parse", "HEAD")
        return commit + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""), ""
    except (OSError, NightlyError) as error:
        return "", f"git: {error}"


def suite_version(folder: Path) -> str:
    """The version that the suite in a folder says; empty where it says none."""
    try:
        found = VERSION_LINE.search((folder / VERSION_FILE).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


@contextmanager
def only_one(history: str | Path, wait: float) -> Iterator[None]:
    """Hold the lock of a history; the system frees it when the process ends, however it ends.

    Raises:
        Busy: another process still holds it after ``wait`` seconds.
        NightlyError: it cannot be made.
    """
    import filelock

    lock = filelock.FileLock(f"{history}.lock")
    try:
        Path(history).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except filelock.Timeout:
        advice = "wait for it (--wait SECONDS), or give this one its own --history"
        raise Busy(f"another run is at work on {history}: {advice}") from None
    except OSError as error:
        raise NightlyError(f"history {history}: {error.strerror}: name another place with --history") from None
    try:
        yield
    finally:
        lock.release()


class Recorder:
    """Brings the results of one run into the history as they come; keeps them if the history fails for a while, or somebody holds it:
    while tests run, nothing waits for that.

    ``problem`` says what is wrong with the history, and is empty while nothing is.
    """

    def __init__(self, history: History, run: RunRow):
        self.history, self.run = history, run
        self.waiting: dict[str, Result] = {}
        self.flushed = time.monotonic()
        self.problem = ""
        self.begun = self.attempt(self.history.writing, lambda: self.history.begin(self.run))

    def plan(self, environment: dict[str, Any]) -> None:
        """Take in what the driver told of its surroundings."""
        take_environment(self.run, environment)
        if self.begun:
            self.attempt(self.history.at_once, lambda: self.history.update(self.run))

    def result(self, result: Result) -> None:
        """Take in a result."""
        self.waiting[result.name] = result
        if time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self.begun and self.attempt(self.history.at_once, lambda: self.history.add(self.run, self.waiting.values())):
            self.waiting.clear()
        self.flushed = time.monotonic()

    def attempt(self, how: Callable[[], AbstractContextManager[Any]], write: Callable[[], None]) -> bool:
        """Whether something could be written."""
        try:
            with how():
                write()
        except NightlyError as error:
            self.problem = str(error)
            return False
        self.problem = ""
        return True

    def finish(self, results: Sequence[Result]) -> bool:
        """Write what is left and how the run ended, in one step; whether it could be written."""

        def write() -> None:
            if not self.begun:
                self.history.begin(self.run)
                self.waiting = {result.name: result for result in results}
            self.history.add(self.run, self.waiting.values())
            if self.run.state == COMPLETE:
                mark_short(self.history, self.run, results)
            self.history.update(self.run)

        return self.attempt(self.history.writing, write)


def take_environment(run: RunRow, environment: dict[str, Any]) -> None:
    """Put what the driver told into the run: part of it has fields of its own."""
    told = dict(environment)
    for key in ("torch", "torch_commit", "python"):
        value = told.pop(key, None)
        setattr(run, key, value if isinstance(value, str) and value else getattr(run, key))
    run.strict = int(told.pop("strict", run.strict) is True)
    run.environment = {**run.environment, **told}


def unchanged(history: History, run: RunRow) -> list[str]:
    """A line where a target whose torch the index decides has had the same build for long; the same line as on the night before."""
    before = history.runs(run.target_id, before=run, comparable=True) if run.target_id is not None and run.torch else []
    alike = list(itertools.takewhile(lambda past: (past.torch, past.torch_commit) == (run.torch, run.torch_commit), before))
    told = [note for past in alike[:1] for note in past.notes if note.startswith(UNCHANGED)]
    if told or not alike or parse_time(run.started) - parse_time(alike[-1].started) < STALE:
        return told
    return [f"{UNCHANGED} {alike[-1].day}: see whether the index still has new ones for this Python"]


class Night:
    """The work of one call of `run`; `stop` ends it from another thread or a signal. ``problems`` are lines about the night as a
    whole: where the history cannot be used, the targets are run and judged all the same."""

    def __init__(self, options: Options, progress: Progress):
        self.options, self.progress = options, progress
        self.runners: list[execute.Runner] = []
        self.stopping = threading.Event()
        self.problems: list[str] = []
        self.measuring = threading.Lock()

    def stop(self) -> None:
        """End what is under way and begin nothing any more."""
        self.stopping.set()
        for runner in list(self.runners):
            runner.stop()

    def run(self) -> list[Judgement]:
        """Validate all targets. Returns their judgements in the order of the targets.

        Raises:
            Busy: another run is at work on the history.
        """
        options = self.options
        with ExitStack() as stack:
            history = self.open(stack)
            targets.forget_unused(options.cache, options.keep_days, lambda text: self.progress.say("cache", text))
            suite = self.describe_suite()
            with ThreadPoolExecutor(max_workers=options.jobs) as pool:
                futures = [pool.submit(self.validate, history, target, suite) for target in options.targets]
                judgements = [future.result() for future in futures]
            self.problems += damage(history)
            return judgements

    def open(self, stack: ExitStack) -> History:
        """The history, ready to be written; where it cannot be, one that lasts as long as this night, with the nights that could be
        read from the file."""
        options = self.options
        say = lambda text: self.progress.say("history", text)  # noqa: E731
        try:
            with ExitStack() as attempt:
                attempt.enter_context(only_one(options.history, options.wait))
                attempt.enter_context(self.stopped_by_signals())
                history = attempt.enter_context(History(options.history, create=True, say=say))
                history.close_interrupted()
                history.prune(options.keep_days, say, self.stopping.is_set)
                stack.enter_context(attempt.pop_all())
                return history
        except Busy:
            raise
        except NightlyError as error:
            self.problems.append(f"nothing of this night is recorded: {error}")
        stack.enter_context(self.stopped_by_signals())
        return stack.enter_context(self.copy())

    def copy(self) -> History:
        """A history in memory, with all of the file if that can be read."""
        try:
            return History.copy_of(self.options.history)
        except NightlyError:
            return History(":memory:")

    def describe_suite(self) -> dict[str, Any]:
        """What is recorded of the suite: its version and commit, and why there is none."""
        folder = self.options.runner.parent
        commit, why_not = suite_commit(folder)
        return {
            "suite_version": suite_version(folder),
            "suite_commit": commit,
            "environment": {"suite_commit_unknown": why_not} if why_not else {},
        }

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """End the runners and record the interruption when this process is asked to end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup has some ignored
        former = {number: signal.signal(number, lambda *_: self.stop()) for number in heeded}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def validate(self, history: History, target: targets.Target, suite: dict[str, Any]) -> Judgement:
        """Prepare, run, record and judge one target. A mistake of nightly itself is this target's, and takes no other down."""
        run = RunRow(target.name, self.options.machine, now(), selection=" ".join(self.options.arguments), **copy.deepcopy(suite))
        try:
            return self.validate_run(history, target, run)
        except Exception as error:
            text: str = own_mistake(error)
            run.state, run.reason, run.finished = COULD_NOT_RUN, text, now()
            try:
                here = history.run(run.uid)
                if here is not None and here.state != COMPLETE:
                    history.update(run)
            except NightlyError:
                text += "; and the history cannot be written"
            return Judgement(run, changes=[Change("nightly failed", text=text)])

    def validate_run(self, history: History, target: targets.Target, run: RunRow) -> Judgement:
        """Prepare, run, record and judge one target."""
        options, say = self.options, lambda text: self.progress.say(target.name, text)
        recorder = Recorder(history, run)
        results: list[Result] = []
        try:
            if not options.runner.is_file():
                raise NightlyError(f"no runner at {options.runner}: name the suite's with --runner")
            requirements = options.runner.with_name("requirements.txt")
            python = targets.prepare(target, options.cache, requirements if requirements.exists() else None, say, self.stopping)
            results = self.execute(python, target, run, recorder)
            if run.state == COMPLETE and targets.floats(target):
                with suppress(NightlyError):  # the history cannot be read: that is told by itself
                    run.notes = [*run.notes, *unchanged(history, run)]
        except NightlyError as error:
            run.state, run.reason = COULD_NOT_RUN, str(error)
            if self.stopping.is_set():
                run.state, run.reason = INTERRUPTED, "it was asked to end before it had begun"
        run.finished = now()
        return self.judge(recorder, run, results)

    def execute(self, python: str, target: targets.Target, run: RunRow, recorder: Recorder) -> list[Result]:
        """The results of the runner under an interpreter; the run takes in how it went."""
        options = self.options

        def on_plan(count: int, environment: dict[str, Any]) -> None:
            recorder.plan(environment)
            self.progress.plan(target.name, count)

        def on_result(result: Result) -> None:
            recorder.result(result)
            self.progress.result(target.name, result)

        if self.stopping.is_set():
            raise NightlyError("asked to end before it had begun")
        threads = {"OMP_NUM_THREADS": str(max(1, execute.core_count() // options.jobs))} if options.jobs > 1 else {}
        runner = execute.Runner(python, options.runner, options.arguments, options.limits, on_result, on_plan, threads)
        self.runners.append(runner)
        if self.stopping.is_set():  # the call to end came in between
            runner.stop()
        outcome = runner.run()
        take_environment(run, outcome.environment)
        run.notes = outcome.notes
        run.state, run.reason = (COULD_NOT_RUN, outcome.reason) if outcome.reason else (COMPLETE, "")
        if outcome.interrupted:
            run.state, run.reason = INTERRUPTED, f"it was asked to end after {len(outcome.results)} tests"
        if options.speed and run.state == COMPLETE and not self.stopping.is_set():
            self.measure_speed(python, target, run)
        return outcome.results

    def measure_speed(self, python: str, target: targets.Target, run: RunRow) -> None:
        """Let the run take in how fast the sparse kernels are; one target at a time, for the others would disturb it."""
        with self.measuring:
            self.progress.say(target.name, "measuring the speed of the sparse kernels")
            try:
                readings, problems = speed.measure(python, stopping=self.stopping)
            except NightlyError as error:
                readings, problems = [], [str(error)]
        run.notes = [*run.notes, *problems]
        if readings:
            run.environment = {**run.environment, speed.KEY: speed.to_record(readings)}

    def judge(self, recorder: Recorder, run: RunRow, results: list[Result]) -> Judgement:
        """Record the end of a run and say what changed; where it cannot be recorded, judge it all the same."""
        recorded = recorder.finish(results)
        problems = [] if recorded else [Change("could not run", text=f"not recorded: {recorder.problem}")]
        if self.options.junit is not None:
            try:
                junit.write(self.options.junit, run, results)
            except NightlyError as error:
                problems.append(Change("could not run", text=str(error)))
        if recorded:
            judgement = judged(recorder.history, run, was_told, results)
        else:
            with self.copy() as memory:
                here = memory.run(run.uid)
                memory.forget([here.id] if here is not None and here.id is not None else [])
                memory.merge(run, results)
                judgement = judged(memory, run, was_told, results)
        judgement.changes += problems
        return judgement


def judged(history: History, run: RunRow, heard: Callable[[RunRow], bool], results: Collection[ResultLike] | None = None) -> Judgement:
    """The judgement of a run with these results (by default those in the history). Where the history does not give it, it is that of
    the run alone, in which all that fails is new; why, is a change of it and takes no other run down."""
    try:
        return judge(history, run, heard)
    except NightlyError as error:
        why = Change("could not run", text=str(error))
    except Exception as error:
        why = Change("nightly failed", text=own_mistake(error))
    judgement = Judgement(run)
    with suppress(Exception), History(":memory:") as memory:
        alone = replace(run)
        memory.merge(alone, history.results(run).values() if results is None else results)
        judgement = judge(memory, alone)
    judgement.changes.append(why)
    return judgement


def damage(history: History) -> list[str]:
    """A line about a history of which something could not be read."""
    if not history.damaged:
        return []
    return [f"history {history.path} is damaged in part, the rest was used: `python -m nightly check` names it, `forget` takes a run out"]


def own_mistake(error: BaseException) -> Mistake:
    """One line about a mistake of nightly itself: what was raised, and where; all of it goes to standard error if that is asked for."""
    if os.environ.get("NIGHTLY_TRACEBACK"):
        traceback.print_exception(error)
    frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    what = one_line("".join(traceback.format_exception_only(error)))
    return Mistake(f"a mistake of nightly itself: {what} ({', '.join(frames)}): please report this line")


class Progress:
    """Says on standard error how far a night is: a bar on a terminal, lines elsewhere, nothing unless asked to."""

    WIDTH = 30

    def __init__(self, verbose: bool, stream: TextIO | None = None):
        self.verbose, self.stream = verbose, stream or sys.stderr
        self.bar = verbose and self.stream.isatty()
        self.lock = threading.Lock()
        self.planned: dict[str, int] = {}
        self.seen: dict[str, set[str]] = {}

    def say(self, target: str, text: str) -> None:
        """A line about a target."""
        if self.verbose:
            with self.lock:
                self.put(f"{self.clear()}{one_line(target)}: {one_line(text)}\n")

    def put(self, text: str) -> None:
        try:
            print(text, end="", file=self.stream, flush=True)
        except OSError:  # nobody reads it any more
            self.verbose = self.bar = False

    def plan(self, target: str, count: int) -> None:
        """A target has so many tests."""
        self.planned[target] = count
        self.seen[target] = set()
        self.say(target, f"{count} tests")

    def result(self, target: str, result: Result) -> None:
        """A test of a target has ended."""
        if not self.verbose:
            return
        if result.outcome in BAD:
            self.say(target, f"{result.outcome}: {result.name}")
        with self.lock:
            self.seen.setdefault(target, set()).add(result.name)
            if self.bar:
                done, planned = sum(map(len, self.seen.values())), sum(self.planned.values())
                filled = self.WIDTH * done // max(planned, done, 1)
                line = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {done}/{planned} {one_line(result.name)}"
                self.put(f"{self.clear()}{line[:78]}")

    def close(self) -> None:
        """Take the bar away."""
        if self.bar:
            self.put(self.clear())

    def clear(self) -> str:
        return "\r\x1b[K" if self.bar else ""

"""One night: every target prepared, run, recorded and judged."""

import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nightly import execute, junit, targets
from nightly.compare import Change, Judgement, judge, mark_short
from nightly.history import COMPLETE, COULD_NOT_RUN, INTERRUPTED, History, RunRow, now
from nightly.outcomes import BAD, NightlyError
from nightly.texts import one_line

FLUSH_SECONDS = 1.0


@dataclass
class Options:
    """What `run` was asked to do."""

    history: Path
    cache: Path
    runner: Path
    targets: list
    arguments: list = field(default_factory=list)
    machine: str = field(default_factory=platform.node)
    limits: execute.Limits = execute.Limits()
    jobs: int = 1
    keep_days: float = 400.0
    junit: Path | None = None
    wait: float = 0.0


def suite_commit(folder):
    """The commit of a checkout, marked where its files differ from it; empty where there is none (or no git)."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("-dirty" if commit and git("status", "--porcelain", "--untracked-files=no") else "")
    except OSError:
        return ""


@contextmanager
def only_one(history, wait):
    """Hold the lock of a history; the system frees it when the process ends, however it ends.

    Raises:
        NightlyError: another process still holds it after ``wait`` seconds, or it cannot be made.
    """
    import filelock

    lock = filelock.FileLock(f"{history}.lock")
    try:
        Path(history).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait)
    except filelock.Timeout:
        advice = "wait for it (--wait SECONDS), or give this one its own --history"
        raise NightlyError(f"another run is at work on {history}: {advice}") from None
    except OSError as error:
        raise NightlyError(f"history {history}: {error.strerror}: name another place with --history") from None
    try:
        yield
    finally:
        lock.release()


class Recorder:
    """Brings the results of one run into the history as they come; keeps them if the history fails for a while."""

    def __init__(self, history, run):
        self.history, self.run = history, run
        self.waiting = {}
        self.flushed = time.monotonic()
        self.problem = ""

    def plan(self, environment):
        take_environment(self.run, environment)
        self.attempt(lambda: self.history.update(self.run))

    def result(self, result):
        self.waiting[result.name] = result
        if time.monotonic() - self.flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self):
        self.flushed = time.monotonic()
        if self.attempt(lambda: self.history.add(self.run, self.waiting.values())):
            self.waiting.clear()

    def attempt(self, write):
        try:
            write()
        except NightlyError as error:
            self.problem = str(error)
            return False
        self.problem = ""
        return True

    def finish(self):
        """Write what is left and how the run ended, in one step."""

        def write():
            with self.history.writing():
                self.history.add(self.run, self.waiting.values())
                self.history.update(self.run)

        return self.attempt(write)


def take_environment(run, environment):
    """Put what the driver told into the run: part of it has fields of its own."""
    told = dict(environment)
    for key in ("torch", "torch_commit", "python"):
        setattr(run, key, told.pop(key, None) or getattr(run, key))
    run.environment = told


class Night:
    """The work of one call of `run`; `stop` ends it from another thread or a signal."""

    def __init__(self, options, progress):
        self.options, self.progress = options, progress
        self.runners = []
        self.stopping = threading.Event()

    def stop(self):
        self.stopping.set()
        for runner in list(self.runners):
            runner.stop()

    def run(self):
        """Validate all targets. Returns their judgements in the order of the targets."""
        options = self.options
        with only_one(options.history, options.wait), History(options.history, create=True) as history, self.stopped_by_signals():
            history.close_interrupted()
            history.prune(options.keep_days)
            commit = suite_commit(options.runner.parent)
            with ThreadPoolExecutor(max_workers=options.jobs) as pool:
                futures = [pool.submit(self.validate, history, target, commit) for target in options.targets]
                return [future.result() for future in futures]

    @contextmanager
    def stopped_by_signals(self):
        """End the runners and record the interruption when this process is asked to end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, lambda *_: self.stop()) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def validate(self, history, target, commit):
        """Prepare, run, record and judge one target."""
        options, say = self.options, lambda text: self.progress.say(target.name, text)
        run = RunRow(target.name, options.machine, now(), suite_commit=commit, selection=" ".join(options.arguments))
        try:
            history.begin(run)
        except NightlyError as error:
            return Judgement(run, changes=[Change("could not run", text=str(error))])
        recorder = Recorder(history, run)
        results = []
        try:
            self.check_runner()
            requirements = options.runner.with_name("requirements.txt")
            python = targets.prepare(target, options.cache, requirements if requirements.exists() else None, say)
            results = self.execute(python, target, run, recorder)
        except NightlyError as error:
            run.state, run.reason = COULD_NOT_RUN, str(error)
        run.finished = now()
        if self.stopping.is_set():
            run.state, run.reason = INTERRUPTED, "it was asked to end before it had finished"
        return self.judge(history, recorder, run, results)

    def check_runner(self):
        if not self.options.runner.is_file():
            raise NightlyError(f"no runner at {self.options.runner}: name the suite's with --runner")
        if self.stopping.is_set():
            raise NightlyError("asked to end before it had begun")

    def execute(self, python, target, run, recorder):
        """The results of the runner under an interpreter; the run takes in how it went."""
        options = self.options

        def on_plan(count, environment):
            recorder.plan(environment)
            self.progress.plan(target.name, count)

        def on_result(result):
            recorder.result(result)
            self.progress.result(target.name, result)

        threads = {"OMP_NUM_THREADS": str(max(1, execute.core_count() // options.jobs))} if options.jobs > 1 else {}
        runner = execute.Runner(python, options.runner, options.arguments, options.limits, on_result, on_plan, threads)
        self.runners.append(runner)
        outcome = runner.run()
        take_environment(run, outcome.environment)
        run.notes = outcome.notes
        run.state, run.reason = (COULD_NOT_RUN, outcome.reason) if outcome.reason else (COMPLETE, "")
        return outcome.results

    def judge(self, history, recorder, run, results):
        """Record the end of a run and say what changed; what could not be recorded is told instead."""
        if run.state == COMPLETE:
            mark_short(history, run, results)
        recorded = recorder.finish()
        problems = []
        if self.options.junit is not None:
            try:
                junit.write(self.options.junit, run, results)
            except NightlyError as error:
                problems.append(Change("could not run", text=str(error)))
        if not recorded:
            problems.append(Change("could not run", text=recorder.problem))
            bad = [Change("note", text=f"not recorded: {result.name} {result.outcome}") for result in results if result.outcome in BAD]
            return Judgement(run, results={result.name: result for result in results}, changes=problems + bad)
        judgement = judge(history, run)
        judgement.changes += problems
        return judgement


def judged(history: History, run: RunRow) -> Judgement:
    """The judgement of a run; a mistake of nightly itself is a change of it, and takes no other run down."""
    try:
        return judge(history, run)
    except Exception as error:
        return Judgement(run, changes=[Change("nightly failed", text=own_mistake(error))])


def own_mistake(error: BaseException) -> str:
    """One line about a mistake of nightly itself: what was raised, and where."""
    frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
    what = one_line("".join(traceback.format_exception_only(error)))
    return f"a mistake of nightly itself: {what} ({', '.join(frames)}): please report this line"


class Progress:
    """Says on standard error how far a night is: a bar on a terminal, lines elsewhere, nothing unless asked to."""

    WIDTH = 30

    def __init__(self, verbose, stream=None):
        self.verbose, self.stream = verbose, stream or sys.stderr
        self.bar = verbose and self.stream.isatty()
        self.lock = threading.Lock()
        self.planned, self.seen = {}, {}

    def say(self, target, text):
        if self.verbose:
            with self.lock:
                print(f"{self.clear()}{target}: {text}", file=self.stream, flush=True)

    def plan(self, target, count):
        self.planned[target] = count
        self.seen[target] = set()
        self.say(target, f"{count} tests")

    def result(self, target, result):
        if not self.verbose:
            return
        if result.outcome in BAD:
            self.say(target, f"{result.outcome}: {result.name}")
        with self.lock:
            self.seen[target].add(result.name)
            if self.bar:
                done, planned = sum(map(len, self.seen.values())), sum(self.planned.values())
                filled = self.WIDTH * done // max(planned, 1)
                line = f"[{'#' * filled}{'.' * (self.WIDTH - filled)}] {done}/{planned} {result.name}"
                print(f"{self.clear()}{line[:78]}", end="", file=self.stream, flush=True)

    def close(self):
        if self.bar:
            print(self.clear(), end="", file=self.stream, flush=True)

    def clear(self):
        return "\r\x1b[K" if self.bar else ""

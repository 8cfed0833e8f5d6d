"""Runs the root runner as a process that may crash, hang or eat all memory, and gets a verdict for every test all the same.

The process is the target's interpreter with ``driver.py``, which tells on a pipe what each test does. When the process ends
with a test in flight, that test is recorded as crashed (or timed out) and a new process runs what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from nightly.driver import shorten
from nightly.files import scratch_folder
from nightly.intake import WORST_FIRST
from nightly.junit import area_of
from nightly.outcomes import CRASH, ERROR, FLAKY, NOT_AGAIN, NOT_RUN, OUTCOMES, RERUN, RUNNER_EXIT, TIMEOUT, NightlyError
from nightly.texts import EXCEPTION_LINE, clean, one_line, steady

DRIVER = Path(__file__).with_name("driver.py")
TICK = 0.05
STACK_DUMP_SECONDS = 0.5
OUTPUT_LINES = 60
RERUNS = 2
MAX_RERUN_TESTS = 30
MIB = 1 << 20
#: How the folders begin that hold the temporary files of what is run.
SCRATCH = "nightly-"
#: Bytes that are kept of a line of output, and of a line of the journal, the longest of which names every test.
OUTPUT_LINE, JOURNAL_LINE = 1 << 16, 16 * MIB
#: The suite's own exit status where there is no torch, or none that it can validate; its last line says which.
STATUS_NOTHING_TO_VALIDATE = 3


@dataclass(frozen=True)
class Limits:
    """What a run may take: seconds in all, seconds for one test (or for the start), bytes of resident memory (0: any)."""

    total: float = 3600.0
    test: float = 300.0
    memory: int = 0


@dataclass(frozen=True)
class Result:
    """What one test came to."""

    name: str
    area: str
    outcome: str
    seconds: float = 0.0
    message: str = ""


@dataclass
class Run:
    """What a whole run came to; ``reason`` is set when the runner did not get as far as its tests. One that was asked to end
    before it had finished is ``interrupted``: it has the results of the tests that had ended by then, and they are no verdict."""

    results: list[Result] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


#: The outcome, the seconds and the message of a test.
Verdict = tuple[str, float, str]


@dataclass
class Attempt:
    """What one process of the runner told before it ended, and how it ended."""

    plan: list[tuple[str, str]] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    stopped: dict[str, Verdict] = field(default_factory=dict)
    fixtures: list[dict[str, str]] = field(default_factory=list)
    in_flight: str | None = None
    in_flight_since: float = 0.0
    ended: bool = False
    killed_for: str = ""
    returncode: int = 0
    output: deque[str] = field(default_factory=lambda: deque(maxlen=OUTPUT_LINES))
    on_result: Callable[[Result], None] = lambda result: None
    scratch: str = field(default_factory=tempfile.gettempdir)

    def steady(self, text: str) -> str:
        """Text without what differs from one process to the next, the folder for its temporary files among it."""
        return steady(text.replace(self.scratch, tempfile.gettempdir()))

    def tail(self) -> str:
        """The last lines of output, cut in their middle where they are long."""
        return shorten(self.steady("\n".join(self.output)))

    def telling_line(self) -> str:
        """The line of output that says why it ended: that of the last exception, else the last one."""
        lines = [line.strip() for line in reversed(self.output) if line.strip()] or ["it printed nothing"]
        return one_line(next((line for line in lines if EXCEPTION_LINE.match(line)), lines[0]))

    def how(self) -> str:
        """How the process ended, in words."""
        if self.killed_for:
            return self.killed_for
        if self.returncode < 0:
            number = -self.returncode
            try:
                name = signal.Signals(number).name
            except ValueError:
                name = "unknown signal"
            hint = ": out of memory?" if number == signal.SIGKILL else ""
            return f"killed by signal {number} ({name}{hint})"
        return f"the process ended with exit status {self.returncode}"


def resident_bytes(pid: int) -> int:
    """The resident memory of a process, or 0 where the system does not tell (no /proc) or the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


class Runner:
    """The root runner under one interpreter.

    ``on_plan`` is called once with the number of tests and the environment; ``on_result`` with each `Result` as it comes, and
    again with the settled one of a test that was run again; both from the thread that calls `run`.
    """

    def __init__(
        self,
        python: str | Path,
        runner: str | Path,
        arguments: Sequence[str],
        limits: Limits,
        on_result: Callable[[Result], None] | None = None,
        on_plan: Callable[[int, dict[str, Any]], None] | None = None,
        extra_environment: dict[str, str] | None = None,
    ):
        self.python = str(python)
        self.runner = Path(runner)
        self.arguments = list(arguments)
        self.limits = limits
        self.on_result = on_result or (lambda result: None)
        self.on_plan = on_plan or (lambda count, environment: None)
        self.environment = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTHONHOME")}
        # One process: the seconds of a test are its own, and so is a crash. No colours: what is told is kept, and read by programs.
        self.environment.update(extra_environment or {}, PYTHONUNBUFFERED="1", AO_SPARSITY_ONE_PROCESS="1", PYTHON_COLORS="0")
        self.plan: dict[str, str] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()

    def stop(self) -> None:
        """End the process in flight, and start none any more."""
        self.stopping.set()
        if self.process is not None:
            kill_group(self.process)

    def run(self) -> Run:
        """Run every test, each failure again alone, and return the `Run`."""
        run = Run()
        deadline = time.monotonic() + self.limits.total
        done: dict[str, Result] = {}
        while True:
            attempt = self.attempt(deadline, skip=list(done), on_result=self.on_result)
            run.environment.update(attempt.environment)
            if self.plan is None:
                self.explain(run, attempt)
                return run
            found = self.verdicts(attempt, done)
            left = [name for name in self.plan if name not in done]
            if not any(name in found for name in left) and (attempt.ended or not self.stopping.is_set()):
                found.update({name: (NOT_RUN, 0.0, "the runner ended without running it") for name in left})
            for name, verdict in found.items():
                done[name] = Result(name, self.plan.get(name, "runner"), *verdict)
                if name not in attempt.stopped:
                    self.on_result(done[name])
            run.interrupted = self.stopping.is_set() and not all(name in done for name in self.plan)
            if run.interrupted or all(name in done for name in self.plan):
                break
            if not attempt.ended and attempt.in_flight is None:
                run.notes.append(f"the runner ended between two tests ({attempt.how()}); another process ran the rest")
        if not run.interrupted:
            self.rerun(done, deadline, run)
        run.results = list(done.values())
        return run

    def explain(self, run: Run, attempt: Attempt) -> None:
        """Say why the runner did not get as far as its tests."""
        if self.stopping.is_set():
            run.interrupted = True
            return
        run.reason = attempt.how() if attempt.killed_for else attempt.telling_line()
        if attempt.returncode != STATUS_NOTHING_TO_VALIDATE and not attempt.killed_for:
            run.reason += f" ({attempt.how()} before the first test)"

    def verdicts(self, attempt: Attempt, done: dict[str, Result]) -> dict[str, Verdict]:
        """Name -> verdict for every test that this attempt settles, unless it was asked to end: then the test in flight and those
        after it have none."""
        assert self.plan is not None, "a runner that got to its tests has told them"
        found = {name: verdict for name, verdict in attempt.stopped.items() if name not in done}
        if self.stopping.is_set() and not attempt.ended:
            return found
        left = [name for name in self.plan if name not in done and name not in found]
        modules = dict(attempt.plan or [])
        for fixture in attempt.fixtures:
            place, about = fixture["place"], f"{fixture['kind']} ({fixture['place']}): {fixture['message']}"
            if fixture["kind"].startswith("setUp"):
                hit = [name for name in left if f"{modules.get(name)}.{name}".startswith(place + ".")]
                found.update({name: (fixture["outcome"], 0.0, about) for name in hit})
                left = [name for name in left if name not in hit]
            else:
                found[f"{place.rpartition('.')[2]}.{fixture['kind']}"] = (fixture["outcome"], 0.0, about)
        if attempt.ended:
            if not left and (attempt.killed_for or attempt.returncode < 0):
                message = f"{attempt.how()} after the last test\n{attempt.tail()}"
                found[RUNNER_EXIT] = (TIMEOUT if attempt.killed_for else CRASH, 0.0, message)
            return found
        if attempt.killed_for == TOTAL_LIMIT or (attempt.plan is None and left):
            why = attempt.how() if attempt.plan is not None else f"the runner could not start again: {attempt.telling_line()}"
            found.update({name: (NOT_RUN, 0.0, why) for name in left if name != attempt.in_flight})
        if attempt.in_flight or (left and not found):
            culprit = attempt.in_flight or left[0]
            outcome = TIMEOUT if attempt.killed_for in (TEST_LIMIT, TOTAL_LIMIT) else CRASH
            seconds = time.monotonic() - attempt.in_flight_since if attempt.in_flight else 0.0
            found[culprit] = (outcome, seconds, f"{attempt.how()}\n{attempt.tail()}")
        return found

    def rerun(self, done: dict[str, Result], deadline: float, run: Run) -> None:
        """Run failures again, each alone in a new process, and settle which are flaky."""
        assert self.plan is not None
        names = [name for name, result in done.items() if result.outcome in RERUN and name in self.plan]
        if len(names) > MAX_RERUN_TESTS:
            run.notes.append(f"{len(names)} tests failed: only the first {MAX_RERUN_TESTS} were run {NOT_AGAIN}")
        for position, name in enumerate(names):
            first = done[name]
            for again in range(RERUNS if position < MAX_RERUN_TESTS else 0):
                if self.stopping.is_set():
                    run.interrupted = True
                    return
                if time.monotonic() >= deadline:
                    run.notes.append(f"no time was left to run {name} {NOT_AGAIN}")
                    break
                attempt = self.attempt(deadline, only=[name])
                if self.stopping.is_set() and name not in attempt.stopped:
                    run.interrupted = True
                    return
                outcome = attempt.stopped.get(name, (CRASH, 0.0, ""))[0]
                if outcome not in RERUN:
                    message = f"{first.outcome} in the whole run, {outcome} when run alone ({again + 1} of {RERUNS})\n{first.message}"
                    done[name] = replace(first, outcome=FLAKY, message=message)
                    self.on_result(done[name])
                    break

    def attempt(
        self,
        deadline: float,
        skip: Collection[str] = (),
        only: Collection[str] | None = None,
        on_result: Callable[[Result], None] = lambda result: None,
    ) -> Attempt:
        """Start the runner once and listen to it until it ends or has to be ended.

        Temporary files of it and its children go into a folder of its own, as one that is killed tidies nothing.
        """
        attempt = Attempt(on_result=on_result)
        with contextlib.ExitStack() as stack:
            try:
                scratch = stack.enter_context(scratch_folder(tempfile.gettempdir(), SCRATCH))
            except NightlyError as error:
                attempt.returncode = 3
                attempt.output.append(str(error))
                return attempt
            attempt.scratch = str(scratch)
            self.start_and_listen(attempt, deadline, skip, only)
        return attempt

    def start_and_listen(self, attempt: Attempt, deadline: float, skip: Collection[str], only: Collection[str] | None) -> None:
        """The attempt itself."""
        journal_read, journal_write = os.pipe()
        command = [self.python, "-u", str(DRIVER), str(journal_write), self.runner.name, *self.arguments]
        try:
            self.process = subprocess.Popen(
                command,
                cwd=self.runner.parent,
                env={**self.environment, "TMPDIR": attempt.scratch},
                pass_fds=[journal_write],
                start_new_session=True,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            os.close(journal_read)
            attempt.returncode = 3
            attempt.output.append(f"{self.python} cannot be started: {error.strerror}")
            return
        finally:
            os.close(journal_write)
        with self.process as process, os.fdopen(journal_read, "rb", buffering=0) as journal:
            if self.stopping.is_set():  # the call to stop came while this process was being started
                kill_group(process)
            with contextlib.suppress(BrokenPipeError):  # where it died at once, what it printed says why
                assert process.stdin is not None
                process.stdin.write(json.dumps({"skip": list(skip), "only": None if only is None else list(only)}).encode() + b"\n")
            self.listen(process, journal, attempt, deadline)
            kill_group(process)
            attempt.returncode = process.wait()
        self.process = None

    def listen(self, process: subprocess.Popen[bytes], journal: IO[bytes], attempt: Attempt, deadline: float) -> None:
        """Read the journal and the output until the process has ended; end it when it breaks a limit."""
        assert process.stdout is not None
        limits: list[tuple[Any, int]] = [(journal, JOURNAL_LINE), (process.stdout, OUTPUT_LINE)]
        lines = {source: LineReader(source.fileno(), longest) for source, longest in limits}
        last_event = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for source in lines:
                os.set_blocking(source.fileno(), False)
                selector.register(source, selectors.EVENT_READ)
            gone = False
            while True:
                readable = {key.fileobj for key, _ in selector.select(0 if gone else TICK)}
                ready = [source for source in lines if source in readable]  # the journal first: the start of a test clears the output
                for source in ready:
                    for line in lines[source].read():
                        if source is journal:
                            last_event = time.monotonic()
                            self.hear(line, attempt)
                        else:
                            attempt.output.append(line.decode(errors="replace"))
                    if lines[source].closed:
                        selector.unregister(source)
                if gone and not any(not lines[source].closed for source in ready):
                    return
                now = time.monotonic()
                if not attempt.killed_for:
                    attempt.killed_for = self.broken_limit(process, now - last_event, now >= deadline)
                    if attempt.killed_for:
                        self.end(process, lines[process.stdout], attempt)
                gone = process.poll() is not None

    def broken_limit(self, process: subprocess.Popen[bytes], silent_seconds: float, over: bool) -> str:
        """In words, the limit that the process breaks; empty if none."""
        if over:
            return TOTAL_LIMIT
        if silent_seconds > self.limits.test:
            return TEST_LIMIT
        if self.limits.memory and resident_bytes(process.pid) > self.limits.memory:
            return f"out of memory: more than {self.limits.memory / MIB:.0f} MiB"
        return ""

    def end(self, process: subprocess.Popen[bytes], output: LineReader, attempt: Attempt) -> None:
        """End the process after it was asked to print where it stands (SIGUSR1, which the driver answers with a traceback)."""
        if attempt.killed_for in (TEST_LIMIT, TOTAL_LIMIT) and attempt.plan is not None:
            process.send_signal(signal.SIGUSR1)
            until = time.monotonic() + STACK_DUMP_SECONDS
            while time.monotonic() < until and process.poll() is None:
                attempt.output.extend(line.decode(errors="replace") for line in output.read())
                self.stopping.wait(TICK)
        kill_group(process)

    def hear(self, line: bytes, attempt: Attempt) -> None:
        """Take one event of the driver into the attempt. What is left of a line that a crash cut off says nothing, and neither does
        what a test wrote there."""
        tell = None
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            event = json.loads(line)
            tell = self.take(event.pop("event"), event, attempt)
        if tell is not None:
            tell()

    def take(self, kind: str, event: dict[str, Any], attempt: Attempt) -> Callable[[], None] | None:
        """Take one event, whose fields are not to be trusted. Returns what is to be called for those who listen, if anything."""
        if kind == "environment":
            attempt.environment.update(event)
        elif kind == "plan":
            attempt.plan = [(clean(name), clean(module)) for name, module in event["tests"]]
            if self.plan is None:
                self.plan = {name: area_of(module) for name, module in attempt.plan}
                return partial(self.on_plan, len(self.plan), attempt.environment)
        elif kind == "start":
            attempt.in_flight, attempt.in_flight_since = clean(event["test"]), time.monotonic()
            attempt.output.clear()
        elif kind == "stop":
            return partial(attempt.on_result, self.take_verdict(event, attempt))
        elif kind == "fixture":
            told = {key: clean(event[key]) for key in ("kind", "place", "outcome", "message")}
            attempt.fixtures.append({**told, "outcome": known_outcome(told["outcome"])})
        elif kind == "end":
            attempt.ended = True
        return None

    def take_verdict(self, event: dict[str, Any], attempt: Attempt) -> Result:
        """Take the end of a test; of several that have one name, the worst."""
        name, seconds = clean(event["test"]), max(float(event["seconds"]), 0.0)
        verdict = known_outcome(event["outcome"]), seconds if seconds < float("inf") else 0.0, attempt.steady(clean(event["message"]))
        attempt.in_flight = None
        before = attempt.stopped.get(name, verdict)
        attempt.stopped[name] = min(before, verdict, key=lambda each: WORST_FIRST.index(each[0]))
        return Result(name, (self.plan or {}).get(name, "main"), *attempt.stopped[name])


def known_outcome(outcome: object) -> str:
    """An outcome that the driver told; an error if it is none."""
    return outcome if isinstance(outcome, str) and outcome in OUTCOMES else ERROR


TOTAL_LIMIT = "the time limit of the whole run was reached"
TEST_LIMIT = "the time limit of one test was reached"


class LineReader:
    """Cuts what a non-blocking descriptor gives into lines, and keeps of each its ``longest`` first bytes."""

    def __init__(self, descriptor: int, longest: int):
        self.descriptor, self.longest = descriptor, longest
        self.rest = bytearray()
        self.closed = False

    def read(self) -> list[bytes]:
        """The lines that are complete by now; at the end of the stream, the rest too."""
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return []
        self.closed = not data
        complete = []
        for number, piece in enumerate(data.split(b"\n")):
            if number or (self.closed and self.rest):
                complete.append(bytes(self.rest))
                self.rest.clear()
            self.rest += piece[: self.longest - len(self.rest)]
        return complete


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End a process and all it started in its group, at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone, or a zombie (macOS)
        process.poll()


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's if that is less; 0 if unknown."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (ValueError, OSError):
        return 0
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(place).read_text()))
        except (OSError, ValueError):
            continue
    return min(found)

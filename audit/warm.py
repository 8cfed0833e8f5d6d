"""The process that asks the tests about changed copies of the packages: ``python warm.py JOB.json``.

It imports what the tests need, but neither the packages under test nor the tests. Every question is answered by a fork of it,
which takes the packages from a copy, loads the tests and runs them. Answers go to standard output, a line of JSON each.

JOB: ``tests`` (folder with the runner), ``runner``, ``patterns``, ``plain`` (folder with the unchanged copies), ``packages``,
``imports`` (modules to import beforehand), ``workers``, ``timeout`` (seconds) and ``questions`` (a file, a line of JSON each).

A question: ``name``; ``sources`` (changed text by path below ``plain``); ``only`` (ids of tests, in this order; null: all, as
loaded); ``stop`` (stop at the first test that is not as it should be); ``watch`` (a file for what each test reaches, or null);
``probes`` (pieces of code to be run in the place of tests, each in a process of its own, or null).

An answer: ``name``; ``status`` (of the process: 0, negative for a signal, null for a time-out) and ``at`` (the last test begun).
Where the process ended by itself also ``outcomes``, ``details``, ``seconds``, ``known`` (the mark of each test that has one) and
``imported``; for probes ``printed``, a text each; or ``error``, where nothing could be run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from pathlib import Path
from typing import TextIO

import suite

RULES = "torch._dynamo.trace_rules"


def main(job_file: str) -> int:
    job = json.loads(Path(job_file).read_text())
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for name in job["imports"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[str, Path, float]] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with open(job["questions"]) as questions:
            for line in questions:
                question = json.loads(line)
                folder = Path(tempfile.mkdtemp(prefix="audit-"))
                pid = os.fork()
                if not pid:
                    _child(job, question, folder)
                running[pid] = question["name"], folder, time.monotonic() + job["timeout"]
                while len(running) >= job["workers"]:
                    _reap(running, answers)
        while running:
            _reap(running, answers)
    finally:  # whoever asked waits for no more answers; the children are in sessions of their own, and a changed copy may never end
        for pid in running:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return 0


def _reap(running: dict[int, tuple[str, Path, float]], answers: TextIO) -> None:
    """Wait until a child ends or its time is over, and tell its answer."""
    while True:
        for pid, (name, folder, end) in running.items():
            done, status = os.waitpid(pid, os.WNOHANG)
            late = not done and time.monotonic() > end
            if late:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if done or late:
                del running[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)  # what it may have started
                at = folder / "at"
                answer = {"name": name, "status": None if late else os.waitstatus_to_exitcode(status)}
                answer["at"] = at.read_text() if at.is_file() else ""
                if (folder / "answer.json").is_file():
                    answer |= json.loads((folder / "answer.json").read_text())
                shutil.rmtree(folder, ignore_errors=True)
                answers.write(json.dumps(answer) + "\n")
                return
        time.sleep(0.02)


def _child(job: dict, question: dict, folder: Path) -> None:
    """Answer a question, write ``answer.json`` and leave."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 0
    try:
        answer = _answer(job, question, folder)
    except BaseException:
        answer = {"error": traceback.format_exc(limit=-3)}
    try:
        (folder / "answer.json").write_text(json.dumps(answer))
    except BaseException:
        status = 1
    os._exit(status)


def _answer(job: dict, question: dict, folder: Path) -> dict:
    overlay, here = folder / "overlay", folder / "here"
    shutil.copytree(job["plain"], overlay, copy_function=_link)
    for path, text in question["sources"].items():
        # Bytecode goes, too: a text of the same length in the same second would be taken for the one that it was made of.
        for stale in (overlay / path, Path(importlib.util.cache_from_source(str(overlay / path)))):
            stale.unlink(missing_ok=True)
        (overlay / path).write_text(text)
    here.mkdir()
    os.chdir(here)
    _take_from(overlay, job["packages"])
    if question["probes"]:
        *others, last = question["probes"]
        return {"printed": [*map(_printed_apart, others), _printed(last)]}
    watch = Watch(overlay, question["watch"]) if question["watch"] else None
    tests = suite.load(Path(job["tests"]), job["runner"], job["patterns"])
    chosen = tests.values() if question["only"] is None else [tests[name] for name in question["only"] if name in tests]

    def begin(test):
        (folder / "at").write_text(test)
        if watch:
            watch.begin(test)

    result = suite.run(chosen, failfast=question["stop"], on_start=begin)
    if watch:
        watch.end()
    return {
        "outcomes": result.outcomes,
        "seconds": result.seconds,
        "details": {suite.name(test): suite.said(text) for test, text in [*result.failures, *result.errors]},
        "known": {name: mark for name, test in tests.items() if (mark := suite.known_defect(test)) is not None},
        "imported": list(sys.modules) if question["watch"] else [],
    }


def _link(source: str, target: str) -> None:
    """Give a file, which is never written to, a second name, which is quicker than a copy; between file systems a copy must do."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _printed_apart(code: str) -> str:
    """What code prints in a fork, which may end by a signal."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with os.fdopen(write, "w", errors="backslashreplace") as stream:
            stream.write(_printed(code))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    _, status = os.waitpid(pid, 0)
    return f"{text}process ended with status {os.waitstatus_to_exitcode(status)}\n" if status else text


def _printed(code: str) -> str:
    """What code prints, and the exception that ends it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(code, "probe", "exec"), {"__name__": "probe"})
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    return out.getvalue()


def _take_from(overlay: Path, packages: list[str]) -> None:
    """From now on, here and in processes started here, the packages are those of ``overlay``, freshly imported."""
    import sitecustomize  # the overlay's: its folder is on PYTHONPATH

    os.environ.update(AUDIT_OVERLAY=str(overlay), AUDIT_PACKAGES=":".join(packages))
    finder = sitecustomize.OverlayFinder(str(overlay), packages)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    old = {name: module for name, module in sys.modules.items() if any(name == p or name.startswith(p + ".") for p in packages)}
    for name in old:
        del sys.modules[name]
        parent, _, own = name.rpartition(".")
        if parent in sys.modules and parent not in old:
            vars(sys.modules[parent]).pop(own, None)
    for package in dict.fromkeys(name for name in packages if name in old):
        importlib.import_module(package)
    _renew_tables(old)
    if RULES in sys.modules:
        finder.keep_rules(sys.modules[RULES])


def _renew_tables(old: dict[str, types.ModuleType]) -> None:
    """Tables of other modules of torch.ao that hold a class of the packages get the new one."""
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.ao.") and name not in old:
            for table in [value for value in vars(module).values() if type(value) is dict]:
                for key, value in table.items():
                    if isinstance(value, type) and value.__module__ in old:
                        home, own = value.__module__, value.__name__
                        if vars(old[home]).get(own) is value:
                            table[key] = getattr(importlib.import_module(home), own)


class Watch:
    """Notes which functions of the packages each test calls, in any thread or fork: a line ``test, path, line`` each.

    A test that starts another program is noted with ``*`` for the path: it may reach everything.
    """

    def __init__(self, overlay: Path, out: str):
        self.inside = str(overlay) + os.sep
        self.descriptor = os.open(out, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.paths: dict[str, str | None] = {}
        self.seen: set[tuple[str, int]] = set()
        self.test = ""
        sys.addaudithook(self._started)
        threading.setprofile(self._called)
        sys.setprofile(self._called)

    def begin(self, test: str) -> None:
        self.test = test
        self.seen.clear()

    def end(self) -> None:
        self.test = ""
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def _note(self, path: str, line: int) -> None:
        if self.test and (path, line) not in self.seen:
            self.seen.add((path, line))
            os.write(self.descriptor, f"{self.test}\t{path}\t{line}\n".encode())

    def _called(self, frame: types.FrameType, event: str, argument: object) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            if name not in self.paths:
                self.paths[name] = name[len(self.inside) :] if name.startswith(self.inside) else None
            path = self.paths[name]
            if path is not None:
                self._note(path, frame.f_code.co_firstlineno)

    def _started(self, event: str, arguments: tuple) -> None:
        if event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            self._note("*", 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""A child process for a function that may crash, so that it costs one test."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

# In the environment of a run whose output a program reads: no JUnit XML beside it, no colours in it (Python 3.14's, under FORCE_COLOR).
TO_BE_READ = {"CI": "", "PYTHON_COLORS": "0"}

_WINDOWS_FAULTS = {0xC0000005: "SIGSEGV", 0xC0000094: "SIGFPE", 0xC0000374: "SIGABRT"}
# macOS has fork, but its system libraries, the BLAS among them, do not survive it.
METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else "spawn"

# The program that started this one may have left SIGCHLD ignored: then no process is told how its children end, and a failure is taken
# for a success, by torch's --subprocess for one.
if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class ProcessDied(Exception):
    """The child ended without an answer; the message names the signal (``SIGSEGV``), the exit status or the timeout."""


def run_in_child(function: Callable, *args: Any, timeout: float = 60) -> Any:
    """Call ``function(*args)`` in a child process and return its result or raise its exception.

    The child is forked where the platform allows (a fresh interpreter costs a second), prints nothing and dumps no core.

    Args:
        function: a module-level function; its result or exception must be picklable.
        timeout: seconds after which the child is killed.

    Raises:
        ProcessDied: if the child ended by a signal, or without an answer, or did not end.
    """
    context: Any = multiprocessing.get_context(METHOD)
    answer, sender = context.Pipe(duplex=False)
    process = started(context.Process(target=_answer, args=(sender, function, args), daemon=True))
    sender.close()
    try:
        if not answer.poll(timeout):
            process.kill()
            raise ProcessDied(f"timeout after {timeout} s")
        try:
            succeeded, value = answer.recv()
        except EOFError:
            process.join()
            raise ProcessDied(cause_of_death(process.exitcode)) from None
        process.join()
    finally:
        answer.close()
    if succeeded:
        return value
    raise value


def started(process: Any) -> Any:
    """Start a process of multiprocessing and return it; that torch has threads is known, Python 3.12 and newer warn of it at a fork."""
    this = multiprocessing.current_process()
    daemon, this.daemon = this.daemon, False  # a worker of a multiprocessing.Pool could not start one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    finally:
        this.daemon = daemon
    return process


def _answer(sender, function, args):
    """In the child: quiet, without a core dump, send back ``(succeeded, value)``."""
    quieten()
    try:
        sender.send((True, function(*args)))
    except Exception as error:
        sender.send((False, error))


def quieten() -> None:
    """Print nothing and dump no core."""
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        import resource
    except ImportError:  # not on Windows
        resource = None  # type: ignore[assignment]
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def cause_of_death(exitcode: int) -> str:
    """How a process ended that gave no answer: the name of its signal, else its exit status."""
    if exitcode < 0:
        return signal.Signals(-exitcode).name
    return _WINDOWS_FAULTS.get(exitcode & 0xFFFFFFFF, f"exit status {exitcode} without an answer")

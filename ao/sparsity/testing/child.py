"""Run a function in a child process, so that a crash of PyTorch costs one test and not the suite."""

import faulthandler
import multiprocessing
import os
import signal
import sys

_WINDOWS_FAULTS = {0xC0000005: "SIGSEGV", 0xC0000094: "SIGFPE", 0xC0000374: "SIGABRT"}
# macOS has fork, but its system libraries, the BLAS among them, do not survive it.
_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else "spawn"


class ProcessDied(Exception):
    """The child ended without an answer; the message names the signal (``SIGSEGV``), the exit status or the timeout."""


def run_in_child(function, *args, timeout=60):
    """Call ``function(*args)`` in a child process and return its result or raise its exception.

    The child is forked where the platform allows (a fresh interpreter costs a second), prints nothing and dumps no core.

    Args:
        function: a module-level function; its result or exception must be picklable.
        timeout: seconds after which the child is killed.

    Raises:
        ProcessDied: if the child ended by a signal, or without an answer, or did not end.
    """
    context = multiprocessing.get_context(_METHOD)
    answer, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        if not answer.poll(timeout):
            process.kill()
            raise ProcessDied(f"timeout after {timeout} s")
        try:
            succeeded, value = answer.recv()
        except EOFError:
            process.join()
            raise ProcessDied(_cause(process.exitcode)) from None
        process.join()
    finally:
        answer.close()
    if succeeded:
        return value
    raise value


def _answer(sender, function, args):
    """In the child: quiet, without a core dump, send back ``(succeeded, value)``."""
    faulthandler.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        import resource
    except ImportError:  # not on Windows
        resource = None
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sender.send((True, function(*args)))
    except Exception as error:
        sender.send((False, error))


def _cause(exitcode):
    if exitcode < 0:
        return signal.Signals(-exitcode).name
    return _WINDOWS_FAULTS.get(exitcode & 0xFFFFFFFF, f"exit status {exitcode} without an answer")

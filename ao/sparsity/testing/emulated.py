"""In a root of another architecture: processes that Python starts are emulated as it is itself, though the kernel does not know how.

ao.sparsity.testing.roots copies this file into such a root, where each Python imports it at its start. It imports nothing of the
project.
"""

import os
import typing

import _posixsubprocess


def start(emulator: str) -> None:
    """From now on let ``emulator`` run what subprocess and multiprocessing start here; a script is given to its interpreter."""
    fork_exec = _posixsubprocess.fork_exec

    def emulated(args: typing.Sequence, candidates: typing.Sequence, *rest: typing.Any) -> int:
        program = next((path for path in candidates if os.path.isfile(path)), None)
        if program is None:
            return fork_exec(args, candidates, *rest)
        command = [os.fsencode(part) for part in (emulator, "-0", *_interpreted(os.fsencode(program), [os.fsencode(arg) for arg in args]))]
        return fork_exec(command, [os.fsencode(emulator)], *rest)

    _posixsubprocess.fork_exec = emulated  # type: ignore[assignment]
    import subprocess  # here: it takes fork_exec when it is imported

    subprocess._USE_POSIX_SPAWN = False  # type: ignore[misc]  # Python 3.13 and newer start what has a path by posix_spawn


def _interpreted(program: bytes, args: list) -> list:
    """Name, program and arguments of the process for ``program``: its interpreter where it is a script."""
    with open(program, "rb") as file:
        first = file.readline(1024)
    if first[:2] != b"#!":
        return [args[0], program, *args[1:]]
    interpreter, *option = first[2:].split(None, 1)
    return [interpreter, interpreter, *(word.strip() for word in option), program, *args[1:]]

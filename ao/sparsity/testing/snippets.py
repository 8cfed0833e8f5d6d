"""Reproductions: run one as it would be pasted, and say what it prints."""

import builtins
import contextlib
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence

import torch

from ao.sparsity.testing.child import ProcessDied, run_in_child


ROOT = pathlib.Path(__file__).resolve().parents[3]
START = "import sys; from ao.sparsity.testing import snippets; print(snippets.run(sys.stdin.read()))"


def printed(source: str, fresh: bool = False, timeout: float = 300) -> str:
    """What ``source`` prints in a process of its own, with the exception or the signal that ends it as the last line.

    Args:
        source: statements, as they would be pasted at a prompt.
        fresh: start a new interpreter, which takes seconds, instead of a child that knows what this process did before.
        timeout: seconds after which the process is killed.

    Returns:
        str: the lines, with addresses in memory replaced by ``0x...``.
    """
    try:
        text = _run_in_interpreter(source, timeout) if fresh else run_in_child(run, source, timeout=timeout)
    except ProcessDied as death:
        text = f"killed: {death}"
    return _without_addresses(text)


def printed_in_turn(sources: Sequence[str], timeout: float = 300) -> list[str]:
    """What each of ``sources`` prints, in one child that runs them in turn, which is quicker than a child for each.

    Where one ends the child, it is run in a child of its own, and those after it in another; ``timeout`` is for each child.
    """
    texts: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "texts")
        while len(texts) < len(sources):
            path.touch()
            with contextlib.suppress(ProcessDied):
                run_in_child(_run_in_turn, sources[len(texts) :], path, timeout=timeout)
            texts += [_without_addresses(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
            path.unlink()
            if len(texts) < len(sources):
                texts.append(printed(sources[len(texts)], timeout=timeout))
    return texts


def _run_in_turn(sources: Sequence[str], path: pathlib.Path) -> None:
    """In a child: a line of JSON for what each prints."""
    for source in sources:
        line = json.dumps(run(source)) + "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def _without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x...", text)


def _run_in_interpreter(source: str, timeout: float) -> str:
    command = [sys.executable, "-c", START]
    try:
        process = subprocess.run(command, input=source, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ProcessDied(f"timeout after {timeout} s") from None
    if process.returncode < 0:
        raise ProcessDied(signal.Signals(-process.returncode).name)
    return process.stdout.strip("\n")


def run(source: str) -> str:
    """Execute ``source`` here, and return what it prints; the first line of an exception is the last line."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)  # a fresh process draws other numbers every time
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            exec(compile(source, "<reproduce>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            print(f"{type(error).__name__}: {first_line}"[:200])
    return "\n".join(line.rstrip() for line in output.getvalue().strip("\n").splitlines())

"""Reproductions: run one as it would be pasted, and say what it prints."""

import builtins
import contextlib
import io
import re
import warnings

import torch

from ao.sparsity.testing.child import ProcessDied, run_in_child


def printed(source: str, timeout: float = 300) -> str:
    """What ``source`` prints in a process of its own, with the exception or the signal that ends it as the last line.

    Args:
        source: statements, as they would be pasted at a prompt.
        timeout: seconds after which the process is killed.

    Returns:
        str: the lines, with addresses in memory replaced by ``0x...``.
    """
    try:
        text = run_in_child(_run, source, timeout=timeout)
    except ProcessDied as death:
        text = f"killed: {death}"
    return re.sub(r"0x[0-9a-f]+", "0x...", text)


def _run(source: str) -> str:
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

"""Hands a night's news to a command of the user's, which sends it wherever it is wanted."""

import json
import os
import subprocess
from typing import Any

from nightly.texts import one_line

LIMIT_SECONDS = 120


def notify(command: str, told: dict[str, Any]) -> str:
    """Run a shell command with a night's digest as JSON on its standard input, if there is news.

    ``NIGHTLY_HEADLINE``, ``NIGHTLY_VERDICT`` and ``NIGHTLY_STATUS`` are in its environment.

    Returns:
        str: a line if it failed, else nothing.
    """
    if not told["news"]:
        return ""
    about = {"NIGHTLY_HEADLINE": one_line(told["headline"]), "NIGHTLY_VERDICT": told["verdict"], "NIGHTLY_STATUS": str(told["status"])}
    try:
        done = subprocess.run(
            command,
            shell=True,
            input=json.dumps(told, indent=2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT_SECONDS,
            env={**os.environ, **about},
        )
    except subprocess.TimeoutExpired:
        return f"--notify {one_line(command)}: not done after {LIMIT_SECONDS} s"
    except OSError as error:
        return f"--notify {one_line(command)}: {error.strerror}"
    if done.returncode == 0:
        return ""
    last = (done.stdout.strip() or "it printed nothing").splitlines()[-1]
    return f"--notify {one_line(command)}: exit status {done.returncode}: {one_line(last)}"

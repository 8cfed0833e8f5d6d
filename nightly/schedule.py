"""The line that makes cron or systemd run the night, and the watch over whether it did."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nightly.files import write_whole
from nightly.history import History, Target, age
from nightly.outcomes import CommandLineError, NightlyError
from nightly.texts import one_line

#: What marks the crontab line that belongs to a checkout, so that installing twice is once.
MARK = "# nightly of"
UNIT = "ao-sparsity-nightly"
#: A target without a record for so long counts as given up, as long as others have records.
RETIRED_SECONDS = 30 * 86400
#: Where a shell finds programs, Python its packages and programs their libraries.
PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_time_of_day(text: str) -> tuple[int, int]:
    """``02:30`` as (2, 30).

    Raises:
        ValueError: it is no time of day.
    """
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    hour, minute = map(int, found.groups()) if found else (-1, -1)
    if not (0 <= hour < 24 and 0 <= minute < 60):
        raise ValueError(f"{text!r} is no time of day: write it as 02:30")
    return hour, minute


def parse_age(text: str) -> float:
    """``26h`` as seconds; units s, m, h, d.

    Raises:
        ValueError: it is no age.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
    if not found or not float(found[1]):
        raise ValueError(f"{text!r} is no age: write it as 26h or 2d")
    return float(found[1]) * UNITS[found[2]]


def night_command(checkout: Path, arguments: Sequence[str]) -> str:
    """The shell command of a night, which needs nothing of its surroundings: cron gives a bare environment.

    What tells programs and packages where to be found, as the modules of an HPC centre do, is as it is now.

    Raises:
        CommandLineError: it is longer than a line, which is all that cron and systemd take.
    """
    paths = {"PATH": os.defpath, **{name: os.environ[name] for name in PATHS if name in os.environ}}
    words = ["env", *(f"{name}={value}" for name, value in paths.items()), sys.executable, "-m", "nightly", "run", *arguments]
    broken = next((word for word in (*words, str(checkout)) if "".join(word.splitlines()) != word), None)
    if broken is not None:
        raise CommandLineError(f"cron and systemd take one line, not {one_line(broken)!r}: put it into a script and name that")
    return f"cd {shlex.quote(str(checkout))} && {shlex.join(words)}"


def crontab_line(checkout: Path, arguments: Sequence[str], time_of_day: tuple[int, int]) -> str:
    """The line for ``crontab -e``; a % has a meaning of its own there."""
    hour, minute = time_of_day
    command = night_command(checkout, arguments).replace("%", "\\%")
    return f"{minute} {hour} * * * {command} {MARK} {str(checkout).replace('%', chr(92) + '%')}"


def systemd_units(checkout: Path, arguments: Sequence[str], time_of_day: tuple[int, int]) -> dict[str, str]:
    """File name -> content of the user's service and timer."""
    hour, minute = time_of_day
    command = night_command(checkout, arguments).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    unit = "[Unit]\nDescription=Nightly validation of PyTorch's sparsity stack\n\n"
    service = f'{unit}[Service]\nType=oneshot\nExecStart=/bin/sh -c "{command}"\n'
    timer = f"{unit}[Timer]\nOnCalendar=*-*-* {hour:02}:{minute:02}:00\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    return {f"{UNIT}.service": service, f"{UNIT}.timer": timer}


def run_tool(command: Sequence[str], what: str, text: str | None = None) -> str:
    """Run one of the system's tools.

    Raises:
        NightlyError: it is not there, or it failed.
    """
    if shutil.which(command[0]) is None:
        raise NightlyError(f"{command[0]} is not installed here: install it, or let another scheduler run the printed command")
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise NightlyError(f"{what}: {one_line(lines[-1])}")
    return done.stdout


def write_crontab(line: str) -> None:
    """Put a line into the user's crontab in place of an earlier one of the same checkout; the other lines stay."""
    if shutil.which("crontab") is None:
        raise NightlyError("crontab is not installed here: install cron, or use --systemd")
    listed = subprocess.run(["crontab", "-l"], capture_output=True, text=True)
    if listed.returncode and "no crontab" not in listed.stderr:
        raise NightlyError(f"crontab -l: {listed.stderr.strip()}")
    mark = line[line.index(MARK) :]
    kept = [other for other in listed.stdout.splitlines() if not other.endswith(mark)] if not listed.returncode else []
    run_tool(["crontab", "-"], "crontab", "\n".join([*kept, line]) + "\n")


def write_systemd(units: dict[str, str]) -> None:
    """Write the units for the present user and start the timer."""
    try:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    except RuntimeError:
        raise NightlyError("this user has no home folder: set HOME, or XDG_CONFIG_HOME") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in units.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise NightlyError(f"{folder}: {error.strerror}") from None
    run_tool(["systemctl", "--user", "daemon-reload"], "systemctl")
    run_tool(["systemctl", "--user", "enable", "--now", f"{UNIT}.timer"], "systemctl")


def given_up(newest: Mapping[Target, tuple[str | None, str]], limit: float) -> dict[Target, str]:
    """Those of `History.newest` that have been silent for so long that they count as given up, with the start of their last run; none
    unless another has a complete record that is younger than ``limit`` seconds."""
    alive = any(complete and age(complete) <= limit for complete, _ in newest.values())
    return {target: latest for target, (_, latest) in newest.items() if alive and age(latest) > max(RETIRED_SECONDS, limit)}


def silent_targets(history: History, limit: float, names: Sequence[str]) -> list[str]:
    """Lines about targets whose newest complete run is older than ``limit`` seconds; empty when all have reported.

    ``names`` restricts it to these targets, each of which must exist; else all are watched but those that are `given_up`.
    """
    newest = history.newest()
    lines = [f"{name}: no such target in {history.path}" for name in names if name not in {target.name for target in newest}]
    left = () if names else given_up(newest, limit)
    watched = {target: starts for target, starts in newest.items() if (not names or target.name in names) and target not in left}
    if not watched and not lines:
        lines.append(f"no target in {history.path} has ever reported")
    for target, (complete, _) in watched.items():
        if complete is None or age(complete) > limit:
            silent = f"the last complete record, of {complete}, is older than {limit / 3600:g} h"
            lines.append(f"{target.name} on {target.machine}: {silent if complete else 'there is no complete record'}")
    return lines

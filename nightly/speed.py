"""Is sparse faster? The time of the sparse kernels over that of the dense ones, by night and as a table."""

import json
import math
import os
import re
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from nightly.outcomes import ALL_WELL, COULD_NOT_RUN, NightlyError
from nightly.targets import Tool, find_python

STOPWATCH = Path(__file__).with_name("stopwatch.py")
#: Seconds of measuring, and seconds after which a measurement that does not end is given up.
SECONDS, LIMIT_SECONDS = 15.0, 120.0
#: A ratio is slower when it is above this many times the median of earlier nights, in two nights running.
SLOWER_FACTOR, NIGHTS_RUNNING = 1.25, 2
#: How many earlier nights that median is taken from, and how many it needs.
NIGHTS_BACK, NIGHTS_NEEDED = 10, 2
#: How many runs hold those nights, a few without speeds among them.
RUNS_BACK = 2 * (NIGHTS_RUNNING + NIGHTS_BACK)
#: The key under which a run's environment holds its ratios.
KEY = "speed"
BAR_WIDTH = 32

Reading = dict[str, Any]


def key_of(reading: Reading) -> str:
    """The name of a reading in the history: ``fbgemm static 1024x1024 90 %``."""
    return f"{reading['what']} {reading['zeros'] * 100:g} %"


def measure(python: str, seconds: float = SECONDS, stopping: threading.Event | None = None) -> tuple[list[Reading], list[str]]:
    """The readings of an interpreter's torch, as `stopwatch` gives them, and lines about what could not be timed; it is ended when
    ``stopping`` is set.

    Raises:
        NightlyError: the measurement did not come to its end.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = Tool(stopping).run([python, str(STOPWATCH), str(seconds)], "speed", LIMIT_SECONDS, environment)
    except subprocess.TimeoutExpired:
        raise NightlyError(f"speed: {python} had not measured it within {LIMIT_SECONDS:g} s") from None
    except OSError as error:
        raise NightlyError(f"speed: {python} cannot be started: {error.strerror}") from None
    lines = done.stdout.strip().splitlines()
    try:
        told = json.loads(lines[-1])
        readings = [
            reading for reading in told["ratios"] if all(is_positive(reading[key]) for key in ("ratio", "sparse", "dense", "zeros"))
        ]
        return readings, [f"speed: {line}" for line in told["problems"]]
    except (IndexError, ValueError, KeyError, TypeError):
        said = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()[-1]
        raise NightlyError(f"speed: {python}: {said} (exit status {done.returncode})") from None


def is_positive(value: object) -> bool:
    """Whether something is a finite number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def to_record(readings: list[Reading]) -> list[str]:
    """What a run's environment keeps of its readings: ``name = ratio``, the ratio to three digits."""
    return [f"{key_of(reading)} = {reading['ratio']:.3g}" for reading in readings]


def recorded_in(run: Any) -> dict[str, float]:
    """Name -> ratio of a recorded run; what is no ratio is left out, for a record may come from anywhere."""
    told = run.environment.get(KEY)
    found = {}
    for line in told if isinstance(told, list) else []:
        name, _, ratio = str(line).rpartition(" = ")
        if name and re.fullmatch(r"\d{1,6}(\.\d{1,6})?|\d\.\d{1,4}e[+-]\d\d?", ratio) and float(ratio) > 0:
            found[name] = float(ratio)
    return found


def slower(runs: list[Any]) -> dict[str, tuple[float, float]]:
    """The ratios that got worse by a quarter and stayed so for two nights.

    Args:
        runs: complete runs of one target, the latest first; those without speeds and those on another processor do not count.

    Returns:
        name -> (the better of the last two ratios, the median of the nights before them).
    """
    if not runs or not recorded_in(runs[0]):
        return {}
    alike = [run for run in runs if recorded_in(run) and processor(run) == processor(runs[0])]
    latest, before = alike[:NIGHTS_RUNNING], alike[NIGHTS_RUNNING : NIGHTS_RUNNING + NIGHTS_BACK]
    found = {}
    for name in recorded_in(runs[0]):
        now = [recorded_in(run).get(name) for run in latest]
        earlier = [recorded_in(run)[name] for run in before if name in recorded_in(run)]
        if len(now) < NIGHTS_RUNNING or None in now or len(earlier) < NIGHTS_NEEDED:
            continue
        best, usual = min(ratio for ratio in now if ratio is not None), statistics.median(earlier)
        if best > SLOWER_FACTOR * usual:
            found[name] = (best, usual)
    return found


def processor(run: Any) -> tuple[str, str, str]:
    """What a run's speeds depend on besides the build."""
    about = run.environment
    return run.machine, str(about.get("processor", "")), str(about.get("cpu_capability", ""))


def slower_lines(runs: list[Any]) -> dict[str, str]:
    """`slower` in words: name -> line."""
    return {
        name: f"{name}: sparse takes {best:.2f} of the dense time for {NIGHTS_RUNNING} nights, {usual:.2f} before"
        for name, (best, usual) in slower(runs).items()
    }


def table(readings: list[Reading]) -> str:
    """The readings as text, a bar for each: it ends at | where sparse takes as long as dense."""
    if not readings:
        return "no engine of this build has sparse kernels, and no step could be timed"
    top = max(1.0, *(reading["ratio"] for reading in readings))
    unit = (BAR_WIDTH - 1) / min(top, 4.0)  # characters for a ratio of 1
    lines = [f"{'':<26}{'zero':>6}{'sparse':>12}{'dense':>12}{'ratio':>7}  (| is as fast as dense; processor time, one thread)"]
    for reading in readings:
        bar = list(f"{'#' * max(1, min(BAR_WIDTH, round(unit * reading['ratio']))):<{BAR_WIDTH}}")
        bar[round(unit)] = "|"
        times = f"{duration(reading['sparse']):>12}{duration(reading['dense']):>12}"
        lines.append(f"{reading['what']:<26}{reading['zeros'] * 100:>4.0f} %{times}{reading['ratio']:>7.2f}  {''.join(bar).rstrip()}")
    if any(reading["what"].startswith("step ") for reading in readings):
        lines.append("step: WeightNormSparsifier.step (under sparse) and a sort of as many numbers (under dense)")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time with the unit that suits it."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def add_command(command: Any) -> None:
    """Add ``speed`` to the command line."""
    parser = command("speed", run_command, "time the sparse kernels against the dense ones, on one thread", history=False)
    parser.add_argument("--python", action="append", metavar="PATH", help="an interpreter with torch (may be repeated; default: this one)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(default: text)")


def run_command(arguments: Any) -> int:
    """``python -m nightly speed``."""
    measured, problems = {}, []
    for python in arguments.python or [sys.executable]:
        try:
            measured[python], told = measure(find_python(python))
            problems += told
        except NightlyError as error:
            problems.append(str(error))
    if arguments.format == "json":
        print(json.dumps(measured, indent=2))
    else:
        print("\n\n".join((f"{python}\n" if len(measured) > 1 else "") + table(readings) for python, readings in measured.items()))
    for problem in problems:
        print(f"nightly: {problem}", file=sys.stderr)
    return COULD_NOT_RUN if problems else ALL_WELL

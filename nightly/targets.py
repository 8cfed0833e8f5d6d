"""What is validated: interpreters that are already there, and torch versions installed in environments of their own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nightly.execute import SCRATCH, kill_group
from nightly.files import scratch_folder, sweep
from nightly.outcomes import NightlyError
from nightly.texts import clean_name, masked, one_line

SETUP_SECONDS = 1800
PROBE_SECONDS = 300
TICK = 0.2
OLDEST_PYTHON = (3, 10)
#: The file in an environment that says that it was completed once; its time is that of its last use.
MARK = "nightly.json"
#: Characters of an environment's name.
KEY_LENGTH = 16
#: How the scratch folders in the cache begin in which a bisection has the environment of a step.
OF_A_STEP = "bisect-"
#: Days for which an environment stays whatever nights are kept, for a run may be using it.
LEAST_DAYS = 1.0
KEYS = {"name", "python", "torch"}

#: A requirement of torch with the versions that it allows, and the versions that are one.
TORCH, EXACT = re.compile(r"torch\s*([<>=!~].*)?$"), re.compile(r"===?[^*,]*$")
#: What in pip's output means that the index was not reached, whatever pip concludes from it.
NO_NETWORK = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Max retries exceeded",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "Retrying (Retry",
    "getaddrinfo failed",
)


@dataclass(frozen=True)
class Target:
    """An interpreter (``python``), or pip requirements (``torch``) with the Python to install them for; or a ``problem``."""

    name: str
    python: str = ""
    torch: str = ""
    problem: str = ""


def from_options(pythons: Sequence[str], torches: Sequence[str]) -> list[Target]:
    """The targets that the command line names."""
    found = [Target(name=python, python=python) for python in pythons]
    return found + [Target(name=torch, torch=torch) for torch in torches]


def parse_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        NightlyError: it cannot be read, or is not TOML.
    """
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError:
            raise NightlyError("target files need Python 3.11 or tomli: pip install tomli") from None
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NightlyError(f"target file {path}: {error.strerror}: name another with --targets") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NightlyError(f"target file {path}: {error}: mend it (nightly/README.md has an example)") from None


def from_file(path: str | Path) -> list[Target]:
    """The targets of a target file. An entry that is wrong becomes a target with a problem, and spoils no other.

    Raises:
        NightlyError: the file cannot be read, is not TOML, or names no target.
    """
    content = parse_toml(path)
    unknown = sorted(set(content) - {"target"})
    entries = content.get("target")
    if unknown or not isinstance(entries, list) or not entries:
        what = f"unknown key {unknown[0]!r}" if unknown else "no [[target]] in it"
        raise NightlyError(f"target file {path}: {what}: each target is a [[target]] with name, python, torch")
    found = []
    for number, entry in enumerate(entries, 1):
        found += from_entry(entry, f"{path}, target {number}", number)
    return found


def from_entry(entry: Any, where: str, number: int) -> list[Target]:
    """The targets of one ``[[target]]``: one, or, where python or torch are lists, one for each combination."""
    fallback = f"target {number}"
    if not isinstance(entry, dict):
        return [Target(fallback, problem=f"{where} is no table: write [[target]]")]
    name = entry.get("name", "")
    label = name if isinstance(name, str) and name else fallback
    values = {key: entry.get(key, "") if isinstance(entry.get(key, ""), list) else [entry.get(key, "")] for key in ("python", "torch")}
    if unknown := sorted(set(entry) - KEYS):
        return [Target(label, problem=f"{where}: unknown key {unknown[0]!r} (known: {', '.join(sorted(KEYS))})")]
    if not all(isinstance(value, str) for value in [name, *values["python"], *values["torch"]]):
        return [Target(label, problem=f"{where}: name, python and torch are strings in quotes, or lists of such")]
    pairs = [(python.strip(), torch.strip()) for python, torch in itertools.product(values["python"], values["torch"])]
    if not pairs or not all(python or torch for python, torch in pairs):
        return [Target(label, problem=f"{where}: neither python (an interpreter) nor torch (what pip is to install) is given")]
    found = []
    for python, torch in pairs:
        words = [name, torch, "on" if torch and python else "", python]
        label = name if name and len(pairs) == 1 else " ".join(word for word in words if word)
        found.append(Target(label, python, torch))
    return found


def check_names(targets: Iterable[Target]) -> list[Target]:
    """The targets by names that hold no password, with a problem for each whose name an earlier one has: their results could not be
    told apart."""
    seen: set[str] = set()
    found: list[Target] = []
    for target in targets:
        target = replace(target, name=clean_name(masked(target.name)) or "unnamed")
        if target.name in seen and not target.problem:
            twins = sum(other.name.startswith(target.name) for other in found)
            target = Target(f"{target.name} #{twins + 1}", problem=f"the name {target.name!r} is used twice: give each target its own")
        seen.add(target.name)
        found.append(target)
    return found


def floats(target: Target) -> bool:
    """Whether the index decides which torch a target gets."""
    found = [TORCH.match(word) for word in words_of(target)]
    return any(word and not EXACT.match(word[1] or "") for word in found)


def words_of(target: Target) -> list[str]:
    """The pip requirements of a target, word by word.

    Raises:
        NightlyError: they cannot be taken apart.
    """
    try:
        return shlex.split(target.torch)
    except ValueError as error:
        raise NightlyError(f"torch = {masked(target.torch)!r}: {error}") from None


def find_python(wanted: str) -> str:
    """The interpreter that a path, a command or a version (``3.12``) names.

    Raises:
        NightlyError: there is none, or it cannot be executed.
    """
    if not wanted.strip():
        raise NightlyError("no interpreter is named: give the full path of a Python")
    if wanted[0].isdigit() and os.sep not in wanted:
        wanted = f"python{wanted}"
    path = os.path.expanduser(wanted)
    found = shutil.which(path)
    if found is None:
        state = "is not executable" if os.path.exists(path) else "is not there"
        raise NightlyError(f"interpreter {one_line(wanted)} {state}: give the full path of a Python")
    return os.path.abspath(found)


def check_python(tool: Tool, python: str) -> None:
    """See that what was named as an interpreter is a Python, and new enough.

    Raises:
        NightlyError: it is not, or it was asked to end.
    """
    command = [python, "-c", "import sys; print('python', *sys.version_info[:2])"]
    advice = "give the full path of a Python"
    try:
        done = tool.run(command, f"interpreter {one_line(python)}", PROBE_SECONDS)
    except OSError as error:
        raise NightlyError(f"interpreter {one_line(python)} cannot be started: {error.strerror}: {advice}") from None
    except subprocess.TimeoutExpired:
        raise NightlyError(f"interpreter {one_line(python)} gave no answer in {PROBE_SECONDS} s: {advice}") from None
    words = done.stdout.split()[-3:]
    if done.returncode or len(words) != 3 or words[0] != "python":
        said = next((line for line in (done.stderr + done.stdout).splitlines() if line.strip()), "nothing")
        raise NightlyError(
            f"interpreter {one_line(python)} is no Python that starts (asked for its version, it says: {one_line(said)}): {advice}"
        )
    if (int(words[1]), int(words[2])) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise NightlyError(f"interpreter {one_line(python)} is Python {words[1]}.{words[2]}: the suite needs {oldest} or newer")


def prepare(
    target: Target, cache: str | Path, requirements: Path | None, say: Callable[[str], None], stopping: threading.Event | None = None
) -> str:
    """The interpreter of a target, ready to run the suite.

    A target with requirements gets a virtual environment below ``cache``: made if new, brought up to date if there, made anew
    if broken. ``requirements`` (the suite's own, or None) come on top, and leave torch as it is. ``say`` is told what is done;
    what is done ends when ``stopping`` is set.

    Raises:
        NightlyError: the target has a problem, or pip could not install it, or it was asked to end.
    """
    if target.problem:
        raise NightlyError(target.problem)
    if not (target.python or target.torch):
        raise NightlyError("neither python (an interpreter) nor torch (what pip is to install) is given")
    tool = Tool(stopping)
    base = find_python(target.python or sys.executable)
    check_python(tool, base)
    if not target.torch:
        return base
    wanted = words_of(target)
    place = environment_place(cache, base, wanted)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with held(tool, place, say):
            python = place / "bin" / "python"
            if place.exists():
                if is_ready(tool, place, python) and updated(tool, python, wanted, requirements, say):
                    (place / MARK).touch()
                    return str(python)
                say("broken: building it anew")
            build(tool, place, base, say)
            install(tool, python, wanted, requirements)
            (place / MARK).write_text(json.dumps({"python": base, "requirements": masked(target.torch)}))
            return str(python)
    except OSError as error:
        raise NightlyError(f"environment {place}: {error.strerror}: make room there, or name another place with --cache") from None


def environment_place(cache: str | Path, base: str, wanted: Sequence[str]) -> Path:
    """Where the environment for these requirements on this Python lies."""
    key = hashlib.sha256(json.dumps([base, list(wanted)]).encode()).hexdigest()[:KEY_LENGTH]
    return Path(cache) / "environments" / key


def forget_unused(cache: str | Path, days: float, say: Callable[[str], None]) -> None:
    """Remove the environments that no run has used for so many days, and those that bisections left which were killed."""
    import filelock

    sweep(cache, OF_A_STEP)
    for place in Path(cache).glob("environments/" + "[0-9a-f]" * KEY_LENGTH):
        with suppress(OSError, filelock.Timeout):
            if is_unused(place, days):
                with filelock.FileLock(f"{place}.lock", timeout=0):
                    if is_unused(place, days):
                        say(f"removing {place}, which no run has used for {days:g} days")
                        shutil.rmtree(place, ignore_errors=True)


def is_unused(place: Path, days: float) -> bool:
    """Whether no run has used an environment for so many days."""
    mark = place / MARK
    return time.time() - (mark if mark.exists() else place).stat().st_mtime > max(days, LEAST_DAYS) * 86400


@contextmanager
def held(tool: Tool, place: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an environment, which another run may have.

    Raises:
        NightlyError: it was asked to end before the lock was free.
    """
    import filelock

    lock, waiting = filelock.FileLock(f"{place}.lock"), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=TICK)
        except filelock.Timeout:
            if not waiting:
                say("waiting for another run that makes the same environment ready")
            waiting = True
            if tool.stopping.is_set():
                raise NightlyError(f"environment {place}: asked to end while another run had it") from None
    try:
        yield
    finally:
        lock.release()


def is_ready(tool: Tool, place: Path, python: Path) -> bool:
    """Whether an environment was completed once and its interpreter and pip still start."""
    return (place / MARK).is_file() and starts(tool, [str(python), "-c", "import pip"])


def updated(tool: Tool, python: Path, wanted: Sequence[str], requirements: Path | None, say: Callable[[str], None]) -> bool:
    """Bring an environment up to date; whether its torch can be imported then.

    Raises:
        NightlyError: it is sound, but pip could not update it.
    """
    say("updating")
    try:
        install(tool, python, wanted, requirements)
    except NightlyError:
        if works(tool, python):
            raise
    return works(tool, python)


def works(tool: Tool, python: Path) -> bool:
    """Whether the environment's torch can be imported."""
    return starts(tool, [str(python), "-c", "import torch"])


def starts(tool: Tool, command: Sequence[str]) -> bool:
    """Whether a command can be run and succeeds."""
    try:
        return tool.run(command, "the environment", PROBE_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def build(tool: Tool, place: Path, base: str, say: Callable[[str], None]) -> None:
    """Make an empty virtual environment, in place of what is there."""
    say("building the environment")
    shutil.rmtree(place, ignore_errors=True)
    tool.output([base, "-m", "venv", str(place)], f"{base} -m venv")


def install(tool: Tool, python: Path | str, wanted: Sequence[str], requirements: Path | None) -> None:
    """Install what the target wants, then what the suite wants, without letting the second change the first's torch."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    tool.output([*pip, "--upgrade", *wanted], "pip install " + shlex.join(wanted))
    if requirements is None:
        return
    version = tool.output([str(python), "-c", "from importlib import metadata; print(metadata.version('torch'))"], "looking for torch")
    constraint = Path(python).parent.parent / "constraint.txt"
    constraint.write_text(f"torch=={version.strip().splitlines()[-1]}\n")
    tool.output([*pip, "--requirement", str(requirements), "--constraint", str(constraint)], f"pip install -r {requirements}")


class Tool:
    """Runs commands, and ends the one in flight when ``stopping`` is set."""

    def __init__(self, stopping: threading.Event | None = None):
        self.stopping = stopping or threading.Event()

    def output(self, command: Sequence[str], what: str) -> str:
        """The output of a command that has to succeed.

        Raises:
            NightlyError: it did not succeed; the line says what it was and its most telling line, without a password.
        """
        what = masked(what)
        try:
            done = self.run(command, what, SETUP_SECONDS)
        except subprocess.TimeoutExpired:
            raise NightlyError(f"{what}: not done after {SETUP_SECONDS} s: check the network, then run again") from None
        if done.returncode == 0:
            return done.stdout
        printed = masked(f"{done.stdout}\n{done.stderr}")
        lines = [one_line(line) for line in printed.splitlines() if line.strip()] or ["it printed nothing"]
        telling = next((line for line in reversed(lines) if "ERROR" in line and "resolv" not in line.lower()), lines[-1])
        if "No space left" in printed:
            raise NightlyError(f"{what}: no space left on the disk: make room, or name another place with --cache")
        if any(sign in printed for sign in NO_NETWORK):
            raise NightlyError(f"{what}: the package index could not be reached: check the network, then run again")
        if "No matching distribution" in printed or "Could not find a version" in printed:
            raise NightlyError(f"{what}: no such version for this Python and machine: check the version and the index ({telling})")
        raise NightlyError(f"{what}: {telling}")

    def run(self, command: Sequence[str], what: str, seconds: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives: how a command ended, and what it printed; its temporary files are gone however it ended.

        Raises:
            OSError: it cannot be started.
            subprocess.TimeoutExpired: it had not ended after so many seconds.
            NightlyError: it was asked to end.
        """
        until = time.monotonic() + seconds
        with (
            scratch_folder(tempfile.gettempdir(), SCRATCH) as scratch,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**(env or os.environ), "TMPDIR": str(scratch)},
            ) as process,
        ):
            try:
                while True:
                    try:
                        stdout, stderr = process.communicate(timeout=TICK)
                        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
                    except subprocess.TimeoutExpired:
                        if self.stopping.is_set():
                            raise NightlyError(f"{what}: asked to end before it was done") from None
                        if time.monotonic() > until:
                            raise
            except BaseException:
                kill_group(process)
                raise

"""What is validated: interpreters that are already there, and torch versions installed in environments of their own."""

import hashlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from nightly.outcomes import NightlyError

SETUP_SECONDS = 1800
PROBE_SECONDS = 300
MARK = "nightly.json"
KEYS = {"name", "python", "torch"}

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


def from_options(pythons, torches):
    """The targets that the command line names."""
    found = [Target(name=python, python=python) for python in pythons]
    return found + [Target(name=torch, torch=torch) for torch in torches]


def parse_toml(path):
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
        raise NightlyError(f'target file {path}: {error}: mend it (README, "Every night", has an example)') from None


def from_file(path):
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


def from_entry(entry, where, number):
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


def check_names(targets):
    """The targets, with a problem for each whose name an earlier one has: their results could not be told apart."""
    seen, found = set(), []
    for target in targets:
        if target.name in seen and not target.problem:
            twins = sum(other.name.startswith(target.name) for other in found)
            target = Target(f"{target.name} #{twins + 1}", problem=f"the name {target.name!r} is used twice: give each target its own")
        seen.add(target.name)
        found.append(target)
    return found


def find_python(wanted):
    """The interpreter that a path, a command or a version (``3.12``) names; this one if nothing is named.

    Raises:
        NightlyError: there is none, or it cannot be executed.
    """
    if not wanted:
        return sys.executable
    if wanted[0].isdigit() and os.sep not in wanted:
        wanted = f"python{wanted}"
    path = os.path.expanduser(wanted)
    found = shutil.which(path)
    if found is None:
        state = "is not executable" if os.path.exists(path) else "is not there"
        raise NightlyError(f"interpreter {wanted} {state}: give the full path of a Python")
    return os.path.abspath(found)


def prepare(target, cache, requirements, say):
    """The interpreter of a target, ready to run the suite.

    A target with requirements gets a virtual environment below ``cache``: made if new, brought up to date if there, made anew
    if broken. ``requirements`` (the suite's own, or None) come on top, and leave torch as it is. ``say`` is told what is done.

    Raises:
        NightlyError: the target has a problem, or pip could not install it.
    """
    if target.problem:
        raise NightlyError(target.problem)
    base = find_python(target.python)
    if not target.torch:
        return base
    try:
        wanted = shlex.split(target.torch)
    except ValueError as error:
        raise NightlyError(f"torch = {target.torch!r}: {error}") from None
    import filelock

    place = environment_place(cache, base, wanted)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{place}.lock"):
            python = place / "bin" / "python"
            if place.exists():
                if is_ready(place, python) and updated(python, wanted, requirements, say):
                    return str(python)
                say("broken: building it anew")
            build(place, base, say)
            install(python, wanted, requirements)
            (place / MARK).write_text(json.dumps({"python": base, "requirements": wanted}))
            return str(python)
    except OSError as error:
        raise NightlyError(f"environment {place}: {error.strerror}: make room there, or name another place with --cache") from None


def environment_place(cache, base, wanted):
    """Where the environment for these requirements on this Python lies."""
    key = hashlib.sha256(json.dumps([base, wanted]).encode()).hexdigest()[:16]
    return Path(cache) / "environments" / key


def is_ready(place, python):
    """Whether an environment was completed once and its interpreter and pip still start."""
    return (place / MARK).is_file() and starts([str(python), "-c", "import pip"])


def updated(python, wanted, requirements, say):
    """Bring an environment up to date; whether its torch can be imported then.

    Raises:
        NightlyError: it is sound, but pip could not update it.
    """
    say("updating")
    try:
        install(python, wanted, requirements)
    except NightlyError:
        if works(python):
            raise
    return works(python)


def works(python):
    """Whether the environment's torch can be imported."""
    return starts([str(python), "-c", "import torch"])


def starts(command):
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=PROBE_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def build(place, base, say):
    """Make an empty virtual environment, in place of what is there."""
    say("building the environment")
    shutil.rmtree(place, ignore_errors=True)
    command_output([base, "-m", "venv", str(place)], f"{base} -m venv")


def install(python, wanted, requirements):
    """Install what the target wants, then what the suite wants, without letting the second change the first's torch."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    command_output([*pip, "--upgrade", *wanted], "pip install " + shlex.join(wanted))
    if requirements is None:
        return
    version = command_output([str(python), "-c", "from importlib import metadata; print(metadata.version('torch'))"], "looking for torch")
    constraint = Path(python).parent.parent / "constraint.txt"
    constraint.write_text(f"torch=={version.strip().splitlines()[-1]}\n")
    command_output([*pip, "--requirement", str(requirements), "--constraint", str(constraint)], f"pip install -r {requirements}")


def command_output(command, what):
    """The output of a command that has to succeed.

    Raises:
        NightlyError: it did not; the line says what it was and its most telling line.
    """
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=SETUP_SECONDS,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise NightlyError(f"{what}: not done after {SETUP_SECONDS} s: check the network, then run again") from None
    if done.returncode == 0:
        return done.stdout
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["it printed nothing"]
    telling = next((line for line in reversed(lines) if "ERROR" in line and "resolv" not in line.lower()), lines[-1])
    if "No space left" in done.stdout:
        raise NightlyError(f"{what}: no space left on the disk: make room, or name another place with --cache")
    if any(sign in done.stdout for sign in NO_NETWORK):
        raise NightlyError(f"{what}: the package index could not be reached: check the network, then run again")
    if "No matching distribution" in done.stdout or "Could not find a version" in done.stdout:
        raise NightlyError(f"{what}: no such version for this Python and machine: check the version and the index ({telling})")
    raise NightlyError(f"{what}: {telling}")

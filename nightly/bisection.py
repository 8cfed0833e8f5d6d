"""From the last good build to the first bad one, over the wheels that the index has between them, halving.

Each step is a run like any night's, recorded in a history of its own beside the other; so a bisection that was ended goes on
where it was, and watch and report of the nights know nothing of it.
"""

import argparse
import re
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nightly import execute, night, targets
from nightly.files import scratch_folder
from nightly.history import COMPLETE, History
from nightly.links import compare_address
from nightly.outcomes import ALL_WELL, BAD, COULD_NOT_RUN, GOOD, INTERRUPTED, NightlyError
from nightly.texts import masked


def history_beside(path: Path) -> Path:
    """Where the runs of bisections are recorded."""
    return path.with_name(f"{path.stem}-bisect{path.suffix}")


def parse_requirements(text: str) -> list[str]:
    """The words of pip requirements, one of which is torch.

    Raises:
        ValueError: they cannot be taken apart, or none of them is.
    """
    words = shlex.split(text)
    if not any(map(targets.TORCH.match, words)):
        raise ValueError(f"{masked(text)!r} does not name torch: write it as '--pre torch --index-url URL'")
    return words


def requirements_of(words: list[str], version: str) -> list[str]:
    """The pip requirements with torch pinned to a version."""
    return [f"torch=={version}" if targets.TORCH.match(word) else word for word in words]


def versions_in_index(python: str, words: list[str]) -> list[str]:
    """The versions of torch that an index has for an interpreter, the oldest first.

    Args:
        words: pip's arguments, such as ``--pre torch --index-url URL``; what they require of torch's version does not count.

    Raises:
        NightlyError: pip could not tell.
    """
    options = [word for word in words if not targets.TORCH.match(word)]
    command = [python, "-m", "pip", "index", "versions", "torch", "--disable-pip-version-check", "--no-input", *options]
    what = masked(f"pip index versions torch {shlex.join(options)}")
    found = re.search(r"^Available versions: (.*)$", targets.Tool().output(command, what), re.MULTILINE)
    if not found:
        raise NightlyError(f"{what}: it told no versions: check the network and --torch")
    versions: dict[str, str] = {}
    for version in found[1].split(", "):
        versions.setdefault(version.partition("+")[0], version)
    return list(reversed(versions.values()))


def between(versions: list[str], good: str, bad: str) -> list[str]:
    """The versions from ``good`` to ``bad``, both included, the oldest first; between two nightly builds only nightly builds.

    Raises:
        NightlyError: one of them is not there, or they are not in this order.
    """
    public = [version.partition("+")[0] for version in versions]
    places = []
    for end, option in ((good, "--good"), (bad, "--bad")):
        if end.partition("+")[0] not in public:
            there = f"it has {versions[0]} to {versions[-1]}" if versions else "it has none"
            raise NightlyError(f"torch {end or 'of unknown version'} is not in the index ({there}): name another with {option}")
        places.append(public.index(end.partition("+")[0]))
    first, last = places
    if first >= last:
        raise NightlyError(f"torch {good} (good) is not older than {bad} (bad): --good names the older of two builds")
    inner = versions[first + 1 : last]
    if ".dev" in good and ".dev" in bad:
        inner = [version for version in inner if ".dev" in version]
    return [versions[first], *inner, versions[last]]


def halve(versions: list[str], verdicts: dict[str, bool | None]) -> tuple[int, int, int | None]:
    """How far a bisection is: the places of the last good, of the first bad, and of the version to try next.

    The first of the versions counts as good and the last as bad. A verdict of None says nothing of its version, and the next
    nearest to the middle is tried. The third place is None when no version is left to try.
    """
    low, high = 0, len(versions) - 1
    while True:
        left = [place for place in range(low + 1, high) if verdicts.get(versions[place], True) is not None]
        if not left:
            return low, high, None
        middle = min(left, key=lambda place: (abs(2 * place - low - high), place))
        if versions[middle] not in verdicts:
            return low, high, middle
        if verdicts[versions[middle]]:
            low = middle
        else:
            high = middle


@dataclass
class Bisection:
    """One search; ``options`` is what its runs are run with, ``words`` pip's requirements, ``say`` is told of every step."""

    test: str
    python: str
    words: list[str]
    options: night.Options
    say: Any = print
    verdicts: dict[str, bool | None] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False

    def target(self, version: str) -> targets.Target:
        return targets.Target(f"{self.test} on torch {version}", self.python, shlex.join(requirements_of(self.words, version)))

    def recall(self, versions: list[str]) -> None:
        """Take in what earlier steps have found."""
        if not self.options.history.exists():
            return
        names = {self.target(version).name: version for version in versions}
        with History(self.options.history) as history:
            for target in history.targets():
                if target.name in names and target.machine == self.options.machine:
                    for run in history.runs(target.id, limit=1):
                        self.take(names[target.name], run, history.results(run))

    def take(self, version: str, run: Any, results: dict[str, Any]) -> None:
        """Take in what a run says of a version, if it came to its end."""
        row = results.get(self.test)
        self.runs[version] = run
        if run.state == COMPLETE and row is not None and row.outcome in GOOD | BAD:
            self.verdicts[version] = row.outcome in GOOD
            self.say(f"  {version}  {'good' if row.outcome in GOOD else 'bad'} ({row.outcome}), run of {run.started}")

    def try_version(self, version: str) -> bool | None:
        """Run the test on a version, record it, and remember what it says."""
        try:
            self.options.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NightlyError(f"cache {self.options.cache}: {error.strerror}: name another place with --cache") from None
        with scratch_folder(self.options.cache, targets.OF_A_STEP) as cache:  # an environment holds gigabytes
            work = night.Night(replace(self.options, cache=cache, targets=[self.target(version)]), night.Progress(False))
            (judgement,) = work.run()
        if work.stopping.is_set():
            self.interrupted = True
            return None
        self.take(version, judgement.run, judgement.results)
        if version not in self.verdicts:
            row = judgement.results.get(self.test)
            why = row.outcome if row else judgement.run.reason or "the test is not there"
            self.verdicts[version] = None
            self.say(f"  {version}  says nothing: {why}")
        return self.verdicts[version]

    def search(self, versions: list[str], check_ends: bool) -> tuple[int, int]:
        """Narrow the versions down. Returns the places of the last good and of the first bad.

        Raises:
            NightlyError: the ends are not what they are said to be.
        """
        for version, wanted, option in ((versions[0], True, "--good"), (versions[-1], False, "--bad")):
            if check_ends and version not in self.verdicts and not self.interrupted:
                self.try_version(version)
            found = self.verdicts.get(version, wanted)
            if found is not wanted and not self.interrupted:
                what = {True: "good", False: "bad", None: "neither good nor bad"}[found]
                raise NightlyError(f"torch {version} is {what} with {self.test}: name another with {option}")
        while True:
            low, high, middle = halve(versions, self.verdicts)
            if middle is None or self.interrupted:
                return low, high
            self.try_version(versions[middle])


def ends_in_history(history: History, test: str, wanted: str) -> tuple[Any, Any]:
    """The last good and the first bad run of a test as the nights tell; of the target ``wanted``, or of the first that has them.

    Raises:
        NightlyError: no target has both.
    """
    for target in history.targets():
        if wanted in ("", target.name):
            for run in history.nights(target.id, limit=1):
                row = history.results(run).get(test)
                if row is not None and row.outcome in BAD:
                    past = history.past(run, [test])[test]
                    if past.last_good is not None:
                        return past.last_good, past.first_bad or run
    where = f" on {wanted}" if wanted else ""
    raise NightlyError(f"the history knows no last good and first bad build of {test}{where}: name them with --good and --bad")


def lines_of_end(bisection: Bisection, versions: list[str], low: int, high: int, known: dict[str, Any]) -> list[str]:
    """What a search came to, in words."""
    good, bad = versions[low], versions[high]
    runs = {**known, **bisection.runs}
    lines = [f"last good torch {label(runs.get(good), good)}", f"first bad torch {label(runs.get(bad), bad)}"]
    if high - low > 1:
        lines.append(f"{high - low - 1} between them that say nothing: {', '.join(versions[low + 1 : high])}")
    address = compare_address(runs.get(good), runs.get(bad))
    return [*lines, f"commits between: {address}"] if address else lines


def label(run: Any, version: str) -> str:
    return run.torch_label if run is not None and run.torch else version


def add_command(command: Any) -> None:
    """Add ``bisect`` to the command line."""
    from nightly.cli import checked

    parser = command("bisect", run_command, "find the first bad of the builds between the last good and the first bad night, halving")
    parser.add_argument("test", metavar="TEST", help="the test's name, as in TestX.test_y")
    parser.add_argument(
        "--torch",
        type=checked(parse_requirements),
        required=True,
        metavar="REQUIREMENTS",
        help="where the builds come from, such as '--pre torch --index-url URL'",
    )
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the interpreter to install them for (default: this one)")
    parser.add_argument("--target", default="", metavar="NAME", help="the target whose nights tell the last good and the first bad build")
    parser.add_argument("--good", metavar="VERSION", help="the last good build (default: as the history tells); it is run first")
    parser.add_argument("--bad", metavar="VERSION", help="the first bad build (default: as the history tells); it is run first")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where environments are made (default: in the user's cache folder)")
    parser.add_argument("--runner", type=Path, metavar="FILE", help=argparse.SUPPRESS)


def run_command(arguments: Any) -> int:
    """``python -m nightly bisect``."""
    from nightly.cli import CHECKOUT, cache_path, history_path

    path = history_path(arguments)
    python = targets.find_python(arguments.python)
    targets.check_python(targets.Tool(), python)
    words = arguments.torch
    known = {}
    good, bad = arguments.good, arguments.bad
    if not (good and bad):
        with History(path, read_only=True) as history:
            last_good, first_bad = ends_in_history(history, arguments.test, arguments.target)
        good, bad = good or last_good.torch, bad or first_bad.torch
        known = {last_good.torch: last_good, first_bad.torch: first_bad}
    versions = between(versions_in_index(python, words), good, bad)
    options = night.Options(
        history=history_beside(path),
        cache=cache_path(arguments),
        runner=(arguments.runner or CHECKOUT / "test_ao_sparsity.py").absolute(),
        targets=[],
        arguments=["-k", arguments.test],
        limits=execute.Limits(memory=execute.machine_memory() * 3 // 4),
    )
    bisection = Bisection(arguments.test, python, words, options)
    print(f"{arguments.test}: {len(versions)} builds from {versions[0]} (good) to {versions[-1]} (bad); recorded in {options.history}")
    bisection.recall(versions)
    low, high = bisection.search(versions, check_ends=bool(arguments.good or arguments.bad))
    print("\n".join(lines_of_end(bisection, versions, low, high, known)))
    if bisection.interrupted:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return ALL_WELL if high - low == 1 else COULD_NOT_RUN

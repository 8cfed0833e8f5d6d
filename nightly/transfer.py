"""Takes results of other machines into a history: JUnit files with their environment, and other histories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from nightly import junit
from nightly.compare import mark_short
from nightly.history import COMPLETE, RUNNING, History, Row, RunRow
from nightly.intake import recheck, worst_rows
from nightly.outcomes import NightlyError
from nightly.texts import one_line

#: A run of a file, and what gives its results.
Found = tuple[Path, RunRow, Callable[[], list[Row]]]


@dataclass
class Taken:
    """What came of an import: the runs that are new, those of the files that no person was told of yet (the new ones, and those
    that an earlier import took in but did not judge), each the oldest first, and a line for each thing that could not be used."""

    new: list[RunRow] = field(default_factory=list)
    untold: list[RunRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def take_in(history: History, places: Iterable[str | Path]) -> Taken:
    """Take in files, folders of JUnit files, and histories. Each file, and each run of a history, stands alone: a bad one is named
    and spoils no other."""
    taken = Taken()
    with ExitStack() as opened:
        files = [file for place in places for file in files_of(Path(place))]
        found = [item for file in files for item in attempts(file, taken.problems, opened)]
        for file, run, results in sorted(found, key=lambda item: item[1].started):
            try:
                take_in_run(history, run, results(), taken)
            except NightlyError as error:
                taken.problems.append(named(file, error))
            except Exception as error:  # a file may hold anything: what nobody thought of is named like the rest
                taken.problems.append(named(file, f"cannot be taken in: {type(error).__name__}: {error}"))
    return taken


def take_in_run(history: History, run: RunRow, results: list[Row], taken: Taken) -> None:
    """Record a run, unless it is here already."""
    with history.writing():
        here = history.run(run.uid)
        if here is not None and (here.target, here.machine, here.started) != (run.target, run.machine, run.started):
            raise NightlyError(
                f"its uid {run.uid} is that of another run, {here.target} on {here.machine} of {here.started}: "
                "give it one of its own, or none"
            )
        if here is None:
            history.merge(run, results)
            if run.state == COMPLETE:
                mark_short(history, run, results)
                history.update(run)
    if here is None:
        taken.new.append(run)
    if not (here or run).told:
        taken.untold.append(here or run)


def files_of(place: Path) -> list[Path]:
    """The file itself, or the JUnit files anywhere below a folder; the folder where it has none, for `read` to complain of."""
    return (sorted(place.rglob("*.xml")) or [place]) if place.is_dir() else [place]


def attempts(file: Path, problems: list[str], opened: ExitStack) -> Iterator[Found]:
    """What a file holds; a line is added to ``problems`` for what cannot be used."""
    try:
        yield from read(file, problems, opened)
    except NightlyError as error:
        problems.append(named(file, error))
    except Exception as error:
        problems.append(named(file, f"cannot be read: {type(error).__name__}: {error}"))


def named(file: Path, error: object) -> str:
    """A line about a file, with its name."""
    text = one_line(error)
    return text if one_line(file.stem) in text else f"{one_line(file)}: {text}"


def read(file: Path, problems: list[str], opened: ExitStack) -> Iterator[Found]:
    """The runs of one file, whatever its kind."""
    if not file.exists():
        raise NightlyError(f"{file}: no such file")
    if file.is_dir():
        raise NightlyError(f"{file}: no JUnit XML in this folder")
    if file.suffix.lower() == ".xml":
        run, rows = junit.read(file)
        yield file, run, lambda: rows
        return
    other = opened.enter_context(History(file, read_only=True))
    for target in other.targets():
        for there in other.runs(target.id):
            if there.state == RUNNING:
                continue
            try:
                yield file, recheck(there), partial(results_of, other, there)
            except NightlyError as error:
                problems.append(f"{one_line(file)}: the run {one_line(there.uid)}: {one_line(error)}")


def results_of(history: History, run: RunRow) -> list[Row]:
    """The results of a run of another history."""
    return worst_rows(history.results(run).values())

"""Takes results of other machines into a history: JUnit files with their environment, and other histories."""

from pathlib import Path

from nightly import junit
from nightly.compare import mark_short
from nightly.history import COMPLETE, RUNNING, History
from nightly.outcomes import NightlyError


def take_in(history, places):
    """Take in files, folders of JUnit files, and histories. Returns the runs that were new, the oldest first, and lines about
    what could not be read; one bad file spoils no other."""
    found, problems = [], []
    for place in places:
        for file in files_of(Path(place)):
            try:
                found += read(file)
            except NightlyError as error:
                problems.append(str(error))
    new = []
    for run, results in sorted(found, key=lambda pair: pair[0].started):
        if history.merge(run, results):
            if run.state == COMPLETE:
                mark_short(history, run, results)
                history.update(run)
            new.append(run)
    return new, problems


def files_of(place):
    """The file itself, or the JUnit files anywhere below a folder; the folder where it has none, for `read` to complain of."""
    return (sorted(place.rglob("*.xml")) or [place]) if place.is_dir() else [place]


def read(file):
    """The (run, results) pairs of one file, whatever its kind."""
    if not file.exists():
        raise NightlyError(f"{file}: no such file")
    if file.is_dir():
        raise NightlyError(f"{file}: no JUnit XML in this folder")
    if file.suffix.lower() == ".xml":
        return [junit.read(file)]
    with History(file, read_only=True) as other:
        return [
            (run, list(other.results(run).values())) for target in other.targets() for run in other.runs(target.id) if run.state != RUNNING
        ]

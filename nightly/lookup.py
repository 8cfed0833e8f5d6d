"""Runs as a person names them."""

import re
from collections.abc import Iterator
from pathlib import Path

from nightly import junit
from nightly.history import COMPLETE, RUNNING, History, Row, RunRow
from nightly.outcomes import NightlyError
from nightly.texts import one_line

HOW = """a run is named by
  TARGET              its latest complete run (of all tests; one with -k where it has no other, or by its uid)
  TARGET@2026-03-30   its latest complete run of that day (or hour: 2026-03-30T02)
  TARGET@2.13.0       its latest complete run with that torch (a beginning of the version or of the commit is enough)
  TARGET@-1           the complete run before its latest, -2 the one before that, and so on
  UID                 the run with this uid (8 or more characters of its beginning are enough)
  FILE.xml            the JUnit file that `run --junit` wrote, with its JSON beside it"""


def is_file(name: str) -> bool:
    """Whether a name is that of a JUnit file."""
    return name.lower().endswith(".xml")


def runs_of(history: History) -> Iterator[RunRow]:
    """Every run but those under way, by target, the latest of each first."""
    for target in history.targets():
        yield from (run for run in history.runs(target.id) if run.state != RUNNING)


def find_run(history: History, name: str) -> RunRow:
    """The run that a name means, in the forms of `HOW`; of targets with the same name on several machines the latest run.

    Raises:
        NightlyError: there is none, or several have that uid.
    """
    exact = history.run(name)
    if exact is not None:
        return exact
    target, found_at, which = name.rpartition("@")
    candidates = [(name, "")] + ([(target, which)] if found_at else [])
    names = {row.name for row in history.targets()}
    for wanted, part in candidates:
        if wanted in names:
            runs = sorted(
                (run for row in history.targets() if row.name == wanted for run in history.nights(row.id) if run.state == COMPLETE),
                key=lambda run: (run.started, run.id or 0),
                reverse=True,
            )
            return pick(runs, wanted, part)
    if re.fullmatch(r"[\w-]{8,}", name):
        alike = [run for run in runs_of(history) if run.uid.startswith(name)]
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise NightlyError(f"{one_line(name)}: {len(alike)} runs have a uid that begins so: write more of it")
    known = ", ".join(sorted(map(one_line, names))[:10]) or "none"
    raise NightlyError(f"{one_line(name)}: no such run or target in {history.path} (targets: {known})")


def pick(runs: list[RunRow], target: str, which: str) -> RunRow:
    """One of a target's complete runs, the latest of which comes first.

    Raises:
        NightlyError: none of them is meant.
    """
    back = re.fullmatch(r"-(\d{1,6})", which)
    if back:
        found = runs[int(back[1]) : int(back[1]) + 1]
    elif re.match(r"\d{4}-\d\d", which):
        found = [run for run in runs if run.started.startswith(which)]
    else:
        found = [run for run in runs if run.torch.startswith(which) or (run.torch_commit and run.torch_commit.startswith(which))]
    if not found:
        last = f"its last {min(3, len(runs))}: " + ", ".join(f"{run.day} (torch {one_line(run.torch)})" for run in runs[:3])
        raise NightlyError(f"{one_line(target)} has no complete run {one_line(which)}; {last if runs else 'it has none at all'}")
    return found[0]


def find_results(history: History | None, name: str) -> tuple[RunRow, dict[str, Row]]:
    """A run and its results by name, from the history or from a JUnit file.

    Raises:
        NightlyError: there is none.
    """
    if is_file(name):
        run, rows = junit.read(Path(name))
        return run, {row.name: row for row in rows}
    assert history is not None, "a history is opened for names that are no files"
    run = find_run(history, name)
    return run, history.results(run)

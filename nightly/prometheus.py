"""A night as figures for the text-file collector of Prometheus' node exporter."""

from collections.abc import Iterable
from pathlib import Path

from nightly import speed
from nightly.compare import Judgement
from nightly.files import write_whole
from nightly.history import parse_time
from nightly.outcomes import OUTCOMES, NightlyError

PREFIX = "ao_sparsity_nightly"
#: Figure -> what it says.
FIGURES = {
    "night_status": "Exit status that the last night means as a whole, be it of no target",
    "status": "Exit status that the last night of a target means (0 all well, 1 worse, 3 could not run, 4 known only, 5 nightly failed)",
    "started_timestamp_seconds": "When the last night of a target began",
    "seconds": "How long the last night of a target took",
    "tests": "Tests of the last night by outcome",
    "changes": "Changes of the last night by kind",
    "build_info": "The build that the last night validated",
    "speed_ratio": "Time of a sparse kernel over that of the dense one",
}


def render(judgements: Iterable[Judgement], status: int) -> str:
    """The figures of a night with an exit status in Prometheus' text format."""
    samples: dict[str, list[str]] = {figure: [] for figure in FIGURES}

    def add(figure: str, value: float, **labels: str) -> None:
        told = ",".join(f'{name}="{escape(text)}"' for name, text in labels.items())
        samples[figure].append(f"{PREFIX}_{figure}{f'{{{told}}}' if told else ''} {value:.10g}")

    add("night_status", status)
    for judgement in judgements:
        run = judgement.run
        who = {"target": run.target, "machine": run.machine}
        add("status", judgement.status, **who)
        add("started_timestamp_seconds", parse_time(run.started).timestamp(), **who)
        if (seconds := run.seconds()) is not None:
            add("seconds", seconds, **who)
        outcomes = [row.outcome for row in judgement.results.values()]
        for outcome in OUTCOMES:
            add("tests", outcomes.count(outcome), **who, outcome=outcome)
        kinds = [change.kind for change in judgement.changes]
        for kind in dict.fromkeys(kinds):
            add("changes", kinds.count(kind), **who, kind=kind)
        add("build_info", 1, **who, torch=run.torch, commit=run.torch_commit, python=run.python, suite=run.suite_commit)
        for what, ratio in speed.recorded_in(run).items():
            add("speed_ratio", ratio, **who, what=what)
    lines = []
    for figure, found in samples.items():
        if found:
            lines += [f"# HELP {PREFIX}_{figure} {FIGURES[figure]}", f"# TYPE {PREFIX}_{figure} gauge", *dict.fromkeys(found)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """A label's value as the format wants it."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", r"\\r")


def write(path: Path, judgements: Iterable[Judgement], status: int) -> str:
    """Write the figures to a file, whole or not at all. Returns a line if that failed, else nothing."""
    try:
        write_whole(path, render(judgements, status))
    except (OSError, NightlyError) as error:
        return f"--prometheus {path}: {getattr(error, 'strerror', None) or error}"
    return ""

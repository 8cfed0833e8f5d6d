"""The history as one HTML page that needs nothing but itself."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from nightly.compare import KINDS, judge
from nightly.history import COMPLETE, RUNNING, now
from nightly.outcomes import (
    BAD,
    COULD_NOT_RUN,
    DEFECT_GONE,
    EXPECTED_FAILURE,
    FLAKY,
    NOT_RUN,
    OUTCOMES,
    PARTLY_SKIPPED,
    PASS,
    SKIP,
    STATUS_WORDS,
    TIMED,
    UNEXPECTED_SUCCESS,
    worst_outcome,
    worst_status,
)
from nightly.schedule import silent_targets
from nightly.summary import PLURALS, WITH_MESSAGE, turning_point
from nightly.texts import telling_line

TEMPLATES = Path(__file__).with_name("templates")
#: Outcome -> (CSS class, sign): no meaning rests on colour alone.
SIGNS = {
    "pass": ("p", "·"),
    "expected failure": ("x", "x"),
    "skip": ("s", "–"),
    "flaky": ("k", "~"),
    "unexpected success": ("u", "!"),
    "defect gone": ("g", "+"),
    "fail": ("f", "F"),
    "error": ("e", "E"),
    "crash": ("c", "C"),
    "timeout": ("t", "T"),
    "not run": ("n", "?"),
    None: ("o", " "),
}
LOOK_AT = BAD | {UNEXPECTED_SUCCESS, FLAKY}
MESSAGE_LIMIT = 1500
SHOWN_ITEMS = 200
#: A target that has been silent for longer than this is not all well, whatever its last night was.
SILENT_SECONDS = 36 * 3600
DEFECT_STATES = {
    EXPECTED_FAILURE: "still there",
    UNEXPECTED_SUCCESS: "vanished",
    DEFECT_GONE: "vanished",
    FLAKY: "comes and goes",
    SKIP: "not asked (skipped)",
    PASS: "gone, mark removed",
}
COLOURS = ("#0b5394", "#a61c00", "#38761d", "#674ea7", "#7f6000", "#134f5c", "#4c1130", "#333333")
DASHES = ("none", "7 3", "2 3", "9 3 2 3")


@dataclass
class Night:
    """One column of a grid: a run and what each test came to in it."""

    run: object
    outcomes: dict

    @property
    def label(self):
        state = "" if self.run.state == COMPLETE else f", {self.run.state}"
        return f"{self.run.day}, torch {self.run.torch_label}{state}"


@dataclass
class Subject:
    """A target as the page shows it; ``begun`` is when a run started that has not finished, or empty."""

    name: str
    judgement: object
    nights: list
    areas: list
    seconds: list
    begun: str

    @property
    def status(self):
        return self.judgement.status

    @property
    def run(self):
        return self.judgement.run

    @property
    def results(self):
        return self.judgement.results


def page(history, nights=30):
    """The page about the last nights of a history, as text.

    Raises:
        NightlyError: the history cannot be read.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(
        SIGNS=SIGNS,
        STATUS_WORDS=STATUS_WORDS,
        PLURALS=PLURALS,
        OUTCOMES=OUTCOMES,
        turning_point=turning_point,
        telling_line=telling_line,
        cell=cell,
        clip=clip,
        SHOWN_ITEMS=SHOWN_ITEMS,
        UNFOLDED=WITH_MESSAGE,
    )
    environment.filters["breakable"] = breakable
    subjects = collect(history, nights)
    ran = [subject for subject in subjects if subject.results]
    silent = silent_targets(history, SILENT_SECONDS, ())
    status = worst_status([subject.status for subject in subjects] + [COULD_NOT_RUN] * bool(silent))
    return environment.get_template("report.html").render(
        generated=now(),
        subjects=subjects,
        silent=silent,
        status=status,
        kinds=list(KINDS),
        ran=ran,
        matrix=area_matrix(ran),
        differing=differing_tests(ran),
        chart=duration_chart(subjects),
        skips=skips_by_reason(subjects),
        defects=known_defects(ran),
    )


def collect(history, nights):
    """The `Subject` of every target that has a run, as of its latest run that has ended."""
    subjects = []
    targets = history.targets()
    hosts = Counter(target.name for target in targets)
    for target in targets:
        runs = history.runs(target.id, limit=nights + 1)
        begun = runs[0].started if runs and runs[0].state == RUNNING else ""
        runs = [run for run in runs if run.state != RUNNING][:nights]
        if not runs:
            continue
        judgement = judge(history, runs[0])
        columns, seconds, areas_of = [], [], {}
        for run in reversed(runs):
            rows = history.results(run)
            columns.append(Night(run, {name: row.outcome for name, row in rows.items()}))
            areas_of.update((name, row.area) for name, row in rows.items())
            if run.state == COMPLETE and rows:
                seconds.append((run.day, sum(row.seconds for row in rows.values() if row.outcome in TIMED)))
        by_area = defaultdict(list)
        for name, area in areas_of.items():
            by_area[area].append(name)
        areas = [area_grid(area, sorted(names), columns) for area, names in sorted(by_area.items())]
        name = target.name if hosts[target.name] == 1 else f"{target.name} on {target.machine}"
        subjects.append(Subject(name, judgement, columns, areas, seconds, begun))
    return subjects


def area_grid(area, names, columns):
    """An area's tests over the nights: its own line (the worst of each night) and one line for each test."""
    latest = Counter(columns[-1].outcomes[name] for name in names if name in columns[-1].outcomes)
    return {
        "area": area,
        "line": [
            standing(night.outcomes[name] for name in names if name in night.outcomes) if night.outcomes else NOT_RUN for night in columns
        ],
        "tests": [(name, [night.outcomes.get(name) for night in columns]) for name in names],
        "counts": ", ".join(f"{latest[outcome]} {outcome}" for outcome in OUTCOMES if latest[outcome]) or "not there last night",
    }


def standing(outcomes):
    """The one outcome that stands for an area's night: the worst that asks for a look, else that something passed."""
    found = set(outcomes)
    return PASS if PASS in found and not found & LOOK_AT else worst_outcome(found)


def breakable(name):
    """A test's name with places where a narrow screen may break it."""
    import markupsafe

    return markupsafe.Markup("<wbr>").join(re.split(r"(?<=[._])", name))


def cell(outcome):
    """The CSS class and sign of an outcome (None: the test was not there)."""
    return SIGNS[outcome]


def clip(text):
    """A message short enough for the page."""
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT // 3] + "\n[...]\n" + text[-2 * MESSAGE_LIMIT // 3 :]


def area_matrix(subjects):
    """Rows (area, [(worst outcome, counts) for each target]) of the latest night."""
    areas = sorted({row.area for subject in subjects for row in subject.results.values()})
    rows = []
    for area in areas:
        cells = []
        for subject in subjects:
            counts = Counter(row.outcome for row in subject.results.values() if row.area == area)
            told = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
            cells.append((standing(counts), ", ".join(told) or "no test"))
        rows.append((area, cells))
    return rows


def differing_tests(subjects):
    """Rows (test, [outcome for each target]) of the tests that do not come to the same on all targets."""
    if len(subjects) < 2:
        return []
    names = sorted({name for subject in subjects for name in subject.results})
    rows = []
    for name in names:
        outcomes = [subject.results[name].outcome if name in subject.results else None for subject in subjects]
        if len(set(outcomes)) > 1:
            rows.append((name, outcomes))
    return rows


def skips_by_reason(subjects):
    """[(reason, [(target, [tests])])], the reason that skips most first."""
    found = defaultdict(lambda: defaultdict(list))
    for subject in subjects:
        for row in subject.results.values():
            if row.outcome == SKIP:
                found[row.message.strip() or "no reason given"][subject.name].append(row.name)
            elif row.message.startswith(PARTLY_SKIPPED):
                for reason in row.message.removeprefix(PARTLY_SKIPPED).split("; "):
                    found[reason][subject.name].append(f"{row.name} (in part)")
    listed = [(reason, list(targets.items())) for reason, targets in found.items()]
    return sorted(listed, key=lambda item: -sum(len(tests) for _, tests in item[1]))


def known_defects(subjects):
    """The tests that are, or were on one of the nights, expected to fail: (test, what it shows, [(outcome, state) for each target]).

    Returns:
        dict: ``still``, those that show their defect on every target; ``moved``, the others.
    """
    marked = {EXPECTED_FAILURE, UNEXPECTED_SUCCESS}
    names = {name for subject in subjects for night in subject.nights for name, outcome in night.outcomes.items() if outcome in marked}
    found = {"still": [], "moved": []}
    for name in sorted(names):
        rows = [subject.results.get(name) for subject in subjects]
        states = [(row.outcome, defect_state(row.outcome)) if row else (None, "not there") for row in rows]
        shown = next((telling_line(row.message) for row in rows if row and row.outcome == EXPECTED_FAILURE), "")
        still = all(outcome == EXPECTED_FAILURE for outcome, _ in states)
        found["still" if still else "moved"].append((name, shown, states))
    return found


def defect_state(outcome):
    """What an outcome says of a known defect."""
    if outcome in BAD - {NOT_RUN}:
        return "changed: fails otherwise"
    return DEFECT_STATES.get(outcome, outcome)


def duration_chart(subjects, width=720, height=240):
    """Lines of the seconds that the tests took, night by night, as what an SVG needs; None if no target has two nights."""
    lines = [subject for subject in subjects if len(subject.seconds) > 1]
    if not lines:
        return None
    days = sorted({day for subject in lines for day, _ in subject.seconds})
    top = nice_ceiling(max(seconds for subject in lines for _, seconds in subject.seconds))
    left, right, upper, lower = 56, width - 12, 12, height - 34
    x_of = {day: left + (right - left) * position / max(len(days) - 1, 1) for position, day in enumerate(days)}
    drawn = []
    for number, subject in enumerate(lines):
        points = [(x_of[day], lower - (lower - upper) * seconds / top) for day, seconds in subject.seconds]
        drawn.append(
            {
                "name": subject.name,
                "colour": COLOURS[number % len(COLOURS)],
                "dash": DASHES[number % len(DASHES)],
                "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
                "last": points[-1],
                "said": f"{subject.seconds[-1][1]:.1f} s on {subject.seconds[-1][0]}, {min(s for _, s in subject.seconds):.1f} to "
                f"{max(s for _, s in subject.seconds):.1f} s before",
            }
        )
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "lower": lower,
        "lines": drawn,
        "ticks": [(f"{top * part / 4:g}", lower - (lower - upper) * part / 4) for part in range(5)],
        "days": [(days[0], left, "start"), (days[-1], right, "end")] if len(days) > 1 else [(days[0], left, "start")],
    }


def nice_ceiling(value):
    """The next of 1, 2, 4, 5, 8 times a power of ten."""
    power = 0.001
    while True:
        for factor in (1, 2, 4, 5, 8):
            if factor * power >= value:
                return factor * power
        power *= 10

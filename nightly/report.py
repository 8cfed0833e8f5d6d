"""The history as one HTML page that needs nothing but itself."""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightly import findings as told
from nightly import palette, pictures, speed
from nightly.compare import KINDS, Judgement, engines, judge, plural
from nightly.history import COMPLETE, RUNNING, History, RunRow, Stretch, Target, now, parse_time
from nightly.outcomes import (
    BAD,
    COULD_NOT_RUN,
    EXPECTED_FAILURE,
    FLAKY,
    GONE,
    NOT_RUN,
    OUTCOMES,
    PARTLY_SKIPPED,
    PASS,
    SKIP,
    STATUS_WORDS,
    UNEXPECTED_SUCCESS,
    worst_outcome,
    worst_status,
)
from nightly.schedule import RETIRED_SECONDS, given_up, silent_targets
from nightly.texts import telling_line

TEMPLATES = Path(__file__).with_name("templates")
LOOK_AT = BAD | {UNEXPECTED_SUCCESS, FLAKY}
#: Outcomes that need no words in a test's history as long as they stay.
CALM = frozenset({PASS, SKIP, EXPECTED_FAILURE})
MESSAGE_LIMIT, LINE_LIMIT = 3000, 300
#: Items of one section, and stretches of one test, that are shown; the rest is counted.
SHOWN_ITEMS, SHOWN_STRETCHES = 100, 12
#: A target that has been silent for longer than this is not all well, whatever its last night was.
SILENT_SECONDS = 36 * 3600
#: What a page cannot show, or must not obey: controls but tab and line break, lone surrogates, marks that turn the direction.
UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
DEFECT_STATES = {
    EXPECTED_FAILURE: "still there",
    FLAKY: "comes and goes",
    SKIP: "not asked (skipped)",
    PASS: "gone, no longer marked",
    **dict.fromkeys(GONE, "gone"),
}


@dataclass
class Subject:
    """A target as the page shows it: its latest verdict, its runs (the oldest first) and what each test came to in them, and in the
    complete ones of them.

    ``begun`` is when a run started that has not finished, or empty.
    """

    name: str
    judgement: Judgement
    runs: list[RunRow]
    timelines: dict[str, list[Stretch]]
    complete: dict[str, list[Stretch]]
    begun: str

    @property
    def status(self) -> int:
        return self.judgement.status

    @property
    def run(self) -> RunRow:
        return self.judgement.run

    @property
    def results(self) -> dict[str, Any]:
        return self.judgement.results

    @property
    def id(self) -> str:
        return told.place_of("target", self.name)


def page(history: History, nights: int = 30, source: str = "") -> str:
    """The page about the last nights of a history.

    Args:
        nights: runs of each target that the grid and the histories of the tests cover.
        source: an address before which a path of the suite's repository becomes a link; without one it stays a path.

    Raises:
        NightlyError: the history cannot be read.
    """
    areas = dict(history.query("SELECT name, area FROM test"))
    left = given_up(history.newest(), SILENT_SECONDS)
    subjects = collect(history, nights, left)
    ran = [subject for subject in subjects if subject.results and subject.run.state == COMPLETE]
    silent = silent_targets(history, SILENT_SECONDS, ())
    named = [(subject.name, subject.judgement) for subject in subjects]
    found = told.merged(named)
    sentences = told.headline(named, found, silent)
    return template("report.html").render(
        generated=now(),
        defect_page=lambda text: defect_page(text, source),
        subjects=subjects,
        columns=max([1, *(len(subject.runs) for subject in subjects)]),
        silent=silent,
        given_up=left,
        status=worst_status([subject.status for subject in subjects] + [COULD_NOT_RUN] * bool(silent)),
        sentences=sentences,
        found=found,
        ran=ran,
        matrix=area_matrix(ran),
        differing=differing_tests(ran),
        grids=[(subject, grid(subject, areas)) for subject in subjects],
        chart=pictures.chart([(subject.name, durations(subject)) for subject in subjects], "s"),
        speeds=[(subject, rows) for subject in subjects if (rows := speed_rows(subject))],
        skips=skips_by_reason(subjects),
        defects=known_defects(ran),
        histories=histories(subjects, areas),
    )


@functools.lru_cache
def template(name: str) -> Any:
    """A template of `TEMPLATES`, with what it calls."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, markupsafe.Markup) or not isinstance(value, str) else visible(value),
    )
    environment.globals.update(
        LOOKS=palette.LOOKS,
        STATUS_WORDS=STATUS_WORDS,
        OUTCOMES=OUTCOMES,
        LOUD=told.LOUD,
        SHOWN_ITEMS=SHOWN_ITEMS,
        RETIRED_DAYS=RETIRED_SECONDS // 86400,
        FAILURES=told.FAILURES,
        KINDS=KINDS,
        plural=plural,
        place_of=told.place_of,
        sign_of=palette.sign_of,
        palette_style=lambda theme: markupsafe.Markup(palette.style(theme)),
        clip=clip,
        short=short,
        repeat_command=repeat_command,
        about_machine=told.about_machine,
        engines=engines,
        telling_line=telling_line,
        duration=duration,
        months=months,
        days=days,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(name)


def collect(history: History, nights: int, without: Collection[Target] = ()) -> list[Subject]:
    """The `Subject` of every target that has a run, as of its latest run that has ended; ``without`` those that are given up."""
    subjects = []
    targets = [target for target in history.targets() if target not in without]
    hosts = Counter(target.name for target in targets)
    for target in targets:
        runs = history.nights(target.id, limit=nights + 1)
        begun = runs[0].started if runs and runs[0].state == RUNNING else ""
        runs = [run for run in runs if run.state != RUNNING][:nights]
        if runs:
            name = target.name if hosts[target.name] == 1 else f"{target.name} on {target.machine}"
            timelines = history.timelines(target.id, runs)
            done = [run for run in runs if run.state == COMPLETE]
            complete = timelines if len(done) == len(runs) else history.timelines(target.id, done)
            subjects.append(Subject(name, judge(history, runs[0]), runs[::-1], timelines, complete, begun))
    return subjects


# What is shown of a text


def visible(text: str) -> str:
    """Text in which what a page cannot show, or must not obey, is written as an escape."""
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def breakable(name: str) -> Any:
    """A test's name with places where a narrow screen may break it."""
    import markupsafe

    return markupsafe.Markup("<wbr>").join(re.split(r"(?<=[._])", visible(name)))


def clip(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """A message short enough for the page: its beginning and, for it tells more, its end."""
    return text if len(text) <= limit else text[: limit // 3] + "\n[...]\n" + text[-2 * limit // 3 :]


def short(text: str, limit: int = LINE_LIMIT) -> str:
    """A line short enough for a list."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def repeat_command(test: str) -> str:
    """How to run one test by hand; empty where its name is none that the runner knows."""
    return f"python test_ao_sparsity.py {test}" if re.fullmatch(r"[^\W\d]\w*\.\w+", test) else ""


def defect_page(text: str, source: str) -> tuple[str, str]:
    """(address, path) of the page of a known defect that a message names; empty where it names none, or no address is known."""
    found = re.search(r"\bao/sparsity/defects/[\w./-]+\.md\b", text)
    path = found[0] if found and ".." not in found[0] else ""
    return (f"{source.rstrip('/')}/{path}" if path and re.match(r"https?://", source) else ""), path


def duration(run: RunRow) -> str:
    """How long a run took, in the unit that suits it."""
    seconds = run.seconds()
    if seconds is None or seconds < 0:
        return ""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# Targets side by side


def standing(outcomes: Iterable[str]) -> str | None:
    """The one outcome that stands for an area's night: the worst that asks for a look, else that something passed."""
    found = set(outcomes)
    return PASS if PASS in found and not found & LOOK_AT else worst_outcome(found)


def counted(counts: Mapping[str, int]) -> str:
    """``12 pass, 1 skip``."""
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES[::-1] if counts.get(outcome)) or "no test"


def area_matrix(subjects: Sequence[Subject]) -> list[tuple[str, str, list[tuple[str | None, str]]]]:
    """Rows (area, counts on most targets, [(worst outcome, what differs from that) for each target]) of the latest night; nothing
    differs where the second is empty."""
    areas = sorted({row.area for subject in subjects for row in subject.results.values()})
    rows = []
    for area in areas:
        found = [Counter(row.outcome for row in subject.results.values() if row.area == area) for subject in subjects]
        usual = dict(majority([tuple(sorted(counts.items())) for counts in found], calmness))
        rows.append((area, counted(usual), [oddities(counts, usual) for counts in found]))
    return rows


def calmness(counts: tuple[tuple[str, int], ...]) -> tuple[bool, int]:
    """How usual such counts look: none that ask for a look, then the more that pass."""
    return not any(count and outcome in LOOK_AT for outcome, count in counts), dict(counts).get(PASS, 0)


def oddities(counts: Mapping[str, int], usual: Mapping[str, int]) -> tuple[str | None, str]:
    """The worst of the outcomes that are not as usual, and their counts, worst first; passes alone only where nothing else is odd."""
    if not counts:
        return None, "no test" if usual else ""
    odd = [outcome for outcome in OUTCOMES if counts.get(outcome, 0) != usual.get(outcome, 0)]
    telling = [outcome for outcome in odd if outcome != PASS and counts.get(outcome, 0)] or odd
    return next(iter(telling), None), ", ".join(f"{counts.get(outcome, 0)} {outcome}" for outcome in telling)


def majority(values: Sequence[Any], prefer: Callable[[Any], tuple[bool, int]]) -> Any:
    """The value that counts as usual: what ``prefer`` calls calm before what it does not, then what most have, then its number."""
    counts = Counter(values)
    return max(counts, key=lambda value: (prefer(value)[0], counts[value], prefer(value)[1]))


def differing_tests(subjects: Sequence[Subject]) -> list[tuple[list[tuple[str | None, list[str]]], str | None, list[str]]]:
    """Groups of tests that do not come to the same on all targets: ([(outcome, odd targets)], outcome elsewhere, tests); those
    that ask for a look first."""
    groups = defaultdict(list)
    for name in sorted({name for subject in subjects for name in subject.results}):
        outcomes = tuple(subject.results[name].outcome if name in subject.results else None for subject in subjects)
        if len(set(outcomes)) > 1:
            groups[outcomes].append(name)
    found = []
    for outcomes, names in groups.items():
        usual = majority(outcomes, lambda outcome: (outcome is not None and outcome not in LOOK_AT, rank(outcome)))
        odd: dict[str | None, list[str]] = defaultdict(list)
        for subject, outcome in zip(subjects, outcomes):
            if outcome != usual:
                odd[outcome].append(subject.name)
        found.append((sorted(odd.items(), key=lambda item: rank(item[0])), usual, names))
    return sorted(found, key=lambda item: (min(rank(outcome) for outcome, _ in item[0]), -len(item[2])))


def rank(outcome: str | None) -> int:
    """The place of an outcome from the worst on."""
    return OUTCOMES.index(outcome) if outcome in OUTCOMES else len(OUTCOMES)


# Tests and nights


@dataclass
class Bar:
    """Neighbouring nights with one outcome; ``said`` is what its tooltip says."""

    outcome: str | None
    nights: int
    said: str


@dataclass
class AreaGrid:
    """An area's nights: its own line, and one for each group of tests that came to the same every night."""

    area: str
    line: list[Bar]
    rows: list[tuple[list[str], list[Bar]]]
    counts: str
    id: str


def grid(subject: Subject, areas: dict[str, str]) -> list[AreaGrid]:
    """The areas of a target over its nights."""
    by_area: dict[str, list[str]] = defaultdict(list)
    for name in sorted(subject.timelines):
        by_area[areas.get(name, "")].append(name)
    found = []
    place = {run.id: number for number, run in enumerate(subject.runs)}
    for area, names in sorted(by_area.items()):
        columns: list[set[str]] = [set() for _ in subject.runs]
        groups = defaultdict(list)
        for name in names:
            cells: list[str | None] = [None] * len(subject.runs)
            for stretch in subject.timelines[name]:
                for number in range(place[stretch.first.id], place[stretch.last.id] + 1):
                    cells[number] = stretch.outcome
                    if stretch.outcome:
                        columns[number].add(stretch.outcome)
            groups[tuple(cells)].append(name)
        line = [standing(outcomes) if outcomes else NOT_RUN for outcomes in columns]
        rows = sorted(groups.items(), key=lambda item: (len(set(item[0])) == 1, min(map(rank, item[0])), item[1]))
        counts = Counter(subject.results[name].outcome for name in names if name in subject.results)
        found.append(
            AreaGrid(
                area,
                bars(line, subject.runs),
                [(members, bars(cells, subject.runs)) for cells, members in rows],
                counted(counts) if counts else "not there last night",
                told.place_of("area", area),
            )
        )
    return found


def bars(cells: Sequence[str | None], runs: Sequence[RunRow]) -> list[Bar]:
    """Cells with equal neighbours together."""
    found, start = [], 0
    for end in range(1, len(cells) + 1):
        if end == len(cells) or cells[end] != cells[start]:
            found.append(Bar(cells[start], end - start, f"{cells[start] or 'not there'}, {days(runs[start], runs[end - 1], end - start)}"))
            start = end
    return found


def days(first: RunRow, last: RunRow, nights: int) -> str:
    """``2026-03-01 to 2026-03-07 (7 nights), torch A to B``."""
    torch = first.torch if first.torch == last.torch else f"{first.torch} to {last.torch}"
    when = first.day if nights == 1 else f"{first.day} to {last.day} ({nights} nights)"
    return f"{when}, torch {torch or 'not known'}"


# Each test's history


@dataclass
class TestHistory:
    """A test over the nights: for each group of targets on which it went alike, its stretches, the latest first."""

    name: str
    area: str
    outcome: str | None
    groups: list[tuple[list[str], list[Stretch], int]]


@dataclass
class AreaHistory:
    """The tests of an area: those in which something moved, and groups of those that were calm (what they came to, names)."""

    area: str
    id: str
    moved: list[TestHistory]
    calm: list[tuple[str | None, str, list[str]]]


def histories(subjects: Sequence[Subject], areas: dict[str, str]) -> list[AreaHistory]:
    """The history of every test over the nights of the page, by area."""
    moved: dict[str, list[TestHistory]] = defaultdict(list)
    calm: dict[str, dict[tuple[str | None, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted({name for subject in subjects for name in subject.complete}):
        area = areas.get(name, "")
        have = [(subject.name, subject.complete[name]) for subject in subjects if name in subject.complete]
        ends = {(stretch.outcome, stretch.message) for _, stretches in have for stretch in stretches}
        if len(ends) == 1 and next(iter(ends))[0] in CALM:
            (outcome, message) = next(iter(ends))
            where = "" if len(have) == len(subjects) else " on " + ", ".join(target for target, _ in have)
            calm[area][outcome, f"{where}{': ' if message else ''}{short(telling_line(message))}"].append(name)
            continue
        groups: dict[tuple[Any, ...], tuple[list[str], list[Stretch], int]] = {}
        for target, stretches in have:
            key = tuple((item.outcome, telling_line(item.message), item.first.day, item.last.day, item.first.torch) for item in stretches)
            shown = stretches[::-1][:SHOWN_STRETCHES]
            groups.setdefault(key, ([], shown, len(stretches) - len(shown)))[0].append(target)
        worst = worst_outcome(item[-1].outcome for _, item in have if item[-1].outcome)
        moved[area].append(TestHistory(name, area, worst, list(groups.values())))
    found = []
    for area in sorted({*moved, *calm}):
        alike = [(outcome, text, names) for (outcome, text), names in calm[area].items()]
        found.append(AreaHistory(area, told.place_of("area", area), moved[area], sorted(alike, key=lambda item: -len(item[2]))))
    return found


# Durations, speeds, skips, known defects


def durations(subject: Subject) -> list[tuple[str, float]]:
    """(day, seconds of its tests) of a target's complete nights."""
    return [(run.day, run.test_seconds) for run in subject.runs if run.state == COMPLETE and run.tests]


@dataclass
class SpeedRow:
    """A ratio by night: the latest, its picture, and the words where it is slower."""

    name: str
    ratio: float
    path: str
    last: str
    mark: float
    slower: str


def speed_rows(subject: Subject) -> list[SpeedRow]:
    """The ratios of the latest night that has any, over the nights."""
    runs = [run for run in subject.runs if run.state == COMPLETE and speed.recorded_in(run)]
    if not runs:
        return []
    slower = speed.slower(runs[::-1])
    rows = []
    for name, ratio in speed.recorded_in(runs[-1]).items():
        path, last, mark = pictures.spark([speed.recorded_in(run).get(name) for run in subject.runs])
        words = f"slower: {slower[name][1]:.2f} before" if name in slower else ""
        rows.append(SpeedRow(name, ratio, path, last, mark, words))
    return rows


def skips_by_reason(subjects: Sequence[Subject]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """[(reason, [(target, [tests])])], the reason that skips most first."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for subject in subjects:
        for row in subject.results.values():
            if row.outcome == SKIP:
                found[row.message.strip() or "no reason given"][subject.name].append(row.name)
            elif row.message.startswith(PARTLY_SKIPPED):
                for reason in row.message.removeprefix(PARTLY_SKIPPED).split("; "):
                    found[reason][subject.name].append(f"{row.name} (in part)")
    listed = [(reason, list(targets.items())) for reason, targets in found.items()]
    return sorted(listed, key=lambda item: -sum(len(tests) for _, tests in item[1]))


@dataclass
class Defect:
    """Tests that show the same known defect alike: what they show, since when, and how it stands where."""

    tests: list[str]
    text: str
    since: str
    where: str
    outcomes: list[str]


def known_defects(subjects: Sequence[Subject]) -> dict[str, list[Defect]]:
    """The tests that are, or were on one of the nights, expected to fail.

    Returns:
        dict: ``still``, those that show their defect on every target that asks for it; ``moved``, the others.
    """
    marked = {EXPECTED_FAILURE, *GONE}
    names = {
        name
        for subject in subjects
        for name, stretches in subject.complete.items()
        if any(stretch.outcome in marked for stretch in stretches)
    }
    found: dict[str, dict[tuple[str, ...], Defect]] = {"still": {}, "moved": {}}
    for name in sorted(names):
        rows = [subject.results.get(name) for subject in subjects]
        states: dict[str, list[str]] = defaultdict(list)
        for subject, row in zip(subjects, rows):
            states[defect_state(row.outcome) if row else "not there"].append(subject.name)
        text = next((row.message for row in rows if row and row.outcome in marked), "")
        outcomes = sorted({row.outcome if row else "" for row in rows})
        since = since_of([subject for subject in subjects if name in subject.complete], name, marked)
        where = "; ".join(state + (f" on {', '.join(names)}" if len(states) > 1 else "") for state, names in states.items())
        kind = "still" if EXPECTED_FAILURE in outcomes and set(outcomes) <= {EXPECTED_FAILURE, SKIP} else "moved"
        found[kind].setdefault((telling_line(text), since, where), Defect([], text, since, where, outcomes)).tests.append(name)
    return {kind: list(items.values()) for kind, items in found.items()}


def since_of(subjects: Sequence[Subject], name: str, marked: Collection[str]) -> str:
    """The day from which on the latest nights of a test had such outcomes, on the target where that is longest."""
    days_found = []
    for subject in subjects:
        first = None
        for stretch in reversed(subject.complete[name]):
            if stretch.outcome not in marked:
                break
            first = stretch.first
        if first is not None:
            days_found.append((first.day, first.id == next(run.id for run in subject.runs if run.state == COMPLETE)))
    day, from_the_start = min(days_found, default=("", False))
    return f"{day} or earlier" if from_the_start else day


def defect_state(outcome: str) -> str:
    """What an outcome says of a known defect."""
    if outcome in BAD - {NOT_RUN}:
        return "fails otherwise"
    return DEFECT_STATES.get(outcome, outcome)


def months(runs: Sequence[RunRow]) -> list[tuple[str, int]]:
    """(month, number of nights) for the head of a grid."""
    found: list[tuple[str, int]] = []
    for run in runs:
        month = parse_time(run.started).strftime("%b %Y")
        if found and found[-1][0] == month:
            found[-1] = (month, found[-1][1] + 1)
        else:
            found.append((month, 1))
    return found

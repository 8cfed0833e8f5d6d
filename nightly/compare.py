"""What changed since the last night of the same target, and how bad it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from nightly import speed
from nightly.acknowledge import ACKNOWLEDGED, all_of, applied
from nightly.history import COMPLETE, COULD_NOT_RUN, INTERRUPTED, History, Past, ResultLike, Row, RunRow
from nightly.outcomes import (
    ALL_WELL,
    BAD,
    EXPECTED_FAILURE,
    FLAKY,
    GONE,
    GOOD,
    KNOWN_ONLY,
    NIGHTLY_FAILED,
    NOT_AGAIN,
    PASS,
    SKIP,
    TIMED,
    WORSE,
    is_test,
    skipped_parts,
    worst_status,
)
from nightly.outcomes import COULD_NOT_RUN as STATUS_COULD_NOT_RUN

#: Kind of change -> the exit status that it means; worst first, the order in which a summary tells them.
KINDS = {
    "nightly failed": NIGHTLY_FAILED,
    "no tests ran": WORSE,
    "far fewer tests": WORSE,
    "new failure": WORSE,
    "vanished test": WORSE,
    "new skip": WORSE,
    "could not run": STATUS_COULD_NOT_RUN,
    "interrupted": STATUS_COULD_NOT_RUN,
    "known defect back": KNOWN_ONLY,
    "known defect vanished": KNOWN_ONLY,
    "flaky": KNOWN_ONLY,
    "slower by far": KNOWN_ONLY,
    "fixed": ALL_WELL,
    "new test": ALL_WELL,
    "note": ALL_WELL,
    "still failing": KNOWN_ONLY,
    "still flaky": KNOWN_ONLY,
    "known defect still gone": ALL_WELL,
    "still noted": ALL_WELL,
    ACKNOWLEDGED: ALL_WELL,
}
#: Kinds that are no news: they were told on an earlier night, and are counted from then on.
STILL = frozenset({"still failing", "still flaky", "known defect still gone", "still noted", ACKNOWLEDGED})
#: Kind -> what one of it is called, and several; where it is left out, as it stands.
NAMES = {
    "nightly failed": ("failure of nightly itself", "failures of nightly itself"),
    "no tests ran": ("night without a test", "nights without a test"),
    "far fewer tests": ("night with far fewer tests", "nights with far fewer tests"),
    "new failure": ("new failure", "new failures"),
    "vanished test": ("vanished test", "vanished tests"),
    "new skip": ("new skip", "new skips"),
    "known defect back": ("known defect that is back", "known defects that are back"),
    "known defect vanished": ("known defect that vanished", "known defects that vanished"),
    "new test": ("new test", "new tests"),
    "note": ("note", "notes"),
    "known defect still gone": ("known defect still gone", "known defects still gone"),
}

#: A night with a smaller part of last night's tests than this has far fewer.
FAR_FEWER = 0.8
#: A test is slower by far when it takes this many times the slowest of its last nights, and this many seconds more.
SLOWER_FACTOR, SLOWER_SECONDS, SLOWER_NIGHTS, SLOWER_NEEDED = 3.0, 0.5, 10, 5


@dataclass(frozen=True)
class Change:
    """One thing worth telling about a night; ``test`` is empty when it is about the whole night."""

    kind: str
    test: str = ""
    outcome: str = ""
    text: str = ""
    last_good: RunRow | None = None
    first_bad: RunRow | None = None


@dataclass
class Judgement:
    """A night, the night it was held against (None on the first), what changed and the exit status this means."""

    run: RunRow
    baseline: RunRow | None = None
    results: dict[str, Row] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    @property
    def status(self) -> int:
        return worst_status(KINDS[change.kind] for change in self.changes)

    @property
    def is_news(self) -> bool:
        """Whether there is anything that no earlier night has told."""
        return any(change.kind not in STILL for change in self.changes)


def plural(kind: str, count: int) -> str:
    """The name of a kind for a number of them."""
    return NAMES.get(kind, (kind, kind))[count != 1]


def find_baseline(history: History, run: RunRow) -> RunRow | None:
    """The last complete night of the same target and selection with tests, leaving out nights that were cut short."""
    assert run.target_id is not None, "the run stands in the history"
    return next(iter(history.runs(run.target_id, limit=1, before=run, comparable=True)), None)


def was_told(run: RunRow) -> bool:
    """Whether a person was told what changed in a run."""
    return bool(run.told)


def mark_short(history: History, run: RunRow, results: Collection[ResultLike]) -> None:
    """Mark a complete night that has so few tests, for the same suite, that later ones must not be measured by it."""
    baseline = find_baseline(history, run)
    same_suite = baseline is not None and (baseline.suite_version, baseline.suite_commit) == (run.suite_version, run.suite_commit)
    before = history.results(baseline) if baseline is not None and same_suite else ()
    run.short = int(not results or far_fewer((row.name for row in results), before))


def far_fewer(names: Iterable[str], before: Iterable[str]) -> bool:
    """Whether there are far fewer tests than before; what is recorded around tests does not count."""
    return sum(map(is_test, names)) < FAR_FEWER * sum(map(is_test, before))


def judge(history: History, run: RunRow, heard: Callable[[RunRow], bool] = lambda earlier: True) -> Judgement:
    """The `Judgement` of a run that stands in the history, held against the last earlier run of which ``heard`` answers True.

    Where it answers True of none, the last one will do, but all that fails is news.
    """
    judgement = Judgement(run)
    changes = judgement.changes
    if run.state == COULD_NOT_RUN:
        changes.append(Change("could not run", text=run.reason))
        return judgement
    results = judgement.results = history.results(run)
    if run.state != COMPLETE:
        changes.append(Change("interrupted", text=f"{run.reason or f'the run is {run.state}'}: what it had seen is no verdict"))
        seen = [row for row in results.values() if row.outcome in BAD]
        changes += [Change("note", row.name, row.outcome, f"{row.outcome} before the end: {row.message}") for row in seen]
        return judgement
    assert run.target_id is not None
    nights = history.runs(run.target_id, before=run, comparable=True)
    earlier = [night for night in nights if heard(night)]
    judgement.baseline = baseline = next(iter(earlier or nights), None)
    before = history.results(baseline) if baseline else {}
    if not results:
        changes.append(Change("no tests ran", text="the runner ended without running a test"))
        return judgement
    if baseline and far_fewer(results, before):
        changes.append(Change("far fewer tests", text=f"{len(results)} tests, {len(before)} on {baseline.day}"))
    asked = [name for name, row in results.items() if row.outcome in BAD | GONE | {FLAKY}]
    pasts = history.past(run, asked, heard)
    for name, row in results.items():
        changes += compare_test(run, row, before.get(name), pasts.get(name, Past()), not baseline, not earlier)
    if baseline:
        changes += [change for name, row in before.items() if name not in results for change in gone(row, baseline)]
        changes += lost_parts(run, baseline)
        if any(change.kind in ("vanished test", "new test") for change in changes) and run.suite_label != baseline.suite_label:
            before_it, after_it = (each.suite_label or "one that is not known" for each in (baseline, run))
            changes.append(Change("note", text=f"the suite itself changed since {baseline.day}, from {before_it} to {after_it}"))
    changes += slower(history, earlier[:SLOWER_NIGHTS], results)
    changes += slower_kernels(run, nights[: speed.RUNS_BACK], earlier[: speed.RUNS_BACK])
    if history.is_misdated(run):
        changes.append(Change("note", text=f"its start, {run.started}, cannot be: a clock is wrong; it is kept apart from other nights"))
    previous = history.runs(run.target_id, limit=1, before=run)
    if previous and previous[0].state == INTERRUPTED:
        changes.append(Change("note", text=f"the run of {previous[0].day} was interrupted"))
    judgement.changes = changes = applied(all_of(history), changes, run, baseline)
    broke = any(change.kind == "new failure" for change in changes)
    told = {text for night in earlier[:1] for text in night.notes}
    changes += [
        Change("still noted" if text in told or (text.endswith(NOT_AGAIN) and not broke) else "note", text=text) for text in run.notes
    ]
    order = list(KINDS)
    changes.sort(key=lambda change: (order.index(change.kind), change.test))
    return judgement


def compare_test(run: RunRow, row: Row, before: Row | None, past: Past, first_night: bool, first_told: bool) -> list[Change]:
    """The changes that one test of tonight stands for."""
    name, outcome, text = row.name, row.outcome, row.message
    was = before.outcome if before else None
    if outcome in BAD:
        known = was if was != SKIP else past.outcome  # a skip says nothing: look at the last night that does
        kind = "still failing" if known in BAD and not first_told else "new failure"
        return [Change(kind, name, outcome, text, past.last_good, past.first_bad or run)]
    if outcome in GONE:
        return [Change("known defect still gone" if past.recent & GONE else "known defect vanished", name, outcome, text)]
    if outcome == FLAKY:
        return [Change("still flaky" if FLAKY in past.recent else "flaky", name, outcome, text)]
    if before is None:
        return [] if first_night else [Change("new test", name, outcome, text)]
    if outcome == SKIP and was != SKIP:
        return [Change("new skip", name, outcome, text)]
    found = []
    if outcome in GOOD and was in BAD:
        found.append(Change("fixed", name, outcome, f"{was} before"))
    if outcome == PASS and was == EXPECTED_FAILURE:
        found.append(Change("known defect vanished", name, outcome, f"passes now; before: {before.message}"))
    if outcome == EXPECTED_FAILURE and was in GONE:
        found.append(Change("known defect back", name, outcome, text))
    if was in GOOD and skipped_parts(text) - skipped_parts(before.message):
        found.append(Change("new skip", name, outcome, text))
    return found


def gone(before: Row, baseline: RunRow) -> list[Change]:
    """The change that a result of the night before stands for that tonight has nothing of."""
    if is_test(before.name):
        return [Change("vanished test", before.name, before.outcome, f"there on {baseline.day} ({before.outcome})")]
    return [Change("fixed", before.name, PASS, f"{before.outcome} before")] if before.outcome in BAD else []


def lost_parts(run: RunRow, baseline: RunRow) -> list[Change]:
    """Notes of the quantized engines that the build had the night before, and has no more."""
    lost = sorted(set(engines(baseline)) - set(engines(run)))
    return [Change("note", text=f"quantized engines gone since {baseline.day}: {', '.join(lost)}")] if lost else []


def engines(run: RunRow) -> list[str]:
    """The quantized engines of a run's build, as far as it told any."""
    told = run.environment.get("engines")
    return [engine for engine in told if isinstance(engine, str)] if isinstance(told, list) else []


def slower(history: History, earlier: list[RunRow], results: dict[str, Row]) -> list[Change]:
    """Changes for tests that take far longer than on any of their last nights, and for the whole run."""
    if len(earlier) < SLOWER_NEEDED:
        return []
    slowest: dict[str, float] = {}
    times: dict[str, int] = {}
    for past in earlier:
        for name, seconds in history.seconds(past).items():
            slowest[name] = max(seconds, slowest.get(name, 0.0))
            times[name] = times.get(name, 0) + 1
    timed = {name: row for name, row in results.items() if row.outcome in TIMED}
    found = []
    for name, row in timed.items():
        if times.get(name, 0) >= SLOWER_NEEDED and by_far(row.seconds, slowest[name]):
            found.append(Change("slower by far", name, row.outcome, f"{row.seconds:.2f} s, at most {slowest[name]:.2f} s before"))
    total = sum(row.seconds for row in timed.values())
    if by_far(total, sum(slowest.get(name, row.seconds) for name, row in timed.items())) and not found:
        found.append(Change("slower by far", text=f"{total:.1f} s of tests in all"))
    return found


def slower_kernels(run: RunRow, nights: list[RunRow], heard: list[RunRow]) -> list[Change]:
    """Changes for the ratios of sparse to dense that are worse by a quarter for the second night, unless the nights that were heard of
    had it, too."""
    if not speed.recorded_in(run):
        return []
    told = speed.slower([night for night in heard if speed.recorded_in(night)])
    return [Change("slower by far", text=line) for name, line in speed.slower_lines([run, *nights]).items() if name not in told]


def by_far(seconds: float, slowest: float) -> bool:
    """Whether a duration is longer by far than the longest before it."""
    return seconds > SLOWER_FACTOR * slowest and seconds > slowest + SLOWER_SECONDS

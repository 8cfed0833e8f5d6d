"""What changed since the last night of the same target, and how bad it is."""

from dataclasses import dataclass, field

from nightly.history import COMPLETE, COULD_NOT_RUN, INTERRUPTED
from nightly.outcomes import (
    ALL_WELL,
    BAD,
    FLAKY,
    GOOD,
    KNOWN_ONLY,
    PARTLY_SKIPPED,
    SKIP,
    TIMED,
    UNEXPECTED_SUCCESS,
    WORSE,
    worst_status,
)
from nightly.outcomes import COULD_NOT_RUN as STATUS_COULD_NOT_RUN

#: Kind of change -> the exit status that it means; worst first, the order in which a summary tells them.
KINDS = {
    "no tests ran": WORSE,
    "far fewer tests": WORSE,
    "new failure": WORSE,
    "vanished test": WORSE,
    "new skip": WORSE,
    "could not run": STATUS_COULD_NOT_RUN,
    "still failing": KNOWN_ONLY,
    "known defect vanished": KNOWN_ONLY,
    "flaky": KNOWN_ONLY,
    "slower by far": KNOWN_ONLY,
    "fixed": ALL_WELL,
    "new test": ALL_WELL,
    "note": ALL_WELL,
}

#: A night with a smaller part of last night's tests than this has far fewer.
FAR_FEWER = 0.8
#: A test is slower by far when it takes this many times the slowest of its last nights, and this many seconds more.
SLOWER_FACTOR, SLOWER_SECONDS, SLOWER_NIGHTS, SLOWER_NEEDED = 3.0, 0.5, 10, 5
#: How many results back a result that says something (no skip) is looked for.
REAL_RESULTS_BACK = 30


@dataclass(frozen=True)
class Change:
    """One thing worth telling about a night; ``test`` is empty when it is about the whole night."""

    kind: str
    test: str = ""
    outcome: str = ""
    text: str = ""
    last_good: object = None
    first_bad: object = None


@dataclass
class Judgement:
    """A night, the night it was held against (None on the first), what changed and the exit status this means."""

    run: object
    baseline: object = None
    results: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)

    @property
    def status(self):
        return worst_status(KINDS[change.kind] for change in self.changes)

    def of_kind(self, kind):
        return [change for change in self.changes if change.kind == kind]

    @staticmethod
    def status_of(kind):
        """The exit status that a kind of change means."""
        return KINDS[kind]


def find_baseline(history, run):
    """The last complete night of the same target and selection with tests, leaving out nights that were cut short."""
    return next(iter(history.runs(run.target_id, limit=1, before=run, comparable=True)), None)


def mark_short(history, run, results):
    """Mark a complete night that has so few tests, for the same suite, that later ones must not be measured by it."""
    baseline = find_baseline(history, run)
    same_suite = baseline is not None and baseline.suite_commit == run.suite_commit
    run.short = int(not results or (same_suite and len(results) < FAR_FEWER * len(history.results(baseline))))


def judge(history, run):
    """The `Judgement` of a run that stands in the history."""
    judgement = Judgement(run)
    changes = judgement.changes
    if run.state == COULD_NOT_RUN:
        changes.append(Change("could not run", text=run.reason))
        return judgement
    if run.state != COMPLETE:
        changes.append(Change("could not run", text=run.reason or f"the run is {run.state}"))
        return judgement
    results = judgement.results = history.results(run)
    judgement.baseline = baseline = find_baseline(history, run)
    before = history.results(baseline) if baseline else {}
    if not results:
        changes.append(Change("no tests ran", text="the runner ended without running a test"))
        return judgement
    if len(results) < FAR_FEWER * len(before):
        changes.append(Change("far fewer tests", text=f"{len(results)} tests, {len(before)} on {baseline.day}"))
    for name, row in results.items():
        changes += compare_test(history, run, row, before.get(name), first_night=baseline is None)
    changes += [
        Change("vanished test", name, row.outcome, f"there on {baseline.day} ({row.outcome})")
        for name, row in before.items()
        if name not in results
    ]
    changes += slower(history, run, results)
    changes += [Change("note", text=text) for text in run.notes]
    if baseline is not None and set(baseline.environment.get("engines", [])) - set(run.environment.get("engines", [])):
        lost = sorted(set(baseline.environment["engines"]) - set(run.environment.get("engines", [])))
        changes.append(Change("note", text=f"quantized engines gone since {baseline.day}: {', '.join(lost)}"))
    previous = history.runs(run.target_id, limit=1, before=run)
    if previous and previous[0].state == INTERRUPTED:
        changes.append(Change("note", text=f"the run of {previous[0].day} was interrupted"))
    order = list(KINDS)
    changes.sort(key=lambda change: (order.index(change.kind), change.test))
    return judgement


def compare_test(history, run, row, before, first_night):
    """The changes that one test of tonight stands for."""
    name, outcome, text = row.name, row.outcome, row.message
    was = before.outcome if before else None
    if outcome in BAD:
        last_good, first_bad = history.turning_point(run, name)
        if was == SKIP:  # a skip says nothing: look at the last night that does
            earlier = history.outcomes_before(run, name)[:REAL_RESULTS_BACK]
            was = next((found for _, found in earlier if found != SKIP), None)
        kind = "still failing" if was in BAD else "new failure"
        return [Change(kind, name, outcome, text, last_good, first_bad)]
    if outcome == UNEXPECTED_SUCCESS:
        return [Change("known defect vanished", name, outcome, text)]
    if outcome == FLAKY:
        return [Change("flaky", name, outcome, text)]
    if before is None:
        return [] if first_night else [Change("new test", name, outcome, text)]
    if outcome == SKIP and was != SKIP:
        return [Change("new skip", name, outcome, text)]
    found = []
    if outcome in GOOD and was in BAD:
        found.append(Change("fixed", name, outcome, f"{was} before"))
    if text.startswith(PARTLY_SKIPPED) and text != before.message and was in GOOD:
        found.append(Change("new skip", name, outcome, text))
    return found


def slower(history, run, results):
    """Changes for tests that take far longer than on any of their last nights, and for the whole run."""
    earlier = history.runs(run.target_id, limit=SLOWER_NIGHTS, before=run, comparable=True)
    if len(earlier) < SLOWER_NEEDED:
        return []
    slowest, times = {}, {}
    for past in earlier:
        for name, row in history.results(past).items():
            if row.outcome in TIMED:
                slowest[name] = max(row.seconds, slowest.get(name, 0.0))
                times[name] = times.get(name, 0) + 1
    found = []
    for name, row in results.items():
        if row.outcome in TIMED and times.get(name, 0) >= SLOWER_NEEDED and by_far(row.seconds, slowest[name]):
            found.append(Change("slower by far", name, row.outcome, f"{row.seconds:.2f} s, at most {slowest[name]:.2f} s before"))
    total = sum(row.seconds for row in results.values() if row.outcome in TIMED)
    if by_far(total, sum(slowest.get(name, row.seconds) for name, row in results.items() if row.outcome in TIMED)) and not found:
        found.append(Change("slower by far", text=f"{total:.1f} s of tests in all"))
    return found


def by_far(seconds, slowest):
    return seconds > SLOWER_FACTOR * slowest and seconds > slowest + SLOWER_SECONDS

"""The changes of all targets together: equal ones merged, each with since when it is there and what changed then."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nightly.compare import KINDS, Change, Judgement, engines, plural
from nightly.history import RunRow
from nightly.links import compare_address
from nightly.outcomes import COULD_NOT_RUN, NIGHTLY_FAILED, OUTCOMES, WORSE
from nightly.texts import telling_line

#: Kinds that ask for a look now, in the order in which they are shown; all others are folded.
LOUD = sorted(
    (kind for kind, status in KINDS.items() if status in (WORSE, COULD_NOT_RUN, NIGHTLY_FAILED)),
    key=lambda kind: (kind != "new failure", list(KINDS).index(kind)),
)
#: Kinds that are folded, those that still fail first.
QUIET = sorted((kind for kind in KINDS if kind not in LOUD), key=lambda kind: (kind != "still failing", list(KINDS).index(kind)))
#: Kinds whose items are failures: with a message, and a turning point.
FAILURES = frozenset({"new failure", "still failing", "acknowledged"})


@dataclass
class Turn:
    """Between which runs a test broke, and on which targets; ``good`` is None where it was never good."""

    good: RunRow | None
    bad: RunRow
    targets: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return compare_address(self.good, self.bad)

    @property
    def changed(self) -> list[str]:
        return what_changed(self.good, self.bad) if self.good else []

    @property
    def cause(self) -> str:
        """Whose change it can be, as a sentence."""
        if self.good is None:
            return "It was never good here."
        names = [line.split(":")[0] for line in self.changed]
        if not names:
            return "Nothing that is recorded changed between them: chance, or something else on the machine."
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        return f"{'Only ' if len(names) == 1 else 'Between them changed '}{listed}{' changed between them' if len(names) == 1 else ''}."


@dataclass
class Finding:
    """One thing to tell, on one or more targets; ``test`` is empty when it is about whole nights."""

    kind: str
    test: str
    outcome: str
    line: str
    text: str
    targets: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The place of the finding on the page, the same every night."""
        return place_of("f", " ".join((self.kind, self.test or self.line, self.line if self.test else "")))


def place_of(prefix: str, text: str) -> str:
    """An id that stays the same, for an address: what can be read of a text, and a sign that tells it from others."""
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", text)[:60].strip("-.")
    return f"{prefix}-{readable}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def what_changed(good: RunRow, bad: RunRow) -> list[str]:
    """What differs between two runs of a target besides the outcome, as ``what: before to after``."""
    pairs = {
        "torch": (good.torch_label, bad.torch_label),
        "the suite": (good.suite_label, bad.suite_label),
        "Python": (good.python, bad.python),
        "quantized engines": (", ".join(sorted(engines(good))), ", ".join(sorted(engines(bad)))),
        "the machine": (about_machine(good), about_machine(bad)),
    }
    return [f"{what}: {one or 'not known'} to {other or 'not known'}" for what, (one, other) in pairs.items() if one != other]


def about_machine(run: RunRow) -> str:
    """What a run tells of the machine: platform, processor, instruction set."""
    return ", ".join(str(run.environment[key]) for key in ("platform", "processor", "cpu_capability") if run.environment.get(key))


def merged(named: Iterable[tuple[str, Judgement]]) -> dict[str, list[Finding]]:
    """Kind -> findings of all targets, equal ones together; the kinds in the order of `LOUD` and `QUIET`."""
    found: dict[str, dict[tuple[str, ...], Finding]] = {kind: {} for kind in (*LOUD, *QUIET)}
    for name, judgement in named:
        for change in judgement.changes:
            line = telling_line(change.text)
            key = (change.test, change.outcome, line) if change.test else (change.text,)
            items = found.setdefault(change.kind, {})
            finding = items.setdefault(key, Finding(change.kind, change.test, change.outcome, line, change.text))
            finding.targets.append(name)
            if change.first_bad is not None and change.kind in FAILURES:
                add_turn(finding.turns, change, name)
    order = {outcome: number for number, outcome in enumerate(OUTCOMES)}
    return {
        kind: sorted(items.values(), key=lambda item: (-len(item.targets), order.get(item.outcome, 0), item.test))
        for kind, items in found.items()
        if items
    }


def add_turn(turns: list[Turn], change: Change, name: str) -> None:
    """Add a turning point, to an equal one if there is one."""
    assert change.first_bad is not None
    wanted = Turn(change.last_good, change.first_bad)
    for turn in turns:
        if sayings(turn) == sayings(wanted):
            turn.targets.append(name)
            return
    wanted.targets.append(name)
    turns.append(wanted)


def sayings(turn: Turn) -> tuple[str, ...]:
    """What is shown of a turning point: equal ones are one."""
    runs = (turn.good, turn.bad)
    return tuple(f"{run.day} {run.torch_label}" if run else "" for run in runs) + (turn.address, *turn.changed)


def headline(named: Sequence[tuple[str, Judgement]], findings: dict[str, list[Finding]], silent: Sequence[str]) -> list[str]:
    """What changed, in words and numbers: a sentence, and further ones behind it."""
    if not named:
        return ["No run is recorded", *silent]
    total = len(named)
    loud = [saying(kind, findings[kind], named) for kind in LOUD if kind in findings and kind not in ("could not run", "interrupted")]
    stopped = {name for kind in ("could not run", "interrupted") for finding in findings.get(kind, []) for name in finding.targets}
    if stopped:
        loud.append(f"{on_targets(len(stopped), total)} could not run" if total > 1 else "it could not run")
    if silent:
        loud.append(f"{len(silent)} target{'s' * (len(silent) != 1)} silent for too long")
    if loud:
        return [capital(loud[0]), *map(capital, loud[1:])]
    tests = sum(len(judgement.results) for _, judgement in named)
    ran = f"{tests:,} test{'s' * (tests != 1)} on {total} target{'s' * (total != 1)}"
    still = findings.get("still failing", [])
    quiet = [f"{len(findings[kind])} {plural(kind, len(findings[kind]))}" for kind in QUIET if kind in findings and kind in NEWS]
    if still:
        names = {name for finding in still for name in finding.targets}
        return [f"Nothing new broke; {tests_of(still)} still failing on {on_targets(len(names), total)}", *quiet]
    if not any(judgement.baseline for _, judgement in named):
        return [f"All well: {ran}; first night, nothing to compare with", *quiet]
    return [f"All well: {ran}, nothing broke", *quiet]


#: Quiet kinds that a headline counts.
NEWS = ("known defect back", "known defect vanished", "flaky", "slower by far", "fixed", "acknowledged")


def tests_of(findings: Iterable[Finding]) -> str:
    """``3 tests``: how many different ones the findings are about."""
    count = len({finding.test for finding in findings})
    return f"{count} test{'s' * (count != 1)}"


def on_targets(count: int, total: int) -> str:
    return f"{count} of {total} targets" if total > 1 else "the one target"


def saying(kind: str, items: Sequence[Finding], named: Sequence[tuple[str, Judgement]]) -> str:
    """``2 new failures on 1 of 4 targets, since torch ...``."""
    names = {name for finding in items for name in finding.targets}
    count = len({finding.test or finding.text for finding in items})
    where = f" on {on_targets(len(names), len(named))}" if len(named) > 1 else ""
    baselines = [judgement.baseline for name, judgement in named if name in names]
    if not any(baselines):
        since = "; first night, nothing to compare with"
    else:
        labels = Counter(baseline.torch_label for baseline in baselines if baseline)
        days = {baseline.day for baseline in baselines if baseline}
        day = f" of {days.pop()}" if len(days) == 1 else ""
        since = f" since torch {next(iter(labels))}{day}" if len(labels) == 1 else f" since the night{day or ' before'}"
    return f"{count} {plural(kind, count)}{where}{since}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]

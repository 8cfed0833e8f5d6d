"""What a person is told of a night: plain text for one screen, and Markdown for GitHub Actions; worst first."""

import os
import re
import textwrap
from collections import Counter

from nightly.compare import KINDS
from nightly.history import now
from nightly.outcomes import ALL_WELL, OUTCOMES, PASS, STATUS_WORDS, TIMED, worst_status

HEIGHT, WIDTH = 24, 100
MAX_TARGET_LINES = 6
MAX_MARKDOWN_ITEMS = 50

PLURALS = {
    "new failure": "new failures",
    "vanished test": "vanished tests",
    "new skip": "new skips",
    "new test": "new tests",
    "note": "notes",
    "known defect vanished": "known defects that vanished (remove their entries from the register)",
}
#: Kinds that are about a whole night: to count them says nothing.
WHOLE_NIGHT = {"no tests ran", "far fewer tests", "could not run", "note"}
#: Kinds whose items carry a line with what was printed.
WITH_MESSAGE = {"new failure", "still failing", "flaky"}


def headline(judgements, problems):
    """The exit status of a night and one line that says it."""
    status = night_status(judgements, problems)
    counts = Counter(change.kind for judgement in judgements for change in judgement.changes)
    told = [
        f"{counts[kind]} {PLURALS.get(kind, kind).split(' (')[0] if counts[kind] > 1 else kind}"
        for kind in KINDS
        if counts[kind] and kind not in WHOLE_NIGHT
    ]
    day = max((judgement.run.day for judgement in judgements), default=now()[:10])
    return status, f"nightly {day}: {STATUS_WORDS[status]}" + (": " + ", ".join(told) if told else "")


def night_status(judgements, problems):
    """The exit status of a night; ``problems`` are lines about what could not even become a target."""
    return worst_status([judgement.status for judgement in judgements] + [KINDS["could not run"]] * bool(problems))


def target_line(judgement):
    """One line on how a target did."""
    run = judgement.run
    if not judgement.results:
        return f"{run.target}: {STATUS_WORDS[judgement.status]}; nothing ran"
    seconds = sum(row.seconds for row in judgement.results.values() if row.outcome in TIMED)
    ran = f"torch {run.torch_label}, Python {run.python}: {outcome_counts(judgement.results)}; {seconds:.1f} s"
    return f"{run.target}: {STATUS_WORDS[judgement.status]}; {ran}"


def outcome_counts(results):
    """``212 tests, 1 crash, 3 skip``: how many there are, and how many of them did anything but pass, worst first."""
    counts = Counter(row.outcome for row in results.values())
    told = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome] and outcome != PASS]
    return ", ".join([f"{len(results)} test{'s' * (len(results) != 1)}", *told])


def grouped(judgements):
    """Kind -> [(change, names of the targets)], equal changes of several targets together."""
    found = {kind: {} for kind in KINDS}
    for judgement in judgements:
        for change in judgement.changes:
            key = (change.test, change.outcome) if change.test else (change.text,)
            found[change.kind].setdefault(key, (change, []))[1].append(judgement.run.target)
    return {kind: list(items.values()) for kind, items in found.items() if items}


def telling_line(text):
    """The line of a traceback or message that says most: the exception's, else the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning|Failure)\b", line)), lines[0] if lines else "")


def turning_point(change):
    """Since when a failure is there and until when it was not, as lines; none if nothing is known."""
    if change.first_bad is None:
        return []
    good = f"last good torch {change.last_good.torch_label} on {change.last_good.day}" if change.last_good else "never seen good"
    return [f"first bad torch {change.first_bad.torch_label} on {change.first_bad.day}", good]


def item_lines(change, names, several):
    """The lines that tell one change, the first one first."""
    where = f"  [{', '.join(names)}]" if several else ""
    if not change.test:
        return wrapped(change.text + where)
    if change.kind in WITH_MESSAGE:
        told = [*turning_point(change), telling_line(change.text)]
        return [f"  {change.test}  {change.outcome}{where}", *(f"      {line}" for line in told if line)]
    text = "" if change.kind == "new test" else f"  {telling_line(change.text)}"
    return [f"  {change.test}{text}{where}"]


def text(judgements, problems=(), height=HEIGHT, width=WIDTH):
    """The summary of a night as text of at most ``height`` lines; empty when there is nothing to tell."""
    status, first = headline(judgements, problems)
    if status == ALL_WELL and not any(judgement.changes for judgement in judgements):
        return ""
    several = len(judgements) > 1
    lines = [first]
    lines += [line for problem in problems for line in wrapped(problem, width)]
    worst_first = sorted(judgements, key=lambda judgement: (judgement.status == ALL_WELL, not judgement.changes))
    lines += [f"  {target_line(judgement)}" for judgement in worst_first[:MAX_TARGET_LINES]]
    if len(judgements) > MAX_TARGET_LINES:
        lines.append(f"  and {len(judgements) - MAX_TARGET_LINES} other targets")
    lines += section_lines(grouped(judgements), several, height - len(lines))
    return "\n".join(cut(line, width) for line in lines[:height])


def section_lines(sections, several, height):
    """The sections in at most ``height`` lines: with as much detail as fits, and if no detail fits, with the first items of each."""
    detail = next(
        (
            detail
            for detail in (4, 3, 2, 1)
            if sum(1 + sum(len(detailed(item, several, detail)) for item in items) for items in sections.values()) <= height
        ),
        1,
    )
    lines, room = [], height - len(sections)
    for number, (kind, items) in enumerate(sections.items()):
        wanted = [line for item in items for line in detailed(item, several, detail)]
        kept = wanted[: max(0, room - (len(sections) - number - 1))]  # a line is left for each of the sections to come
        room -= len(kept)
        count = f"{len(items)}" if len(kept) == len(wanted) else f"{len(items)}, not all shown"
        lines += [f"{PLURALS.get(kind, kind).capitalize()} ({count})", *kept]
    return lines


def detailed(item, several, detail):
    """The lines of one change: of a test ``detail`` of them, else all, for what they say is what to do."""
    lines = item_lines(*item, several)
    return lines[:detail] if item[0].test else lines


def wrapped(text, width=WIDTH):
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def cut(line, width):
    return line if len(line) <= width else line[: width - 3] + "..."


def markdown(judgements, problems=()):
    """The summary of a night for a page of GitHub Actions."""
    _, first = headline(judgements, problems)
    lines = [f"### {first}", "", *[f"- {escape(problem)}" for problem in problems], ""]
    lines += ["| target | verdict | torch | Python | tests | changes |", "|---|---|---|---|---|---|"]
    for judgement in judgements:
        run = judgement.run
        cells = (run.target, STATUS_WORDS[judgement.status], run.torch_label, run.python, len(judgement.results), len(judgement.changes))
        lines.append("| " + " | ".join(escape(str(cell)) for cell in cells) + " |")
    for kind, items in grouped(judgements).items():
        lines += ["", f"**{PLURALS.get(kind, kind).capitalize()} ({len(items)})**", ""]
        for change, names in items[:MAX_MARKDOWN_ITEMS]:
            told = [line.strip() for line in item_lines(change, names, True)]
            lines.append("- " + "<br>".join(escape(line) for line in told))
        if len(items) > MAX_MARKDOWN_ITEMS:
            lines.append(f"- and {len(items) - MAX_MARKDOWN_ITEMS} others")
    return "\n".join(lines) + "\n"


def escape(text):
    """Text that Markdown and HTML leave as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def write_step_summary(judgements, problems):
    """Append the Markdown to the file that GitHub Actions names for it, if there is one."""
    if place := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(place, "a", encoding="utf-8") as file:
            file.write(markdown(judgements, problems))

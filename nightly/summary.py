"""What a person is told of a night: plain text for a mail or a terminal, and Markdown for GitHub Actions; worst first, news before
what was told already. No text of a test, a target or a build can do more to a terminal or a page than be read there."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from nightly.compare import KINDS, STILL, Change, Judgement, plural
from nightly.history import now
from nightly.outcomes import ALL_WELL, OUTCOMES, PASS, STATUS_WORDS, TIMED, Mistake, worst_status
from nightly.texts import markdown as escape
from nightly.texts import one_line, telling_line

#: Lines and columns of a mail; a terminal has its own.
HEIGHT, WIDTH = 80, 120
LEAST_HEIGHT, LEAST_WIDTH = 20, 60
MAX_TARGET_LINES = 6
MAX_MARKDOWN_ITEMS = 50
#: Characters of what a target or a problem says, and of the line that tells most of a test.
MAX_PIECE, MAX_MESSAGE = 1000, 300

#: How what is no news is counted.
STILL_WORDS = {
    "still failing": "failing",
    "still flaky": "flaky",
    "known defect still gone": "known defects gone",
    "still noted": "noted",
    "acknowledged": "acknowledged",
}
#: Kinds that are about a whole night: to count them says nothing.
WHOLE_NIGHT = {"nightly failed", "no tests ran", "far fewer tests", "could not run", "interrupted", "note"}
#: Kinds whose items carry a line with what was printed.
WITH_MESSAGE = {"new failure", "still failing", "flaky", "still flaky"}

#: Kinds of which all is shown, if there is room; of others the first `MOST_ITEMS`.
SHOWN_WHOLE = WHOLE_NIGHT | {"new failure"}
MOST_ITEMS = 12

#: A change and the names of the targets that have it.
Item = tuple[Change, list[str]]


def headline(judgements: Sequence[Judgement], problems: Sequence[str]) -> tuple[int, str]:
    """The exit status of a night and one line that says it, with what changed on how many targets."""
    status = night_status(judgements, problems)
    sections = grouped(judgements)
    told = [
        kind if kind in WHOLE_NIGHT else f"{len(items)} {plural(kind, len(items))}"
        for kind, items in sections.items()
        if kind not in STILL and kind != "note" and kind != STATUS_WORDS[status]
    ]
    touched = sum(judgement.is_news for judgement in judgements)
    where = f" on {touched} of {len(judgements)} targets" if told and len(judgements) > 1 else ""
    if not told and still_line(sections) and not problems and not touched:
        told = ["nothing new"]
    day = max((judgement.run.day for judgement in judgements), default=now()[:10])
    return status, f"nightly {one_line(day)}: {STATUS_WORDS[status]}" + (": " + ", ".join(told) + where if told else "")


def night_status(judgements: Iterable[Judgement], problems: Sequence[str]) -> int:
    """The exit status of a night; ``problems`` are lines about what could not even become a target, or about the night as a whole."""
    whole = [KINDS["nightly failed" if isinstance(line, Mistake) else "could not run"] for line in problems]
    return worst_status([judgement.status for judgement in judgements] + whole)


def target_line(judgement: Judgement) -> str:
    """One line on how a target did: its counts first."""
    run = judgement.run
    start = f"{one_line(run.target)}: {STATUS_WORDS[judgement.status]}"
    if not judgement.results:
        return f"{start}; nothing ran"
    seconds = sum(row.seconds for row in judgement.results.values() if row.outcome in TIMED)
    ran = f"{outcome_counts(judgement.results)}, {seconds:.1f} s; torch {one_line(run.torch_label)}, Python {one_line(run.python)}"
    first = "; the first night, nothing to compare with" if judgement.baseline is None and run.state == "complete" else ""
    return f"{start}; {ran}{first}"


def outcome_counts(results: dict) -> str:
    """``212 tests, 1 crash, 3 skip``: how many there are, and how many of them did anything but pass, worst first."""
    counts = Counter(row.outcome for row in results.values())
    told = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome] and outcome != PASS]
    return ", ".join([f"{len(results)} test{'s' * (len(results) != 1)}", *told])


def grouped(judgements: Iterable[Judgement]) -> dict[str, list[Item]]:
    """Kind -> [(change, names of the targets)], equal changes of several targets together."""
    found: dict[str, dict[tuple[str, ...], Item]] = {kind: {} for kind in KINDS}
    for judgement in judgements:
        for change in judgement.changes:
            key = (change.test, change.outcome) if change.test else (change.text,)
            found[change.kind].setdefault(key, (change, []))[1].append(judgement.run.target)
    return {kind: list(items.values()) for kind, items in found.items() if items}


def turning_point(change: Change) -> list[str]:
    """Since when a failure is there and until when it was not, as lines; none if nothing is known."""
    if change.first_bad is None:
        return []
    good = change.last_good
    until = f"last good torch {one_line(good.torch_label)} on {one_line(good.day)}" if good else "never seen good"
    return [f"first bad torch {one_line(change.first_bad.torch_label)} on {one_line(change.first_bad.day)}", until]


def by_turning_point(items: Iterable[Item]) -> dict[tuple[str, ...], list[Item]]:
    """Items of one kind, those with the same turning point together: it is told once for all of them."""
    found: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        found.setdefault(tuple(turning_point(item[0])), []).append(item)
    return found


def item_lines(change: Change, names: Sequence[str], several: bool) -> list[str]:
    """The pieces that tell one change, the first one first; the turning point is left to `by_turning_point`."""
    where = f"  [{', '.join(map(one_line, names))}]" if several else ""
    if not change.test:
        return [one_line(change.text)[:MAX_PIECE] + where]
    test, text = one_line(change.test), textwrap.shorten(one_line(telling_line(change.text)), MAX_MESSAGE, placeholder=" ...")
    if change.kind in WITH_MESSAGE:
        return [f"{test}  {one_line(change.outcome)}{where}", *([text] if text else [])]
    return [f"{test}{'  ' + text if text and change.kind != 'new test' else ''}{where}"]


def still_line(sections: dict[str, list[Item]]) -> str:
    """One line that counts what is no news; empty if there is nothing of it."""
    told = [f"{len(sections[kind])} {words}" for kind, words in STILL_WORDS.items() if kind in sections]
    return "Still: " + ", ".join(told) if told else ""


def text(
    judgements: Sequence[Judgement], problems: Sequence[str] = (), height: int = HEIGHT, width: int = WIDTH, unfold: bool = False
) -> str:
    """The summary of a night as text of at most ``height`` lines; empty when there is nothing to tell.

    What was told on an earlier night is one line that counts it, unless it is to ``unfold``.
    """
    status, first = headline(judgements, problems)
    if status == ALL_WELL and not any(judgement.is_news for judgement in judgements):
        return ""
    several = len(judgements) > 1
    lines = wrapped(first, width, "")
    lines += [line for problem in problems for line in wrapped(one_line(problem)[:MAX_PIECE], width)]
    worst_first = sorted(judgements, key=lambda judgement: (judgement.status == ALL_WELL, not judgement.is_news))
    lines += [line for judgement in worst_first[:MAX_TARGET_LINES] for line in wrapped(target_line(judgement), width)]
    if len(judgements) > MAX_TARGET_LINES:
        lines.append(f"  and {len(judgements) - MAX_TARGET_LINES} other targets")
    sections = grouped(judgements)
    shown = {kind: items for kind, items in sections.items() if unfold or kind not in STILL}
    still = [] if unfold else list(filter(None, [still_line(sections)]))
    room = height - len(still) - 2 * len(shown)
    lines = lines[: max(1, room)]
    return "\n".join(
        [*lines, *section_lines(shown, several, height - len(lines) - len(still), width, None if unfold else MOST_ITEMS), *still]
    )


def section_lines(sections: dict[str, list[Item]], several: bool, height: int, width: int, most: int | None) -> list[str]:
    """The sections in at most ``height`` lines, if they can be: of most kinds the first ``most`` items, each with its message while
    there is room, and each section with at least its heading."""
    told = {kind: section(items if kind in SHOWN_WHOLE else items[:most], several, width) for kind, items in sections.items()}
    lines, room = [], height - len(sections)
    for number, (kind, blocks) in enumerate(told.items()):
        later = len(told) - number - 1  # a line is left for each of the sections to come
        kept, complete = fitting(blocks, max(0, room - later))
        room -= len(kept)
        complete = complete and len(blocks) == len(sections[kind])
        count = f"{len(sections[kind])}" if complete else f"{len(sections[kind])}, not all shown"
        lines += [f"{plural(kind, len(sections[kind])).capitalize()} ({count})", *kept]
    return lines


def section(items: Sequence[Item], several: bool, width: int) -> list[list[str]]:
    """A block of lines for each item of a kind; the first one of a turning point begins with it."""
    blocks = []
    for point, same in by_turning_point(items).items():
        since = [line for words in point for line in wrapped(words, width)]
        for change, names in same:
            first, *others = item_lines(change, names, several)
            indent = "  " if not point else "    "
            blocks.append(
                [*since, *wrapped(first, width, indent), *(line for piece in others for line in wrapped(piece, width, indent + "  "))]
            )
            since = []
    return blocks


def fitting(blocks: Sequence[list[str]], room: int) -> tuple[list[str], bool]:
    """The lines of as many blocks as fit, and whether all did; of a block that does not fit as a whole, its beginning."""
    kept: list[str] = []
    for block in blocks:
        if len(kept) + len(block) > room:
            return kept + block[: room - len(kept)], False
        kept += block
    return kept, True


def wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """One line of text in lines of a width; what continues is indented further."""
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "    ", break_on_hyphens=False) or [""]


def screen() -> tuple[int, int]:
    """(height, width) of what standard output goes to: the terminal's, or that of a mail."""
    if not sys.stdout.isatty():
        return HEIGHT, WIDTH
    size = shutil.get_terminal_size((WIDTH, HEIGHT))
    return max(LEAST_HEIGHT, size.lines - 1), max(LEAST_WIDTH, size.columns)


def markdown(judgements: Sequence[Judgement], problems: Sequence[str] = ()) -> str:
    """The summary of a night for a page of GitHub Actions; what is no news is folded."""
    _, first = headline(judgements, problems)
    lines = [f"### {escape(first)}", "", *[f"- {escape(problem)}" for problem in problems], ""]
    lines += ["| target | verdict | torch | Python | tests | changes |", "|---|---|---|---|---|---|"]
    for judgement in judgements:
        run, news = judgement.run, sum(change.kind not in STILL for change in judgement.changes)
        counts = outcome_counts(judgement.results) if judgement.results else "nothing ran"
        cells = (run.target, STATUS_WORDS[judgement.status], run.torch_label, run.python, counts, news)
        lines.append("| " + " | ".join(escape(cell) for cell in cells) + " |")
    for kind, items in grouped(judgements).items():
        title, folded = f"{plural(kind, len(items)).capitalize()} ({len(items)})", kind in STILL
        lines += ["", f"<details><summary>{title}</summary>" if folded else f"**{title}**", ""]
        for point, same in by_turning_point(items[:MAX_MARKDOWN_ITEMS]).items():
            lines += [escape("; ".join(point)) + ":", ""] if point else []
            lines += ["- " + "<br>".join(map(escape, item_lines(change, names, True))) for change, names in same] + [""]
        if len(items) > MAX_MARKDOWN_ITEMS:
            lines.append(f"- and {len(items) - MAX_MARKDOWN_ITEMS} others")
        lines += ["</details>"] * folded
    return "\n".join(lines) + "\n"


def write_step_summary(judgements: Sequence[Judgement], problems: Sequence[str]) -> str:
    """Append the Markdown to the file that GitHub Actions names for it, if there is one. Returns a line if it cannot be written."""
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        return ""
    try:
        with open(place, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(markdown(judgements, problems))
    except OSError as error:
        return f"GITHUB_STEP_SUMMARY {one_line(place)}: {error.strerror}: the summary is not on the page of Actions"
    return ""

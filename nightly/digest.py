"""A night as JSON: what `run --format json` prints and what `--notify` hands on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from nightly import speed, summary
from nightly.compare import STILL, Change, Judgement
from nightly.history import RunRow, now
from nightly.links import compare_address
from nightly.outcomes import STATUS_WORDS
from nightly.texts import telling_line

#: The number of this form; it rises when a key is renamed or taken away.
FORM = 1


def has_news(judgements: Sequence[Judgement], problems: Sequence[str]) -> bool:
    """Whether there is anything that no earlier night has told."""
    return bool(problems) or any(judgement.is_news for judgement in judgements)


def digest(judgements: Sequence[Judgement], problems: Sequence[str] = ()) -> dict[str, Any]:
    """All that a summary tells, and more, for programs.

    Returns:
        dict: ``form``, ``made`` (UTC), ``status`` (the exit status), ``verdict`` and ``headline`` (words), ``news`` (whether anything
        was not told on an earlier night), ``text`` (the summary), ``problems`` (lines), and ``targets``, each with its run, its
        ``counts`` (outcome -> tests), its ``seconds`` and its ``changes``.
    """
    status, headline = summary.headline(judgements, problems)
    return {
        "form": FORM,
        "made": now(),
        "status": status,
        "verdict": STATUS_WORDS[status],
        "headline": headline,
        "news": has_news(judgements, problems),
        "text": summary.text(judgements, problems),
        "problems": list(problems),
        "targets": [target_digest(judgement) for judgement in judgements],
    }


def target_digest(judgement: Judgement) -> dict[str, Any]:
    """One target of a night."""
    return {
        **run_digest(judgement.run),
        "status": judgement.status,
        "verdict": STATUS_WORDS[judgement.status],
        "held_against": run_digest(judgement.baseline) if judgement.baseline else None,
        "tests": len(judgement.results),
        "counts": dict(Counter(row.outcome for row in judgement.results.values())),
        "seconds": judgement.run.seconds(),
        "speed": speed.recorded_in(judgement.run),
        "changes": [change_digest(change) for change in judgement.changes],
    }


def run_digest(run: RunRow) -> dict[str, Any]:
    """What identifies a run and its build."""
    keys = ("target", "machine", "uid", "started", "finished", "state", "reason", "torch", "torch_commit", "python", "suite_commit")
    return {key: getattr(run, key) for key in keys}


def change_digest(change: Change) -> dict[str, Any]:
    """One change; ``news`` is false for what an earlier night has told, ``commits`` the address of the commits between."""
    return {
        "kind": change.kind,
        "news": change.kind not in STILL,
        "test": change.test,
        "outcome": change.outcome,
        "line": telling_line(change.text),
        "message": change.text,
        "last_good": run_digest(change.last_good) if change.last_good else None,
        "first_bad": run_digest(change.first_bad) if change.first_bad else None,
        "commits": compare_address(change.last_good, change.first_bad),
    }

"""What a run may say of itself: what is recorded, every page, mail and file must be able to show."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from nightly.history import COMPLETE, COULD_NOT_RUN, INTERRUPTED, Row, RunRow, latest_start, parse_time, recorded
from nightly.outcomes import (
    BAD,
    DEFECT_GONE,
    EXPECTED_FAILURE,
    FLAKY,
    OUTCOMES,
    PARTLY_SKIPPED,
    PASS,
    SKIP,
    UNEXPECTED_SUCCESS,
    NightlyError,
)
from nightly.texts import FIELD_LIMIT, TEXT_LIMIT, clean, clean_name, fit_area, fit_environment, fit_notes

#: No run is older than this.
EARLIEST = datetime(2000, 1, 1, tzinfo=timezone.utc)
#: The texts that a run may say beside its times, and how long each may be.
TEXT_FIELDS = {
    "uid": FIELD_LIMIT,
    "target": None,
    "machine": None,
    "state": FIELD_LIMIT,
    "reason": TEXT_LIMIT,
    "torch": FIELD_LIMIT,
    "torch_commit": FIELD_LIMIT,
    "python": FIELD_LIMIT,
    "suite_version": FIELD_LIMIT,
    "suite_commit": FIELD_LIMIT,
    "selection": TEXT_LIMIT,
}
#: Outcomes from the one that hides all others to the one that every other hides.
WORST_FIRST = (*(outcome for outcome in OUTCOMES if outcome in BAD), UNEXPECTED_SUCCESS, FLAKY, DEFECT_GONE, EXPECTED_FAILURE, PASS, SKIP)


def checked_run(about: dict[str, Any]) -> RunRow:
    """A finished run from what a file says of it.

    Raises:
        NightlyError: a field is missing, of the wrong type, or says what cannot be.
    """
    fields: dict[str, Any] = {}
    for key, limit in TEXT_FIELDS.items():
        value = about.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise NightlyError(f"{key} is of the wrong type")
        fields[key] = clean(value)[:limit] if limit else clean_name(value)
    if not fields.get("target"):
        raise NightlyError("target is missing")
    fields["machine"] = fields.get("machine") or "unknown"
    if about.get("started") is None:
        raise NightlyError('started is missing: when the run began, such as "2026-03-31T02:30:00Z"')
    fields["started"] = checked_time("started", about["started"])
    fields["finished"] = checked_time("finished", about.get("finished") or about["started"])
    fields.setdefault("state", COMPLETE)
    if fields["state"] not in (COMPLETE, COULD_NOT_RUN):
        raise NightlyError(f"state {fields['state']!r} is not that of a finished run ({COMPLETE} or {COULD_NOT_RUN})")
    strict = about.get("strict")
    if strict not in (None, True, False):
        raise NightlyError("strict is of the wrong type")
    environment, notes = about.get("environment"), about.get("notes")
    if not isinstance(environment, (dict, type(None))) or not isinstance(notes, (list, type(None))):
        raise NightlyError(f"{'notes' if isinstance(environment, (dict, type(None))) else 'environment'} is of the wrong type")
    kept, wrong = fit_environment(environment or {})
    if wrong:
        raise NightlyError(f"environment: {clean(wrong[0])[:FIELD_LIMIT]} is of the wrong type")
    if not all(isinstance(note, str) for note in notes or []):
        raise NightlyError("notes is of the wrong type")
    return RunRow(**fields, strict=int(bool(strict)), environment=kept, notes=fit_notes(notes or []))


def checked_time(key: str, text: Any) -> str:
    """A time as it is recorded, if it is one between `EARLIEST` and now.

    Raises:
        NightlyError: it is none.
    """
    if not isinstance(text, str):
        raise NightlyError(f"{key} is of the wrong type")
    try:
        moment = parse_time(text.strip())
        past = EARLIEST <= moment
        found = recorded(moment) if past else ""
    except (ValueError, OverflowError) as error:
        raise NightlyError(f"{key}: {clean(error)}") from None
    if not past:
        raise NightlyError(f"{key} {clean(text)} is before {EARLIEST.year}: the clock was wrong")
    if key == "started" and found > latest_start():
        raise NightlyError(f"{key} {found} is in the future: a clock is wrong, there or here")
    return found


def recheck(run: RunRow) -> RunRow:
    """A run of another history, if what it says can be: such a file may have been written by anything.

    Raises:
        NightlyError: it cannot.
    """
    about = {key: getattr(run, key) for key in (*TEXT_FIELDS, "started", "finished", "environment", "notes")}
    state = run.state
    fresh = checked_run({**about, "strict": bool(run.strict), "state": COMPLETE})
    if state not in (COMPLETE, COULD_NOT_RUN, INTERRUPTED):
        raise NightlyError(f"state {clean(state)!r} is not that of a finished run")
    fresh.state = state
    return fresh


def worst_rows(rows: Iterable[Row]) -> list[Row]:
    """One result for each name: of several, the worst, for a failure must not be hidden by a namesake that passes."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.outcome not in WORST_FIRST:
            raise NightlyError(f"the outcome {clean(row.outcome)[:FIELD_LIMIT]!r} of {clean_name(row.name)} is none that is known here")
        row = row._replace(name=clean_name(row.name) or "unnamed", area=fit_area(row.area), message=clean(row.message))
        found.setdefault(row.name, []).append(row)
    return [worst_row(same) for same in found.values()]


def worst_row(same: list[Row]) -> Row:
    """One result for several of the same name."""
    worst = min(same, key=lambda row: WORST_FIRST.index(row.outcome))
    message = worst.message
    if worst.outcome == PASS and any(row.outcome == SKIP for row in same):
        message = PARTLY_SKIPPED + "; ".join(sorted({row.message.strip() for row in same if row.outcome == SKIP}))
    elif len(same) > 1 and worst.outcome in BAD:
        message = f"one of {len(same)} results of this name\n{message}"
    return worst._replace(seconds=sum(row.seconds for row in same), message=message)

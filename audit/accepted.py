"""``accepted.json``: the mutants that nothing can notice and the lines that nothing can reach, each with its reason.

    {"torch": "2.13", "mutmut": [{"module", "function", "before", "after", "reason", "why"}, ...], "own": [the same], "import": [the same],
     "history": [the same], "mends": [the same], "coverage": [{"module", "function", "line", "to", "reason", "why"}, ...]}

``mutmut``, ``own``, ``import``, ``history`` and ``mends`` are for the mutants of these operators (the function of a mutant of a mend is the
root cause that is mended). ``before`` and ``after`` are the changed source lines as the audit prints them; ``after`` may be a list, where
one sentence speaks for several mutants of the same lines; ``nth`` picks one of several equal changes in a function. ``to`` is there for a
branch only. Entries hold for the torch release they name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from audit.lines import Gap
from audit.mutants import NOTICED, Mutant
from audit.project import AUDIT, AuditError

FILE = AUDIT / "accepted.json"

#: What may be accepted, and what it says.
REASONS = {
    "equivalent": "the mutant behaves as the original wherever it can be called from",
    "message text": "only the wording of a message changes; type, time and the names it must carry are tested",
    "speed only": "results are the same, the mutant merely takes another time or memory to get them",
    "unreachable": "no call of the public interface leads there",
}

_MUTANT_FIELDS = ({"module", "function", "before", "after", "reason", "why"}, {"nth"})
_FIELDS = {
    "mutmut": _MUTANT_FIELDS,
    "own": _MUTANT_FIELDS,
    "import": _MUTANT_FIELDS,
    "history": _MUTANT_FIELDS,
    "mends": _MUTANT_FIELDS,
    "coverage": ({"module", "function", "line", "reason", "why"}, {"to"}),
}


@dataclass(frozen=True)
class Accepted:
    """The file's entries by kind (``coverage``, or a set of operators); ``torch`` is the release they were made for."""

    torch: str
    entries: dict[str, tuple[dict, ...]]

    def of(self, kind: str) -> tuple[dict, ...]:
        return self.entries[kind]

    def holds_for(self, version: str) -> bool:
        """Whether the entries were made for this torch (``2.13.0+cpu``)."""
        return version.split("+")[0].split(".")[:2] == self.torch.split(".")[:2]


def load(file: Path = FILE) -> Accepted:
    """Read and check the file; AuditError for an unknown reason, a missing sentence or an unknown field."""
    data = json.loads(file.read_text())
    for kind, (needed, allowed) in _FIELDS.items():
        for entry in data[kind]:
            place = f"{file.name}: {kind} entry {entry.get('module')}.{entry.get('function')}"
            if not needed <= entry.keys() <= needed | allowed:
                raise AuditError(f"{place}: fields {sorted(entry)}, expected {sorted(needed)} and perhaps {sorted(allowed)}")
            if entry["reason"] not in REASONS:
                raise AuditError(f"{place}: reason {entry['reason']!r} is none of {', '.join(REASONS)}")
            if len(entry["why"].split()) < 4:
                raise AuditError(f"{place}: why needs a sentence, not {entry['why']!r}")
    return Accepted(data["torch"], {kind: tuple(data[kind]) for kind in _FIELDS})


def _after(entry: dict) -> list[str]:
    return entry["after"] if isinstance(entry["after"], list) else [entry["after"]]


def sort_mutants(entries: tuple[dict, ...], found: list[Mutant]) -> tuple[dict[str, str], list[str]]:
    """Reasons of the accepted mutants by mutant name, and the complaints: entries that match nothing, or a mutant that
    a test does notice."""
    reasons, complaints = {}, []
    by_place: dict[tuple, list[Mutant]] = {}
    for mutant in found:
        by_place.setdefault(mutant.key[:4], []).append(mutant)
    for entry in entries:
        for after in _after(entry):
            place = (entry["module"], entry["function"], entry["before"], after)
            hit = [m for m in by_place.get(place, []) if entry.get("nth", m.nth) == m.nth]
            if not hit:
                complaints.append(f"accepted, but there is no such mutant: {_show(place)}")
            for mutant in hit:
                if mutant.verdict in NOTICED:
                    complaints.append(f"accepted as {entry['reason']}, but a test notices it: {_show(place)}")
                elif mutant.name in reasons:
                    complaints.append(f"accepted twice: {_show(place)}")
                else:
                    reasons[mutant.name] = entry["reason"]
    return reasons, complaints


def sort_gaps(entries: tuple[dict, ...], gaps: list[Gap]) -> tuple[dict[Gap, str], list[str]]:
    """Reasons of the accepted gaps, and the complaints: entries that match no gap."""
    reasons, complaints = {}, []
    for entry in entries:
        key = (entry["module"], entry["function"], entry["line"], entry.get("to"))
        hit = [gap for gap in gaps if gap.key == key]
        if not hit:
            complaints.append(f"accepted, but it is reached or does not exist: {_show(key)}")
        reasons.update(dict.fromkeys(hit, entry["reason"]))
    return reasons, complaints


def _show(place: tuple) -> str:
    module, function, before, after = place
    return f"{module}.{function}: {before!r}" + (f" -> {after!r}" if after is not None else "")

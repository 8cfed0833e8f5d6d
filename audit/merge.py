"""Put the results of several machines together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from audit import mutants as records
from audit.mutate import results_file
from audit.project import AuditError

#: Parts of a result's header that may differ between the parts of one run.
_OWN = ("shards", "only")


def merge(sources: list[Path], work: Path, operators: str) -> list[records.Mutant]:
    """Put the results of several work folders of the same run into ``work``, for one set of operators.

    Raises:
        AuditError: they are of different runs (torch, tests, tools), or two of them contradict each other.
    """
    files = [results_file(source, operators) for source in sources]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise AuditError(f"no results in {', '.join(missing)}")
    loaded = [records.load(file) for file in files]
    first = loaded[0][0]
    merged: dict[str, records.Mutant] = {}
    for file, (header, found) in zip(files, loaded):
        for key in sorted(first.keys() | header.keys()):
            if key not in _OWN and first.get(key) != header.get(key):
                raise AuditError(f"{file} is of another run than {files[0]}: {key} {header.get(key)!r}, not {first.get(key)!r}")
        for mutant in found:
            known = merged.get(mutant.name, replace(mutant, verdict="not checked"))
            if "not checked" not in (known.verdict, mutant.verdict) and known.verdict != mutant.verdict:
                raise AuditError(f"{file} says {mutant.verdict}, another part {known.verdict}: {mutant}")
            merged[mutant.name] = mutant if known.verdict == "not checked" else known
    header = {
        **first,
        "shards": sorted({tuple(shard) for header, _ in loaded for shard in header["shards"]}),
        "only": sorted({pattern for header, _ in loaded for pattern in header["only"]}),
    }
    result = list(merged.values())
    out = results_file(work, operators)
    out.parent.mkdir(parents=True, exist_ok=True)
    records.write(out, header, result)
    return result

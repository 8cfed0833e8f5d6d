"""Mutants that are changed copies of the packages, asked by forks of one warmed process (variants.py): what runs at import, the
mistakes of history, and mended lines (mended.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audit import mutants as records
from audit.group import Group, Progress
from audit.project import Project
from audit.variants import Answer, Asker, Variant, is_red

#: Exit statuses by which a verdict is kept (audit/mutants.py).
KILLED, KNOWN_ONLY, OTHERS, TIMED_OUT = 1, 3, 6, 36


@dataclass(frozen=True)
class Copy:
    """One mutant: its module, its function (``<module>`` and ``Class`` for code outside functions), what tells it from others of the
    function, the changed texts by module, and the module's text that it is a mutant of, where that is not the installed one."""

    module: str
    function: str
    label: str
    sources: dict[str, str]
    original: str | None = None


#: Makes the mutants of some sources, given by module.
Maker = Callable[[dict[str, str]], Iterator[Copy]]


class CopyGroup(Group):
    """All packages under test, with the mutants of a maker."""

    def __init__(self, project: Project, work: Path, operators: str, patterns: list[str], workers: int, maker: Maker, files: list[Path]):
        super().__init__(project, "all", project.packages, work, operators, patterns, workers)
        self.maker, self.files = maker, files
        self.asker = Asker(project, self.folder / "warm", patterns, workers)

    @property
    def made(self) -> Path:
        """The mutants, by name."""
        return self.folder / "mutants.json"

    @property
    def codes(self) -> Path:
        """Their exit statuses, by name."""
        return self.folder / "codes.json"

    def made_by(self) -> list[Path]:
        return self.files

    def make(self) -> None:
        self.asker.prepare()
        installed = self.asker.sources()
        data = {}
        for copy in self.maker(installed):
            original = installed[copy.module] if copy.original is None else copy.original
            before, after, line = records.changed_lines(original, copy.sources[copy.module])
            data[records.name(copy.module, copy.function, copy.label)] = {
                "sources": {self.asker.path(module): text for module, text in copy.sources.items()},
                "line": line,
                "place": [copy.module, copy.function, before, after],
            }
        self.made.write_text(json.dumps(data))
        self._save(dict.fromkeys(data))

    def contents(self) -> dict[str, str]:
        # The changed texts; two mends of one text are told apart by their root causes, which stand for the function.
        return {
            name: hashlib.sha256(json.dumps([entry["place"][1], sorted(entry["sources"].items())]).encode()).hexdigest()
            for name, entry in self.mutants().items()
        }

    def _save(self, codes: dict[str, int | None]) -> None:
        new = self.codes.with_suffix(".new")
        new.write_text(json.dumps(codes, indent=1))
        new.replace(self.codes)

    def compare(self) -> None:
        self.asker.prepare()

    def exit_codes(self) -> dict[str, int | None]:
        return json.loads(self.codes.read_text())

    def change(self, new: Callable[[str, int | None], int | None]) -> None:
        self._save({name: new(name, code) for name, code in self.exit_codes().items()})

    def read(self) -> list[records.Mutant]:
        codes = self.exit_codes()
        found: list[records.Mutant] = []
        seen: dict[tuple[str, ...], int] = {}
        for name, entry in self.mutants().items():
            place = module, function, before, after = tuple(entry["place"])
            seen[place] = seen.get(place, 0) + 1
            found.append(records.Mutant(name, module, function, before, after, seen[place], entry["line"], records.verdict(codes[name])))
        return found

    def mutants(self) -> dict[str, dict]:
        """The mutants as they were made, by name: changed texts by path, line and place."""
        return json.loads(self.made.read_text())

    def keep(self, told: Iterable[tuple[str, int]], names: list[str]) -> None:
        """Write down the exit statuses as they come, by name, out of those asked for."""
        codes, progress = self.exit_codes(), Progress(self, names)
        try:
            for number, (name, code) in enumerate(told, start=1):
                codes[name] = code
                if number % 20 == 0:
                    self._save(codes)
                    progress.tell()
        finally:
            self._save(codes)
        progress.tell()

    def ask(self, names: list[str]) -> None:
        data, baseline = self.mutants(), self.asker.prepare()

        def variant(name: str) -> Variant:
            sources = data[name]["sources"]
            near = baseline.in_order(baseline.reaching((path, "") for path in sources))
            far = baseline.in_order(set(baseline.outcomes) - set(near))
            return Variant(name, sources, sorted([*near, *far], key=lambda test: test in baseline.known), stop=True)

        self.keep(((answer.name, exit_code(answer)) for answer in self.asker.ask(variant(name) for name in names)), names)


def unfinished(answer: Answer) -> int:
    """The exit status of a process that did not end as it should; 0 where it did."""
    return TIMED_OUT if answer.status is None else answer.status


def exit_code(answer: Answer) -> int:
    """The exit status that stands for an answer."""
    if status := unfinished(answer):
        return status
    red = [test for test, outcome in answer.outcomes.items() if is_red(outcome)]
    if answer.error or any(test not in answer.known for test in red):
        return KILLED
    return KNOWN_ONLY if red else 0

"""Where is it tested? An index of the suite by subject, and a search that forgives case, separators and other spellings.

    python -m ao.sparsity.testing.index                      # the index: subject, class, file
    python -m ao.sparsity.testing.index "cubic before t_0"   # the tests that come nearest
    python -m ao.sparsity.testing.index --write              # renew ao/sparsity/INDEX.md

A subject is a name that a test file imports from the packages under test. The sources are read, no test is imported.
"""

from __future__ import annotations

import argparse
import ast
import collections
import dataclasses
import difflib
import functools
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator

SUITE = pathlib.Path(__file__).resolve().parents[1]
PAGE = SUITE / "INDEX.md"
PACKAGES = ("torch.ao.pruning", "torch.ao.nn.sparse", "torch.nn.utils.parametriz")
_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "zero": "0"}
_UNSAID = {"test", "tests", "the", "a", "an", "of", "and", "is", "in", "to"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One test method as the sources have it."""

    holder: str
    test: str
    file: str
    says: str

    @functools.cached_property
    def words(self) -> list[str]:
        """What its name, its class and its docstring say, see words()."""
        return [*words(self.holder), *words(self.test), *words(self.says)]


def words(text: str) -> list[str]:
    """``"TestCubicScheduler.step_2_of_4"`` -> ``["cubic", "scheduler", "step", "2", "4"]``: words in small letters, of figures 2 for two.

    Words that nearly every test has (``test``, ``of``) are left out.
    """
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", text)
    found = (_NUMBERS.get(part.lower(), part.lower()) for part in parts)
    return [word for word in found if word not in _UNSAID]


def _files() -> list[pathlib.Path]:
    return [path for path in sorted(SUITE.rglob("*.py")) if SUITE / "testing" not in path.parents]


def _doc(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(child, ast.FunctionDef) and child.name.startswith("test") for child in node.body
        ):
            yield node


def _trees() -> dict[str, ast.Module]:
    return {path.relative_to(SUITE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in _files()}


def _heirs(trees: dict[str, ast.Module]) -> dict[str, str]:
    """For a class of tests that is a part of another, which hands it on to the runner, that other's name."""
    return {
        base.id if isinstance(base, ast.Name) else getattr(base, "attr", ""): node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
        for base in node.bases
    }


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Every test method of the suite, under the class that runs it."""
    trees = _trees()
    found: list[Entry] = []
    heirs = _heirs(trees)
    for file, tree in trees.items():
        for holder in _classes(tree):
            for test in holder.body:
                if isinstance(test, ast.FunctionDef) and test.name.startswith("test"):
                    name = holder.name if holder.name.startswith("Test") else heirs.get(holder.name, holder.name)
                    found.append(Entry(name, test.name, file, _doc(test)))
    return tuple(found)


def nearest(asked: str, among: Iterable[Entry] | None = None, number: int = 5) -> list[Entry]:
    """The tests whose name, class or docstring has all words of ``asked``, or most of them, in this spelling or, without
    success, in the nearest; those that say it in one go come first.

    Args:
        asked: words, a name or a part of one.
        among: where to look, by default entries().
        number: at most so many.
    """
    wanted = words(re.sub("^test", "", asked, flags=re.IGNORECASE))
    chosen = entries() if among is None else tuple(among)
    found = _having(wanted, chosen, number)
    if not found:
        known = {word for entry in chosen for word in entry.words}
        spelled = [word if word in known else next(iter(difflib.get_close_matches(word, known, 1, 0.7)), word) for word in wanted]
        found = _having(spelled, chosen, number) if spelled != wanted else []
    return found


def _having(wanted: list[str], among: Iterable[Entry], number: int) -> list[Entry]:
    def rank(entry: Entry) -> tuple[int, bool, bool]:
        joined, said = "".join(wanted), "".join(entry.words)
        here = sum(any(word == said or len(word) > 3 and said.startswith(word) for said in entry.words) for word in wanted)
        return len(wanted) if joined in said else here, joined in said, joined in "".join(words(entry.holder + entry.test))

    ranked = sorted(((rank(entry), entry) for entry in among), key=lambda pair: pair[0], reverse=True)
    best = ranked[0][0][0] if ranked else 0
    return [entry for (here, *_), entry in ranked[:number] if here == best and 2 * here > len(wanted)]


def subjects() -> dict[str, dict[str, str]]:
    """For each name under test the classes whose tests use it, and the file of each."""
    found: dict[str, dict[str, str]] = collections.defaultdict(dict)
    trees = _trees()
    heirs = _heirs(trees)
    for file, tree in trees.items():
        imported = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES)
            for alias in node.names
        }
        for holder in _classes(tree):
            used = {node.id for node in ast.walk(holder) if isinstance(node, ast.Name)} & imported.keys()
            for name in used:
                found[imported[name]][holder.name if holder.name.startswith("Test") else heirs.get(holder.name, holder.name)] = file
    return dict(found)


def as_markdown() -> str:
    """The text of INDEX.md."""
    lines = [
        "# Where it is tested",
        "",
        "Generated by `python -m ao.sparsity.testing.index --write`; do not edit.",
        '`python -m ao.sparsity.testing.index "cubic before t_0"` searches the names and docstrings of all tests.',
        "",
        "| subject | class | file |",
        "| --- | --- | --- |",
    ]
    for subject, holders in sorted(subjects().items(), key=lambda pair: pair[0].lower()):
        files = sorted(set(holders.values()))
        lines.append(f"| `{subject}` | {', '.join(sorted(holders))} | {', '.join(f'[{file}]({file})' for file in files)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status: 0, or 1 where nothing comes near."""
    parser = argparse.ArgumentParser(prog="python -m ao.sparsity.testing.index", description="Where is it tested?")
    parser.add_argument("--write", action="store_true", help="renew ao/sparsity/INDEX.md")
    parser.add_argument("words", nargs="*", help="what is looked for")
    options = parser.parse_args(argv)
    if options.write:
        PAGE.write_text(as_markdown(), encoding="utf-8")
    elif options.words:
        found = nearest(" ".join(options.words), number=10)
        for entry in found:
            print(f"{entry.file}: {entry.holder}.{entry.test}: {entry.says}")
        if not found:
            print("no test comes near")
        return 0 if found else 1
    else:
        for subject, holders in sorted(subjects().items(), key=lambda pair: pair[0].lower()):
            for holder, file in sorted(holders.items()):
                print(f"{subject:45} {holder:40} {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Mistakes as refactorings bring them, made by hand: edits of the packages under test, each with a probe.

One file an area, with ``MISTAKES``. A probe is a few lines that print something: what they print on the edited copy differs from what
they print on the installed package. So no mistake is one in name only.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from audit import edits
from audit.by_copy import Copy
from audit.project import AuditError


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    name: says what is wrong, words joined by hyphens; unique.
    items: the edits that make it.
    probe: code that prints something else with the mistake than without it, or raises.
    """

    name: str
    items: tuple[edits.Edit | edits.Function, ...]
    probe: str


def mistake(
    name: str, module: str, function: str, fragment: str, replacement: str, probe: str, *further: edits.Item, after: str = ""
) -> Mistake:
    """A mistake by one edit (audit/edits.py), and perhaps ``further`` ones."""
    return Mistake(name, (edits.Edit(module, function, fragment, replacement, after), *further), textwrap.dedent(probe))  # type: ignore[arg-type]


def load() -> list[Mistake]:
    """The mistakes of every area; AuditError where two have one name."""
    found: dict[str, Mistake] = {}
    for file in pkgutil.iter_modules(__path__):
        if file.name == "setting":  # what the probes start with
            continue
        for one in importlib.import_module(f"{__name__}.{file.name}").MISTAKES:
            if one.name in found:
                raise AuditError(f"two mistakes are named {one.name}")
            found[one.name] = one
    return list(found.values())


def copies(installed: dict[str, str]) -> Iterator[Copy]:
    """Every mistake as a changed copy of the given texts; edits.Misfit where one does not fit."""
    for one in load():
        first = one.items[0]
        yield Copy(first.module, first.function or "<module>", one.name, edits.apply(one.items, installed))

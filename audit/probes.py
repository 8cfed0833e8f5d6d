"""Proof that the mistakes of history are mistakes: each probe prints something else on the edited copy than on the unchanged one."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from audit import edits, history
from audit.project import AUDIT
from audit.variants import Asker, Variant

#: Imported before the probes are run, once for all.
IMPORTS = ["torch", "torch.fx", "torch.ao.quantization", "torch.testing", "pytorch_lightning"]


def faults(asker: Asker, mistakes: Iterable[history.Mistake]) -> list[str]:
    """A line for each mistake that does not fit, or whose probe prints the same with it and without it."""
    asker.copy()
    asker.imports = asker.imports or IMPORTS
    installed = asker.sources()
    start = (AUDIT / "history" / "setting.py").read_text()
    found, variants, probes = [], [], {}
    for one in mistakes:
        try:
            changed = edits.apply(one.items, installed)
        except edits.Misfit as error:
            found.append(f"{one.name}: does not fit: {error}")
            continue
        probe = f"{start}\n\n{one.probe}"
        probes[one.name] = probe
        variants.append(Variant(one.name, {asker.path(module): text for module, text in changed.items()}, probe=probe))
    plain = [Variant(probe, {}, probe=probe) for probe in dict.fromkeys(probes.values())]
    printed = {answer.name: answer for answer in asker.ask([*plain, *variants])}
    for name, probe in probes.items():
        right, wrong = printed[probe], printed[name]
        if right.broken or right.printed == wrong.printed and not wrong.broken:
            found.append(f"{name}: its probe tells nothing: {right.broken or repr(right.printed[-200:])}")
        elif right.printed.rstrip().rpartition("\n")[2].startswith(("NameError", "SyntaxError", "ImportError", "TypeError: said")):
            found.append(f"{name}: its probe is wrong: {right.printed}")
    return found


def selected(only: list[str]) -> list[history.Mistake]:
    """The mistakes whose name, or the module of whose first edit, matches one of the patterns (none: all)."""
    return [
        one
        for one in history.load()
        if not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only for name in (one.name, one.items[0].module))
    ]

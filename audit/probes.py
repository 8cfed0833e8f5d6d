"""Proof that the mistakes of history are mistakes: each probe prints something else on the edited copy than on the unchanged one."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from audit import edits, history
from audit.project import AUDIT, AuditError
from audit.variants import Asker, Variant

#: Imported before the probes are run, once for all.
IMPORTS = ["torch", "torch.fx", "torch.ao.quantization", "torch.testing", "pytorch_lightning"]

#: How the last line of what a probe prints on the unchanged packages begins where it proves nothing.
NO_PROOF = ("NameError", "SyntaxError", "ImportError", "TypeError: said", "process ended")


def faults(asker: Asker, mistakes: Iterable[history.Mistake]) -> list[str]:
    """A line for each mistake that does not fit, or whose probe prints the same with it and without it."""
    asker.copy()
    asker.imports = asker.imports or IMPORTS
    installed = asker.sources()
    start = (AUDIT / "history" / "setting.py").read_text()
    found: list[str] = []
    variants: list[Variant] = []
    for one in mistakes:
        try:
            changed = edits.apply(one.items, installed)
        except edits.Misfit as error:
            found.append(f"{one.name}: does not fit: {error}")
            continue
        probe = f"{start}\n\n{one.probe}"
        variants.append(Variant(one.name, {asker.path(module): text for module, text in changed.items()}, probes=[probe]))
    if not variants:
        return found
    probes = list(dict.fromkeys(variant.probes[0] for variant in variants))
    shares = {f"plain {number}": probes[number :: asker.workers] for number in range(asker.workers)}
    # What is changed by nothing is imported once for many probes; the empty one at the end leaves the others to forks.
    plain = [Variant(name, {}, probes=[*share, ""]) for name, share in shares.items()]
    answers = {answer.name: answer for answer in asker.ask([*plain, *variants])}
    right: dict[str, str] = {}
    for name, share in shares.items():
        if answers[name].broken:
            raise AuditError(f"the probes do not run on unchanged packages: {answers[name].broken}")
        right.update(zip(share, answers[name].printed))
    for variant in variants:
        printed, wrong = right[variant.probes[0]], answers[variant.name]
        if not wrong.broken and [printed] == wrong.printed:
            found.append(f"{variant.name}: its probe tells nothing: {printed[-200:]!r}")
        elif printed.rstrip().rpartition("\n")[2].startswith(NO_PROOF):
            found.append(f"{variant.name}: its probe is wrong: {printed}")
    return found


def selected(only: list[str]) -> list[history.Mistake]:
    """The mistakes whose name, or the module of whose first edit, matches one of the patterns (none: all)."""
    return [
        one
        for one in history.load()
        if not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only for name in (one.name, one.items[0].module))
    ]

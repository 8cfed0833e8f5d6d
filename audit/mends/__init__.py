"""The second implementation: an edit of our own for every known defect in Python code, by root cause.

One file an area. Each has ``MENDS``, the edits by root cause (the name of the cause's page in the register), and may have

``JOINT``: edits for several causes at once, by a tuple of them: they stand in the place of the causes' own where all these
are mended together, and are for causes that touch the same words.

``NATIVE``: root causes in compiled code, which cannot be mended here, each with a sentence on how its contract is checked
another way.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass, field

from audit.edits import Item, holds
from audit.project import AuditError


@dataclass(frozen=True)
class Mends:
    """All mends: items by cause, items by several causes, sentences by native cause, and each cause's area."""

    alone: dict[str, list[Item]] = field(default_factory=dict)
    joint: dict[tuple[str, ...], list[Item]] = field(default_factory=dict)
    native: dict[str, str] = field(default_factory=dict)
    areas: dict[str, str] = field(default_factory=dict)

    def items(self, causes: Iterable[str], version: str) -> dict[tuple[str, ...], list[Item]]:
        """The items that mend all of ``causes`` together on a torch version, by the causes they are for.

        Where several joint entries fit, the one for the most causes is taken, and each cause is mended once.
        """
        left = dict.fromkeys(causes)
        chosen: dict[tuple[str, ...], list[Item]] = {}
        for several in sorted(self.joint, key=len, reverse=True):
            if all(cause in left for cause in several):
                chosen[several] = self.joint[several]
                for cause in several:
                    del left[cause]
        chosen |= {(cause,): self.alone[cause] for cause in left}
        return {several: [item for item in items if holds(item.torch, version)] for several, items in chosen.items()}


def load() -> Mends:
    """Read every area's file; AuditError where a cause stands in two, or a joint entry names one without a mend."""
    mends = Mends()
    for file in pkgutil.iter_modules(__path__):
        if file.name.startswith("test_"):
            continue
        area = importlib.import_module(f"{__name__}.{file.name}")
        for cause, items in area.MENDS.items():
            if cause in mends.areas:
                raise AuditError(f"{cause} is mended in mends/{mends.areas[cause]}.py and in mends/{file.name}.py")
            mends.areas[cause] = file.name
            mends.alone[cause] = list(items)
        mends.joint.update(getattr(area, "JOINT", {}))
        mends.native.update(getattr(area, "NATIVE", {}))
    for several in mends.joint:
        if missing := [cause for cause in several if cause not in mends.alone]:
            raise AuditError(f"the joint mend of {', '.join(several)}: {', '.join(missing)} has no mend of its own")
    return mends

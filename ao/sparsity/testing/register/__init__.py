"""The entries of the register of known defects, one file per area; ``known_defects`` is the way to use them."""

import importlib
import pkgutil

from ao.sparsity.testing.register.entry import Defect


def load():
    """All entries of all areas.

    Returns:
        dict[str, Defect]: by id, in the order of areas and of the entries in them.

    Raises:
        ValueError: if two entries share an id.
    """
    entries = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if info.name == "entry":
            continue
        for defect in importlib.import_module(f"{__name__}.{info.name}").DEFECTS:
            if defect.id in entries:
                raise ValueError(f"two entries of the register have the id {defect.id!r}")
            entries[defect.id] = defect
    return entries


__all__ = ["Defect", "load"]

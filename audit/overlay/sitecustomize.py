"""Path finder that redirects packages to an overlay copy; active in every Python process started with this folder on
``PYTHONPATH`` and ``AUDIT_OVERLAY`` set.

``AUDIT_OVERLAY``: folder that holds the copies by their dotted names (``<folder>/torch/ao/pruning/...``).
``AUDIT_PACKAGES``: the dotted names to redirect, separated by ``:``. Submodules follow by themselves, since the import
system looks for them along their package's ``__path__``.
"""

import os
import sys
from importlib.machinery import PathFinder


class OverlayFinder:
    """Meta-path finder: the named packages come from ``folder``, everything else from where it always came."""

    def __init__(self, folder, packages):
        self.folder = folder
        self.packages = frozenset(packages)

    def find_spec(self, name, path=None, target=None):
        if name not in self.packages:
            return None
        parents = name.split(".")[:-1]
        return PathFinder.find_spec(name, [os.path.join(self.folder, *parents)], target)


if os.environ.get("AUDIT_OVERLAY"):
    sys.meta_path.insert(0, OverlayFinder(os.environ["AUDIT_OVERLAY"], os.environ["AUDIT_PACKAGES"].split(":")))

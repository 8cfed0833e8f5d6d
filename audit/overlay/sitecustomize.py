"""Path finder that redirects packages to an overlay copy; active in every Python process started with this folder on
``PYTHONPATH`` and ``AUDIT_OVERLAY`` set.

``AUDIT_OVERLAY``: folder that holds the copies by their dotted names (``<folder>/torch/ao/pruning/...``).
``AUDIT_PACKAGES``: the dotted names to redirect, separated by ``:``. Submodules follow by themselves, since the import
system looks for them along their package's ``__path__``.
"""

import importlib
import os
import sys
from importlib.machinery import PathFinder

TRACE_RULES = "torch._dynamo.trace_rules"


class OverlayFinder:
    """Meta-path finder: the named packages come from ``folder``, everything else from where it always came."""

    def __init__(self, folder, packages):
        self.folder = folder
        self.packages = tuple(packages)

    def find_spec(self, name, path=None, target=None):
        if name in self.packages:
            return PathFinder.find_spec(name, [os.path.join(self.folder, *name.split(".")[:-1])], target)
        if name == TRACE_RULES:
            spec = PathFinder.find_spec(name, path, target)
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), self.keep_rules(module))
            return spec
        return None

    def keep_rules(self, rules):
        """torch.compile decides by a file's folder whether it follows a call into it: the overlay's is treated as the
        installed one."""
        for package in self.packages:
            top, *rest = package.split(".")
            installed = os.path.join(importlib.import_module(top).__path__[0], *rest, "__init__.py")
            if rules.check_file(installed, is_inlined_call=True).skipped:
                rules.add(package)


if os.environ.get("AUDIT_OVERLAY"):
    sys.meta_path.insert(0, OverlayFinder(os.environ["AUDIT_OVERLAY"], os.environ["AUDIT_PACKAGES"].split(":")))

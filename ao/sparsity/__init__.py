"""Conformance tests of PyTorch's sparsity stack, one file per area, named as in PyTorch's own ``test/ao/sparsity``."""

import sys

__version__ = "2.1"

if sys.version_info < (3, 10):  # noqa: UP036  (said here: an older Python cannot read what comes next)
    sys.stderr.write("Python " + sys.version.split()[0] + " is too old: this suite needs Python 3.10 or newer\n")
    sys.exit(3)  # as preflight.CANNOT_VALIDATE

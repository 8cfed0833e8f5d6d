"""The night's validation of PyTorch builds: runs the suite's root runner as a process, keeps what came out, says what changed."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (said here: an older Python cannot read what comes next)
    sys.stderr.write("nightly: Python " + sys.version.split()[0] + " is too old: the nightly job needs Python 3.10 or newer\n")
    sys.exit(3)  # as for a target that cannot be run

"""The audit of the suite: what its tests reach (coverage), what they notice (mutation testing), whether those of known defects
are right (mends), and what they cost.

Run as ``python -m audit coverage | mutate | mends | probes | merge | report | cost`` from the project's root. The audit starts the
root runner in processes of its own and never writes to an installed package.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (said here: an older Python cannot read what comes next)
    sys.stderr.write("audit: Python " + sys.version.split()[0] + " is too old: the audit needs Python 3.10 or newer\n")
    sys.exit(2)

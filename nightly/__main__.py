"""``python -m nightly``."""

import signal
import sys

from nightly.cli import main

if __name__ == "__main__":
    if hasattr(signal, "SIGCHLD"):  # where the caller has it ignored, a run that was killed would be one that ended with status 0
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.exit(main())

"""``python -m nightly``."""

import sys

from nightly.cli import main

if __name__ == "__main__":
    sys.exit(main())

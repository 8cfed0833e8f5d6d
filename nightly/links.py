"""Addresses that a page or a message points to."""

import re
from typing import Any

TORCH_COMMITS = "https://github.com/pytorch/pytorch/compare"
COMMIT = re.compile(r"[0-9a-f]{7,40}")


def compare_address(good: Any, bad: Any) -> str:
    """Where GitHub shows the commits of torch between two runs; empty where one is missing, no commit, or the other's."""
    if good is None or bad is None or good.torch_commit == bad.torch_commit:
        return ""
    if not (COMMIT.fullmatch(good.torch_commit) and COMMIT.fullmatch(bad.torch_commit)):
        return ""
    return f"{TORCH_COMMITS}/{good.torch_commit}...{bad.torch_commit}"

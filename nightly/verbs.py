"""The commands that have a module of their own, in the order in which the help lists them."""

from collections.abc import Callable
from typing import Any

from nightly import bisection, speed


def register(command: Callable[..., Any]) -> None:
    """Add every such command; ``command`` makes a parser with what all commands have."""
    for module in (bisection, speed):
        module.add_command(command)

"""pytest's view of these tests: what has ``slow`` has the mark of that name, so that no test needs pytest to be run."""


def pytest_itemcollected(item):
    """A test, or a class of tests, that takes seconds says so by ``slow``."""
    if getattr(item.function, "slow", False) or getattr(item.cls, "slow", False):
        item.add_marker("slow")

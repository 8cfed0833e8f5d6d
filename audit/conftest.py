"""pytest's view of these tests: a class of tests with ``slow`` has the mark of that name, so that no test needs pytest to be run."""


def pytest_itemcollected(item):
    """A class of tests that takes seconds says so by ``slow``."""
    if getattr(item.cls, "slow", False):
        item.add_marker("slow")

"""The words of nightly: what a test's run can end in, and what a night can end in (the exit statuses)."""

from collections.abc import Iterable

PASS = "pass"
FAIL = "fail"
ERROR = "error"
SKIP = "skip"
EXPECTED_FAILURE = "expected failure"
UNEXPECTED_SUCCESS = "unexpected success"
#: A test of a known defect passed, in a run that takes this as news and not as a failure (one that is not strict).
DEFECT_GONE = "defect gone"
FLAKY = "flaky"
CRASH = "crash"
TIMEOUT = "timeout"
NOT_RUN = "not run"

#: Every outcome, worst first; the order in which an area's outcome is taken from its tests.
OUTCOMES = (CRASH, TIMEOUT, ERROR, FAIL, NOT_RUN, UNEXPECTED_SUCCESS, FLAKY, SKIP, DEFECT_GONE, EXPECTED_FAILURE, PASS)
BAD = frozenset({CRASH, TIMEOUT, ERROR, FAIL, NOT_RUN})
GOOD = frozenset({PASS, EXPECTED_FAILURE, DEFECT_GONE})
#: Outcomes that say that a known defect does not show.
GONE = frozenset({DEFECT_GONE, UNEXPECTED_SUCCESS})
#: What is run again alone, twice, before it is believed.
RERUN = frozenset({CRASH, TIMEOUT, ERROR, FAIL, UNEXPECTED_SUCCESS})
#: Outcomes whose duration means something.
TIMED = GOOD

#: Prefix of the message of a passing test of which some subtests were skipped.
PARTLY_SKIPPED = "partly skipped: "
#: The name under which an end of the runner's process other than by its own verdict is recorded.
RUNNER_EXIT = "runner.exit"
#: How a note ends that says that failures were not run again.
NOT_AGAIN = "again alone"
#: How the names end under which is recorded what goes wrong around the tests of a class or a module.
FIXTURES = (".setUpClass", ".tearDownClass", ".setUpModule", ".tearDownModule")

ALL_WELL = 0
WORSE = 1
WRONG_COMMAND_LINE = 2
COULD_NOT_RUN = 3
KNOWN_ONLY = 4
NIGHTLY_FAILED = 5
INTERRUPTED = 130

#: Exit statuses from the most to the least telling: that of a night with several targets is the first that any has.
STATUS_ORDER = (NIGHTLY_FAILED, WORSE, COULD_NOT_RUN, KNOWN_ONLY, ALL_WELL)
STATUS_WORDS = {
    ALL_WELL: "all well",
    WORSE: "worse",
    COULD_NOT_RUN: "could not run",
    KNOWN_ONLY: "known or flaky only",
    NIGHTLY_FAILED: "nightly itself failed",
}


def is_test(name: str) -> bool:
    """Whether a name is that of a test; others are recorded on those nights alone on which something goes wrong there."""
    return name != RUNNER_EXIT and not name.endswith(FIXTURES)


def skipped_parts(message: str) -> set[str]:
    """The reasons for which parts of a passing test were skipped."""
    return set(message.removeprefix(PARTLY_SKIPPED).split("; ")) if message.startswith(PARTLY_SKIPPED) else set()


def worst_outcome(outcomes: Iterable[str]) -> str | None:
    """The worst of some outcomes, or None if there are none."""
    found = set(outcomes)
    return next((outcome for outcome in OUTCOMES if outcome in found), None)


def worst_status(statuses: Iterable[int]) -> int:
    """The exit status of a whole night from those of its targets; ``ALL_WELL`` for none."""
    found = set(statuses)
    return next((status for status in STATUS_ORDER if status in found), ALL_WELL)


class NightlyError(Exception):
    """Something that a person has to mend; its text is the one line to print, and says what to do."""


class Mistake(str):
    """A line about a mistake of nightly itself."""


class CommandLineError(NightlyError):
    """A command line that asks for what cannot be, as only the command itself can tell."""

"""The words of nightly: what a test's run can end in, and what a night can end in (the exit statuses)."""

PASS = "pass"
FAIL = "fail"
ERROR = "error"
SKIP = "skip"
EXPECTED_FAILURE = "expected failure"
UNEXPECTED_SUCCESS = "unexpected success"
FLAKY = "flaky"
CRASH = "crash"
TIMEOUT = "timeout"
NOT_RUN = "not run"

#: Every outcome, worst first; the order in which an area's outcome is taken from its tests.
OUTCOMES = (CRASH, TIMEOUT, ERROR, FAIL, NOT_RUN, UNEXPECTED_SUCCESS, FLAKY, SKIP, EXPECTED_FAILURE, PASS)
BAD = frozenset({CRASH, TIMEOUT, ERROR, FAIL, NOT_RUN})
GOOD = frozenset({PASS, EXPECTED_FAILURE})
#: What is run again alone, twice, before it is believed.
RERUN = frozenset({CRASH, TIMEOUT, ERROR, FAIL, UNEXPECTED_SUCCESS})
#: Outcomes whose duration means something.
TIMED = GOOD

#: Prefix of the message of a passing test of which some subtests were skipped.
PARTLY_SKIPPED = "partly skipped: "
#: The name under which an end of the runner's process other than by its own verdict is recorded.
RUNNER_EXIT = "runner.exit"

ALL_WELL = 0
WORSE = 1
COULD_NOT_RUN = 3
KNOWN_ONLY = 4
INTERRUPTED = 130

#: Exit statuses from the most to the least telling: that of a night with several targets is the first that any has.
STATUS_ORDER = (WORSE, COULD_NOT_RUN, KNOWN_ONLY, ALL_WELL)
STATUS_WORDS = {
    ALL_WELL: "all well",
    WORSE: "worse",
    COULD_NOT_RUN: "could not run",
    KNOWN_ONLY: "known or flaky only",
}


def worst_outcome(outcomes):
    """The worst of some outcomes, or None if there are none."""
    found = set(outcomes)
    return next((outcome for outcome in OUTCOMES if outcome in found), None)


def worst_status(statuses):
    """The exit status of a whole night from those of its targets; ``ALL_WELL`` for none."""
    found = set(statuses)
    return next((status for status in STATUS_ORDER if status in found), ALL_WELL)


class NightlyError(Exception):
    """Something that a person has to mend; its text is the one line to print, and says what to do."""

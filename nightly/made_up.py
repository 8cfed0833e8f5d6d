"""Suites and histories made up for the tests of nightly."""

import random
from datetime import datetime, timedelta, timezone

from nightly.history import COMPLETE, Row, RunRow

AREAS = ("activation_sparsifier", "composability", "data_scheduler", "data_sparsifier", "kernels", "parametrization",
         "qlinear_packed_params", "scheduler", "sparsifier", "sparsity_utils", "structured_sparsifier")
LAST_NIGHT = datetime(2026, 3, 31, 2, 30, tzinfo=timezone.utc)


def make_run(target="stable", night=0, nights=1, **fields):
    """A complete run of the ``night``-th of ``nights``, the last of which is `LAST_NIGHT`."""
    started = LAST_NIGHT - timedelta(days=nights - 1 - night)
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    values = {
        "machine": "box", "started": started.strftime(stamp), "finished": (started + timedelta(seconds=40)).strftime(stamp),
        "state": COMPLETE, "torch": f"2.14.0.dev{started:%Y%m%d}", "torch_commit": f"{night:07x}" + "ab" * 16, "python": "3.12.1",
        "suite_commit": "5" * 40, "environment": {"engines": ["qnnpack", "fbgemm"], "processor": "x86_64"}, "uid": f"{target}-{night}",
    }
    return RunRow(target, **{**values, **fields})


def make_row(name, outcome="pass", message="", seconds=0.01, area="kernels"):
    """A result, by default of a quick test that passes."""
    return Row(name, area, outcome, seconds, message)


def put(history, run, outcomes):
    """Record a run with ``outcomes``: name -> outcome, or name -> `Row`."""
    rows = [row if isinstance(row, Row) else make_row(name, row) for name, row in outcomes.items()]
    with history.writing():
        history.begin(run)
        history.add(run, rows)
    return run


def fill(history, targets, nights, tests, seed=1):
    """Record ``nights`` nights of ``tests`` tests for each target, with now and then a failure, a flaky test or a skip."""
    chance = random.Random(seed)
    names = [f"Test{AREAS[number % len(AREAS)].title().replace('_', '')}.test_case_{number}_keeps_its_promise" for number in range(tests)]
    traceback = "Traceback (most recent call last):\n  File \"test_x.py\", line 3, in test\n" * 6 + "AssertionError: 3 != 4 : case level=0.5"
    with history.writing():
        for target in targets:
            broken_from = {name: chance.randrange(nights) for name in chance.sample(names, max(1, tests // 40))}
            for night in range(nights):
                run = make_run(target, night, nights)
                history.begin(run)
                rows = []
                for number, name in enumerate(names):
                    outcome, message = "pass", ""
                    if number % 4 == 3:
                        outcome, message = "expected failure", "AssertionError: the bias is added along H"
                    elif number % 9 == 0:
                        outcome, message = "skip", "static kernels (no fbgemm)"
                    elif broken_from.get(name, nights) <= night < broken_from.get(name, nights) + 40:
                        outcome, message = chance.choice(("fail", "error", "crash", "timeout")), traceback
                    elif chance.random() < 0.003:
                        outcome, message = "flaky", "fail in the whole run, pass when run alone (1 of 2)\n" + traceback
                    rows.append(Row(name, AREAS[number % len(AREAS)], outcome, chance.uniform(0.001, 0.03), message))
                history.add(run, rows)

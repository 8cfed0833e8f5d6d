"""Tests of nightly on generated input: whatever text, order or file comes, it is recorded and shown, or refused in one line.

The variable NIGHTLY_EXAMPLES says how many cases each test draws (by default 40; 10,000 take minutes).
"""

import os
import unittest

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError:
    raise unittest.SkipTest("generated input (no hypothesis)") from None

from nightly.history import COMPLETE, INTERRUPTED, History, pack_seconds, unpack_seconds
from nightly.made_up import make_row, make_run, put
from nightly.texts import clean

examples = settings(max_examples=int(os.environ.get("NIGHTLY_EXAMPLES", "40")), deadline=None, database=None, derandomize=True)
TEXTS = st.text(max_size=30) | st.text(alphabet=st.characters(), max_size=8)
OUTCOMES_OR_NOT = st.sampled_from([None, "pass", "pass", "pass", "fail", "skip"])
NIGHTS = st.lists(
    st.tuples(
        st.integers(0, 20),  # the day on which it started
        st.sampled_from(["", "", "", "-k A"]),
        st.sampled_from([COMPLETE, COMPLETE, COMPLETE, INTERRUPTED]),
        st.lists(st.tuples(OUTCOMES_OR_NOT, st.sampled_from(["", "why", "why not"])), min_size=4, max_size=4),
    ),
    min_size=1,
    max_size=12,
)


class TestModel(unittest.TestCase):
    """The history beside a plain list of what was put into it."""

    @examples
    @given(nights=NIGHTS, gone=st.sets(st.integers(0, 11), max_size=6))
    def test_spans_tell_what_single_rows_would(self, nights, gone):
        """Whatever order nights come in, whatever is taken out again: results and stretches are those of a plain list."""
        with History(":memory:") as history:
            model = []
            for number, (day, selection, state, results) in enumerate(nights):
                rows = {f"A.{n}": make_row(f"A.{n}", *result, seconds=n / 7) for n, result in enumerate(results) if result[0]}
                run = make_run(night=day, nights=21, uid=str(number), selection=selection, state=state)
                put(history, run, rows)
                model.append((run, rows))
            history.forget([run.id for number, (run, _) in enumerate(model) if number in gone])
            left = [pair for number, pair in enumerate(model) if number not in gone]
            left.sort(key=lambda pair: (pair[0].started, pair[0].id))
            for run, rows in left:
                found = history.results(run)
                self.assertEqual(found, {name: row._replace(seconds=round(row.seconds, 4)) for name, row in rows.items()})
            runs = history.runs(left[0][0].target_id) if left else []
            self.assertEqual([run.id for run in runs], [run.id for run, _ in reversed(left)])
            lines = history.timelines(left[0][0].target_id, runs) if left else {}
            for name in {name for _, rows in left for name in rows}:
                unfolded = [(s.outcome, s.message) for s in lines[name] for _ in range(s.runs)]
                self.assertEqual(unfolded, [(rows[name].outcome, rows[name].message) if name in rows else (None, "") for _, rows in left])
            for run, _ in left:
                self.check_past(history, run, [pair for pair in left if (pair[0].started, pair[0].id) < (run.started, run.id)])
            self.assertEqual(history.query("PRAGMA foreign_key_check"), [])
            if not left:
                for table in ("target", "series", "test", "verdict", "text", "span", "loose"):
                    self.assertEqual(history.query(f"SELECT count(*) FROM {table}"), [(0,)], table)

    def check_past(self, history, run, earlier):
        """`History.past` against a walk over the runs before."""
        for name, past in history.past(run, ["A.0", "A.1"]).items():
            seen = [(before, rows[name].outcome) for before, rows in earlier if name in rows and before.state == COMPLETE]
            good = max((number for number, (_, outcome) in enumerate(seen) if outcome == "pass"), default=-1)
            bad = next((before.id for before, outcome in seen[good + 1 :] if outcome == "fail"), None)
            told = next((outcome for _, outcome in reversed(seen) if outcome != "skip"), None)
            found = (past.last_good and past.last_good.id, past.first_bad and past.first_bad.id, past.outcome)
            self.assertEqual(found, (seen[good][0].id if good >= 0 else None, bad, told))

    @examples
    @given(name=TEXTS, machine=TEXTS, area=TEXTS, message=TEXTS, note=TEXTS, key=TEXTS)
    def test_any_text_is_recorded(self, name, machine, area, message, note, key):
        """No text of any kind can keep a run from being recorded and read."""
        with History(":memory:") as history:
            run = put(
                history,
                make_run(name, machine=machine, notes=[note], environment={key: [note]}),
                {name: make_row(name, "pass", message, 1, area)},
            )
            ((row),) = history.results(run).values()
            self.assertEqual(row.message, clean(message))
            self.assertEqual(history.runs(run.target_id)[0].notes, [clean(note)])

    @examples
    @given(seconds=st.dictionaries(st.integers(1, 2**31), st.floats(0, 4e5), max_size=40))
    def test_seconds_come_back_to_the_tenth_of_a_millisecond(self, seconds):
        """The packed seconds of a run are those that were recorded."""
        read = unpack_seconds(pack_seconds(seconds))
        self.assertEqual(set(read), set(seconds))
        for key, value in seconds.items():
            self.assertAlmostEqual(read[key], value, delta=0.00006)


if __name__ == "__main__":
    unittest.main()

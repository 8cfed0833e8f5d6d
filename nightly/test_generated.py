"""Tests of nightly on generated input: whatever text, order or file comes, it is recorded and shown, or refused in one line.

The variable NIGHTLY_EXAMPLES says how many cases each test draws (by default 40; 10,000 take minutes).
"""

import json
import os
import tempfile
import unittest
from datetime import datetime, timezone
from importlib import util
from pathlib import Path
from xml.etree import ElementTree

from nightly import junit, summary, texts, transfer
from nightly.compare import judge
from nightly.extras import given, settings, st
from nightly.history import COMPLETE, COULD_NOT_RUN, INTERRUPTED, History, Row, pack_seconds, unpack_seconds
from nightly.intake import TEXT_FIELDS
from nightly.made_up import make_row, make_run, put
from nightly.outcomes import OUTCOMES
from nightly.test_transfer import schema_faults
from nightly.texts import ENVIRONMENT, clean

examples = settings(max_examples=int(os.environ.get("NIGHTLY_EXAMPLES", "40")))
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda items: st.lists(items) | st.dictionaries(TEXTS, items),
    max_leaves=8,
)
SOUND_TIMES = st.datetimes(datetime(2000, 1, 2), datetime(2026, 6, 1), timezones=st.none() | st.just(timezone.utc)).map(datetime.isoformat)
TIMES = st.datetimes().map(datetime.isoformat) | st.sampled_from(
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2099-01-01", "x"]
)
PLAIN = TEXTS | st.integers() | st.floats() | st.booleans() | st.none()
OF_KIND = {str: TEXTS, int: st.integers(), list: st.lists(TEXTS, max_size=3)}
#: What a JSON file beside JUnit XML may say.
SOUND = st.fixed_dictionaries(
    {"target": TEXTS.filter(lambda text: clean(text).strip()), "started": SOUND_TIMES},
    optional={
        **{key: TEXTS for key in TEXT_FIELDS if key not in ("target", "state", "uid")},
        "uid": TEXTS.filter(bool),
        "finished": SOUND_TIMES,
        "environment": st.fixed_dictionaries({}, optional={key: OF_KIND[kind] for key, kind in ENVIRONMENT.items()})
        | st.dictionaries(
            TEXTS.filter(lambda key: key not in ENVIRONMENT), PLAIN | st.lists(TEXTS | st.integers(), max_size=3), max_size=3
        ),
        "notes": st.lists(TEXTS, max_size=3),
        "state": st.sampled_from([COMPLETE, COULD_NOT_RUN]),
        "strict": st.booleans(),
    },
)
#: One field of it that says something else.
ODD = st.dictionaries(
    st.sampled_from(junit.FIELDS), JSON | TIMES | st.dictionaries(st.sampled_from(sorted(ENVIRONMENT)), JSON), min_size=1, max_size=1
)
ABOUT = st.builds(lambda sound, odd: {**sound, **odd}, SOUND, st.just({}) | st.just({}) | ODD)
XML_TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff") | st.sampled_from("\n\t\x85"), max_size=30
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["message", "type"]), XML_TEXT | st.sampled_from(sorted(OUTCOMES)), max_size=2)
PARTS = st.tuples(
    st.sampled_from(["skipped", "failure", "error", "flakyFailure", "rerunError", "system-out", "system-err", "properties", "unheard-of"]),
    ATTRIBUTES,
    XML_TEXT,
)
CASES = st.tuples(
    st.fixed_dictionaries(
        {"name": XML_TEXT.filter(str.strip) | st.sampled_from(["a", "b"])},
        optional={
            "classname": XML_TEXT | st.sampled_from(["ao.sparsity.test_kernels.TestX", "p.q.R"]),
            "time": XML_TEXT | st.floats().map(str),
        },
    ),
    st.lists(PARTS, max_size=3),
)
SUITES = st.recursive(
    st.tuples(st.lists(CASES, max_size=4), st.just([])),
    lambda inner: st.tuples(st.lists(CASES, max_size=3), st.lists(inner, max_size=2)),
    max_leaves=3,
)


def make_xml(suite, root="testsuite"):
    """The element of a drawn suite: cases, and suites within it."""
    element = ElementTree.Element(root, {"name": "drawn"})
    for about, parts in suite[0]:
        case = ElementTree.SubElement(element, "testcase", about)
        for tag, attributes, text in parts:
            ElementTree.SubElement(case, tag, attributes).text = text
    element.extend([make_xml(inner) for inner in suite[1]])
    return element


class TestImports(unittest.TestCase):
    """Files from anywhere: each is taken in and can be shown everywhere, or is refused in one line that names it."""

    slow = 4

    def take_in(self, folder, content, about):
        """The history of a folder with one file, after two imports; what was taken in is shown by every writer."""
        file = Path(folder, "drawn.xml")
        file.write_bytes(content)
        file.with_suffix(".json").write_text(about)
        with History(":memory:") as history:
            taken = transfer.take_in(history, [file])
            again = transfer.take_in(history, [file])
            self.assertEqual(len(taken.new) + len(taken.problems), 1)
            self.assertEqual((again.new, again.problems), ([], taken.problems))
            for problem in taken.problems:
                self.assertIn("drawn", problem)
                self.assertEqual(texts.one_line(problem), problem)
                self.assertNotRegex(problem, "cannot be taken in|cannot be read: ", "nobody had thought of it")
            for run in taken.new:
                self.show(history, run)
            return taken

    def show(self, history, run):
        """Every writer shows a run: text, Markdown, JUnit, the page."""
        judgement = judge(history, run)
        for line in summary.text([judgement]).splitlines():
            self.assertNotRegex(line, "[\x00-\x1f\x7f-\x9f\u2028-\u202e]")
        self.assertNotRegex(summary.markdown([judgement]), "[\x00-\x09\x0b-\x1f\x7f-\x9f]")
        results = history.results(run)
        content = junit.to_xml(run, results.values())
        self.assertEqual(schema_faults(content), [])
        self.assertEqual(len(list(ElementTree.fromstring(content).iter("testcase"))), len(results))
        if util.find_spec("jinja2"):
            from nightly import report

            report.page(history).encode()

    @examples
    @given(about=ABOUT, suite=SUITES, root=st.sampled_from(["testsuite", "testsuites"]))
    def test_any_import_is_shown_or_refused_in_a_line(self, about, suite, root):
        """Any JSON beside any XML within the schema: no traceback, no second run of the same, nothing that a writer cannot show."""
        with tempfile.TemporaryDirectory() as folder:
            self.take_in(folder, ElementTree.tostring(make_xml(suite, root)), json.dumps(about))

    @examples
    @given(content=st.binary(max_size=60) | TEXTS.map(lambda text: text.encode("utf-8", "replace")), about=JSON.map(json.dumps) | TEXTS)
    def test_any_bytes_are_refused_in_a_line(self, content, about):
        """What is neither XML nor JSON is one line."""
        with tempfile.TemporaryDirectory() as folder:
            about = about.encode("utf-8", "backslashreplace").decode()
            self.assertEqual(self.take_in(folder, content, about).new, [])

    @examples
    @given(rows=st.lists(st.builds(Row, TEXTS, TEXTS, st.sampled_from(OUTCOMES), st.floats(0, 1e4), TEXTS), max_size=5), target=TEXTS)
    def test_any_results_go_through_junit(self, rows, target):
        """Whatever tests are called and print, what is written is valid, and is read back with the same outcomes."""
        run = make_run(target or "x")
        with History(":memory:") as history:
            put(history, run, {row.name: row for row in rows})
            rows = list(history.results(run).values())
        with tempfile.TemporaryDirectory() as folder:
            junit.write(folder, run, rows)
            (file,) = Path(folder).glob("*.xml")
            self.assertEqual(schema_faults(file.read_bytes()), [])
            read, found = junit.read(file)
        self.assertEqual((read.target, sorted(row.outcome for row in found)), (run.target, sorted(row.outcome for row in rows)))


if __name__ == "__main__":
    unittest.main()

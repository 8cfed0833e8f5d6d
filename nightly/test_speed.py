"""Tests of the speeds: the stopwatch, what is made of its readings, and the table."""

import json
import math
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from nightly import speed
from nightly.extras import given, settings, slow, st
from nightly.made_up import make_run
from nightly.outcomes import NightlyError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def reading(ratio, what="fbgemm static 256x256", zeros=0.9, dense=1e-4):
    return {"what": what, "zeros": zeros, "sparse": ratio * dense, "dense": dense, "ratio": ratio}


def nights(*ratios, **fields):
    """Runs with one ratio each, the latest first."""
    return [make_run("stable", environment={"processor": "x86_64", "speed": [f"a = {ratio}"], **fields}) for ratio in ratios]


class TestStopwatch(unittest.TestCase):
    """The script that measures, under this interpreter."""

    @slow
    def test_stopwatch_times_what_the_build_has(self):
        """It prints one line of JSON with positive medians for the step, and for each engine that has sparse kernels."""
        done = subprocess.run([sys.executable, str(speed.STOPWATCH), "0.05", "64"], capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        told = json.loads(done.stdout)
        self.assertEqual(told["problems"], [])
        self.assertEqual(told["ratios"][-1]["what"], "step 64x64")
        self.assertEqual((len(told["ratios"]) - 1) % 8, 0, "four parts of zeros on two layers for each engine and mode")
        for found in told["ratios"]:
            with self.subTest(found=found):
                self.assertTrue(all(found[key] > 0 and math.isfinite(found[key]) for key in ("sparse", "dense", "ratio")))


class TestMeasure(unittest.TestCase):
    """What an interpreter prints."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.python = Path(folder.name) / "python"

    def make_python(self, prints, status=0):
        """An interpreter that prints this, whatever it is to run."""
        self.python.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.write({prints!r})\nsys.exit({status})\n")
        self.python.chmod(0o755)
        return str(self.python)

    def test_measure_takes_the_last_line(self):
        """What a build prints on its own account before is no reading; a ratio that is none is dropped."""
        told = {"ratios": [reading(0.5), reading(math.nan), reading(0.0)], "problems": ["step: out of memory"]}
        found = speed.measure(self.make_python("a note of the build\n" + json.dumps(told) + "\n"))
        self.assertEqual(found, ([reading(0.5)], ["speed: step: out of memory"]))

    def test_measure_names_what_went_wrong(self):
        """An interpreter that is not there, that has no torch, or that prints something else, is one line."""
        cases = {
            ("No module named torch", 1): "No module named torch (exit status 1)",
            ("", 9): "it printed nothing (exit status 9)",
            ("[1, 2]", 0): "[1, 2] (exit status 0)",
            ('{"ratios": 5, "problems": []}', 0): "exit status 0",
        }
        for (prints, status), wanted in cases.items():
            with self.subTest(prints=prints), self.assertRaises(NightlyError) as caught:
                speed.measure(self.make_python(prints, status))
            self.assertIn(wanted, str(caught.exception))
        with self.assertRaises(NightlyError) as caught:
            speed.measure("/nowhere/python")
        self.assertIn("cannot be started", str(caught.exception))

    def test_measure_ends_when_the_night_is_asked_to_end(self):
        """A measurement that is under way is ended, and not waited for."""
        self.python.write_text("#!/bin/sh\nsleep 3\n")
        self.python.chmod(0o755)
        stopping = threading.Event()
        stopping.set()
        with self.assertRaisesRegex(NightlyError, "^speed: asked to end"):
            speed.measure(str(self.python), stopping=stopping)


class TestSlower(unittest.TestCase):
    """When a ratio counts as slower."""

    def test_slower_needs_two_nights_running(self):
        """A quarter worse than the median of the nights before, tonight and last night."""
        cases = {
            (1.3, 1.3, 1.0, 1.0): ["a"],
            (1.3, 1.0, 1.0, 1.0): [],
            (1.0, 1.3, 1.0, 1.0): [],
            (1.24, 1.3, 1.0, 1.0): [],
            (1.3, 1.3, 1.0): [],
            (9.0,): [],
            (1.4, 1.3, 1.0, 9.0, 1.0): ["a"],
            (0.5, 0.5, 1.0, 1.0): [],
        }
        for ratios, wanted in cases.items():
            with self.subTest(ratios=ratios):
                self.assertEqual(list(speed.slower(nights(*ratios))), wanted)

    def test_slower_compares_one_machine_with_itself(self):
        """Nights on another processor do not count, and neither do nights without speeds."""
        slow, usual = nights(1.5, 1.5), nights(1.0, 1.0)
        self.assertEqual(list(speed.slower([slow[0], make_run(), slow[1], *usual])), ["a"])
        self.assertEqual(speed.slower([*slow, *nights(1.0, 1.0, processor="aarch64")]), {})
        self.assertEqual(speed.slower([make_run(), *slow, *usual]), {})

    def test_slower_says_both_figures(self):
        """The line names the ratio, what it is for two nights and what it was."""
        self.assertEqual(
            speed.slower_lines(nights(1.5, 1.4, 1.0, 1.0)), {"a": "a: sparse takes 1.40 of the dense time for 2 nights, 1.00 before"}
        )

    @settings(max_examples=50)
    @given(JSON_VALUES)
    def test_record_of_any_shape_is_read(self, value):
        """Whatever JSON a record carries as its speeds, what is read are finite positive numbers."""
        run = make_run("stable", environment={"speed": value})
        self.assertTrue(all(math.isfinite(ratio) and ratio > 0 for ratio in speed.recorded_in(run).values()))
        speed.slower([run, run, run, run])


class TestTable(unittest.TestCase):
    """The table of ``python -m nightly speed``."""

    def test_bar_ends_at_the_mark_of_dense(self):
        """A bar is shorter than the mark where sparse is faster, and crosses it where it is slower."""
        lines = speed.table([reading(0.5), reading(1.5), reading(50.0)]).splitlines()
        bars = [line[lines[0].index("(") :] for line in lines[1:]]
        mark = bars[0].index("|")
        self.assertEqual([bar.index("|") for bar in bars], [mark] * 3)
        self.assertTrue(bars[0].count("#") < mark < len(bars[1]) < len(bars[2]) <= speed.BAR_WIDTH, bars)

    def test_table_names_its_units(self):
        """Times of a microsecond to seconds are readable, and a build without kernels is said in words."""
        for seconds, wanted in {2.84e-5: "28.4 us", 1.5e-3: "1.5 ms", 3.266: "3.27 s"}.items():
            with self.subTest(seconds=seconds):
                self.assertEqual(speed.duration(seconds), wanted)
        self.assertIn("no engine", speed.table([]))

    def test_record_is_short(self):
        """A night keeps a name and three digits for each ratio, and what it keeps can be read."""
        record = speed.to_record([reading(0.123456), reading(12345.6, "x = y")])
        self.assertEqual(record, ["fbgemm static 256x256 90 % = 0.123", "x = y 90 % = 1.23e+04"])
        read = speed.recorded_in(make_run(environment={"speed": record}))
        self.assertEqual(read, {"fbgemm static 256x256 90 %": 0.123, "x = y 90 %": 12300.0})


if __name__ == "__main__":
    unittest.main()

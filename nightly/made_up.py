"""Suites and histories made up for the tests of nightly."""

import random
import zipfile
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from nightly.history import COMPLETE, History, Row, RunRow, recorded

AREAS = (
    "activation_sparsifier",
    "composability",
    "data_scheduler",
    "data_sparsifier",
    "kernels",
    "parametrization",
    "qlinear_packed_params",
    "scheduler",
    "sparsifier",
    "sparsity_utils",
    "structured_sparsifier",
)
LAST_NIGHT = datetime(2026, 3, 31, 2, 30, tzinfo=timezone.utc)


def make_run(target: str = "stable", night: int = 0, nights: int = 1, **fields: Any) -> RunRow:
    """A complete run of the ``night``-th of ``nights``, the last of which is `LAST_NIGHT`."""
    started = LAST_NIGHT - timedelta(days=nights - 1 - night)
    values = {
        "machine": "box",
        "started": recorded(started),
        "finished": recorded(started + timedelta(seconds=40)),
        "state": COMPLETE,
        "torch": f"2.14.0.dev{started:%Y%m%d}",
        "torch_commit": f"{night:07x}" + "ab" * 16,
        "python": "3.12.1",
        "suite_commit": "5" * 40,
        "environment": {"engines": ["qnnpack", "fbgemm"], "processor": "x86_64"},
        "uid": f"{target}-{night}",
    }
    return RunRow(target, **{**values, **fields})


def make_row(name: str, outcome: str = "pass", message: str = "", seconds: float = 0.01, area: str = "kernels") -> Row:
    """A result, by default of a quick test that passes."""
    return Row(name, area, outcome, seconds, message)


def put(history: History, run: RunRow, outcomes: dict[str, str | Row]) -> RunRow:
    """Record a run with ``outcomes``: name -> outcome, or name -> `Row`."""
    rows = [row if isinstance(row, Row) else make_row(name, row) for name, row in outcomes.items()]
    with history.writing():
        history.begin(run)
        history.add(run, rows)
        history.update(run)
    return run


def fill(history: History, targets: Sequence[str], nights: int, tests: int, seed: int = 1) -> None:
    """Record ``nights`` nights of ``tests`` tests for each target, with now and then a failure, a flaky test or a skip."""
    chance = random.Random(seed)
    traceback = 'Traceback (most recent call last):\n  File "test_x.py", line 3, in test\n' * 6 + "AssertionError: 3 != 4 : level=0.5"
    usual = []
    for number in range(tests):
        area = AREAS[number % len(AREAS)]
        name = f"Test{area.title().replace('_', '')}.test_case_{number}_keeps_its_promise"
        outcome, message = "pass", ""
        if number % 4 == 3:
            outcome, message = "expected failure", "AssertionError: the bias is added along H"
        elif number % 9 == 0:
            outcome, message = "skip", "static kernels (no fbgemm)"
        usual.append(Row(name, area, outcome, chance.uniform(0.001, 0.03), message))
    with history.writing():
        for target in targets:
            broken = {row.name: chance.randrange(nights) for row in chance.sample(usual, max(1, tests // 40))}
            for night in range(nights):
                rows = {row.name: row._replace(seconds=row.seconds * chance.uniform(0.8, 1.3)) for row in usual}
                for row in chance.sample(usual, 1):
                    rows[row.name] = row._replace(outcome="flaky", message=f"fail in the whole run, {night} times\n{traceback}")
                for name, since in broken.items():
                    if since <= night < since + 40:
                        rows[name] = rows[name]._replace(outcome=chance.choice(("fail", "error", "crash", "timeout")), message=traceback)
                run = make_run(target, night, nights, told=1)
                history.begin(run)
                history.add(run, rows.values())
                history.update(run)


#: A suite whose tests misbehave as the file ``mode`` beside it says; without one they all do as they should.
SUITE = """
import os, pathlib, signal, sys, tempfile, time, unittest

HERE = pathlib.Path(__file__).parent
MODE = (HERE / "mode").read_text().split() if (HERE / "mode").exists() else []


class TestFirst(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        if "exit between" in " ".join(MODE):
            os._exit(9)

    def test_a_passes(self):
        self.assertEqual(1, 1)

    def test_b_fails(self):
        self.assertNotIn("fail", MODE, "because " * 900)

    def test_c_crashes(self):
        if "crash" in MODE:
            tempfile.mkdtemp()
            os.kill(os.getpid(), signal.SIGSEGV)

    def test_d_hangs(self):
        while "hang" in MODE:
            time.sleep(0.1)

    def test_e_leaks(self):
        kept = []
        while "leak" in MODE:
            kept.append(b"x" * (4 << 20))
            time.sleep(0.002)

    def test_f_is_flaky(self):
        if "flaky" in MODE and not (HERE / "seen").exists():
            (HERE / "seen").touch()
            self.fail("the first time")

    def test_g_has_subtests(self):
        for case in range(3):
            with self.subTest(case=case):
                self.assertFalse("subtest" in MODE and case == 1)

    @unittest.skip("static kernels (no fbgemm)")
    def test_h_is_skipped(self):
        self.fail("never run")

    @unittest.expectedFailure
    def test_i_is_known(self):
        self.assertIn("mended", MODE)

    test_i_is_known.known_defect = "bias-is-added-along-h"

    def test_j_is_skipped_in_part(self):
        for case in range(2):
            with self.subTest(case=case):
                if "part" in MODE and case:
                    self.skipTest("dynamic kernels (no qnnpack)")

    def test_k_exits(self):
        if MODE[-1:] == ["exit"]:
            os._exit(7)

    def test_l_is_slow(self):
        while "slow" in MODE and not (HERE / "go on").exists():
            time.sleep(0.02)


class TestSecond(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if "setup" in MODE:
            raise ValueError("nothing to stand on")

    @classmethod
    def tearDownClass(cls):
        if "teardown" in MODE:
            raise ValueError("cannot be tidied")

    def test_one(self):
        self.assertEqual(1, 1)

    def test_two(self):
        self.assertEqual(1, 1)


if "gone" in MODE:
    del TestSecond

if __name__ == "__main__":
    if "nothing" in MODE:
        sys.exit("torch is not installed: install one")
    if "exit at the end" in " ".join(MODE):
        import atexit
        atexit.register(os.abort)
    unittest.main()
"""


def make_suite(folder: Path, *mode: str) -> Path:
    """Write `SUITE` into a folder and return the path of its runner; each word of ``mode`` makes a test misbehave."""
    runner = folder / "test_ao_sparsity.py"
    runner.write_text(SUITE)
    set_mode(runner, *mode)
    return runner


def set_mode(runner: Path, *mode: str) -> None:
    """Make the suite of a runner misbehave otherwise from now on."""
    runner.with_name("mode").write_text(" ".join(mode))


def make_wheel(folder: Path, version: str, name: str = "torch", code: str = "") -> None:
    """Write a wheel of a package that is nothing but a version, for pip to install without a network."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n{code}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: made_up\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)

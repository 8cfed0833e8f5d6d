"""Tests of a night for programs: its JSON, the command that is notified, Prometheus' figures."""

import json
import re
import tempfile
import unittest
from pathlib import Path

from nightly import digest, notify, prometheus
from nightly.compare import Change, Judgement
from nightly.extras import given, settings, st
from nightly.made_up import make_row, make_run

SAMPLE = re.compile(r'ao_sparsity_nightly_(\w+)(?:\{((?:\w+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? [-+.\w]+')
TEXTS = st.text(st.characters(), max_size=20)


def judgement(*changes, **fields):
    """A night with a failed and a passed test and these changes."""
    results = {"S.a": make_row("S.a", "fail", "AssertionError: 3"), "S.b": make_row("S.b")}
    return Judgement(make_run(night=1, nights=2, **fields), make_run(night=0, nights=2), results, list(changes))


def failure(**fields):
    return Change("new failure", "S.a", "fail", "AssertionError: 3", make_run(night=0, nights=2), make_run(night=1, nights=2), **fields)


class TestDigest(unittest.TestCase):
    """A night as JSON."""

    def test_digest_tells_what_the_summary_tells(self):
        """Status, words, counts, changes with their builds, and the summary's text."""
        told = digest.digest([judgement(failure())])
        self.assertEqual((told["form"], told["status"], told["verdict"], told["news"]), (1, 1, "worse", True))
        (target,) = told["targets"]
        self.assertEqual((target["counts"], target["tests"], target["seconds"]), ({"fail": 1, "pass": 1}, 2, 40.0))
        (change,) = target["changes"]
        self.assertEqual((change["line"], change["last_good"]["torch"]), ("AssertionError: 3", "2.14.0.dev20260330"))
        self.assertTrue(change["commits"].startswith("https://github.com/pytorch/pytorch/compare/0000000"))
        self.assertIn("AssertionError: 3", told["text"])

    def test_news_is_what_was_not_told_before(self):
        """A problem and a new failure are; what still fails, or is acknowledged, is not."""
        cases = [
            ([], [], False),
            ([], ["no such target file"], True),
            ([judgement()], [], False),
            ([judgement(failure())], [], True),
            ([judgement(Change("still failing", "S.a", "fail"), Change("acknowledged", "S.b", "fail"))], [], False),
            ([judgement(Change("fixed", "S.a", "pass"))], [], True),
        ]
        for judgements, problems, wanted in cases:
            with self.subTest(judgements=judgements, problems=problems):
                self.assertEqual(digest.has_news(judgements, problems), wanted)

    @settings(max_examples=50)
    @given(TEXTS, TEXTS, TEXTS)
    def test_any_text_makes_json(self, name, message, build):
        """Whatever a test or a build is called, the digest can be written and read back."""
        told = digest.digest([judgement(Change("new failure", name, "fail", message), target=name, torch=build)], [message])
        self.assertEqual(json.loads(json.dumps(told))["targets"][0]["changes"][0]["test"], name)


class TestNotify(unittest.TestCase):
    """The command that gets the news."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = Path(folder.name) / "told"

    def test_command_gets_the_news(self):
        """JSON on standard input, and the headline in its environment."""
        told = digest.digest([judgement(failure())])
        self.assertEqual(notify.notify(f'cat > "{self.place}"; echo "$NIGHTLY_HEADLINE, $NIGHTLY_STATUS" > "{self.place}.head"', told), "")
        self.assertEqual(json.loads(self.place.read_text()), told)
        self.assertEqual(self.place.with_suffix(".head").read_text(), f"{told['headline']}, 1\n")

    def test_no_news_calls_nothing(self):
        """A night that tells nothing new leaves everyone alone."""
        self.assertEqual(notify.notify(f'touch "{self.place}"', digest.digest([judgement()])), "")
        self.assertFalse(self.place.exists())

    def test_command_that_fails_is_told(self):
        """Its status and its last line; one that never reads its input is no failure."""
        told = digest.digest([judgement(failure())])
        self.assertRegex(notify.notify("echo no route; exit 7", told), "exit status 7: no route$")
        self.assertRegex(notify.notify("no-such-command-here", told), "exit status 127")
        self.assertEqual(notify.notify("true", {**told, "text": "x" * 1_000_000}), "")


class TestPrometheus(unittest.TestCase):
    """The figures."""

    def test_figures_are_there(self):
        """Status, time, tests by outcome, changes by kind, the build and the speeds, each with its help and type."""
        told = prometheus.render([judgement(failure(), environment={"speed": ["fbgemm = 0.5"]})], 1)
        for wanted in (
            "\nao_sparsity_nightly_night_status 1\n",
            '# TYPE ao_sparsity_nightly_status gauge\nao_sparsity_nightly_status{target="stable",machine="box"} 1\n',
            'ao_sparsity_nightly_tests{target="stable",machine="box",outcome="fail"} 1\n',
            'ao_sparsity_nightly_tests{target="stable",machine="box",outcome="crash"} 0\n',
            'ao_sparsity_nightly_changes{target="stable",machine="box",kind="new failure"} 1\n',
            'ao_sparsity_nightly_started_timestamp_seconds{target="stable",machine="box"} 1774924200\n',
            'ao_sparsity_nightly_speed_ratio{target="stable",machine="box",what="fbgemm"} 0.5\n',
        ):
            with self.subTest(wanted=wanted):
                self.assertIn(wanted, told)

    @settings(max_examples=100)
    @given(TEXTS, TEXTS)
    def test_any_name_is_a_label(self, target, build):
        """Every line is a comment or a sample of the format, whatever a target or a build is called."""
        told = prometheus.render([judgement(target=target, torch=build)], 0)
        for line in told.removesuffix("\n").split("\n"):
            if not line.startswith("# "):
                self.assertRegex(line, SAMPLE)
                self.assertEqual(SAMPLE.match(line)[0], line)

    def test_file_is_written_whole(self):
        """It is there afterwards; where it cannot be, that is a line."""
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(prometheus.write(Path(folder) / "n.prom", [judgement()], 0), "")
            self.assertTrue((Path(folder) / "n.prom").read_text().endswith("\n"))
            self.assertIn("--prometheus", prometheus.write(Path(folder) / "none" / "n.prom", [judgement()], 0))


if __name__ == "__main__":
    unittest.main()

"""Tests of the page."""

import html.parser
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from nightly import report
from nightly.history import COULD_NOT_RUN, RUNNING, History, now
from nightly.made_up import make_row, make_run, put

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VOID = {"meta", "br", "wbr", "line", "circle", "polyline", "input", "link", "img", "hr"}


class Outline(html.parser.HTMLParser):
    """The tags, ids, attributes and text of a page; complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.tags, self.ids, self.targets, self.texts, self.references = [], [], [], set(), set(), [], []
        self.feed(text)
        self.faults += self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids.add(values.get("id"))
        self.references += [values[key] for key in ("src", "href", "data", "action") if key in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


class TestPage(unittest.TestCase):
    """The page of a history."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.history = History(self.folder / "history.sqlite", create=True)
        self.addCleanup(self.history.close)

    def put_nights(self):
        """Two targets with three nights each, on the last of which much changed, and one that could not run."""
        first = {
            "S.test_a": "pass",
            "S.test_b": "expected failure",
            "S.test_c": make_row("S.test_c", "skip", "static kernels (no fbgemm)"),
            "S.test_d": "expected failure",
            "S.test_gone": "pass",
        }
        last = {
            **first,
            "S.test_a": make_row("S.test_a", "fail", "Traceback\nAssertionError: <b>3</b> != 4"),
            "S.test_new": "pass",
            "S.test_b": "unexpected success",
            "S.test_f": make_row("S.test_f", "flaky", "now and then", area="scheduler"),
        }
        del last["S.test_gone"]
        for night in range(3):
            put(self.history, make_run("stable", night, 3), last if night == 2 else first)
            put(self.history, make_run("newest", night, 3), first)
        put(self.history, make_run("broken", state=COULD_NOT_RUN, reason="pip install torch==99: no such version"), {})

    def test_page_tells_everything_in_words(self):
        """Verdict, whether it ran, changes, targets, nights, duration, skips by reason and known defects are all there as text."""
        self.put_nights()
        outline = Outline(report.page(self.history))
        self.assertEqual(outline.faults, [])
        for wanted in (
            "Nightly: worse",
            "could not run: pip install torch==99: no such version",
            "against 2026-03-30",
            "New failures (1)",
            "first bad torch 2.14.0.dev20260331 (0000002ab) on 2026-03-31; last good torch 2.14.0.dev20260330 (0000001ab) on 2026-03-30",
            "AssertionError: <b>3</b> != 4",
            "Vanished tests (1)",
            "S.test_gone",
            "Flaky (1)",
            "tests that do not come to the same on every target",
            "static kernels (no fbgemm): 1 on newest, 1 on stable",
            "1 still there on every target that ran",
            "vanished",
            "3 nights, from 2026-03-29",
        ):
            with self.subTest(wanted=wanted):
                self.assertIn(wanted, outline.text)

    def test_page_needs_nothing_but_itself(self):
        """No script, no other file: every reference is a place within the page."""
        self.put_nights()
        page = report.page(self.history)
        outline = Outline(page)
        self.assertTrue(outline.references)
        self.assertLessEqual({reference.removeprefix("#") for reference in outline.references}, outline.ids)
        self.assertNotIn("script", outline.tags)
        self.assertNotRegex(page, r"@import|url\(|https?://")

    def test_outcomes_differ_in_sign_and_in_contrast(self):
        """Each outcome has a sign of its own, and a colour whose text can be read (WCAG AA, 4.5 to 1)."""
        signs = [sign for _, sign in report.SIGNS.values()]
        self.assertEqual(len(set(signs)), len(signs))
        style = (report.TEMPLATES / "report.html").read_text()
        for outcome, (css_class, _) in report.SIGNS.items():
            if outcome is None:
                continue
            with self.subTest(outcome=outcome):
                self.assertRegex(style, rf"\.{css_class} {{ background: (#\w+); color: (#\w+);")
                rule = style.split(f".{css_class} {{ background: ")[1]
                background, colour = rule.split(";")[0], rule.split("color: ")[1].split(";")[0]
                self.assertGreaterEqual(contrast(background, colour), 4.5)

    def test_empty_history_is_no_good_news(self):
        """Without a run the page says that nothing ran."""
        text = Outline(report.page(self.history)).text
        self.assertIn("Nightly: could not run", text)
        self.assertIn("the history holds no run", text)

    def test_silent_target_is_no_good_news(self):
        """A target whose last night was fine but is long ago makes the page 'could not run'; a run under way is mentioned."""
        fine = {"S.test_a": "pass"}
        put(self.history, make_run("stable", 0, 2), fine)
        text = Outline(report.page(self.history)).text
        self.assertIn("Nightly: could not run", text)
        self.assertIn("stable on box: the last complete record, of 2026-03-30T02:30:00Z, is older than 36 h", text)
        put(self.history, make_run("stable", started=now(), uid="fresh"), fine)
        self.assertIn("Nightly: all well", Outline(report.page(self.history)).text)
        put(self.history, make_run("stable", started=now(), finished=None, state=RUNNING, uid="running"), {})
        text = Outline(report.page(self.history)).text
        self.assertIn("Nightly: all well", text)
        self.assertIn("has not ended", text)

    def test_area_stands_for_its_worst_test_but_not_for_skips(self):
        """An area's line shows what asks for a look; skips and known defects beside passes do not."""
        cases = {
            ("pass", "skip", "expected failure"): "pass",
            ("pass", "flaky"): "flaky",
            ("flaky", "crash", "fail"): "crash",
            ("skip", "expected failure"): "skip",
            (): None,
        }
        for outcomes, wanted in cases.items():
            with self.subTest(outcomes=outcomes):
                self.assertEqual(report.standing(outcomes), wanted)

    def test_night_without_results_is_seen_in_the_grid(self):
        """A night that could not run is a column of its own, marked as not run."""
        for night, fields in enumerate(({}, {"state": COULD_NOT_RUN, "reason": "no torch"}, {})):
            put(self.history, make_run("stable", night, 3, **fields), {} if fields else {"S.test_a": "pass"})
        (subject,) = report.collect(self.history, 30)
        self.assertEqual([area["line"] for area in subject.areas], [["pass", "not run", "pass"]])

    def test_duration_is_drawn_within_the_picture(self):
        """Every point of the chart lies on it, and the scale holds the largest value."""
        self.put_nights()
        chart = report.duration_chart(report.collect(self.history, 30))
        for line in chart["lines"]:
            for point in line["points"].split():
                x, y = map(float, point.split(","))
                self.assertTrue(chart["left"] <= x <= chart["right"] and 0 < y <= chart["lower"], point)
        for value, wanted in {0.9: 1, 1: 1, 3.1: 4, 41: 50, 700: 800, 900: 1000}.items():
            with self.subTest(value=value):
                self.assertAlmostEqual(report.nice_ceiling(value), wanted)

    def test_browser_shows_the_page(self):
        """Headless Chromium lays the page out: on a phone's width nothing is wider than the screen."""
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            self.skipTest("the page in a browser (no chromium)")
        self.put_nights()
        probe = "<script>document.title = 'width ' + document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
        (self.folder / "page.html").write_text(report.page(self.history).replace("</body>", probe))
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={self.folder / 'profile'}",
            "--window-size=500,900",
            "--dump-dom",
        ]
        dom = subprocess.run([*command, (self.folder / "page.html").as_uri()], capture_output=True, text=True, timeout=60).stdout
        title = dom.split("<title>")[1].split("</title>")[0]
        self.assertRegex(title, r"^width \d+ of \d+$")
        width, inner = map(int, (title.split()[1], title.split()[3]))
        self.assertLessEqual(width, inner)


def contrast(one, other):
    """The contrast ratio of two colours (#rgb or #rrggbb) as WCAG 2 defines it."""

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


if __name__ == "__main__":
    unittest.main()

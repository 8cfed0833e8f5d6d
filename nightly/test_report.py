"""Tests of the page."""

import html.parser
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from nightly import report
from nightly.extras import HealthCheck, given, needs, settings, st
from nightly.history import COULD_NOT_RUN, RUNNING, History, RunRow, now
from nightly.links import TORCH_COMMITS
from nightly.made_up import make_row, make_run, put
from nightly.outcomes import OUTCOMES

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VOID = {"meta", "br", "wbr", "line", "circle", "polyline", "path", "input", "link", "img", "hr"}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
#: Text of any kind, and text that means something to HTML, Jinja, CSS, a script, a link or a terminal.
TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "</script><script>alert(1)</script>",
        '" onmouseover="x',
        "{{ 7*7 }}",
        "</style>",
        "\x00\x1b[31m",
        "\ud800",
        "\u202egnp.exe",
        "<!--",
        "&lt;b&gt;",
        "'",
    ]
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(["engines", "processor", "platform", "cpu_capability", "devices", "speed", "x"]), JSON_VALUES, max_size=4
)


class Outline(html.parser.HTMLParser):
    """The tags, ids, attributes and text of a page; complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.tags, self.ids, self.texts, self.references, self.attributes = [], [], [], [], [], [], set()
        self.feed(text)
        self.faults += self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.attributes |= set(values)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[key] for key in ("src", "href", "data", "action") if key in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


@needs("jinja2", "the page")
class PageCase(unittest.TestCase):
    """A history to make pages of."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.history = History(":memory:")
        self.addCleanup(self.history.close)

    def outline(self, **options):
        return Outline(report.page(self.history, **options))

    def put_nights(self):
        """Two targets with three nights each, on the last of which much changed, and one that could not run."""
        first = {
            "S.test_a": "pass",
            "S.test_b": make_row(
                "S.test_b", "expected failure", "a-cause (ao/sparsity/defects/kernels/a-cause.md): AssertionError: 1 != 2"
            ),
            "S.test_c": make_row("S.test_c", "skip", "static kernels (no fbgemm)"),
            "S.test_d": "expected failure",
            "S.test_gone": "pass",
        }
        last = {
            **first,
            "S.test_a": make_row("S.test_a", "fail", "Traceback\nAssertionError: <b>3</b> != 4"),
            "S.test_new": "pass",
            "S.test_b": "defect gone",
            "S.test_f": make_row("S.test_f", "flaky", "now and then", area="scheduler"),
        }
        del last["S.test_gone"]
        for night in range(3):
            put(self.history, make_run("stable", night, 3), last if night == 2 else first)
            put(self.history, make_run("newest", night, 3), first)
        put(self.history, make_run("broken", state=COULD_NOT_RUN, reason="pip install torch==99: no such version"), {})


class TestPage(PageCase):
    """The page of a history."""

    def test_page_tells_everything_in_words(self):
        """What changed and whose change it can be, whether it ran, targets, nights, skips by reason and known defects."""
        self.put_nights()
        outline = self.outline()
        self.assertEqual(outline.faults, [])
        for wanted in (
            "1 new failure on 1 of 3 targets since torch 2.14.0.dev20260330 (0000001ab) of 2026-03-30",
            "1 vanished test on 1 of 3 targets",
            "1 of 3 targets could not run",
            "pip install torch==99: no such version",
            "New failure (fail) on stable (1 of 3)",
            "last good torch 2.14.0.dev20260330 (0000001ab) on 2026-03-30, first bad torch 2.14.0.dev20260331 (0000002ab) on 2026-03-31",
            "Only torch changed between them. Commits between",
            "AssertionError: <b>3</b> != 4",
            "python test_ao_sparsity.py S.test_a",
            "there on 2026-03-30 (pass)",
            "Flaky (1)",
            "Tests that do not come to the same everywhere (5)",
            "fail on stable; pass elsewhere",
            "static kernels (no fbgemm): 1 on newest, 1 on stable",
            "2026-03-29 or earlier",
            "still there on newest; gone on stable",
            "pass, 2026-03-29 to 2026-03-30 (2 nights), torch 2.14.0.dev20260329 to 2.14.0.dev20260330",
        ):
            with self.subTest(wanted=wanted):
                self.assertIn(wanted, outline.text)

    def test_news_comes_before_whether_it_ran(self):
        """The failure stands above the table of targets, its assertion outside any fold."""
        self.put_nights()
        page = report.page(self.history)
        self.assertLess(page.index("&lt;b&gt;3&lt;/b&gt; != 4"), page.index('id="ran"'))
        before = page[: page.index("&lt;b&gt;3&lt;/b&gt; != 4")].split("<main>")[1]
        self.assertEqual(before.count("<details"), before.count("</details>"))

    def test_page_needs_nothing_but_itself(self):
        """Its references are places within it, each there once, and the commits on GitHub; its script is its own."""
        self.put_nights()
        page = report.page(self.history)
        outline = Outline(page)
        self.assertEqual(len(set(outline.ids)), len(outline.ids))
        outer = {reference for reference in outline.references if not reference.startswith("#")}
        self.assertEqual(len(outer), 1)
        self.assertRegex(outer.pop(), r"^https://github\.com/pytorch/pytorch/compare/[0-9a-f]{39}\.\.\.[0-9a-f]{39}$")
        self.assertLessEqual({reference[1:] for reference in outline.references if reference.startswith("#")}, set(outline.ids))
        self.assertEqual(outline.tags.count("script"), 1)
        self.assertFalse({name for name in outline.attributes if name.startswith("on")})
        self.assertIsNone(re.search(r"@import|url\(|fetch\(|XMLHttpRequest|eval\(", page))

    def test_page_links_pages_of_known_defects(self):
        """With the address of the suite's repository a defect's page is a link; without, its path."""
        self.put_nights()
        self.assertIn("ao/sparsity/defects/kernels/a-cause.md", self.outline().text)
        address = "https://example.org/suite/ao/sparsity/defects/kernels/a-cause.md"
        self.assertIn(address, self.outline(source="https://example.org/suite/").references)
        for text, source in (("ao/sparsity/defects/../../x.md", "https://x"), ("ao/sparsity/defects/a.md", "javascript:x")):
            with self.subTest(text=text):
                self.assertEqual(report.defect_page(text, source)[0], "")

    def test_page_can_be_used_without_a_pointer(self):
        """A skip link leads to what changed, what scrolls can be focused, and the filter is hidden where there is no script."""
        self.put_nights()
        page = report.page(self.history)
        body = page.split("<body")[1]
        self.assertRegex(body, r'^[^>]*>\s*<a class="skip" href="#changed">')
        self.assertEqual(body.count('class="scroll"'), body.count('class="scroll" tabindex="0"'))
        self.assertIn('role="search" hidden', page)

    def test_empty_history_is_no_good_news(self):
        """Without a run the page says that nothing ran."""
        text = self.outline().text
        self.assertIn("No run is recorded", text)
        self.assertIn("the history holds no run", text)

    def test_silent_target_is_no_good_news(self):
        """A target whose last night was fine but is long ago is in the headline; a run under way is mentioned."""
        fine = {"S.test_a": "pass"}
        put(self.history, make_run("stable", 0, 2), fine)
        text = self.outline().text
        self.assertIn("1 target silent for too long", text)
        self.assertIn("stable on box: the last complete record, of 2026-03-30T02:30:00Z, is older than 36 h", text)
        put(self.history, make_run("stable", started=now(), uid="fresh"), fine)
        self.assertIn("All well: 1 test on 1 target, nothing broke", self.outline().text)
        put(self.history, make_run("stable", started=now(), finished=None, state=RUNNING, uid="running"), {})
        text = self.outline().text
        self.assertIn("All well", text)
        self.assertIn("not ended", text)

    def test_run_of_one_test_does_not_replace_the_night(self):
        """A failure of the last night of all tests stays in the headline, whatever passed since in a run with -k."""
        put(self.history, make_run("a", 0, 3), {"S.test_a": "pass", "S.test_b": "pass"})
        put(self.history, make_run("a", 1, 3), {"S.test_a": "pass", "S.test_b": "fail"})
        put(self.history, make_run("a", 2, 3, selection="-k S.test_a"), {"S.test_a": "pass"})
        self.assertIn("1 new failure", self.outline().text)

    def test_given_up_target_is_folded(self):
        """A target without a run for a month, while another has one, is named with its last run, and its failure is no news."""
        put(self.history, make_run("former", 0, 2), {"S.test_a": "pass"})
        put(self.history, make_run("former", 1, 2), {"S.test_a": "fail"})
        self.assertIn("1 new failure", self.outline().text)
        put(self.history, make_run("present", started=now()), {"S.test_a": "pass"})
        text = self.outline().text
        self.assertIn("All well: 1 test on 1 target", text)
        self.assertIn("Given up, for they have had no run for 30 days (1) former on box: last run on 2026-03-31", text)

    def test_equal_failures_are_shown_once(self):
        """The same failure on every target is one entry that names them all."""
        for target in ("a", "b", "c"):
            put(self.history, make_run(target, 0, 2), {"S.test_a": "pass"})
            put(self.history, make_run(target, 1, 2), {"S.test_a": make_row("S.test_a", "fail", "AssertionError: 3 != 4")})
        page = report.page(self.history)
        self.assertEqual(page.count('<article class="card k1"'), 1)
        self.assertIn("New failure (fail) on all 3 targets", Outline(page).text)

    def test_night_that_did_not_run_is_no_news_of_a_test(self):
        """A test's history goes from one complete night to the next, and side by side stand complete nights alone."""
        for night, fields in enumerate(({}, {"state": COULD_NOT_RUN, "reason": "no torch"}, {})):
            put(self.history, make_run("a", night, 4, **fields), {} if fields else {"S.test_a": "pass", "S.test_b": "pass"})
            put(self.history, make_run("b", night, 4), {"S.test_a": "pass", "S.test_b": "pass"})
        put(self.history, make_run("b", 3, 4, state="interrupted"), {"S.test_a": "pass"})
        (area,) = report.histories(report.collect(self.history, 30), {"S.test_a": "kernels", "S.test_b": "kernels"})
        self.assertEqual((area.moved, area.calm), ([], [("pass", "", ["S.test_a", "S.test_b"])]))
        self.assertNotIn("Targets side by side", self.outline().text)

    def test_speeds_have_a_picture(self):
        """Recorded ratios are a table with a line by night, and one that stayed worse for two nights says what it was."""
        for night, ratio in enumerate([0.4, 0.4, 0.4, 0.6, 0.6]):
            put(self.history, make_run("a", night, 5, environment={"speed": [f"fbgemm static = {ratio}"]}), {"S.test_a": "pass"})
        outline = self.outline()
        self.assertIn("Is sparse faster?", outline.text)
        self.assertIn("0.60 slower: 0.40 before", outline.text)
        self.assertIn("path", outline.tags)


class TestAnyValue(PageCase):
    """Whatever a record may hold."""

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def test_any_value_of_any_field_is_shown_safely(self, data):
        """Names, texts, builds and environments of any kind never break the page, add a tag, or an attribute that acts."""
        with History(":memory:") as history:
            for number in range(data.draw(st.integers(1, 3))):
                fields = {key: data.draw(TEXTS) for key in ("torch", "torch_commit", "python", "suite_commit", "reason", "selection")}
                run = RunRow(
                    data.draw(TEXTS),
                    data.draw(TEXTS),
                    make_run(night=number, nights=3).started,
                    state=data.draw(st.sampled_from(["complete", "could not run", "interrupted"])),
                    finished=data.draw(st.none() | st.just(make_run(night=number, nights=3).started)),
                    environment=data.draw(ENVIRONMENTS),
                    notes=data.draw(st.lists(TEXTS, max_size=2)),
                    **fields,
                )
                rows = [
                    make_row(data.draw(TEXTS), data.draw(st.sampled_from(OUTCOMES)), data.draw(TEXTS), area=data.draw(TEXTS))
                    for _ in range(data.draw(st.integers(0, 3)))
                ]
                put(history, run, {row.name: row for row in rows})
            page = report.page(history)
        page.encode("utf-8")
        outline = Outline(page)
        self.assertEqual(outline.faults, [])
        self.assertEqual(outline.tags.count("script"), 1)
        self.assertFalse({name for name in outline.attributes if name.startswith("on")})
        self.assertEqual(len(set(outline.ids)), len(outline.ids))
        self.assertIsNone(re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page))
        outer = [reference for reference in outline.references if not reference.startswith(("#", TORCH_COMMITS))]
        self.assertEqual(outer, [])


class TestParts(PageCase):
    """What the sections are made of."""

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

    def test_only_the_odd_targets_stand_out(self):
        """In an area the counts of most targets are usual, and of the others what differs is told; a failure is never usual."""
        for target, outcome in {"a": "pass", "b": "pass", "c": "skip", "d": "fail", "e": "fail", "f": "fail"}.items():
            put(self.history, make_run(target), {"S.test_a": outcome, "S.test_b": "pass"})
        ((area, usual, cells),) = report.area_matrix(report.collect(self.history, 30))
        self.assertEqual((area, usual), ("kernels", "2 pass"))
        self.assertEqual(cells, [(None, "")] * 2 + [("skip", "1 skip")] + [("fail", "1 fail")] * 3)

    def test_night_without_results_is_seen_in_the_grid(self):
        """A night that could not run is a column of its own, marked as not run."""
        for night, fields in enumerate(({}, {"state": COULD_NOT_RUN, "reason": "no torch"}, {})):
            put(self.history, make_run("stable", night, 3, **fields), {} if fields else {"S.test_a": "pass"})
        (subject,) = report.collect(self.history, 30)
        (area,) = report.grid(subject, {"S.test_a": "kernels"})
        self.assertEqual([(bar.outcome, bar.nights) for bar in area.line], [("pass", 1), ("not run", 1), ("pass", 1)])

    def test_equal_rows_of_the_grid_are_one(self):
        """Tests that came to the same every night share a line; a cell's tooltip says its dates and builds."""
        for night in range(3):
            put(self.history, make_run("a", night, 3), {"S.test_a": "pass", "S.test_b": "pass", "S.test_c": "fail" if night else "pass"})
        (subject,) = report.collect(self.history, 30)
        (area,) = report.grid(subject, dict.fromkeys("abc", "kernels"))
        self.assertEqual([names for names, _ in area.rows], [["S.test_c"], ["S.test_a", "S.test_b"]])
        self.assertEqual(
            area.rows[0][1][1].said, "fail, 2026-03-30 to 2026-03-31 (2 nights), torch 2.14.0.dev20260330 to 2.14.0.dev20260331"
        )

    def test_history_merges_targets_that_went_alike(self):
        """Each test has its stretches, the latest first; targets with the same ones share them, calm tests share a line."""
        for target, bad in {"a": "fail", "b": "fail", "c": "pass"}.items():
            put(self.history, make_run(target, 0, 2), {"S.test_a": "pass", "S.test_b": "pass", "S.test_c": "pass"})
            put(self.history, make_run(target, 1, 2), {"S.test_a": bad, "S.test_b": "pass", "S.test_c": "pass"})
        (area,) = report.histories(report.collect(self.history, 30), dict.fromkeys(["S.test_a", "S.test_b", "S.test_c"], "kernels"))
        (moved,) = area.moved
        told = [(targets, [stretch.outcome for stretch in stretches]) for targets, stretches, _ in moved.groups]
        self.assertEqual(told, [(["a", "b"], ["fail", "pass"]), (["c"], ["pass"])])
        self.assertEqual(area.calm, [("pass", "", ["S.test_b", "S.test_c"])])


class TestBrowser(PageCase):
    """The page in Chromium."""

    slow = 4

    def ask(self, script, width):
        """What a script that runs in the page at a width puts into its title."""
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            self.skipTest("the page in a browser (no chromium)")
        self.put_nights()
        probe = f"<script>addEventListener('load', function () {{ document.title = 'found ' + ({script}); }})</script></body>"
        (self.folder / "page.html").write_text(report.page(self.history).replace("</body>", probe), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.folder / 'profile'}"]
        command += ["--no-first-run", "--disable-background-networking", f"--window-size={width},900", "--dump-dom"]
        dom = subprocess.run([*command, (self.folder / "page.html").as_uri()], capture_output=True, text=True, timeout=60).stdout
        return re.search(r"<title>found (.*?)</title>", dom)[1]

    def test_phone_shows_the_page_without_scrolling_aside(self):
        """On a phone's width nothing is wider than the screen."""
        width, inner = map(int, self.ask("document.documentElement.scrollWidth + ' ' + innerWidth", 500).split())
        self.assertLessEqual(width, inner)

    def test_filter_shows_only_what_matches(self):
        """A word leaves the entries with it, an outcome those that had it, and emptied it shows all again."""
        script = """(function () {
            var form = document.getElementById('filter'), word = document.getElementById('words'), found = [];
            function shown() { return document.querySelectorAll('article[data-o]:not(.off)').length; }
            function type(text) { word.value = text; form.dispatchEvent(new Event('input')); }
            var now = window.setTimeout; window.setTimeout = function (work) { work(); };
            found.push(form.hidden, shown());
            type('no such version'); found.push(shown());
            type('nothing has this'); found.push(shown());
            type(''); found.push(shown());
            form.querySelector('input[value=fail]').click(); found.push(shown());
            return found.join(' ');
        })()"""
        self.assertEqual(self.ask(script, 1400), "false 2 1 0 2 1")


if __name__ == "__main__":
    unittest.main()

"""Tests of the index: a newcomer's words lead to the right tests in one step."""

import contextlib
import io
import unittest

from ao.sparsity.testing import index


class TestSearch(unittest.TestCase):
    """``nearest``: other case, other separators, words of the docstring."""

    def test_words_of_a_newcomer_find_their_tests(self):
        """Docstring: what people look for comes first."""
        for asked, holder, test in (
            ("cubic", "TestCubicScheduler", None),
            ("cubic before t_0", "TestCubicScheduler", "test_constructor"),
            ("2:4", "TestWeightNormSparsifier", "test_step_2_of_4"),
            ("2_4", "TestWeightNormSparsifier", "test_step_2_of_4"),
            ("testfpgmpruner", "TestFPGMPruner", None),
            ("TestFGPMPruner", "TestFPGMPruner", "test_update_mask"),
            ("test-update-mask", "TestFPGMPruner", "test_update_mask"),
        ):
            with self.subTest(asked=asked):
                found = index.nearest(asked, number=10)
                self.assertIn((holder, test), [(entry.holder, test and entry.test) for entry in found])
        self.assertTrue(all("bias" in entry.words and "hook" in "".join(entry.words) for entry in index.nearest("BiasHook")))
        self.assertEqual(index.nearest("xyzzy"), [])

    def test_most_of_the_words_are_needed(self):
        """Docstring: all words or most of them; one in three is nothing."""
        among = [index.Entry("TestA", "test_b", "a.py", "c"), index.Entry("TestZ", "test_y", "z.py", "x")]
        self.assertEqual(index.nearest("b c nothing", among), among[:1])
        self.assertEqual(index.nearest("b nothing else", among), [])

    def test_words_are_taken_apart(self):
        """Docstring of words(): case and separators divide, numbers are figures, words that say nothing go."""
        self.assertEqual(index.words("TestCubicScheduler.test_step_2_of_4"), ["cubic", "scheduler", "step", "2", "4"])
        self.assertEqual(index.words("two:four LSTMSaliency"), ["2", "4", "lstm", "saliency"])

    def test_command_line(self):
        """``python -m ao.sparsity.testing.index WORDS``: file, test and contract; status 1 where nothing comes near."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(index.main(["cubic", "before", "t_0"]), 0)
            self.assertEqual(index.main(["xyzzy"]), 1)
        self.assertRegex(said.getvalue(), r"^\S+\.py: TestCubicScheduler\.test_constructor: .+\n")
        self.assertTrue(said.getvalue().endswith("\nno test comes near\n"), said.getvalue())


class TestIndex(unittest.TestCase):
    """``subjects``: each name under test, with the classes that use it."""

    def test_subjects_lead_to_classes_and_files(self):
        """Docstring: the classes whose tests use the name, under the name that the runner knows, and their files."""
        found = index.subjects()
        self.assertIn("TestStructuredParametrizations", found["BiasHook"])
        self.assertEqual(found["CubicSL"]["TestCubicScheduler"], "test_scheduler.py")
        for holders in found.values():
            self.assertTrue(all(holder.startswith("Test") for holder in holders), holders)

    def test_page_is_current(self):
        """INDEX.md is what ``--write`` writes."""
        current = index.PAGE.read_text(encoding="utf-8") == index.as_markdown()
        self.assertTrue(current, "python -m ao.sparsity.testing.index --write")


if __name__ == "__main__":
    unittest.main()

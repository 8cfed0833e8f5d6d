"""The captures, on calls that do exactly one thing."""

import gc
import unittest
import warnings

from ao.sparsity.testing import capture


class _Case(capture.WarnsCaller, unittest.TestCase):
    """A bare case with the assertion."""


class TestCapture(unittest.TestCase):
    def test_recorded_warnings_ignores_filters(self):
        """The same warning counts each time, whatever filters say, and the filters come back."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = list(warnings.filters)
            with capture.recorded_warnings() as caught:
                for _ in range(2):
                    warnings.warn("again")
            self.assertEqual(before, warnings.filters)
        self.assertEqual([str(w.message) for w in caught], ["again", "again"])

    def test_without_gc_restores_the_collector(self):
        """Off within, and as before after an error too."""
        self.assertTrue(gc.isenabled())
        with self.assertRaises(KeyError), capture.without_gc():
            self.assertFalse(gc.isenabled())
            raise KeyError
        self.assertTrue(gc.isenabled())

    def test_stdout_of_returns_the_text(self):
        """Everything printed, as it was."""
        self.assertEqual(capture.stdout_of(lambda: print("a", 1)), "a 1\n")

    def test_assert_warned_wants_number_text_category_and_file(self):
        """Each of the four is checked."""
        with capture.recorded_warnings() as caught:
            warnings.warn("mind the step")
        _Case().assertWarned(caught, "mind the step")
        wrong = [(caught, ()), (caught, ("the step",)), ([], ("mind the step",))]
        with capture.recorded_warnings() as other:
            warnings.warn("mind the step", FutureWarning)
        wrong.append((other, ("mind the step",)))
        with capture.recorded_warnings() as elsewhere:
            warnings.warn_explicit("mind the step", UserWarning, "elsewhere.py", 1)
        wrong.append((elsewhere, ("the step",)))
        for recorded, messages in wrong:
            with self.assertRaises(AssertionError):
                _Case().assertWarned(recorded, *messages)


if __name__ == "__main__":
    unittest.main()

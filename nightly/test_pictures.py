"""Tests of the pictures."""

import unittest

from nightly import pictures


class TestChart(unittest.TestCase):
    """Lines over days."""

    def test_chart_lies_within_its_frame(self):
        """Every point lies on the picture, the highest value at most at its top; the days are placed by rank."""
        found = pictures.chart([("a", [("2026-01-01", 1.0), ("2026-01-09", 41.0)]), ("b", [("2026-01-02", 0.0), ("2026-01-09", 3.0)])], "s")
        self.assertEqual([tick for tick, _ in found.ticks], ["0", "12.5", "25", "37.5", "50"])
        for line in found.lines:
            for point in line.points.split():
                x, y = map(float, point.split(","))
                self.assertTrue(found.left <= x <= found.right and 0 < y <= found.lower, point)
        self.assertEqual(found.lines[0].said, "41 s on 2026-01-09; 1 to 41 s on 2 nights")

    def test_chart_needs_two_points(self):
        """A line of one night is none, and without a line there is no picture."""
        self.assertIsNone(pictures.chart([("a", [("2026-01-01", 1.0)]), ("b", [])], "s"))

    def test_lines_can_be_told_apart(self):
        """Twenty-four lines differ in colour or dash."""
        found = pictures.chart([(str(number), [("a", 1.0), ("b", 2.0)]) for number in range(24)], "s")
        self.assertEqual(len({(line.colour, line.dash) for line in found.lines}), 24)

    def test_scale_ends_at_a_round_number(self):
        """The next of 1, 2, 4, 5, 8 times a power of ten."""
        for value, wanted in {0: 0.001, 0.9: 1, 1: 1, 3.1: 4, 41: 50, 700: 800, 900: 1000}.items():
            with self.subTest(value=value):
                self.assertAlmostEqual(pictures.nice_ceiling(value), wanted)


class TestSpark(unittest.TestCase):
    """A line as small as a word."""

    def test_spark_leaves_gaps(self):
        """A night without a value lifts the pen; the mark lies where its value would."""
        path, last, mark = pictures.spark([1.0, None, 0.5, 1.0], width=106, height=26)
        self.assertEqual(path.count("M"), 2)
        self.assertEqual(path.count("L"), 1)
        self.assertTrue(path.endswith(last))
        self.assertAlmostEqual(float(last.split(",")[1]), mark)

    def test_spark_of_nothing_is_empty(self):
        """Without values there is no line and no last point."""
        self.assertEqual(pictures.spark([None, None])[:2], ("", ""))


if __name__ == "__main__":
    unittest.main()

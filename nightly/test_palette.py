"""Tests of the outcomes' looks."""

import itertools
import unittest

from nightly import palette
from nightly.outcomes import OUTCOMES

THEMES = {"light": 2, "dark": 3}

CONTRAST, INK_CONTRAST = 3.0, 4.5


def luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb`` as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours as WCAG 2 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class TestPalette(unittest.TestCase):
    """What can be seen without seeing hue."""

    def test_every_outcome_has_a_look(self):
        """Each has a CSS class and a sign of its own."""
        self.assertEqual(set(palette.LOOKS), set(OUTCOMES))
        for column in (0, 1):
            values = [look[column] for look in palette.LOOKS.values()]
            self.assertEqual(len(set(values)), len(values), values)
        self.assertEqual(palette.sign_of(None), palette.ABSENT)

    def test_any_two_neighbours_are_seen_as_two(self):
        """In the fill, the edge or the stripes any two outcomes have a contrast of 3 to 1 (WCAG 2, 1.4.11)."""
        for theme, column in THEMES.items():
            for (one, look), (other, second) in itertools.combinations(palette.LOOKS.items(), 2):
                with self.subTest(theme=theme, one=one, other=other):
                    parts = [contrast(look[column][part], second[column][part]) for part in range(3)]
                    self.assertGreaterEqual(max(parts), CONTRAST, parts)

    def test_sign_can_be_read_on_its_cell(self):
        """The sign has a contrast of 4.5 to 1 with the fill and with the stripes (WCAG 2, 1.4.3)."""
        for theme, column in THEMES.items():
            for outcome, looks in palette.LOOKS.items():
                look = looks[column]
                for ground in {look.fill, look.stripe}:
                    with self.subTest(theme=theme, outcome=outcome, ground=ground):
                        self.assertGreaterEqual(contrast(look.ink, ground), INK_CONTRAST)

    def test_contrast_is_that_of_the_standard(self):
        """Black on white is 21 to 1, equal colours 1 to 1; #777777 on white is 4.48 to 1, the standard's own borderline."""
        self.assertAlmostEqual(contrast("#000000", "#ffffff"), 21)
        self.assertAlmostEqual(contrast("#123456", "#123456"), 1)
        self.assertAlmostEqual(contrast("#ffffff", "#777777"), 4.48, places=2)


if __name__ == "__main__":
    unittest.main()

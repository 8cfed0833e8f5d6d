"""The levels on cases small enough to check by hand."""

import unittest

from ao.sparsity.testing.oracles import levels


class TestLevels(unittest.TestCase):
    def test_cubic_follows_equation_1_at_the_updates(self):
        """From 0 to 0.8 in two updates: half way (1 - 1/2)^3 = 1/8 of the distance is left."""
        self.assertEqual([levels.cubic(0.0, 0.8, epoch, 0, 1, 2) for epoch in range(4)], [0.0, 0.8 * 7 / 8, 0.8, 0.8])

    def test_cubic_holds_the_level_between_updates(self):
        """With a frequency of 3 the level changes at the epochs 0, 3 and 6 only."""
        run = [levels.cubic(0.0, 1.0, epoch, 0, 3, 2) for epoch in range(8)]
        self.assertEqual(run, [0.0] * 3 + [0.875] * 3 + [1.0] * 2)

    def test_cubic_before_the_start_is_initial_or_zero(self):
        """Before t_0 nothing is pruned beyond s_0, or nothing at all."""
        self.assertEqual(levels.cubic(0.25, 0.5, 1, 2, 1, 4), 0.25)
        self.assertEqual(levels.cubic(0.25, 0.5, 1, 2, 1, 4, initially_zero=True), 0.0)
        self.assertEqual(levels.cubic(0.25, 0.5, 2, 2, 1, 4, initially_zero=True), 0.25)

    def test_cubic_may_fall(self):
        """A target below the initial level is approached from above."""
        self.assertEqual([levels.cubic(0.5, 0.0, epoch, 0, 1, 2) for epoch in range(3)], [0.5, 0.0625, 0.0])

    def test_scaled_multiplies_the_base(self):
        """One level an epoch, from epoch 0."""
        self.assertEqual(levels.scaled(0.5, lambda epoch: epoch, 3), [0.0, 0.5, 1.0])


if __name__ == "__main__":
    unittest.main()

"""The oracles of masks on cases that are checked by hand."""

import unittest

import numpy as np

from ao.sparsity.testing.oracles import masks


class TestBlocks(unittest.TestCase):
    def test_tile_row_by_row_and_are_cut_off_at_the_edges(self):
        """A 3 x 3 matrix in 2 x 2 blocks has four, of 4, 2, 2 and 1 elements."""
        numbered = np.arange(9).reshape(3, 3)
        self.assertEqual([numbered[block].ravel().tolist() for block in masks.blocks((3, 3), (2, 2))], [[0, 1, 3, 4], [2, 5], [6, 7], [8]])

    def test_norms_are_means_so_that_a_small_block_is_not_favoured(self):
        """Blocks [3, 4] and [2] have means 3.5 and 2, or 12.5 and 4 of the squares, or those of the given function."""
        for norm, expected in ((1, [3.5, 2]), (2, [12.5, 4]), (lambda x: x + 1, [0.5, -1])):
            with self.subTest(norm=norm):
                self.assertEqual(masks.block_norms([[3, -4, -2]], (1, 2), norm).tolist(), expected)

    def test_levels_become_numbers_of_blocks(self):
        """Below 0 none, at 1 all, between the nearest number, and never all below 1."""
        cases = {-1: 0, 0: 0, 0.1: 0, 0.2: 1, 0.5: 2, 0.8: 3, 0.99: 3, 1: 4, 1.5: 4}
        self.assertEqual({level: masks.blocks_to_prune(level, 4) for level in cases}, cases)


class TestWeightNormMask(unittest.TestCase):
    def test_prunes_the_blocks_of_lowest_norm(self):
        """Of the row 1 -2 | 3 -4 | 5 6 the first pair goes at a third, the first two pairs at two thirds."""
        weight = [[1, -2, 3, -4, 5, 6]]
        for level, expected in ((0, [1, 1, 1, 1, 1, 1]), (1 / 3, [0, 0, 1, 1, 1, 1]), (2 / 3, [0, 0, 0, 0, 1, 1]), (1, [0] * 6)):
            with self.subTest(level=level):
                self.assertEqual(masks.weight_norm_mask(weight, level, (1, 2)).tolist(), [expected])

    def test_prunes_the_smallest_elements_of_a_block(self):
        """Two zeros in each block of four: those of the smallest absolute values."""
        weight = [[1, -8, 3, -4, 8, 7, -6, 5]]
        self.assertEqual(masks.weight_norm_mask(weight, 1, (1, 4), 2).tolist(), [[0, 1, 0, 1, 1, 1, 0, 0]])
        self.assertEqual(masks.weight_norm_mask(weight, 0.5, (1, 4), 2).tolist(), [[0, 1, 0, 1, 1, 1, 1, 1]])

    def test_norms_may_disagree(self):
        """By absolute values [0, 5] is below [3, 3], by squares above."""
        self.assertEqual(masks.weight_norm_mask([[0, 5, 3, 3]], 0.5, (1, 2), norm=1).tolist(), [[0, 0, 1, 1]])
        self.assertEqual(masks.weight_norm_mask([[0, 5, 3, 3]], 0.5, (1, 2), norm=2).tolist(), [[1, 1, 0, 0]])

    def test_equal_norms_leave_the_mask_open(self):
        """With one of two equal blocks, or elements, to prune there is no one answer; with none or both there is."""
        for level, zeros in ((0.5, None), (1, 1)):
            with self.subTest(level=level), self.assertRaisesRegex(ValueError, "not determined"):
                masks.weight_norm_mask([[1, 1, 1, 1]], level, (1, 2), zeros)
        self.assertEqual(masks.weight_norm_mask([[1, 1, 1, 1]], 0, (1, 2)).tolist(), [[1, 1, 1, 1]])
        self.assertEqual(masks.weight_norm_mask([[1, 1, 1, 1]], 1, (1, 2)).tolist(), [[0, 0, 0, 0]])


class TestNearlyDiagonalMask(unittest.TestCase):
    def test_equals_the_matrices_of_the_docstring(self):
        """Degrees 3 and 5 of a 4 x 4 matrix as the sparsifier's documentation draws them, degree 1, and none."""
        cases = {
            -1: [[0, 0, 0, 0]] * 4,
            0: [[0, 0, 0, 0]] * 4,
            1: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
            3: [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]],
            5: [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]],
        }
        for nearliness, expected in cases.items():
            with self.subTest(nearliness=nearliness):
                self.assertEqual(masks.nearly_diagonal_mask((4, 4), nearliness).tolist(), expected)

    def test_follows_the_main_diagonal_of_a_matrix_that_is_not_square(self):
        """The main diagonal starts at the zero index and ends at the shorter side."""
        self.assertEqual(masks.nearly_diagonal_mask((2, 3), 1).tolist(), [[1, 0, 0], [0, 1, 0]])
        self.assertEqual(masks.nearly_diagonal_mask((3, 2), 1).tolist(), [[1, 0], [0, 1], [0, 0]])


if __name__ == "__main__":
    unittest.main()

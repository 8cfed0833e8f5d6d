"""The references for data, on cases that are checked by hand."""

import unittest

import numpy as np

from ao.sparsity.testing.oracles import data as oracle


class TestDataNormMask(unittest.TestCase):
    """data_norm_mask"""

    def check(self, data, expected, *args, **kwargs):
        actual = oracle.data_norm_mask(np.array(data), *args, **kwargs)
        self.assertEqual(actual.tolist(), expected)
        self.assertEqual(actual.dtype, np.int8)

    def test_the_lowest_blocks_are_zeroed(self):
        """Ratings 3, 1, 2, 4: at level one half the two middle ones go."""
        self.check([[3, 3, 1, 1], [2, 2, 4, 4]], [[1, 1, 0, 0], [0, 0, 1, 1]], 0.5, (1, 2))

    def test_signs_do_not_count(self):
        """The mean of -9 and 9 is 0, its L1 rating 9."""
        self.check([[-9, 9, 2, 2]], [[1, 1, 0, 0]], 0.5, (1, 2))

    def test_level_is_rounded_half_to_even_and_clipped(self):
        """Five blocks: level one half prunes two; levels beyond the ends prune none or all."""
        self.check([[1, 2, 3, 4, 5]], [[0, 0, 1, 1, 1]], 0.5, (1, 1))
        self.check([[1, 2, 3, 4, 5]], [[1, 1, 1, 1, 1]], -0.3, (1, 1))
        self.check([[1, 2, 3, 4, 5]], [[0, 0, 0, 0, 0]], 1.7, (1, 1))

    def test_zeros_per_block_are_its_smallest_elements(self):
        """One of 4, -1, 3 and two of them."""
        self.check([[4, -1, 3]], [[1, 0, 1]], 1, (1, 3), 1)
        self.check([[4, -1, 3]], [[1, 0, 0]], 1, (1, 3), 2)

    def test_cut_off_blocks_count_by_their_mean(self):
        """A single 5 at the edge outranks the block 4, 4; an element missing there is no zero."""
        self.check([[4, 4, 5]], [[0, 0, 1]], 0.5, (1, 2))
        self.check([[4, 5, 6]], [[0, 1, 0]], 1, (1, 2), 1)

    def test_norms_differ_where_the_largest_element_decides(self):
        """L1 means 3 and 2.5, mean squares 9 and 12.5."""
        self.check([[3, 3, 5, 0]], [[1, 1, 0, 0]], 0.5, (1, 2), norm="L1")
        self.check([[3, 3, 5, 0]], [[0, 0, 1, 1]], 0.5, (1, 2), norm="L2")

    def test_ties_take_the_first(self):
        """Of equal blocks, and of equal elements in a block, the first one goes."""
        self.check([[7, 7], [7, 7]], [[0, 0], [1, 1]], 0.5, (1, 2))
        self.check([[7, 7, 7]], [[0, 1, 1]], 1, (1, 3), 1)


class TestQuantizedRows(unittest.TestCase):
    """row_qparams, quantize_rows, dequantize_rows"""

    def test_the_range_of_a_row_takes_all_levels(self):
        """A row from -1 to 2 in four levels: scale 1, zero point 1."""
        weight = np.array([[-1.0, 0.4, 0.6, 2.0]])
        scales, zero_points = oracle.row_qparams(weight, levels=4)
        self.assertEqual((scales.tolist(), zero_points.tolist()), ([1.0], [1.0]))
        integers = oracle.quantize_rows(weight, scales, zero_points, levels=4)
        self.assertEqual(integers.tolist(), [[0, 1, 2, 3]])
        self.assertEqual(oracle.dequantize_rows(integers, scales, zero_points).tolist(), [[-1.0, 0.0, 1.0, 2.0]])

    def test_a_constant_row_has_scale_one(self):
        """There is no range to divide; the zero point still maps the value to 0."""
        scales, zero_points = oracle.row_qparams(np.array([[3.0, 3.0]]))
        self.assertEqual((scales.tolist(), zero_points.tolist()), ([1.0], [-3.0]))
        self.assertEqual(oracle.dequantize_rows(np.array([[0, 0]]), scales, zero_points).tolist(), [[3.0, 3.0]])

    def test_values_beyond_the_range_are_clipped(self):
        """Below the first and above the last level."""
        self.assertEqual(oracle.quantize_rows(np.array([[-5.0, 9.0]]), np.ones(1), np.zeros(1), levels=4).tolist(), [[0, 3]])


class TestBags(unittest.TestCase):
    """bags"""

    def test_modes_and_an_empty_bag(self):
        """Rows (1, 2), (3, 4), (5, 6): bags of two, none and one."""
        weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        for mode, first in (("sum", [4.0, 6.0]), ("mean", [2.0, 3.0]), ("max", [3.0, 4.0])):
            with self.subTest(mode=mode):
                self.assertEqual(oracle.bags(weight, [0, 1, 2], [0, 2, 2], mode).tolist(), [first, [0.0, 0.0], [5.0, 6.0]])


if __name__ == "__main__":
    unittest.main()
